"""The command that ``cancel`` publishes, built from options or a file: everything wrong is told before it is sent."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from worker.errors import UsageError
from worker.wire.command import CancelCommand, CancelItem, InvalidCommand, read_command
from worker.wire.properties import Properties
from worker.wire.timestamp import format_utc, parse_utc

JSON: Final = "application/json"
_DURATION: Final = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)(?P<unit>ms|s|m|h)?")
_UNIT_S: Final[Mapping[str | None, float]] = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Request(Struct, frozen=True):
    """A command ready to be published: ``body`` is JSON; ``items`` is what the worker will read in it."""

    command_id: str
    body: bytes
    items: tuple[CancelItem, ...]

    @property
    def symbols(self) -> frozenset[str]:
        return frozenset(item.symbol for item in self.items)


def body_of_options(
    symbol: str, order_ids: Sequence[str], orig_cl_ord_ids: Sequence[str], cl_ord_ids: Sequence[str]
) -> bytes:
    """One cancel for each OrderID, then one for each OrigClOrdID; ``cl_ord_ids`` go to them in turn.

    Raises UsageError if there is none, or a number of ClOrdIDs that is not theirs.
    """
    data: list[dict[str, str]] = [{"Symbol": symbol, "OrderID": order_id} for order_id in order_ids]
    data += [{"Symbol": symbol, "OrigClOrdID": orig} for orig in orig_cl_ord_ids]
    if not data:
        raise UsageError("which order? give --order-id or --orig-cl-ord-id, or --file")
    if cl_ord_ids and len(cl_ord_ids) != len(data):
        raise UsageError(f"{len(cl_ord_ids)} --cl-ord-id for {len(data)} cancels: give one for each, or none")
    for cancel, cl_ord_id in zip(data, cl_ord_ids, strict=False):
        cancel["ClOrdID"] = cl_ord_id
    return msgspec.json.encode({"type": "OrderCancelRequest", "data": data})


def request(command_id: str, body: bytes, max_body: int) -> Request:
    """Read the body as the worker will. Raises UsageError with the first thing that would be ``invalid``."""
    verdict = read_command(body, Properties(content_type=JSON, message_id=command_id), max_body)
    if isinstance(verdict, InvalidCommand):
        raise UsageError(verdict.rejection.message)
    if not isinstance(verdict, CancelCommand):
        raise UsageError("this is no OrderCancelRequest: nothing else is published here")
    items: list[CancelItem] = []
    for item in verdict.items:
        if not isinstance(item, CancelItem):
            raise UsageError(f"cancel {item.index}: {item.rejection.message}")
        items.append(item)
    return Request(command_id, body, tuple(items))


def deadline_of(text: str, utc_us: int | None = None) -> str:
    """The header ``deadline`` from a time with a zone, or from a duration from now: ``30s``, ``500ms``, ``2m``.

    Raises UsageError for anything else, and for a time that has passed.
    """
    now_us = time.time_ns() // 1000 if utc_us is None else utc_us
    duration = _DURATION.fullmatch(text)
    try:
        if duration is not None:
            at_us = now_us + round(float(duration["number"]) * _UNIT_S[duration["unit"]] * 1e6)
        else:
            at_us = parse_utc(text)
        if at_us <= now_us:
            raise UsageError(f"--deadline {text} has passed")
        return format_utc(at_us)
    except ValueError:
        raise UsageError("--deadline must be a time with a zone (ISO-8601), or a duration such as 30s") from None


def reason_of(text: str) -> str:
    """The header ``reason``. Raises UsageError for bytes that are no UTF-8, which Python brings in as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("--reason must be UTF-8 text") from None
    return text


def properties(asked: Request, *, user: str | None, reason: str | None, deadline: str | None) -> dict[str, Any]:
    """The AMQP properties of the message, as aio-pika names them (contract section 2).

    ``user``: whom the broker logged in; it checks the claim, and ``[authorization]`` goes by it. No ``reply_to``: its
    copy of a final may overtake the events before it, and the results exchange is the one that is confirmed.
    """
    headers = {name: value for name, value in (("reason", reason), ("deadline", deadline)) if value is not None}
    return {
        "content_type": JSON,
        "message_id": asked.command_id,
        "correlation_id": asked.command_id,
        "user_id": user,
        "app_id": "cancel-worker-cli",
        "timestamp": int(time.time()),
        "headers": headers,
    }
