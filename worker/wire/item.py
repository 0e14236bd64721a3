"""One cancel of a command: the typed form it is decoded into, its rules, and the ClOrdID it gets if it has none."""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from msgspec import UNSET, Meta, Struct, UnsetType, field

from worker.wire.body import Record
from worker.wire.event import derived_uuid
from worker.wire.rules import (
    ITEM,
    REQUIRED,
    TARGET,
    Rejection,
    rejection,
    utc_time,
    visible_ascii,
)
from worker.wire.timestamp import normalise_utc, parse_utc

CANCEL_KEYS: Final = frozenset({"Symbol", "ClOrdID", "OrderID", "OrigClOrdID", "TransactTime", "Timestamp"})
MAX_SYMBOL: Final = 64
MAX_CL_ORD_ID: Final = 36
"""Characters; the venue takes no longer ClOrdID (protocol 3.8)."""
MAX_TARGET_ID: Final = 64


class CancelItem(Struct, frozen=True, gc=False):
    """One valid cancel. At least one of ``order_id`` and ``orig_cl_ord_id`` is set.

    ``transact_time`` is in the venue's form (UTC, microseconds, ``Z``), None: stamp it when sending. ``timestamp`` is
    forwarded as the publisher wrote it.
    """

    index: int
    symbol: str
    cl_ord_id: str
    order_id: str | None
    orig_cl_ord_id: str | None
    transact_time: str | None
    timestamp: str | None


class InvalidItem(Struct, frozen=True, gc=False):
    """One cancel that will not be sent, with those of its ids that were given and valid, for its event."""

    index: int
    rejection: Rejection
    symbol: str | None = None
    cl_ord_id: str | None = None
    order_id: str | None = None
    orig_cl_ord_id: str | None = None


_Symbol: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_SYMBOL)]
_ClOrdID: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_CL_ORD_ID)]
_TargetID: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_TARGET_ID)]


class PlainItem(Struct, gc=False):
    """One element of ``data`` under the names of the wire. UNSET: the key is not there; None: it is there with null.

    Decoding it holds the rules of length, and that there is a Symbol.
    """

    symbol: _Symbol = field(name="Symbol")
    cl_ord_id: _ClOrdID | UnsetType | None = field(default=UNSET, name="ClOrdID")
    order_id: _TargetID | UnsetType | None = field(default=UNSET, name="OrderID")
    orig_cl_ord_id: _TargetID | UnsetType | None = field(default=UNSET, name="OrigClOrdID")
    transact_time: str | UnsetType | None = field(default=UNSET, name="TransactTime")
    timestamp: str | UnsetType | None = field(default=UNSET, name="Timestamp")


def derive_cl_ord_id(command_id: str, index: int, attempt: int = 1) -> str:
    """The ClOrdID of a cancel that came without one: UUIDv5 of ``<index>/<attempt>/<command id>``, 36 characters.

    The same at every redelivery. ``attempt`` above 1 gives the fresh ids of later sends, also for a cancel that came
    with a ClOrdID (contract section 3, reason 3; ``venue.resend_id = "new"``). The numbers stand first, so that no
    command id can imitate another's.
    """
    return derived_uuid(f"{index}/{attempt}/{command_id}")


def derive_sweep_cl_ord_id(command_id: str, order_id: str, sweep: int) -> str:
    """The ClOrdID of one order's cancel in one sweep of a mass cancel (contract section 5).

    UUIDv5 of ``sweep/<sweep>/<length of OrderID>/<OrderID>/<command id>``.
    """
    return derived_uuid(f"sweep/{sweep}/{len(order_id)}/{order_id}/{command_id}")


def are_visible_ascii(data: list[PlainItem]) -> bool:
    """Whether all symbols and ids are of ASCII 0x21 to 0x7E, and nothing else."""
    # An absent id is spelled "None" or "UNSET" here, which breaks no rule. One test of all texts is the cheapest.
    texts = "".join([f"{each.symbol}{each.cl_ord_id}{each.order_id}{each.orig_cl_ord_id}" for each in data])
    return texts.isascii() and texts.isprintable() and " " not in texts


def read_plain_items(data: list[PlainItem], command_id: str) -> list[CancelItem | InvalidItem] | None:
    """The cancels if every rule holds of all; None if one does not: read_item says which. See are_visible_ascii."""
    items: list[CancelItem | InvalidItem] = []
    last = last_normal = None
    for index, plain in enumerate(data):
        cl_ord_id, order_id, orig_cl_ord_id = plain.cl_ord_id, plain.order_id, plain.orig_cl_ord_id
        transact_time, timestamp = plain.transact_time, plain.timestamp
        if cl_ord_id is UNSET or cl_ord_id is None:
            cl_ord_id = derive_cl_ord_id(command_id, index)
        if order_id is UNSET:
            order_id = None
        if orig_cl_ord_id is UNSET:
            orig_cl_ord_id = None
        if order_id is None and orig_cl_ord_id is None:
            return None
        try:
            if transact_time is UNSET or transact_time is None:
                transact_time = None
            elif transact_time == last:  # as it often is in one command
                transact_time = last_normal
            else:
                last = transact_time
                transact_time = last_normal = normalise_utc(transact_time)
            if timestamp is UNSET:
                timestamp = None
            elif timestamp is not None:
                parse_utc(timestamp)
        except ValueError:
            return None
        items.append(CancelItem(index, plain.symbol, cl_ord_id, order_id, orig_cl_ord_id, transact_time, timestamp))
    return items


def read_item(value: object, index: int, command_id: str) -> CancelItem | InvalidItem:
    """One element of ``data``, whatever it is. What spoils it spoils nothing else (contract section 2, Bad input)."""
    if not isinstance(value, Record):
        return InvalidItem(index, rejection("data", ITEM, value))
    symbol = visible_ascii("Symbol", value.get("Symbol"), MAX_SYMBOL)
    cl_ord_id = visible_ascii("ClOrdID", value.get("ClOrdID"), MAX_CL_ORD_ID)
    order_id = visible_ascii("OrderID", value.get("OrderID"), MAX_TARGET_ID)
    orig_cl_ord_id = visible_ascii("OrigClOrdID", value.get("OrigClOrdID"), MAX_TARGET_ID)
    transact_time = utc_time("TransactTime", value.get("TransactTime"))
    timestamp = utc_time("Timestamp", value.get("Timestamp"))
    if symbol is None:
        symbol = rejection("Symbol", REQUIRED, None)
    if order_id is None and orig_cl_ord_id is None:
        order_id = rejection("OrderID", TARGET, None)
    if (
        isinstance(symbol, Rejection)
        or isinstance(cl_ord_id, Rejection)
        or isinstance(order_id, Rejection)
        or isinstance(orig_cl_ord_id, Rejection)
        or isinstance(transact_time, Rejection)
        or isinstance(timestamp, Rejection)
    ):
        fields = (symbol, cl_ord_id, order_id, orig_cl_ord_id, transact_time, timestamp)
        first = next(each for each in fields if isinstance(each, Rejection))
        return InvalidItem(index, first, *(None if isinstance(each, Rejection) else each for each in fields[:4]))
    if cl_ord_id is None:
        cl_ord_id = derive_cl_ord_id(command_id, index)
    forwarded = value.get("Timestamp")
    assert forwarded is None or isinstance(forwarded, str)  # utc_time has seen it
    return CancelItem(index, symbol, cl_ord_id, order_id, orig_cl_ord_id, transact_time, forwarded)
