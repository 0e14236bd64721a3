"""One AMQP connection: it is coming up, up, or lost for good. It never heals itself; whoever uses it makes a new one.

A ``Link`` belongs to one consumer or publisher (its ``LinkUser``). Frames go out through ``write``, collected and
handed to the socket once per turn of the loop. Loss is told once, in the same step in which it is noticed, and nothing
is told after it. Every wait has a limit (faults I8), and a broker that is silent for two heartbeats is lost (A17).

What the user raises is a bug: the link is dropped, and ``ended`` raises it.
"""

from __future__ import annotations

import asyncio
from typing import Final, Literal, Protocol, cast

from msgspec import Struct

from worker import __version__
from worker.broker import methods
from worker.broker.codec import FRAME_MAX, FRAME_MIN, HEARTBEAT, PROTOCOL_HEADER, ContentReceiver, Parser
from worker.broker.fields import AmqpSyntaxError, Reader
from worker.config.secret import Secret
from worker.errors import BrokerError, BrokerRefusedError

CHANNEL_MAX: Final = 16
"""Channels of a connection that we ask for; two are used."""
TICKS: Final = 4
"""Looks at the connection per heartbeat interval."""
SILENT_TICKS: Final = 2 * TICKS - 1
"""Looks in a row without a byte received after which the link is lost: 1.75 to 2 intervals after the last byte.

Looks are counted rather than time measured, so that a stall of our own loop costs no link that is well (faults A26)."""
CLOSE_WITHIN_S: Final = 2.0
"""Seconds that an orderly close may take, if the caller says nothing else (faults A18)."""

_REFUSALS: Final = (methods.ACCESS_REFUSED, methods.NOT_ALLOWED)
_CAPABILITIES: Final = {
    "publisher_confirms": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}


class LogIn(Struct, frozen=True):
    """Who we are to the broker. ``user`` None: told by the TLS client certificate alone (mechanism EXTERNAL).

    ``name`` is the connection's, as operators see it; ``heartbeat_s`` is asked for as it is, the broker agrees.
    """

    user: str | None
    password: Secret
    vhost: str
    name: str
    heartbeat_s: int


class LinkUser(ContentReceiver, Protocol):
    """Whom a link tells. All calls come from the loop; ``lost`` is the last one."""

    def channel_closed(self, channel: int, reason: str) -> None:
        """The broker closed a channel on which no answer was awaited. The number may be opened again."""

    def consumer_canceled(self, channel: int) -> None:
        """The broker ended a consumer by itself: its queue is gone."""

    def blocked(self, reason: str | None) -> None:
        """The broker reads nothing from us (a reason), or does again (None)."""

    def lost(self, reason: str) -> None:
        """The link is gone. Called once, and only if ``hand_shake`` was done."""

    def batch_ended(self) -> None:
        """All that one read had to tell was told."""


class ChannelClosedError(BrokerError):
    """The broker closed the channel on which an answer was awaited; ``code`` is AMQP's, such as 404."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(text)


class Link(asyncio.Protocol):
    """See the module. Made by ``Dial``, which calls ``hand_shake`` first.

    ``bytes_received``, ``bytes_sent`` and ``frame_max`` may be read at any time.
    """

    def __init__(self, log_in: LogIn, user: LinkUser, rpc_timeout_s: float) -> None:
        self.bytes_received = 0
        self.bytes_sent = 0
        self.frame_max = FRAME_MAX
        self._log_in = log_in
        self._user = user
        self._rpc_timeout_s = rpc_timeout_s
        self._loop = asyncio.get_running_loop()
        self._parser = Parser(self)
        # Deliveries, returns and confirms are many: the parser hands them to the user without asking here.
        self.delivered = user.delivered
        self.returned = user.returned
        self.confirmed = user.confirmed
        self._transport: asyncio.Transport | None = None
        self._state: Literal["starting", "up", "lost"] = "starting"
        self._out: list[bytes] = []
        self._flush_due = False
        self._heard = False
        self._spoke = False
        self._silent_ticks = 0
        self._ticker: asyncio.TimerHandle | None = None
        self._answers: dict[int, tuple[int, asyncio.Future[bytes]]] = {}
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._reason = ""
        self._close_sent = False

    # -- life ---------------------------------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """True from the end of ``hand_shake`` to the loss."""
        return self._state == "up"

    @property
    def write_buffer_bytes(self) -> int:
        """Bytes written that the socket has not taken: grows while the broker reads nothing (faults A6)."""
        waiting = sum(map(len, self._out))
        if self._transport is not None and self._state != "lost":
            waiting += self._transport.get_write_buffer_size()
        return waiting

    async def hand_shake(self) -> None:
        """Log in, agree on limits, open the virtual host. The caller sets the time limit.

        Raises BrokerRefusedError if the broker says no to us, BrokerError on anything else.
        """
        try:
            await self._hand_shake()
        except ConnectionResetError as error:
            if self._ended.done():
                self._ended.result()  # raises a bug of the user's
            raise BrokerError(str(error)) from None
        except AmqpSyntaxError as error:
            raise BrokerError(f"the broker broke the protocol: {error}") from None
        if self._ended.done():  # between open-ok and this step
            raise BrokerError(self._reason)
        self._state = "up"

    async def _hand_shake(self) -> None:
        log_in = self._log_in
        start = methods.read_start(await self._expect(0, PROTOCOL_HEADER, methods.CONNECTION_START))
        mechanism, response = _mechanism(log_in, start.mechanisms)
        properties: dict[str, object] = {
            "product": "cancel-worker",
            "version": __version__,
            "platform": "Python",
            "connection_name": log_in.name,
            "capabilities": _CAPABILITIES,
        }
        start_ok = methods.encode_start_ok(properties, mechanism, response)
        try:
            tune = methods.read_tune(await self._expect(0, start_ok, methods.CONNECTION_TUNE))
        except ConnectionResetError:
            # A broker without authentication_failure_close says no by closing the socket (AMQP 0-9-1, 2.2.4).
            raise BrokerRefusedError("the broker closed the connection during log-in") from None
        self.frame_max = min(tune.frame_max or FRAME_MAX, FRAME_MAX)
        if self.frame_max < FRAME_MIN:
            raise AmqpSyntaxError(f"the broker asks for frames of {self.frame_max} bytes, {FRAME_MIN} are the least")
        self._parser.frame_max = self.frame_max
        channel_max = min(tune.channel_max or CHANNEL_MAX, CHANNEL_MAX)
        self.write(methods.encode_tune_ok(channel_max, self.frame_max, log_in.heartbeat_s))
        if log_in.heartbeat_s:
            self._tick()
        await self._expect(0, methods.encode_open(log_in.vhost), methods.CONNECTION_OPEN_OK)

    async def ended(self) -> str:
        """Wait until the link is lost; the reason. Raises what its user raised, if that is what ended it."""
        await asyncio.shield(self._ended)
        return self._reason

    def drop(self, reason: str) -> None:
        """The link is lost from now on, without a word to the broker. Nothing happens if it was lost already."""
        self._lose(reason)

    async def close(self, within: float = CLOSE_WITHIN_S) -> None:
        """Write what is waiting, tell the broker and wait for its answer, ``within`` seconds at most; never raises."""
        if self._state == "up" and not self._close_sent:
            self._close_sent = True
            try:
                async with asyncio.timeout(within):
                    await self._expect(
                        0, methods.encode_close(200, "closed by the worker"), methods.CONNECTION_CLOSE_OK
                    )
            except (BrokerError, TimeoutError, ConnectionResetError):
                pass  # it is closed either way
        self._lose("closed by the worker", gently=True)

    def _lose(self, reason: str, bug: Exception | None = None, *, gently: bool = False) -> None:
        if self._state == "lost":
            return
        was_up = self._state == "up"
        self._state = "lost"
        self._reason = reason
        self._parser.stop()
        self._out.clear()
        if self._ticker is not None:
            self._ticker.cancel()
        if self._transport is not None:
            if gently:  # let what is written go out, but not for ever
                self._transport.close()
                self._loop.call_later(CLOSE_WITHIN_S, self._transport.abort)
            else:
                self._transport.abort()
        for _, answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionResetError(reason))
        self._answers.clear()
        if was_up:
            try:
                self._user.lost(reason)
            except Exception as error:  # noqa: BLE001 - a bug of the user's: told by ended()
                bug = bug or error
        if bug is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(bug)
            self._ended.exception()  # marked as seen: whoever runs the link may be busy elsewhere just now

    # -- out ----------------------------------------------------------------------------------------------------

    def write(self, frames: bytes) -> None:
        """Whole frames, handed to the socket at ``flush``, or else at the end of this turn of the loop.

        Nothing happens on a lost link.
        """
        if self._state == "lost":
            return
        self._out.append(frames)
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._turn_ended)

    def _turn_ended(self) -> None:
        self._flush_due = False
        self.flush()

    def flush(self) -> None:
        """Hand what was written to the socket, in one piece."""
        if self._out and self._transport is not None:
            data = b"".join(self._out)
            self._out.clear()
            self._spoke = True
            self.bytes_sent += len(data)
            self._transport.write(data)

    async def call(self, channel: int, frame: bytes, answer: int) -> bytes:
        """Write ``frame`` and wait for the method ``answer`` on that channel; its arguments. One at a time a channel.

        Raises ChannelClosedError if the broker closes the channel instead, BrokerError if the link is lost. A broker
        that does not answer within the RPC limit costs the link: nothing is known of the channel then (faults A13).
        """
        try:
            async with asyncio.timeout(self._rpc_timeout_s):
                return await self._expect(channel, frame, answer)
        except TimeoutError:
            self._lose(f"no answer from the broker within {self._rpc_timeout_s:g} s")
            raise BrokerError(self._reason) from None
        except ConnectionResetError as error:
            raise BrokerError(str(error)) from None

    async def _expect(self, channel: int, frame: bytes, answer: int) -> bytes:
        if self._state == "lost":
            raise ConnectionResetError(self._reason)
        assert channel not in self._answers, "one call at a time on a channel"
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._answers[channel] = answer, future
        self.write(frame)
        try:
            return await future
        finally:
            if channel in self._answers and self._answers[channel][1] is future:
                del self._answers[channel]

    # -- in -----------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        if self._ended.done():  # given up while it was being made
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        if self._state == "lost":
            return
        self._heard = True
        self.bytes_received += len(data)
        try:
            self._parser.receive(data)
            if self._state == "up":
                self._user.batch_ended()
        except AmqpSyntaxError as error:
            self._lose(f"the broker broke the protocol: {error}")
        except Exception as error:  # noqa: BLE001 - a bug, ours or the user's: told by ended()
            self._lose(f"a bug: {type(error).__name__}", error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if exc is None:
            self._lose("the broker closed the connection without a word")
        else:
            self._lose(f"the connection broke: {exc}")

    def _tick(self) -> None:
        heartbeat_s = self._log_in.heartbeat_s
        if self._heard:
            self._heard = False
            self._silent_ticks = 0
        else:
            self._silent_ticks += 1
            if self._silent_ticks >= SILENT_TICKS:
                self._lose(f"nothing heard from the broker for {2 * heartbeat_s} s (two heartbeats)")
                return
        # Half an interval without a byte of ours is two ticks; every second tick is often enough to never be later.
        if self._spoke:
            self._spoke = False
        else:
            self.write(HEARTBEAT)
        self._ticker = self._loop.call_later(heartbeat_s / TICKS, self._tick)

    def method_received(self, channel: int, method: int, arguments: bytes) -> None:
        """Called by the parser: everything but deliveries, returns and confirms."""
        expected = self._answers.get(channel)
        if expected is not None and expected[0] == method:
            # At once, not when the caller goes on: what follows in the same chunk is no answer to this call.
            del self._answers[channel]
            if not expected[1].done():
                expected[1].set_result(arguments)
        elif channel == 0:
            self._connection_method(method, arguments)
        elif method == methods.CHANNEL_CLOSE:
            self._channel_close(channel, methods.read_close(arguments))
        elif self._state != "up":
            raise AmqpSyntaxError("a method on a channel before the connection was open")
        elif method == methods.BASIC_CANCEL:
            self._user.consumer_canceled(channel)
        elif method == methods.CHANNEL_FLOW:
            active = Reader(arguments).octet() & 1
            self.write(methods.encode_method(channel, methods.CHANNEL_FLOW_OK, bytes((active,))))
            self._user.blocked(None if active else "channel.flow")
        elif not self._close_sent:  # else it answers a call that was given up
            raise AmqpSyntaxError(f"method {method >> 16}.{method & 0xFFFF} came unasked")

    def _connection_method(self, method: int, arguments: bytes) -> None:
        if method == methods.CONNECTION_CLOSE:
            close = methods.read_close(arguments)
            self.write(methods.encode_method(0, methods.CONNECTION_CLOSE_OK))
            self.flush()
            text = f"the broker closed the connection: {close.text} ({close.code})"
            expected = self._answers.get(0)
            if self._state == "starting" and close.code in _REFUSALS and expected and not expected[1].done():
                expected[1].set_exception(BrokerRefusedError(f"the broker refuses us: {close.text} ({close.code})"))
            self._lose(text, gently=True)
        elif method == methods.CONNECTION_BLOCKED:
            self._user.blocked(Reader(arguments).short_string() or "no reason given")
        elif method == methods.CONNECTION_UNBLOCKED:
            self._user.blocked(None)
        elif method == methods.CONNECTION_SECURE:
            raise AmqpSyntaxError("the broker asks for a second step of log-in")
        elif method != methods.CONNECTION_CLOSE_OK:
            raise AmqpSyntaxError(f"method {method >> 16}.{method & 0xFFFF} came unasked")

    def _channel_close(self, channel: int, close: methods.Close) -> None:
        self.write(methods.encode_method(channel, methods.CHANNEL_CLOSE_OK))
        self._parser.channel_closed(channel)
        text = f"the broker closed the channel: {close.text} ({close.code})"
        expected = self._answers.pop(channel, None)
        if expected is None:
            self._user.channel_closed(channel, text)
        elif not expected[1].done():
            expected[1].set_exception(ChannelClosedError(close.code, text))


def _mechanism(log_in: LogIn, offered: tuple[str, ...]) -> tuple[str, bytes]:
    if log_in.user is None:
        if "EXTERNAL" not in offered:
            raise BrokerRefusedError("the broker does not take a client certificate for a log-in (mechanism EXTERNAL)")
        return "EXTERNAL", b""
    if "PLAIN" not in offered:
        raise BrokerRefusedError("the broker does not take a user and a password (mechanism PLAIN)")
    return "PLAIN", b"\0" + log_in.user.encode() + b"\0" + log_in.password.reveal().encode()
