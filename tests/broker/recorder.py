"""A port that records what it is told, and what tests need to run a consumer or a publisher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from tests.support.timing import SECOND, eventually
from worker.broker.consumer import Consumer
from worker.broker.dial import Dial, TlsFiles
from worker.broker.publisher import Publisher
from worker.core.effects import OutEvent
from worker.core.facts import Delivery
from worker.wire.command import Lane, Properties


class Delivered(Struct):
    """One ``command_delivered``."""

    delivery: Delivery
    redelivered: bool
    properties: Properties
    body: bytes


class Recorder:
    """Implements ConsumerPort and PublisherPort; ``told`` has every call but deliveries and batches, in order.

    ``raises`` names a call that raises RuntimeError instead.
    """

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.deliveries: list[Delivered] = []
        self.batches = 0
        self.raises = ""
        self.on_up: Callable[[Lane], None] = lambda lane: None

    def _tell(self, name: str, *what: object) -> None:
        if self.raises == name:
            raise RuntimeError(f"a bug in {name}")
        self.told.append((name, *what))

    def command_delivered(self, delivery: Delivery, redelivered: bool, properties: Properties, body: bytes) -> None:
        if self.raises == "command_delivered":
            raise RuntimeError("a bug in command_delivered")
        self.deliveries.append(Delivered(delivery, redelivered, properties, body))

    def consumer_up(self, lane: Lane) -> None:
        self._tell("consumer_up", lane)
        self.on_up(lane)

    def consumer_stopped(self, lane: Lane) -> None:
        self._tell("consumer_stopped", lane)

    def consumer_lost(self, lane: Lane, reason: str) -> None:
        self._tell("consumer_lost", lane, reason)

    def consumer_failed(self, lane: Lane, reason: str) -> None:
        self._tell("consumer_failed", lane, reason)

    def batch_ended(self) -> None:
        self.batches += 1

    def publisher_up(self, lane: Lane) -> None:
        self._tell("publisher_up", lane)
        self.on_up(lane)

    def publisher_lost(self, lane: Lane, reason: str) -> None:
        self._tell("publisher_lost", lane, reason)

    def publisher_failed(self, lane: Lane, reason: str) -> None:
        self._tell("publisher_failed", lane, reason)

    def publisher_blocked(self, lane: Lane, reason: str | None) -> None:
        self._tell("publisher_blocked", lane, reason)

    def event_confirmed(self, event: OutEvent) -> None:
        self._tell("event_confirmed", event.event_id)

    def event_nacked(self, event: OutEvent) -> None:
        self._tell("event_nacked", event.event_id)

    def event_returned(self, event: OutEvent, code: int, text: str) -> None:
        self._tell("event_returned", event.event_id, code, text)

    def count(self, name: str) -> int:
        return sum(told[0] == name for told in self.told)

    def events(self, name: str) -> set[str]:
        """The ids of the events of which ``name`` was told."""
        return {str(told[1]) for told in self.told if told[0] == name}

    def last(self, name: str) -> tuple[object, ...]:
        return [told for told in self.told if told[0] == name][-1]

    async def until(self, name: str, count: int = 1, within_s: float = 10 * SECOND) -> tuple[object, ...]:
        """Wait until ``name`` was told ``count`` times; the last of them."""
        await eventually(lambda: self.count(name) >= count, within_s)
        return self.last(name)

    async def until_delivered(self, count: int, within_s: float = 10 * SECOND) -> list[Delivered]:
        """Wait for ``count`` deliveries in all, and return them."""
        await eventually(lambda: len(self.deliveries) >= count, within_s)
        return self.deliveries


def dial_to(
    *urls: str,
    heartbeat_s: int = 5,
    tls: TlsFiles | None = None,
    connect_timeout_s: float = 5 * SECOND,
    rpc_timeout_s: float = 10 * SECOND,
    reconnect_min_s: float = 0.01,
    reconnect_max_s: float = 0.2,
) -> Dial:
    """With short waits, so that tests need not wait either."""
    answer: Sequence[str] = urls
    return Dial(
        lambda: answer,
        name="test",
        tls=tls,
        heartbeat_s=heartbeat_s,
        connect_timeout_s=connect_timeout_s,
        rpc_timeout_s=rpc_timeout_s,
        reconnect_min_s=reconnect_min_s,
        reconnect_max_s=reconnect_max_s,
    )


@asynccontextmanager
async def running(role: Consumer | Publisher) -> AsyncIterator[asyncio.Task[None]]:
    """Run it, and close it at the end. What ``run`` raised is raised at the end, unless the test awaited the task."""
    task = asyncio.create_task(role.run())
    try:
        yield task
    finally:
        async with asyncio.timeout(10 * SECOND):
            await role.close()
            if not task.done() or task.exception() is None:
                await task
