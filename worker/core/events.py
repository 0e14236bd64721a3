"""Makes events and hands them to the outbox: the one place where what the core knows becomes what is published."""

from __future__ import annotations

from msgspec import UNSET, Raw, UnsetType

from worker.core.cancel import Answer, CancelState, reject_error
from worker.core.clock import Now
from worker.core.command import CommandState
from worker.core.effects import Effect, OutEvent, Reply
from worker.core.outbox import Outbox
from worker.core.stats import Stats
from worker.core.sweep import PROGRESS_UNCONFIRMED, Sweep
from worker.wire import event as wire
from worker.wire.command import Context, InvalidItem, Lane
from worker.wire.event import CodeError, Event, EventError, InputError, ScopeAsked, Sent, Times
from worker.wire.timestamp import US_PER_SECOND, format_utc, parse_utc
from worker.wire.venue import Record


class Events:
    """Publishes the events of one worker (contract section 3); ``worker`` is its name in them."""

    def __init__(self, worker: str, replies: bool, outbox: Outbox, effects: list[Effect], stats: Stats) -> None:
        self._worker = worker
        self._replies = replies
        self._outbox = outbox
        self._effects = effects
        self._stats = stats
        self._at_us = 0
        self._at = ""
        self._announcements = 0

    def at(self, now: Now) -> str:
        """``now`` as events write it; the text is kept, since one read of a socket makes many events at one instant."""
        if now.utc_us != self._at_us:
            self._at_us, self._at = now.utc_us, format_utc(now.utc_us)
        return self._at

    def report(
        self,
        cancel: CancelState,
        outcome: str,
        record: Record,
        raw: Raw,
        exec_id: str,
        live: bool | None,
        now: Now,
        *,
        late: bool = False,
    ) -> None:
        """``pending_cancel`` or ``report``: one report passed on, byte for byte."""
        error = reject_error(record) if record.exec_type in ("CancelRejected", "Rejected") else None
        event_id = wire.report_id(cancel.command.command_id, cancel.key, exec_id)
        self._of_cancel(cancel, outcome, False, event_id, live, raw, error, None, late, now)

    def doubtful(self, cancel: CancelState, error: EventError, now: Now) -> None:
        """The look-up begins; said once per attempt."""
        event_id = wire.attempt_id(cancel.command.command_id, cancel.key, "doubtful", cancel.attempt)
        self._of_cancel(cancel, "doubtful", False, event_id, None, None, error, None, False, now)

    def final(self, cancel: CancelState, answer: Answer, now: Now) -> None:
        """The one final event of a cancel, or in a mass cancel of an order."""
        command, outcome = cancel.command, answer.outcome
        supersedes = None
        if outcome == "unresolved":
            event_id = wire.unresolved_id(command.command_id, cancel.key)
        else:
            event_id = wire.final_id(command.command_id, cancel.key)
            if command.requeued:
                supersedes = wire.unresolved_id(command.command_id, cancel.key)
        if outcome in wire.DEAD_LETTERED and command.sweep is None:
            command.dead = True
        self._of_cancel(cancel, outcome, True, event_id, answer.live, answer.raw, answer.error, supersedes, False, now)

    def _of_cancel(
        self,
        cancel: CancelState,
        outcome: str,
        final: bool,
        event_id: str,
        live: bool | None,
        raw: Raw | None,
        error: EventError | None,
        supersedes: str | None,
        late: bool,
        now: Now,
    ) -> None:
        item, command = cancel.item, cancel.command
        context = command.context
        event = Event(
            event_id,
            context.command_id,
            cancel.index,
            outcome,
            final,
            cancel.sent,
            live,
            item.symbol,
            cancel.cl_ord_id,
            item.orig_cl_ord_id,
            cancel.order_id,
            cancel.order,
            raw,
            error,
            supersedes,
            late,
            cancel.attempt,
            command.lane,
            self._worker,
            cancel.session_id,
            context.user_id,
            context.app_id,
            context.reason,
            Times(command.enqueued, command.received, cancel.sent_at, cancel.reported, self.at(now)),
            context.deadline_text or UNSET,
            context.traceparent or UNSET,
            context.tracestate or UNSET,
        )
        self._publish(command, event, cancel, now)

    def invalid_item(self, command: CommandState, item: InvalidItem, now: Now) -> None:
        """One spoiled item: its final, and the command's way to the dead letters (contract section 2)."""
        command.dead = True
        rejection = item.rejection
        supersedes = wire.unresolved_id(command.command_id, item.index) if command.requeued else None
        self._of_command(
            command,
            wire.final_id(command.command_id, item.index),
            item.index,
            "invalid",
            True,
            now,
            symbol=item.symbol,
            cl_ord_id=item.cl_ord_id,
            orig_cl_ord_id=item.orig_cl_ord_id,
            order_id=item.order_id,
            error=InputError(rejection.field, rejection.rule, rejection.message),
            supersedes=supersedes,
        )

    def whole_command(
        self, command: CommandState, outcome: str, body_sha256_hex: str, error: InputError, now: Now
    ) -> None:
        """One event that is the final of every cancel of a body: ``invalid`` or ``unauthorized`` (contract 3)."""
        command.dead = True
        event_id = wire.command_event_id(command.context.command_id, body_sha256_hex, outcome)
        self._of_command(command, event_id, None, outcome, True, now, error=error)

    def mass_progress(self, sweep: Sweep, now: Now) -> None:
        """The ledger of a mass cancel under way, unless too many wait for their confirm (contract section 5)."""
        command_id, count = sweep.command.command_id, sweep.progress_count + 1
        before = wire.attempt_id(command_id, 0, "mass_progress", count - PROGRESS_UNCONFIRMED)
        if count > PROGRESS_UNCONFIRMED and self._outbox.holds(before):
            return
        sweep.progress_count = count
        event_id = wire.attempt_id(command_id, 0, "mass_progress", count)
        self._of_mass(sweep, "mass_progress", False, event_id, None, None, now)

    def mass_final(self, sweep: Sweep, outcome: str, error: CodeError | None, now: Now) -> None:
        """The one report of a mass cancel, with its closed ledger (contract section 5)."""
        command = sweep.command
        if outcome in wire.DEAD_LETTERED:
            command.dead = True
        live = False if outcome == "mass_canceled" else None
        self._of_mass(sweep, outcome, True, wire.final_id(command.command_id, 0), live, error, now)

    def _of_mass(
        self,
        sweep: Sweep,
        outcome: str,
        final: bool,
        event_id: str,
        live: bool | None,
        error: CodeError | None,
        now: Now,
    ) -> None:
        command, request = sweep.command, sweep.request
        scope = ScopeAsked(
            request.request_type, request.symbol, request.side, request.customer_user, sweep.scope.customer_users
        )
        self._of_command(
            command,
            event_id,
            0,
            outcome,
            final,
            now,
            sent=sweep.sent,
            live=live,
            symbol=request.symbol,
            cl_ord_id=request.cl_ord_id,
            error=error,
            mass=Raw(sweep.ledger(now)),
            scope=scope,
        )

    def _of_command(
        self,
        command: CommandState,
        event_id: str,
        index: int | None,
        outcome: str,
        final: bool,
        now: Now,
        *,
        sent: Sent = "never",
        live: bool | None = None,
        symbol: str | None = None,
        cl_ord_id: str | None = None,
        orig_cl_ord_id: str | None = None,
        order_id: str | None = None,
        error: EventError | None = None,
        supersedes: str | None = None,
        mass: Raw | UnsetType = UNSET,
        scope: ScopeAsked | UnsetType = UNSET,
    ) -> None:
        """An event that is not about a cancel in flight."""
        context = command.context
        event = Event(
            event_id=event_id,
            command_id=context.command_id,
            index=index,
            outcome=outcome,
            final=final,
            sent=sent,
            order_live=live,
            symbol=symbol,
            cl_ord_id=cl_ord_id,
            orig_cl_ord_id=orig_cl_ord_id,
            order_id=order_id,
            order=None,
            report=None,
            error=error,
            supersedes=supersedes,
            late=False,
            attempt=0,
            lane=command.lane,
            worker=self._worker,
            session_id=None,
            user_id=context.user_id,
            app_id=context.app_id,
            reason=context.reason,
            times=Times(command.enqueued, command.received, None, None, self.at(now)),
            deadline=context.deadline_text or UNSET,
            traceparent=context.traceparent or UNSET,
            tracestate=context.tracestate or UNSET,
            mass=mass,
            scope=scope,
        )
        self._publish(command, event, None, now)

    def _publish(self, command: CommandState, event: Event, cancel: CancelState | None, now: Now) -> None:
        context, lane, outcome, final = command.context, command.lane, event.outcome, event.final
        out = OutEvent(
            event.event_id,
            lane,
            wire.routing_key(outcome, final, event.symbol),
            wire.encode_event(event),
            outcome,
            final,
            context.command_id,
            context.correlation_id,
            command.headers(final),
            now.utc_us // 1_000_000,
            event.index,
            command if final else None,
            cancel if final else None,
        )
        if final:
            command.unfinished -= 1
            command.unconfirmed += 1
            command.finals.append(out)
            self._stats.finals[outcome] += 1
            self._stats.final_delay[lane].observe((now.utc_us - command.received_us) / 1e6)
        else:
            self._stats.infos[outcome] += 1
        self._outbox.publish(out, now)
        if final and context.reply_to is not None:
            self.reply(out, context)

    def final_again(self, command: CommandState, final: bytes, now: Now) -> None:
        """A final that was told and stored before, for another delivery of its command."""
        event, context = wire.read_final(final), command.context
        out = OutEvent(
            event.event_id,
            command.lane,
            wire.routing_key(event.outcome, True, event.symbol),
            final,
            event.outcome,
            True,
            event.command_id,
            context.correlation_id,
            command.headers(True),
            parse_utc(event.times.published or self.at(now)) // US_PER_SECOND,
            event.index,
            command,
        )
        command.unconfirmed += 1
        self._outbox.publish(out, now)
        self.reply(out, context)

    def reply(self, event: OutEvent, context: Context) -> None:
        """Send a final also to whoever asked for an answer, best effort (contract section 2)."""
        if context.reply_to and self._replies:
            self._effects.append(Reply(event, context.reply_to))

    def availability(self, outcome: str, error: CodeError | None, now: Now) -> None:
        """``worker_unavailable`` or ``worker_available``: about the worker, not about any command."""
        if outcome == "worker_unavailable":
            self._announcements += 1
        lane: Lane = "kill"
        event_id = wire.worker_event_id(self._worker, outcome, self._announcements)
        event = Event(
            event_id=event_id,
            command_id=None,
            index=None,
            outcome=outcome,
            final=False,
            sent="never",
            order_live=None,
            symbol=None,
            cl_ord_id=None,
            orig_cl_ord_id=None,
            order_id=None,
            order=None,
            report=None,
            error=error,
            supersedes=None,
            late=False,
            attempt=0,
            lane=None,
            worker=self._worker,
            session_id=None,
            user_id=None,
            app_id=None,
            reason=None,
            times=Times(None, None, None, None, self.at(now)),
        )
        key = wire.routing_key(outcome, False, None)
        body, timestamp_s = wire.encode_event(event), now.utc_us // 1_000_000
        self._stats.infos[outcome] += 1
        headers: dict[str, str | bool] = {"final": False}
        self._outbox.publish(OutEvent(event_id, lane, key, body, outcome, False, None, None, headers, timestamp_s), now)
