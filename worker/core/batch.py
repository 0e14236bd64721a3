"""Which waiting cancels go into the next frame: kill lane first, arrival order, one lane per frame (contract 4.5).

A frame is filled with what is already waiting and never waits for more. The rate budget is a token bucket.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

from worker.core.cancel import CancelState, Phase
from worker.core.clock import Now
from worker.wire.venue import CancelElement

BURST_S: Final = 0.1
"""How many seconds' worth of a rate may leave at once after a pause."""


MAKE_WAY_S: Final = 1.0
"""So long after a kill cancel the normal lane still makes way: where one was, another is likely."""

MAKE_WAY_PAUSE_S: Final = 0.0025


class RateBudget:
    """Tokens that refill at ``rate`` per second; a rate of 0 is no limit. Times are monotonic seconds."""

    __slots__ = ("_burst", "_filled_at", "_rate", "_tokens")

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._burst = max(1.0, rate * BURST_S)
        self._tokens = self._burst
        self._filled_at = 0.0

    def available(self, mono: float, wanted: int) -> int:
        """How many of ``wanted`` may go now."""
        if not self._rate:
            return wanted
        self._tokens = min(self._burst, self._tokens + max(0.0, mono - self._filled_at) * self._rate)
        self._filled_at = mono
        return max(0, min(wanted, int(self._tokens + 1e-9)))  # the kill lane may have overdrawn it

    def spend(self, n: int) -> None:
        """Take ``n`` tokens that ``available`` granted."""
        if self._rate:
            self._tokens -= n

    def next_due(self, mono: float) -> float | None:
        """When at least one token will be there; None for now or without a limit."""
        if not self._rate or self._tokens >= 1.0:
            return None
        return mono + (1.0 - self._tokens) / self._rate


class MakingWay:
    """How the normal lane makes way while kill cancels come: what broker and venue do for the one, the other waits for.

    It goes on with ``batch`` cancels at a time, the next when nothing of the lane is under way any more, or
    ``MAKE_WAY_PAUSE_S`` later, so that a slow venue does not stop it. ``batch`` 0: it does not make way.
    """

    __slots__ = ("_batch", "_next", "_until")

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._until = self._next = -inf

    def kill_cancels_wait(self, mono: float) -> None:
        """The kill lane has cancels to send."""
        if self._batch:
            if mono >= self._until:
                self._next = mono + MAKE_WAY_PAUSE_S
            self._until = mono + MAKE_WAY_S

    def available(self, mono: float, wanted: int, under_way: int) -> int:
        """How many of ``wanted`` normal cancels may be sent now, while ``under_way`` cancels and events are."""
        if mono >= self._until:
            return wanted
        return 0 if under_way and mono < self._next else min(wanted, self._batch)

    def spend(self, mono: float) -> None:
        """Normal cancels were sent."""
        self._next = mono + MAKE_WAY_PAUSE_S

    def next_due(self, mono: float) -> float | None:
        """When the normal lane may go on whatever is under way; None for now."""
        return self._next if mono < self._next and mono < self._until else None


class LaneQueue:
    """Cancels of one lane that wait to be sent, in arrival order.

    A cancel leaves by its phase or its lane changing; the entry left behind is skipped when its turn comes.
    """

    __slots__ = ("_waiting", "lane")

    def __init__(self, lane: str) -> None:
        self.lane = lane
        self._waiting: deque[CancelState] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, cancel: CancelState) -> None:
        """Add a cancel whose phase is QUEUED."""
        self._waiting.append(cancel)

    def head(self) -> CancelState | None:
        """The next cancel that really waits, left in place; None if there is none."""
        waiting = self._waiting
        while waiting:
            cancel = waiting[0]
            if cancel.phase is Phase.QUEUED and cancel.command.lane == self.lane:
                return cancel
            waiting.popleft()
        return None

    def skip(self) -> None:
        """Remove what ``head`` just showed."""
        self._waiting.popleft()

    def take(self, most: int, now: Now) -> list[CancelState]:
        """The cancels of the next frame: what ``head`` just showed, and those after it that may go with it.

        Each is SENT at once: an older entry of it in the queue is no second one to send.
        """
        waiting, lane, queued, sent = self._waiting, self.lane, Phase.QUEUED, Phase.SENT
        batch: list[CancelState] = []
        looked_at = None  # the command whose lane and deadline allow it: many cancels in a row are of one
        while waiting and len(batch) < most:
            cancel = waiting[0]
            command = cancel.command
            if cancel.phase is queued and (command is looked_at or command.lane == lane):
                if batch and (cancel.alone or (command is not looked_at and is_past_deadline(cancel, now))):
                    break
                looked_at = command
                cancel.phase = sent  # a legal move, since it is queued
                batch.append(cancel)
            waiting.popleft()
        return batch


def is_past_deadline(cancel: CancelState, now: Now) -> bool:
    """Whether the cancel may not be sent any more."""
    deadline_us = cancel.command.deadline_us
    return deadline_us is not None and now.utc_us > deadline_us


def elements(batch: list[CancelState], target: str, sent_at: str) -> list[CancelElement]:
    """The elements of the request, one for each cancel. ``target`` is ``venue.target`` (contract section 2)."""
    made: list[CancelElement] = []
    for cancel in batch:
        item = cancel.item
        order_id, orig = item.order_id, item.orig_cl_ord_id
        if order_id is not None and orig is not None:
            if target == "order_id":
                orig = None
            elif target == "orig_cl_ord_id":
                order_id = None
        transact_time = cancel.transact_time or sent_at
        made.append(CancelElement(item.symbol, cancel.cl_ord_id, transact_time, order_id, orig, item.timestamp))
    return made
