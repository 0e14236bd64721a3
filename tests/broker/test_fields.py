"""Field tables both ways, against pamqp and against noise."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pamqp.decode
import pamqp.encode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.broker.fields import (
    MAX_DEPTH,
    AmqpSyntaxError,
    Reader,
    decode_table,
    encode_short_string,
    encode_table,
)

texts = st.text(max_size=40).filter(lambda text: len(text.encode("utf-8", "surrogatepass")) <= 255)
fields = st.recursive(
    st.one_of(
        texts,
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.none(),
        st.binary(max_size=30),
        st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)).map(  # noqa: DTZ001 - later ones are milliseconds to pamqp
            lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=15,
)
tables = st.dictionaries(texts, fields, max_size=6)


def decoded(data: bytes) -> dict[str, object]:
    return decode_table(data, 4, len(data))


def field(kind: bytes, payload: bytes) -> bytes:
    inside = b"\x01f" + kind + payload
    return len(inside).to_bytes(4, "big") + inside


@pytest.mark.parametrize(
    ("kind", "payload", "value"),
    [
        (b"t", b"\x01", True),
        (b"t", b"\x00", False),
        (b"b", b"\xff", -1),
        (b"B", b"\xff", 255),
        (b"s", b"\xff\xfe", -2),
        (b"u", b"\xff\xfe", 65_534),
        (b"I", b"\xff\xff\xff\xfd", -3),
        (b"i", b"\xff\xff\xff\xfd", 4_294_967_293),
        (b"l", b"\xff" * 8, -1),
        (b"L", b"\xff" * 8, -1),
        (b"f", b"\x3f\xc0\x00\x00", 1.5),
        (b"d", b"\x3f\xf8" + bytes(6), 1.5),
        (b"D", b"\x02\x00\x00\x01\x3b", 3.15),
        (b"D", b"\xff\x00\x00\x00\x01", 1e-255),
        (b"S", b"\x00\x00\x00\x02ab", "ab"),
        (b"x", b"\x00\x00\x00\x02\xff\x00", b"\xff\x00"),
        (b"T", b"\x00" * 7 + b"\x05", datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC)),
        (b"T", b"\xff" * 8, 2**64 - 1),
        (b"V", b"", None),
        (b"A", b"\x00\x00\x00\x03t\x01V", [True, None]),
        (b"F", b"\x00\x00\x00\x04\x01at\x01", {"a": True}),
    ],
)
def test_each_type_that_rabbitmq_sends(kind: bytes, payload: bytes, value: object) -> None:
    found = decoded(field(kind, payload))["f"]
    assert found == value
    assert type(found) is type(value)
    cut = field(kind, payload)[:-1] if payload else field(kind, payload) + b"\x05"
    with pytest.raises(AmqpSyntaxError):
        decode_table(cut, 4, len(cut))


@given(tables)
def test_a_table_that_was_encoded_is_decoded_to_itself(table: dict[str, object]) -> None:
    assert decoded(encode_table(table)) == table


@given(tables)
def test_pamqp_reads_our_tables(table: dict[str, object]) -> None:
    assert pamqp.decode.field_table(encode_table(table))[1] == _as_pamqp(table)


def _as_pamqp(value: object) -> object:
    if isinstance(value, dict):
        return {key: _as_pamqp(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_pamqp(inner) for inner in value]
    return bytearray(value) if isinstance(value, bytes) else value


def test_decimals_of_pamqp_are_read() -> None:
    assert decoded(pamqp.encode.field_table({"d": Decimal("3.15")})) == {"d": 3.15}


@given(st.binary(max_size=300))
def test_noise_is_a_table_or_the_codec_s_own_error(noise: bytes) -> None:
    try:
        decode_table(noise, 0, len(noise))
    except AmqpSyntaxError:
        pass


@pytest.mark.parametrize("kind", [b"F", b"A"])
def test_depth_is_bounded(kind: bytes) -> None:
    key = b"\x01a" if kind == b"F" else b""

    def nested(depth: int) -> bytes:
        inside = b""
        for _ in range(depth):
            inside = key + kind + len(inside).to_bytes(4, "big") + inside
        return b"\x01a" + kind + len(inside).to_bytes(4, "big") + inside

    decode_table(nested(MAX_DEPTH - 1), 0, len(nested(MAX_DEPTH - 1)))
    with pytest.raises(AmqpSyntaxError, match="deep"):
        decode_table(nested(2_000), 0, len(nested(2_000)))


def test_a_string_that_is_not_utf_8_is_encoded_to_the_same_bytes() -> None:
    data = field(b"S", b"\x00\x00\x00\x02\xff\xfe")
    assert encode_table(decoded(data)) == data


def test_a_short_string_that_is_too_long_is_cut_at_a_character() -> None:
    assert encode_short_string("é" * 127) == b"\xfe" + "é".encode() * 127
    assert encode_short_string("x" + "é" * 127) == b"\xff" + ("x" + "é" * 127).encode()
    assert encode_short_string("é" * 128) == b"\xfe" + "é".encode() * 127


@pytest.mark.parametrize(("value", "error"), [(2**63, OverflowError), (object(), TypeError)])
def test_what_no_field_holds_is_refused(value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        encode_table({"a": [value]})


def test_arguments_that_are_cut_short_are_told() -> None:
    reader = Reader(b"\x01\x00\x02\x00\x00\x00\x03\x02ab\x00\x00\x00\x01c\x00\x00\x00\x00")
    assert (reader.octet(), reader.short(), reader.long()) == (1, 2, 3)
    assert (reader.short_string(), reader.long_string(), reader.table()) == ("ab", "c", {})
    for read in (reader.octet, reader.short, reader.long, reader.short_string, reader.long_string, reader.table):
        with pytest.raises(AmqpSyntaxError, match="cut short"):
            read()
    with pytest.raises(AmqpSyntaxError, match="cut short"):
        Reader(b"\x05abc").short_string()
