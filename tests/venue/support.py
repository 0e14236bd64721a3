"""A venue made of a bare TCP server that does to the worker whatever a test wants, and a port that remembers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from random import Random
from typing import Any

from websockets.frames import Frame, Opcode

from worker.config.secret import Secret
from worker.config.structs import Venue
from worker.venue.pool import Pool
from worker.venue.socket import Limits

KEY = "PJ4TTGKBQ5QA"
SECRET = "k3y0nly4testz9q7w2m5x8c1v6b0n4ht"
HELLO = b'{"type":"hello","ts":"2026-03-09T14:07:05.201377Z","session_id":"2Q7DKM41VXR00"}'


class Recorder:
    """A VenuePort that keeps what it is told and lets a test wait for it."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.on_frame: Callable[[int, bytes], None] = lambda session, data: None
        self._news = asyncio.Event()

    def session_opened(self, session: int, slot: int) -> None:
        self._note("opened", session, slot)

    def frames_received(self, session: int, messages: list[bytes]) -> None:
        assert messages
        for data in messages:
            assert type(data) is bytes
            self._note("frame", session, data)
            self.on_frame(session, data)

    def session_lost(self, session: int, reason: str) -> None:
        assert_fit_for_people(reason)
        self._note("lost", session, reason)

    def attempt_failed(self, slot: int, reason: str) -> None:
        assert_fit_for_people(reason)
        self._note("failed", slot, reason)

    def batch_ended(self) -> None:
        self._note("batch")

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [what[1:] for what in self.told if what[0] == kind]

    @property
    def frames(self) -> list[bytes]:
        return [data for _, data in self.of("frame")]

    @property
    def reasons(self) -> list[str]:
        return [what[2] for what in self.told if what[0] in ("lost", "failed")]

    async def until(self, condition: Callable[[], object], within: float = 5.0) -> None:
        async with asyncio.timeout(within):
            while not condition():
                self._news.clear()
                await self._news.wait()

    def _note(self, *what: Any) -> None:
        self.told.append(what)
        self._news.set()


def assert_fit_for_people(reason: str) -> None:
    assert reason.isascii()
    assert reason.isprintable()
    assert len(reason) < 400
    for secret in (KEY, SECRET):
        assert secret not in reason


class Peer:
    """The venue's side of one connection. ``headers`` are those of the upgrade request, names in lower case."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.path = ""
        self.headers: dict[str, str] = {}

    async def read_request(self) -> None:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
        self.path = head[0].split(" ")[1]
        self.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head[1:] if line)}

    def acceptance(self) -> bytes:
        digest = hashlib.sha1(
            (self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()
        ).digest()
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            + base64.b64encode(digest)
            + b"\r\n\r\n"
        )

    async def accept(self) -> None:
        await self.read_request()
        self.write(self.acceptance())

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def read_frame(self) -> tuple[int, bytes]:
        """Opcode and unmasked payload of the worker's next frame."""
        head = await self.reader.readexactly(2)
        assert head[1] & 0x80, "a client masks"
        length = head[1] & 0x7F
        if length == 126:
            length = int.from_bytes(await self.reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await self.reader.readexactly(8), "big")
        mask = await self.reader.readexactly(4)
        data = await self.reader.readexactly(length)
        return head[0] & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


Behaviour = Callable[[Peer], Awaitable[None]]


class RawVenue:
    """Runs ``behaviour`` for every connection; the last one of a list for all that follow."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self._behaviours = behaviours
        self.peers: list[Peer] = []
        self.arrivals: list[float] = []
        self.most_upgrading = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(reader, writer)
        self.arrivals.append(asyncio.get_running_loop().time())
        self.peers.append(peer)
        behaviour = self._behaviours[min(len(self.peers), len(self._behaviours)) - 1]
        try:
            await behaviour(peer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[RawVenue]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def settings(port: int, **changes: Any) -> Venue:
    """Short waits, one session."""
    given: dict[str, Any] = {
        "url": f"ws://127.0.0.1:{port}/ws/v1",
        "sessions": 1,
        "connect_timeout": 2.0,
        "reconnect_min": 0.01,
        "reconnect_max": 0.05,
        "stable_after": 0.05,
        "auth_retry_min": 0.4,
    }
    return Venue(**(given | changes))


def credentials() -> tuple[Secret, Secret]:
    return Secret(KEY), Secret(SECRET)


@contextlib.asynccontextmanager
async def running(venue: Venue, port: Recorder, **more: Any) -> AsyncIterator[Pool]:
    """A pool that runs, and is closed at the end."""
    more.setdefault("credentials", credentials)
    more.setdefault("rng", Random(7))
    more.setdefault("limits", Limits(close_timeout=0.1))
    pool = Pool(venue=venue, port=port, **more)
    run = asyncio.create_task(pool.run())
    try:
        yield pool
    finally:
        async with asyncio.timeout(5):
            await pool.close()
            await run


def served(opcode: Opcode, payload: bytes, fin: bool = True) -> bytes:
    """One frame as a server writes it: unmasked."""
    return Frame(opcode, payload, fin).serialize(mask=False)


def text(payload: bytes, fin: bool = True) -> bytes:
    return served(Opcode.TEXT, payload, fin)


async def stay(peer: Peer) -> None:
    """Accept, say hello, and keep quiet until the worker goes."""
    await peer.accept()
    peer.write(text(HELLO))
    while True:
        opcode, data = await peer.read_frame()
        if opcode == Opcode.CLOSE:
            peer.write(served(Opcode.CLOSE, data))
            return


def close(code: int | None, reason: str = "") -> bytes:
    return served(Opcode.CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason.encode())


def slices(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]
