"""The venue's own words: times, reports, frames (protocol sections 2 to 5).

Written apart from worker.wire on purpose: a misreading of the protocol in one of the two shows up as a failing test
instead of being shared by both.
"""

from __future__ import annotations

import base64
import calendar
import re
import time
from decimal import Decimal
from functools import lru_cache
from typing import Final

import msgspec

CXL_REJ_WORDS: Final[dict[int, str]] = {
    0: "TooLateToCancel",
    1: "UnknownOrder",
    2: "BrokerOption",
    3: "OrderAlreadyInPendingStatus",
    4: "UnableToProcessOrderMassCancelRequest",
    5: "OrigOrdModTime",
    6: "DuplicateClOrdID",
    99: "Other",
}
"""CxlRejReason (FIX 102) as words, protocol section 5.4."""

CLOSED_STATUSES: Final = frozenset({"Filled", "Canceled", "Rejected", "Expired", "DoneForDay"})

INVALID_REQUEST: Final = 1
DUPLICATE_REQID: Final = 2

_STAMP = re.compile(r"\A(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?Z\Z", re.ASCII)
_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def stamp(utc_us: int) -> str:
    """UTC microseconds since the epoch as YYYY-MM-DDTHH:MM:SS.ffffffZ."""
    seconds, rest = divmod(utc_us, 1_000_000)
    return f"{_second(seconds)}.{rest:06d}Z"


@lru_cache(maxsize=1024)
def _seconds(text: str) -> int | None:
    year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
    hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:])
    if year < 1970 or not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    if hour > 23 or minute > 59 or second > 59:
        return None
    return calendar.timegm((year, month, day, hour, minute, second, 0, 0, 0))


def parse_stamp(text: object) -> int | None:
    """UTC microseconds of an ISO-8601 text that ends in Z; None if it is none."""
    found = _STAMP.match(text) if isinstance(text, str) else None
    if found is None:
        return None
    seconds = _seconds(found[1])
    return None if seconds is None else seconds * 1_000_000 + int((found[2] or "0").ljust(6, "0"))


def decimal_text(value: Decimal) -> str:
    """A Decimal as the venue writes it: plain digits, never an exponent."""
    return format(value, "f")


def reason_value(code: int, form: str) -> int | str:
    """CxlRejReason as `code` (integer), `text` (the code in quotes) or `word`: the JSON spelling is not documented."""
    if form == "text":
        return str(code)
    if form == "word":
        return CXL_REJ_WORDS.get(code, "Other")
    return code


class Report(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One ExecutionReport or Order record (protocol section 4); decimals are strings."""

    timestamp: str = msgspec.field(name="Timestamp")
    symbol: str = msgspec.field(name="Symbol")
    order_id: str = msgspec.field(name="OrderID")
    cl_ord_id: str = msgspec.field(name="ClOrdID")
    orig_cl_ord_id: str | None = msgspec.field(name="OrigClOrdID", default=None)
    submit_time: str = msgspec.field(name="SubmitTime")
    exec_id: str = msgspec.field(name="ExecID")
    side: str = msgspec.field(name="Side")
    transact_time: str = msgspec.field(name="TransactTime")
    exec_type: str = msgspec.field(name="ExecType")
    ord_status: str = msgspec.field(name="OrdStatus")
    order_qty: str = msgspec.field(name="OrderQty")
    ord_type: str = msgspec.field(name="OrdType")
    price: str | None = msgspec.field(name="Price", default=None)
    currency: str = msgspec.field(name="Currency")
    amount_currency: str | None = msgspec.field(name="AmountCurrency", default=None)
    time_in_force: str | None = msgspec.field(name="TimeInForce", default=None)
    leaves_qty: str | None = msgspec.field(name="LeavesQty", default=None)
    cum_qty: str | None = msgspec.field(name="CumQty", default=None)
    avg_px: str | None = msgspec.field(name="AvgPx", default=None)
    cum_amt: str | None = msgspec.field(name="CumAmt", default=None)
    last_qty: str | None = msgspec.field(name="LastQty", default=None)
    last_px: str | None = msgspec.field(name="LastPx", default=None)
    last_amt: str | None = msgspec.field(name="LastAmt", default=None)
    decision_status: str | None = msgspec.field(name="DecisionStatus", default=None)
    customer_user: str | None = msgspec.field(name="CustomerUser", default=None)
    rfq_id: str | None = msgspec.field(name="RFQID", default=None)
    cxl_rej_reason: int | str | None = msgspec.field(name="CxlRejReason", default=None)
    ord_rej_reason: int | str | None = msgspec.field(name="OrdRejReason", default=None)
    text: str | None = msgspec.field(name="Text", default=None)


def encode_report(report: Report) -> bytes:
    """The JSON of one record."""
    return _encode(report)


def hello_frame(ts: str, session_id: str) -> bytes:
    """Protocol section 3.1."""
    return _encode({"type": "hello", "ts": ts, "session_id": session_id})


def error_frame(ts: str, reqid: int | None, seq: int, code: int, msg: str) -> bytes:
    """Protocol section 3.7; no reqid: the field is left out."""
    frame: dict[str, object] = {} if reqid is None else {"reqid": reqid}
    frame |= {"type": "error", "seq": seq, "ts": ts, "error": {"code": code, "msg": msg}}
    return _encode(frame)


def pong_frame(ts: str, reqid: int, data: object, *, seq: bool) -> bytes:
    """Protocol section 3.6; with seq, `seqNum` 0 is written."""
    frame: dict[str, object] = {"reqid": reqid, "type": "Pong", "ts": ts}
    if seq:
        frame["seqNum"] = 0
    return _encode(frame | {"data": data})


def stream_frame(
    records: list[bytes],
    *,
    reqid: int,
    name: str,
    ts: str,
    seq: tuple[str, int] | None,
    tag: str | None = None,
    initial: bool = False,
    action: str = "Update",
    total_count: int | None = None,
    next_cursor: str | None = None,
) -> bytes:
    """One stream frame (protocol section 3.3) around records that are already JSON."""
    head = f'{{"reqid":{reqid},"type":"{name}","ts":"{ts}"'
    if initial:
        head += ',"initial":true'
    if seq is not None:
        head += f',"{seq[0]}":{seq[1]}'
    if tag is not None:
        head += f',"tag":{_encode(tag).decode()}'
    if total_count is not None:
        head += f',"total_count":{total_count}'
    tail = "]}" if next_cursor is None else f'],"next":"{next_cursor}"}}'
    return f'{head},"action":"{action}","data":['.encode() + b",".join(records) + tail.encode()


def cursor(utc_us: int, offset: int) -> str:
    """An opaque `next`: base64 of a small JSON object that holds a time, as in the venue's samples."""
    return base64.b64encode(_encode({"T": stamp(utc_us), "o": offset})).decode()
