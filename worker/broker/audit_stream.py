"""Reading ``cancel.audit``, the stream of all events (contract section 1), from any place and up to its end.

A stream is read without taking anything out of it. Its broker hands out as many messages as the prefetch allows and
goes on as they are acked, whole chunks at a time. Where it ends can't be asked: the queue's message count lags by
seconds (measured with 3.10). So the last chunk is read first, which says how far a reading has to come: to what stood
there when it began.

A reading is a connection of its own on ``worker.broker.link``, so that millions of events take seconds, not minutes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from worker.broker import methods
from worker.broker.dial import Dial
from worker.broker.fields import AmqpSyntaxError, encode_short_string, encode_table
from worker.broker.link import ChannelClosedError, Link
from worker.config import Broker
from worker.errors import BrokerError, BrokerRefusedError, TopologyError
from worker.wire.command import Properties
from worker.wire.seen import SeenEvent, SeenEventError, read_event
from worker.wire.timestamp import US_PER_SECOND

PREFETCH: Final = 2000
"""Messages unacked at most. More than some thousand make the broker slower, not faster (measured with 3.10)."""
ACK_EVERY: Final = 500
"""Messages for one ack: each costs the broker a look at the stream."""
QUIET_S: Final = 2.0
"""Without a message for so long after the broker answered, a stream that was never written to is taken for empty."""
CLOCKS_APART_S: Final = 120
"""Clocks of publishers, workers and brokers that are further apart are out of order altogether."""
OFFSET: Final = "x-stream-offset"
_NOT_FOUND: Final = 404
_BASIC_ACK: Final = 60 << 16 | 80
_READING: Final = 1
_LAST: Final = 2
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Start: TypeAlias = Literal["first", "next"] | int
"""Where a reading begins: the oldest event kept, whatever comes from now on, or the events stored since then, in UTC
microseconds. The broker starts at a whole chunk, so some older ones may come first."""


class Stored(Struct, frozen=True, gc=False):
    """One message of the stream. ``event_id`` is its AMQP message_id; ``timestamp_s`` the publisher's."""

    offset: int
    event_id: str | None
    timestamp_s: int | None
    body: bytes


class _Inlet:
    """What came on one channel and was not taken yet."""

    __slots__ = ("acked", "messages", "tag")

    def __init__(self) -> None:
        self.messages: list[Stored] = []
        self.tag = 0
        self.acked = 0


class AuditStream:
    """One open reading; made by ``opened``. Use ``to_end`` or ``follow``, once."""

    def __init__(self, queue: str) -> None:
        self._queue = queue
        self._inlets = {_READING: _Inlet(), _LAST: _Inlet()}
        self._came = asyncio.Event()
        self._lost: str | None = None
        self._link: Link | None = None

    def attach(self, link: Link) -> None:
        """The connection that this reads on."""
        self._link = link

    async def to_end(self, start: Start, quiet: float = QUIET_S) -> AsyncGenerator[list[Stored], None]:
        """All events from ``start`` to what is the end now, in order, in batches.

        Raises TopologyError if there is no such stream, BrokerError if it can't be read to the end.
        """
        chunk = await self._last_chunk(quiet)
        if not chunk or start == "next" or _is_over(chunk[-1], start):
            return
        end = chunk[-1].offset
        await self._consume(_READING, start)
        patience = quiet if isinstance(start, int) and not _is_due(chunk[-1], start) else None
        while True:
            batch = await self._take(_READING, patience)
            if not batch:
                return  # nothing was stored since then: the broker waits at the end for what comes next
            patience = None
            if batch[-1].offset >= end:
                yield [message for message in batch if message.offset <= end]
                return
            yield batch

    async def follow(self, start: Start) -> AsyncGenerator[list[Stored], None]:
        """All events from ``start`` on and, without end, those that are still to come. Raises as ``to_end``."""
        await self._consume(_READING, start)
        while True:
            batch = await self._take(_READING, float("inf"))
            if batch:
                yield batch

    async def _last_chunk(self, quiet: float) -> list[Stored]:
        """What is at the end of the stream now; empty if the stream is."""
        await self._consume(_LAST, "last")
        chunk = await self._take(_LAST, quiet)
        came = len(chunk)
        while came:
            # The broker sends what the prefetch allows before it answers anything else: less means that it is all.
            await self._call(_LAST, methods.encode_qos(_LAST, PREFETCH), methods.BASIC_QOS_OK)
            more = self._taken(_LAST)
            came = len(more) // (PREFETCH - ACK_EVERY)
            chunk += more
        return chunk

    async def _consume(self, channel: int, offset: Start | Literal["last"]) -> None:
        await self._call(channel, methods.encode_channel_open(channel), methods.CHANNEL_OPEN_OK)
        await self._call(channel, methods.encode_qos(channel, PREFETCH), methods.BASIC_QOS_OK)
        place = _EPOCH + timedelta(seconds=max(0, offset) // US_PER_SECOND) if isinstance(offset, int) else offset
        arguments = (
            b"\x00\x00"
            + encode_short_string(self._queue)
            + encode_short_string(f"audit-{channel}")
            + b"\x00"
            + encode_table({OFFSET: place})
        )
        frame = methods.encode_method(channel, methods.BASIC_CONSUME, arguments)
        await self._call(channel, frame, methods.BASIC_CONSUME_OK)

    async def _call(self, channel: int, frame: bytes, answer: int) -> None:
        assert self._link is not None
        try:
            await self._link.call(channel, frame, answer)
        except ChannelClosedError as error:
            if error.code == _NOT_FOUND:
                raise TopologyError(f"queue {self._queue}", detail=str(error)) from None
            refused = error.code == methods.ACCESS_REFUSED
            raise (BrokerRefusedError if refused else BrokerError)(f"queue {self._queue}: {error}") from None

    async def _take(self, channel: int, patience: float | None) -> list[Stored]:
        """What came, at least one message; none after ``patience`` seconds. None: that would be an error.

        A limit without an answer from the broker at its end is no proof of silence, so it is asked.
        """
        limit = 10.0 if patience is None else patience
        asked = False
        while True:
            if self._inlets[channel].messages:
                return self._taken(channel)
            if self._lost is not None:
                raise BrokerError(self._lost)
            self._came.clear()
            try:
                async with asyncio.timeout(None if limit == float("inf") else limit):
                    await self._came.wait()
            except TimeoutError:
                if asked:
                    if patience is None:
                        raise BrokerError(f"queue {self._queue}: no message within {2 * limit:g} s") from None
                    return []
                asked = True
                await self._call(channel, methods.encode_qos(channel, PREFETCH), methods.BASIC_QOS_OK)
                limit = limit if patience is None else 0.05

    def _taken(self, channel: int, ack_every: int = ACK_EVERY) -> list[Stored]:
        """What came, acked in good time, so that more comes while it is looked at."""
        inlet = self._inlets[channel]
        messages, inlet.messages = inlet.messages, []
        if inlet.tag - inlet.acked >= ack_every:
            assert self._link is not None
            inlet.acked = inlet.tag
            # With multiple: this one and all before it.
            self._link.write(methods.encode_method(channel, _BASIC_ACK, inlet.tag.to_bytes(8, "big") + b"\x01"))
        return messages

    # -- told by the link ---------------------------------------------------------------------------------------

    def delivered(self, channel: int, tag: int, redelivered: bool, properties: Properties, body: bytes) -> None:
        """A message came."""
        offset = properties.headers.get(OFFSET)
        if not isinstance(offset, int):
            # An ack would take it out of a queue of another kind.
            self._end(f"queue {self._queue} is no stream")
            return
        inlet = self._inlets[channel]
        inlet.messages.append(Stored(offset, properties.message_id, properties.timestamp_s, body))
        inlet.tag = tag

    def batch_ended(self) -> None:
        """All of one read was told."""
        self._came.set()

    def consumer_canceled(self, channel: int) -> None:
        """The broker ended the consumer."""
        self._end(f"queue {self._queue} was deleted, or moved: the broker ended the reading")

    def channel_closed(self, channel: int, reason: str) -> None:
        """The broker closed a channel unasked."""
        self._end(reason)

    def lost(self, reason: str) -> None:
        """The link is gone."""
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
        self._came.set()

    def blocked(self, reason: str | None) -> None:
        """Nothing is published here."""

    def confirmed(self, channel: int, tag: int, multiple: bool, stored: bool) -> None:
        """Nothing was published here."""
        raise AmqpSyntaxError("a confirm on a channel without confirms")

    def returned(self, channel: int, code: int, text: str, properties: Properties, body: bytes) -> None:
        """Nothing was published here."""
        raise AmqpSyntaxError("a return on a channel without publishes")


@asynccontextmanager
async def opened(dial: Dial, broker: Broker) -> AsyncIterator[AuditStream]:
    """A reading on a connection of its own, closed at the end. Raises BrokerError if there is no connection."""
    stream = AuditStream(broker.audit_queue)
    link = await dial.connect("audit", stream)
    stream.attach(link)
    try:
        yield stream
    finally:
        await link.close()
        await link.ended()


def _is_over(last: Stored, start: Start) -> bool:
    """Whether the stream ends long before ``start``, so that nobody has to wait to see that nothing comes."""
    if not isinstance(start, int) or last.timestamp_s is None:
        return False
    return last.timestamp_s + CLOCKS_APART_S < start // US_PER_SECOND


def _is_due(last: Stored, start: Start) -> bool:
    """Whether the stream ends long after ``start``, so that silence would be no proof of anything."""
    if not isinstance(start, int) or last.timestamp_s is None:
        return False
    return last.timestamp_s - CLOCKS_APART_S > start // US_PER_SECOND


async def find_final(
    dial: Dial,
    broker: Broker,
    event_ids: set[str],
    since_us: int | None,
    within_s: float,
    utc_us: Callable[[], int] = lambda: time.time_ns() // 1000,
) -> dict[str, SeenEvent]:
    """Which of these events stand in the audit stream, by ``event_id`` (contract section 5).

    Those published since ``since_us`` (UTC microseconds; None: all that are kept) are looked at, with room for clocks
    that differ, up to what is the end of the stream when the search begins.

    Raises BrokerError or TopologyError if the search could not be finished in ``within_s`` seconds: then nothing is
    known of the events that were not found.
    """
    start: Start = "first"
    if since_us is not None and since_us <= utc_us():  # a time to come says only that a clock is wrong
        start = max(0, since_us - CLOCKS_APART_S * US_PER_SECOND)
    found: dict[str, SeenEvent] = {}
    if not event_ids:
        return found
    try:
        async with asyncio.timeout(within_s), opened(dial, broker) as stream, aclosing(stream.to_end(start)) as batches:
            async for batch in batches:
                for message in batch:
                    if message.event_id in event_ids and message.event_id not in found:
                        event = _event(message)
                        if event is not None:
                            found[event.event_id] = event
                if len(found) == len(event_ids):
                    break
    except TimeoutError:
        raise BrokerError(f"queue {broker.audit_queue}: not read to its end within {within_s:g} s") from None
    return found


def _event(message: Stored) -> SeenEvent | None:
    """The event, None for what is none: a message id alone proves nothing."""
    try:
        event = read_event(message.body)
    except SeenEventError:
        return None
    return event if event.event_id == message.event_id else None
