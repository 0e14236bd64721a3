"""What is kept of commands and cancels after their end: little, since many are kept and few are asked for again.

A final event says nearly all that is to be said of its cancel. So its body is kept, and what a late report or a second
delivery needs is read from it again.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from worker.core.cancel import CancelState, Phase
from worker.core.command import CommandState
from worker.core.facts import Delivery
from worker.wire.command import CancelItem, Context
from worker.wire.event import OrderState, read_final


class EndedCancel(Struct, eq=False, gc=False):
    """One cancel whose final is stored, for as long as a report that comes late finds whom it belongs to.

    ``final`` is the body of that event. ``order`` is what a later report told of the order; None: the final says it.
    """

    key: int | str
    cl_ord_id: str
    more_ids: tuple[str, ...]
    order_id: str | None
    client_ids: tuple[str, ...]
    exec_ids: tuple[str, ...]
    transact_time: str | None
    correlation_id: str | None
    final: bytes
    order: OrderState | None = None

    phase: ClassVar[Phase] = Phase.FINAL

    @property
    def request_ids(self) -> tuple[str, ...]:
        """Every ClOrdID under which the venue may speak of it."""
        return (self.cl_ord_id, *self.more_ids)


def end_of(cancel: CancelState, final: bytes) -> EndedCancel:
    """What is kept of a cancel whose final is stored."""
    return EndedCancel(
        cancel.key,
        cancel.cl_ord_id,
        cancel.request_ids[1:],
        cancel.order_id,
        cancel.client_ids,
        cancel.exec_ids,
        cancel.item.transact_time,
        cancel.command.context.correlation_id,
        final,
    )


def revived(ended: EndedCancel) -> CancelState:
    """The cancel as it was when it ended, as far as a late report or an event about it asks."""
    event = read_final(ended.final)
    context = Context(
        event.command_id,
        ended.correlation_id,
        user_id=event.user_id,
        app_id=event.app_id,
        reason=event.reason,
        deadline_text=event.deadline,
        traceparent=event.traceparent,
        tracestate=event.tracestate,
    )
    times, lane, none = event.times, event.lane, Delivery(event.lane, 0, 0)
    command = CommandState(
        event.command_id or "", context, lane, none, False, b"", 0, times.received or "", times.enqueued
    )
    item = CancelItem(
        event.index or 0,
        event.symbol or "",
        ended.cl_ord_id,
        ended.order_id,
        event.orig_cl_ord_id,
        ended.transact_time,
        None,
    )
    return CancelState(
        command,
        item,
        item.index,
        ended.key,
        ended.cl_ord_id,
        ended.order_id,
        ended.client_ids,
        phase=Phase.FINAL,
        sent=event.sent,
        attempt=event.attempt,
        session_id=event.session_id,
        sent_at=times.sent,
        reported=times.reported,
        exec_ids=ended.exec_ids,
        order=ended.order or event.order,
        order_live=event.order_live,
    )


class EndedCommand(Struct, eq=False, gc=False):
    """One command that was settled: how its content is recognised, and what was said of it.

    ``finals`` are its cancels, and the bodies of finals that are about none. Of a mass cancel that is its one report:
    its orders' finals would push out everybody else's.
    """

    body_digest: bytes
    dead: bool
    finals: tuple[EndedCancel | bytes, ...]

    @property
    def size(self) -> int:
        """What it counts for in ``results.memory``."""
        return max(1, len(self.finals))


def end_of_command(command: CommandState) -> EndedCommand:
    """What is kept of a command all of whose finals are stored."""
    told = command.finals if command.sweep is None else command.finals[-1:]
    finals = tuple([event.body if event.ended is None else event.ended for event in told])
    return EndedCommand(command.body_digest, command.dead, finals)
