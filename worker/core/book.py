"""The worker's own book of open orders (contract 5): read from the Order stream when a session begins, then kept from
the reports.

It lets a mass cancel send before the first snapshot is there. It is no proof of anything: only snapshots prove.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from worker.core.cancel import live_after
from worker.wire import venue
from worker.wire.venue import Record

if TYPE_CHECKING:
    from worker.core.session import SessionState

MOST_ORDERS: Final = 200_000
"""The oldest entries give way beyond this; a snapshot finds them again."""

MOST_CLOSED: Final = 20_000
"""Closed orders remembered, so that reports out of order do not open them again."""

NO_NEWS: Final = frozenset({"PendingCancel", "PendingReplace", "CancelRejected", "Rejected"})
"""Reports about a request: that its order works was known before, and if not, a snapshot finds it."""


class OpenOrders:
    """Orders last seen working, by OrderID, each with the record that showed it."""

    def __init__(self, most: int = MOST_ORDERS) -> None:
        self._orders: dict[str, Record] = {}
        self._closed: set[str] = set()
        self._closed_first: deque[str] = deque()
        self._most = most

    def __len__(self) -> int:
        return len(self._orders)

    def note(self, record: Record) -> None:
        """Take in a report."""
        order_id = record.order_id
        if record.exec_type in NO_NEWS or order_id is None or venue.names_no_order(order_id):
            return
        live = live_after(record)
        if live is False:
            self._orders.pop(order_id, None)
            if order_id not in self._closed:  # remembered: a replay may tell of its beginning after its end
                self._closed.add(order_id)
                self._closed_first.append(order_id)
                if len(self._closed) > MOST_CLOSED:
                    self._closed.remove(self._closed_first.popleft())
        elif live:
            self._add(order_id, record)

    def note_listed(self, record: Record) -> None:
        """Take in an Order record: the state of an order at some moment, which reports may have overtaken."""
        order_id = record.order_id
        if order_id is None or venue.names_no_order(order_id):
            return
        if venue.status_is_closed(record) or venue.is_filled(record):
            self._orders.pop(order_id, None)
        else:
            self._add(order_id, record)

    def _add(self, order_id: str, record: Record) -> None:
        if order_id not in self._orders and order_id not in self._closed:
            self._orders[order_id] = record
            if len(self._orders) > self._most:
                # Many at once: the first key of a dict is found by walking over all that were deleted before it.
                for oldest in list(islice(self._orders, 1 + self._most // 20)):
                    del self._orders[oldest]

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
