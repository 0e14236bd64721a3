"""Carries out mass cancels: puts their cancels on the kill lane, takes snapshots, publishes progress and the final."""

from __future__ import annotations

from itertools import islice
from typing import Final

from worker.config import Config
from worker.core.book import OpenOrders
from worker.core.cancel import Answer, Phase, live_after
from worker.core.clock import Now
from worker.core.command import CommandState
from worker.core.desk import Desk
from worker.core.effects import Effect, Note, SearchAudit
from worker.core.events import Events
from worker.core.facts import AuditSearched
from worker.core.reconcile import start_date
from worker.core.session import SessionState, Subscription
from worker.core.snapshot import Scope, Snapshot, subscribe_orders
from worker.core.stats import Stats
from worker.core.sweep import (
    FRUITLESS_ROUNDS,
    LONGEST_PAUSE_S,
    PROGRESS_EVERY_S,
    REPLAY_FIRST_S,
    ROUND_PAUSE_S,
    VAIN_REPLAYS,
    WAITING_ROUND_S,
    Recovery,
    Sweep,
    SweptOrder,
    deadline_of,
    incomplete_error,
)
from worker.wire import event as wire
from worker.wire import venue
from worker.wire.command import Lane, MassCancelCommand
from worker.wire.event import CodeError
from worker.wire.venue import Record

TAKEN_UP_AT_ONCE: Final = 400
"""Orders whose cancels are made before their frames leave: some twenty frames, two milliseconds' work."""

SEARCH_AGAIN_S: Final = 1.0
"""Wait before the audit stream is asked again after it could not be read."""

SEARCHES: Final = 3
"""After so many the deadline decides: once it has passed nothing is sent, so the worst is one more equal final."""

LAST_LOOKS: Final = 6
"""After the deadline a list is begun anew when its session is lost, so many times in all."""


class Sweeps:
    """The mass cancels under way, oldest first."""

    def __init__(
        self, config: Config, desk: Desk, events: Events, book: OpenOrders, effects: list[Effect], stats: Stats
    ) -> None:
        self._config = config
        self._desk = desk
        self._events = events
        self._book = book
        self._effects = effects
        self._stats = stats
        self._running: dict[str, Sweep] = {}
        self._search_again: dict[str, float] = {}
        self._advanced = 0.0

    def __len__(self) -> int:
        return len(self._running)

    # -- begin and end

    def begin(self, command: CommandState, request: MassCancelCommand, now: Now) -> None:
        """Admit a mass cancel. One that was delivered before first looks for its own final (contract section 5)."""
        users = (request.customer_user,) if request.customer_user is not None else self._config.kill.customer_users
        scope = Scope(request.symbol, request.side, users)
        command.deadline_us = deadline_of(command, self._config.kill.max_age)
        sweep = Sweep(command, request, scope, command.deadline_us, now)
        sweep.set_clock(self._book.clock_offset_us)
        command.sweep = sweep
        command.unfinished = 1
        self._running[command.command_id] = sweep
        self._stats.mass_running = len(self._running)
        self._effects.append(
            Note(
                "mass_cancel_begun",
                "warning",
                {
                    "command_id": command.command_id,
                    "symbol": request.symbol,
                    "side": request.side,
                    "customer_users": list(users) if users else None,
                    "redelivered": command.redelivered,
                    "user_id": command.context.user_id,
                },
            )
        )
        if sweep.stage == "searching":
            self._search(sweep)
        else:
            # At once for what the worker's own book shows; whatever it lacks, the snapshot adds.
            sweep.shown = filter(sweep.covers, self._book.orders())

    def _search(self, sweep: Sweep) -> None:
        command = sweep.command
        since_us = command.context.enqueued_us
        self._effects.append(SearchAudit(command.command_id, wire.final_id(command.command_id, 0), since_us))

    def searched(self, fact: AuditSearched, now: Now) -> CommandState | None:
        """The audit stream was asked. Returns the command if its final stands there: it is only acked."""
        sweep = self._running.get(fact.command_id)
        if sweep is None or sweep.stage != "searching":
            return None
        sweep.searches += 1
        if fact.found is None and (sweep.searches < SEARCHES or not sweep.is_past_deadline(now)):
            self._search_again[fact.command_id] = now.mono + SEARCH_AGAIN_S
            return None
        if fact.found:
            self._end(sweep)
            sweep.command.unfinished = 0
            return sweep.command
        sweep.stage = "sweeping"  # from a fresh snapshot: what an earlier process sent is doubtful
        sweep.snapshots_from = now.mono + REPLAY_FIRST_S
        return None

    def give_up(self, sweep: Sweep, why: str, now: Now) -> None:
        """It was delivered too often to be handed back once more: its one report, with what is known (contract 4.6)."""
        self._finish(sweep, "mass_incomplete", CodeError("not_proven", None, why), now)

    def drop(self, command: CommandState) -> None:
        """The command goes back to its queue: whoever gets it starts over."""
        if command.sweep is not None:
            self._end(command.sweep)

    def _end(self, sweep: Sweep) -> None:
        sweep.stage, sweep.shown = "done", None
        self._close_snapshot(sweep)
        self._close_recovery(sweep)
        self._running.pop(sweep.command.command_id, None)
        self._search_again.pop(sweep.command.command_id, None)
        self._stats.mass_running = len(self._running)

    # -- what an earlier process did

    def _recover(self, sweep: Sweep, session: SessionState, now: Now) -> None:
        """Ask for every report since the command was published: an earlier process's cancels are told by their ids."""
        sweep.next_replay = now.mono + WAITING_ROUND_S
        sweep.wants_reports = False
        recovery = sweep.recovery = Recovery(sweep, session)
        settings, enqueued = self._config.venue, sweep.command.context.enqueued_us
        begun = session.unstepped(now).utc_us - int(settings.lookback * 1e6) if enqueued is None else enqueued
        since = start_date(begun - int(settings.overlap * 1e6), session.clock_offset_us)
        recovery.sub = session.subscribe(venue.EXECUTION_REPORT, since, now, query=recovery)
        self._stats.lookups["replay"] += 1

    def recover(self, recovery: Recovery, record: Record) -> None:
        """One report of the replay, or live on its stream, before it is judged."""
        sweep = recovery.sweep
        if sweep.recovery is recovery:
            cancel = sweep.recover(recovery, record)
            if cancel is not None:
                cancel.move(Phase.PARKED)
                self._desk.inflight.enter(cancel)

    def replayed(self, sub: Subscription, recovery: Recovery, now: Now) -> None:
        """The replay came to its end and was judged; what it left open, the next snapshot decides."""
        sweep = recovery.sweep
        if sweep.recovery is not recovery:
            return
        self._doubt_recovered(sweep, now)
        answers = sub.ended == "failed" or sweep.list_ended >= sub.begun
        if answers and len(sweep.orders) == recovery.matched:
            sweep.vain_replays += 1  # the venue answers, but not this: it may have nothing to say
        complete = sub.ended == "venue" and not recovery.spoiled and not sweep.wants_reports
        if complete or sweep.vain_replays >= VAIN_REPLAYS or sweep.is_past_deadline(now):
            sweep.recovered, sweep.wants_reports = True, False
            for swept in sweep.orders.values():
                if swept.cancel is not None and swept.cancel.overheard is not None:
                    self._desk.heed_overheard(swept.cancel, now)  # the reports hold nothing that came before it
            sweep.snapshots_from = now.mono  # the stream goes on until a snapshot has ended: no order slips through
        else:
            self._close_recovery(sweep)

    def _doubt_recovered(self, sweep: Sweep, now: Now) -> None:
        """What no report has ended so far may be canceled again once a snapshot shows it open."""
        if sweep.recovery is not None:
            newest, sweep.recovery.newest = sweep.recovery.newest, {}
            for order_id in newest:
                cancel = sweep.orders[order_id].cancel
                if cancel is not None and cancel.phase is Phase.PARKED:
                    self._desk.doubt(cancel, "redelivered", now, announce=False)

    def _close_recovery(self, sweep: Sweep) -> None:
        recovery, sweep.recovery = sweep.recovery, None
        if recovery is not None and recovery.sub is not None:
            recovery.session.end(recovery.sub)
            recovery.sub = None  # each would keep the other alive

    # -- sending

    def take_up(self, lane: Lane, now: Now) -> bool:
        """Take up the next orders of the book for the mass cancels of ``lane``, which has sent what it could.

        One mass cancel after the other: what another command has sent is joined. False: there are none.
        """
        for sweep in self._running.values():
            if sweep.shown is not None and sweep.command.lane == lane:
                records = [] if sweep.is_past_deadline(now) else list(islice(sweep.shown, TAKEN_UP_AT_ONCE))
                self._cancel(sweep, records, now)
                if not records:
                    sweep.shown = None
                    self._stats.sweeps += sweep.waiting > 0
                return True
        return False

    def _cancel(self, sweep: Sweep, records: list[Record], now: Now) -> None:
        """Cancel open orders, unless a cancel of one is under way already."""
        inflight, queue = self._desk.inflight, self._desk.queues[sweep.command.lane]
        timeout = self._config.venue.report_timeout
        for record in records:
            order_id, symbol = record.order_id, record.symbol
            if order_id is None:
                continue
            swept = sweep.order(order_id, record)
            if swept.waits or swept.done or symbol is None:  # without a Symbol none can be made: it survives, named
                continue
            if swept.cancel is not None:
                inflight.drop(swept.cancel)
            cancel = sweep.new_cancel(swept, symbol)
            joined = inflight.on_its_way(order_id, cancel, now.mono - timeout) if inflight.enter(cancel) else None
            if joined is not None:
                cancel.move(Phase.PARKED)  # another command's cancel is on its way: its reports tell of this order too
                due = joined.due if joined.frame is not None else now.mono + timeout
                self._desk.wait_joined(cancel, joined, due)
            else:
                queue.put(cancel)

    # -- snapshots

    def advance(self, session: SessionState | None, now: Now) -> None:
        """Take each mass cancel as far as it can go now; ``session`` is a ready one, if there is any."""
        self._advanced = now.mono
        for sweep in list(self._running.values()):
            if sweep.stage == "searching":
                due = self._search_again.get(sweep.command.command_id)
                if due is not None and now.mono >= due:
                    del self._search_again[sweep.command.command_id]
                    self._search(sweep)
            elif sweep.stage == "sweeping":
                self._advance(sweep, session, now)
            if sweep.stage == "sweeping" and now.mono >= sweep.next_progress:
                sweep.next_progress = now.mono + PROGRESS_EVERY_S
                self._events.mass_progress(sweep, now)

    def _advance(self, sweep: Sweep, session: SessionState | None, now: Now) -> None:
        if sweep.wants_reports and sweep.recovered:
            self._close_recovery(sweep)  # it has been read, and only follows
            sweep.recovered, sweep.vain_replays = False, 0
        if session is not None and not sweep.recovered and sweep.recovery is None and now.mono >= sweep.next_replay:
            self._recover(sweep, session, now)
        snapshot = sweep.snapshot
        if snapshot is None:
            if session is not None and now.mono >= max(sweep.next_snapshot, sweep.snapshots_from):
                self._take_snapshot(sweep, session, now)
        elif snapshot.ended is not None:
            if sweep.recovered and not self._waits_for_answers(sweep, snapshot, now):
                self._judge(sweep, snapshot, now)
            elif now.mono >= sweep.next_snapshot:
                self._close_snapshot(sweep)  # cancels are still under way: look again, for new orders and lost reports

    def _waits_for_answers(self, sweep: Sweep, snapshot: Snapshot, now: Now) -> bool:
        """Whether cancels under way may still be answered: after the deadline no longer than a first report takes."""
        until_us = sweep.deadline_us + int(self._config.venue.report_timeout * 1e6)
        return sweep.waiting > 0 and not (snapshot.after_deadline and now.utc_us > until_us)

    def _take_snapshot(self, sweep: Sweep, session: SessionState, now: Now) -> None:
        """A fresh reading of the Order stream."""
        sweep.rounds += 1
        sweep.next_snapshot = now.mono + WAITING_ROUND_S
        sweep.set_clock(session.clock_offset_us)
        snapshot = sweep.snapshot = Snapshot(sweep, session, sweep.is_past_deadline(now), self._book.ids())
        snapshot.sub = subscribe_orders(session, snapshot, self._config.venue, now)
        self._stats.lookups["order"] += 1

    def snapshot_ended(self, sub: Subscription, snapshot: Snapshot, now: Now) -> None:
        """A snapshot came to its end: learn what was closed, and cancel what it shows open."""
        sweep = snapshot.sweep
        snapshot.end(sub.ended)
        if sub.ended == "venue":
            sweep.list_ended = now.mono
        if sweep.snapshot is not snapshot or sweep.stage != "sweeping":
            return
        if snapshot.proves and self._config.venue.statuses_form == "none":
            self._book.check(snapshot.held, snapshot.all_open)
        self._doubt_recovered(sweep, now)
        if sweep.recovered and snapshot.ended == "venue":
            self._close_recovery(sweep)
        self._learn_closed(sweep, snapshot, now)
        if not sweep.is_past_deadline(now):
            # At once: the next report may be the answer to what an earlier process sent.
            self._cancel(sweep, list(snapshot.open.values()), now)
            self._stats.sweeps += sweep.waiting > 0
        else:
            for order_id, record in snapshot.open.items():
                sweep.order(order_id, record)

    def _learn_closed(self, sweep: Sweep, snapshot: Snapshot, now: Now) -> None:
        """A report comes before an Order record (contract 4.2): if it is overdue, or a second list shows the same, the
        reports are read once more, and then the list is believed."""
        for order_id, record in snapshot.closed.items():
            swept = sweep.orders.get(order_id)
            if swept is None or swept.done:
                continue
            if swept.waits and not swept.listed_closed:
                swept.listed_closed = True
            elif not swept.reports_read:
                swept.reports_read = sweep.wants_reports = True
            elif sweep.recovered and not sweep.wants_reports:
                self._closed_by_record(sweep, swept, record, now)

    def _closed_by_record(self, sweep: Sweep, swept: SweptOrder, record: Record, now: Now) -> None:
        """The venue's list shows the order closed, though no report of it was seen."""
        cancel = swept.cancel or sweep.new_cancel(swept, record.symbol or "")
        by_us = venue.is_canceled_word(record.ord_status) and cancel.owns(record.cl_ord_id)
        outcome = "canceled" if by_us else "already_closed"
        cancel.note_order(record, live=False)
        if cancel.phase is Phase.FINAL:
            answer = Answer(outcome, live=False)
            if sweep.answered(cancel, answer):
                self._events.final(cancel, answer, now)
        else:
            self._desk.finish(cancel, outcome, now, live=False)

    def _judge(self, sweep: Sweep, snapshot: Snapshot, now: Now) -> None:
        """A snapshot is complete and no cancel is under way: flat, another round, or the end."""
        self._learn_closed(sweep, snapshot, now)
        begun_after = not self._sent_since(sweep, snapshot)
        verdict = sweep.verdict(snapshot)
        past = sweep.is_past_deadline(now)
        if verdict == "not_proven":
            sweep.not_proven = sweep.why_not_proven(snapshot)
        self._close_snapshot(sweep)
        if verdict == "flat" and begun_after:
            self._finish(sweep, "mass_canceled", None, now)
            return
        closed = sum(o.closed for o in sweep.orders.values())
        progress, sweep.closed_before = closed > sweep.closed_before, closed
        sweep.fruitless = 0 if progress or verdict == "flat" else sweep.fruitless + 1
        last_look = past and snapshot.after_deadline
        if last_look or sweep.fruitless >= FRUITLESS_ROUNDS:
            self._finish(sweep, "mass_incomplete", incomplete_error(sweep, now, verdict), now)
            return
        # An error frame whose code is no refusal may ask for a slower pace (contract section 3).
        sweep.strained_rounds = sweep.strained_rounds + 1 if sweep.strained else 0
        sweep.strained = False
        doublings = min(max(sweep.fruitless, sweep.strained_rounds), 10)
        pause = 0.0 if past else min(LONGEST_PAUSE_S, ROUND_PAUSE_S * 2.0**doublings)
        sweep.next_snapshot = now.mono + pause

    @staticmethod
    def _sent_since(sweep: Sweep, snapshot: Snapshot) -> bool:
        """Whether a cancel was sent after the snapshot began: then it can't be the proof of the end."""
        begun = snapshot.sub.begun if snapshot.sub is not None else 0.0
        return any(o.cancel is not None and o.cancel.sent_mono >= begun for o in sweep.orders.values())

    def _close_snapshot(self, sweep: Sweep) -> None:
        snapshot, sweep.snapshot = sweep.snapshot, None
        if snapshot is not None and snapshot.sub is not None:
            snapshot.session.end(snapshot.sub)
            snapshot.sub = None  # each would keep the other alive

    def session_lost(self, session: SessionState, now: Now) -> None:
        """A snapshot or replay on a lost session proves nothing: it is begun anew."""
        for sweep in list(self._running.values()):
            if sweep.recovery is not None and sweep.recovery.session is session:
                self._doubt_recovered(sweep, now)
                self._close_recovery(sweep)
            if sweep.snapshot is not None and sweep.snapshot.session is session:
                sweep.last_looks_lost += sweep.snapshot.after_deadline
                self._close_snapshot(sweep)
                if sweep.last_looks_lost >= LAST_LOOKS:
                    sweep.not_proven = "session after session was lost while the list was read"
                    self._finish(sweep, "mass_incomplete", incomplete_error(sweep, now, "not_proven"), now)

    # -- the final

    def _finish(self, sweep: Sweep, outcome: str, error: CodeError | None, now: Now) -> None:
        """Every order gets its final, then the mass cancel its one report with the closed ledger."""
        for swept in sweep.orders.values():
            if swept.cancel is not None and swept.cancel.overheard is not None:
                self._desk.heed_overheard(swept.cancel, now)
            if not swept.done:
                self._end_order(sweep, swept, now)
        self._end(sweep)
        self._events.mass_final(sweep, outcome, error, now)

    def _end_order(self, sweep: Sweep, swept: SweptOrder, now: Now) -> None:
        """The final of an order that was not seen closed: its last answer, or that it was never sent."""
        swept.done = True
        if swept.cancel is None:
            sweep.new_cancel(swept, swept.record.symbol or "" if swept.record is not None else "")
        assert swept.cancel is not None
        if swept.record is not None:
            swept.cancel.note_order(swept.record, live_after(swept.record))
        if swept.cancel.phase is not Phase.FINAL:
            self._desk.detach(swept.cancel)
            swept.cancel.move(Phase.FINAL)
            self._desk.let_joined_go_on(swept.cancel, now)
        answer = swept.answer
        if answer is None or (answer.outcome == "unresolved" and not swept.was_sent):  # it had joined another's cancel
            message = "the mass cancel ended before a cancel of this order could be sent"
            answer = Answer("deadline_passed", swept.cancel.order_live, error=CodeError("deadline", None, message))
            if swept.was_sent:
                message = "the venue gave no conclusive word before the mass cancel ended"
                answer = Answer("unresolved", swept.cancel.order_live, error=CodeError("unresolved", None, message))
        elif answer.outcome == "unresolved":
            answer.live = swept.cancel.order_live  # as last proven: a list may have come since
        swept.answer = answer
        self._events.final(swept.cancel, answer, now)

    def next_due(self) -> float | None:
        """Monotonic seconds by which ``tick`` and ``advance`` want to be called. What was due at the last ``advance``
        and could not be done then, for want of a session or of the venue's answer, waits for a fact and not for a time.
        """
        dues = [*self._search_again.values()]
        for sweep in self._running.values():
            if sweep.stage == "sweeping":
                dues += (sweep.next_progress, sweep.next_snapshot, sweep.snapshots_from, sweep.next_replay)
        dues = [due for due in dues if due > self._advanced]
        return min(dues, default=None)
