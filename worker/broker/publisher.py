"""One lane's events: published with confirms on a connection of its own, and replies beside them.

Two channels: events, numbered and confirmed, alone on theirs (faults A22); replies, best effort, on the other. Nothing
is awaited for an event: its answer comes as one call of the port, or the loss of the link stands for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Literal

from msgspec import Struct

from worker.broker import methods
from worker.broker.content import ContentEncoder
from worker.broker.dial import Dial
from worker.broker.fields import AmqpSyntaxError
from worker.broker.link import CLOSE_WITHIN_S, ChannelClosedError, Link
from worker.broker.ports import PublisherPort
from worker.broker.upkeep import Upkeep
from worker.core.effects import OutEvent
from worker.errors import BrokerError, TopologyError
from worker.wire.command import Lane, Properties

EVENTS: Final = 1
REPLIES: Final = 2
REOPEN_AFTER_S: Final = 1.0
"""Seconds before a closed reply channel is opened again; what closed it will close it again at the next reply."""
PREPARE_WITHIN_S: Final = 30.0
"""Seconds that ``prepare`` may take, whatever limits it has of its own."""


class PublisherStats(Struct):
    """Counters since the start, for the metrics. ``unanswered`` counts events whose answer died with the link."""

    ups: int = 0
    losses: int = 0
    failures: int = 0
    published: int = 0
    confirmed: int = 0
    nacked: int = 0
    returned: int = 0
    unanswered: int = 0
    unsent: int = 0
    stray_confirms: int = 0
    replies: int = 0
    replies_returned: int = 0
    replies_unsent: int = 0
    reply_channel_closed: int = 0


class Publisher:
    """Publishes one lane's events. ``run`` keeps it up; everything is called from the loop that runs it.

    For ``/readyz``: ``state``; ``blocked_reason`` while the broker has an alarm; ``last_error`` why it last failed or
    went down; ``in_flight`` how many events wait for their answer.
    """

    def __init__(
        self,
        lane: Lane,
        exchange: str,
        dial: Dial,
        port: PublisherPort,
        prepare: Callable[[], Awaitable[None]],
        confirm_timeout_s: float = 10.0,
    ) -> None:
        """``prepare`` is awaited after each connect, before anything is published (faults A29).

        It raises BrokerError or TopologyError to say not now: the attempt failed then. An event that has no answer
        for ``confirm_timeout_s`` seconds, alarms not counted, costs the link.
        """
        self.lane: Lane = lane
        self.stats = PublisherStats()
        self.state: Literal["down", "up"] = "down"
        self.last_error: str | None = None
        self.blocked_reason: str | None = None
        self._exchange = exchange
        self._dial = dial
        self._port = port
        self._prepare = prepare
        self._confirm_timeout_s = confirm_timeout_s
        self._upkeep = Upkeep(dial, self._attempt, self._failed)
        self._link: Link | None = None
        self._events = ContentEncoder(EVENTS, exchange)
        self._replies = ContentEncoder(REPLIES, "")
        self._write: Callable[[bytes], None] | None = None
        self._number = 0  # of the last publish on this channel
        self._lowest = 1  # every number below it is answered
        self._unanswered: dict[int, OutEvent] = {}
        self._returned: set[int] = set()
        self._marks: deque[tuple[float, int]] = deque()  # (when, number of the last publish then)
        self._replies_open = False
        self._changed = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """Events published whose answer has not come."""
        return len(self._unanswered)

    @property
    def write_buffer_bytes(self) -> int:
        """What the socket has not taken: grows while the broker is blocked, bounded by what the core publishes."""
        return 0 if self._link is None else self._link.write_buffer_bytes

    async def run(self) -> None:
        """Get up, stay up, get up again after a loss; returns after ``close``. Raises what the port raised, a bug."""
        await self._upkeep.run()

    async def close(self, within: float = CLOSE_WITHIN_S) -> None:
        """Write what is waiting, close the connection (``within`` seconds at most) and end ``run``; never raises.

        Does not wait for answers. May be called twice, and without ``run``.
        """
        await self._upkeep.close(within)

    def publish(self, event: OutEvent) -> None:
        """Publish to the results exchange. While down nothing is sent: the next ``publisher_up`` asks for it again.

        Of events in flight no two may have the same ``event_id``: a return names nothing else (faults A2, I7).
        """
        write = self._write
        if write is None:
            self.stats.unsent += 1
            return
        frames = self._events.encode(event, event.routing_key)
        self._number = number = self._number + 1
        self._unanswered[number] = event
        self.stats.published += 1
        write(frames)

    def flush(self) -> None:
        """Hand what was published to the socket, now."""
        if self._link is not None:
            self._link.flush()

    def reply(self, event: OutEvent, queue: str) -> None:
        """Publish to ``queue`` through the default AMQP exchange, best effort: what becomes of it is only counted."""
        if self._write is None or not self._replies_open:
            self.stats.replies_unsent += 1
            return
        self.stats.replies += 1
        self._write(self._replies.encode(event, queue))

    # -- up and down --------------------------------------------------------------------------------------------

    async def _attempt(self) -> None:
        """One connection from beginning to end; raises BrokerError with the reason of the end."""
        self.blocked_reason = None
        link = await self._dial.connect(f"publish {self.lane}", self)
        self._link = link
        try:
            await link.call(EVENTS, methods.encode_channel_open(EVENTS), methods.CHANNEL_OPEN_OK)
            await link.call(EVENTS, methods.encode_confirm_select(EVENTS), methods.CONFIRM_SELECT_OK)
            await self._open_replies(link)
            await self._wait_prepared(link)
            self._go_up(link)
            await self._serve(link)
        except BrokerError as error:
            self._go_down(str(error))
            raise
        finally:
            self._replies_open = False
            await link.close(self._upkeep.close_within_s)
            await link.ended()  # raises what the port raised
        raise BrokerError(self.last_error or "lost")

    async def _wait_prepared(self, link: Link) -> None:
        try:
            async with asyncio.timeout(PREPARE_WITHIN_S):
                await self._prepare()
        except TimeoutError:
            raise BrokerError(f"the topology was not found within {PREPARE_WITHIN_S:g} s") from None
        except TopologyError as error:
            raise BrokerError(str(error)) from None
        if not link.is_up:
            raise BrokerError(await link.ended())

    async def _open_replies(self, link: Link) -> None:
        await link.call(REPLIES, methods.encode_channel_open(REPLIES), methods.CHANNEL_OPEN_OK)
        self._replies_open = True

    def _go_up(self, link: Link) -> None:
        self._upkeep.came_up()
        self._events = ContentEncoder(EVENTS, self._exchange, link.frame_max)
        self._replies = ContentEncoder(REPLIES, "", link.frame_max)
        self._number = 0
        self._lowest = 1
        self._write = link.write
        self.stats.ups += 1
        self.state = "up"
        self._port.publisher_up(self.lane)
        if self.blocked_reason is not None:
            self._port.publisher_blocked(self.lane, self.blocked_reason)

    async def _serve(self, link: Link) -> None:
        """Look every now and then whether an answer is overdue, until the link is gone."""
        loop = asyncio.get_running_loop()
        every = min(1.0, self._confirm_timeout_s / 4)
        reopen_at: float | None = None
        while self._write is not None:
            self._changed.clear()
            now = loop.time()
            if self._is_overdue(now):
                raise BrokerError(f"an event was not confirmed within {self._confirm_timeout_s:g} s")
            if self._replies_open:
                reopen_at = None
            elif reopen_at is None:
                reopen_at = now + REOPEN_AFTER_S
            elif now >= reopen_at:
                reopen_at = None
                try:
                    await self._open_replies(link)
                except ChannelClosedError:
                    self.stats.reply_channel_closed += 1
            try:
                async with asyncio.timeout(every):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _is_overdue(self, now: float) -> bool:
        """True if an event published ``confirm_timeout_s`` ago or earlier has no answer, and no alarm explains it.

        Instead of a time for each event, the number of the last publish is noted at each look.
        """
        marks = self._marks
        if self.blocked_reason is not None:
            marks.clear()  # the wait begins anew when the alarm is over
            return False
        marks.append((now, self._number))
        self._skip_answered()
        overdue = False
        while marks and now - marks[0][0] >= self._confirm_timeout_s:
            overdue = self._lowest <= marks.popleft()[1]
        return overdue

    def _skip_answered(self) -> None:
        lowest, unanswered, number = self._lowest, self._unanswered, self._number
        while lowest <= number and lowest not in unanswered:
            lowest += 1
        self._lowest = lowest

    def _go_down(self, reason: str) -> None:
        if self._write is None:
            return
        self._write = None
        self.state = "down"
        self.last_error = reason
        self.blocked_reason = None
        self.stats.losses += 1
        self.stats.unanswered += len(self._unanswered)
        self._unanswered.clear()
        self._returned.clear()
        self._marks.clear()
        self._changed.set()
        self._port.publisher_lost(self.lane, reason)

    def _failed(self, reason: str) -> None:
        self.last_error = reason
        self.stats.failures += 1
        self._port.publisher_failed(self.lane, reason)

    # -- told by the link ---------------------------------------------------------------------------------------

    def confirmed(self, channel: int, tag: int, multiple: bool, stored: bool) -> None:
        """The broker answers one publish, or all up to one."""
        if channel != EVENTS or tag > self._number:
            raise AmqpSyntaxError("a confirm of something that was not published")
        if multiple:
            last = tag or self._number
            numbers = range(self._lowest, last + 1)
            self._lowest = max(self._lowest, last + 1)
            for number in numbers:
                event = self._unanswered.pop(number, None)
                if event is not None:
                    self._answer(event, stored)
                else:
                    self._returned.discard(number)
            return
        event = self._unanswered.pop(tag, None)
        if event is not None:
            if stored:
                self.stats.confirmed += 1
                self._port.event_confirmed(event)
            else:
                self._answer(event, stored)
        elif tag in self._returned:
            self._returned.remove(tag)
        else:
            self.stats.stray_confirms += 1

    def _answer(self, event: OutEvent, stored: bool) -> None:
        if stored:
            self.stats.confirmed += 1
            self._port.event_confirmed(event)
        else:
            self.stats.nacked += 1
            self._port.event_nacked(event)

    def returned(self, channel: int, code: int, text: str, properties: Properties, body: bytes) -> None:
        """No queue for it. The ack of a returned event follows, and says nothing (faults A1)."""
        if channel == REPLIES:
            self.stats.replies_returned += 1
            return
        # From the lowest on: returns come in the order of the publishes, so it is almost always the first.
        self._skip_answered()
        for number in range(self._lowest, self._number + 1):
            event = self._unanswered.get(number)
            if event is not None and event.event_id == properties.message_id:
                del self._unanswered[number]
                self._returned.add(number)
                self.stats.returned += 1
                self._port.event_returned(event, code, text)
                return
        self.stats.stray_confirms += 1

    def channel_closed(self, channel: int, reason: str) -> None:
        """The broker closed a channel: the events' one for instance because the AMQP exchange is missing."""
        if channel == EVENTS:
            self._go_down(f"AMQP exchange {self._exchange}: {reason}")
        else:
            self.stats.reply_channel_closed += 1
            self._replies_open = False
            self._changed.set()

    def blocked(self, reason: str | None) -> None:
        """An alarm of the broker began or ended."""
        self.blocked_reason = reason
        if self._write is not None:
            self._port.publisher_blocked(self.lane, reason)

    def lost(self, reason: str) -> None:
        """The link is gone."""
        self._go_down(reason)

    def batch_ended(self) -> None:
        """All of one read was told."""
        self._port.batch_ended()

    def delivered(self, channel: int, tag: int, redelivered: bool, properties: Properties, body: bytes) -> None:
        """Nothing is consumed here."""
        raise AmqpSyntaxError("a delivery on a channel without a consumer")

    def consumer_canceled(self, channel: int) -> None:
        """Nothing is consumed here."""
        raise AmqpSyntaxError("a basic.cancel on a channel without a consumer")
