"""Taking dead letters in hand, one after the other, without losing one or changing their order.

A letter in hand stays the broker's until it is acked. Whatever is still in hand at the end goes back, also if the
connection is lost or this process dies. A quorum queue puts what comes back behind all that came back before, so the
order stays only if every letter was in hand (measured with 3.10): the rest is taken too before anything is put back.
Each look counts as a delivery, of which ``broker.dead_delivery_limit`` (100000) are allowed (contract section 1).

Dead letters are the worst messages there are, so they are read by ``worker.broker.codec``, which takes any property
list; the driver would give up its connection over a text that is no UTF-8. Publishing is the driver's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import aio_pika
from aio_pika.abc import AbstractChannel, AbstractConnection
from msgspec import Struct

from worker.broker import methods
from worker.broker.confirmed import confirming_channel, publish_confirmed, user_of
from worker.broker.dial import Dial
from worker.broker.driver import connection
from worker.broker.fields import AmqpSyntaxError, Reader, encode_short_string
from worker.broker.link import ChannelClosedError, Link
from worker.config import Broker
from worker.errors import BrokerError, BrokerRefusedError, TopologyError
from worker.wire.command import Lane
from worker.wire.dead_letter import DeadLetter, read_dead_letter
from worker.wire.properties import Properties
from worker.wire.timestamp import MAX_US, US_PER_SECOND

TRANCHE: Final = 1000
"""Letters asked for at once: a consumer with this prefetch for each tranche."""
QUIET_S: Final = 2.0
"""Without a further letter for so long, the rest is in other hands."""
_CHANNEL: Final = 1
_NOT_FOUND: Final = 404
_QUEUE_DECLARE: Final = 50 << 16 | 10
_QUEUE_DECLARE_OK: Final = 50 << 16 | 11
_BASIC_NACK: Final = 60 << 16 | 120
_PASSIVE: Final = b"\x01"
_ALL_REQUEUE: Final = bytes(8) + b"\x03"
"""Tag 0 with multiple: whatever is not settled yet (AMQP 0-9-1, 1.8.3.13); requeue."""


_UNREAD: Final = read_dead_letter(b"", Properties(), 1)
"""Stands for a letter that is only taken to be put back."""


class Held(Struct, frozen=True):
    """A dead letter in hand."""

    letter: DeadLetter
    tag: int


class DeadLetters:
    """The queue of dead letters, in hand as far as ``take`` went; made by ``opened``."""

    def __init__(self, dial: Dial, broker: Broker, stack: AsyncExitStack) -> None:
        self._dial = dial
        self._broker = broker
        self._stack = stack
        self._link: Link | None = None
        self._publishing: tuple[AbstractConnection, AbstractChannel] | None = None
        self._came: list[Held] = []
        self._news = asyncio.Event()
        self._lost: str | None = None
        self._tags: list[str] = []
        self._in_hand = False
        self._left = 0
        self._asked = 0
        self._reading = True

    @property
    def lanes(self) -> dict[str, Lane]:
        """The lane of each queue that commands come from."""
        return {self._broker.kill_queue: "kill", self._broker.commands_queue: "cancel"}

    async def begin(self, link: Link) -> None:
        """Open the channel."""
        self._link = link
        await self._call(methods.encode_channel_open(_CHANNEL), methods.CHANNEL_OPEN_OK)

    async def waiting(self) -> int:
        """How many letters are there now, those in hand not counted. Raises TopologyError if there is no queue."""
        name = encode_short_string(self._broker.dead_queue)
        declare = methods.encode_method(_CHANNEL, _QUEUE_DECLARE, b"\x00\x00" + name + _PASSIVE + b"\x00\x00\x00\x00")
        reader = Reader(await self._call(declare, _QUEUE_DECLARE_OK))
        reader.short_string()
        return reader.long()

    async def take(self) -> AsyncGenerator[Held, None]:
        """The letters that are there now, oldest first. Use it once. Raises TopologyError, BrokerError."""
        self._left = await self.waiting()
        while self._left:
            for held in await self._some():
                yield held

    async def _some(self) -> list[Held]:
        """The next letters; none if there are no more. They count as taken."""
        if not self._asked:
            self._asked = min(TRANCHE, self._left)
            await self._ask(self._asked)
        if not self._came:
            await self._wait()
        some = self._came[: self._left]
        del self._came[: len(some)]
        self._left = self._left - len(some) if some else 0
        self._asked = max(0, self._asked - len(some))
        return some

    async def _ask(self, count: int) -> None:
        self._tags.append(f"look-{len(self._tags)}")
        await self._call(methods.encode_qos(_CHANNEL, count), methods.BASIC_QOS_OK)
        consume = methods.encode_consume(_CHANNEL, self._broker.dead_queue, self._tags[-1])
        await self._call(consume, methods.BASIC_CONSUME_OK)

    async def _wait(self) -> None:
        """Until a letter came, or none is to be had: the rest is in other hands."""
        while not self._came:
            if self._lost is not None:
                raise BrokerError(self._lost)
            self._news.clear()
            try:
                async with asyncio.timeout(QUIET_S):
                    await self._news.wait()
            except TimeoutError:
                # The broker answers in turn: what it sent before is here by then.
                await self._call(methods.encode_qos(_CHANNEL, 1), methods.BASIC_QOS_OK)
                return

    async def drop(self, held: Held) -> None:
        """Take a letter out of the queue for good."""
        assert self._link is not None
        if self._lost is not None:
            raise BrokerError(self._lost)
        self._link.write(methods.encode_ack(_CHANNEL, held.tag))

    async def requeue(self, held: Held, lane: Lane) -> None:
        """Publish its untouched body to the lane, under our own user, and drop the letter once that is confirmed.

        Raises TopologyError or NotStoredError: it stays a dead letter; BrokerError: it may be in both places, which
        does no harm, since the command id is the same.
        """
        letter = held.letter
        link, channel = await self._publisher()
        properties, headers = letter.properties, {k: _sendable(v) for k, v in letter.requeue_headers().items()}
        seconds = properties.timestamp_s
        message = aio_pika.Message(
            letter.body,
            headers=headers,
            content_type=properties.content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            correlation_id=_encodable(properties.correlation_id),
            reply_to=_encodable(properties.reply_to),
            message_id=letter.command_id,  # also where the publisher gave none: the driver would make up another
            timestamp=seconds if seconds is not None and seconds <= MAX_US // US_PER_SECOND else None,
            user_id=user_of(link),
            app_id=_encodable(properties.app_id),
        )
        key = self._broker.kill_key if lane == "kill" else self._broker.cancel_key
        try:
            await publish_confirmed(channel, self._broker.commands_exchange, key, message, self._dial.rpc_timeout_s)
        except (ValueError, TypeError, OverflowError):
            raise BrokerError("its headers hold a value that can't be published again") from None
        await self.drop(held)

    async def publish_event(self, message: aio_pika.Message, routing_key: str) -> None:
        """Put an event on the results exchange. Raises as ``publish_confirmed``."""
        _, channel = await self._publisher()
        exchange = self._broker.results_exchange
        await publish_confirmed(channel, exchange, routing_key, message, self._dial.rpc_timeout_s)

    async def _publisher(self) -> tuple[AbstractConnection, AbstractChannel]:
        """A connection of its own: the one that holds the letters must not be lost over a publish (faults A22)."""
        if self._publishing is None:
            link = await self._stack.enter_async_context(connection(self._dial, "dead letters publish"))
            self._publishing = link, await confirming_channel(link, self._dial.rpc_timeout_s)
        return self._publishing

    async def put_back(self, *, in_order: bool = True) -> None:
        """Give everything in hand back; ``in_order`` takes the rest first.

        Raises BrokerError; then the broker took everything back by itself.
        """
        if self._link is None or self._lost is not None:
            return
        self._reading = False
        while in_order and self._left:
            await self._some()
        for tag in self._tags:  # else it would all come again at once
            await self._call(methods.encode_cancel(_CHANNEL, tag), methods.BASIC_CANCEL_OK)
        self._tags.clear()
        if self._in_hand:
            self._in_hand = False
            self._link.write(methods.encode_method(_CHANNEL, _BASIC_NACK, _ALL_REQUEUE))
            await self._call(methods.encode_qos(_CHANNEL, 1), methods.BASIC_QOS_OK)
        self._came.clear()

    async def _call(self, frame: bytes, answer: int) -> bytes:
        assert self._link is not None
        name = self._broker.dead_queue
        try:
            return await self._link.call(_CHANNEL, frame, answer)
        except ChannelClosedError as error:
            if error.code == _NOT_FOUND:
                raise TopologyError(f"queue {name}", detail=str(error)) from None
            refused = error.code == methods.ACCESS_REFUSED
            raise (BrokerRefusedError if refused else BrokerError)(f"queue {name}: {error}") from None

    # -- told by the link ---------------------------------------------------------------------------------------

    def delivered(self, channel: int, tag: int, redelivered: bool, properties: Properties, body: bytes) -> None:
        """A letter came."""
        self._in_hand = True
        letter = read_dead_letter(body, properties, self._broker.max_body) if self._reading else _UNREAD
        self._came.append(Held(letter, tag))

    def batch_ended(self) -> None:
        """All of one read was told."""
        self._news.set()

    def consumer_canceled(self, channel: int) -> None:
        """The broker ended a consumer."""
        self._end(f"queue {self._broker.dead_queue} was deleted, or moved")

    def channel_closed(self, channel: int, reason: str) -> None:
        """The broker closed the channel unasked."""
        self._end(reason)

    def lost(self, reason: str) -> None:
        """The link is gone."""
        self._end(reason)

    def _end(self, reason: str) -> None:
        if self._lost is None:
            self._lost = reason
        self._news.set()

    def blocked(self, reason: str | None) -> None:
        """Nothing is published here."""

    def confirmed(self, channel: int, tag: int, multiple: bool, stored: bool) -> None:
        """Nothing was published here."""
        raise AmqpSyntaxError("a confirm on a channel without confirms")

    def returned(self, channel: int, code: int, text: str, properties: Properties, body: bytes) -> None:
        """Nothing was published here."""
        raise AmqpSyntaxError("a return on a channel without publishes")


@asynccontextmanager
async def opened(dial: Dial, broker: Broker) -> AsyncIterator[DeadLetters]:
    """The dead letters; whatever is in hand at the end is given back. Raises BrokerError."""
    async with AsyncExitStack() as stack:
        letters = DeadLetters(dial, broker, stack)
        link = await dial.connect("dead letters", letters)
        try:
            await letters.begin(link)
            try:
                yield letters
            except BaseException:
                await letters.put_back(in_order=False)
                raise
            await letters.put_back()
        finally:
            await link.close()
            await link.ended()


def _encodable(text: str | None) -> str | None:
    """A property that the driver can write; what is no UTF-8 names nobody and is left out."""
    if text is not None:
        try:
            text.encode()
        except UnicodeEncodeError:
            return None
    return text


def _sendable(value: Any) -> Any:
    """A header's value that the driver can write: a text that is no UTF-8 goes as the bytes that it was."""
    match value:
        case str():
            return value if _encodable(value) is not None else bytearray(value.encode("utf-8", "surrogateescape"))
        case bytes():
            return bytearray(value)
        case list():
            return [_sendable(each) for each in value]
        case dict():
            return {key: _sendable(each) for key, each in value.items()}
    return value
