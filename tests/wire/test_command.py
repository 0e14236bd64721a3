"""Contract sections 2 and 5, rule by rule: which body becomes which command."""

import json
import uuid
from hashlib import sha256
from typing import Any

import msgspec
import pytest

from tests.wire.bad_bodies import (
    BAD_BODIES,
    ITEMS,
    JSON,
    MAX_BODY,
    MSGPACK,
    WHOLE,
    as_json,
    as_msgpack,
    cancel_request,
    good_item,
    mass_request,
)
from worker.wire.command import (
    CancelCommand,
    CancelItem,
    Command,
    InvalidCommand,
    InvalidItem,
    MassCancelCommand,
    Properties,
    body_sha256_hex,
    derive_cl_ord_id,
    derive_sweep_cl_ord_id,
    read_command,
    read_exactly,
    read_plainly,
)
from worker.wire.event import NAMESPACE
from worker.wire.properties import read_context

FORMS = pytest.mark.parametrize("content_type", [JSON, MSGPACK])


def read(body: bytes, content_type: str | None = JSON, message_id: str | None = "cmd-1", **more: Any) -> Command:
    return read_command(body, Properties(content_type=content_type, message_id=message_id, **more), MAX_BODY)


def encoded(value: object, content_type: str) -> bytes:
    return as_json(value) if content_type == JSON else as_msgpack(value)


def only_item(verdict: Command) -> CancelItem:
    assert isinstance(verdict, CancelCommand), verdict
    (item,) = verdict.items
    assert isinstance(item, CancelItem), item
    return item


def test_the_venues_own_example_is_a_command() -> None:
    body = b"""{
      "reqid": 13,
      "type": "OrderCancelRequest",
      "data": [
        {
          "Symbol": "BTC-USD",
          "ClOrdID": "c0be17e0-15da-11ec-b5e7-7f4881f01b7d",
          "OrderID": "16a55364-4248-4575-aa0b-dddd3f694ca3",
          "TransactTime": "2021-09-15T04:09:42.238000Z"
        }
      ]
    }"""
    assert only_item(read(body)) == CancelItem(
        index=0,
        symbol="BTC-USD",
        cl_ord_id="c0be17e0-15da-11ec-b5e7-7f4881f01b7d",
        order_id="16a55364-4248-4575-aa0b-dddd3f694ca3",
        orig_cl_ord_id=None,
        transact_time="2021-09-15T04:09:42.238000Z",
        timestamp=None,
    )


@pytest.mark.parametrize("name", WHOLE)
def test_what_spoils_the_whole_is_one_invalid_command(name: str) -> None:
    bad = WHOLE[name]
    verdict = read(bad.body, bad.content_type)
    assert isinstance(verdict, InvalidCommand)
    assert verdict.rejection.field == bad.field
    assert verdict.body_sha256_hex == sha256(bad.body).hexdigest() == body_sha256_hex(bad.body)
    assert verdict.context.command_id == "cmd-1"


@pytest.mark.parametrize("name", ITEMS)
def test_what_spoils_one_item_leaves_its_neighbours(name: str) -> None:
    bad = ITEMS[name]
    verdict = read(bad.body, bad.content_type)
    assert isinstance(verdict, CancelCommand)
    first, spoilt, last = verdict.items
    assert isinstance(spoilt, InvalidItem)
    assert (spoilt.index, spoilt.rejection.field) == (1, bad.field)
    for number, neighbour in ((0, first), (2, last)):
        good = good_item(number)
        assert isinstance(neighbour, CancelItem)
        assert (neighbour.index, neighbour.cl_ord_id, neighbour.order_id) == (number, good["ClOrdID"], good["OrderID"])


@pytest.mark.parametrize("name", BAD_BODIES)
def test_every_rejection_is_short_printable_and_names_its_rule(name: str) -> None:
    bad = BAD_BODIES[name]
    verdict = read(bad.body, bad.content_type)
    found = [verdict] if isinstance(verdict, InvalidCommand) else getattr(verdict, "items", [])
    rejections = [each.rejection for each in found if not isinstance(each, CancelItem)]
    assert len(rejections) == 1
    (rejection,) = rejections
    assert rejection.rule
    assert len(rejection.message) <= 200
    assert rejection.message.isascii()
    assert rejection.message.isprintable()
    json.dumps(msgspec.to_builtins(rejection)).encode()


def test_invalid_item_keeps_its_valid_ids_only() -> None:
    item = {**good_item(1), "OrigClOrdID": "ord-1", "OrderID": "with a blank", "TransactTime": "soon"}
    verdict = read(as_json(cancel_request(item)))
    assert isinstance(verdict, CancelCommand)
    (spoilt,) = verdict.items
    assert isinstance(spoilt, InvalidItem)
    assert (spoilt.symbol, spoilt.cl_ord_id, spoilt.order_id) == ("BTC-USD", item["ClOrdID"], None)
    assert spoilt.orig_cl_ord_id == "ord-1"
    assert spoilt.rejection.field == "OrderID"


# --- what is tolerated


@FORMS
def test_boundaries_of_the_texts(content_type: str) -> None:
    item = {"Symbol": "!" * 64, "ClOrdID": "~" * 36, "OrderID": "o" * 64, "OrigClOrdID": "x" * 64}
    got = only_item(read(encoded(cancel_request(item), content_type), content_type))
    assert (got.symbol, got.cl_ord_id, got.order_id, got.orig_cl_ord_id) == tuple(item.values())


@FORMS
@pytest.mark.parametrize("reqid", [0, -1, 1.5, "x", None, True, [1, {"a": "b"}], {"reqid": 'a"b'}, {"type": "x"}])
def test_reqid_is_ignored_whatever_its_type(content_type: str, reqid: object) -> None:
    got = only_item(read(encoded(cancel_request(good_item(1), reqid=reqid), content_type), content_type))
    assert got.order_id == good_item(1)["OrderID"]


@FORMS
def test_unknown_fields_never_stop_a_cancel(content_type: str) -> None:
    extra = {"Side": 1, "Note": {"Symbol": "ETH-USD", "data": [[[]]]}, "x": 'type "data" Symbol', "": None}
    body = encoded(cancel_request({**extra, **good_item(1)}, note=extra, Symbol=7), content_type)
    assert only_item(read(body, content_type)).symbol == "BTC-USD"


def test_unknown_key_may_stand_twice_anywhere() -> None:
    text = as_json(cancel_request(good_item(1))).decode()
    text = text[:-3] + ',"note":1,"note":2,"Side":"Buy","Side":"Sell"}],"x":{"type":1,"type":2},"Symbol":1,"Symbol":2}'
    assert only_item(read(text.encode())).symbol == "BTC-USD"


def test_a_key_that_is_no_text_is_an_unknown_field() -> None:
    body = b"\x83\x01\x02" + as_msgpack(cancel_request(good_item(1)))[1:]
    assert only_item(read(body, MSGPACK)).symbol == "BTC-USD"
    body = as_msgpack(cancel_request(good_item(1))).replace(
        b"\x91\x84", b"\x91\x87\x91\x01\x02\xa1\xff\x02\xc4\x01a\x02"
    )
    assert only_item(read(body, MSGPACK)).symbol == "BTC-USD"


@FORMS
def test_null_means_absent(content_type: str) -> None:
    item = {**good_item(1), "ClOrdID": None, "OrigClOrdID": None, "TransactTime": None, "Timestamp": None}
    got = only_item(read(encoded(cancel_request(item, reqid=None), content_type), content_type))
    assert got == CancelItem(0, "BTC-USD", derive_cl_ord_id("cmd-1", 0), str(item["OrderID"]), None, None, None)


@FORMS
def test_orig_cl_ord_id_alone_is_a_target_and_both_are_kept(content_type: str) -> None:
    alone = {"Symbol": "BTC-USD", "OrigClOrdID": "ord-1"}
    both = {**alone, "OrderID": "o-1"}
    verdict = read(encoded(cancel_request(alone, both), content_type), content_type)
    assert isinstance(verdict, CancelCommand)
    assert [(each.order_id, each.orig_cl_ord_id) for each in verdict.items] == [(None, "ord-1"), ("o-1", "ord-1")]


def test_times_are_normalised_and_timestamp_is_forwarded_as_given() -> None:
    item = {**good_item(1), "TransactTime": "2021-09-15t06:09:42.2384567+02:00", "Timestamp": "20210915T040942+00"}
    for extra in ({}, {"esc\u0001": 1}):  # by either reader
        got = only_item(read(as_json(cancel_request({**item, **extra}))))
        assert got.transact_time == "2021-09-15T04:09:42.238456Z"
        assert got.timestamp == "20210915T040942+00"


@pytest.mark.parametrize(
    ("content_type", "as_bytes"),
    [
        (None, as_json),
        ("", as_json),
        ("application/json", as_json),
        ("application/json; charset=utf-8", as_json),
        ("Application/JSON;charset=UTF-8", as_json),
        ("application/msgpack", as_msgpack),
        ("application/msgpack; x=y", as_msgpack),
        ("application/x-msgpack", as_msgpack),
        ("application/vnd.msgpack", as_msgpack),
    ],
)
def test_content_types(content_type: str | None, as_bytes: Any) -> None:
    assert only_item(read(as_bytes(cancel_request(good_item(1))), content_type)).symbol == "BTC-USD"


@pytest.mark.parametrize("content_type", ["text/json", "application/jsonx", "application/octet-stream", ";", "json"])
def test_any_other_content_type_is_invalid(content_type: str) -> None:
    verdict = read(as_json(cancel_request(good_item(1))), content_type)
    assert isinstance(verdict, InvalidCommand)
    assert verdict.rejection.field == "content_type"


@FORMS
def test_a_thousand_cancels_are_one_command_and_one_bad_among_them_is_alone(content_type: str) -> None:
    data = [good_item(number) for number in range(1000)]
    verdict = read(encoded(cancel_request(*data), content_type), content_type)
    assert isinstance(verdict, CancelCommand)
    assert [each.index for each in verdict.items] == list(range(1000))
    assert all(isinstance(each, CancelItem) for each in verdict.items)
    data[500]["Symbol"] = ""
    verdict = read(encoded(cancel_request(*data), content_type), content_type)
    assert isinstance(verdict, CancelCommand)
    assert [each.index for each in verdict.items if isinstance(each, InvalidItem)] == [500]


def test_the_size_limit_is_inclusive() -> None:
    body = as_json(cancel_request(good_item(1)))
    properties = Properties(message_id="cmd-1")
    assert isinstance(read_command(body, properties, len(body)), CancelCommand)
    verdict = read_command(body, properties, len(body) - 1)
    assert isinstance(verdict, InvalidCommand)
    assert verdict.rejection.message == f"body: at most {len(body) - 1} bytes; received {len(body)}"


# --- ids


def test_derived_cl_ord_id_is_documented_stable_and_fits() -> None:
    derived = derive_cl_ord_id("cmd-1", 7)
    assert derived == str(uuid.uuid5(NAMESPACE, "7/1/cmd-1")) == derive_cl_ord_id("cmd-1", 7, 1)
    assert len(derived) == 36
    assert len({derive_cl_ord_id("a/0", 1), derive_cl_ord_id("a", 0, 1), derive_cl_ord_id("a", 0, 2)}) == 3
    assert derive_sweep_cl_ord_id("cmd-1", "o-1", 2) == str(uuid.uuid5(NAMESPACE, "sweep/2/3/o-1/cmd-1"))


@FORMS
def test_absent_cl_ord_ids_are_derived_alike_at_every_delivery(content_type: str) -> None:
    item = {"Symbol": "BTC-USD", "OrderID": "o-1"}
    body = encoded(cancel_request(item, item, item), content_type)
    verdict, again = (read(body, content_type), read(body, content_type))
    assert verdict == again
    assert isinstance(verdict, CancelCommand)
    assert [each.cl_ord_id for each in verdict.items] == [derive_cl_ord_id("cmd-1", index) for index in range(3)]


@FORMS
def test_cl_ord_id_that_equals_a_derived_one_stands_twice(content_type: str) -> None:
    data = [{**good_item(0), "ClOrdID": None}, {**good_item(1), "ClOrdID": derive_cl_ord_id("cmd-1", 0)}]
    verdict = read(encoded(cancel_request(*data), content_type), content_type)
    assert isinstance(verdict, InvalidCommand)
    assert verdict.rejection.field == "ClOrdID"


def test_two_cl_ord_ids_that_are_both_invalid_spoil_only_themselves() -> None:
    verdict = read(
        as_json(cancel_request({**good_item(0), "ClOrdID": ""}, {**good_item(1), "ClOrdID": ""}, good_item(2)))
    )
    assert isinstance(verdict, CancelCommand)
    assert [type(each) for each in verdict.items] == [InvalidItem, InvalidItem, CancelItem]


@FORMS
def test_without_message_id_the_first_cl_ord_id_is_the_command_id(content_type: str) -> None:
    bodies = [
        cancel_request(good_item(1), good_item(2)),
        cancel_request({**good_item(1), "Symbol": ""}, good_item(2)),
        mass_request(MassCancelRequestType="AllOrders", ClOrdID=good_item(1)["ClOrdID"]),
        cancel_request(good_item(1), good_item(1)),  # invalid, but its id is known
    ]
    for message_id in (None, ""):
        for body in bodies:
            verdict = read(encoded(body, content_type), content_type, message_id=message_id)
            assert verdict.context.command_id == good_item(1)["ClOrdID"]
            assert verdict.context.correlation_id == good_item(1)["ClOrdID"]
            echoed = read(encoded(body, content_type), content_type, message_id=message_id, correlation_id="c")
            assert echoed.context.correlation_id == "c"


@FORMS
@pytest.mark.parametrize(
    "body",
    [
        cancel_request({**good_item(1), "ClOrdID": None}, good_item(2)),
        cancel_request({**good_item(1), "ClOrdID": "with a blank"}, good_item(2)),
        cancel_request({**good_item(1), "ClOrdID": 7}, good_item(2)),
        cancel_request(None, good_item(2)),
        mass_request(MassCancelRequestType="AllOrders"),
    ],
)
def test_without_any_command_id_a_redelivery_could_not_be_recognised(content_type: str, body: object) -> None:
    verdict = read(encoded(body, content_type), content_type, message_id=None)
    assert isinstance(verdict, InvalidCommand)
    assert verdict.rejection.field == "message_id"
    assert verdict.context.command_id is None
    assert verdict.context.correlation_id is None


def test_a_repeated_cl_ord_id_or_data_names_no_command() -> None:
    item = as_json(good_item(1)).decode()
    for text in (
        f'{{"type":"OrderCancelRequest","data":[{item[:-1]},"ClOrdID":"other"}}]}}',
        f'{{"type":"OrderCancelRequest","data":[],"data":[{item}]}}',
        f'{{"type":"OrderCancelRequest","data":{item}}}',
        "[]",
    ):
        verdict = read(text.encode(), message_id=None)
        assert isinstance(verdict, InvalidCommand)
        assert verdict.context.command_id is None


# --- mass cancels


@FORMS
@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ({"MassCancelRequestType": "AllOrders"}, (None, "AllOrders", None, None, None)),
        (
            {"MassCancelRequestType": "AllOrders", "Symbol": None, "Side": "Sell", "ClOrdID": "k-1"},
            ("k-1", "AllOrders", None, "Sell", None),
        ),
        (
            {
                "MassCancelRequestType": "Security",
                "Symbol": "BTC-USD",
                "Side": "Buy",
                "CustomerUser": "Jörg at the desk",
                "TransactTime": 5,
                "Note": "x",
            },
            (None, "Security", "BTC-USD", "Buy", "Jörg at the desk"),
        ),
    ],
)
def test_mass_cancel(content_type: str, item: dict[str, object], expected: tuple[object, ...]) -> None:
    verdict = read(encoded(mass_request(**item), content_type), content_type)
    assert isinstance(verdict, MassCancelCommand)
    got = (verdict.cl_ord_id, verdict.request_type, verdict.symbol, verdict.side, verdict.customer_user)
    assert got == expected
    assert verdict.context.command_id == "cmd-1"


@pytest.mark.parametrize("user", ["a\tb", "\x85", "u" * 256, "\ud800", 5])
def test_customer_user_without_control_characters(user: object) -> None:
    verdict = read(as_json(mass_request(MassCancelRequestType="AllOrders", CustomerUser=user)))
    assert isinstance(verdict, InvalidCommand)
    assert verdict.rejection.field == "CustomerUser"


# --- the two readers


@FORMS
@pytest.mark.parametrize(
    "body",
    [
        cancel_request(good_item(1)),
        cancel_request(good_item(1), reqid=5),
        cancel_request(good_item(1), reqid=["x", {"y": "z"}]),
        cancel_request({**good_item(1), "ClOrdID": None, "OrigClOrdID": None}),
        cancel_request({"Symbol": "a", "OrigClOrdID": "ord-1"}),
        cancel_request(*map(good_item, range(20))),
        cancel_request({**good_item(1), "Note": "é"}, note=1),
    ],
)
def test_usual_bodies_take_the_short_way(content_type: str, body: dict[str, Any]) -> None:
    context, _ = read_context(Properties(message_id="cmd-1"))
    raw = json.dumps(body, ensure_ascii=False).encode() if content_type == JSON else as_msgpack(body)
    plain = read_plainly(raw, context, content_type == JSON)
    assert plain is not None
    assert plain == read_exactly(raw, context, content_type == JSON)


def test_a_name_among_the_values_is_no_second_key() -> None:
    item = {"Symbol": "type", "ClOrdID": "OrderID", "OrigClOrdID": "ClOrdID", "Note": "Symbol"}
    for content_type in (JSON, MSGPACK):
        assert only_item(read(encoded(cancel_request(item), content_type), content_type)).orig_cl_ord_id == "ClOrdID"


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_a_name_among_the_values_costs_json_the_short_way_as_little_as_blanks_do(separators: tuple[str, str]) -> None:
    context, _ = read_context(Properties(message_id="cmd-1"))
    raw = json.dumps(cancel_request({**good_item(1), "OrigClOrdID": "OrderID"}), separators=separators).encode()
    assert read_plainly(raw, context, True) is not None


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("name", ["Symbol", "ClOrdID", "OrderID", "OrigClOrdID"])
@pytest.mark.parametrize("character", [" ", "\x7f", "é", "\u00a0"])
def test_a_character_that_is_not_visible_ascii_spoils_its_item_however_the_body_is_spaced(
    separators: tuple[str, str], name: str, character: str
) -> None:
    spoilt = {**good_item(1), "OrigClOrdID": "ord-1"}
    spoilt[name] = "a" + character
    raw = json.dumps(cancel_request(good_item(0), spoilt), ensure_ascii=False, separators=separators).encode()
    verdict = read(raw)
    assert isinstance(verdict, CancelCommand)
    good, bad = verdict.items
    assert isinstance(good, CancelItem)
    assert isinstance(bad, InvalidItem)
    assert bad.rejection.field == name


def test_equal_and_unequal_times_of_one_command_are_each_written_as_the_venue_wants_them() -> None:
    times = ["2021-09-15T06:09:42+02:00", "2021-09-15T06:09:42+02:00", None, "2021-09-15T04:09:43Z"]
    times += ["2021-09-15T06:09:42+02:00", "2021-09-15T04:09:42.000000Z"]
    raw = as_json(cancel_request(*({**good_item(n), "TransactTime": time} for n, time in enumerate(times))))
    context, _ = read_context(Properties(message_id="cmd-1"))
    plain = read_plainly(raw, context, True)
    assert plain is not None
    second = "2021-09-15T04:09:42.000000Z"
    expected = [second, second, None, "2021-09-15T04:09:43.000000Z", second, second]
    assert [item.transact_time for item in plain.items if isinstance(item, CancelItem)] == expected
