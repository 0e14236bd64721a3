"""The venue's last whole list of orders: which were open, as evidence that a later replay completes (contract 4.3).

A list of all orders is by far the longest answer that a look-up may ask for, and a worker that comes back to thousands
of redelivered commands gets them one prefetch at a time. The list of one look-up serves the next ones: what it showed
open is open still if a replay that was begun after the doubt, reaches back to before the list, and was read to an end
that the venue gave, holds no later report of that order. That needs no live stream, so nothing depends on which session
the venue tells what.
"""

from __future__ import annotations

from typing import Final

from worker.core.cancel import CancelState
from worker.core.clock import Now
from worker.core.reconcile import conclude
from worker.wire import venue
from worker.wire.venue import Record

MOST_LISTED: Final = 20_000
"""With more open orders than this a list is not kept."""

SERVES_S: Final = 15.0
"""So long a list serves after it was read: through a drain, and not from one trouble to the next."""


class OpenList:
    """Orders that one list showed working, by OrderID. ``begun_us`` is when it was asked for, in UTC microseconds."""

    def __init__(self, begun_us: int) -> None:
        self.begun_us = begun_us
        self.complete = False
        self._until = 0.0
        self._records: dict[str, Record] = {}
        self._too_many = False

    def note(self, record: Record) -> None:
        """One record of the list."""
        if record.order_id is None or self._too_many:
            return
        if len(self._records) >= MOST_LISTED:
            self._too_many = True
            self._records.clear()
        elif venue.status_is_known_open(record.ord_status) and not venue.status_is_pending(record.ord_status):
            self._records[record.order_id] = record

    def end(self, now: Now) -> None:
        """The venue ended the list and every record of it could be read."""
        self.complete = not self._too_many
        self._until = now.mono + SERVES_S

    def serves(self, now: Now) -> bool:
        """Whether it may still stand beside a replay."""
        return self.complete and now.mono < self._until

    def shows_working(self, cancel: CancelState) -> Record | None:
        """The order's record, if the list shows it working and nothing that came later speaks of it or the cancel."""
        if cancel.attempt or cancel.reject is not None or cancel.refused is not None or cancel.duplicate:
            return None
        record = self._records.get(cancel.order_id) if cancel.order_id is not None else None
        if record is None or conclude(cancel, record, absence_proven=False) != "working":
            return None
        later = cancel.order is not None and venue.stamp(cancel.order.as_of) > venue.stamp(record.timestamp)
        return None if later else record
