"""Virtual time: one heap of things to happen, one source of chance, one story of what happened."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from random import Random

from worker.core.clock import Now
from worker.wire.timestamp import format_utc

START_US = 1_772_000_000_000_000
"""UTC microseconds at which every simulation begins."""


class Handle:
    """Something that will happen unless it is cancelled."""

    __slots__ = ("call", "canceled")

    def __init__(self, call: Callable[[], object]) -> None:
        self.call = call
        self.canceled = False

    def cancel(self) -> None:
        self.canceled = True


class World:
    """The clock and the future. ``seed`` decides all that is left to chance."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.seconds = 0.0
        self.story: list[str] = []
        self._future: list[tuple[float, float, int, Handle]] = []
        self._count = 0

    def now(self) -> Now:
        return Now(1000.0 + self.seconds, START_US + round(self.seconds * 1e6))

    def after(self, delay: float, call: Callable[[], object]) -> Handle:
        """``call`` happens in ``delay`` seconds; what is due at the same instant happens in a drawn order."""
        handle = Handle(call)
        self._count += 1
        heapq.heappush(self._future, (self.seconds + max(0.0, delay), self.rng.random(), self._count, handle))
        return handle

    def in_order(self, call: Callable[[], object]) -> Handle:
        """``call`` happens now, behind what is under way, before anything that is drawn."""
        handle = Handle(call)
        self._count += 1
        heapq.heappush(self._future, (self.seconds, -1.0, self._count, handle))
        return handle

    def delay(self, least: float, most: float) -> float:
        """A time that something takes: mostly short."""
        return least + (most - least) * self.rng.random() ** 3

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def tell(self, line: str) -> None:
        self.story.append(f"{self.seconds:10.6f}  {line}")

    def run(self, until: Callable[[], bool], limit: float) -> bool:
        """Let time pass until ``until`` holds or ``limit`` seconds are over; True if it held."""
        steps = 0
        while self._future:
            if steps % 64 == 0 and until():
                return True
            steps += 1
            if self._future[0][0] > limit:
                self.seconds = limit
                break
            at, _, _, handle = heapq.heappop(self._future)
            self.seconds = max(self.seconds, at)
            if not handle.canceled:
                handle.call()
        return until()

    def utc(self, offset_us: int = 0) -> str:
        return format_utc(self.now().utc_us + offset_us)
