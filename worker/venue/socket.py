"""One session's WebSocket: an asyncio.Protocol over websockets' sans-I/O ``ClientProtocol``.

Text goes in and out as bytes, synchronously: no queue, no task per message. websockets does the upgrade, control
frames, fragments, closing and every error; a whole text frame, which is nearly all that comes, is cut out here instead,
because its parser, a generator resumed several times a frame, costs more than everything else on the way (bench in
tests/venue).
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple, cast

from websockets.client import ClientProtocol
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.uri import WebSocketURI

from worker.config.addresses import VenueAddress
from worker.errors import VenueError
from worker.venue.port import VenuePort
from worker.venue.reasons import close_frame, network_error, protocol_error
from worker.venue.upgrade import HEAD_END, refusal, status_of

CLOSED_BY_US: Final = "closed by the worker"
BODY_WAIT: Final = 0.5  # seconds for the body of a refusal; its status is enough
_WHOLE_TEXT: Final = 0x81  # FIN and opcode 1: a text message in one frame
_WHOLE_TEXT_OF_16: Final = 0x817E  # the same with a length of 16 bits behind it
_read_head = struct.Struct(">HH").unpack_from

# Not in the tree of loggers: at DEBUG the library would print the headers of the log-in (faults W13).
_SILENT: Final = logging.Logger("websockets", logging.CRITICAL + 1)  # noqa: LOG001 - see above


class Limits(NamedTuple):
    """Of one session.

    max_message: bytes of one received; max_unsent: bytes waiting to leave; close_timeout: seconds for the closing
    handshake.
    """

    max_message: int = 16 * 1024 * 1024
    max_unsent: int = 8 * 1024 * 1024
    close_timeout: float = 1.0


class VenueSocket(asyncio.Protocol):
    """From the TCP connection to its end: ``upgrade`` first; then ``send``, ``close`` and ``abort``, in any state.

    ``on_opened`` is called when the upgrade has succeeded, ``on_ended`` once, and last, when an opened socket has
    ended; both, and the port, from the loop, never from within one of these methods.
    """

    def __init__(
        self,
        session: int,
        address: VenueAddress,
        port: VenuePort,
        limits: Limits,
        on_opened: Callable[[VenueSocket], None],
        on_ended: Callable[[VenueSocket, str], None],
    ) -> None:
        self.session = session
        self._port = port
        self._on_opened = on_opened
        self._on_ended = on_ended
        self._limits = limits
        uri = WebSocketURI(address.tls, address.host, address.port, address.path, "")
        self._protocol = ClientProtocol(uri, max_size=limits.max_message, logger=_SILENT)
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._upgraded: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()
        self._secrets: tuple[str, ...] = ()
        self._head = bytearray()  # of the answer to the upgrade
        self._head_whole = False
        self._opened = False
        self._ended = False
        self._why: str | None = None  # the reason of an ending that began here
        self._dropped = False
        self._unflushed = False
        self._linger: asyncio.TimerHandle | None = None
        self._cut = bytearray()  # the beginning of a frame
        self._cut_needs = 0  # bytes it must have before it is worth another look
        self._fragments: list[bytes] | None = None

    # ---- for the pool -----------------------------------------------------------------------------------------------

    @property
    def opened(self) -> bool:
        """Whether the upgrade succeeded, at whatever time."""
        return self._opened

    async def upgrade(self, headers: Mapping[str, str]) -> None:
        """Ask for the upgrade, with these headers added. Raises VenueRefused (a status other than 101) or VenueError.

        The caller limits the time and aborts on failure. A header's value never shows in a reason.
        """
        self._secrets = tuple(headers.values())
        request = self._protocol.connect()
        request.headers["User-Agent"] = "cancel-worker"
        for name, value in headers.items():
            request.headers[name] = value
        self._protocol.send_request(request)
        self._write_pending()
        await self._upgraded

    def send(self, data: bytes) -> None:
        """One text message; it leaves with the others of this turn at ``flush``, or by itself at the end of the turn.

        Nothing is sent on a session that has ended or is closing; a peer that does not read is dropped at
        ``max_unsent``.
        """
        if not self._dropped and self._protocol.state is State.OPEN:
            self._protocol.send_text(data)
            if not self._unflushed:
                self._unflushed = True
                self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Hand what was sent to the transport, in one write. It may have arrived whatever happens next (faults I12)."""
        if self._unflushed:
            self._unflushed = False
            self._write_pending()

    async def close(self) -> None:
        """Close in order, within ``close_timeout``; messages that arrive meanwhile are still told."""
        if not self._dropped and self._protocol.state is State.OPEN:
            self._why = CLOSED_BY_US
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._write_pending()
        try:
            if self._transport is not None:
                await asyncio.wait([self._gone], timeout=self._limits.close_timeout)
        finally:
            self.abort(CLOSED_BY_US)

    def abort(self, reason: str) -> None:
        """Drop the connection at once; what is still unsent is lost. It is told in the next turn of the loop."""
        self._dropped = True
        self._why = self._why or reason
        if self._transport is not None:
            self._transport.abort()
        if not self._ended:
            self._loop.call_soon(self._conclude, self._why)

    # ---- asyncio.Protocol ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._ended or self._dropped:
            return
        if not self._opened:
            data = self._answer(data)
        if self._opened:
            self._frames(data)
            self._port.batch_ended()

    def eof_received(self) -> None:
        if not self._opened:
            self._protocol.receive_eof()
            self._refuse("the venue closed the connection during the upgrade")
        middle = " in the middle of a message" if self._cut or self._fragments else ""
        self._conclude(self._why or f"the venue closed the connection without a close frame{middle}")

    def connection_lost(self, exc: Exception | None) -> None:
        if self._linger is not None:
            self._linger.cancel()
        reason = self._why or network_error(exc)
        if not self._opened:
            self._refuse(f"connection lost during the upgrade: {reason}")
        if not self._gone.done():
            self._gone.set_result(None)
        self._conclude(reason)

    # ---- the upgrade -----------------------------------------------------------------------------------------------

    def _answer(self, data: bytes) -> bytes:
        """Take the venue's answer to the upgrade; gives what comes after it, once it has succeeded."""
        rest = b""
        if not self._head_whole:
            seen = max(0, len(self._head) - len(HEAD_END) + 1)
            self._head += data
            end = self._head.find(HEAD_END, seen)
            if end >= 0:
                self._head_whole = True
                beyond = len(self._head) - end - len(HEAD_END)
                data, rest = data[: len(data) - beyond], data[len(data) - beyond :]
                del self._head[end + len(HEAD_END) :]
        self._protocol.receive_data(data)
        if self._protocol.state is State.CONNECTING and rest:
            self._protocol.receive_data(rest)  # the body of a refusal
        if self._protocol.state is State.OPEN:
            self._protocol.events_received()
            self._opened = True
            self._on_opened(self)
            if not self._upgraded.done():
                self._upgraded.set_result(None)
            return rest
        if self._protocol.handshake_exc is not None:
            self._refuse("refused")
        elif self._head_whole:
            self._loop.call_later(BODY_WAIT, self._refuse, "refused")
        return b""

    def _refuse(self, otherwise: str) -> None:
        """Fail the upgrade: with the status that came, with what was wrong about the answer, or with ``otherwise``."""
        if self._opened or self._upgraded.done():
            return
        error: VenueError
        status, fault = status_of(bytes(self._head)) if self._head_whole else 0, self._protocol.handshake_exc
        if status == 101 and fault is not None:
            error = VenueError(f"upgrade: {protocol_error(fault)}")
        elif status:
            bodies = [bytes(event.body) for event in self._protocol.events_received() if isinstance(event, Response)]
            error = refusal(bytes(self._head), b"".join(bodies), self._secrets, datetime.now(UTC))
        elif fault is not None and not isinstance(fault.__cause__, EOFError):
            error = VenueError("upgrade: the answer is not HTTP")
        else:
            error = VenueError(f"upgrade: {otherwise}")
        self._upgraded.set_exception(error)
        self._upgraded.exception()  # seen, even if nobody waits any more

    # ---- receiving -------------------------------------------------------------------------------------------------

    def _frames(self, data: bytes) -> None:
        """Cut ``data`` into frames.

        Text messages in one frame each are told together, anything else is websockets' business.
        """
        if self._cut:
            self._cut += data
            if len(self._cut) < self._cut_needs:
                return
            data = bytes(self._cut)
            self._cut.clear()
        most = self._limits.max_message
        whole: list[bytes] = []
        at, end = 0, len(data)
        last_head = end - 4
        while at < end:
            if at <= last_head and self._fragments is None:
                head, length = _read_head(data, at)
                if head == _WHOLE_TEXT_OF_16 and length <= most:  # what most reports are: 126 to 65,535 bytes
                    stop = at + 4 + length
                    if stop <= end:
                        whole.append(data[at + 4 : stop])
                        at = stop
                        continue
            start, stop = _extent(data, at, end)
            if start and stop - start > most:
                self._tell(whole)
                self._feed(data[at:])  # refused for what its header says
                return
            if stop > end:
                self._cut += data[at:]
                self._cut_needs = stop - at
                break
            if data[at] == _WHOLE_TEXT and self._fragments is None and start < stop:
                whole.append(data[start:stop])
            else:
                whole = self._tell(whole)
                self._feed(data[at:stop])
                if self._ended or self._dropped:
                    return
            at = stop
        self._tell(whole)

    def _tell(self, messages: list[bytes]) -> list[bytes]:
        """Tell what has come, in order with what is told otherwise; a new list for what comes next."""
        if not messages:
            return messages
        self._port.frames_received(self.session, messages)
        return []

    def _feed(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        self._write_pending()
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._control_or_part(event)
        if self._protocol.parser_exc is not None:
            self._finish(protocol_error(self._protocol.parser_exc))

    def _control_or_part(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self._finish(self._why or close_frame(self._protocol.close_rcvd or Close(1005, ""), self._secrets))
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            parts = self._fragments or []
            parts.append(bytes(frame.data))
            self._fragments = None if frame.fin else parts
            if frame.fin:
                self._port.frames_received(self.session, [b"".join(parts)])

    # ---- leaving ---------------------------------------------------------------------------------------------------

    def _write_pending(self) -> None:
        """Give the transport what websockets has to say. Its sign for EOF is empty: the transport sees to that."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        data = b"".join(self._protocol.data_to_send())
        if data:
            transport.write(data)
        unsent = transport.get_write_buffer_size()
        if unsent > self._limits.max_unsent:
            self.abort(f"the venue does not read: {unsent} bytes unsent")

    def _finish(self, reason: str) -> None:
        """The one ending, told once. The connection may linger for ``close_timeout``: our close frame must get out."""
        if self._ended:
            return
        self._ended = True
        if self._transport is not None and not self._gone.done():
            self._linger = self._loop.call_later(self._limits.close_timeout, self._transport.abort)
        if self._opened:
            self._on_ended(self, reason)

    def _conclude(self, reason: str) -> None:
        """An ending that comes by itself, not within a batch of frames."""
        if not self._ended:
            self._finish(reason)
            if self._opened:
                self._port.batch_ended()


def _extent(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Where the payload of the frame at ``at`` starts and the frame stops.

    If the header is not whole, start is 0 and stop is where it would be. A header that is wrong by itself (an unknown
    opcode, a mask) reads as a frame of nothing else, so that websockets refuses it at once.
    """
    if end - at < 2:
        return 0, at + 2
    length = data[at + 1]
    if data[at] & 0x07 > 2:  # opcodes are 0, 1, 2, 8, 9 and 10
        return at + 2, at + 2
    if length < 126:
        return at + 2, at + 2 + length
    if length == 126:
        if end - at < 4:
            return 0, at + 4
        return at + 4, at + 4 + (data[at + 2] << 8 | data[at + 3])
    if length == 127:
        if end - at < 10:
            return 0, at + 10
        return at + 10, at + 10 + int.from_bytes(data[at + 2 : at + 10], "big")
    return at + 2, at + 2
