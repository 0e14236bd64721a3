"""Runs the inquiries of ``reconcile``: one per lane at a time, on a ready session, begun anew if it is lost."""

from __future__ import annotations

from math import inf
from typing import Final, NamedTuple

from worker.config import Venue
from worker.core.backoff import retry_wait
from worker.core.cancel import CancelState, Phase
from worker.core.clock import Now
from worker.core.desk import Desk
from worker.core.listing import OpenList
from worker.core.outbox import LANES
from worker.core.reconcile import MOST, Inquiry, Query, conclude, lookup_start
from worker.core.session import SessionState, Subscription
from worker.core.stats import Stats
from worker.wire import venue
from worker.wire.command import Lane

GATHER_S: Final[dict[Lane, float]] = {"kill": 0.1, "cancel": 0.5}
"""After a look-up of many cancels the next one waits until as many are doubtful again, but no longer than this.

What one prefetch brought is settled within a moment, and the next comes in as many pieces as its acks: one replay for
all of them costs the venue and us as much as one for each piece.
"""


class Gathering(NamedTuple):
    """The lane's next look-up begins when ``many`` cancels wait for it, or at ``due`` (monotonic seconds)."""

    many: float
    due: float


class Lookups:
    """The inquiries under way. ``start`` begins one wherever doubtful cancels wait and none is running."""

    def __init__(self, settings: Venue, desk: Desk, stats: Stats, worker: str) -> None:
        self._settings = settings
        self._worker = worker
        self._desk = desk
        self._stats = stats
        self._running: dict[Lane, Inquiry] = {}
        self._gathering: dict[Lane, Gathering] = {}
        self._lost: dict[Lane, int] = dict.fromkeys(LANES, 0)  # sessions in a row, each with a look-up under way
        self._listed: OpenList | None = None

    def wanted(self) -> bool:
        """Whether ``start`` may find something to ask about."""
        return any(self._desk.doubtful[lane] and lane not in self._running for lane in LANES)

    def next_due(self) -> float | None:
        """Monotonic seconds at which cancels that are gathered are asked about, however many they are."""
        waiting = (lane for lane in LANES if self._desk.doubtful[lane] and lane not in self._running)
        return min((self._gathering[lane].due for lane in waiting if lane in self._gathering), default=None)

    def tick(self, now: Now) -> None:
        """Let go of a list that no longer serves."""
        if self._listed is not None and not self._listed.serves(now):
            self._listed = None

    def _is_due(self, lane: Lane, now: Now) -> bool:
        if lane in self._running or not self._desk.doubtful[lane]:
            return False
        gathering = self._gathering.get(lane)
        if gathering is None or len(self._desk.doubtful[lane]) >= gathering.many:
            return True
        if now.mono < gathering.due:
            return False
        del self._gathering[lane]  # no more come: the next time it need not be as many
        return True

    def start(self, session: SessionState, now: Now) -> None:
        """Begin an inquiry for each lane that has doubtful cancels and none running."""
        for lane in LANES:
            if self._is_due(lane, now):
                doubtful = self._desk.doubtful[lane]
                batch, self._desk.doubtful[lane] = doubtful[:MOST], doubtful[MOST:]
                cancels = list(dict.fromkeys(c for c in batch if c.phase is Phase.DOUBT))
                if cancels:
                    began, settings = session.unstepped(now), self._settings
                    since = min(lookup_start(c, settings.lookback, settings.overlap, began) for c in cancels)
                    inquiry = self._running[lane] = Inquiry(lane, session, cancels, since)
                    self._ask(inquiry, inquiry.report_queries(cancels), now)
                else:
                    self._lost[lane] = 0  # what cost them needs no answer any more

    def _ask(self, inquiry: Inquiry, queries: list[Query], now: Now) -> None:
        now = inquiry.session.unstepped(now)
        self.tick(now)
        reports_since, listed = inquiry.since_us, self._listed
        if listed is not None:
            reports_since = min(reports_since, self._before_list(listed))
        orders_since = now.utc_us - int(self._settings.order_horizon * 1e6)
        for query in queries:
            query.since_us = orders_since if query.stream == venue.ORDER else reports_since
            self._stats.lookups["order" if query.stream == venue.ORDER else "replay"] += 1
            if query.is_whole_list:
                query.listing = OpenList(now.utc_us)
        inquiry.ask(queries, now)

    def _before_list(self, listed: OpenList) -> int:
        """Since when a replay has to be read that stands beside the list."""
        return listed.begun_us - int(self._settings.overlap * 1e6)

    def ended(self, sub: Subscription, query: Query, now: Now) -> None:
        """A question's snapshot came to its end; its records have been judged or kept."""
        inquiry = query.inquiry
        query.ended = "failed" if query.spoiled else sub.ended
        inquiry.session.end(sub)
        inquiry.open_queries.remove(query)
        if query.stream == venue.EXECUTION_REPORT:
            self._reports_read(inquiry, query, now)
        else:
            if query.listing is not None and query.ended == "venue":
                query.listing.end(now)
                self._listed = query.listing
            self._conclude(inquiry, query, now)
        inquiry.ask_on(now)
        if inquiry.open_queries or self._running.get(inquiry.lane) is not inquiry:
            return
        if query.stream == venue.EXECUTION_REPORT:
            self._ask(inquiry, inquiry.order_queries(), now)
        if not inquiry.open_queries:
            del self._running[inquiry.lane]
            self._lost[inquiry.lane] = 0
            self._gather(inquiry, now)

    def _gather(self, inquiry: Inquiry, now: Now) -> None:
        before = self._gathering.pop(inquiry.lane, None)
        if inquiry.is_of_many:
            many = max(len(inquiry.cancels), before.many if before is not None else 0)
            self._gathering[inquiry.lane] = Gathering(many, now.mono + GATHER_S[inquiry.lane])

    def _reports_read(self, inquiry: Inquiry, query: Query, now: Now) -> None:
        self._believe_closed(inquiry, query, now)
        if query.ended != "venue":
            return
        # An order known by its client id may have told its OrderID only now, after reports under later client ids.
        named = [c for c in query.unnamed if c.order_id is not None and inquiry.still_asks(c)]
        inquiry.proven.update(c for c in query.covers if c not in named)
        for cancel in query.covers:
            if cancel not in named and inquiry.is_recent_for(cancel):
                self._desk.reports_read(cancel, now)
        if named:
            self._ask(inquiry, inquiry.report_queries(named), now)
        listed = self._listed
        if listed is not None and query.order_id is None and query.since_us <= self._before_list(listed):
            for cancel in query.covers:
                if inquiry.still_asks(cancel) and cancel in inquiry.proven:
                    record = listed.shows_working(cancel)
                    if record is not None:
                        del inquiry.unanswered[cancel]
                        self._desk.concluded(cancel, "working", record, now)

    def _conclude(self, inquiry: Inquiry, query: Query, now: Now) -> None:
        missing: list[CancelState] = []
        closed: list[CancelState] = []
        for cancel in query.covers:
            if not inquiry.still_asks(cancel):
                continue
            record = query.record_for(cancel)
            if record is None and query.is_whole_list and cancel.order_id is not None and query.ended == "venue":
                missing.append(cancel)
                continue
            proven = query.ended == "venue" and cancel in inquiry.proven
            conclusion = conclude(cancel, record, proven)
            if record is not None and conclusion in ("canceled", "already_closed"):
                if cancel.order_id is None and record.order_id is not None:
                    self._desk.inflight.learn_order(cancel, record.order_id)
                inquiry.closed[cancel] = record
                closed.append(cancel)
                continue
            del inquiry.unanswered[cancel]
            self._desk.concluded(cancel, conclusion, record, now, sure=cancel in inquiry.proven)
        if missing:
            self._ask(inquiry, inquiry.single_queries(missing), now)
        if closed:
            self._ask(inquiry, inquiry.report_queries(closed), now)

    def _believe_closed(self, inquiry: Inquiry, query: Query, now: Now) -> None:
        """A report comes before an Order record (contract 4.2): the order may have closed after its reports were read.

        So they are read once more, and what then has no report that says so rests on the record. Without that a final
        could come out a second time, or from another worker, with another ``report`` (contract section 3, Ids).
        """
        for cancel in query.covers:
            record = inquiry.closed.pop(cancel, None)
            if record is None or not inquiry.is_recent_for(cancel):
                continue
            if cancel.phase in (Phase.DOUBT, Phase.PENDING, Phase.RUNNING):
                del inquiry.unanswered[cancel]
                sure = query.ended == "venue"
                self._desk.concluded(cancel, conclude(cancel, record, True), record, now, sure=sure)

    def session_lost(self, session: SessionState, now: Now) -> None:
        """What was asked on a lost session and not answered is asked again on another.

        The question itself may be what costs the sessions: after the second one in a row it waits longer each time.
        """
        for lane, inquiry in list(self._running.items()):
            if inquiry.session is session:
                del self._running[lane]
                inquiry.give_up()
                lost, settings = self._lost[lane], self._settings
                again = [c for c in inquiry.unanswered if inquiry.still_asks(c)]
                self._lost[lane] = lost + 1 if again else 0
                if lost and again:
                    wait = retry_wait(settings.lookup_min, settings.lookup_max, lost, self._worker, lane)
                    self._gathering[lane] = Gathering(inf, now.mono + wait)
                for cancel in again:
                    self._desk.doubtful[cancel.command.lane].append(cancel)
