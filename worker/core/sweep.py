"""Mass cancel: rounds of cancels until the venue itself has shown that nothing in scope is open (contract section 5).

A sweep sends at once for what the worker's own book of open orders shows, then for whatever each fresh snapshot adds.
Flat is never concluded from silence: one subscription, begun after the last cancel was sent, read to a frame
without ``next``, must hold no open order in scope, and neither must the live frames after it; and every order that was
matched must have been seen closed. All else is ``mass_incomplete`` and names who is left.

The look-up of an ordinary cancel has no place here: the next snapshot is the look-up. A cancel that times out or is
refused ends its own life, is kept as the order's last answer, and the order is canceled again under the next round's
ClOrdID if the snapshot still shows it open.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Final, Literal

from msgspec import Struct

from worker.core.cancel import SWEEPS_RECOGNISED, Answer, CancelState, Phase, is_derived, live_after
from worker.core.clock import Now
from worker.core.command import CommandState
from worker.core.session import SessionState, Subscription
from worker.core.snapshot import Scope, Snapshot, count_orders
from worker.wire import venue
from worker.wire.command import CancelItem, MassCancelCommand, derive_sweep_cl_ord_id
from worker.wire.event import CodeError, Sent
from worker.wire.timestamp import MAX_US, MIN_US, format_utc, normalise_utc
from worker.wire.venue import Record

PROGRESS_EVERY_S: Final = 0.18
"""Contract section 5 asks for ``mass_progress`` every 250 ms at least; a tick of the runner may come 50 ms late."""

PROGRESS_UNCONFIRMED: Final = 8
"""So many may wait for their confirm, which a busy broker needs some time for; with more it is not told anew."""

ROUND_PAUSE_S: Final = 0.05
"""Between the end of a round's cancels and the next snapshot; doubles with each round that closed nothing."""

LONGEST_PAUSE_S: Final = 2.0

WAITING_ROUND_S: Final = 1.0
"""While cancels are still under way a fresh snapshot is taken this often: it finds new orders, and lost reports."""

FRUITLESS_ROUNDS: Final = 6
"""After so many rounds in a row that closed nothing although every cancel came to its end, the mass cancel ends."""

REPLAY_FIRST_S: Final = 2.0
"""After a redelivery the replay of reports comes before the first snapshot, but holds it up no longer than this."""

VAIN_REPLAYS: Final = 3
"""After so many replays that brought no order and that the venue did not end, though it ended a list meanwhile, it
counts as having none."""


class SweptOrder(Struct, eq=False, gc=False):
    """One order that matched: its running number, its present cancel, and that one's or an earlier one's answer.

    ``record``: that which last showed it open. ``waits``: the present cancel has still to end. ``listed_closed``: a
    list shows it closed, while its report may be on its way. ``reports_read``: after that the reports were asked for
    once more. ``closed``: seen closed. ``done``: its final is made. ``place``: of its cancel in the command.
    """

    order_id: str
    index: int
    record: Record | None = None
    cancel: CancelState | None = None
    answer: Answer | None = None
    closed: bool = False
    done: bool = False
    listed_closed: bool = False
    reports_read: bool = False
    place: int = 0
    waits: bool = False

    @property
    def was_sent(self) -> bool:
        """Whether a cancel of it was handed to a socket, or the venue has answered one."""
        return self.cancel is not None and (self.cancel.attempt > 0 or self.cancel.sent == "yes")


class Recovery:
    """The replay of reports after a redelivery: which orders an earlier process has sent cancels for.

    Without it an order that closed while no worker ran would be missing in the ledger, and have no final. ``matched``:
    how many orders were when it began. ``newest``: the highest sweep seen, by OrderID, of the orders that it admitted.
    ``recognised``: the sweep, or None, by OrderID and ClOrdID, since an id that a worker has derived can be told by
    many hashes only.
    """

    def __init__(self, sweep: Sweep, session: SessionState) -> None:
        self.sweep = sweep
        self.session = session
        self.spoiled = False
        self.sub: Subscription | None = None
        self.matched = len(sweep.orders)
        self.newest: dict[str, int] = {}
        self.recognised: dict[tuple[str, str], int | None] = {}

    def may_tell(self, record: Record) -> bool:
        """Whether a report closes an order in scope, which another report may admit before the replay ends.

        What closed it before the mass cancel was asked for gives way to the answer to its cancel.
        """
        if record.exec_type in venue.REJECTS or live_after(record) is not False:
            return False
        asked_at = self.sweep.command.enqueued
        return venue.stamp(record.timestamp) >= venue.stamp(asked_at) and self.sweep.scope.covers(record) is not False

    def spoil(self, why: str) -> None:
        """Something of it could not be read."""
        self.spoiled = True


Stage = Literal["searching", "sweeping", "done"]


class Sweep:
    """One mass cancel from its admission to its final. Decisions only: ``Sweeps`` carries them out.

    ``shown``: the orders in scope that the worker's own book shows open, until all of them are taken up.
    """

    def __init__(
        self, command: CommandState, request: MassCancelCommand, scope: Scope, deadline_us: int, now: Now
    ) -> None:
        self.command = command
        self.request = request
        self.scope = scope
        self.deadline_us = deadline_us
        self.stage: Stage = "searching" if command.redelivered else "sweeping"
        self.orders: dict[str, SweptOrder] = {}
        self.began = now.mono
        self.rounds = 0
        self.fruitless = 0
        self.strained = False
        self.strained_rounds = 0
        self.closed_before = 0
        self.snapshot: Snapshot | None = None
        self.next_snapshot = now.mono
        self.next_progress = now.mono + PROGRESS_EVERY_S
        self.progress_count = 0
        self.not_proven: str | None = None
        self.waiting = 0
        self.searches = 0
        self.recovery: Recovery | None = None
        self.recovered = not command.redelivered
        self.wants_reports = False
        self.vain_replays = 0
        self.last_looks_lost = 0
        self.next_replay = now.mono
        self.list_ended = -inf
        self.snapshots_from = now.mono
        self.set_clock(0)
        self.shown: Iterator[Record] | None = None

    def is_past_deadline(self, now: Now) -> bool:
        """After its deadline a mass cancel sends nothing more."""
        return now.utc_us > self.deadline_us

    def set_clock(self, offset_us: int) -> None:
        """Orders are stamped by the venue's clock, which is ``offset_us`` ahead of ours, by which the deadline is."""
        self._deadline_there = format_utc(max(MIN_US, min(MAX_US, self.deadline_us + offset_us)))

    def covers(self, record: Record) -> bool | None:
        """Whether the order is in scope and was submitted before the deadline; None where that cannot be told."""
        covered = self.scope.covers(record)
        if covered is not False and record.submit_time is not None:
            try:
                if normalise_utc(record.submit_time) >= self._deadline_there:
                    return False
            except ValueError:
                return None
        return covered

    def order(self, order_id: str, record: Record | None) -> SweptOrder:
        """The entry of an order that ``record`` shows open, made when it is matched for the first time."""
        swept = self.orders.get(order_id)
        if swept is None:
            swept = self.orders[order_id] = SweptOrder(order_id, len(self.orders) + 1, record)
            self.command.unfinished += 1
        elif record is not None:
            swept.record = record
        return swept

    def recognise(self, recovery: Recovery, record: Record) -> int | None:
        """The sweep whose cancel a report answers, by its ClOrdID; None: no cancel of this mass cancel."""
        order_id, request = record.order_id, record.cl_ord_id
        if order_id is None or request is None or not is_derived(request) or self.scope.covers(record) is False:
            return None
        if (order_id, request) not in recovery.recognised:
            command_id = self.command.command_id
            found = (n for n in range(SWEEPS_RECOGNISED) if derive_sweep_cl_ord_id(command_id, order_id, n) == request)
            recovery.recognised[order_id, request] = next(found, None)
        return recovery.recognised[order_id, request]

    def recover(self, recovery: Recovery, record: Record) -> CancelState | None:
        """Admit the order of a report that answers a cancel of an earlier process, which is returned if it is new.

        The newest of those cancels is the order's present one, whatever the order of the pages.
        """
        number = self.recognise(recovery, record)
        if number is None or record.order_id is None or record.cl_ord_id is None:
            return None
        self.rounds = max(self.rounds, number)
        swept = self.orders.get(record.order_id)
        if swept is None:
            swept = self.order(record.order_id, None)
            recovery.newest[record.order_id] = number
            return self.new_cancel(swept, record.symbol or "", number)
        newest, cancel = recovery.newest.get(record.order_id), swept.cancel
        if newest is None or cancel is None or cancel.phase is not Phase.PARKED:
            return None  # a snapshot or the book had it before
        if number > newest:
            recovery.newest[record.order_id] = number
            cancel.adopt(record.cl_ord_id)
        elif record.cl_ord_id not in (cancel.cl_ord_id, *cancel.earlier_ids):
            cancel.earlier_ids = (*cancel.earlier_ids, record.cl_ord_id)
        return None

    def answered(self, cancel: CancelState, answer: Answer) -> bool:
        """A cancel of the sweep ended. True: its order is closed, so it is final; else it is kept as an answer."""
        swept = self.orders.get(cancel.item.order_id or "")
        if swept is None:
            return False  # the mass cancel was let go
        if swept.waits and cancel is swept.cancel:
            swept.waits = False
            self.waiting -= 1
        self.strained = self.strained or bool(cancel.lookups)
        if swept.done or (answer.outcome == "deadline_passed" and swept.answer is not None):
            return False  # what the venue said to an earlier cancel of the order stands
        swept.closed = swept.done = answer.outcome in ("canceled", "already_closed")
        # Of one that gets its final now the ledger asks no more, and its report would keep a whole frame alive.
        swept.answer = Answer(answer.outcome, answer.live) if swept.done else answer
        return swept.done

    def let_go(self) -> None:
        """Its command has come to its end here, and may be asked once more: reports and waits outlive both."""
        self.orders = {}
        vars(self).pop("command", None)  # each would keep the other alive

    @property
    def sent(self) -> Sent:
        """Whether any cancel of it was handed to a socket, by this process or perhaps by an earlier one."""
        if any(o.was_sent for o in self.orders.values()):
            return "yes"
        return "maybe" if self.command.redelivered else "never"

    def is_unfinished(self, cancel: CancelState) -> bool:
        """Whether the order of an ended cancel has still no final."""
        swept = self.orders.get(cancel.item.order_id or "")
        return swept is not None and not swept.done and self.stage != "done"

    def ledger(self, now: Now) -> bytes:
        """The ``mass`` object of its events; the counts add up at every moment (contract section 5)."""
        counts = {"canceled": 0, "already_closed": 0, "rejected": 0, "unknown": 0, "unsent": 0}
        remaining = []
        for swept in self.orders.values():
            kind = _ledger_kind(swept)
            counts[kind] += 1
            if not swept.closed:
                remaining.append(swept.order_id)
        return encode_ledger(
            {
                "matched": len(self.orders),
                **counts,
                "remaining": remaining,
                "sweeps": self.rounds,
                "restarted": self.command.redelivered,
                "elapsed_ms": round((now.mono - self.began) * 1e3, 3),
            }
        )

    def new_cancel(self, swept: SweptOrder, symbol: str, number: int | None = None) -> CancelState:
        """A cancel of the order under the ClOrdID (UUIDv5 of command id, OrderID, sweep) of this or another round."""
        command, order_id = self.command, swept.order_id
        request_id = derive_sweep_cl_ord_id(command.command_id, order_id, self.rounds if number is None else number)
        item = CancelItem(swept.index, symbol, request_id, order_id, None, None, None)
        cancel = CancelState(command, item, item.index, f"order {order_id}", request_id, order_id)
        before, swept.cancel = swept.cancel, cancel
        if before is None:
            cancels = command.cancels
            swept.place = len(cancels)
            cancels.append(cancel)
            if command.redelivered:
                cancel.sent = "maybe"
        else:
            command.cancels[swept.place] = cancel
            cancel.attempt, cancel.sent = before.attempt, before.sent
            cancel.alone = before.alone and not before.lookups  # its frame was refused, and not for the pace
            cancel.exec_ids = before.exec_ids
            cancel.client_ids = before.client_ids
            cancel.order, cancel.order_live = before.order, before.order_live
            if before.cl_ord_id != request_id:
                cancel.earlier_ids = (*before.earlier_ids, before.cl_ord_id)
        swept.waits = True
        self.waiting += 1
        return cancel

    def verdict(self, snapshot: Snapshot) -> Literal["flat", "open", "not_proven"]:
        """What a snapshot proves once no cancel of the sweep is under way (contract section 5, verified flat)."""
        if not snapshot.proves or any(o in self.orders and self.orders[o].closed for o in snapshot.open):
            return "not_proven"
        if snapshot.open:
            return "open"
        return "flat" if all(o.closed for o in self.orders.values()) else "not_proven"

    def why_not_proven(self, snapshot: Snapshot) -> str | None:
        """What a snapshot lacks as a proof, for people; None if nothing."""
        if snapshot.spoiled is not None:
            return snapshot.spoiled
        if not snapshot.proves:
            return f"the snapshot was not ended by the venue ({snapshot.ended})"
        odd = sum(o in self.orders and self.orders[o].closed for o in snapshot.open)
        return f"the list still shows {count_orders(odd)} reported as closed" if odd else None


def _ledger_kind(swept: SweptOrder) -> str:
    answer = swept.answer
    if swept.closed and answer is not None:
        return "canceled" if answer.outcome == "canceled" else "already_closed"
    if not swept.was_sent:
        return "unsent"
    if answer is None:
        return "unknown"
    return {"cancel_rejected": "rejected", "refused": "rejected", "deadline_passed": "unknown"}.get(
        answer.outcome, "unknown"
    )


def encode_ledger(ledger: dict[str, object]) -> bytes:
    """The ledger as JSON."""
    return venue.encode_json(ledger)


def deadline_of(command: CommandState, max_age_s: float) -> int:
    """UTC microseconds: the header ``deadline``, else the AMQP timestamp, else the receipt, plus ``kill.max_age``."""
    context = command.context
    if context.deadline_us is not None:
        return context.deadline_us
    begun = context.enqueued_us if context.enqueued_us is not None else command.received_us
    return begun + int(max_age_s * 1e6)


def incomplete_error(sweep: Sweep, now: Now, verdict: str) -> CodeError:
    """``error`` of ``mass_incomplete``: why flat could not be verified (contract section 5)."""
    left = sum(not o.closed for o in sweep.orders.values())
    if verdict == "open" and sweep.is_past_deadline(now):
        return CodeError("deadline", None, f"the deadline passed with {count_orders(left)} not seen closed")
    if verdict == "open":
        return CodeError("survivors", None, f"{count_orders(left)} still open after {sweep.rounds} sweeps")
    why = sweep.not_proven or "no complete snapshot showed every order closed"
    return CodeError("not_proven", None, f"{count_orders(left)} not seen closed: {why}")
