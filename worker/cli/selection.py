"""Which events somebody wants to see: pure, so that every filter can be tried."""

from __future__ import annotations

from itertools import product

from msgspec import Struct

from worker.wire.event import FINAL_OUTCOMES, routing_key
from worker.wire.seen import SeenEvent
from worker.wire.timestamp import parse_utc


class Selection(Struct, frozen=True):
    """Every filter that is set must hold; of several values of one filter one is enough. Times are UTC microseconds."""

    outcomes: frozenset[str] = frozenset()
    symbols: frozenset[str] = frozenset()
    order_ids: frozenset[str] = frozenset()
    command_ids: frozenset[str] = frozenset()
    finals_only: bool = False
    since_us: int | None = None
    until_us: int | None = None

    def wants(self, event: SeenEvent) -> bool:
        """Whether the event passes."""
        return (
            (not self.outcomes or event.outcome in self.outcomes)
            and (not self.symbols or event.symbol in self.symbols)
            and (not self.order_ids or event.order_id in self.order_ids)
            and (not self.command_ids or event.command_id in self.command_ids)
            and (event.final or not self.finals_only)
            and self._in_time(event)
        )

    def _in_time(self, event: SeenEvent) -> bool:
        if self.since_us is None and self.until_us is None:
            return True
        at_us = published_us(event)
        if at_us is None:
            return True  # a time that nobody can read is no reason to hide an event
        return (self.since_us is None or at_us >= self.since_us) and (self.until_us is None or at_us <= self.until_us)

    def routing_keys(self) -> list[str]:
        """What to bind a queue with, so that the broker sends little else (contract section 3)."""
        heads = [(outcome in FINAL_OUTCOMES, outcome) for outcome in sorted(self.outcomes)]
        heads = [(final, outcome) for final, outcome in heads if final or not self.finals_only]
        firsts = [f"{'final' if final else 'info'}.{outcome}" for final, outcome in heads]
        if not self.outcomes:
            firsts = ["final.*" if self.finals_only else "*.*"]
        words = [routing_key("", True, symbol).split(".", 2)[2] for symbol in sorted(self.symbols)] or ["*"]
        return list(dict.fromkeys(f"{first}.{word}" for first, word in product(firsts, words)))


def published_us(event: SeenEvent) -> int | None:
    """When the event was published, UTC microseconds; None if it doesn't say."""
    try:
        return parse_utc(event.times.published or "")
    except ValueError:
        return None


class Repeats:
    """Which events came before, by ``event_id``; the oldest are forgotten (contract section 3, Ids)."""

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._seen: dict[str, None] = {}

    def is_new(self, event_id: str) -> bool:
        """True the first time."""
        if event_id in self._seen:
            return False
        if len(self._seen) >= self._most:
            del self._seen[next(iter(self._seen))]
        self._seen[event_id] = None
        return True
