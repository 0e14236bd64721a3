"""The life of one cancel: its phases, the legal moves between them, and what one report does to it.

Only the venue's word ends a cancel that may have been sent; silence, a lost session or a refused frame are *doubt*, a
phase like any other, left by asking the venue (contract 4.2). ``judge`` is protocol section 6 as one pure function.

                     +-------------------------------------------------+
                     v                                                 |
    (new) ------> QUEUED --frame written--> SENT --PendingCancel--> PENDING
      |              |                       |  \\--reason 3------> RUNNING
      |              |                       v                         |
      +-redelivered->+------------------> DOUBT <--time-out, loss------+     every phase may end in FINAL
                 PARKED  (its delivery is void and it was never sent: it waits for the redelivery, nothing else)
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from msgspec import Raw, Struct

from worker.wire import venue
from worker.wire.command import CancelItem, derive_cl_ord_id, derive_sweep_cl_ord_id
from worker.wire.event import CodeError, EventError, OrderState, RejectError, Sent
from worker.wire.venue import Record

if TYPE_CHECKING:
    from worker.core.command import CommandState
    from worker.core.ended import EndedCancel
    from worker.core.session import SentFrame

FRESH_IDS_RECOGNISED: Final = 8
"""How many fresh ClOrdIDs of another process a cancel recognises as its own (contract 3, reason 3)."""

SWEEPS_RECOGNISED: Final = 64
"""Up to which number a sweep's ClOrdID is known as the mass cancel's own: of an earlier process, or of another."""


class Phase(Enum):
    """Where a cancel stands."""

    QUEUED = "queued"
    SENT = "sent"
    PENDING = "pending"
    RUNNING = "running"
    DOUBT = "doubt"
    PARKED = "parked"
    FINAL = "final"

    __hash__ = object.__hash__  # members are what they are; Enum's own hashes their names, in Python


MOVES: Final[dict[Phase, frozenset[Phase]]] = {
    Phase.QUEUED: frozenset({Phase.SENT, Phase.PENDING, Phase.RUNNING, Phase.DOUBT, Phase.PARKED, Phase.FINAL}),
    Phase.SENT: frozenset({Phase.PENDING, Phase.RUNNING, Phase.DOUBT, Phase.FINAL}),
    Phase.PENDING: frozenset({Phase.RUNNING, Phase.DOUBT, Phase.FINAL}),
    Phase.RUNNING: frozenset({Phase.PENDING, Phase.DOUBT, Phase.FINAL}),
    Phase.DOUBT: frozenset({Phase.QUEUED, Phase.PENDING, Phase.RUNNING, Phase.PARKED, Phase.FINAL}),
    Phase.PARKED: frozenset({Phase.DOUBT, Phase.PENDING, Phase.RUNNING, Phase.FINAL}),
    Phase.FINAL: frozenset(),
}
"""The legal moves. QUEUED reaches PENDING and RUNNING by reports on an earlier send, ours or another worker's."""


class IllegalMoveError(AssertionError):
    """A move outside ``MOVES``: a bug of the worker. Nothing was changed."""


class Overheard(NamedTuple):
    """A report that would end a cancel, from a stream that was not asked about it; ``raw`` are its own bytes."""

    record: Record
    raw: Raw
    exec_id: str
    session_id: str | None
    replayed: bool


class CancelState(Struct, eq=False, gc=False):
    """One cancel while it is in flight, and a little longer for reports that come after its final.

    ``key`` tells the cancel apart within its command in event ids: its index, or in a mass cancel its OrderID.
    ``order_id`` is the target's OrderID as given or as learned from the venue; ``client_ids`` are client ids known to
    name the target. ``cl_ord_id`` is the id of the next or last send, ``earlier_ids`` those of sends before it.
    ``pending_of`` is the request whose PendingCancel made it PENDING, its own or another's.
    ``closed_before`` is a replayed report that closed the order before the cancel was asked for; ``overheard`` is the
    first one that would have ended a cancel of a redelivered command while the venue was being asked about it.
    ``history_read``: a whole replay was judged since it came from somebody else. ``joined_by``: cancels of mass cancels
    that wait for what comes of its send.
    ``due`` is monotonic seconds; ``doubt_began`` is seconds on the clock that only runs while a session is ready.
    """

    command: CommandState
    item: CancelItem
    index: int
    key: int | str
    cl_ord_id: str
    order_id: str | None
    client_ids: tuple[str, ...] = ()
    transact_time: str | None = None
    earlier_ids: tuple[str, ...] = ()
    phase: Phase = Phase.QUEUED
    sent: Sent = "never"
    attempt: int = 0
    session_id: str | None = None
    frame: SentFrame | None = None
    sent_at: str | None = None
    sent_mono: float = 0.0
    reported: str | None = None
    due: float = 0.0
    exec_ids: tuple[str, ...] = ()
    order: OrderState | None = None
    order_live: bool | None = None
    reject: tuple[Record, Raw] | None = None
    closed_before: tuple[Record, Raw] | None = None
    overheard: Overheard | None = None
    joined_by: tuple[CancelState, ...] = ()
    pending_of: str | None = None
    refused: CodeError | None = None
    error: EventError | None = None
    duplicate: bool = False
    history_read: bool = False
    fresh: bool = False
    alone: bool = False
    lookups: int = 0
    doubt_began: float | None = None
    doubtful_attempt: int = -1
    doubts: int = 0
    conflicts: int = 0
    unknown_since: float | None = None

    def move(self, to: Phase) -> None:
        """Change the phase. Raises ``IllegalMoveError`` for a move outside ``MOVES`` and then changes nothing."""
        if to is not self.phase:
            if to not in MOVES[self.phase]:
                raise IllegalMoveError(f"{self.phase.value} -> {to.value}")
            self.phase = to

    def owns(self, cl_ord_id: str | None) -> bool:
        """Whether ``cl_ord_id`` is the id of a send of this cancel, by this process or by any other.

        Another worker may have the command at the same time (a publisher's duplicate, a delivery lost while its cancels
        are followed to their finals): what it sends under a fresh id is this cancel too, and both finals must agree.
        """
        if cl_ord_id is None:
            return False
        if cl_ord_id == self.cl_ord_id or cl_ord_id in self.earlier_ids:
            return True
        most = SWEEPS_RECOGNISED if self.command.sweep is not None else FRESH_IDS_RECOGNISED
        return is_derived(cl_ord_id) and cl_ord_id in self.fresh_ids(most)

    def fresh_ids(self, most: int = FRESH_IDS_RECOGNISED) -> list[str]:
        """The ids that sends after the first would use (contract 3, reason 3; ``venue.resend_id`` = ``new``)."""
        command_id = self.command.command_id
        if self.command.sweep is not None:
            order_id = self.item.order_id or ""
            return [derive_sweep_cl_ord_id(command_id, order_id, n) for n in range(most)]
        return [derive_cl_ord_id(command_id, self.index, n) for n in range(2, most + 2)]

    @property
    def is_inherited(self) -> bool:
        """Whether somebody else may have told its end, and the venue's history has not been read since."""
        return not self.history_read and (self.duplicate or (self.attempt == 0 and self.command.redelivered))

    @property
    def request_ids(self) -> tuple[str, ...]:
        """Every ClOrdID under which the venue may speak of it, the latest first."""
        fresh = self.fresh_ids() if self.command.redelivered else ()
        return (self.cl_ord_id, *self.earlier_ids, *fresh)

    def take_fresh_id(self) -> None:
        """Use a new ClOrdID for the next send: the old one was refused for certain, or the setting asks for it."""
        taken = {self.cl_ord_id, *self.earlier_ids}
        n = 2
        while (fresh := derive_cl_ord_id(self.command.command_id, self.index, n)) in taken:
            n += 1
        self.earlier_ids = (*self.earlier_ids, self.cl_ord_id)
        self.cl_ord_id = fresh

    def adopt(self, cl_ord_id: str | None) -> None:
        """The venue answered under a fresh id that an earlier process took: if it is the latest, it is the id now."""
        if cl_ord_id is None or cl_ord_id == self.cl_ord_id or cl_ord_id in self.earlier_ids:
            return
        taken = [self.item.cl_ord_id, *self.fresh_ids()]  # in the order in which sends take them
        if cl_ord_id in taken and self.cl_ord_id in taken[taken.index(cl_ord_id) :]:
            self.earlier_ids = (*self.earlier_ids, cl_ord_id)
        else:
            self.earlier_ids = (*self.earlier_ids, self.cl_ord_id)
            self.cl_ord_id = cl_ord_id

    @property
    def asked_at(self) -> str | None:
        """When it was asked for, by its publisher: the later of AMQP timestamp and TransactTime that have passed."""
        times = [t for t in (self.item.transact_time, self.command.enqueued) if t and t <= self.command.received]
        return max(times, default=None)

    def note_order(self, record: Record, live: bool | None) -> None:
        """Keep what ``record`` proves of the order; an older record never replaces a newer one."""
        if self.order is not None and venue.stamp(record.timestamp) < venue.stamp(self.order.as_of):
            return
        self.order = order_state(record, self.order)
        self.order_live = live

    def note_late_fill(self, record: Record) -> None:
        """A fill reported after the order was closed: it is booked, and the order stays closed (protocol section 6)."""
        order = self.order
        if order is None or self.order_live is not False or not venue.is_more(record.cum_qty, order.cum_qty):
            return
        filled = order_state(record, order)
        self.order = OrderState(order.status, filled.cum_qty, order.leaves_qty, filled.avg_px, filled.as_of)


def cancel_of(command: CommandState, item: CancelItem) -> CancelState:
    """The cancel of one item of a command, before anything has come of it."""
    orig = item.orig_cl_ord_id
    clients = () if orig is None else (orig,)
    return CancelState(
        command, item, item.index, item.index, item.cl_ord_id, item.order_id, clients, item.transact_time
    )


def is_derived(cl_ord_id: str) -> bool:
    """Whether it is a UUIDv5: most ids are none, and to derive one for comparison takes time."""
    return len(cl_ord_id) == 36 and cl_ord_id[14] == "5"


def order_state(record: Record, before: OrderState | None) -> OrderState:
    """The order after ``record``, which may leave out what was filled: then what was proven ``before`` still holds."""
    cum_qty, leaves_qty, avg_px = record.cum_qty, record.leaves_qty, record.avg_px
    if not (isinstance(cum_qty, str) and isinstance(leaves_qty, str) and isinstance(avg_px, str)):
        cum_qty, leaves_qty, avg_px = venue.as_text(cum_qty), venue.as_text(leaves_qty), venue.as_text(avg_px)
        if cum_qty is None and before is not None:
            cum_qty, avg_px = before.cum_qty, before.avg_px if avg_px is None else avg_px
    return OrderState(record.ord_status, cum_qty, leaves_qty, avg_px, record.timestamp)


class Answer(Struct, gc=False):
    """How a cancel ended: what its final says. ``live`` is the final's ``order_live``."""

    outcome: str
    live: bool | None
    raw: Raw | None = None
    error: EventError | None = None


Verdict = Literal[
    "none",  # an event of its own, no change
    "pending",  # accepted: wait for the outcome
    "canceled",
    "already_closed",
    "cancel_rejected",
    "look_up",  # a reject or a closing that the venue is asked about before it becomes an outcome
    "unknown",  # the venue says it knows no such order: asked about as well
    "running",  # another cancel or replace is running: wait for it
    "running_ended",  # that other request came to an end and the order is still open
    "duplicate",  # reason 6: an earlier send of this ClOrdID arrived
]


def concerns(cancel: CancelState | EndedCancel, record: Record) -> bool:
    """Whether the OrderIDs agree where both are known: otherwise the record settles nothing here (contract 4.2)."""
    known = cancel.order_id
    return known is None or venue.names_no_order(record.order_id) or record.order_id == known


def is_request(cancel: CancelState, record: Record) -> bool:
    """Whether ``record`` answers this very cancel, by its ClOrdID (protocol section 6, match 1)."""
    return cancel.owns(record.cl_ord_id)


def ends(cancel: CancelState, record: Record) -> bool:
    """Whether ``record`` would end the cancel."""
    return judge(cancel, record, is_request(cancel, record)) in ("canceled", "already_closed", "cancel_rejected")


def ends_otherwise(cancel: CancelState, record: Record) -> bool:
    """Whether it would end the cancel and another report may have ended it before: ``canceled`` is told by one only."""
    return judge(cancel, record, is_request(cancel, record)) in ("already_closed", "cancel_rejected")


def judge(cancel: CancelState, record: Record, ours: bool) -> Verdict:
    """What one ExecutionReport means for a cancel that it concerns: the table of protocol section 6, and 5.4.

    ``ours`` is ``is_request(cancel, record)``: whether it answers this very cancel.
    """
    match record.exec_type:
        case "PendingCancel":
            return "already_closed" if record.ord_status == "Filled" else "pending"
        case "Canceled" | "Cancelled":
            return "canceled" if ours else "already_closed"
        case "CancelRejected":
            return _judge_reject(cancel, record) if ours else _judge_other_reject(cancel)
        case "Rejected":
            if ours:
                return _judge_reject(cancel, record)
            own = record.cl_ord_id in cancel.client_ids or record.cl_ord_id == record.orig_cl_ord_id is not None
            return "already_closed" if own else "look_up"  # its own id, or that of another request on it
        case "Trade":
            return "already_closed" if venue.is_filled(record) else _judge_status(record)
        case "Expired":
            return "already_closed"
        case "Replaced" | "ReplaceRejected":
            closed = _judge_status(record)
            return closed if closed != "none" else _judge_other_reject(cancel)
        case _:
            return _judge_status(record)


def _judge_status(record: Record) -> Verdict:
    """By OrdStatus, for every ExecType that says nothing by itself (protocol 5.1, last row)."""
    if not venue.status_is_closed(record):
        return "none"
    if venue.is_canceled_word(record.ord_status) or record.ord_status == "Rejected":
        return "look_up"  # closed, but by whose hand is not said
    return "already_closed"


def _judge_other_reject(cancel: CancelState) -> Verdict:
    """The end of another request on the order: news only for a cancel that waits for just that (5.4, reason 3)."""
    return "running_ended" if cancel.phase is Phase.RUNNING else "none"


def _judge_reject(cancel: CancelState, record: Record) -> Verdict:
    if record.cl_ord_id in cancel.earlier_ids:
        return _judge_stale_reject(record)
    reason = _reject_code(record)
    status = record.ord_status
    if reason == venue.DUPLICATE_CL_ORD_ID:
        return "duplicate"
    if reason == venue.ALREADY_PENDING or (venue.status_is_pending(status) and reason != venue.UNKNOWN_ORDER):
        return "running"
    if status != "Rejected" and venue.status_is_closed(record):
        # An earlier send under this ClOrdID, by whoever got a copy of the command, may be what canceled the order:
        # only the venue's history tells, and two workers must tell the same (contract 3, Ids).
        return "look_up" if venue.is_canceled_word(status) else "already_closed"
    if reason == venue.UNKNOWN_ORDER or status == "Rejected" or venue.names_no_order(record.order_id):
        return "look_up" if record.exec_type == "Rejected" and reason != venue.UNKNOWN_ORDER else "unknown"
    if reason == venue.TOO_LATE or not venue.status_is_known_open(status):
        return "look_up"
    return "cancel_rejected"


def _judge_stale_reject(record: Record) -> Verdict:
    """A reject of a send that a fresh ClOrdID has replaced: only that the order is closed is still of interest."""
    status = record.ord_status
    closed = venue.status_is_closed(record) and status != "Rejected" and not venue.is_canceled_word(status)
    return "already_closed" if closed else "none"


def _reject_code(record: Record) -> int | None:
    code = venue.reason_code(record.cxl_rej_reason)
    if code is None and record.exec_type == "Rejected":
        # A cancel refused as a message may carry the order's reason instead: 5 unknown order, 6 duplicate (FIX 103).
        code = {5: venue.UNKNOWN_ORDER, 6: venue.DUPLICATE_CL_ORD_ID}.get(
            venue.order_reason_code(record.ord_rej_reason) or -1
        )
    return code


_WORKING: Final = frozenset({"PendingNew", "New", "PartiallyFilled"})
_MAY_CLOSE: Final = frozenset({"Canceled", "Cancelled", "Expired", "Trade"})


def live_after(record: Record) -> bool | None:
    """Whether the order works after ``record``: None where the record cannot tell."""
    exec_type = record.exec_type
    if record.ord_status in _WORKING and (
        exec_type not in _MAY_CLOSE or (exec_type == "Trade" and not venue.is_zero(record.leaves_qty))
    ):
        return True  # what most reports say
    if venue.is_canceled_word(exec_type) or exec_type == "Expired" or venue.is_filled(record):
        return False
    if exec_type in venue.REJECTS and record.ord_status == "Rejected":
        return None
    if venue.status_is_closed(record):
        return False
    if record.ord_status is None or (venue.status_is_pending(record.ord_status) and venue.is_zero(record.leaves_qty)):
        return None
    return True


def reject_error(record: Record) -> RejectError:
    """``error`` of an event that rests on a reject (contract section 3)."""
    reason = record.cxl_rej_reason if record.cxl_rej_reason is not None else record.ord_rej_reason
    words = f"the venue refused the cancel: reason {reason}" if reason is not None else "the venue refused the cancel"
    return RejectError(reason, record.text, f"{words}, {record.text}" if record.text else words)
