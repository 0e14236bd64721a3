"""One lane's queue: deliveries in, settlements out, on a connection of its own.

A connection carries one channel. Whatever ends one ends the other, and both are made anew after a growing wait: so a
delivery is void exactly when its epoch is over, and there is one way back, not three.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Literal

from msgspec import Struct

from worker.broker import methods
from worker.broker.dial import Dial
from worker.broker.fields import AmqpSyntaxError
from worker.broker.link import CLOSE_WITHIN_S, ChannelClosedError, Link
from worker.broker.methods import encode_ack, encode_nack
from worker.broker.ports import ConsumerPort
from worker.broker.upkeep import Upkeep
from worker.core.effects import Settlement
from worker.core.facts import Delivery
from worker.errors import BrokerError, BrokerRefusedError
from worker.wire.command import Lane, Properties

CHANNEL: Final = 1


class ConsumerStats(Struct):
    """Counters since the start, for the metrics."""

    ups: int = 0
    losses: int = 0
    failures: int = 0
    deliveries: int = 0
    redeliveries: int = 0
    acks: int = 0
    dead_letters: int = 0
    requeues: int = 0
    stale_settlements: int = 0


class Consumer:
    """Consumes one queue. ``run`` keeps it up; everything is called from the loop that runs it.

    For ``/readyz``: ``consuming`` is the one ``state`` in which commands come, ``last_error`` why it last failed or
    went down.
    """

    def __init__(self, lane: Lane, queue: str, prefetch: int, dial: Dial, port: ConsumerPort) -> None:
        """``prefetch`` bounds the unsettled deliveries, 1 to 65535."""
        self.lane: Lane = lane
        self.queue = queue
        self.stats = ConsumerStats()
        self.state: Literal["down", "up", "consuming"] = "down"
        self.last_error: str | None = None
        self._prefetch = prefetch
        self._dial = dial
        self._port = port
        self._upkeep = Upkeep(dial, self._attempt, self._failed)
        self._epoch = 0  # of the last channel
        self._live = 0  # its epoch while it is up, else 0
        self._link: Link | None = None
        self._write: Callable[[bytes], None] = _nowhere
        self._wanted = False
        self._stop_asked = False
        self._changed = asyncio.Event()

    @property
    def write_buffer_bytes(self) -> int:
        """Settlements that the socket has not taken."""
        return 0 if self._link is None else self._link.write_buffer_bytes

    async def run(self) -> None:
        """Get up, stay up, get up again after a loss; returns after ``close``. Raises what the port raised, a bug."""
        await self._upkeep.run()

    async def close(self, within: float = CLOSE_WITHIN_S) -> None:
        """Write what is waiting, close the connection (``within`` seconds at most) and end ``run``; never raises.

        The broker gives unsettled deliveries back to the queue. May be called twice, and without ``run``.
        """
        await self._upkeep.close(within)

    def consume(self, on: bool) -> None:
        """Take commands, or stop to; ignored while down. Stopping is answered by ``consumer_stopped``, or by a loss."""
        if self._live:
            self._wanted = on
            self._stop_asked = not on
            self._changed.set()

    def settle(self, delivery: Delivery, how: Settlement) -> None:
        """Ack, dead-letter or hand back. Of an epoch that is over it is ignored: the broker took the message back."""
        stats = self.stats
        if delivery.epoch != self._live:
            stats.stale_settlements += 1
        elif how == "ack":
            stats.acks += 1
            self._write(encode_ack(CHANNEL, delivery.tag))
        elif how == "requeue":
            # By nack, which from RabbitMQ 4.3 on does not count towards the delivery limit (faults A21).
            stats.requeues += 1
            self._write(encode_nack(CHANNEL, delivery.tag, requeue=True))
        else:
            stats.dead_letters += 1
            self._write(encode_nack(CHANNEL, delivery.tag, requeue=False))

    def flush(self) -> None:
        """Hand the settlements to the socket, now."""
        if self._link is not None:
            self._link.flush()

    # -- up and down --------------------------------------------------------------------------------------------

    async def _attempt(self) -> None:
        """One connection from beginning to end; raises BrokerError with the reason of the end."""
        link = await self._dial.connect(f"consume {self.lane}", self)
        self._link = link
        try:
            await link.call(CHANNEL, methods.encode_channel_open(CHANNEL), methods.CHANNEL_OPEN_OK)
            await link.call(CHANNEL, methods.encode_qos(CHANNEL, self._prefetch), methods.BASIC_QOS_OK)
            self._upkeep.came_up()
            self._epoch += 1
            self._live = self._epoch
            self._write = link.write
            self._wanted = self._stop_asked = False
            self.stats.ups += 1
            self.state = "up"
            self._port.consumer_up(self.lane)
            await self._serve(link)
        except BrokerError as error:
            self._go_down(str(error))
            raise
        finally:
            await link.close(self._upkeep.close_within_s)
            await link.ended()  # raises what the port raised

        raise BrokerError(self.last_error or "lost")

    async def _serve(self, link: Link) -> None:
        """Follow what is wanted, until the channel is gone."""
        consuming = False
        tag, times = "", 0
        while self._live:
            self.state = "consuming" if consuming else "up"
            self._changed.clear()
            if self._wanted and not consuming:
                # Never the same tag twice: a consumer that begins again under its old one gets from a quorum queue, as
                # if it were new, all that it still holds unsettled (measured with 3.10).
                times += 1
                tag = f"{self.lane}-{self._epoch}-{times}"
                try:
                    consume = methods.encode_consume(CHANNEL, self.queue, tag)
                    await link.call(CHANNEL, consume, methods.BASIC_CONSUME_OK)
                except ChannelClosedError as error:
                    refused = error.code == methods.ACCESS_REFUSED
                    raise (BrokerRefusedError if refused else BrokerError)(f"queue {self.queue}: {error}") from None
                consuming = True
            elif consuming and not self._wanted:
                await link.call(CHANNEL, methods.encode_cancel(CHANNEL, tag), methods.BASIC_CANCEL_OK)
                consuming = False
            elif self._stop_asked:
                self._stop_asked = False
                self._port.consumer_stopped(self.lane)
            else:
                await self._changed.wait()

    def _go_down(self, reason: str) -> None:
        if not self._live:
            return
        self._live = 0
        self._write = _nowhere
        self.state = "down"
        self.last_error = reason
        self.stats.losses += 1
        self._changed.set()
        self._port.consumer_lost(self.lane, reason)

    def _failed(self, reason: str) -> None:
        self.last_error = reason
        self.stats.failures += 1
        self._port.consumer_failed(self.lane, reason)

    # -- told by the link ---------------------------------------------------------------------------------------

    def delivered(self, channel: int, tag: int, redelivered: bool, properties: Properties, body: bytes) -> None:
        """A message came."""
        live = self._live
        if live:  # else the link is about to be closed, and the broker takes everything back
            stats = self.stats
            stats.deliveries += 1
            if redelivered:
                stats.redeliveries += 1
            self._port.command_delivered(Delivery(self.lane, live, tag), redelivered, properties, body)

    def consumer_canceled(self, channel: int) -> None:
        """The broker ended the consumer."""
        self._go_down(f"queue {self.queue} was deleted, or moved: the broker ended the consumer")

    def channel_closed(self, channel: int, reason: str) -> None:
        """The broker closed the channel, for instance because an ack took too long (faults A12)."""
        self._go_down(reason)

    def lost(self, reason: str) -> None:
        """The link is gone."""
        self._go_down(reason)

    def batch_ended(self) -> None:
        """All of one read was told."""
        self._port.batch_ended()

    def blocked(self, reason: str | None) -> None:
        """A connection that publishes nothing is not blocked; were it, deliveries and heartbeats go on (faults A6)."""

    def confirmed(self, channel: int, tag: int, multiple: bool, stored: bool) -> None:
        """Nothing was published here."""
        raise AmqpSyntaxError("a confirm on a channel without confirms")

    def returned(self, channel: int, code: int, text: str, properties: Properties, body: bytes) -> None:
        """Nothing was published here."""
        raise AmqpSyntaxError("a return on a channel without publishes")


def _nowhere(frames: bytes) -> None:
    """Where frames of a channel that is gone are written."""
