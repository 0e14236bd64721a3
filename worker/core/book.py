"""The worker's own book of open orders: what the report streams have shown since the sessions began (contract 5).

It lets a mass cancel send before the first snapshot is there. It is no proof of anything: only snapshots prove.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from worker.core.cancel import live_after
from worker.wire import venue
from worker.wire.venue import Record

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
        """Take in a report or an Order record."""
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
        elif live and order_id not in self._orders and order_id not in self._closed:
            self._orders[order_id] = record
            if len(self._orders) > self._most:
                del self._orders[next(iter(self._orders))]

    def orders(self) -> list[Record]:
        """All of them, oldest first."""
        return list(self._orders.values())

    def check(self, seen_open: set[str]) -> None:
        """Drop what a complete snapshot did not show open."""
        for order_id in [o for o in self._orders if o not in seen_open]:
            del self._orders[order_id]
