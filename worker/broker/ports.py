"""What the links to RabbitMQ tell their user: plain synchronous calls, made from the loop, which must not raise.

Whatever a port raises is a bug: the link is dropped and ``run()`` of the consumer or publisher raises it (faults I8).
No call is ever made from within ``settle``, ``consume``, ``publish`` or ``reply``.
"""

from __future__ import annotations

from typing import Protocol

from worker.core.effects import OutEvent
from worker.core.facts import Delivery
from worker.wire.command import Lane, Properties


class ConsumerPort(Protocol):
    """The user's side of a ``Consumer``.

    For one lane the order is ``consumer_up``, any number of ``command_delivered`` and ``consumer_stopped``, one
    ``consumer_lost``, and then it begins again with a new epoch.
    """

    def command_delivered(self, delivery: Delivery, redelivered: bool, properties: Properties, body: bytes) -> None:
        """A message came. It stays with this worker until ``settle`` or ``consumer_lost``."""

    def consumer_up(self, lane: Lane) -> None:
        """The channel is open and its prefetch set; nothing is consumed until ``consume(True)``."""

    def consumer_stopped(self, lane: Lane) -> None:
        """The answer to ``consume(False)``: no delivery comes until ``consume(True)``. What is in hand stays valid."""

    def consumer_lost(self, lane: Lane, reason: str) -> None:
        """Channel or queue are gone: every ``Delivery`` of the lane is void, ``consume`` is off again."""

    def consumer_failed(self, lane: Lane, reason: str) -> None:
        """An attempt to get up came to nothing; the consumer tries again by itself. For the log and ``/readyz``."""

    def batch_ended(self) -> None:
        """All that one read had to tell was told: a good moment to flush."""


class PublisherPort(Protocol):
    """The user's side of a ``Publisher``.

    For one lane the order is ``publisher_up``, any number of answers about events, one ``publisher_lost``. Every event
    published while up gets exactly one answer, or ``publisher_lost`` stands for the answers to all that have none.
    """

    def publisher_up(self, lane: Lane) -> None:
        """Confirms are on and the audit stream was seen (faults A29)."""

    def publisher_lost(self, lane: Lane, reason: str) -> None:
        """The connection is gone. What was not answered may or may not be stored (faults A5): publish it again."""

    def publisher_failed(self, lane: Lane, reason: str) -> None:
        """An attempt to get up came to nothing; the publisher tries again by itself. For the log and ``/readyz``."""

    def publisher_blocked(self, lane: Lane, reason: str | None) -> None:
        """The broker has an alarm and reads nothing from us until None comes (faults A6); up all the while."""

    def event_confirmed(self, event: OutEvent) -> None:
        """Stored by every queue it was routed to, and routed to at least one."""

    def event_nacked(self, event: OutEvent) -> None:
        """At least one bound queue refused it (faults A23)."""

    def event_returned(self, event: OutEvent, code: int, text: str) -> None:
        """No queue is bound for it. The ack that the broker sends after the return is not reported."""

    def batch_ended(self) -> None:
        """All that one read had to tell was told: what follows from the answers may be done now."""
