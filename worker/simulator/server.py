"""Sockets of the simulated venue: the upgrade, one line per session, every way a line can break."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import struct
import time
from http import HTTPStatus
from typing import Protocol

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from worker.simulator.ledger import Upgrade
from worker.simulator.login import Gate
from worker.simulator.script import Connect, How, Script
from worker.simulator.session import Session

# A reset must not overtake bytes that the loop has not handed to the kernel yet.
_SETTLE_S = 0.01
_RESET = struct.pack("ii", 1, 0)


class ServerPort(Protocol):
    """What the sockets need of the venue."""

    script: Script

    def now_us(self) -> int: ...
    def next_attempt(self) -> tuple[int, Connect]: ...
    def attempted(self, upgrade: Upgrade) -> None: ...
    def open_session(self, key: str, rule: Connect, line: SocketLine) -> Session: ...
    def session_over(self, session: Session) -> None: ...
    def session_count(self) -> int: ...
    def touched(self) -> None: ...
    def broke(self, error: Exception) -> None: ...


class SocketLine:
    """The write side of one WebSocket, synchronous, so that a frame is out before the next line of code runs."""

    def __init__(self, connection: ServerConnection, cut_after_bytes: int, cut_how: How, max_backlog: int) -> None:
        self._connection = connection
        self._left = cut_after_bytes or None
        self._cut_how = cut_how
        self._max_backlog = max_backlog
        self._held: list[bytes] = []
        self._over = False
        self._task: asyncio.Task[None] | None = None
        self.stalled = False
        self.bytes_sent = 0

    def cut_after_bytes(self, count: int, how: How) -> None:
        self._left, self._cut_how = count, how

    def write(self, frame: bytes) -> None:
        if self._connection.protocol.state is not State.OPEN:
            self._over = True
        if self._over:
            return
        self._connection.protocol.send_text(frame)
        for chunk in self._connection.protocol.data_to_send():
            self._raw(chunk)

    def _raw(self, chunk: bytes) -> None:
        if self.stalled:
            self._held.append(chunk)
            return
        if self._over:
            return
        if self._left is not None:
            chunk = chunk[: self._left]
            self._left -= len(chunk)
        self.bytes_sent += len(chunk)
        transport = self._connection.transport
        transport.write(chunk)
        if self._left == 0:
            self.end(self._cut_how)
        elif transport.get_write_buffer_size() > self._max_backlog:
            self.end("reset")

    def end(self, how: How) -> None:
        """Ends the line; later writes are dropped."""
        if self._over:
            return
        self._over = True
        loop = asyncio.get_running_loop()
        if isinstance(how, int):
            self._task = loop.create_task(self._connection.close(how, "scripted"))
        else:
            loop.call_later(_SETTLE_S, self._sever, how == "reset")

    def _sever(self, reset: bool) -> None:
        transport = self._connection.transport
        raw = transport.get_extra_info("socket")
        if raw is not None and not transport.is_closing():
            with contextlib.suppress(OSError):
                if reset:
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()

    def stall(self) -> None:
        """Half-open: reads nothing, sends nothing, keeps the TCP connection."""
        if not self.stalled:
            self.stalled = True
            self._connection.transport.pause_reading()

    def resume(self) -> None:
        """Sends what was held and reads on."""
        if not self.stalled:
            return
        self.stalled = False
        held, self._held = self._held, []
        for chunk in held:
            self._raw(chunk)
        with contextlib.suppress(RuntimeError):
            self._connection.transport.resume_reading()

    @property
    def over(self) -> bool:
        return self._over


class VenueServer:
    """Listens, decides on upgrades, runs sessions."""

    def __init__(self, venue: ServerPort, gate: Gate, tls: ssl.SSLContext | None) -> None:
        self._venue, self._gate, self._tls = venue, gate, tls
        self._admitted: dict[ServerConnection, tuple[str, Connect]] = {}
        self._server: Server | None = None
        self._closing = asyncio.Event()
        self.running = asyncio.Event()
        self.running.set()

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Opens the listening socket; the address it got. OSError if it is taken."""
        frames = self._venue.script.frames
        # Clients that vanish are this server's daily business, not a traceback on somebody's terminal.
        quiet = logging.getLogger("worker.simulator.sockets")
        quiet.propagate = False
        quiet.addHandler(logging.NullHandler())
        self._server = await serve(
            self._serve_session, host, port, process_request=self._decide, compression=None, ssl=self._tls,
            max_size=frames.max_frame, ping_interval=frames.ping_interval or None, ping_timeout=None,
            open_timeout=None, close_timeout=0.5, server_header="venue-simulator", logger=quiet, max_queue=64,
        )  # fmt: skip
        address = next(iter(self._server.sockets)).getsockname()
        return str(address[0]), int(address[1])

    async def stop(self) -> None:
        """Ends everything at once; no session is left to finish."""
        self._closing.set()
        self.running.set()
        if self._server is not None:
            self._server.close()
            for connection in list(self._admitted):
                connection.transport.abort()
            await self._server.wait_closed()

    # -- upgrade -------------------------------------------------------------------------------------------------

    async def _decide(self, connection: ServerConnection, request: Request) -> Response | None:
        await self.running.wait()
        number, rule = self._venue.next_attempt()
        headers = request.headers
        key, sign, timestamp = (_single(headers, name) for name in ("ApiKey", "ApiSign", "ApiTimestamp"))
        response = self._answer(rule, request)
        status = rule.status or (response.status_code if response is not None else 101)
        self._venue.attempted(Upgrade(number, time.monotonic(), status, timestamp, sign))
        if rule.status == -1:
            await self._until_gone(connection)
            return _refuse(503, "closing")
        if response is None:
            self._admitted[connection] = (key or "", rule)
        return response

    def _answer(self, rule: Connect, request: Request) -> Response | None:
        login = self._venue.script.login
        if rule.status > 0:
            return _refuse(rule.status, "scripted", rule.retry_after, rule.location)
        headers = request.headers
        key, sign, timestamp = (_single(headers, name) for name in ("ApiKey", "ApiSign", "ApiTimestamp"))
        host, now_us = _single(headers, "Host") or "", self._venue.now_us()
        refusal = self._gate.check(key=key, sign=sign, timestamp=timestamp, host=host, path=request.path, now_us=now_us)
        if refusal is not None:
            return _refuse(refusal.status, refusal.text)
        if login.max_sessions and self._venue.session_count() >= login.max_sessions:
            return _refuse(login.max_sessions_status, "too many sessions")
        return None

    async def _until_gone(self, connection: ServerConnection) -> None:
        """Waits until the client gives up or the venue closes."""
        waits = {asyncio.create_task(self._closing.wait()), asyncio.create_task(connection.wait_closed())}
        _, left = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()

    # -- session -------------------------------------------------------------------------------------------------

    async def _serve_session(self, connection: ServerConnection) -> None:
        key, rule = self._admitted[connection]
        frames = self._venue.script.frames
        line = SocketLine(connection, rule.cut_after_bytes, rule.cut_how, frames.max_backlog)
        session = self._venue.open_session(key, rule, line)
        loop = asyncio.get_running_loop()
        timers: list[asyncio.TimerHandle] = []
        if rule.hello_delay:
            timers.append(loop.call_later(rule.hello_delay, session.greet))
        else:
            session.greet()
        if rule.cut_after:
            timers.append(loop.call_later(rule.cut_after, session.end, rule.cut_how))
        try:
            while True:
                data = await connection.recv(decode=False)
                if line.stalled:
                    await self._until_resumed(line)
                session.ended = session.ended or line.over
                self._take(session, data)
        except ConnectionClosed:
            pass
        finally:
            for timer in timers:
                timer.cancel()
            session.ended = True
            del self._admitted[connection]
            self._venue.session_over(session)

    def _take(self, session: Session, data: bytes) -> None:
        try:
            session.receive(data)
        except Exception as error:  # noqa: BLE001 - a fault of the simulator ends the test, not the server
            self._venue.broke(error)
            session.end(1011)
        self._venue.touched()

    async def _until_resumed(self, line: SocketLine) -> None:
        while line.stalled and not self._closing.is_set():
            await asyncio.sleep(0.01)


def _single(headers: Headers, name: str) -> str | None:
    """A header that stands exactly once."""
    found = headers.get_all(name)
    return found[0] if len(found) == 1 else None


def _refuse(status: int, text: str, retry_after: str | None = None, location: str | None = None) -> Response:
    body = f"{text}\n".encode()
    headers = Headers({"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))})
    headers["Connection"] = "close"
    if retry_after is not None:
        headers["Retry-After"] = retry_after
    if location is not None:
        headers["Location"] = location
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Refused"
    return Response(status, phrase, headers, body)
