"""The worker's own book of open orders (contract 5): read from the Order stream when a session begins, then kept from
the reports.

It lets a mass cancel send before the first snapshot is there. It is no proof of anything: only snapshots prove.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from worker.config import Config
from worker.core.cancel import live_after
from worker.core.clock import Now
from worker.core.effects import Effect, Note
from worker.core.snapshot import subscribe_orders
from worker.wire import venue
from worker.wire.venue import Record

if TYPE_CHECKING:
    from worker.core.session import SessionState, Subscription

MOST_ORDERS: Final = 200_000
"""The oldest entries give way beyond this; a snapshot finds them again."""

MOST_CLOSED: Final = 20_000
"""Closed orders remembered, so that reports out of order do not open them again."""

NO_NEWS: Final = frozenset({"PendingCancel", "PendingReplace", "CancelRejected", "Rejected"})
"""Reports about a request: that its order works was known before, and if not, a snapshot finds it."""


LISTS_LOST: Final = 2
"""So many sessions in a row may be lost while they read the list for the book: it may be what costs them."""

LIST_AGAIN_S: Final = 60.0
"""Wait before it is tried again then. The book is a convenience; the sessions are not."""


class OpenOrders:
    """Orders last seen working, by OrderID, each with the record that showed it.

    ``clock_offset_us``: of the venue, whose times the records have, by the last ``hello``; its clock minus ours.
    """

    def __init__(self, most: int = MOST_ORDERS) -> None:
        self._orders: dict[str, Record] = {}
        self._closed: set[str] = set()
        self._closed_first: deque[str] = deque()
        self._giving_way: list[str] = []
        self._most = most
        self.clock_offset_us = 0

    def __len__(self) -> int:
        return len(self._orders)

    def note(self, record: Record) -> None:
        """Take in a report."""
        if record.exec_type in NO_NEWS:
            return
        live = live_after(record)
        if live:
            self._add(record)
        elif live is False:
            self._close(record.order_id)

    def _close(self, order_id: str | None) -> None:
        if order_id is None or order_id in venue.NO_ORDER:
            return
        self._orders.pop(order_id, None)
        if order_id not in self._closed:  # remembered: a replay may tell of its beginning after its end
            self._closed.add(order_id)
            self._closed_first.append(order_id)
            if len(self._closed) > MOST_CLOSED:
                self._closed.remove(self._closed_first.popleft())

    def note_listed(self, record: Record) -> None:
        """Take in an Order record: the state of an order at some moment, which reports may have overtaken."""
        if venue.status_is_closed(record) or venue.is_filled(record):
            if record.order_id is not None:
                self._orders.pop(record.order_id, None)
        else:
            self._add(record)

    def _add(self, record: Record) -> None:
        order_id, orders = record.order_id, self._orders
        if order_id in orders or order_id in self._closed or order_id is None or order_id in venue.NO_ORDER:
            return
        orders[order_id] = record
        if len(orders) > self._most:
            self._make_room()

    def _make_room(self) -> None:
        """Drop one of the oldest.

        They are looked up many at once, since the first key of a dict is found by walking over all that were deleted
        before it, and dropped one at a time, since to free thousands of records takes milliseconds.
        """
        while len(self._orders) > self._most:
            if not self._giving_way:
                self._giving_way = list(islice(self._orders, 1 + self._most // 20))
                self._giving_way.reverse()
            self._orders.pop(self._giving_way.pop(), None)

    def orders(self) -> Iterator[Record]:
        """Those of the moment at which the first one is taken, oldest first."""
        yield from list(self._orders.values())

    def ids(self) -> frozenset[str]:
        """The OrderIDs of all of them, for ``check``."""
        return frozenset(self._orders)

    def check(self, held: frozenset[str], seen_open: set[str]) -> None:
        """Drop what a complete list did not show open, of the orders ``held`` when it was asked for."""
        for order_id in held - seen_open:
            self._orders.pop(order_id, None)


class Listing:
    """One reading of the Order stream for the book; the records themselves go into the book as they come."""

    def __init__(self, session: SessionState, held: frozenset[str]) -> None:
        self.session = session
        self.held = held
        self.open: set[str] = set()
        self.spoiled = False

    def keep(self, record: Record) -> None:
        """Note which orders it shows open."""
        if record.order_id is not None and not (venue.status_is_closed(record) or venue.is_filled(record)):
            self.open.add(record.order_id)

    def spoil(self, why: str) -> None:
        """Something of it could not be read: what it lacks is not proven closed."""
        self.spoiled = True


class BookReader:
    """Reads the list of open orders into the book when a session begins, unless one that is still there has done so.

    From then on the reports keep it, so that a mass cancel can send before any list has come (contract section 5).
    """

    def __init__(self, config: Config, book: OpenOrders, effects: list[Effect]) -> None:
        self._config = config
        self._book = book
        self._effects = effects
        self._on: SessionState | None = None
        self._again_from: float | None = None
        self._lost = 0
        self.listing: Listing | None = None

    def session_ready(self, session: SessionState, now: Now) -> None:
        """Read the list on ``session``, if it is to be read now."""
        self._book.clock_offset_us = session.clock_offset_us
        if self._on is None and self._config.kill.read_orders and self._again_from is None:
            self._on, self.listing = session, Listing(session, self._book.ids())
            subscribe_orders(session, self.listing, self._config.venue, now)

    def session_lost(self, session: SessionState, now: Now) -> None:
        """Whatever was read on ``session``, the next one reads anew, unless the list may be what costs the sessions."""
        if self._on is session:
            self._lost += self.listing is not None
            if self._lost >= LISTS_LOST:
                self._again_from = now.mono + LIST_AGAIN_S
            self._on = self.listing = None

    def ended(self, sub: Subscription, listing: Listing) -> None:
        """The list came to its end: the stream is of no more use, since the reports tell of every change."""
        listing.session.end(sub)
        if listing is not self.listing:
            return
        self.listing = None
        self._lost = 0
        if sub.ended == "venue" and not listing.spoiled and self._config.venue.statuses_form == "none":
            self._book.check(listing.held, listing.open)
        fields: dict[str, object] = {"open": len(listing.open), "book": len(self._book), "ended": sub.ended}
        self._effects.append(Note("open_orders_read", "info", fields))

    def tick(self, session: SessionState | None, now: Now) -> None:
        """Read the list that was left alone for a while, on ``session`` if one is ready, else on the next that is."""
        if self._again_from is not None and now.mono >= self._again_from:
            self._again_from = None
            if session is not None:
                self.session_ready(session, now)

    def next_due(self) -> float | None:
        """Monotonic seconds of the next thing ``tick`` would do."""
        return self._again_from
