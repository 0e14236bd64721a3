"""The rules of contract section 2, each with its name, and what is said when one is broken.

A check gives the value, None for an absent one, or a Rejection: bad input is a value here, never an exception.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final, TypeVar

from msgspec import Struct

from worker.wire.timestamp import normalise_utc

REQUIRED: Final = "required"
TEXT_36: Final = "1-36 characters of ASCII 0x21-0x7E"
TEXT_64: Final = "1-64 characters of ASCII 0x21-0x7E"
UTC_TIME: Final = "ISO-8601 time with zone"
TARGET: Final = "OrderID or OrigClOrdID required"
ITEM: Final = "an object"
BODY: Final = "an object with type and data"
READABLE: Final = "readable as its content type"
CONTENT_TYPE: Final = "application/json or application/msgpack"
MAX_BODY: Final = "at most broker.max_body"
TYPE: Final = "OrderCancelRequest or OrderMassCancelRequest"
DATA: Final = "an array of 1-1000 cancels"
UNIQUE_KEY: Final = "no key twice in one object"
UNIQUE_CL_ORD_ID: Final = "unique within the command"
COMMAND_ID: Final = "message_id or a valid ClOrdID of the first cancel required"
MESSAGE_ID: Final = "1-255 bytes of UTF-8 without control characters"
DEADLINE: Final = "ISO-8601 time with zone, or AMQP timestamp"
ONE_MASS_CANCEL: Final = "an array of exactly one mass cancel"
MASS_TYPE: Final = "AllOrders or Security"
SYMBOL_REQUIRED: Final = "required with Security"
SYMBOL_FORBIDDEN: Final = "absent with AllOrders"
SIDE: Final = "Buy or Sell"
CUSTOMER_USER: Final = "1-255 characters without control characters"

MAX_SHOWN: Final = 64
"""Characters of a value that are echoed: enough to find it, too few to flood a log or an event."""

_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

Word = TypeVar("Word", bound=str)


class Rejection(Struct, frozen=True):
    """Why something is ``invalid``: the ``error`` of that event (contract section 3).

    ``field`` is the name as the publisher wrote it (``Symbol``, ``data``, ``message_id``, ``body``), ``rule`` one of
    the constants of this module, ``message`` both and what was received, bounded and escaped.
    """

    field: str
    rule: str
    message: str


class Number(Struct, frozen=True):
    """A JSON number, kept as it was written: converting it could overflow, and no field of a command is a number."""

    text: str


class Unreadable(Struct, frozen=True):
    """A value that the body's format frames well but that is not what it claims, as a text that is not UTF-8."""


def rejection(field: str, rule: str, received: object) -> Rejection:
    """A Rejection that shows what was received."""
    return Rejection(field, rule, f"{field}: {rule}; received {shown(received)}")


def shown(value: object) -> str:
    """A value for people: one line of printable ASCII, at most MAX_SHOWN characters, however large the value."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return _bounded(ascii(value[:MAX_SHOWN]), len(value) > MAX_SHOWN)
        case Number():
            return _bounded(value.text[: MAX_SHOWN + 1])
        case int():
            return str(value) if value.bit_length() <= 128 else "a very large number"
        case float():
            return str(value)
        case list():
            return f"an array of {len(value)}" if value else "an empty array"
        case dict():
            return "an object"
        case bytes():
            return f"{len(value)} bytes"
        case datetime():
            return "a timestamp"
        case _:
            return "an unreadable value"


def _bounded(text: str, cut: bool = False) -> str:
    return text[: MAX_SHOWN - 3] + "..." if cut or len(text) > MAX_SHOWN else text


def is_visible_ascii(text: str, limit: int) -> bool:
    """Whether a text is 1 to ``limit`` characters of ASCII 0x21 to 0x7E."""
    return 0 < len(text) <= limit and text.isascii() and text.isprintable() and " " not in text


def visible_ascii(field: str, value: object, limit: int) -> str | Rejection | None:
    """A symbol or an id. ``limit`` is 36 or 64."""
    if value is None or (isinstance(value, str) and is_visible_ascii(value, limit)):
        return value
    return rejection(field, TEXT_36 if limit == 36 else TEXT_64, value)


def utc_time(field: str, value: object) -> str | Rejection | None:
    """A time, as worker.wire.timestamp.format_utc writes it."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            return normalise_utc(value)
        except ValueError:
            pass
    return rejection(field, UTC_TIME, value)


def one_of(field: str, value: object, words: Mapping[str, Word], rule: str) -> Word | Rejection | None:
    """A word of an enumeration, in its exact spelling."""
    if value is None:
        return None
    word = words.get(value) if isinstance(value, str) else None
    return rejection(field, rule, value) if word is None else word


def is_plain_text(text: str, limit: int) -> bool:
    """Whether a text is 1 to ``limit`` characters, none of them a control character or half of a surrogate pair."""
    if text.isascii() and text.isprintable():
        return 0 < len(text) <= limit
    return len(text) <= limit and _CONTROL.search(text) is None


def plain_text(field: str, value: object) -> str | Rejection | None:
    """A name of somebody at the venue, blanks and any script allowed."""
    if value is None or (isinstance(value, str) and is_plain_text(value, 255)):
        return value
    return rejection(field, CUSTOMER_USER, value)
