"""The AMQP properties of a delivery, and what of them a command carries on (contract section 2, last paragraph).

Two properties are part of the command's meaning and must be right: `message_id` and the header `deadline`. All others
are company: one that can't be carried on is cut, cleaned or left out, since a cancel reduces risk and no decoration
may stop it.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from msgspec import Struct

from worker.wire.rules import DEADLINE, MESSAGE_ID, Rejection, is_plain_text, rejection
from worker.wire.timestamp import MAX_US, US_PER_SECOND, format_utc, from_datetime, parse_utc

SHORT_STRING: Final = 255
"""Bytes in an AMQP short string, the type of message_id, correlation_id, reply_to, user_id and app_id."""
MAX_REASON: Final = 1024
MAX_TRACEPARENT: Final = 128
"""Characters; version 00 has 55, W3C Trace Context lets later versions append."""
MAX_TRACESTATE: Final = 1024
"""Characters; W3C Trace Context asks for at least 512 to be passed on."""
MAX_COUNT: Final = 2**31

_UNENCODABLE: Final = re.compile("[\ud800-\udfff]")


class Properties(Struct, frozen=True, gc=False):
    """The AMQP basic properties of one delivery, decoded.

    ``headers`` holds str, int, bool, float, aware datetime (AMQP type ``T``), bytes, list, dict and None.
    ``timestamp_s`` is in seconds since the epoch, whatever the publisher wrote: read_context judges it.
    """

    content_type: str | None = None
    message_id: str | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    timestamp_s: int | None = None
    headers: dict[str, object] = {}


class Context(Struct, frozen=True, gc=False):
    """What a command carries besides its cancels: copied into its events (contract section 2, last paragraph).

    Times are UTC microseconds since the epoch. Every string can be encoded as UTF-8. ``command_id`` is None only in an
    InvalidCommand that has no usable one. ``correlation_id`` is the command id if the publisher gave none.
    ``deadline_text`` is the deadline as it was written, or in the worker's form if it was no text. ``requeue_of`` not
    None means that the command was requeued from ``cancel.dead``; ``original_user`` says who published it first.
    ``delivery_count`` is the broker's ``x-delivery-count``, 0 if it is absent or no count.
    """

    command_id: str | None
    correlation_id: str | None = None
    reply_to: str | None = None
    user_id: str | None = None
    app_id: str | None = None
    reason: str | None = None
    deadline_us: int | None = None
    deadline_text: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    enqueued_us: int | None = None
    has_x_death: bool = False
    requeue_of: str | None = None
    original_user: str | None = None
    delivery_count: int = 0


def read_context(properties: Properties) -> tuple[Context, Rejection | None]:
    """The context, and why the command is `invalid` if its properties spoil it. Never raises.

    Without a `message_id` the command id is None: only the body can tell it.
    """
    command_id: str | None = properties.message_id or None
    refused = None
    if command_id is not None and not is_command_id(command_id):
        refused = rejection("message_id", MESSAGE_ID, command_id)
        command_id = None
    correlation_id = (
        command_id if properties.correlation_id is None else _short(properties.correlation_id) or command_id
    )
    app_id = None if properties.app_id is None else _short(properties.app_id)
    reply_to = None if properties.reply_to is None else _exact(properties.reply_to)
    user_id = None if properties.user_id is None else _exact(properties.user_id)
    enqueued_us = None
    seconds = properties.timestamp_s
    if seconds is not None and 0 <= seconds <= MAX_US // US_PER_SECOND:  # milliseconds, a common slip, are no time
        enqueued_us = seconds * US_PER_SECOND
    headers = properties.headers
    if len(headers) == ("x-delivery-count" in headers):  # no header that a publisher set, as in most commands
        count = _count(headers.get("x-delivery-count"))
        plain = Context(
            command_id, correlation_id, reply_to, user_id, app_id, enqueued_us=enqueued_us, delivery_count=count
        )
        return plain, refused
    header = headers.get
    deadline_us = deadline_text = None
    if (deadline := header("deadline")) is not None:
        try:
            deadline_us, deadline_text = _read_deadline(deadline)
        except ValueError:
            refused = refused or rejection("deadline", DEADLINE, deadline)
    context = Context(
        command_id,
        correlation_id,
        reply_to,
        user_id,
        app_id,
        None if (reason := header("reason")) is None else _text(reason, MAX_REASON),
        deadline_us,
        deadline_text,
        None if (traceparent := header("traceparent")) is None else _trace(traceparent, MAX_TRACEPARENT),
        None if (tracestate := header("tracestate")) is None else _trace(tracestate, MAX_TRACESTATE),
        enqueued_us,
        header("x-death") is not None,
        # Whatever its value, it says that this command was dead once: its finals must name what they supersede.
        None if (requeue_of := header("requeue_of")) is None else _text(requeue_of, SHORT_STRING) or "?",
        None if (original_user := header("original_user")) is None else _text(original_user, SHORT_STRING),
        _count(header("x-delivery-count")),
    )
    return context, refused


def is_command_id(text: str) -> bool:
    """Whether a text can be a command id: 1 to 255 bytes of UTF-8, no control characters."""
    if text.isascii() and text.isprintable():
        return 0 < len(text) <= SHORT_STRING
    return is_plain_text(text, SHORT_STRING) and len(text.encode()) <= SHORT_STRING


def _read_deadline(value: object) -> tuple[int, str]:
    if isinstance(value, bytes):  # as in _text; what is no UTF-8 raises a ValueError
        value = value.decode()
    if isinstance(value, str):
        return parse_utc(value), value
    if isinstance(value, datetime):
        utc_us = from_datetime(value)
    elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        utc_us = value * US_PER_SECOND
    else:
        raise ValueError("neither text nor timestamp")
    return utc_us, format_utc(utc_us)


def _short(text: str | None) -> str | None:
    """A text that is echoed: what can't be encoded is replaced, and it fits an AMQP short string again."""
    if not text:
        return None
    if text.isascii() and len(text) <= SHORT_STRING:
        return text
    clean = _UNENCODABLE.sub("\ufffd", text[:SHORT_STRING])
    return clean.encode()[:SHORT_STRING].decode("utf-8", "ignore")


def _exact(text: str | None) -> str | None:
    """A text that names somebody or something: changed, it would name another, so it is kept whole or not at all."""
    if not text:
        return None
    return text if (text.isascii() and len(text) <= SHORT_STRING) or _short(text) == text else None


def _text(value: object, limit: int) -> str | None:
    if isinstance(value, bytes):  # clients without a text type for headers send these
        value = value[: 4 * limit].decode("utf-8", "replace")
    return _UNENCODABLE.sub("\ufffd", value[:limit]) if isinstance(value, str) and value else None


def _trace(value: object, limit: int) -> str | None:
    """Cut or cleaned, a trace header would be a false one: it is whole or absent."""
    text = _text(value, limit + 1)
    return text if text is not None and len(text) <= limit and text.isascii() and text.isprintable() else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_COUNT else 0
