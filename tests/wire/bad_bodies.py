"""Bodies that are not a good command, each with the verdict that contract section 2 gives on it.

For every test that feeds the worker bad input, at whatever level. Each is to be published with a `message_id` of its
own, except where `message_id` is the fault; the limit on the size is the default, 1 MiB.
"""

from __future__ import annotations

import json
from typing import Final, Literal, NamedTuple

import msgspec

MAX_BODY: Final = 1024 * 1024
JSON: Final = "application/json"
MSGPACK: Final = "application/msgpack"


class BadBody(NamedTuple):
    """`spoils` `command`: one `invalid` event for it; `item`: only the cancel at index 1 of 3 is `invalid`."""

    body: bytes
    content_type: str | None
    field: str
    spoils: Literal["command", "item"]


def good_item(number: int) -> dict[str, object]:
    """A cancel without a fault; another number, another ClOrdID and OrderID."""
    return {
        "Symbol": "BTC-USD",
        "ClOrdID": f"7b1d5c0e-3f0a-4a53-9d3e-{number:012d}",
        "OrderID": f"1f0c9a52-8a53-4a0e-9a3f-{number:012d}",
        "TransactTime": "2026-03-09T14:09:12.000000Z",
    }


def cancel_request(*items: object, **envelope: object) -> dict[str, object]:
    """An OrderCancelRequest of these items."""
    return {"type": "OrderCancelRequest", "data": list(items), **envelope}


def mass_request(**item: object) -> dict[str, object]:
    """An OrderMassCancelRequest of one item."""
    return {"type": "OrderMassCancelRequest", "data": [item]}


def as_json(value: object) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def as_msgpack(value: object) -> bytes:
    """MessagePack."""
    return msgspec.msgpack.encode(value)


def _command(field: str, body: bytes, content_type: str | None = JSON) -> BadBody:
    return BadBody(body, content_type, field, "command")


def _without(name: str) -> dict[str, object]:
    return {key: value for key, value in good_item(1).items() if key != name}


def _text(field: str, body: str) -> BadBody:
    return _command(field, body.encode())


_ONE: Final = as_json(cancel_request(good_item(1)))
_ITEM: Final = as_json(good_item(1)).decode()[1:-1]

WHOLE: Final[dict[str, BadBody]] = {
    "empty": _command("body", b""),
    "no JSON": _command("body", b"cancel everything"),
    "cut off": _command("body", _ONE[:-3]),
    "two values": _command("body", _ONE + b"{}"),
    "byte order mark": _command("body", b"\xef\xbb\xbf" + _ONE),
    "UTF-16": _command("body", _ONE.decode().encode("utf-16")),
    "not UTF-8": _command("body", _ONE.replace(b"BTC", b"B\xffC")),
    "not UTF-8 in an unknown field": _command("body", _ONE[:-1] + b',"note":"\xff"}'),
    "NaN": _command("body", _ONE[:-1] + b',"note":NaN}'),
    "trailing comma": _command("body", _ONE[:-1] + b",}"),
    "control character": _command("body", _ONE.replace(b"BTC", b"B\x00C")),
    "100,000 brackets": _command("body", b"[" * 100_000),
    "100,000 brackets in an unknown field": _command("body", _ONE[:-1] + b',"note":' + b"[" * 100_000),
    "an array": _command("body", as_json([cancel_request(good_item(1))])),
    "a number": _command("body", b"1e400"),
    "a number of 5,000 digits": _command("body", b"9" * 5000),
    "null": _command("body", b"null"),
    "too large": _command("body", as_json(cancel_request(good_item(1), note="x" * MAX_BODY))),
    "no type": _command("type", as_json({"data": [good_item(1)]})),
    "type null": _command("type", as_json(cancel_request(good_item(1), type=None))),
    "type of a new order": _command("type", as_json(cancel_request(good_item(1), type="NewOrderSingle"))),
    "type in small letters": _command("type", as_json(cancel_request(good_item(1), type="ordercancelrequest"))),
    "type a number": _command("type", as_json(cancel_request(good_item(1), type=1))),
    "no data": _command("data", as_json({"type": "OrderCancelRequest"})),
    "data null": _command("data", as_json(cancel_request(data=None))),
    "data empty": _command("data", as_json(cancel_request())),
    "data an object": _command("data", as_json(cancel_request(data=good_item(1)))),
    "data a text": _command("data", as_json(cancel_request(data="all"))),
    "1001 cancels": _command("data", as_json(cancel_request(*map(good_item, range(1001))))),
    "ClOrdID twice": _command("ClOrdID", as_json(cancel_request(good_item(1), good_item(2), good_item(1)))),
    "ClOrdID twice, one on a bad item": _command(
        "ClOrdID", as_json(cancel_request(good_item(1), {**good_item(1), "Symbol": ""}))
    ),
    "type twice": _text("type", f'{{"type":"OrderCancelRequest","type":"OrderCancelRequest","data":[{{{_ITEM}}}]}}'),
    "data twice": _text("data", f'{{"type":"OrderCancelRequest","data":[],"data":[{{{_ITEM}}}]}}'),
    "reqid twice": _text("reqid", f'{{"reqid":1,"reqid":2,"type":"OrderCancelRequest","data":[{{{_ITEM}}}]}}'),
    "OrderID twice": _text("OrderID", f'{{"type":"OrderCancelRequest","data":[{{{_ITEM},"OrderID":"other"}}]}}'),
    "OrderID twice, null": _text("OrderID", f'{{"type":"OrderCancelRequest","data":[{{"OrderID":null,{_ITEM}}}]}}'),
    "Symbol twice, escaped": _text(
        "Symbol", f'{{"type":"OrderCancelRequest","data":[{{{_ITEM},"\\u0053ymbol":"ETH-USD"}}]}}'
    ),
    "Symbol twice in the last of three": _text(
        "Symbol",
        as_json(cancel_request(good_item(2), good_item(3))).decode()[:-2] + f',{{"Symbol":"ETH-USD",{_ITEM}}}]}}',
    ),
    "key twice beside a bad item": _text(
        "OrderID", f'{{"type":"OrderCancelRequest","data":[{{{_ITEM},"OrderID":"other"}},{{"Symbol":""}}]}}'
    ),
    "content type": _command("content_type", _ONE, "text/plain"),
    "MessagePack said to be JSON": _command("body", as_msgpack(cancel_request(good_item(1))), JSON),
    "JSON said to be MessagePack": _command("body", _ONE, MSGPACK),
    "MessagePack, empty": _command("body", b"", MSGPACK),
    "MessagePack, cut off": _command("body", as_msgpack(cancel_request(good_item(1)))[:-3], MSGPACK),
    "MessagePack, two values": _command("body", as_msgpack(cancel_request(good_item(1))) + b"\xc0", MSGPACK),
    "MessagePack, 4,294,967,295 pairs": _command("body", b"\xdf\xff\xff\xff\xff", MSGPACK),
    "MessagePack, 4,294,967,295 cancels": _command(
        "body", b"\x82\xa4type\xb2OrderCancelRequest\xa4data\xdd\xff\xff\xff\xff", MSGPACK
    ),
    "MessagePack, 100,000 arrays": _command("body", b"\x81\xa4note" + b"\x91" * 100_000 + b"\xc0", MSGPACK),
    "MessagePack, an array": _command("body", as_msgpack([1]), MSGPACK),
    "MessagePack, 1001 cancels": _command("data", as_msgpack(cancel_request(*map(good_item, range(1001)))), MSGPACK),
    "MessagePack, data a text": _command("data", as_msgpack(cancel_request(data="all")), MSGPACK),
    "MessagePack, type twice": _command(
        "type", b"\x83\xa4type\xb2OrderCancelRequest" + as_msgpack(cancel_request(good_item(1)))[1:], MSGPACK
    ),
    "MessagePack, OrderID twice under another header": _command(
        "OrderID",
        b"\x82\xa4type\xb2OrderCancelRequest\xa4data\x91\x85\xd9\x07OrderID\xa5other" + as_msgpack(good_item(1))[1:],
        MSGPACK,
    ),
    "mass cancel without its type": _command("MassCancelRequestType", as_json(mass_request(Symbol="BTC-USD"))),
    "mass cancel of an unknown type": _command(
        "MassCancelRequestType", as_json(mass_request(MassCancelRequestType="Everything"))
    ),
    "mass cancel of a type that is a number": _command(
        "MassCancelRequestType", as_json(mass_request(MassCancelRequestType=7))
    ),
    "mass cancel of a Security without Symbol": _command(
        "Symbol", as_json(mass_request(MassCancelRequestType="Security"))
    ),
    "mass cancel of AllOrders with Symbol": _command(
        "Symbol", as_json(mass_request(MassCancelRequestType="AllOrders", Symbol="BTC-USD"))
    ),
    "mass cancel with a bad Symbol": _command(
        "Symbol", as_json(mass_request(MassCancelRequestType="Security", Symbol="BTC USD"))
    ),
    "mass cancel with a bad Side": _command(
        "Side", as_json(mass_request(MassCancelRequestType="AllOrders", Side="buy"))
    ),
    "mass cancel with an empty CustomerUser": _command(
        "CustomerUser", as_json(mass_request(MassCancelRequestType="AllOrders", CustomerUser=""))
    ),
    "mass cancel with a bad ClOrdID": _command(
        "ClOrdID", as_json(mass_request(MassCancelRequestType="AllOrders", ClOrdID="x" * 37))
    ),
    "two mass cancels": _command(
        "data", as_json({"type": "OrderMassCancelRequest", "data": [{"MassCancelRequestType": "AllOrders"}] * 2})
    ),
    "mass cancel that is no object": _command(
        "data", as_json({"type": "OrderMassCancelRequest", "data": ["AllOrders"]})
    ),
    "mass cancel with Side twice": _text(
        "Side",
        '{"type":"OrderMassCancelRequest","data":[{"MassCancelRequestType":"AllOrders","Side":"Buy","Side":"Sell"}]}',
    ),
}

_BAD_ITEMS: Final[dict[str, tuple[str, object]]] = {
    "no Symbol": ("Symbol", _without("Symbol")),
    "Symbol null": ("Symbol", {**good_item(1), "Symbol": None}),
    "Symbol empty": ("Symbol", {**good_item(1), "Symbol": ""}),
    "Symbol of 65": ("Symbol", {**good_item(1), "Symbol": "S" * 65}),
    "Symbol with a blank": ("Symbol", {**good_item(1), "Symbol": "BTC USD"}),
    "Symbol with a final newline": ("Symbol", {**good_item(1), "Symbol": "BTC-USD\n"}),
    "Symbol with DEL": ("Symbol", {**good_item(1), "Symbol": "BTC\x7f"}),
    "Symbol in Cyrillic": ("Symbol", {**good_item(1), "Symbol": "ВТС-USD"}),
    "Symbol a number": ("Symbol", {**good_item(1), "Symbol": 1}),
    "ClOrdID empty": ("ClOrdID", {**good_item(1), "ClOrdID": ""}),
    "ClOrdID of 37": ("ClOrdID", {**good_item(1), "ClOrdID": "c" * 37}),
    "ClOrdID an array": ("ClOrdID", {**good_item(1), "ClOrdID": ["a"]}),
    "ClOrdID an object": ("ClOrdID", {**good_item(1), "ClOrdID": {"a": 1}}),
    "neither OrderID nor OrigClOrdID": ("OrderID", _without("OrderID")),
    "OrderID null, no OrigClOrdID": ("OrderID", {**good_item(1), "OrderID": None}),
    "OrderID empty beside an OrigClOrdID": ("OrderID", {**good_item(1), "OrderID": "", "OrigClOrdID": "x"}),
    "OrderID of 65": ("OrderID", {**good_item(1), "OrderID": "o" * 65}),
    "OrderID true": ("OrderID", {**good_item(1), "OrderID": True}),
    "OrigClOrdID with a blank at its end": ("OrigClOrdID", {**good_item(1), "OrigClOrdID": "ord-1 "}),
    "TransactTime without zone": ("TransactTime", {**good_item(1), "TransactTime": "2026-03-09T14:09:12.000000"}),
    "TransactTime empty": ("TransactTime", {**good_item(1), "TransactTime": ""}),
    "TransactTime a number": ("TransactTime", {**good_item(1), "TransactTime": 1773065352}),
    "TransactTime on no day": ("TransactTime", {**good_item(1), "TransactTime": "2026-02-30T00:00:00Z"}),
    "Timestamp no time": ("Timestamp", {**good_item(1), "Timestamp": "soon"}),
    "Timestamp a number": ("Timestamp", {**good_item(1), "Timestamp": 1.5}),
    "item null": ("data", None),
    "item a text": ("data", "16a55364"),
    "item an array": ("data", [good_item(1)]),
    "item a number": ("data", 1),
}

ITEMS: Final[dict[str, BadBody]] = {
    f"{form}{name}": BadBody(encode(cancel_request(good_item(0), item, good_item(2))), content_type, field, "item")
    for form, encode, content_type in (("", as_json, JSON), ("MessagePack, ", as_msgpack, MSGPACK))
    for name, (field, item) in _BAD_ITEMS.items()
} | {
    "Symbol half a surrogate pair": BadBody(
        as_json(cancel_request(good_item(0), {**good_item(1), "Symbol": "\ud800"}, good_item(2))),
        JSON,
        "Symbol",
        "item",
    ),
    "OrderID a number of 5,000 digits": BadBody(
        as_json(cancel_request(good_item(0), {**good_item(1), "OrderID": 0}, good_item(2))).replace(
            b'"OrderID":0', b'"OrderID":' + b"9" * 5000
        ),
        JSON,
        "OrderID",
        "item",
    ),
    "MessagePack, Symbol not UTF-8": BadBody(
        as_msgpack(cancel_request(good_item(0), {**good_item(1), "Symbol": "\x7f"}, good_item(2))).replace(
            b"\xa1\x7f", b"\xa1\xff"
        ),
        MSGPACK,
        "Symbol",
        "item",
    ),
    "MessagePack, OrderID bytes": BadBody(
        as_msgpack(cancel_request(good_item(0), {**good_item(1), "OrderID": b"abc"}, good_item(2))),
        MSGPACK,
        "OrderID",
        "item",
    ),
    "MessagePack, TransactTime a timestamp": BadBody(
        as_msgpack(cancel_request(good_item(0), {**good_item(1), "TransactTime": 0}, good_item(2))).replace(
            b"TransactTime\x00", b"TransactTime\xd6\xff\x00\x00\x00\x00"
        ),
        MSGPACK,
        "TransactTime",
        "item",
    ),
}

BAD_BODIES: Final[dict[str, BadBody]] = WHOLE | ITEMS
