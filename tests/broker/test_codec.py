"""The parser of what a broker sends, against frames that pamqp wrote, at every cut, and against noise."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands

from tests.broker import frames
from tests.broker.frames import Received
from worker.broker import codec
from worker.broker.codec import FRAME_MAX, HEARTBEAT, MALFORMED_CONTENT_TYPE, MAX_BODY, Parser
from worker.broker.fields import AmqpSyntaxError
from worker.wire.command import CancelCommand, InvalidCommand, Properties, read_command

EVERY_PROPERTY = Properties(
    content_type="application/json",
    message_id="c0be17e0",
    correlation_id="corr-1",
    reply_to="amq.gen-1",
    user_id="risk",
    app_id="kill-switch",
    timestamp_s=1_631_679_018,
    headers={"reason": "fat finger", "n": 3, "deadline": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "ok": True},
)
UNREAD = {
    "content_encoding": "utf-8",
    "delivery_mode": 2,
    "priority": 5,
    "expiration": "60000",
    "message_type": "order.cancel",
}
CONVERSATION = b"".join(
    (
        frames.method(0, commands.Connection.Tune(2047, 131_072, 60)),
        frames.method(1, commands.Basic.ConsumeOk("kill-1")),
        frames.deliver(b'{"type":"OrderCancelRequest"}', frames.pamqp_properties(EVERY_PROPERTY, UNREAD), tag=1),
        HEARTBEAT,
        frames.deliver(b"", tag=2, redelivered=True),
        frames.deliver(b"0123456789" * 3, tag=3, frame_size=7),
        frames.method(1, commands.Basic.Ack(7, True)),
        frames.method(1, commands.Basic.Nack(8, False)),
        frames.returned("e-1", data=b"x" * 20),
        frames.deliver(b"y", tag=4, channel=2),
        frames.method(1, commands.Basic.Cancel("kill-1", True)),
    )
)


def told(*chunks: bytes, frame_max: int = FRAME_MAX) -> list[tuple[object, ...]]:
    receiver = Received()
    parser = Parser(receiver, frame_max)
    for chunk in chunks:
        parser.receive(chunk)
    return receiver.told


def test_a_delivery_comes_with_its_tag_flag_properties_and_body() -> None:
    data = b'{"data":[]}'
    delivered = frames.deliver(data, frames.pamqp_properties(EVERY_PROPERTY, UNREAD), tag=2**62 + 5, redelivered=True)
    assert told(delivered) == [("delivered", 1, 2**62 + 5, True, EVERY_PROPERTY, data)]


@pytest.mark.parametrize("name", EVERY_PROPERTY.__struct_fields__)
def test_each_property_is_read_alone(name: str) -> None:
    alone = Properties(**{name: getattr(EVERY_PROPERTY, name)})
    (event,) = told(frames.deliver(b"x", frames.pamqp_properties(alone)))
    assert event[4] == alone


@pytest.mark.parametrize("name", UNREAD)
def test_a_property_that_is_not_read_does_not_shift_the_others(name: str) -> None:
    (event,) = told(frames.deliver(b"x", frames.pamqp_properties(EVERY_PROPERTY, {name: UNREAD[name]})))
    assert event[4] == EVERY_PROPERTY


@pytest.mark.parametrize("size", [0, 1, 131_064, 131_065, 131_066, 500_000])
def test_a_body_of_any_size_comes_whole(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    assert told(frames.deliver(data[:size]))[0][5] == data[:size]


def test_every_cut_of_the_bytes_tells_the_same() -> None:
    whole = told(CONVERSATION)
    assert [event[0] for event in whole] == [
        "method", "method", "delivered", "delivered", "delivered", "confirmed", "confirmed", "returned", "delivered",
        "method",
    ]  # fmt: skip
    for cut in range(1, len(CONVERSATION)):
        assert told(CONVERSATION[:cut], CONVERSATION[cut:]) == whole
    assert told(*(CONVERSATION[at : at + 1] for at in range(len(CONVERSATION)))) == whole


def test_confirms_carry_number_range_and_verdict() -> None:
    acks = (commands.Basic.Ack(5, False), commands.Basic.Ack(9, True), commands.Basic.Nack(10, False, False))
    assert told(b"".join(frames.method(1, ack) for ack in acks)) == [
        ("confirmed", 1, 5, False, True),
        ("confirmed", 1, 9, True, True),
        ("confirmed", 1, 10, False, False),
    ]


def test_messages_of_two_channels_may_be_mixed() -> None:
    one, two = (
        [frames.method(n, commands.Basic.Deliver("c", n, False, "x", "k")), *cut_content(n, bytes([n]) * 10)]
        for n in (1, 2)
    )
    mixed = b"".join(frame for pair in zip(one, two, strict=True) for frame in pair)
    assert [(event[1], event[5]) for event in told(mixed)] == [(1, b"\x01" * 10), (2, b"\x02" * 10)]


def cut_content(channel: int, data: bytes) -> list[bytes]:
    content = frames.content(channel, data, commands.Basic.Properties(), frame_size=5)
    header = 7 + struct.unpack_from(">I", content, 3)[0] + 1
    return [content[:header], content[header : header + 13], content[header + 13 :]]


@pytest.mark.parametrize("step", [1, 10, 1000])
def test_work_is_linear_in_the_bytes_however_small_the_chunks(step: int) -> None:
    class Counting(Parser):
        looked_at = 0

        def _parse(self, buffer: bytes) -> int:
            self.looked_at += len(buffer)
            return super()._parse(buffer)

    receiver = Received()
    parser = Counting(receiver)
    data = frames.deliver(b"x" * 300_000)
    for at in range(0, len(data), step):
        parser.receive(data[at : at + step])
    assert len(receiver.told) == 1
    assert parser.looked_at <= 2.1 * len(data)


def test_a_string_that_is_not_utf_8_is_told_from_every_valid_one() -> None:
    payload = b"\x03\xff\xfe\x41"
    data = frames.method(1, commands.Basic.Deliver("c", 1, False, "x", "k"))
    data += frames.header_frame(payload, 1 << 7, 0)
    (event,) = told(data)
    properties = event[4]
    assert isinstance(properties, Properties)
    assert properties.message_id is not None
    assert properties.message_id.encode("utf-8", "surrogateescape") == b"\xff\xfe\x41"
    with pytest.raises(UnicodeEncodeError):
        properties.message_id.encode()


@pytest.mark.parametrize(
    ("payload", "flags"),
    [
        (b"", 1 << 15),
        (b"\x05abc", 1 << 7),
        (b"\x00\x00\x00\xff", 1 << 13),
        (b"\x00\x00\x00\x04\x01aZ\x00", 1 << 13),
        (b"\x00\x00\x00\x08\x01aS\x00\x00\x00\xff\x00", 1 << 13),
        (b"\x00\x00", 1 << 6),
        (b"", 1),
        (b"\x02", 1 << 12 | 1 << 2),
    ],
)
@pytest.mark.parametrize("size", [0, 3])
def test_properties_that_cannot_be_read_mark_the_message_and_spare_the_connection(
    payload: bytes, flags: int, size: int
) -> None:
    body = b"\x03\x00\x01\x00\x00\x00\x03abc\xce" if size else b""
    data = frames.method(1, commands.Basic.Deliver("c", 1, False, "x", "k"))
    data += frames.header_frame(payload, flags, size) + body + frames.deliver(b"next", tag=2)
    first, second = told(data)
    assert first[4] == Properties(content_type=MALFORMED_CONTENT_TYPE)
    assert first[5] == b"abc"[:size]
    assert second[5] == b"next"


def test_a_marked_message_is_an_invalid_command_however_good_its_body() -> None:
    body = b'{"type":"OrderCancelRequest","data":[{"Symbol":"BTC-USD","ClOrdID":"c-1","OrderID":"o-1"}]}'
    assert isinstance(read_command(body, Properties(message_id="m-1"), 1000), CancelCommand)
    assert isinstance(read_command(body, Properties(content_type=MALFORMED_CONTENT_TYPE), 1000), InvalidCommand)


def test_tables_nested_too_deep_mark_the_message() -> None:
    table = b""
    for _ in range(5000):
        table = b"\x01aF" + len(table).to_bytes(4, "big") + table
    data = frames.method(1, commands.Basic.Deliver("c", 1, False, "x", "k"))
    data += frames.header_frame(len(table).to_bytes(4, "big") + table, 1 << 13, 0)
    (event,) = told(data)
    assert event[4] == Properties(content_type=MALFORMED_CONTENT_TYPE)


DELIVER = frames.method(1, commands.Basic.Deliver("c", 1, False, "x", "k"))
HEADER = frames.header_frame(b"", 0, 3)
BODY = b"\x03\x00\x01\x00\x00\x00\x03abc\xce"


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        (b"AMQP\x00\x01\x00\x00", "another version"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no frame of type"),
        (b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x33\x00", "0xCE"),
        (b"\x01\x00\x00\x00\x02\x00\x00", "longer than"),
        (b"\x01\x00\x00\x00\x00\x00\x02\x00\x0a\xce", "method id"),
        (b"\x04\x00\x00\x00\x00\x00\x00\xce", "no frame of type"),
        (b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x3c\xce" + HEADER, "cut short"),
        (b"\x01\x00\x01\x00\x00\x00\x08\x00\x3c\x00\x50\x00\x00\x00\x01\xce", "cut short"),
        (b"\x01\x00\x01\x00\x00\x00\x07\x00\x3c\x00\x32\x01\x38\x09\xce", "cut short"),
        (HEADER, "without its method"),
        (BODY, "without its header"),
        (DELIVER + BODY, "without its header"),
        (DELIVER + DELIVER, "between"),
        (DELIVER + HEADER + HEADER, "without its method"),
        (DELIVER + HEADER + b"\x03\x00\x01\x00\x00\x00\x04abcd\xce", "longer than its header"),
        (DELIVER + b"\x02\x00\x01\x00\x00\x00\x02\x00\x3c\xce", "cut short"),
        (DELIVER + HEADER.replace(b"\x00\x3c", b"\x00\x0a"), "class basic"),
        (DELIVER + frames.header_frame(b"", 0, MAX_BODY + 1), "announced"),
    ],
)
def test_what_is_no_amqp_is_told_by_its_own_error(data: bytes, rule: str) -> None:
    with pytest.raises(AmqpSyntaxError, match=rule):
        told(data)
    with pytest.raises(AmqpSyntaxError):
        told(*(data[at : at + 1] for at in range(len(data))))


def test_a_frame_longer_than_agreed_on_is_refused_before_it_is_collected() -> None:
    assert told(frames.deliver(b"x" * 5000), frame_max=FRAME_MAX) != []
    with pytest.raises(AmqpSyntaxError, match="4096"):
        told(frames.deliver(b"x" * 5000)[:200], frame_max=4096)


def test_a_closed_channel_leaves_no_half_message_behind() -> None:
    receiver = Received()
    parser = Parser(receiver)
    parser.receive(DELIVER + HEADER)
    parser.channel_closed(1)
    parser.receive(frames.method(1, commands.Channel.OpenOk()) + frames.deliver(b"whole"))
    assert [event[0] for event in receiver.told] == ["method", "delivered"]


def test_after_stop_nothing_more_is_told() -> None:
    class Stops(Received):
        def method_received(self, channel: int, method: int, arguments: bytes) -> None:
            super().method_received(channel, method, arguments)
            parser.stop()

    receiver = Stops()
    parser = Parser(receiver)
    parser.receive(frames.method(0, commands.Connection.CloseOk()) + frames.deliver(b"late"))
    parser.receive(frames.deliver(b"later"))
    assert [event[0] for event in receiver.told] == ["method"]


def test_what_the_receiver_raises_passes_through() -> None:
    class Broken(Received):
        def delivered(self, channel: int, tag: int, redelivered: bool, properties: Properties, body: bytes) -> None:
            raise IndexError("a bug")

    with pytest.raises(IndexError, match="a bug"):
        Parser(Broken()).receive(frames.deliver(b"x"))


texts = st.text(max_size=40).filter(lambda text: len(text.encode("utf-8", "surrogatepass")) <= 255)
some_text = texts.filter(bool)  # pamqp leaves out a property that is empty
values = st.recursive(
    st.one_of(
        texts,
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, width=32),  # pamqp sends 32 bits
        st.none(),
        st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1)).map(  # noqa: DTZ001
            lambda moment: moment.replace(microsecond=0, tzinfo=UTC)
        ),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=12,
)
properties_of_any_kind = st.builds(
    Properties,
    content_type=st.none() | some_text,
    message_id=st.none() | some_text,
    correlation_id=st.none() | some_text,
    reply_to=st.none() | some_text,
    user_id=st.none() | some_text,
    app_id=st.none() | some_text,
    timestamp_s=st.none() | st.integers(1, 2**34),
    headers=st.dictionaries(texts, values, max_size=5),
)


@given(properties_of_any_kind, st.binary(max_size=300), st.lists(st.integers(1, 60), max_size=20))
def test_whatever_is_sent_arrives_however_it_is_cut(properties: Properties, body: bytes, cuts: list[int]) -> None:
    data = frames.deliver(body, frames.pamqp_properties(properties), tag=9, frame_size=50)
    chunks = []
    for cut in cuts:
        chunks.append(data[:cut])
        data = data[cut:]
    assert told(*chunks, data) == [("delivered", 1, 9, False, properties, body)]


@given(st.binary(max_size=600), st.integers(1, 50))
def test_noise_raises_nothing_but_the_codec_s_own_error(noise: bytes, step: int) -> None:
    try:
        told(*(noise[at : at + step] for at in range(0, len(noise), step)))
    except AmqpSyntaxError:
        pass


@given(st.integers(0, len(CONVERSATION) - 1), st.integers(1, 255), st.integers(1, 200))
def test_one_wrong_byte_raises_nothing_but_the_codec_s_own_error(at: int, change: int, step: int) -> None:
    data = bytearray(CONVERSATION)
    data[at] ^= change
    try:
        told(*(bytes(data[start : start + step]) for start in range(0, len(data), step)))
    except AmqpSyntaxError:
        pass


@given(st.binary(max_size=200), st.integers(0, 65_535))
def test_no_property_list_costs_the_connection(payload: bytes, flags: int) -> None:
    data = DELIVER + frames.header_frame(payload, flags, 0) + frames.deliver(b"next", tag=2)
    assert [event[2] for event in told(data)] == [1, 2]


def test_properties_are_built_in_the_order_of_their_fields() -> None:
    assert Properties.__struct_fields__ == (
        "content_type", "message_id", "correlation_id", "reply_to", "user_id", "app_id", "timestamp_s", "headers",
    )  # fmt: skip
    assert len(HEARTBEAT) == codec.FRAME_OVERHEAD
