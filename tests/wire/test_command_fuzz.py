"""Whatever comes: one verdict, no exception, neighbours unharmed, and both readers agree."""

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.wire.bad_bodies import BAD_BODIES, JSON, MAX_BODY, MSGPACK, as_json, as_msgpack, cancel_request, good_item
from worker.wire.command import (
    CancelCommand,
    CancelItem,
    Command,
    InvalidCommand,
    InvalidItem,
    MassCancelCommand,
    Properties,
    read_command,
    read_exactly,
    read_plainly,
)
from worker.wire.properties import read_context

MANY = settings(max_examples=max(300, settings().max_examples))
NAMES = ["Symbol", "ClOrdID", "OrderID", "OrigClOrdID", "TransactTime", "Timestamp"]
ENVELOPE = ["type", "reqid", "data"]
CONTENT_TYPES = st.sampled_from([None, JSON, MSGPACK, "application/json; charset=utf-8", "text/plain", ""])

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=70)
)
KEYS = st.sampled_from([*NAMES, *ENVELOPE, "note", "MassCancelRequestType", "Side"]) | st.text(max_size=5)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
HEADER_VALUES = st.recursive(
    SCALARS | st.binary(max_size=20) | st.floats() | st.datetimes() | st.datetimes(timezones=st.timezones()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
)
HEADER_NAMES = ["deadline", "reason", "traceparent", "tracestate", "x-death", "requeue_of", "x-delivery-count"]
ANY_TEXT = st.text(st.characters(), max_size=300)
PROPERTIES = st.builds(
    Properties,
    content_type=CONTENT_TYPES | ANY_TEXT,
    message_id=st.none() | ANY_TEXT,
    correlation_id=st.none() | ANY_TEXT,
    reply_to=st.none() | ANY_TEXT,
    user_id=st.none() | ANY_TEXT,
    app_id=st.none() | ANY_TEXT,
    timestamp_s=st.none() | st.integers(),
    headers=st.dictionaries(st.sampled_from(HEADER_NAMES) | st.text(max_size=5), HEADER_VALUES, max_size=4),
)
IDS = st.text("abcDEF-019", min_size=1, max_size=12)
TIMES = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)
GOOD_ITEMS = st.fixed_dictionaries(
    {"Symbol": IDS, "OrderID": IDS},
    optional={
        "ClOrdID": IDS | st.none(),
        "OrigClOrdID": IDS | st.none(),
        "TransactTime": TIMES | st.none(),
        "Timestamp": TIMES | st.none(),
        "Note": SCALARS,
    },
)
NEARLY_ITEMS = GOOD_ITEMS | st.dictionaries(st.sampled_from(NAMES), IDS | TIMES | SCALARS, max_size=6) | SCALARS


def check(verdict: Command, count: int | None = None) -> None:
    """What holds of every verdict."""
    json.dumps(msgspec.to_builtins(verdict), ensure_ascii=False).encode("utf-8")  # all of it can be published
    match verdict:
        case InvalidCommand():
            assert len(verdict.body_sha256_hex) == 64
            assert len(verdict.rejection.message) <= 200
        case MassCancelCommand():
            assert verdict.context.command_id
            assert (verdict.request_type == "Security") == (verdict.symbol is not None)
        case CancelCommand():
            assert verdict.context.command_id
            assert count is None or len(verdict.items) == count
            assert [each.index for each in verdict.items] == list(range(len(verdict.items)))
            ids = [each.cl_ord_id for each in verdict.items if each.cl_ord_id is not None]
            assert len(ids) == len(set(ids))
            assert all(each.order_id or each.orig_cl_ord_id for each in verdict.items if isinstance(each, CancelItem))


def both(body: bytes, content_type: str) -> Command:
    """The verdict, after the two readers were seen to agree."""
    context, _ = read_context(Properties(message_id="cmd-1"))
    plain = read_plainly(body, context, content_type == JSON)
    exact = read_exactly(body, context, content_type == JSON)
    assert plain is None or plain == exact
    verdict = read_command(body, Properties(content_type=content_type, message_id="cmd-1"), MAX_BODY)
    assert verdict == exact
    check(verdict)
    return verdict


@given(st.binary(max_size=300), PROPERTIES)
def test_any_bytes_with_any_properties_get_a_verdict(body: bytes, properties: Properties) -> None:
    check(read_command(body, properties, 200))


@given(st.sampled_from(sorted(BAD_BODIES)), PROPERTIES)
@MANY
def test_any_properties_with_any_bad_body_get_a_verdict(name: str, properties: Properties) -> None:
    check(read_command(BAD_BODIES[name].body, properties, MAX_BODY))


@given(VALUES, st.sampled_from([JSON, MSGPACK]))
def test_any_structure_gets_a_verdict(value: Any, content_type: str) -> None:
    try:
        body = as_json(value) if content_type == JSON else as_msgpack(value)
    except (OverflowError, UnicodeEncodeError):  # more than MessagePack can say
        return
    both(body, content_type)


@given(st.lists(NEARLY_ITEMS, min_size=1, max_size=6), st.sampled_from([JSON, MSGPACK]), st.booleans())
@MANY
def test_neighbours_of_a_bad_item_are_unharmed(data: list[Any], content_type: str, padded: bool) -> None:
    request = cancel_request(*data, reqid=1)
    try:
        body = (
            json.dumps(request, indent=1 if padded else None).encode() if content_type == JSON else as_msgpack(request)
        )
    except (OverflowError, UnicodeEncodeError):
        return
    verdict = both(body, content_type)
    if isinstance(verdict, InvalidCommand):
        assert verdict.rejection.field == "ClOrdID"  # nothing else in this data can spoil the whole
        return
    assert isinstance(verdict, CancelCommand)
    assert len(verdict.items) == len(data)
    for item, got in zip(data, verdict.items, strict=True):
        alone = read_command(as_json(cancel_request(item)), Properties(message_id="cmd-1"), MAX_BODY)
        assert isinstance(alone, CancelCommand)
        assert type(alone.items[0]) is type(got)
        if isinstance(got, InvalidItem) and isinstance(alone.items[0], InvalidItem):
            assert got.rejection.field == alone.items[0].rejection.field


PAIRS = st.lists(
    st.tuples(st.sampled_from([*NAMES, "note"]), st.sampled_from(['"abc"', "null", '"Symbol"', '"x:OrderID"']))
)
BLANK = st.sampled_from(["", " ", "\n"])


@given(st.lists(PAIRS, min_size=1, max_size=3), st.lists(st.sampled_from(ENVELOPE), max_size=2), BLANK, st.booleans())
@example([[("Symbol", '"a"'), ("OrderID", '"b"')], [("OrderID", '"b"'), ("OrderID", "null")]], [], "", False)
@MANY
def test_a_known_key_that_stands_twice_is_always_seen(
    items: list[list[tuple[str, str]]], extra: list[str], blank: str, escaped: bool
) -> None:
    def key(name: str) -> str:
        return f'"\\u{ord(name[0]):04x}{name[1:]}"' if escaped else f'"{name}"'

    objects = [
        "{" + f"{blank},".join(f"{key(name)}{blank}:{blank}{value}" for name, value in pairs) + "}" for pairs in items
    ]
    data = f"[{','.join(objects)}]"
    members = ['"type":"OrderCancelRequest"', f'"data":{blank}{data}', *(f"{key(name)}:{data}" for name in extra)]
    body = ("{" + ",".join(members) + "}").encode()
    names = [[name for name, _ in pairs if name != "note"] for pairs in items]
    repeated = any(len(each) != len(set(each)) for each in names)
    repeated = repeated or any(name in ("type", "data") for name in extra) or extra.count("reqid") > 1
    verdict = both(body, JSON)
    seen = isinstance(verdict, InvalidCommand) and verdict.rejection.rule == "no key twice in one object"
    assert seen == repeated


@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from([*NAMES, "note"]), st.integers(0, 3)), max_size=8), min_size=1, max_size=3
    )
)
@MANY
def test_a_known_key_that_stands_twice_is_seen_in_messagepack(items: list[list[tuple[str, int]]]) -> None:
    headers = [lambda n: bytes([0xA0 + n]), lambda n: bytes([0xD9, n]), lambda n: bytes([0xDA, 0, n])]
    headers.append(lambda n: bytes([0xDB, 0, 0, 0, n]))

    def packed(pairs: list[tuple[str, int]]) -> bytes:
        texts = b"".join(headers[form](len(name)) + name.encode() + b"\xa3abc" for name, form in pairs)
        return bytes([0xDE, 0, len(pairs)]) + texts

    body = b"\x82\xa4type\xb2OrderCancelRequest\xa4data" + bytes([0x90 + len(items)]) + b"".join(map(packed, items))
    names = [[name for name, _ in pairs if name != "note"] for pairs in items]
    repeated = any(len(each) != len(set(each)) for each in names)
    verdict = both(body, MSGPACK)
    seen = isinstance(verdict, InvalidCommand) and verdict.rejection.rule == "no key twice in one object"
    assert seen == repeated


@given(st.data(), st.sampled_from([JSON, MSGPACK]))
@MANY
def test_a_good_body_with_a_few_bytes_changed_gets_one_verdict(data: st.DataObject, content_type: str) -> None:
    request = cancel_request(
        good_item(1), {**good_item(2), "OrigClOrdID": "x", "Note": ["é", None, {"a": 1.5}]}, reqid=7
    )
    body = bytearray(as_json(request) if content_type == JSON else as_msgpack(request))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        length = data.draw(st.integers(0, 3))
        tokens = [*b'"\\{}[],: \x00\x7f\xff\xc1\xdd\x91\x81\xa0019eE-', 0xC3]
        body[at : at + length] = bytes(data.draw(st.lists(st.sampled_from(tokens), max_size=2)))
        if not body:
            return
    both(bytes(body), content_type)


@pytest.mark.parametrize("content_type", [JSON, MSGPACK])
def test_a_slice_of_a_good_body_copied_into_it_gets_one_verdict(content_type: str) -> None:
    request = cancel_request(good_item(1), good_item(2))
    body = as_json(request) if content_type == JSON else as_msgpack(request)
    for start in range(0, len(body), 5):
        for end in range(start + 1, len(body), 7):
            both(body[:end] + body[start:end] + body[end:], content_type)
