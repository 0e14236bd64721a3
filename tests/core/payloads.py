"""What publishers and the venue say, as they say it: the protocol's own samples, with the ids of a test put in."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from worker.wire.timestamp import format_utc, parse_utc

START_US = parse_utc("2026-03-09T14:09:12.000000Z")
"""When every test begins: the minute of the protocol's samples."""

Fields = dict[str, Any]
_exec_ids = count(1)

STATUS_OF = {
    "New": "New",
    "Trade": "PartiallyFilled",
    "PendingCancel": "PendingCancel",
    "Canceled": "Canceled",
    "CancelRejected": "New",
    "Rejected": "Rejected",
    "Replaced": "Replaced",
    "Expired": "Expired",
    "DoneForDay": "DoneForDay",
}
"""The OrdStatus that usually comes with an ExecType."""


def an_exec_id() -> str:
    """An ExecID that no other report has."""
    return f"5c6d0c1e-7f0d-4c35-8a10-{next(_exec_ids):012x}"


def report(exec_type: str, **fields: Any) -> Fields:
    """An ExecutionReport with every field of the sample in protocol 3.3; None leaves a field out."""
    stamp = fields.get("Timestamp", format_utc(START_US))
    record: Fields = {
        "Timestamp": stamp,
        "Symbol": "BTC-USD",
        "OrderID": "order-1",
        "ClOrdID": "ord-000417",
        "SubmitTime": "2026-03-09T14:06:58.090000Z",
        "ExecID": fields.get("ExecID") or an_exec_id(),
        "Side": "Buy",
        "TransactTime": stamp,
        "ExecType": exec_type,
        "OrdStatus": STATUS_OF.get(exec_type, "New"),
        "OrderQty": "0.50000000",
        "OrdType": "Limit",
        "Price": "61250.00",
        "Currency": "BTC",
        "AmountCurrency": "USD",
        "LeavesQty": "0.50000000",
        "CumQty": "0",
        "AvgPx": "0",
        "TimeInForce": "GoodTillCancel",
        **fields,
    }
    return {key: value for key, value in record.items() if value is not None}


def order(ord_status: str, **fields: Any) -> Fields:
    """An Order record (protocol 4.2): the same shape, the latest state of one order."""
    return report(fields.pop("ExecType", "New"), OrdStatus=ord_status, **fields)


def item(n: int = 1, **fields: Any) -> Fields:
    """One cancel as a publisher writes it: ClOrdID ``y-n`` for OrderID ``order-n``; None leaves a field out."""
    made: Fields = {
        "Symbol": "BTC-USD",
        "ClOrdID": f"y-{n}",
        "OrderID": f"order-{n}",
        "TransactTime": "2026-03-09T14:09:11.000000Z",
        **fields,
    }
    return {key: value for key, value in made.items() if value is not None}


def cancel_body(*items: Fields) -> bytes:
    """The body of a command."""
    return json.dumps({"type": "OrderCancelRequest", "data": list(items)}).encode()
