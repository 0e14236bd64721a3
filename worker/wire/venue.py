"""The venue's wire format: frames in, frames out, and what the words in a record mean (protocol sections 2 to 5).

Decoding is tolerant where the protocol's pages disagree or are silent: unknown fields and words pass, a sequence
number may be called ``seqNum`` or ``seq``, a reject reason may be a word, a number or a number in quotes, and a field
of a type that nobody expects reads as absent, unless a decision hangs on it. A record travels as ``msgspec.Raw`` so
that a report can be passed on byte for byte; only the fields needed to decide are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, TypeVar, get_args

import msgspec
from msgspec import Raw, Struct, field

EXECUTION_REPORT: Final = "ExecutionReport"
ORDER: Final = "Order"

ExecType = Literal[
    "PendingNew",
    "New",
    "Trade",
    "PendingCancel",
    "Canceled",
    "CancelRejected",
    "Rejected",
    "PendingReplace",
    "Replaced",
    "ReplaceRejected",
    "Restated",
    "Stopped",
    "PendingPause",
    "Paused",
    "PendingResume",
    "Resumed",
    "Triggered",
    "Started",
    "DoneForDay",
    "Expired",
]
"""Protocol 5.1."""

OrdStatus = Literal[
    "PendingNew",
    "New",
    "PartiallyFilled",
    "Filled",
    "DoneForDay",
    "Canceled",
    "Cancelled",
    "Replaced",
    "PendingCancel",
    "Rejected",
    "PendingReplace",
    "Stopped",
    "Suspended",
    "Calculated",
    "Expired",
]
"""Protocol 5.2, in either spelling."""

REJECTS: Final = frozenset({"CancelRejected", "Rejected"})
"""ExecTypes of a report that may say no to a cancel (protocol 5.1)."""


class FrameError(ValueError):
    """A frame or record of the venue could not be read; the message says why, without the bytes."""


# ---- frames from the venue -------------------------------------------------------------------------------------


class FrameFault(Struct, frozen=True, gc=False):
    """``error`` of an error frame: ``code`` 1 invalid request, 2 duplicate reqid, anything else unknown (3.7)."""

    code: int | str | None = None
    msg: str | None = None


class Record(Struct, gc=False):
    """The deciding fields of an ExecutionReport or an Order record (protocol section 4); absent reads as None.

    They stand in the order in which the venue writes them, which is read fastest.
    Quantities are as the venue wrote them, strings by its documentation; ``Timestamp`` is the venue's clock.
    """

    timestamp: str | None = field(name="Timestamp", default=None)
    symbol: str | None = field(name="Symbol", default=None)
    order_id: str | None = field(name="OrderID", default=None)
    cl_ord_id: str | None = field(name="ClOrdID", default=None)
    orig_cl_ord_id: str | None = field(name="OrigClOrdID", default=None)
    submit_time: str | None = field(name="SubmitTime", default=None)
    exec_id: str | None = field(name="ExecID", default=None)
    side: str | None = field(name="Side", default=None)
    exec_type: str | None = field(name="ExecType", default=None)
    ord_status: str | None = field(name="OrdStatus", default=None)
    leaves_qty: str | int | float | None = field(name="LeavesQty", default=None)
    cum_qty: str | int | float | None = field(name="CumQty", default=None)
    avg_px: str | int | float | None = field(name="AvgPx", default=None)
    time_in_force: str | None = field(name="TimeInForce", default=None)
    customer_user: str | None = field(name="CustomerUser", default=None)
    cxl_rej_reason: str | int | float | None = field(name="CxlRejReason", default=None)
    ord_rej_reason: str | int | float | None = field(name="OrdRejReason", default=None)
    text: str | None = field(name="Text", default=None)


class _ListedRecord(Record, gc=False):
    """One whose words stand in the protocol's lists: they are not made anew for each, and the book holds many."""

    side: Literal["Buy", "Sell"] | None = field(name="Side", default=None)
    exec_type: ExecType | None = field(name="ExecType", default=None)
    ord_status: OrdStatus | None = field(name="OrdStatus", default=None)


class _Envelope(Struct, gc=False):
    type: str
    reqid: int | None = None
    initial: bool | None = None
    next: str | None = None
    seq_num: int | None = field(name="seqNum", default=None)
    seq: int | None = None
    action: str | None = None
    total_count: Any = None
    ts: str | None = None
    session_id: str | None = None
    error: FrameFault | None = None


class Frame(_Envelope, gc=False):
    """One frame of the venue (protocol section 2). ``reqid`` is the subscription's, ``data`` its records."""

    data: Sequence[Record] | None = None


class _ListedFrame(Frame, gc=False):
    data: list[_ListedRecord] | None = None


class UnreadFrame(_Envelope, gc=False):
    """The same with its records as they came: for a frame in which something is of another type than expected."""

    data: list[Raw] | None = None


class _Records(Struct, gc=False):
    data: list[Raw] = []


_Read = TypeVar("_Read", UnreadFrame, Record, FrameFault)


def _by_field(
    kind: type[_Read], deciding: frozenset[str], nested: dict[str, Callable[[Raw], Any]] | None = None
) -> Callable[[bytes | Raw], _Read]:
    """Reads JSON as ``kind`` field by field: one of another type than expected is absent, unless it is ``deciding``."""
    fields = {f.encode_name: f for f in msgspec.structs.fields(kind)}
    decoders = {name: msgspec.json.Decoder(f.type).decode for name, f in fields.items()} | (nested or {})
    split = msgspec.json.Decoder(dict[str, Raw]).decode

    def read(data: bytes | Raw) -> _Read:
        parts = split(data)
        values = {}
        for name in fields.keys() & parts.keys():
            try:
                values[fields[name].name] = decoders[name](parts[name])
            except msgspec.ValidationError:
                if name in deciding:
                    raise
        if any(f.required and f.name not in values for f in fields.values()):
            raise msgspec.ValidationError("a required field is missing")
        return kind(**values)

    return read


_decode_listed_frame = msgspec.json.Decoder(_ListedFrame).decode
_decode_frame = msgspec.json.Decoder(Frame).decode
_decode_unread_frame = msgspec.json.Decoder(UnreadFrame).decode
_decode_records = msgspec.json.Decoder(_Records).decode
_decode_record = msgspec.json.Decoder(Record).decode
_frame_by_field = _by_field(
    UnreadFrame, frozenset({"type", "reqid", "data", "next"}), {"error": _by_field(FrameFault, frozenset())}
)
_DECIDING: Final = frozenset({"ClOrdID", "OrderID", "ExecType", "OrdStatus"})
_REASONS: Final = frozenset({"CxlRejReason", "OrdRejReason"})
_record_by_field = _by_field(Record, _DECIDING)
_reject_by_field = _by_field(Record, _DECIDING | _REASONS)
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


def read_frame(message: bytes) -> Frame:
    """Read one text message and all of its records at once, which is cheapest, if every field is of its usual type.

    Raises ``FrameError`` otherwise: ``read_unread_frame`` and ``read_record`` then tell what is wrong, if anything is.
    """
    try:
        if not message.isascii():
            message.decode()  # the decoder skips bytes that nobody reads, and a report is passed on with all of its own
        try:
            return _decode_listed_frame(message)
        except msgspec.ValidationError:  # a word that no page lists is to be tolerated (protocol 5.1, 5.2)
            return _decode_frame(message)
    except _UNREADABLE as e:
        raise _unreadable_frame(message, e) from e


def read_unread_frame(message: bytes) -> UnreadFrame:
    """Read one text message and leave its records to ``read_record``.

    Raises ``FrameError`` for anything that is not a frame of protocol section 2.
    """
    try:
        if not message.isascii():
            message.decode()
        try:
            return _decode_unread_frame(message)
        except msgspec.ValidationError:
            return _frame_by_field(message)
    except _UNREADABLE as e:
        raise _unreadable_frame(message, e) from e


def _unreadable_frame(message: bytes, error: Exception) -> FrameError:
    return FrameError(f"unreadable frame of {len(message)} bytes: {type(error).__name__}")


def raw_records(message: bytes) -> list[Raw]:
    """The records of a message that ``read_frame`` has read, in its order, byte for byte.

    Raises ``FrameError`` for nesting that is one level too deep for this reading and was not for that one.
    """
    try:
        return _decode_records(message).data
    except _UNREADABLE as e:
        raise _unreadable_frame(message, e) from e


def read_record(raw: Raw) -> Record:
    """Read one record of a stream frame. Raises ``FrameError``; its neighbours are unharmed (faults I10).

    A reject whose reason can't be read is no reject: it may say that the cancel is under way (protocol 5.4).
    """
    try:
        try:
            return _decode_record(raw)
        except msgspec.ValidationError:
            record = _record_by_field(raw)
            return _reject_by_field(raw) if record.exec_type in REJECTS else record
    except _UNREADABLE as e:
        raise FrameError(f"unreadable record: {type(e).__name__}") from e


# ---- what the words mean ---------------------------------------------------------------------------------------

_CLOSED: Final = frozenset({"Filled", "Canceled", "Cancelled", "Rejected", "Expired"})
_CLOSED_UNLESS_GTC: Final = frozenset({"DoneForDay", "Calculated"})
_PENDING: Final = frozenset({"PendingCancel", "PendingReplace"})
_KNOWN_OPEN: Final = frozenset(
    {"PendingNew", "New", "PartiallyFilled", "PendingCancel", "PendingReplace", "Replaced", "Stopped", "Suspended"}
)
STATUSES: Final[frozenset[str | None]] = frozenset(get_args(OrdStatus))
"""Every word for an OrdStatus that the protocol lists."""

_REASON_WORDS: Final = {
    "toolatetocancel": 0,
    "unknownorder": 1,
    "brokeroption": 2,
    "brokercredit": 2,
    "brokerexchangeoption": 2,
    "orderalreadyinpendingstatus": 3,
    "unabletoprocessordermasscancelrequest": 4,
    "origordmodtime": 5,
    "duplicateclordid": 6,
    "other": 99,
}
_ORDER_REASON_WORDS: Final = {"unknownorder": 5, "duplicateorder": 6}

TOO_LATE, UNKNOWN_ORDER, ALREADY_PENDING, DUPLICATE_CL_ORD_ID = 0, 1, 3, 6
"""CxlRejReason, FIX tag 102 (protocol 5.4)."""


def reason_code(reason: str | int | float | None) -> int | None:
    """CxlRejReason as its FIX code, from a number, a number in quotes or a word (protocol 5.4); None if unknown."""
    return _code(reason, _REASON_WORDS)


def order_reason_code(reason: str | int | float | None) -> int | None:
    """OrdRejReason as its FIX code (protocol 5.5), likewise. Of the words only those that may speak of a cancel."""
    return _code(reason, _ORDER_REASON_WORDS)


def _code(reason: str | int | float | None, words: dict[str, int]) -> int | None:
    if reason is None:
        return None
    if isinstance(reason, str):
        word = reason.strip()
        if word.isascii() and word.isdigit() and len(word) <= 4:
            return int(word)
        return words.get("".join(c for c in word if c.isalnum()).lower())
    return int(reason) if reason == reason and abs(reason) < 10_000 and reason == int(reason) else None


def is_zero(quantity: str | int | float | None) -> bool:
    """True for a quantity that says nothing is left; an absent or unreadable one says nothing."""
    if quantity is None or quantity == "":
        return False
    if isinstance(quantity, str):
        if quantity[0] in "123456789":
            return False
        if quantity == "0":
            return True
        more = quantity.strip("0.")
        if more and more[0] in "123456789":
            return False
        digits = quantity.strip().lstrip("+-").replace(".", "", 1)
        return digits.isascii() and digits.isdigit() and not digits.strip("0")
    return quantity == 0


def is_more(quantity: str | int | float | None, than: str | int | float | None) -> bool:
    """True if both can be read and the first is the larger one."""
    try:
        return Decimal(str(quantity)) > Decimal(str(than))
    except InvalidOperation:
        return False


def is_canceled_word(status: str | None) -> bool:
    """OrdStatus or ExecType ``Canceled``, in either spelling (protocol 5.2)."""
    return status in ("Canceled", "Cancelled")


def status_is_pending(status: str | None) -> bool:
    """A cancel or replace is being worked on (protocol 5.2)."""
    return status in _PENDING


def status_is_closed(record: Record) -> bool:
    """Whether OrdStatus alone says that the order is closed (protocol 5.2); an unknown word counts as open."""
    status = record.ord_status
    if status in _CLOSED:
        return True
    if status in _CLOSED_UNLESS_GTC:
        return is_zero(record.leaves_qty) or record.time_in_force not in (None, "GoodTillCancel")
    return False


def status_is_known_open(status: str | None) -> bool:
    """Whether OrdStatus is one of the words for an open order; false for an unknown or missing word."""
    return status in _KNOWN_OPEN or status in _CLOSED_UNLESS_GTC


def is_filled(record: Record) -> bool:
    """Nothing is left by a fill: OrdStatus ``Filled``, or a ``Trade`` with LeavesQty 0 (protocol 5.2)."""
    return record.ord_status == "Filled" or (record.exec_type == "Trade" and is_zero(record.leaves_qty))


NO_ORDER: Final = frozenset({None, "", "NONE"})
"""OrderID of a reject for an unknown order (protocol 4.1)."""


def names_no_order(order_id: str | None) -> bool:
    """OrderID of a reject for an unknown order: absent, empty, or the word ``NONE`` (protocol 4.1)."""
    return order_id in NO_ORDER


def stamp(timestamp: str | None) -> str:
    """A ``Timestamp`` in a form that sorts by time as text, whatever its precision; absent sorts first."""
    return timestamp.rstrip("Zz") if timestamp else ""


def as_text(quantity: str | int | float | None) -> str | None:
    """A quantity as text, as the venue wrote it where it wrote a string."""
    return quantity if quantity is None or isinstance(quantity, str) else repr(quantity)


# ---- frames to the venue ---------------------------------------------------------------------------------------


class CancelElement(Struct, gc=False, omit_defaults=True):
    """One element of ``OrderCancelRequest`` (protocol 3.8)."""

    Symbol: str
    ClOrdID: str
    TransactTime: str
    OrderID: str | None = None
    OrigClOrdID: str | None = None
    Timestamp: str | None = None


class CancelRequest(Struct, gc=False):
    """``OrderCancelRequest`` frame (protocol 3.8)."""

    reqid: int
    type: str
    data: list[CancelElement]


_encode = msgspec.json.Encoder().encode


def encode_json(value: object) -> bytes:
    """Plain values as JSON text."""
    return _encode(value)


def cancel_request(reqid: int, elements: list[CancelElement]) -> bytes:
    """``OrderCancelRequest`` with one element per cancel."""
    return _encode(CancelRequest(reqid, "OrderCancelRequest", elements))


def subscribe(
    reqid: int,
    stream: str,
    start_date: str,
    *,
    order_id: str | None = None,
    symbol: str | None = None,
    statuses: list[str] | str | None = None,
    extra: dict[str, Any] | None = None,
) -> bytes:
    """``subscribe`` to one stream (protocol 3.2). ``start_date`` is always given: what comes without one is unknown."""
    filters: dict[str, Any] = {"name": stream, "StartDate": start_date}
    if order_id is not None:
        filters["OrderID"] = order_id
    if symbol is not None:
        filters["Symbol"] = symbol
    if statuses is not None:
        filters["Statuses"] = statuses
    if extra:
        filters = {**extra, **filters}
    return _encode({"reqid": reqid, "type": "subscribe", "streams": [filters]})


def page(reqid: int, stream: str, after: str, array: str) -> bytes:
    """The next page of subscription ``reqid`` (protocol 3.4); ``array``: ``streams``; ``data`` in the older edition."""
    return _encode({"reqid": reqid, "type": "page", array: [{"name": stream, "after": after}]})


def end_stream(reqid: int) -> bytes:
    """``cancel``: end the subscription ``reqid``. It has nothing to do with orders (protocol 3.5)."""
    return _encode({"reqid": reqid, "type": "cancel"})


def ping(reqid: int, ts: str) -> bytes:
    """``Ping`` with the one object of ``data`` that the venue insists on (protocol 3.6)."""
    return _encode({"reqid": reqid, "type": "Ping", "ts": ts, "data": [{"n": reqid}]})
