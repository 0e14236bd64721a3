"""Everything the core can ask for, as a closed union. Effects are imperative; their results come back as facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from worker.wire.command import Lane

if TYPE_CHECKING:
    from worker.core.cancel import CancelState
    from worker.core.command import CommandState
    from worker.core.ended import EndedCancel
    from worker.core.facts import Delivery

Settlement = Literal["ack", "dead_letter", "requeue"]


class OutEvent(Struct, eq=False, gc=False):
    """Publish one event to the results exchange: persistent, ``mandatory``, confirmed (contract section 3).

    It stays with the core until the broker confirmed it; the same object may be published several times, always
    under the same ``event_id``. ``body`` is the JSON text, ``headers`` the AMQP headers, ``timestamp_s`` the AMQP
    timestamp in seconds. ``command`` is whom the confirm is reported to, ``cancel`` what the event is about, and
    ``ended`` what is kept of that once the event is stored.
    """

    event_id: str
    lane: Lane
    routing_key: str
    body: bytes
    outcome: str
    final: bool
    command_id: str | None
    correlation_id: str | None
    headers: dict[str, str | bool]
    timestamp_s: int
    index: int | None = None
    command: CommandState | None = None
    cancel: CancelState | None = None
    ended: EndedCancel | None = None
    in_flight: bool = False
    logged: bool = False
    made_mono: float = 0.0
    failures: int = 0


class SendText(Struct, frozen=True, gc=False):
    """Hand one text message to the session's socket, now."""

    session: int
    data: bytes


class DropSession(Struct, frozen=True):
    """Abort the session at once, without a closing handshake (faults W12)."""

    session: int
    reason: str


class SessionIsReady(Struct, frozen=True):
    """The session's report stream is live: the pool may count its log-in as a success."""

    session: int


class Reply(Struct, frozen=True):
    """Publish a final also to the command's ``reply_to`` queue, best effort (contract section 2)."""

    event: OutEvent
    reply_to: str


class Settle(Struct, frozen=True, gc=False):
    """Ack, dead-letter (reject without requeue) or hand back one delivery."""

    delivery: Delivery
    how: Settlement


class Consume(Struct, frozen=True):
    """Start or stop consuming a lane's queue."""

    lane: Lane
    on: bool


class SearchAudit(Struct, frozen=True):
    """Look for an event in the audit stream, from ``since_us`` (UTC microseconds; None: all of it) on."""

    command_id: str
    event_id: str
    since_us: int | None


class Note(Struct, frozen=True):
    """Something worth a line in the log; ``name`` is stable, ``fields`` are ids and numbers."""

    name: str
    level: Literal["debug", "info", "warning", "error"]
    fields: dict[str, object]


class Stopped(Struct, frozen=True):
    """After ``StopAsked``: nothing is left that the worker could still finish."""


Effect = SendText | DropSession | SessionIsReady | OutEvent | Reply | Settle | Consume | SearchAudit | Note | Stopped
