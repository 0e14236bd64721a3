"""Dead letters: commands that could not be carried out, as they stand in ``cancel.dead`` (contract sections 1 and 4.6).

A letter is the publisher's message, body and headers kept, with the broker's own account of its death in ``x-death``.
Most were put there by a worker, which told why in a final event first. Those that the broker itself moved (delivery
limit, a queue that was too long) have none.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from msgspec import UNSET, Struct

from worker.wire.command import (
    CancelCommand,
    Command,
    InvalidCommand,
    Lane,
    MassCancelCommand,
    body_sha256_hex,
    read_command,
)
from worker.wire.event import CodeError, Event, Times, command_event_id, final_id, unresolved_id
from worker.wire.properties import Properties
from worker.wire.timestamp import format_utc, from_datetime

REJECTED: Final = "rejected"
"""The reason of a death by a worker's hand: it published a final first."""
HASH_PREFIX: Final = "sha256:"
_HASH_SHOWN: Final = 16
_BROKERS_OWN: Final = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", "x-opt-")
_ROUTING: Final = frozenset({"CC", "BCC"})


class Death(Struct, frozen=True):
    """One entry of ``x-death``: ``count`` deaths in ``queue`` for ``reason``, the first of them at ``at_us``."""

    queue: str
    reason: str
    count: int
    at_us: int | None


class DeadLetter(Struct, frozen=True):
    """One dead letter; ``deaths`` begins with the latest. ``command`` is what a worker reads in it."""

    body: bytes
    properties: Properties
    command: Command
    deaths: tuple[Death, ...]

    @property
    def command_id(self) -> str | None:
        """None: it has none, and is told by its body alone."""
        return self.command.context.command_id

    @property
    def id(self) -> str:
        """What to call it: its command id, or the beginning of its body's SHA-256."""
        return self.command_id or f"{HASH_PREFIX}{body_sha256_hex(self.body)[:_HASH_SHOWN]}"

    @property
    def is_mass(self) -> bool:
        """Whether it is a mass cancel, which is never requeued (contract section 7)."""
        return isinstance(self.command, MassCancelCommand)

    @property
    def cancels(self) -> int | None:
        """How many cancels it asks for; None where that can't be said."""
        return len(self.command.items) if isinstance(self.command, CancelCommand) else None

    @property
    def was_moved_by_broker(self) -> bool:
        """No worker ended it, so it may have no final."""
        return not self.deaths or self.deaths[0].reason != REJECTED

    def lane(self, queues: Mapping[str, Lane]) -> Lane | None:
        """The lane it came from; ``queues`` gives the lane of each queue. None: it did not die in one."""
        return next((queues[death.queue] for death in self.deaths if death.queue in queues), None)

    def why_not_requeued(self) -> str | None:
        """Why it must not, or need not, be tried again; None: it may."""
        if self.is_mass:
            return "a mass cancel is never requeued: it would fire again on a desk that has resumed"
        if isinstance(self.command, InvalidCommand):
            return f"it would be invalid again: {self.command.rejection.message}"
        return None

    def requeue_headers(self) -> dict[str, object]:
        """The publisher's headers, and who it was: ``requeue_of`` and ``original_user`` (contract section 7).

        The broker's own are left out. Its ``x-death`` would make it take a second death for a circle and drop the
        message; CC and BCC would put it into other queues than the one it came from.
        """
        headers = {
            name: value
            for name, value in self.properties.headers.items()
            if not name.startswith(_BROKERS_OWN) and name not in _ROUTING
        }
        context = self.command.context
        first = context.original_user if context.requeue_of is not None else None
        headers["requeue_of"] = self.command_id or ""
        headers.pop("original_user", None)
        if (user := first or self.properties.user_id) is not None:
            headers["original_user"] = user
        return headers

    def ends(self) -> list[tuple[int | None, frozenset[str]]]:
        """For each cancel the ids of all events that would end it, with its index; None for the command as a whole."""
        digest = body_sha256_hex(self.body)
        outcomes = ("invalid", "unauthorized", "unresolved")
        whole = frozenset(command_event_id(self.command_id, digest, outcome) for outcome in outcomes)
        if isinstance(self.command, InvalidCommand) or self.command_id is None:
            return [(None, whole)]
        count = 1 if isinstance(self.command, MassCancelCommand) else len(self.command.items)
        command_id = self.command_id
        return [(i, whole | {final_id(command_id, i), unresolved_id(command_id, i)}) for i in range(count)]

    def unresolved(self, index: int | None, lane: Lane | None, worker: str, utc_us: int) -> Event:
        """The ``unresolved`` of one cancel, or of the command as a whole, for a letter without a final (4.6).

        ``worker`` is who says so. Nothing is claimed of the order, and a byte of the cancel may have left.
        """
        context = self.command.context
        if index is None or context.command_id is None:
            event_id = command_event_id(context.command_id, body_sha256_hex(self.body), "unresolved")
        else:
            event_id = unresolved_id(context.command_id, index)
        symbol, cl_ord_id, orig_cl_ord_id, order_id = self._names(index)
        reason = self.deaths[0].reason if self.deaths else "unknown reason"
        message = f"the broker moved the command to the dead letters ({reason}) before a worker ended it"
        enqueued = format_utc(context.enqueued_us) if context.enqueued_us is not None else None
        return Event(
            event_id,
            context.command_id,
            index,
            "unresolved",
            True,
            "maybe",
            None,
            symbol,
            cl_ord_id,
            orig_cl_ord_id,
            order_id,
            None,
            None,
            CodeError("dead_lettered", reason, message),
            None,
            False,
            0,
            lane,
            worker,
            None,
            context.user_id,
            context.app_id,
            context.reason,
            Times(enqueued, None, None, None, format_utc(utc_us)),
            context.deadline_text if context.deadline_text is not None else UNSET,
            context.traceparent if context.traceparent is not None else UNSET,
            context.tracestate if context.tracestate is not None else UNSET,
        )

    def _names(self, index: int | None) -> tuple[str | None, str | None, str | None, str | None]:
        """Symbol, ClOrdID, OrigClOrdID and OrderID of a cancel."""
        if isinstance(self.command, MassCancelCommand):
            return self.command.symbol, self.command.cl_ord_id, None, None
        if index is None or isinstance(self.command, InvalidCommand):
            return None, None, None, None
        item = self.command.items[index]
        return item.symbol, item.cl_ord_id, item.orig_cl_ord_id, item.order_id


def read_dead_letter(body: bytes, properties: Properties, max_body: int) -> DeadLetter:
    """Never raises, whatever the bytes and the headers."""
    found = properties.headers.get("x-death")
    deaths = tuple(_death(entry) for entry in found if isinstance(entry, dict)) if isinstance(found, list) else ()
    return DeadLetter(body, properties, read_command(body, properties, max_body), deaths)


def _death(entry: Mapping[str, object]) -> Death:
    at, count = entry.get("time"), entry.get("count")
    at_us = None
    if isinstance(at, datetime):
        try:
            at_us = from_datetime(at)
        except ValueError:
            pass
    return Death(
        str(entry.get("queue", "")), str(entry.get("reason", "")), count if isinstance(count, int) else 1, at_us
    )
