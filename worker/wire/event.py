"""Events: what the worker publishes, their ids and their routing keys (contract section 3).

An ``event_id`` depends only on what the event is about, never on who publishes it or how often, so that a consumer
which drops ids it has seen gets one final per cancel. Every id is the UUIDv5 of a line of text in one namespace; the
functions below are the whole list of such lines and so the recipe for anyone who wants to compute an id. Where they
take an ``index``, an order of a mass cancel has ``order <OrderID>`` in its place (contract section 5).
"""

from __future__ import annotations

import uuid
from hashlib import sha1
from typing import Final, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

NAMESPACE: Final = uuid.UUID("6f0d1c2e-98a4-5b1d-8d5c-0c5b1f7a3e21")
"""Namespace of every id the worker derives. Changing it would give every event a second id."""

_BEGUN: Final = sha1(NAMESPACE.bytes, usedforsecurity=False)

_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
"""The first digit of the fourth group, whose upper two bits say which kind of UUID it is (RFC 9562, 4.1)."""

Outcome = Literal[
    "pending_cancel",
    "report",
    "doubtful",
    "canceled",
    "already_closed",
    "cancel_rejected",
    "unknown_order",
    "refused",
    "deadline_passed",
    "invalid",
    "unauthorized",
    "unresolved",
    "mass_progress",
    "mass_canceled",
    "mass_incomplete",
    "worker_unavailable",
    "worker_available",
]
"""What became of a request; ``outcome`` of an event (contract section 3)."""

FINAL_OUTCOMES: Final[frozenset[str]] = frozenset(
    {
        "canceled",
        "already_closed",
        "cancel_rejected",
        "unknown_order",
        "refused",
        "deadline_passed",
        "invalid",
        "unauthorized",
        "unresolved",
        "mass_canceled",
        "mass_incomplete",
    }
)
"""Outcomes that end a cancel."""

DEAD_LETTERED: Final[frozenset[str]] = frozenset({"invalid", "unauthorized", "unresolved", "mass_incomplete"})
"""Final outcomes after which the command goes to ``cancel.dead`` instead of being acked (contract section 3)."""

Sent = Literal["never", "maybe", "yes"]
"""Whether a byte of the cancel left: ``never``, ``maybe`` or ``yes`` (contract section 3, three axes)."""


def derived_uuid(name: str) -> str:
    """The UUIDv5 of ``name`` in the worker's namespace, in its usual 36-character form.

    The same value as ``uuid.uuid5(NAMESPACE, name)``, three times as fast: this runs for every event.
    """
    digest = _BEGUN.copy()
    digest.update(name.encode() if name.isascii() else name.encode("utf-8", "surrogatepass"))
    h = digest.hexdigest()
    return f"{h[:8]}-{h[8:12]}-5{h[13:16]}-{_VARIANT[h[16]]}{h[17:20]}-{h[20:32]}"


def final_id(command_id: str, index: int | str) -> str:
    """Id of the one final of a cancel, whatever its outcome but ``unresolved``."""
    return derived_uuid(f"{command_id}\n{index}\nfinal")


def unresolved_id(command_id: str, index: int | str) -> str:
    """Id of the ``unresolved`` of a cancel; a later final names it in ``supersedes``."""
    return derived_uuid(f"{command_id}\n{index}\nunresolved")


def report_id(command_id: str, index: int | str, exec_id: str) -> str:
    """Id of an event that passes on one report, told by its ExecID (FIX tag 17)."""
    return derived_uuid(f"{command_id}\n{index}\nreport\n{exec_id}")


def attempt_id(command_id: str, index: int | str, outcome: str, attempt: int) -> str:
    """Id of any other event of a cancel; ``attempt`` counts sends."""
    return derived_uuid(f"{command_id}\n{index}\n{outcome}\n{attempt}")


def command_event_id(command_id: str | None, body_sha256_hex: str, outcome: str) -> str:
    """Id of an event about a command as a whole; without a usable command id the body's SHA-256 stands for it."""
    return derived_uuid(f"{command_id if command_id is not None else body_sha256_hex}\n{body_sha256_hex}\n{outcome}")


def worker_event_id(worker: str, outcome: str, count: int) -> str:
    """Id of ``worker_unavailable`` and ``worker_available``: unique per worker process and occurrence."""
    return derived_uuid(f"{worker}\n{outcome}\n{count}")


_KEY_WORDS: Final = str.maketrans({".": "_", "*": "_", "#": "_"})
_keys: dict[tuple[str, bool, str | None], str] = {}


def routing_key(outcome: str, final: bool, symbol: str | None) -> str:
    """``final.<outcome>.<symbol>`` or ``info.<outcome>.<symbol>``; the symbol's ``.``, ``*``, ``#`` become ``_``."""
    at = (outcome, final, symbol)
    key = _keys.get(at)
    if key is None:
        if len(_keys) >= 4096:
            _keys.clear()
        word = symbol.translate(_KEY_WORDS) if symbol else "_"
        key = _keys[at] = f"{'final' if final else 'info'}.{outcome}.{word}"
    return key


class OrderState(Struct, frozen=True, gc=False):
    """What was last proven of the order: quantities as the venue wrote them, ``as_of`` the venue's ``Timestamp``."""

    status: str | None
    cum_qty: str | None
    leaves_qty: str | None
    avg_px: str | None
    as_of: str | None


class Times(Struct, frozen=True, gc=False):
    """UTC with microseconds and ``Z``; null where the step has not happened."""

    enqueued: str | None
    received: str | None
    sent: str | None
    reported: str | None
    published: str | None


class InputError(Struct, frozen=True, gc=False):
    """``error`` of ``invalid`` and ``unauthorized``."""

    field: str | None
    rule: str
    message: str


class RejectError(Struct, frozen=True, gc=False):
    """``error`` of rejects: CxlRejReason (FIX tag 102) as the venue wrote it, and its text."""

    reason: str | int | float | None
    text: str | None
    message: str


class CodeError(Struct, frozen=True, gc=False):
    """``error`` that carries a code: an error frame of the venue, or one of the worker's own words for doubt."""

    code: str | int | None
    msg: str | None
    message: str


class ScopeAsked(Struct, frozen=True, gc=False):
    """``scope`` of mass events: what the command asked for, in its own words, and whose orders that covers.

    ``customer_users`` null: every order that the API key sees, other users' included (contract section 5).
    """

    request_type: str = field(name="MassCancelRequestType")
    symbol: str | None = field(name="Symbol")
    side: str | None = field(name="Side")
    customer_user: str | None = field(name="CustomerUser")
    customer_users: tuple[str, ...] | None


EventError = InputError | RejectError | CodeError


class Event(Struct):
    """One event as published (contract section 3): field order is the order on the wire."""

    event_id: str
    command_id: str | None
    index: int | None
    outcome: str
    final: bool
    sent: str
    order_live: bool | None
    symbol: str | None
    cl_ord_id: str | None
    orig_cl_ord_id: str | None
    order_id: str | None
    order: OrderState | None
    report: Raw | None
    error: EventError | None
    supersedes: str | None
    late: bool
    attempt: int
    lane: str | None
    worker: str
    session_id: str | None
    user_id: str | None
    app_id: str | None
    reason: str | None
    times: Times
    deadline: str | UnsetType = UNSET
    traceparent: str | UnsetType = UNSET
    tracestate: str | UnsetType = UNSET
    mass: Raw | UnsetType = UNSET
    scope: ScopeAsked | UnsetType = UNSET


encode_event = msgspec.json.Encoder().encode
"""An ``Event`` as JSON text; a ``report`` goes out byte for byte."""


class FinalRead(Struct, frozen=True, gc=False):
    """What is read again of a final of the worker's own: all but the report that it rests on, and its error."""

    event_id: str
    command_id: str | None
    index: int | None
    outcome: str
    sent: Sent
    order_live: bool | None
    symbol: str | None
    orig_cl_ord_id: str | None
    order: OrderState | None
    attempt: int
    lane: Literal["kill", "cancel"]
    session_id: str | None
    user_id: str | None
    app_id: str | None
    reason: str | None
    times: Times
    deadline: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None


read_final = msgspec.json.Decoder(FinalRead).decode
"""The body of a final, as ``encode_event`` wrote it."""
