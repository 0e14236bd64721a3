"""Everything that can happen to the worker. Facts are in the past tense.

A shell turns each ending and each arrival into exactly one fact; what a fact means is decided by the engine alone. The
three that come once or more for every cancel (a command, a frame, a confirm) are methods of the engine; all others are
values of the closed union below, for ``Engine.step``.
"""

from msgspec import Struct

from worker.core.effects import OutEvent
from worker.wire.command import Lane


class Delivery(Struct, frozen=True, gc=False):
    """One AMQP delivery. ``tag`` is valid only on the channel numbered ``epoch``: tags die with their channel."""

    lane: Lane
    epoch: int
    tag: int


class ConsumerUp(Struct, frozen=True):
    """The lane's channel is open with its prefetch set; nothing is consumed until ``Consume(lane, True)``."""

    lane: Lane


class ConsumerStopped(Struct, frozen=True):
    """The broker confirmed that the lane is no longer consumed: no delivery comes until ``Consume(lane, True)``."""

    lane: Lane


class ConsumerLost(Struct, frozen=True):
    """The lane's channel is gone: every ``Delivery`` of the lane is void and its command will come again."""

    lane: Lane
    reason: str


class PublisherUp(Struct, frozen=True):
    """The lane can publish: confirms are on and the audit stream was seen (faults A29)."""

    lane: Lane


class PublisherLost(Struct, frozen=True):
    """The lane's publishing connection is gone; what was not confirmed may or may not be stored (faults A5)."""

    lane: Lane
    reason: str


class EventNacked(Struct, frozen=True):
    """The broker refused the event (``Basic.Nack``): at least one bound queue did not take it (faults A23)."""

    event: OutEvent


class EventReturned(Struct, frozen=True):
    """No queue is bound for the event (``Basic.Return``)."""

    event: OutEvent
    code: int
    text: str


class SessionOpened(Struct, frozen=True):
    """The venue accepted the upgrade. ``session`` never repeats in a process; ``slot`` is its place in the pool."""

    session: int
    slot: int


class SessionLost(Struct, frozen=True):
    """The session ended, for whatever reason: nothing more comes from it, yet what was sent may arrive (faults W1)."""

    session: int
    reason: str


class AuditSearched(Struct, frozen=True):
    """What ``SearchAudit`` found: whether the event stands in the audit stream, None if that could not be told."""

    command_id: str
    found: bool | None


class StopAsked(Struct, frozen=True):
    """SIGTERM: take no more commands, finish what is in flight (contract 4.7)."""


class GraceOver(Struct, frozen=True):
    """``shutdown.grace`` is used up: hand back whatever is left."""


Fact = (
    ConsumerUp
    | ConsumerStopped
    | ConsumerLost
    | PublisherUp
    | PublisherLost
    | EventNacked
    | EventReturned
    | SessionOpened
    | SessionLost
    | AuditSearched
    | StopAsked
    | GraceOver
)
