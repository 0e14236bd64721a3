"""What becomes of each cancel: reports, doubt, time-outs and look-ups (contract sections 3 and 4)."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Container, Sequence
from hashlib import sha256
from typing import Final, Literal

from msgspec import Raw

from worker.config import Config
from worker.core.backoff import retry_wait
from worker.core.batch import LaneQueue
from worker.core.cancel import (
    Answer,
    CancelState,
    Overheard,
    Phase,
    ends,
    ends_otherwise,
    is_request,
    judge,
    live_after,
    order_state,
    reject_error,
)
from worker.core.clock import Now
from worker.core.ended import EndedCancel, revived
from worker.core.events import Events
from worker.core.inflight import Inflight
from worker.core.reconcile import Conclusion
from worker.core.stats import Stats
from worker.wire import venue
from worker.wire.command import Lane
from worker.wire.event import CodeError, EventError, OrderState
from worker.wire.timestamp import format_utc
from worker.wire.venue import Record

EXEC_IDS_KEPT: Final = 256
"""ExecIDs remembered per cancel for de-duplication; an order with more reports than that is not a cancel's concern."""

LEAST_KEPT: Final = 1_000
"""Waits kept before those of ended cancels are dropped; then twice what was left: the cost per wait is flat."""

VAIN_REPLAYS: Final = 3
"""After so many look-ups whose replay the venue did not end, what is known besides of an order is believed.

A report is after one, if nobody else is known to have had the command."""

CONFLICTS_TOLD: Final = 8
"""So many reports under ExecIDs seen before are told and looked up per cancel; those after them are only counted."""

ASKED_ABOUT: Final = frozenset({Phase.DOUBT, Phase.PENDING, Phase.RUNNING, Phase.PARKED})
"""Phases in which the venue may be being asked about a cancel, or is to be."""

LAST_LOOK_S: Final = 0.1
"""For the look-up about a send that was on its way when the doubt window ended; also the least wait for its end."""

Wait = Literal["running", "anew", "lookup", "window", "joined"]


class ReadyClock:
    """Seconds during which a session was ready: the time that counts for ``venue.doubt_window``."""

    __slots__ = ("_since", "_total")

    def __init__(self) -> None:
        self._total = 0.0
        self._since: float | None = None

    def run(self, on: bool, mono: float) -> None:
        """Start or stop the clock."""
        if on and self._since is None:
            self._since = mono
        elif not on and self._since is not None:
            self._total += mono - self._since
            self._since = None

    def read(self, mono: float) -> float:
        """Ready seconds so far."""
        return self._total if self._since is None else self._total + mono - self._since


class Desk:
    """Every cancel in flight and every event about it.

    ``doubtful`` lists, per lane, the cancels whose look-up may begin. Its work ends with the final; intake settles the
    command once every final of it is confirmed.
    """

    def __init__(self, config: Config, events: Events, stats: Stats, worker: str) -> None:
        self._settings = config.venue
        self._worker = worker
        self._events = events
        self._stats = stats
        self.inflight = Inflight(config.results.memory)
        self.queues: dict[Lane, LaneQueue] = {"kill": LaneQueue("kill"), "cancel": LaneQueue("cancel")}
        self.doubtful: dict[Lane, list[CancelState]] = {"kill": [], "cancel": []}
        self.ready_clock = ReadyClock()
        self._closed_before: list[CancelState] = []
        # Waits of one length each, so they come due in the order in which they began: no heap is needed.
        self._unreported: deque[tuple[float, list[CancelState]]] = deque()
        self._pending: deque[tuple[float, CancelState]] = deque()
        self._waits: list[tuple[float, int, Wait, CancelState]] = []
        self._wait_count = 0
        self._most_kept = LEAST_KEPT

    # -- reports

    def apply(
        self,
        cancels: Sequence[CancelState | EndedCancel],
        record: Record,
        raw: Raw,
        exec_id: str,
        now: Now,
        session_id: str | None,
        *,
        replayed: bool = False,
        asked: Container[CancelState] = (),
    ) -> None:
        """Judge one ExecutionReport for each cancel that it concerns, if it is new to it (protocol section 6).

        ``asked``: the cancels that a replay was asked for and tells every report of, in order. Of another stream, which
        was under way when the command came or broke off, a cancel may see the last reports only, and would rest on
        another one than it did for somebody else, who has published its final (contract section 3, Ids). An end that
        such a stream tells while the venue is asked is kept, for a look-up that finds no earlier one.
        """
        for cancel in cancels:
            if isinstance(cancel, EndedCancel):
                self._apply_to_ended(cancel, record, raw, exec_id, now, replayed)
                continue
            if (
                cancel.phase in ASKED_ABOUT
                and cancel not in asked
                and self._is_to_be_asked_about(cancel, replayed)
                and ends_otherwise(cancel, record)
            ):
                self._overhear(cancel, Overheard(record, Raw(bytes(raw)), exec_id, session_id, replayed))
                if cancel.phase in (Phase.PENDING, Phase.RUNNING) and cancel.command.sweep is None:
                    self.doubt(cancel, "unclear_report", now, announce=False)  # nobody else may be asking about it
                continue
            seen = cancel.exec_ids
            if exec_id in seen:
                if cancel.phase is Phase.FINAL or not self._conflicts(cancel, record, raw, now, replayed):
                    self._stats.duplicate_reports += 1
                continue
            cancel.exec_ids = (*seen, exec_id) if len(seen) < EXEC_IDS_KEPT else (*seen[1:], exec_id)
            self._apply_to(cancel, record, raw, exec_id, now, session_id, replayed, asked)

    @staticmethod
    def _is_to_be_asked_about(cancel: CancelState, replayed: bool) -> bool:
        """Whether the venue's history is read for the cancel before an end that another stream tells may count."""
        if cancel.is_inherited or cancel.overheard is not None:
            return cancel.phase is not Phase.PARKED or cancel.command.sweep is None
        return replayed and (
            cancel.phase is Phase.DOUBT or (cancel.phase is Phase.PARKED and cancel.command.sweep is None)
        )

    def _overhear(self, cancel: CancelState, end: Overheard) -> None:
        """Keep a report that would end the cancel until the venue's history was asked, and of several what that tells:

        the first by time; but what closed the order before the cancel was asked for gives way to its answer.
        """
        kept = cancel.overheard
        if kept is None or self._rank(cancel, end.record) < self._rank(cancel, kept.record):
            cancel.overheard = end

    def _rank(self, cancel: CancelState, record: Record) -> tuple[bool, str]:
        before = cancel.asked_at is not None and self._is_older(cancel, record) and not is_request(cancel, record)
        return before, venue.stamp(record.timestamp)

    @staticmethod
    def _note_exec_id(cancel: CancelState | EndedCancel, exec_id: str) -> None:
        seen = cancel.exec_ids
        cancel.exec_ids = (*seen, exec_id) if len(seen) < EXEC_IDS_KEPT else (*seen[1:], exec_id)

    @staticmethod
    def _forget_exec_id(cancel: CancelState, exec_id: str) -> None:
        cancel.exec_ids = tuple(seen for seen in cancel.exec_ids if seen != exec_id)

    def _conflicts(self, cancel: CancelState, record: Record, raw: Raw, now: Now, replayed: bool) -> bool:
        """Whether a report under an ExecID seen before has other content: it is kept, counted and looked up (faults 3).

        One that would end the cancel was not seen before, or the cancel would have ended then.
        """
        if not ends(cancel, record):
            return False
        exec_id = exec_id_of(raw)
        if exec_id in cancel.exec_ids:
            return False
        self._stats.conflicting_reports += 1
        if cancel.conflicts < CONFLICTS_TOLD:
            cancel.conflicts += 1
            self._note_exec_id(cancel, exec_id)
            self._events.report(cancel, "report", record, raw, exec_id, live_after(record), now)
            self._doubt_anew(cancel, "unclear_report", now, replayed)
        return True

    def _apply_to(
        self,
        cancel: CancelState,
        record: Record,
        raw: Raw,
        exec_id: str,
        now: Now,
        session_id: str | None,
        replayed: bool,
        asked: Container[CancelState],
    ) -> None:
        if cancel.phase is Phase.FINAL:
            if not self._settles_swept(cancel, record, raw, exec_id, now, session_id, asked):
                self._late(cancel, record, raw, exec_id, now, replayed)
            return
        old = replayed and self._is_older(cancel, record)
        ours = is_request(cancel, record)
        self._learn(cancel, record, ours)
        verdict = judge(cancel, record, ours)
        live = live_after(record)
        if record.ord_status is not None and (live is not None or record.ord_status != "Rejected"):
            cancel.note_order(record, live)
        if ours:
            cancel.sent = "yes"
            cancel.adopt(record.cl_ord_id)
        cancel.reported = self._events.at(now)
        if cancel.session_id is None:
            cancel.session_id = session_id
        if cancel.phase is Phase.SENT:
            self._stats.first_report.observe(now.mono - cancel.sent_mono)
        match verdict:
            case "canceled":
                self.finish(cancel, "canceled", now, record=record, raw=raw, live=False)
            case "already_closed" if old and not ours and cancel.asked_at is not None:
                # Whoever sent the cancel did not see this report but the reject that followed: it may be in the replay,
                # or on its way. What a broken replay told counts when the next one tells it.
                self._forget_exec_id(cancel, exec_id)
                if cancel.phase not in (Phase.SENT, Phase.PENDING, Phase.RUNNING):
                    cancel.closed_before = (record, Raw(bytes(raw)))
                    self._closed_before.append(cancel)
            case "already_closed":
                if ours and self._waits_for_reports(cancel, record, asked):
                    self._forget_exec_id(cancel, exec_id)
                    self._overhear(cancel, Overheard(record, Raw(bytes(raw)), exec_id, session_id, replayed))
                else:
                    self._already_closed(cancel, record, raw, now)
            case "cancel_rejected":
                if cancel.command.sweep is not None:  # no final yet: the next sweep tries again
                    self._events.report(cancel, "report", record, raw, exec_id, True, now)
                error = reject_error(record)
                self.finish(cancel, "cancel_rejected", now, record=record, raw=raw, live=True, error=error)
            case "pending":
                # Another's PendingCancel says nothing new of a cancel that is not sent, that is being asked about, or
                # that waits for the end of just that other one; nor of one whose end was heard.
                waits = (ours or cancel.phase is Phase.SENT) and cancel.overheard is None
                if ours or not old:
                    working = None if venue.is_zero(record.leaves_qty) else True
                    self._events.report(cancel, "pending_cancel", record, raw, exec_id, working, now)
                if waits:
                    cancel.pending_of = record.cl_ord_id
                    self._wait_pending(cancel, now)
            case "none":
                if not old:
                    self._events.report(cancel, "report", record, raw, exec_id, live, now)
                if record.exec_type == "CancelRejected" and record.cl_ord_id == cancel.pending_of and not ours:
                    self._wait_anew(cancel, now)
            case _:
                if ours or not old:
                    self._events.report(cancel, "report", record, raw, exec_id, live, now)
                self._unsettled(cancel, verdict, record, raw, ours, now, replayed=replayed)

    def _late(self, cancel: CancelState, record: Record, raw: Raw, exec_id: str, now: Now, replayed: bool) -> None:
        """A report after the final is passed on, but for what a replay tells of the time before."""
        order = cancel.order
        if replayed and (self._is_older(cancel, record) or (order is not None and not is_newer(record, order))):
            return
        sweep = cancel.command.sweep
        late = sweep is None or not sweep.is_unfinished(cancel)  # its order's final comes later
        self._stats.late_reports += late
        cancel.note_late_fill(record)
        self._events.report(cancel, "report", record, raw, exec_id, live_after(record), now, late=late)

    def _apply_to_ended(
        self, ended: EndedCancel, record: Record, raw: Raw, exec_id: str, now: Now, replayed: bool
    ) -> None:
        if exec_id in ended.exec_ids:
            self._stats.duplicate_reports += 1
            return
        self._note_exec_id(ended, exec_id)
        cancel = revived(ended)
        self._late(cancel, record, raw, exec_id, now, replayed)
        ended.order = cancel.order

    def _already_closed(self, cancel: CancelState, record: Record, raw: Raw, now: Now) -> None:
        error = reject_error(record) if record.exec_type in venue.REJECTS else None
        self.finish(cancel, "already_closed", now, record=record, raw=raw, live=False, error=error)

    def _waits_for_reports(self, cancel: CancelState, record: Record, asked: Container[CancelState]) -> bool:
        """Whether a reject that says the order is closed is kept until the replay after a redelivered mass cancel.

        What closed the order may stand before it there, and an earlier process has told it (contract 3, Ids).
        """
        sweep = cancel.command.sweep
        return sweep is not None and not sweep.recovered and cancel not in asked and record.exec_type in venue.REJECTS

    def replay_judged(self, now: Now, *, whole: bool) -> None:
        """All that a replay told was judged: orders closed before their cancels, and no answer to those, are final."""
        closed, self._closed_before = self._closed_before, []
        for cancel in closed if whole else ():
            self.reports_read(cancel, now)

    def reports_read(self, cancel: CancelState, now: Now) -> None:
        """A whole replay was judged and has not ended the cancel: what is known of its end by other ways counts."""
        cancel.history_read = True
        if not self.heed_overheard(cancel, now) and cancel.closed_before is not None:
            self._already_closed(cancel, *cancel.closed_before, now)

    def _settles_swept(
        self,
        cancel: CancelState,
        record: Record,
        raw: Raw,
        exec_id: str,
        now: Now,
        session_id: str | None,
        asked: Container[CancelState],
    ) -> bool:
        """In a mass cancel an order may close after its last cancel was refused: that is its final."""
        sweep = cancel.command.sweep
        if sweep is None or not sweep.is_unfinished(cancel):
            return False
        ours = is_request(cancel, record)
        verdict = judge(cancel, record, ours)
        if verdict not in ("canceled", "already_closed"):
            return False
        if verdict == "already_closed" and ours and self._waits_for_reports(cancel, record, asked):
            self._forget_exec_id(cancel, exec_id)
            self._overhear(cancel, Overheard(record, Raw(bytes(raw)), exec_id, session_id, replayed=False))
            return True
        cancel.order, cancel.order_live = order_state(record, cancel.order), False
        error = reject_error(record) if record.exec_type in venue.REJECTS else None
        answer = Answer(verdict, live=False, raw=raw, error=error)
        if sweep.answered(cancel, answer):
            self._events.final(cancel, answer, now)
        return True

    def _unsettled(
        self, cancel: CancelState, verdict: str, record: Record, raw: Raw, ours: bool, now: Now, *, replayed: bool
    ) -> None:
        """A report that is an answer but not yet an outcome: wait, or ask (contract section 3, reasons 0, 1, 3, 6)."""
        if verdict == "running":
            cancel.fresh = True
            if cancel.overheard is None:  # else its end is being asked about
                self._wait_running(cancel, now)
            return
        if verdict == "running_ended":
            self.doubt(cancel, "running_request", now, announce=False)
            return
        if verdict == "duplicate":
            cancel.duplicate, cancel.history_read = True, False
            cancel.command.redelivered = True  # somebody had it before us, and may have used fresh ids
            self.inflight.enter(cancel)
        elif ours:
            kept = cancel.reject[0] if cancel.reject is not None and verdict == "unknown" else None
            if kept is None or venue.stamp(record.timestamp) < venue.stamp(kept.timestamp):
                cancel.reject = (record, Raw(bytes(raw)))
        reasons = {"duplicate": "duplicate_id", "unknown": "unknown_order"}
        if cancel.phase is not Phase.QUEUED or cancel.attempt or ours:
            self._doubt_anew(cancel, reasons.get(verdict, "unclear_report"), now, replayed)

    def _doubt_anew(self, cancel: CancelState, reason: str, now: Now, replayed: bool) -> None:
        if cancel.phase is Phase.DOUBT and not replayed:
            cancel.doubts += 1  # a look-up that began before this report can't say what became of the order after it
            self._schedule_lookup(cancel, now)
        else:
            self.doubt(cancel, reason, now, announce=False)

    @staticmethod
    def _is_older(cancel: CancelState, record: Record) -> bool:
        """Whether a replayed report is from before the cancel was asked for: evidence, but no news to publish."""
        return venue.stamp(record.timestamp) < venue.stamp(cancel.asked_at or cancel.command.received)

    def _learn(self, cancel: CancelState, record: Record, ours: bool) -> None:
        """Ids that a report tells of the target: its OrderID where only a client id was given, and new client ids."""
        says_nothing = ours and record.ord_status == "Rejected"
        if (
            cancel.order_id is None
            and record.order_id is not None
            and not venue.names_no_order(record.order_id)
            and not says_nothing
        ):
            self.inflight.learn_order(cancel, record.order_id)
        if (
            record.exec_type in ("New", "PendingNew", "Replaced")
            and record.cl_ord_id
            and not cancel.owns(record.cl_ord_id)
        ):
            self.inflight.learn_client(cancel, record.cl_ord_id)

    # -- waiting

    def were_sent(self, cancels: list[CancelState], now: Now) -> float:
        """Their frame is handed to a socket: their first reports are due in ``venue.report_timeout``. Returns when."""
        due = now.mono + self._settings.report_timeout
        waits = self._unreported
        while waits and waits[0][1][0].phase is Phase.FINAL and all(c.phase is Phase.FINAL for c in waits[0][1]):
            waits.popleft()  # most end long before their time-out, and would be kept alive by it
        waits.append((due, cancels))
        return due

    def _wait_pending(self, cancel: CancelState, now: Now) -> None:
        cancel.move(Phase.PENDING)
        cancel.due = due = now.mono + self._settings.pending_timeout
        waits = self._pending
        while waits and waits[0][1].phase is Phase.FINAL:
            waits.popleft()
        waits.append((due, cancel))

    def _wait_running(self, cancel: CancelState, now: Now) -> None:
        cancel.move(Phase.RUNNING)
        cancel.due = now.mono + self._settings.report_timeout
        self._set(cancel.due, "running", cancel)

    def _wait_anew(self, cancel: CancelState, now: Now) -> None:
        """Another's request that was being worked on was refused: the own first report is due, as after a send."""
        if cancel.phase is Phase.PENDING:
            cancel.due = now.mono + self._settings.report_timeout
            self._set(cancel.due, "anew", cancel)

    def _set(self, due: float, wait: Wait, cancel: CancelState) -> None:
        self._wait_count += 1
        heapq.heappush(self._waits, (due, self._wait_count, wait, cancel))

    def doubt(self, cancel: CancelState, reason: str, now: Now, *, announce: bool = True) -> None:
        """The cancel's fate is not known: ask the venue. ``announce`` publishes ``doubtful`` once per attempt."""
        self.detach(cancel)
        if cancel.command.sweep is not None:
            self._doubt_in_sweep(cancel, reason, now, announce=announce)
            return
        self.let_joined_go_on(cancel, now)
        if cancel.phase is not Phase.DOUBT:
            cancel.move(Phase.DOUBT)
            cancel.doubts += 1
            self._stats.doubts.add(reason)
            self._schedule_lookup(cancel, now)
            if cancel.doubt_began is not None and self._left_of_window(cancel, now) <= 0:
                self._set(now.mono + LAST_LOOK_S, "window", cancel)  # it ended while a send was on its way
        if cancel.doubt_began is None:
            cancel.doubt_began = self.ready_clock.read(now.mono)
            self._set(now.mono + self._settings.doubt_window, "window", cancel)
        if announce:
            self._announce_doubt(cancel, reason, now)

    def _doubt_in_sweep(self, cancel: CancelState, reason: str, now: Now, *, announce: bool) -> None:
        """The mass cancel's next snapshot is the look-up; until then this is the order's last answer."""
        if cancel.overheard is not None:
            return  # it is closed, and ends when the reports were read
        self._stats.doubts.add(reason)
        if announce:
            self._announce_doubt(cancel, reason, now)
        if cancel.refused is not None:
            self.finish(cancel, "refused", now, live=cancel.order_live, error=cancel.refused)
        elif cancel.reject is not None:
            record, raw = cancel.reject
            outcome = "unknown_order" if reason == "unknown_order" else "cancel_rejected"
            live = None if outcome == "unknown_order" else cancel.order_live
            self.finish(cancel, outcome, now, live=live, record=record, raw=raw, error=reject_error(record))
        else:
            self.unresolved(cancel, now, f"no conclusive word from the venue ({reason.replace('_', ' ')})")

    def wait_joined(self, cancel: CancelState, joined: CancelState, due: float) -> None:
        """A cancel of a mass cancel waits for another command's, sent a moment ago, at the latest until ``due``."""
        joined.joined_by = (*joined.joined_by, cancel)
        self._set(due, "joined", cancel)

    def let_joined_go_on(self, cancel: CancelState, now: Now) -> None:
        """Its send brings no end, or nobody knows: the next list shows those who wait for it whether to send theirs."""
        waiting, cancel.joined_by = cancel.joined_by, ()
        for each in waiting:
            self._joined_in_vain(each, now)

    def _joined_in_vain(self, cancel: CancelState, now: Now) -> None:
        if cancel.phase is Phase.PARKED and cancel.overheard is None:
            self.unresolved(cancel, now, "the other cancel that was on its way brought no end")

    def _announce_doubt(self, cancel: CancelState, reason: str, now: Now) -> None:
        if cancel.doubtful_attempt != cancel.attempt:
            cancel.doubtful_attempt = cancel.attempt
            message = f"no conclusive word from the venue ({reason.replace('_', ' ')}); asking it"
            self._events.doubtful(cancel, cancel.error or CodeError(reason, None, message), now)

    def _schedule_lookup(self, cancel: CancelState, now: Now, within: float | None = None) -> None:
        """The first look-up begins at once, each further one after a growing wait, at most ``within`` seconds.

        The wait is the worker's own, and the same for all its cancels: asked about together they stay together.
        """
        settings = self._settings
        if cancel.lookups == 0:
            self.doubtful[cancel.command.lane].append(cancel)
            return
        wait = retry_wait(settings.lookup_min, settings.lookup_max, cancel.lookups, self._worker)
        self._set(now.mono + (wait if within is None else min(wait, within)), "lookup", cancel)

    def tick(self, now: Now) -> None:
        """Act on every time that has come."""
        mono = now.mono
        self._forget_ended()
        unreported = self._unreported
        while unreported and unreported[0][0] <= mono:
            due, cancels = unreported.popleft()
            for cancel in cancels:
                if cancel.phase is Phase.SENT and cancel.due == due:
                    self.doubt(cancel, "no_report", now)
        pending = self._pending
        while pending and pending[0][0] <= mono:
            due, cancel = pending.popleft()
            if cancel.phase is Phase.PENDING and cancel.due == due:
                self.doubt(cancel, "pending", now)
        while self._waits and self._waits[0][0] <= mono:
            due, _, wait, cancel = heapq.heappop(self._waits)
            self._waited(cancel, wait, due, now)

    def _forget_ended(self) -> None:
        """Drop the waits of ended cancels, where one that goes on stands before them."""
        if len(self._unreported) + len(self._pending) + len(self._waits) <= self._most_kept:
            return
        self._unreported = deque(e for e in self._unreported if any(c.phase is Phase.SENT for c in e[1]))
        self._pending = deque(e for e in self._pending if e[1].phase is Phase.PENDING and e[1].due == e[0])
        self._waits = [e for e in self._waits if e[3].phase is not Phase.FINAL]
        heapq.heapify(self._waits)
        self._most_kept = max(LEAST_KEPT, 2 * (len(self._unreported) + len(self._pending) + len(self._waits)))

    def _waited(self, cancel: CancelState, wait: Wait, due: float, now: Now) -> None:
        if wait == "lookup":
            if cancel.phase is Phase.DOUBT:
                self.doubtful[cancel.command.lane].append(cancel)
        elif wait == "window":
            self._window_over(cancel, now)
        elif wait == "joined":
            self._joined_in_vain(cancel, now)
        elif wait == "anew":
            if cancel.due == due and cancel.phase is Phase.PENDING:
                self.doubt(cancel, "no_report", now)
        elif cancel.due == due and cancel.phase is Phase.RUNNING:
            self.doubt(cancel, "running_request", now, announce=False)

    def _window_over(self, cancel: CancelState, now: Now) -> None:
        """``venue.doubt_window`` may be used up; only time with a ready session counts."""
        if cancel.phase is Phase.PARKED:
            cancel.doubt_began = None  # the redelivery that it waits for opens a window of its own
        if cancel.phase is Phase.FINAL or cancel.doubt_began is None:
            return
        left = self._left_of_window(cancel, now)
        if left > 0:
            self._set(now.mono + max(left, LAST_LOOK_S), "window", cancel)
            return
        if cancel.phase in (Phase.QUEUED, Phase.SENT):
            return  # a send that is on its way may still be answered; if it is not, the doubt about it ends the wait
        if self.heed_overheard(cancel, now):
            return
        self.unresolved(cancel, now, "the venue gave no conclusive word within the doubt window")

    def _left_of_window(self, cancel: CancelState, now: Now) -> float:
        """Seconds left of ``venue.doubt_window``; none if they are too few to be told from none."""
        assert cancel.doubt_began is not None
        left = self._settings.doubt_window - (self.ready_clock.read(now.mono) - cancel.doubt_began)
        return left if left > 1e-6 else 0.0

    def next_due(self) -> float | None:
        """Monotonic seconds of the next thing ``tick`` would do."""
        dues = [waits[0][0] for waits in (self._unreported, self._pending, self._waits) if waits]
        return min(dues, default=None)

    # -- answers of a look-up

    def concluded(
        self, cancel: CancelState, conclusion: Conclusion, record: Record | None, now: Now, *, sure: bool = True
    ) -> None:
        """Act on what a look-up proved. The cancel is in DOUBT (contract 4.2, 4.3).

        ``sure``: the venue has ended the replay. If not it may hold the report of an end that is known by other ways.
        """
        ended = conclusion in ("canceled", "already_closed") or self._is_rejected_canceled(cancel)
        resent = conclusion == "working" and cancel.is_inherited  # though a reject may have told somebody its end
        told = cancel.overheard is not None or self._is_rejected_canceled(cancel)
        alone = not (cancel.duplicate or cancel.command.redelivered)
        vain = 1 if alone and (told or not ended) else VAIN_REPLAYS
        if (ended or resent or cancel.overheard is not None) and not sure and cancel.lookups + 1 < vain:
            cancel.lookups += 1
            self._schedule_lookup(cancel, now)
            return
        cancel.history_read = cancel.history_read or sure or cancel.lookups + 1 >= vain
        if self.heed_overheard(cancel, now):
            return
        cancel.lookups += 1
        if record is not None:
            if cancel.order_id is None and record.order_id is not None:
                self.inflight.learn_order(cancel, record.order_id)
            live = False if conclusion in ("canceled", "already_closed") else live_after(record)
            cancel.note_order(record, live)
            cancel.unknown_since = None
            if cancel.owns(record.cl_ord_id):
                cancel.sent = "yes"
                cancel.adopt(record.cl_ord_id)
        match conclusion:
            case "canceled":
                self.finish(cancel, "canceled", now, live=False)
            case "already_closed":
                self._closed_by_lookup(cancel, now)
            case "working":
                self._working(cancel, now)
            case "pending":
                if not self._past_pending(cancel, record, now):
                    self._wait_pending(cancel, now)
            case "running":
                if not self._closed_by_reject(cancel, now):
                    self._wait_running(cancel, now)
            case "absent":
                self._absent(cancel, now)
            case "unclear":
                if not self._closed_by_reject(cancel, now):
                    self._schedule_lookup(cancel, now)

    def heed_overheard(self, cancel: CancelState, now: Now) -> bool:
        """Judge the report that ended it for whoever sent it, now that no earlier one is found; whether it has."""
        overheard, cancel.overheard = cancel.overheard, None
        if overheard is not None and overheard.exec_id not in cancel.exec_ids:
            self._note_exec_id(cancel, overheard.exec_id)
            self._apply_to(cancel, *overheard[:3], now, overheard.session_id, overheard.replayed, (cancel,))
            self.replay_judged(now, whole=True)
        return cancel.phase is Phase.FINAL

    def _closed_by_lookup(self, cancel: CancelState, now: Now) -> None:
        if cancel.refused is not None:
            self.finish(cancel, "refused", now, live=False, error=cancel.refused)
            return
        self._finish_by_reject(cancel, "already_closed", now, live=False)

    def _finish_by_reject(self, cancel: CancelState, outcome: str, now: Now, live: bool | None) -> None:
        """A final that rests on a look-up and, where there was one, on the reject that made it necessary."""
        if cancel.reject is None:
            self.finish(cancel, outcome, now, live=live)
            return
        record, raw = cancel.reject
        self.finish(cancel, outcome, now, record=record, raw=raw, live=live, error=reject_error(record))

    def _working(self, cancel: CancelState, now: Now) -> None:
        """The look-up found the order working without an answer to this cancel."""
        command = cancel.command
        if self._closed_by_reject(cancel, now):
            return  # what an answer to this cancel said closed stays closed: a report comes before an Order record
        if cancel.reject is not None:
            self._finish_by_reject(cancel, "cancel_rejected", now, live=True)
        elif cancel.refused is not None:
            self.finish(cancel, "refused", now, live=True, error=cancel.refused)
        elif (cancel.duplicate and not cancel.fresh) or cancel.attempt > self._settings.max_resends:
            self._schedule_lookup(cancel, now)
        elif not command.deliveries:
            cancel.move(Phase.PARKED)  # whoever gets the redelivery looks up and sends
        elif command.deadline_us is not None and now.utc_us > command.deadline_us:
            self.deadline_passed(cancel, now)
        else:
            if cancel.fresh or (self._settings.resend_id == "new" and cancel.sent != "never"):
                cancel.fresh = cancel.duplicate = False
                cancel.take_fresh_id()
                self.inflight.learn_request(cancel)
            if cancel.attempt:
                self._stats.resends += 1
            cancel.move(Phase.QUEUED)
            self.queues[command.lane].put(cancel)

    def _past_pending(self, cancel: CancelState, record: Record | None, now: Now) -> bool:
        """A record that shows this cancel pending and is older than its reject: the order works, or is closed."""
        if cancel.reject is None or record is None:
            return False
        if venue.stamp(record.timestamp) > venue.stamp(cancel.reject[0].timestamp):
            return self._closed_by_reject(cancel, now)
        self._working(cancel, now)
        return True

    def _closed_by_reject(self, cancel: CancelState, now: Now) -> bool:
        """Look-ups add nothing to a reject that said ``Canceled``: then the order is closed, by another's hand."""
        if not self._is_rejected_canceled(cancel):
            return False
        self._finish_by_reject(cancel, "already_closed", now, live=False)
        return True

    @staticmethod
    def _is_rejected_canceled(cancel: CancelState) -> bool:
        return cancel.reject is not None and venue.is_canceled_word(cancel.reject[0].ord_status)

    def _absent(self, cancel: CancelState, now: Now) -> None:
        """The venue showed that it knows no such order; it must say so over ``venue.unknown_wait`` (contract 3)."""
        if cancel.refused is not None:
            self.finish(cancel, "refused", now, live=None, error=cancel.refused)
            return
        if self._closed_by_reject(cancel, now):
            return
        if cancel.unknown_since is None:
            cancel.unknown_since = now.mono
        left = cancel.unknown_since + self._settings.unknown_wait - now.mono
        if left <= 0:
            self._finish_by_reject(cancel, "unknown_order", now, live=None)
        else:
            self._schedule_lookup(cancel, now, within=left)

    # -- finals

    def deadline_passed(self, cancel: CancelState, now: Now) -> None:
        """The deadline passed before a send; after any doubt the order was just seen working (contract section 3)."""
        command = cancel.command
        deadline = command.context.deadline_text or format_utc(command.deadline_us or 0)
        message = f"not sent after its deadline {deadline}"
        live = None if cancel.sent == "never" else cancel.order_live
        self.finish(cancel, "deadline_passed", now, live=live, error=CodeError("deadline", None, message))

    def unresolved(self, cancel: CancelState, now: Now, message: str) -> None:
        """Still doubtful: for a person, in the dead letters."""
        self.detach(cancel)
        self.finish(cancel, "unresolved", now, live=cancel.order_live, error=CodeError("unresolved", None, message))

    def finish(
        self,
        cancel: CancelState,
        outcome: str,
        now: Now,
        *,
        live: bool | None,
        record: Record | None = None,
        raw: Raw | None = None,
        error: EventError | None = None,
    ) -> None:
        """End a cancel: its final goes out, but in a mass cancel only once its order is closed (contract 3, 5).

        ``record`` is the report that it rests on, if it rests on one, and ``raw`` its bytes. The final then has the
        order as that report has it, whatever came before or since: two workers must tell the same (contract 3, Ids).
        """
        if record is not None and live is not None:
            order = cancel.order
            if live_after(record) is live:
                cancel.order, cancel.order_live = order_state(record, order), live
            elif live and order is not None and venue.as_text(record.cum_qty) == order.cum_qty:
                # A reject that says nothing of the order, which a look-up found working and no further filled.
                cancel.order = OrderState(order.status, order.cum_qty, order.leaves_qty, order.avg_px, record.timestamp)
        self.detach(cancel)
        cancel.move(Phase.FINAL)
        if live is False and record is not None:
            cancel.joined_by = ()  # the same report tells those who wait for it
        else:
            self.let_joined_go_on(cancel, now)
        answer = Answer(outcome, live, raw, error)
        sweep = cancel.command.sweep
        if sweep is None or sweep.answered(cancel, answer):
            self._events.final(cancel, answer, now)
        elif raw is not None:
            answer.raw = Raw(bytes(raw))  # kept: it outlives its frame

    def detach(self, cancel: CancelState) -> None:
        """The cancel no longer waits on its last send."""
        frame = cancel.frame
        if frame is not None:
            cancel.frame = None
            frame.unanswered -= 1
            frame.session.inflight -= 1
            self._stats.inflight[frame.lane] -= 1
            if not frame.unanswered:
                frame.session.frames.pop(frame.reqid, None)


def exec_id_of(raw: Raw) -> str:
    """What stands for the ExecID of a report that has none."""
    return sha256(raw).hexdigest()


def is_newer(record: Record, than: OrderState) -> bool:
    """Whether a report is from after what is known of the order."""
    return venue.stamp(record.timestamp) > venue.stamp(than.as_of)
