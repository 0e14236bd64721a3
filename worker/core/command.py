"""A command while it is in flight: which of its cancels are open, and when it may be settled (contract 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from worker.core.facts import Delivery
from worker.wire.command import Context, Lane

if TYPE_CHECKING:
    from worker.core.cancel import CancelState
    from worker.core.effects import OutEvent
    from worker.core.sweep import Sweep


class CommandState(Struct, eq=False, gc=False):
    """One command: its deliveries, its cancels, and the final events that must be confirmed before it is settled.

    ``deliveries`` has more than one entry when the publisher sent the command twice, and none while its delivery is
    void; ``held_since`` is monotonic seconds. ``unfinished`` counts cancels without a final, ``unconfirmed`` finals
    without a confirm. ``dead`` says that the command ends in ``cancel.dead``. ``sweep`` is set for a mass cancel,
    whose cancels come as it goes. ``finals`` keeps what was said, for a later duplicate.

    A command and its cancels know each other, and no garbage collector looks at them, since a look at all that is in
    flight would be a pause: ``let_go`` parts them at the end, and counting of references does the rest.
    """

    command_id: str
    context: Context
    lane: Lane
    delivery: Delivery
    redelivered: bool
    body_digest: bytes
    received_us: int
    received: str
    enqueued: str | None
    held_since: float = 0.0
    requeued: bool = False
    deadline_us: int | None = None
    unfinished: int = 0
    unconfirmed: int = 0
    dead: bool = False
    suspect: bool = False
    sweep: Sweep | None = None
    deliveries: list[Delivery] = []
    cancels: list[CancelState] = []
    finals: list[OutEvent] = []
    carried: dict[str, str | bool] | None = None

    def __post_init__(self) -> None:
        context = self.context
        self.deliveries.append(self.delivery)
        self.requeued = context.has_x_death or context.requeue_of is not None
        self.deadline_us = context.deadline_us

    def headers(self, final: bool) -> dict[str, str | bool]:
        """AMQP headers of its events: ``command_id``, ``final``, and what it brought along (contract 2, 3)."""
        carried = self.carried
        if carried is None:
            carried = self.carried = _carried(self.context)
        return {"final": final, **carried}

    def let_go(self) -> None:
        """The command has come to its end here: its cancels may outlive it, it may not outlive them."""
        self.cancels, self.finals = [], []
        if self.sweep is not None:
            self.sweep.let_go()

    @property
    def may_be_settled(self) -> bool:
        """Every cancel has its final and every final is confirmed."""
        return self.unfinished == 0 and self.unconfirmed == 0

    @property
    def was_sent(self) -> bool:
        """Whether this process handed any cancel of the command to a socket, or any final of it was made."""
        return bool(self.finals) or any(c.attempt for c in self.cancels)


def _carried(context: Context) -> dict[str, str | bool]:
    headers = {
        "command_id": context.command_id,
        "traceparent": context.traceparent,
        "tracestate": context.tracestate,
        "reason": context.reason,
        "deadline": context.deadline_text,
    }
    return {name: text for name, text in headers.items() if text is not None}
