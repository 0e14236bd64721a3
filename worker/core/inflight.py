"""Who is out: every cancel by each id under which the venue may speak of it.

An id may stand for several cancels: two systems may use one ClOrdID, and two commands may cancel one order. Ended
cancels stay known, first in first out, so that a report that comes after a final finds whom it belongs to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import Final

from worker.core.cancel import CancelState, Phase, concerns
from worker.core.ended import EndedCancel, end_of
from worker.wire.venue import Record, names_no_order

Known = CancelState | EndedCancel

_NONE: Final[tuple[Known, ...]] = ()

_Index = dict[str | None, Known | list[Known]]
"""By an id; None is never a key, but may be asked for."""


def _add(index: _Index, key: str, cancel: Known) -> bool:
    """Whether it is not the only one there."""
    there = index.setdefault(key, cancel)
    if there is cancel:
        return False
    if isinstance(there, list):
        if cancel not in there:
            there.append(cancel)
    else:
        index[key] = [there, cancel]
    return True


def _replace(index: _Index, key: str, cancel: CancelState, ended: EndedCancel) -> None:
    there = index.get(key)
    if there is cancel:
        index[key] = ended
    elif isinstance(there, list) and cancel in there:
        there[there.index(cancel)] = ended


def _remove(index: _Index, key: str, cancel: Known) -> None:
    there = index.get(key)
    if there is cancel:
        del index[key]
    elif isinstance(there, list) and cancel in there:
        there.remove(cancel)
        if len(there) == 1:
            index[key] = there[0]


def _names_order_of(record: Record, cancel: Known) -> bool:
    """Whether the record and the cancel have an id of the order itself in common, and not only the request's."""
    if record.order_id is not None and record.order_id == cancel.order_id:
        return True
    return record.orig_cl_ord_id in cancel.client_ids or record.cl_ord_id in cancel.client_ids


class Inflight:
    """The table of cancels by ClOrdID, by OrderID and by the client id of the order.

    A cancel is entered before its frame goes out, so no report can overtake it. Once its final is stored, an
    ``EndedCancel`` takes its place; ``most_ended`` bounds how many of those stay findable.
    """

    def __init__(self, most_ended: int) -> None:
        self._by_request: _Index = {}
        self._by_order: _Index = {}
        self._by_client: _Index = {}
        self._ended: deque[EndedCancel] = deque()
        self._most_ended = most_ended

    def __len__(self) -> int:
        return len(self._by_request)

    def enter(self, cancel: CancelState) -> bool:
        """Make ``cancel`` findable by everything known of it now. Returns whether another one has its OrderID."""
        by_request, cl_ord_id, order_id = self._by_request, cancel.cl_ord_id, cancel.order_id
        if by_request.setdefault(cl_ord_id, cancel) is not cancel:
            _add(by_request, cl_ord_id, cancel)
        for earlier in cancel.earlier_ids:
            _add(by_request, earlier, cancel)
        for client_id in cancel.client_ids:
            _add(self._by_client, client_id, cancel)
        if cancel.command.redelivered:
            for fresh in cancel.fresh_ids():
                _add(by_request, fresh, cancel)
        if order_id is None or self._by_order.setdefault(order_id, cancel) is cancel:
            return False
        return _add(self._by_order, order_id, cancel)

    def learn_request(self, cancel: CancelState) -> None:
        """``cancel`` took a fresh ClOrdID."""
        _add(self._by_request, cancel.cl_ord_id, cancel)

    def learn_order(self, cancel: CancelState, order_id: str) -> None:
        """The venue told the OrderID of a target that was named by its client id."""
        cancel.order_id = order_id
        _add(self._by_order, order_id, cancel)

    def learn_client(self, cancel: CancelState, client_id: str) -> None:
        """The venue told a client id of the target, its first or the one after a replace."""
        if client_id not in cancel.client_ids:
            cancel.client_ids = (*cancel.client_ids, client_id)
            _add(self._by_client, client_id, cancel)

    def drop(self, cancel: Known) -> None:
        """Forget ``cancel`` entirely."""
        for request_id in cancel.request_ids:
            _remove(self._by_request, request_id, cancel)
        if cancel.order_id is not None:
            _remove(self._by_order, cancel.order_id, cancel)
        for client_id in cancel.client_ids:
            _remove(self._by_client, client_id, cancel)

    def end(self, cancel: CancelState, final: bytes) -> EndedCancel:
        """Its final is stored: what is kept of it stays findable until ``most_ended`` others have ended after it."""
        ended = end_of(cancel, final)
        for request_id in ended.request_ids:
            _replace(self._by_request, request_id, cancel, ended)
        if ended.order_id is not None:
            _replace(self._by_order, ended.order_id, cancel, ended)
        for client_id in ended.client_ids:
            _replace(self._by_client, client_id, cancel, ended)
        self._ended.append(ended)
        while len(self._ended) > self._most_ended:
            self.drop(self._ended.popleft())
        return ended

    def known_ids(self) -> tuple[Collection[str | None], Collection[str | None], Collection[str | None]]:
        """ClOrdIDs, OrderIDs and client ids by which any cancel is known at the moment at which they are looked at.

        A report that names none of them concerns nobody: that ``find`` would find nothing is told without a call.
        """
        return self._by_request, self._by_order, self._by_client

    def find(self, record: Record) -> list[Known] | tuple[Known, ...]:
        """Every cancel that ``record`` concerns, by any of the three matches of protocol section 6."""
        request_id, order_id = record.cl_ord_id, record.order_id
        found, on_order = self._by_request.get(request_id), self._by_order.get(order_id)
        by_first = by_last = None
        if clients := self._by_client:
            by_first, by_last = clients.get(record.orig_cl_ord_id), clients.get(request_id)
        if found is on_order and by_last is None and (by_first is None or by_first is found):
            # The usual case: nobody's, or one cancel that all ids lead to.
            if found is None:
                return _NONE
            if not isinstance(found, list):
                return (found,)
        if names_no_order(order_id):
            on_order = None
        hits: list[Known] = []
        for there in (found, on_order, by_first, by_last):
            if there is not None:
                for cancel in there if isinstance(there, list) else (there,):
                    if cancel not in hits and concerns(cancel, record):
                        hits.append(cancel)
        if isinstance(found, list):
            # One ClOrdID for several orders: the report is on the one that it names, if it names one of theirs.
            named = [cancel for cancel in hits if _names_order_of(record, cancel)]
            return named or hits
        return hits

    def on_its_way(self, order_id: str, but: CancelState, sent_after: float) -> CancelState | None:
        """Another cancel of the order, which ``but`` may join.

        Sent later than ``sent_after`` (monotonic) on a session that is ready now, or about to be sent on the kill lane
        for another mass cancel, whose deadline is no earlier.
        """
        there = self._by_order.get(order_id)
        for cancel in there if isinstance(there, list) else ():
            if cancel is but or isinstance(cancel, EndedCancel):
                continue
            frame, command, deadline_us = cancel.frame, cancel.command, cancel.command.deadline_us
            if frame is not None and frame.session.ready and cancel.sent_mono > sent_after:
                return cancel
            if cancel.phase is Phase.QUEUED and command.sweep is not None and command.lane == "kill":
                until = but.command.deadline_us
                if deadline_us is None or (until is not None and deadline_us >= until):
                    return cancel
        return None
