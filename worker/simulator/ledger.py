"""Everything the venue received, as it came: what tests and audits compare the worker's own account with."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import msgspec

# A frame weighs some twenty times a cancel.
_FRAME_SHARE = 10


@dataclass(slots=True, frozen=True)
class Upgrade:
    """One upgrade attempt; `status` 101 let in, -1 never answered. `at` is monotonic seconds (time.monotonic)."""

    number: int
    at: float
    status: int
    timestamp: str | None
    sign: str | None


@dataclass(slots=True, frozen=True)
class Received:
    """One text frame of a client, its bytes kept; `reqid` and `type` as far as they could be read."""

    at: float
    utc_us: int
    session: int
    session_id: str
    reqid: int | None
    type: str
    data: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The JSON object of the frame; empty if it was none."""
        try:
            found = msgspec.json.decode(self.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(slots=True, frozen=True)
class CancelSeen:
    """One element of an OrderCancelRequest and what was done with it.

    `fate`: processed; ignored (scripted silence); unknown (no such order); duplicate (ClOrdID used before); refused
    (error frame for its frame, or the key's role); invalid (the element failed the checks); cut (the session was cut
    before it was looked at).
    """

    at: float
    utc_us: int
    session: int
    session_id: str
    reqid: int
    index: int
    batch: int
    symbol: str | None
    cl_ord_id: str | None
    order_id: str | None
    orig_cl_ord_id: str | None
    transact_time: str | None
    fate: str


@dataclass(slots=True, frozen=True)
class Truth:
    """How an order stands. `canceled_by`: the ClOrdID that ended it; `answers`: per cancel, its last ExecType."""

    order_id: str
    symbol: str
    status: str
    cum_qty: str
    leaves_qty: str
    canceled_by: str | None
    answers: dict[str, str]

    @property
    def open(self) -> bool:
        return self.status in ("New", "PartiallyFilled", "PendingCancel", "PendingReplace")


class Ledger:
    """Bounded books of what came; the oldest go over `limit` (frames: a tenth of it). `counts` never forget."""

    def __init__(self, limit: int) -> None:
        self.upgrades: deque[Upgrade] = deque(maxlen=limit)
        self.frames: deque[Received] = deque(maxlen=max(1, limit // _FRAME_SHARE))
        self.cancels: deque[CancelSeen] = deque(maxlen=limit)
        self.counts: dict[str, int] = {}

    def count(self, name: str, by: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + by
