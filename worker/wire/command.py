"""AMQP body and properties to a command (contract sections 2 and 5).

Two readers give the same verdict. The short one decodes into typed structs and takes only bodies without a fault and
with proof that no known key stands twice. Whatever it does not take, the exact one reads key by key
(worker.wire.body): it alone says what is invalid, and why.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Final, Literal, TypeAlias, cast

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from worker.wire import rules
from worker.wire.body import MAX_ITEMS, Record, UnreadableBodyError, read_json, read_msgpack
from worker.wire.item import (
    CANCEL_KEYS,
    MAX_CL_ORD_ID,
    MAX_SYMBOL,
    CancelItem,
    InvalidItem,
    PlainItem,
    are_visible_ascii,
    derive_cl_ord_id,
    derive_sweep_cl_ord_id,
    read_item,
    read_plain_items,
)
from worker.wire.properties import Context, Properties, read_context
from worker.wire.rules import Rejection, rejection

__all__ = [
    "CancelCommand",
    "CancelItem",
    "Command",
    "Context",
    "InvalidCommand",
    "InvalidItem",
    "Lane",
    "MassCancelCommand",
    "MassCancelRequestType",
    "Properties",
    "Rejection",
    "Side",
    "body_sha256_hex",
    "derive_cl_ord_id",
    "derive_sweep_cl_ord_id",
    "read_command",
]

Lane: TypeAlias = Literal["kill", "cancel"]
"""The two queues a command may come from. No frame mixes them (contract promise 5)."""

MassCancelRequestType: TypeAlias = Literal["AllOrders", "Security"]
Side: TypeAlias = Literal["Buy", "Sell"]

CANCEL: Final = "OrderCancelRequest"
MASS_CANCEL: Final = "OrderMassCancelRequest"
ENVELOPE_KEYS: Final = frozenset({"type", "reqid", "data"})
MASS_KEYS: Final = frozenset({"ClOrdID", "MassCancelRequestType", "Symbol", "Side", "CustomerUser"})
JSON_TYPES: Final = frozenset({"application/json"})
MSGPACK_TYPES: Final = frozenset({"application/msgpack", "application/x-msgpack", "application/vnd.msgpack"})
"""The contract's name, the one used before it was registered, and the registered one."""


class CancelCommand(Struct, frozen=True, gc=False):
    """An ``OrderCancelRequest``: 1 to 1000 items, ``items[i].index == i``, no ClOrdID twice, a command id."""

    context: Context
    items: list[CancelItem | InvalidItem]


class MassCancelCommand(Struct, frozen=True):
    """An ``OrderMassCancelRequest`` (contract section 5). ``symbol`` is set exactly if the type is ``Security``."""

    context: Context
    cl_ord_id: str | None
    request_type: MassCancelRequestType
    symbol: str | None
    side: Side | None
    customer_user: str | None


class InvalidCommand(Struct, frozen=True):
    """A command that is spoilt as a whole: one ``invalid`` event, told apart by ``body_sha256_hex``."""

    context: Context
    rejection: Rejection
    body_sha256_hex: str


Command: TypeAlias = CancelCommand | MassCancelCommand | InvalidCommand


def body_sha256_hex(body: bytes) -> str:
    """What stands for a body in the id of an event about the command as a whole (contract section 3, Ids)."""
    return hashlib.sha256(body).hexdigest()


def read_command(body: bytes, properties: Properties, max_body: int) -> Command:
    """The one verdict on a delivery; ``max_body`` in bytes. Never raises, whatever the bytes and the properties."""
    context, refused = read_context(properties)
    as_json = _is_json(properties.content_type)
    if refused is None and as_json is None:
        refused = rejection("content_type", rules.CONTENT_TYPE, properties.content_type)
    if refused is None and len(body) > max_body:
        refused = Rejection("body", rules.MAX_BODY, f"body: at most {max_body} bytes; received {len(body)}")
    if refused is not None or as_json is None:
        return InvalidCommand(context, cast(Rejection, refused), body_sha256_hex(body))
    return read_plainly(body, context, as_json) or read_exactly(body, context, as_json)


def _is_json(content_type: str | None) -> bool | None:
    """JSON, MessagePack, or None for neither. Parameters as ``; charset=utf-8`` are tolerated, the case is free."""
    if not content_type or content_type == "application/json":
        return True
    essence = content_type.partition(";")[0].strip().lower()
    return True if essence in JSON_TYPES else False if essence in MSGPACK_TYPES else None


class _PlainBody(Struct, gc=False):
    type: str
    data: list[PlainItem]
    reqid: Raw | UnsetType = UNSET


_plain_json: Final = msgspec.json.Decoder(_PlainBody).decode
_plain_msgpack: Final = msgspec.msgpack.Decoder(_PlainBody).decode
_encode: Final = msgspec.json.Encoder().encode


def read_plainly(body: bytes, context: Context, as_json: bool) -> CancelCommand | None:
    """The command if all of it is valid and this can be told cheaply; None: read_exactly decides."""
    ascii_only = body.isascii()
    if as_json and (b"\\" in body or not (ascii_only or _is_utf8(body))):
        return None  # escaped keys can't be counted; bad UTF-8 in an ignored field would go unseen
    try:
        plain = _plain_json(body) if as_json else _plain_msgpack(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    data = plain.data
    if plain.type != CANCEL or not 1 <= len(data) <= MAX_ITEMS:
        return None
    # JSON texts have no control characters, so where the body has no blank and no DEL all of them are visible.
    visible = as_json and ascii_only and b" " not in body and b"\x7f" not in body
    if not (visible or are_visible_ascii(data)):
        return None
    command_id = context.command_id or data[0].cl_ord_id
    if command_id is UNSET or not command_id:
        return None
    items = read_plain_items(data, command_id)
    if items is None:
        return None
    if len(items) > 1 and len({item.cl_ord_id for item in items}) != len(items):
        return None
    if not (as_json and _no_text_unread(body, plain)) and not _no_name_unread(body, plain):
        return None
    return CancelCommand(context if context.command_id else _identified(context, command_id), items)


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _no_text_unread(body: bytes, plain: _PlainBody) -> bool:
    """Proof for a JSON body without backslash that no known key stands twice in one object; False: no proof.

    What was decoded is encoded anew, which writes every key and text as it stands in the body, and no blanks. Is that
    as long, then there is nothing else in the body. It may have blanks: then the quotes are counted, two of every text,
    since none can be escaped. A body with unknown fields has others.
    """
    again = _encode(plain)
    return len(again) == len(body) or again.count(b'"') == body.count(b'"')


def _no_name_unread(body: bytes, plain: _PlainBody) -> bool:
    """The same proof for a body that may have unknown fields, or is MessagePack; False: no proof.

    Wherever a key stands, its bytes stand in the body (JSON has no backslash here, MessagePack no escapes), and a field
    that was decoded took one of them. So if a name occurs in the whole body no oftener than it was decoded, every one
    is accounted for. No name can overlap itself; of the names only ClOrdID is part of another, OrigClOrdID.
    """
    data = plain.data
    count = body.count
    orig_cl_ord_ids = sum([each.orig_cl_ord_id is not UNSET for each in data])
    return (
        count(b"type") == 1
        and count(b"data") == 1
        and count(b"reqid") == (plain.reqid is not UNSET)
        and count(b"Symbol") == len(data)
        and count(b"OrigClOrdID") == orig_cl_ord_ids
        and count(b"ClOrdID") == orig_cl_ord_ids + sum([each.cl_ord_id is not UNSET for each in data])
        and count(b"OrderID") == sum([each.order_id is not UNSET for each in data])
        and count(b"TransactTime") == sum([each.transact_time is not UNSET for each in data])
        and count(b"Timestamp") == sum([each.timestamp is not UNSET for each in data])
    )


def _identified(context: Context, command_id: str) -> Context:
    correlation_id = command_id if context.correlation_id is None else context.correlation_id
    return structs.replace(context, command_id=command_id, correlation_id=correlation_id)


def read_exactly(body: bytes, context: Context, as_json: bool) -> Command:
    """The verdict on any body, with the reason if it is invalid."""
    try:
        envelope = read_json(body) if as_json else read_msgpack(body)
    except UnreadableBodyError as error:
        return InvalidCommand(context, Rejection("body", rules.READABLE, f"body: {error}"), body_sha256_hex(body))
    if context.command_id is None:
        found = _first_cl_ord_id(envelope)
        if found is not None:
            context = _identified(context, found)
    verdict = _judge(envelope, context)
    return InvalidCommand(context, verdict, body_sha256_hex(body)) if isinstance(verdict, Rejection) else verdict


def _first_cl_ord_id(envelope: object) -> str | None:
    data = envelope.get("data") if isinstance(envelope, Record) else None
    if not isinstance(envelope, Record) or "data" in envelope.repeated or not isinstance(data, list) or not data:
        return None
    first = data[0]
    if not isinstance(first, Record) or "ClOrdID" in first.repeated:
        return None
    cl_ord_id = rules.visible_ascii("ClOrdID", first.get("ClOrdID"), MAX_CL_ORD_ID)
    return None if isinstance(cl_ord_id, Rejection) else cl_ord_id


def _judge(envelope: object, context: Context) -> CancelCommand | MassCancelCommand | Rejection:
    if not isinstance(envelope, Record):
        return rejection("body", rules.BODY, envelope)
    kind, data = envelope.get("type"), envelope.get("data")
    if envelope.repeated & ENVELOPE_KEYS:
        return _repeated(envelope.repeated & ENVELOPE_KEYS, "")
    if kind not in (CANCEL, MASS_CANCEL):
        return rejection("type", rules.TYPE if kind is not None else rules.REQUIRED, kind)
    if data is None:
        return rejection("data", rules.REQUIRED, None)
    if kind == MASS_CANCEL:
        return _judge_mass(data, context)
    if not isinstance(data, list) or not 1 <= len(data) <= MAX_ITEMS:
        return rejection("data", rules.DATA, data)
    for index, value in enumerate(data):
        if isinstance(value, Record) and value.repeated & CANCEL_KEYS:
            return _repeated(value.repeated & CANCEL_KEYS, f"data[{index}].")
    if context.command_id is None:
        return rejection("message_id", rules.COMMAND_ID, None)
    items = [read_item(value, index, context.command_id) for index, value in enumerate(data)]
    counted = Counter(item.cl_ord_id for item in items if item.cl_ord_id is not None)
    for cl_ord_id, times in counted.items():
        if times > 1:
            return rejection("ClOrdID", rules.UNIQUE_CL_ORD_ID, cl_ord_id)
    return CancelCommand(context, items)


def _repeated(keys: frozenset[str], place: str) -> Rejection:
    key = min(keys)
    return Rejection(key, rules.UNIQUE_KEY, f"{place}{key}: {rules.UNIQUE_KEY}")


def _judge_mass(data: object, context: Context) -> MassCancelCommand | Rejection:
    """Every fault of the one item spoils the command: there are no neighbours (contract section 5)."""
    if not isinstance(data, list) or len(data) != 1:
        return rejection("data", rules.ONE_MASS_CANCEL, data)
    item = data[0]
    if not isinstance(item, Record):
        return rejection("data", rules.ITEM, item)
    if item.repeated & MASS_KEYS:
        return _repeated(item.repeated & MASS_KEYS, "data[0].")
    cl_ord_id = rules.visible_ascii("ClOrdID", item.get("ClOrdID"), MAX_CL_ORD_ID)
    if isinstance(cl_ord_id, Rejection):
        return cl_ord_id
    request_type = rules.one_of("MassCancelRequestType", item.get("MassCancelRequestType"), _SCOPES, rules.MASS_TYPE)
    if isinstance(request_type, Rejection):
        return request_type
    symbol = rules.visible_ascii("Symbol", item.get("Symbol"), MAX_SYMBOL)
    if isinstance(symbol, Rejection):
        return symbol
    side = rules.one_of("Side", item.get("Side"), _SIDES, rules.SIDE)
    if isinstance(side, Rejection):
        return side
    customer_user = rules.plain_text("CustomerUser", item.get("CustomerUser"))
    if isinstance(customer_user, Rejection):
        return customer_user
    if request_type is None:
        return rejection("MassCancelRequestType", rules.REQUIRED, None)
    if request_type == "Security" and symbol is None:
        return rejection("Symbol", rules.SYMBOL_REQUIRED, None)
    if request_type == "AllOrders" and symbol is not None:
        return rejection("Symbol", rules.SYMBOL_FORBIDDEN, symbol)
    if context.command_id is None:
        return rejection("message_id", rules.COMMAND_ID, None)
    return MassCancelCommand(context, cl_ord_id, request_type, symbol, side, customer_user)


_SCOPES: Final[dict[str, MassCancelRequestType]] = {"AllOrders": "AllOrders", "Security": "Security"}
_SIDES: Final[dict[str, Side]] = {"Buy": "Buy", "Sell": "Sell"}
