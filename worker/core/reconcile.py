"""Asking the venue after doubt: what to ask, and what an answer proves (contract 4.2, 4.3 and 6; protocol section 8).

One *inquiry* per lane at a time asks about every cancel that is doubtful when it begins; doubt that arises later waits
for the next one, so a look-up always begins after the doubt it is to settle (faults I5). It asks for reports first, by
order where the cancels are few and by one replay where they are many, and then, for what the reports left open, for
the Order records. Reports met on the way go through the same judgement as live ones; what remains here is what an
Order record, or its proven absence, says.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Literal

from worker.core.cancel import CancelState, Phase, is_derived
from worker.core.clock import Now
from worker.core.session import Ending, SessionState
from worker.wire import venue
from worker.wire.command import Lane
from worker.wire.timestamp import format_utc
from worker.wire.venue import Record

if TYPE_CHECKING:
    from worker.core.listing import OpenList

FEW: Final = 8
"""Up to so many doubtful cancels with an OrderID are asked for one by one (contract section 6)."""

SINGLES_AT_ONCE: Final = 64
"""How many single-order questions an inquiry has open at the same time."""

EARLY: Final = format_utc(0)
"""StartDate of a question for one order, however old it is (protocol section 8, rule 5)."""

MOST: Final = 10_000
"""How many cancels one inquiry covers; the rest waits for the next."""


class Query:
    """One subscription made to ask: for one order, one symbol, or everything since a time.

    ``unnamed``: those whose OrderID is not known when it is asked. ``listing`` keeps what a whole list shows open.
    """

    __slots__ = (
        "_by_client",
        "_by_request",
        "_has_derived",
        "covers",
        "ended",
        "inquiry",
        "listing",
        "order_id",
        "records",
        "since_us",
        "spoiled",
        "stream",
        "symbol",
        "unnamed",
    )

    def __init__(
        self,
        inquiry: Inquiry,
        stream: str,
        covers: list[CancelState],
        order_id: str | None = None,
        symbol: str | None = None,
    ) -> None:
        self.inquiry = inquiry
        self.stream = stream
        self.covers = covers
        self.order_id = order_id
        self.symbol = symbol
        self.records: dict[str, Record] = {}
        self.ended: Ending | None = None
        self.spoiled = False
        self.since_us = 0
        self.unnamed = [c for c in covers if c.order_id is None]
        self.listing: OpenList | None = None
        self._by_client: dict[str, Record] | None = None
        self._by_request: dict[str, Record] = {}
        self._has_derived = False

    @property
    def is_whole_list(self) -> bool:
        """Whether it asks for all orders."""
        return self.stream == venue.ORDER and self.order_id is None and self.symbol is None

    def spoil(self, why: str) -> None:
        """A record could not be read: absence is not proven any more."""
        self.spoiled = True

    def wants(self, record: Record) -> bool:
        """Whether an Order record is one that the query is after."""
        if self.listing is not None:
            return True
        return self._is_about(record)

    def _is_about(self, record: Record) -> bool:
        order_id = record.order_id
        return order_id is not None and (order_id == self.order_id or self.inquiry.is_about(record))

    def keep(self, record: Record) -> None:
        """Keep an Order record that the query is after: the newest per OrderID."""
        order_id = record.order_id
        if self.listing is not None:
            self.listing.note(record)
        if order_id is None or not self._is_about(record):
            return
        there = self.records.get(order_id)
        if there is None or venue.stamp(record.timestamp) >= venue.stamp(there.timestamp):
            self.records[order_id] = record

    def record_for(self, cancel: CancelState) -> Record | None:
        """The Order record of the cancel's target, by OrderID, else by a client id known for it.

        To be called when no more records come.
        """
        if cancel.order_id is not None:
            return self.records.get(cancel.order_id)
        if self._by_client is None:
            self._index()
        assert self._by_client is not None
        own = (cancel.cl_ord_id, *cancel.earlier_ids, *(cancel.fresh_ids() if self._has_derived else ()))
        found = (self._by_client.get(client_id) for client_id in cancel.client_ids)
        return next((r for r in (*found, *map(self._by_request.get, own)) if r is not None), None)

    def _index(self) -> None:
        by_client: dict[str, Record] = {}
        for record in self.records.values():
            request, original = record.cl_ord_id, record.orig_cl_ord_id
            if request is not None:
                self._by_request.setdefault(request, record)
                by_client.setdefault(request, record)
                self._has_derived = self._has_derived or is_derived(request)
            if original is not None:
                by_client.setdefault(original, record)
        self._by_client = by_client


class Inquiry:
    """One round of questions about the cancels of one lane, on one session.

    ``unanswered`` maps the cancels it has still to answer to the doubt it was asked about: an answer to an older doubt
    of a cancel is no answer. ``proven`` holds the cancels whose reports were read to an end that the venue gave: only
    for those can an absence be believed. ``closed`` holds Order records of closed orders until the reports were read
    once more. ``since_us`` is when its replays begin, in UTC microseconds.
    """

    def __init__(self, lane: Lane, session: SessionState, cancels: list[CancelState], since_us: int) -> None:
        self.lane = lane
        self.since_us = since_us
        self.session = session
        self.cancels = cancels
        self.unanswered = {c: c.doubts for c in cancels}
        self.open_queries: list[Query] = []
        self._waiting: deque[Query] = deque()
        self.proven: set[CancelState] = set()
        self.closed: dict[CancelState, Record] = {}
        self._order_ids = {c.order_id for c in cancels if c.order_id is not None}
        self._client_ids = {
            i for c in cancels if c.order_id is None for i in (*c.client_ids, c.cl_ord_id, *c.earlier_ids)
        }

    def is_about(self, record: Record) -> bool:
        """Whether an Order record may be the target of one of the cancels."""
        return (
            record.order_id in self._order_ids
            or record.cl_ord_id in self._client_ids
            or record.orig_cl_ord_id in self._client_ids
        )

    @property
    def is_of_many(self) -> bool:
        """Whether so many are asked about that one replay serves all."""
        return len(self.cancels) > FEW

    def is_recent_for(self, cancel: CancelState) -> bool:
        """Whether this inquiry was begun after the last doubt about ``cancel``, and has not answered it."""
        return self.unanswered.get(cancel) == cancel.doubts

    def still_asks(self, cancel: CancelState) -> bool:
        """Whether the doubt about ``cancel`` that this inquiry was made for is still open."""
        return cancel.phase is Phase.DOUBT and self.is_recent_for(cancel)

    def report_queries(self, cancels: list[CancelState]) -> list[Query]:
        """First questions: the reports of each order if they are few with known OrderIDs, else all since a time.

        The reject of a cancel for an order that the venue does not know names no order (protocol 4.1).
        """
        if len(cancels) <= FEW and all(c.order_id is not None and c.unknown_since is None for c in cancels):
            return self._by_order(venue.EXECUTION_REPORT, cancels)
        return [Query(self, venue.EXECUTION_REPORT, cancels)]

    def order_queries(self) -> list[Query]:
        """Second questions, for what the reports left open: the Order records."""
        still = [c for c in self.cancels if self.still_asks(c)]
        if len(still) > FEW:
            return [Query(self, venue.ORDER, still)]
        queries = self._by_order(venue.ORDER, [c for c in still if c.order_id is not None])
        for symbol in dict.fromkeys(c.item.symbol for c in still if c.order_id is None):
            covers = [c for c in still if c.order_id is None and c.item.symbol == symbol]
            queries.append(Query(self, venue.ORDER, covers, symbol=symbol))
        return queries

    def single_queries(self, missing: list[CancelState]) -> list[Query]:
        """Third questions: orders that the whole list did not show, perhaps for being older than its horizon."""
        return self._by_order(venue.ORDER, [c for c in missing if c.order_id is not None])

    def _by_order(self, stream: str, cancels: list[CancelState]) -> list[Query]:
        covers: dict[str, list[CancelState]] = {}
        for cancel in cancels:
            assert cancel.order_id is not None
            covers.setdefault(cancel.order_id, []).append(cancel)
        return [Query(self, stream, c, order_id=order_id) for order_id, c in covers.items()]

    def ask(self, queries: list[Query], now: Now) -> None:
        """Open as many of the questions as may be open at once; the others follow as these end."""
        self._waiting.extend(queries)
        self.ask_on(now)

    def ask_on(self, now: Now) -> None:
        """Open those that wait for others to end."""
        while self._waiting and len(self.open_queries) < SINGLES_AT_ONCE:
            query = self._waiting.popleft()
            by_itself = query.stream == venue.ORDER and query.order_id is not None
            since = EARLY if by_itself else start_date(query.since_us, self.session.clock_offset_us)
            self.open_queries.append(query)
            self.session.subscribe(query.stream, since, now, query=query, order_id=query.order_id, symbol=query.symbol)

    def give_up(self) -> None:
        """Its session is lost. It and its questions know each other, and nothing else would part them."""
        self.open_queries.clear()
        self._waiting.clear()


Conclusion = Literal["canceled", "already_closed", "working", "pending", "running", "absent", "unclear"]
"""What an Order record, or its absence, says of a doubtful cancel.

``pending``: our cancel is being worked on; ``running``: another request is; ``absent``: the venue knows no such order;
``unclear``: nothing is proven, so ask again.
"""


def conclude(cancel: CancelState, record: Record | None, absence_proven: bool) -> Conclusion:
    """What the venue's list of orders says of ``cancel`` after its reports said nothing conclusive (contract 4.2)."""
    if record is None:
        return "absent" if absence_proven else "unclear"
    ours = cancel.owns(record.cl_ord_id)
    if venue.status_is_closed(record) or venue.is_filled(record):
        return "canceled" if venue.is_canceled_word(record.ord_status) and ours else "already_closed"
    if venue.status_is_pending(record.ord_status):
        return "pending" if ours else "running"
    if record.ord_status is None:
        return "unclear"
    return "working"


def lookup_start(cancel: CancelState, lookback_s: float, overlap_s: float, now: Now) -> int:
    """Where the replay for ``cancel`` begins, in UTC microseconds: enqueued minus overlap, at most lookback ago (6).

    A command that comes from the future was stamped by a clock that is not ours: its time says nothing.
    """
    earliest = now.utc_us - int(lookback_s * 1e6)
    enqueued = cancel.command.context.enqueued_us
    if enqueued is None or enqueued > now.utc_us:  # a clock that runs ahead tells nothing
        return earliest
    return max(earliest, enqueued - int(overlap_s * 1e6))


def start_date(utc_us: int, clock_offset_us: int) -> str:
    """A StartDate by the venue's clock (protocol section 8, rule 3)."""
    return format_utc(max(0, utc_us + clock_offset_us))
