"""Events between the decision to publish them and the broker's confirm (contract 4.1).

An event leaves this book only by its confirm. It is published again, under the same id, after a nack, a return or a
lost connection; while one publish of an id is in flight there is no second one (faults A2, I7).
"""

from __future__ import annotations

import heapq
from typing import Final

from worker.core.backoff import retry_wait
from worker.core.clock import Now
from worker.core.effects import Effect, OutEvent
from worker.wire.command import Lane

LANES: Final[tuple[Lane, Lane]] = ("kill", "cancel")
"""In the order in which they are served: kill first."""


class Outbox:
    """Unconfirmed events by id, per lane, in the order in which they were made."""

    def __init__(self, effects: list[Effect], retry_min: float, retry_max: float, worker: str) -> None:
        self._effects = effects
        self._worker = worker
        self._retry_min = retry_min
        self._retry_max = retry_max
        self._events: dict[Lane, dict[str, OutEvent]] = {"kill": {}, "cancel": {}}
        self._up: dict[Lane, bool] = {"kill": False, "cancel": False}
        self._retries: list[tuple[float, int, OutEvent]] = []
        self._retry_count = 0
        self._others: dict[str, list[OutEvent]] = {}
        self.refused: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._events["kill"]) + len(self._events["cancel"])

    def holds(self, event_id: str) -> bool:
        """Whether an event waits for its confirm."""
        return any(event_id in events for events in self._events.values())

    def unconfirmed(self, lane: Lane) -> int:
        """How many events of the lane wait for their confirm."""
        return len(self._events[lane])

    def oldest_wait(self, lane: Lane, mono: float) -> float:
        """Seconds for which the lane's oldest event has waited for its confirm; 0 if none waits."""
        for event in self._events[lane].values():
            return mono - event.made_mono
        return 0.0

    def is_up(self, lane: Lane) -> bool:
        """Whether the lane's publisher is up."""
        return self._up[lane]

    def publish(self, event: OutEvent, now: Now) -> None:
        """Publish, now or as soon as the lane can; one whose id is on its way already waits for that one's confirm."""
        events = self._events[event.lane]
        there = events.get(event.event_id)
        if there is not None:
            if event.command is not None and event.command is not there.command:
                self._others.setdefault(event.event_id, []).append(event)
            return
        event.made_mono = now.mono
        events[event.event_id] = event
        if self._up[event.lane]:
            event.in_flight = True
            self._effects.append(event)

    def _emit(self, event: OutEvent) -> None:
        event.in_flight = True
        self._effects.append(event)

    def confirmed(self, event: OutEvent) -> list[OutEvent]:
        """The event is stored. Returns it and those that waited for it; none if it was confirmed before."""
        if self._events[event.lane].pop(event.event_id, None) is None:
            return []
        event.in_flight = False
        if event.failures:
            self.refused.pop(event.event_id, None)
        return [event, *self._others.pop(event.event_id, ())] if self._others else [event]

    def refused_by_broker(self, event: OutEvent, reason: str, now: Now) -> float:
        """The event was nacked or returned: it is published again after a growing wait, which is returned (s)."""
        event.in_flight = False
        event.failures += 1
        self.refused[event.event_id] = reason
        wait = retry_wait(self._retry_min, self._retry_max, event.failures, self._worker, event.event_id)
        self._retry_count += 1
        heapq.heappush(self._retries, (now.mono + wait, self._retry_count, event))
        return wait

    def publisher_up(self, lane: Lane) -> None:
        """The lane can publish: everything unconfirmed goes out again, oldest first."""
        self._up[lane] = True
        for event in self._events[lane].values():
            if not event.in_flight:
                self._emit(event)

    def publisher_lost(self, lane: Lane) -> None:
        """The lane's confirms will never come: nothing of it is in flight any more."""
        self._up[lane] = False
        for event in self._events[lane].values():
            event.in_flight = False

    def tick(self, now: Now) -> None:
        """Publish again what was refused and has waited long enough."""
        while self._retries and self._retries[0][0] <= now.mono:
            event = heapq.heappop(self._retries)[2]
            if self._up[event.lane] and not event.in_flight and self._events[event.lane].get(event.event_id) is event:
                self._emit(event)

    def next_due(self) -> float | None:
        """Monotonic seconds of the next retry."""
        return self._retries[0][0] if self._retries else None
