"""Events as their consumers read them (contract section 3): the command line, the demo, and whoever audits.

Reading is tolerant, as a consumer's should be: unknown fields pass, and what a newer worker adds does no harm.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from worker.wire.event import OrderState

_NULL: Final = Raw(b"null")


class SeenEventError(ValueError):
    """The body is no event; the message says why, without the body."""


class SeenError(Struct, frozen=True):
    """``error`` of any event, whichever of its three forms; ``message`` is for people."""

    message: str | None = None
    field: str | None = None
    rule: str | None = None
    reason: str | int | float | None = None
    text: str | None = None
    code: str | int | None = None
    msg: str | None = None


class SeenTimes(Struct, frozen=True):
    """``times``, UTC with microseconds and ``Z``; None where the step has not happened."""

    enqueued: str | None = None
    received: str | None = None
    sent: str | None = None
    reported: str | None = None
    published: str | None = None


class SeenMass(Struct, frozen=True):
    """``mass``, the ledger of a mass cancel (contract section 5): orders by what became of them.

    ``remaining`` holds the OrderIDs that are not proven closed.
    """

    matched: int = 0
    canceled: int = 0
    already_closed: int = 0
    rejected: int = 0
    unknown: int = 0
    unsent: int = 0
    remaining: tuple[str, ...] = ()
    sweeps: int = 0
    restarted: bool = False
    elapsed_ms: float = 0.0

    @property
    def adds_up(self) -> bool:
        """Whether every matched order is in exactly one of the other counts."""
        return self.matched == self.canceled + self.already_closed + self.rejected + self.unknown + self.unsent


class SeenScope(Struct, frozen=True):
    """``scope``: whose orders a mass cancel covers; ``customer_users`` None: every order that the API key sees."""

    customer_users: tuple[str, ...] | None = None


class SeenEvent(Struct, frozen=True):
    """One event. ``index`` None: it is about the command as a whole; ``order_live`` None: not known.

    ``report`` is JSON as the venue wrote it, ``null`` where there is none.
    """

    event_id: str
    outcome: str
    final: bool
    command_id: str | None = None
    index: int | None = None
    sent: str | None = None
    order_live: bool | None = None
    symbol: str | None = None
    cl_ord_id: str | None = None
    orig_cl_ord_id: str | None = None
    order_id: str | None = None
    order: OrderState | None = None
    report: Raw = _NULL
    error: SeenError | None = None
    supersedes: str | None = None
    late: bool = False
    attempt: int = 0
    lane: str | None = None
    worker: str | None = None
    user_id: str | None = None
    reason: str | None = None
    times: SeenTimes = SeenTimes()
    mass: SeenMass | None = None
    scope: SeenScope | None = None

    @property
    def told(self) -> str:
        """What is said about it for people: our message, else the report's own words, else nothing."""
        if self.error is not None and self.error.message:
            return self.error.message
        words = _words_of(self.report)
        return " ".join(part for part in (words.exec_type, words.text) if part) if words is not None else ""


class _ReportWords(Struct, frozen=True):
    exec_type: str | None = msgspec.field(name="ExecType", default=None)
    text: str | None = msgspec.field(name="Text", default=None)


_decode_event: Final = msgspec.json.Decoder(SeenEvent).decode
_decode_words: Final = msgspec.json.Decoder(_ReportWords | None).decode


def read_event(body: bytes) -> SeenEvent:
    """The event in an AMQP body. Raises SeenEventError."""
    try:
        return _decode_event(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SeenEventError(f"not an event: {str(error)[:200]}") from None


def _words_of(report: Raw) -> _ReportWords | None:
    try:
        words: _ReportWords | None = _decode_words(report)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None  # the venue's own odd JSON: passed on byte for byte, not judged here
    return words
