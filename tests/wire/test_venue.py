"""The venue's wire format (protocol 2 to 5): frames both ways, what the words mean, and what can't be read."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from worker.wire import venue
from worker.wire.venue import (
    CancelElement,
    Frame,
    FrameError,
    Record,
    raw_records,
    read_frame,
    read_record,
    read_unread_frame,
)


def as_record(**fields: Any) -> Record:
    return read_record(Raw(json.dumps(fields).encode()))


# -- frames from the venue: the samples of protocol section 3


def test_hello() -> None:
    frame = read_frame(b'{"type":"hello","ts":"2026-03-09T14:07:05.201377Z","session_id":"2Q7DKM41VXR00"}')
    assert (frame.type, frame.ts, frame.session_id) == ("hello", "2026-03-09T14:07:05.201377Z", "2Q7DKM41VXR00")


REPORT = (
    b'{"Timestamp":"2026-03-09T14:06:58.114093Z","Symbol":"BTC-USD","OrderID":"1f0c9a52-8a53-4a0e-9a3f-2b7e6d5c4b3a",'
    b'"ClOrdID":"ord-000417","SubmitTime":"2026-03-09T14:06:58.090000Z",'
    b'"ExecID":"5c6d0c1e-7f0d-4c35-8a10-94b6f0e2a771","Side":"Buy","TransactTime":"2026-03-09T14:06:58.113900Z",'
    b'"ExecType":"New","OrdStatus":"New","OrderQty":"0.50000000","OrdType":"Limit","Price":"61250.00",\n'
    b'"Currency":"BTC","AmountCurrency":"USD","LeavesQty":"0.50000000","CumQty":"0","AvgPx":"0",'
    b'"TimeInForce":"GoodTillCancel"}'
)


def test_a_stream_frame_and_its_records_byte_for_byte() -> None:
    message = (
        b'{"reqid":1,"type":"ExecutionReport","ts":"2026-03-09T14:07:05.318204Z","initial":true,"seqNum":1,'
        b'"action":"Update","data":[' + REPORT + b'],"next":"eyJUIjoiMjAyNi0wMy0wOVQxNDowNjo1OFoifQ=="}'
    )
    frame = read_frame(message)
    assert (frame.reqid, frame.initial, frame.seq_num, frame.action) == (1, True, 1, "Update")
    assert frame.next == "eyJUIjoiMjAyNi0wMy0wOVQxNDowNjo1OFoifQ=="
    assert frame.data is not None
    (record,) = frame.data
    assert (record.cl_ord_id, record.exec_type, record.leaves_qty) == ("ord-000417", "New", "0.50000000")
    assert [bytes(raw) for raw in raw_records(message)] == [REPORT]
    assert msgspec.structs.asdict(read_record(Raw(REPORT))) == msgspec.structs.asdict(record)


@pytest.mark.parametrize("name", ["Side", "ExecType", "OrdStatus"])
@pytest.mark.parametrize("word", ["Evaporated", "", "new", "Canceled ", "K\u00e4uflich", None])
def test_a_word_that_no_page_lists_is_read_like_any_other_and_so_are_its_neighbours(
    name: str, word: str | None
) -> None:
    records = [json.loads(REPORT) | {"ExecID": str(n)} for n in range(3)]
    records[1][name] = word
    frame = read_frame(json.dumps({"reqid": 1, "type": "ExecutionReport", "data": records}).encode())
    one_by_one = [read_record(Raw(json.dumps(record).encode())) for record in records]
    assert [msgspec.structs.asdict(record) for record in frame.data or ()] == list(
        map(msgspec.structs.asdict, one_by_one)
    )
    read = {"Side": one_by_one[1].side, "ExecType": one_by_one[1].exec_type, "OrdStatus": one_by_one[1].ord_status}
    assert read[name] == word


def test_of_a_frame_with_one_bad_record_the_others_can_be_read() -> None:
    message = b'{"type":"ExecutionReport","reqid":1,"seqNum":3,"data":[{"ClOrdID":7},' + REPORT + b"]}"
    with pytest.raises(FrameError):
        read_frame(message)
    frame = read_unread_frame(message)
    assert (frame.reqid, frame.seq_num, frame.data) == (1, 3, raw_records(message))
    assert frame.data is not None
    with pytest.raises(FrameError):
        read_record(frame.data[0])
    assert read_record(frame.data[1]).cl_ord_id == "ord-000417"


def test_an_error_frame_counts_by_seq() -> None:
    frame = read_frame(
        b'{"reqid":41,"type":"error","seq":1,"ts":"2026-03-09T14:09:12.000412Z",'
        b'"error":{"code":1,"msg":"invalid request"}}'
    )
    assert (frame.reqid, frame.seq, frame.error) == (41, 1, venue.FrameFault(1, "invalid request"))


@pytest.mark.parametrize(
    "text",
    [
        b'{"type":"Pong","reqid":77,"data":[{"n":77}]}',
        b'{"type":"error","error":{"code":"E7"}}',
        b'{"type":"error"}',
        b'{"type":"ExecutionReport","data":null}',
        b'{"type":"Vaporised","whatever":{"deep":[1,2,{"er":null}]}}',
        b' {"type":"hello"}\n',
        b'{"type":"ExecutionReport","reqid":' + b"9" * 400 + b"}",
        '{"type":"ExecutionReport","data":[{"Text":"überholt"}]}'.encode(),
    ],
)
def test_unknown_fields_types_and_missing_ones_pass(text: bytes) -> None:
    assert isinstance(read_frame(text), Frame)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"type":7}',
        b'{"type":"hello"}{"type":"hello"}',
        b'{"type":"ExecutionReport","reqid":"1"}',
        b'{"type":"ExecutionReport","data":{}}',
        b'{"type":"ExecutionReport","next":7}',
        b'{"type":"\xff"}',
        b'{"type":"ExecutionReport","data":[{"Text":"\xff"}]}',
        b'{"type":"ExecutionReport","other":"\xff"}',
        b'{"type":"x","deep":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"type":"ExecutionReport","data":[NaN]}',
    ],
)
def test_what_is_no_frame_is_a_frame_error_that_does_not_echo_it(text: bytes) -> None:
    with pytest.raises(FrameError) as caught:
        read_frame(text)
    assert len(str(caught.value)) < 80


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"7",
        b'{"ClOrdID":7}',
        b'{"OrderID":{}}',
        b'{"ExecType":4}',
        b'{"OrdStatus":true}',
        b'{"ClOrdID":"\\ud800"}',
        b'{"ClOrdID":"\xff"}',
        b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)
def test_what_is_no_record_is_a_frame_error(text: bytes) -> None:
    with pytest.raises(FrameError):
        read_record(Raw(text))


WRONG = [7, 1.5, True, [], [1], {}, {"a": 1}]
UNNEEDED = [
    "Text", "Symbol", "Side", "Timestamp", "TimeInForce", "ExecID", "OrigClOrdID", "CustomerUser", "SubmitTime",
    "Currency", "LeavesQty", "CumQty", "AvgPx", "CxlRejReason", "OrdRejReason",
]  # fmt: skip


@pytest.mark.parametrize("name", UNNEEDED)
def test_a_type_nobody_expects_in_a_field_that_decides_nothing_costs_only_that_field(name: str) -> None:
    attribute = next((f.name for f in msgspec.structs.fields(Record) if f.encode_name == name), None)
    for value in WRONG:
        record = as_record(ClOrdID="y", OrderID="o", ExecType="Canceled", OrdStatus="Canceled", **{name: value})
        assert (record.cl_ord_id, record.order_id, record.exec_type, record.ord_status) == (
            "y", "o", "Canceled", "Canceled",
        )  # fmt: skip
        if attribute is not None:
            number = type(value) in (int, float) and name in UNNEEDED[-5:]
            assert getattr(record, attribute) == (value if number else None)


@pytest.mark.parametrize("name", ["seqNum", "seq", "initial", "ts", "action", "session_id", "total_count", "tag"])
@pytest.mark.parametrize("value", ["7", 1.5, [], {}])
def test_a_frame_is_read_whatever_stands_in_the_fields_it_does_not_need(name: str, value: object) -> None:
    fields = {"type": "ExecutionReport", "reqid": 1, "data": [{"ClOrdID": "y"}], name: value}
    frame = read_unread_frame(json.dumps(fields).encode())
    assert frame.reqid == 1
    assert [bytes(raw) for raw in frame.data or []] == [b'{"ClOrdID": "y"}']
    assert (frame.seq_num, frame.seq, frame.initial) == (None, None, None)


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        ({"code": 1, "msg": {"text": "no"}}, venue.FrameFault(1, None)),
        ({"code": 1.5, "msg": "no"}, venue.FrameFault(None, "no")),
        ("no", None),
    ],
)
def test_an_error_frame_is_one_whatever_its_error_looks_like(error: object, fault: object) -> None:
    frame = read_unread_frame(json.dumps({"type": "error", "reqid": 41, "error": error}).encode())
    assert (frame.type, frame.reqid, frame.error) == ("error", 41, fault)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_frame_or_a_frame_error(data: bytes) -> None:
    try:
        read_frame(data)
    except FrameError:
        pass


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FRAME_KEYS = ["type", "reqid", "initial", "data", "next", "seqNum", "seq", "action", "ts", "session_id", "error"]
RECORD_KEYS = [
    "ClOrdID",
    "OrderID",
    "ExecType",
    "OrdStatus",
    "LeavesQty",
    "CumQty",
    "CxlRejReason",
    "Text",
    "Timestamp",
]


@given(st.dictionaries(st.sampled_from(FRAME_KEYS), JSON_VALUES))
def test_any_object_is_a_frame_or_a_frame_error(fields: dict[str, Any]) -> None:
    try:
        read_frame(json.dumps(fields).encode())
    except FrameError:
        pass


@given(st.dictionaries(st.sampled_from(RECORD_KEYS), JSON_VALUES))
def test_any_record_is_read_and_understood_or_a_frame_error(fields: dict[str, Any]) -> None:
    try:
        record = as_record(**fields)
    except FrameError:
        return
    venue.status_is_closed(record)
    venue.is_filled(record)
    venue.reason_code(record.cxl_rej_reason)
    venue.as_text(record.cum_qty)
    venue.stamp(record.timestamp)


# -- what the words mean (protocol 5.2)

OPEN = ["PendingNew", "New", "PartiallyFilled", "PendingCancel", "PendingReplace", "Replaced", "Stopped", "Suspended"]
CLOSED = ["Filled", "Canceled", "Cancelled", "Rejected", "Expired"]
FOR_TODAY = ["DoneForDay", "Calculated"]


@pytest.mark.parametrize("status", OPEN)
def test_words_for_an_open_order(status: str) -> None:
    assert not venue.status_is_closed(as_record(OrdStatus=status, LeavesQty="0", TimeInForce="FillOrKill"))
    assert venue.status_is_known_open(status)


@pytest.mark.parametrize("status", CLOSED)
def test_words_for_a_closed_order(status: str) -> None:
    assert venue.status_is_closed(as_record(OrdStatus=status, LeavesQty="1"))
    assert not venue.status_is_known_open(status)


@pytest.mark.parametrize("status", FOR_TODAY)
@pytest.mark.parametrize(
    ("leaves", "time_in_force", "closed"),
    [
        ("0", "GoodTillCancel", True),
        ("0.0", None, True),
        ("0.5", "FillAndKill", True),
        ("0.5", "FillOrKill", True),
        (None, "ImmediateOrCancel", True),
        ("0.5", "GoodTillCancel", False),
        (None, "GoodTillCancel", False),
        ("0.5", None, False),
    ],
)
def test_an_order_done_for_the_day_is_closed_unless_it_works_again_tomorrow(
    status: str, leaves: str | None, time_in_force: str | None, closed: bool
) -> None:
    assert venue.status_is_closed(Record(ord_status=status, leaves_qty=leaves, time_in_force=time_in_force)) is closed


@pytest.mark.parametrize("status", [None, "", "Vaporised", "filled", "CANCELED"])
def test_a_word_nobody_listed_counts_as_open_but_is_not_known_to_be(status: str | None) -> None:
    assert not venue.status_is_closed(Record(ord_status=status))
    assert not venue.status_is_known_open(status)


@pytest.mark.parametrize("status", ["PendingCancel", "PendingReplace"])
def test_words_for_a_running_request(status: str) -> None:
    assert venue.status_is_pending(status)


@pytest.mark.parametrize("status", [None, "PendingNew", "New", "Canceled"])
def test_other_words_are_no_running_request(status: str | None) -> None:
    assert not venue.status_is_pending(status)


@pytest.mark.parametrize(
    ("exec_type", "status", "leaves", "filled"),
    [
        ("Trade", "Filled", "0", True),
        ("Trade", "PendingCancel", "0", True),
        ("PendingCancel", "PendingCancel", "0", False),
        ("CancelRejected", "Filled", None, True),
        ("Trade", "PartiallyFilled", "0.1", False),
        ("Trade", "PartiallyFilled", None, False),
    ],
)
def test_full_is_a_fill_with_nothing_left_or_the_word(
    exec_type: str, status: str, leaves: str | None, filled: bool
) -> None:
    assert venue.is_filled(Record(exec_type=exec_type, ord_status=status, leaves_qty=leaves)) is filled


@pytest.mark.parametrize("quantity", ["0", "0.0", "0.00000000", "00", "-0", "+0.0", " 0 ", "0.", ".0", 0, 0.0, -0.0])
def test_nothing_left(quantity: str | float) -> None:
    assert venue.is_zero(quantity)


@pytest.mark.parametrize(
    "quantity",
    [
        None,
        "",
        " ",
        ".",
        "0.1",
        "0.75000000",
        "-0.5",
        "10",
        "1e-9",
        "0e0",
        "0x0",
        "zero",
        "0..0",
        "0.0.0",
        "٠",
        1,
        1e-9,
    ],
)
def test_something_left_or_nothing_said(quantity: str | float | None) -> None:
    assert not venue.is_zero(quantity)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (0, 0), ("0", 0), (" 1 ", 1), (3.0, 3), ("99", 99), ("TooLateToCancel", 0), ("UnknownOrder", 1),
        ("UNKNOWN_ORDER", 1), ("BrokerOption", 2), ("BrokerCredit", 2), ("OrderAlreadyInPendingStatus", 3),
        ("order already in pending status", 3), ("DuplicateClOrdID", 6), ("OrigOrdModTime", 5), ("Other", 99),
        (None, None), ("", None), ("Nonsense", None), (3.5, None), (1e300, None), (float("nan"), None),
        (float("inf"), None), ("-1", None), ("٣", None), ("123456", None),
    ],
)  # fmt: skip
def test_a_reject_reason_as_its_fix_code(reason: str | float | None, code: int | None) -> None:
    assert venue.reason_code(reason) == code


@pytest.mark.parametrize(
    ("reason", "code"),
    [(5, 5), ("6", 6), ("UnknownOrder", 5), ("Duplicate Order", 6), ("UnknownSymbol", None), (1, 1), (None, None)],
)
def test_an_orders_reject_reason_as_its_fix_code(reason: str | int | None, code: int | None) -> None:
    assert venue.order_reason_code(reason) == code


@pytest.mark.parametrize(
    ("order_id", "nobody"), [(None, True), ("", True), ("NONE", True), ("none", False), ("o", False)]
)
def test_an_order_id_that_names_no_order(order_id: str | None, nobody: bool) -> None:
    assert venue.names_no_order(order_id) is nobody


def test_times_sort_as_text_whatever_their_precision() -> None:
    times = [
        None,
        "2026-03-09T14:09:12Z",
        "2026-03-09T14:09:12.1Z",
        "2026-03-09T14:09:12.100001Z",
        "2026-03-09T14:09:13Z",
    ]
    assert sorted(times, key=venue.stamp) == times


@pytest.mark.parametrize(
    ("quantity", "text"), [(None, None), ("0.10", "0.10"), (0, "0"), (0.1, "0.1"), (12, "12"), ("", "")]
)
def test_a_quantity_stays_as_the_venue_wrote_it(quantity: str | float | None, text: str | None) -> None:
    assert venue.as_text(quantity) == text


# -- frames to the venue: the samples of protocol section 3


def test_a_cancel_request_holds_only_what_was_given() -> None:
    first = CancelElement("BTC-USD", "y-1", "2026-03-09T14:09:12.000000Z", OrderID="1f0c9a52")
    second = CancelElement("ETH-USD", "y-2", "2026-03-09T14:09:12.000000Z", OrigClOrdID="ord-000418")
    assert venue.cancel_request(41, [first, second]) == (
        b'{"reqid":41,"type":"OrderCancelRequest","data":['
        b'{"Symbol":"BTC-USD","ClOrdID":"y-1","TransactTime":"2026-03-09T14:09:12.000000Z","OrderID":"1f0c9a52"},'
        b'{"Symbol":"ETH-USD","ClOrdID":"y-2","TransactTime":"2026-03-09T14:09:12.000000Z","OrigClOrdID":"ord-000418"}]}'
    )


def test_subscribe() -> None:
    sent = venue.subscribe(1, "ExecutionReport", "2026-03-09T14:05:00.000000Z")
    assert sent == (
        b'{"reqid":1,"type":"subscribe",'
        b'"streams":[{"name":"ExecutionReport","StartDate":"2026-03-09T14:05:00.000000Z"}]}'
    )


def test_subscribe_with_filters() -> None:
    sent = json.loads(
        venue.subscribe(
            2,
            "Order",
            "2026-03-01T00:00:00.000000Z",
            order_id="o-1",
            symbol="BTC-USD",
            statuses=["New", "PendingCancel"],
            extra={"User": "desk", "StartDate": "never"},
        )
    )
    assert sent["streams"] == [
        {
            "User": "desk",
            "name": "Order",
            "StartDate": "2026-03-01T00:00:00.000000Z",
            "OrderID": "o-1",
            "Symbol": "BTC-USD",
            "Statuses": ["New", "PendingCancel"],
        }
    ]


@pytest.mark.parametrize("array", ["streams", "data"])
def test_page_under_either_name_of_its_array(array: str) -> None:
    sent = json.loads(venue.page(1, "ExecutionReport", "eyJUIjoi", array))
    assert sent == {"reqid": 1, "type": "page", array: [{"name": "ExecutionReport", "after": "eyJUIjoi"}]}


def test_end_of_a_stream() -> None:
    assert venue.end_stream(2) == b'{"reqid":2,"type":"cancel"}'


def test_ping_has_data() -> None:
    assert venue.ping(77, "2026-03-09T14:08:00.000000Z") == (
        b'{"reqid":77,"type":"Ping","ts":"2026-03-09T14:08:00.000000Z","data":[{"n":77}]}'
    )


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=64))
def test_any_id_survives_the_way_to_the_venue(order_id: str) -> None:
    sent = msgspec.json.decode(venue.cancel_request(1, [CancelElement("S", "y", "t", OrderID=order_id)]))
    assert sent["data"][0]["OrderID"] == order_id
