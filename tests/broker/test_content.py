"""Events to frames, read back by pamqp and by our own parser."""

from __future__ import annotations

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body, commands, header

from worker.broker.content import KEPT, ContentEncoder
from worker.core.effects import OutEvent

HEADERS: dict[str, str | bool] = {"command_id": "cmd-1", "final": True, "traceparent": "00-0af7-b7ad-01"}


def event(
    event_id: str = "e-1",
    *,
    data: bytes = b'{"outcome":"canceled"}',
    correlation_id: str | None = "corr-1",
    headers: dict[str, str | bool] | None = None,
    routing_key: str = "final.canceled.BTC-USD",
) -> OutEvent:
    return OutEvent(
        event_id,
        "cancel",
        routing_key,
        data,
        "canceled",
        True,
        "cmd-1",
        correlation_id,
        HEADERS if headers is None else headers,
        1_631_679_018,
    )


def unmarshal(data: bytes) -> tuple[commands.Basic.Publish, header.ContentHeader, list[bytes], set[int]]:
    parts, channels = [], set()
    while data:
        size, channel, frame = pamqp.frame.unmarshal(data)
        data = data[size:]
        parts.append(frame)
        channels.add(channel)
    publish, head, *bodies = parts
    assert isinstance(publish, commands.Basic.Publish)
    assert isinstance(head, header.ContentHeader)
    assert all(isinstance(part, body.ContentBody) for part in bodies)
    return publish, head, [part.value for part in bodies], channels  # type: ignore[union-attr]


def test_an_event_is_a_mandatory_persistent_publish_with_the_contracts_properties() -> None:
    publish, head, bodies, channels = unmarshal(ContentEncoder(1, "cancel.results").encode(event(), "final.x"))
    assert (publish.exchange, publish.routing_key) == ("cancel.results", "final.x")
    assert (publish.mandatory, publish.immediate) == (True, False)
    properties = head.properties
    assert properties.content_type == "application/json"
    assert properties.delivery_mode == 2
    assert (properties.message_id, properties.correlation_id) == ("e-1", "corr-1")
    assert (properties.message_type, properties.app_id) == ("canceled", "cancel-worker")
    assert properties.timestamp is not None
    assert properties.timestamp.timestamp() == 1_631_679_018
    assert properties.headers == HEADERS
    assert [part for part in (properties.reply_to, properties.user_id, properties.expiration) if part] == []
    assert (head.body_size, b"".join(bodies), channels) == (22, b'{"outcome":"canceled"}', {1})


@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 8176, 8177, 20_000])
def test_a_body_is_split_at_the_agreed_frame_size(size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    _, head, bodies, _ = unmarshal(ContentEncoder(2, "x", frame_max=4096).encode(event(data=data), "k"))
    assert head.body_size == size
    assert b"".join(bodies) == data
    assert len(bodies) == -(-size // 4088)
    assert all(len(part) <= 4088 for part in bodies)


def test_without_correlation_id_and_headers_they_are_left_out() -> None:
    _, head, _, _ = unmarshal(ContentEncoder(1, "x").encode(event(correlation_id=None, headers={}), "k"))
    assert not head.properties.correlation_id
    assert not head.properties.headers
    assert head.properties.message_id == "e-1"


texts = st.text(max_size=60)
short = st.text(max_size=60).filter(lambda text: len(text.encode("utf-8", "surrogatepass")) <= 255)


@given(
    short.filter(bool),
    st.none() | short.filter(bool),
    st.dictionaries(short, st.booleans() | texts, max_size=5),
    st.binary(max_size=3000),
    short,
)
def test_every_event_is_read_back_as_it_was(
    event_id: str, correlation_id: str | None, headers: dict[str, str | bool], data: bytes, routing_key: str
) -> None:
    encoder = ContentEncoder(1, "cancel.results", frame_max=4096)
    for _ in range(2):  # the second time from what was kept
        frames = encoder.encode(event(event_id, data=data, correlation_id=correlation_id, headers=headers), routing_key)
        publish, head, bodies, _ = unmarshal(frames)
        assert publish.routing_key == routing_key
        assert head.properties.message_id == event_id
        assert head.properties.correlation_id == correlation_id
        assert (head.properties.headers or {}) == headers
        assert b"".join(bodies) == data


def test_an_id_that_is_not_utf_8_is_echoed_byte_for_byte() -> None:
    frames = ContentEncoder(1, "x").encode(event(correlation_id="\udcff\udcfe"), "k")
    assert b"\x02\xff\xfe" in frames


def test_routing_keys_from_outside_do_not_fill_the_memory() -> None:
    encoder = ContentEncoder(1, "cancel.results")
    for number in range(3 * KEPT):
        encoder.encode(event(), f"final.canceled.{number}")
        assert len(encoder._methods) <= KEPT
