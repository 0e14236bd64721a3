"""What a mass cancel covers, and what the venue's list of open orders shows of it (contract section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from worker.core.reconcile import start_date
from worker.core.session import Ending, SessionState, Subscription
from worker.wire import venue
from worker.wire.venue import Record

if TYPE_CHECKING:
    from worker.config import Venue
    from worker.core.book import Listing
    from worker.core.clock import Now
    from worker.core.sweep import Sweep

_OPEN_STATUSES: Final = [
    "PendingNew",
    "New",
    "PartiallyFilled",
    "PendingCancel",
    "PendingReplace",
    "Replaced",
    "Stopped",
    "Suspended",
    "DoneForDay",
    "Calculated",
]


def statuses_filter(form: str) -> list[str] | str | None:
    """The ``Statuses`` filter by ``venue.statuses_form``; None where it is not known to work (protocol 3.2)."""
    if form == "array":
        return _OPEN_STATUSES
    return ",".join(_OPEN_STATUSES) if form == "comma" else None


def subscribe_orders(session: SessionState, query: Listing | Snapshot, settings: Venue, now: Now) -> Subscription:
    """The Order stream from the order horizon on, never filtered by what it has to show."""
    since_us = session.unstepped(now).utc_us - int(settings.order_horizon * 1e6)
    since = start_date(since_us, session.clock_offset_us)
    return session.subscribe(venue.ORDER, since, now, query=query, statuses=statuses_filter(settings.statuses_form))


class Scope(Struct, frozen=True):
    """What a mass cancel covers. ``customer_users`` None: every user's orders that the API key sees."""

    symbol: str | None
    side: str | None
    customer_users: tuple[str, ...] | None

    def covers(self, record: Record) -> bool | None:
        """Whether an order is in scope; None where its record lacks a field that would decide it."""
        covered: bool | None = True
        if self.symbol is not None and record.symbol != self.symbol:
            if record.symbol is not None:
                return False
            covered = None
        if self.side is not None and record.side != self.side:
            if record.side is not None:
                return False
            covered = None
        if self.customer_users is not None and record.customer_user not in self.customer_users:
            if record.customer_user is not None:
                return False
            covered = None
        return covered


class Count:
    """The orders of a list, against the ``total_count`` of the venue; its pages may overlap (protocol 3.4)."""

    def __init__(self) -> None:
        self._listed: set[str] = set()
        self._total: int | None = None

    def listed(self, order_id: str) -> None:
        """The list holds this order."""
        self._listed.add(order_id)

    def expect(self, total: object) -> None:
        """One frame of the list came, with this ``total_count``."""
        if isinstance(total, int) and (self._total is None or total < self._total):
            self._total = total

    @property
    def lacks(self) -> str | None:
        """What the venue counted and did not hand over; None: nothing."""
        if self._total is None or len(self._listed) >= self._total:
            return None
        return f"the venue counts {count_orders(self._total)} and listed {len(self._listed)}"


class Snapshot:
    """One reading of the Order stream, and the live frames that follow it on the same subscription.

    ``spoiled`` says why it can prove nothing; ``open`` holds the orders in scope that it shows open, ``closed`` the
    last record of each matched order that it shows closed, ``all_open`` every order that it shows open. ``held``: what
    the worker's own book held when it was asked for.
    """

    def __init__(self, sweep: Sweep, session: SessionState, after_deadline: bool, held: frozenset[str]) -> None:
        self.sweep = sweep
        self.session = session
        self.after_deadline = after_deadline
        self.held = held
        self.ended: Ending | None = None
        self.spoiled: str | None = None
        self.open: dict[str, Record] = {}
        self.closed: dict[str, Record] = {}
        self.all_open: set[str] = set()
        self.sub: Subscription | None = None
        self.count = Count()
        self._gone: set[str] = set()

    def keep(self, record: Record) -> None:
        """One Order record of the snapshot."""
        if record.order_id is not None:
            self.count.listed(record.order_id)
        self._take(record)

    def _take(self, record: Record) -> None:
        order_id = record.order_id
        if order_id is None:
            self.spoil("a record without OrderID")
            return
        if venue.status_is_closed(record) or venue.is_filled(record):
            self.open.pop(order_id, None)
            if order_id in self.sweep.orders:
                self.closed[order_id] = record
            return
        self.all_open.add(order_id)
        covered = self.sweep.covers(record)
        if covered is None:
            self.spoil(f"order {order_id} lacks a field that the scope asks for")
        elif covered and order_id not in self.closed and order_id not in self._gone:
            self.open[order_id] = record

    def follow(self, record: Record) -> None:
        """One live record: a page that comes after it may still show what was before it (protocol 3.3)."""
        if record.order_id is not None and self.ended is None and venue.status_is_closed(record):
            self._gone.add(record.order_id)
        self._take(record)

    def end(self, ended: Ending | None) -> None:
        """It came to its end; what the venue counted and did not hand over may be open."""
        self.ended = ended
        if self.count.lacks is not None:
            self.spoil(self.count.lacks)

    def spoil(self, why: str) -> None:
        """Something of it could not be read: it proves nothing."""
        self.spoiled = self.spoiled or why

    @property
    def proves(self) -> bool:
        """Whether what it shows is the whole truth (contract section 5): ended by the venue, every record read."""
        return self.ended == "venue" and self.spoiled is None


def count_orders(count: int) -> str:
    """For people: so many orders."""
    return "1 order" if count == 1 else f"{count} orders"
