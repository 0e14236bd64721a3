"""The AMQP 0-9-1 methods that the worker sends, as whole frames, and those it reads, as values.

Names and ids are the specification's. A method's number is its class id shifted left by 16, or its method id.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Final

from msgspec import Struct as Value

from worker.broker.fields import AmqpSyntaxError, Reader, encode_short_string, encode_table

CONNECTION_START: Final = 10 << 16 | 10
CONNECTION_START_OK: Final = 10 << 16 | 11
CONNECTION_SECURE: Final = 10 << 16 | 20
CONNECTION_TUNE: Final = 10 << 16 | 30
CONNECTION_TUNE_OK: Final = 10 << 16 | 31
CONNECTION_OPEN: Final = 10 << 16 | 40
CONNECTION_OPEN_OK: Final = 10 << 16 | 41
CONNECTION_CLOSE: Final = 10 << 16 | 50
CONNECTION_CLOSE_OK: Final = 10 << 16 | 51
CONNECTION_BLOCKED: Final = 10 << 16 | 60
CONNECTION_UNBLOCKED: Final = 10 << 16 | 61
CHANNEL_OPEN: Final = 20 << 16 | 10
CHANNEL_OPEN_OK: Final = 20 << 16 | 11
CHANNEL_FLOW: Final = 20 << 16 | 20
CHANNEL_FLOW_OK: Final = 20 << 16 | 21
CHANNEL_CLOSE: Final = 20 << 16 | 40
CHANNEL_CLOSE_OK: Final = 20 << 16 | 41
BASIC_QOS: Final = 60 << 16 | 10
BASIC_QOS_OK: Final = 60 << 16 | 11
BASIC_CONSUME: Final = 60 << 16 | 20
BASIC_CONSUME_OK: Final = 60 << 16 | 21
BASIC_CANCEL: Final = 60 << 16 | 30
BASIC_CANCEL_OK: Final = 60 << 16 | 31
BASIC_PUBLISH: Final = 60 << 16 | 40
CONFIRM_SELECT: Final = 85 << 16 | 10
CONFIRM_SELECT_OK: Final = 85 << 16 | 11

ACCESS_REFUSED: Final = 403
NOT_ALLOWED: Final = 530

_method_head = Struct(">BHII")
_settle = Struct(">BHIHHQBB")
_u16 = Struct(">H")


def encode_method(channel: int, method: int, arguments: bytes = b"") -> bytes:
    """One method frame."""
    return _method_head.pack(1, channel, 4 + len(arguments), method) + arguments + b"\xce"


# -- connection ---------------------------------------------------------------------------------------------------


class Start(Value, frozen=True):
    """connection.start: what the broker is, and how one may log in."""

    properties: dict[str, object]
    mechanisms: tuple[str, ...]


class Tune(Value, frozen=True):
    """connection.tune: the broker's limits; 0 stands for none. ``heartbeat`` is in seconds."""

    channel_max: int
    frame_max: int
    heartbeat: int


class Close(Value, frozen=True):
    """connection.close or channel.close of the broker; ``method`` is the one it objects to, 0 for none."""

    code: int
    text: str
    method: int


def read_start(arguments: bytes) -> Start:
    """Raises AmqpSyntaxError, also for another version than 0-9."""
    reader = Reader(arguments)
    if (version := (reader.octet(), reader.octet())) != (0, 9):
        raise AmqpSyntaxError(f"the broker speaks AMQP {version[0]}-{version[1]}, not 0-9")
    properties = reader.table()
    return Start(properties, tuple(reader.long_string().split()))


def encode_start_ok(properties: Mapping[str, object], mechanism: str, response: bytes) -> bytes:
    """``response`` is what the mechanism asks for; it holds the password."""
    return encode_method(
        0,
        CONNECTION_START_OK,
        encode_table(properties)
        + encode_short_string(mechanism)
        + len(response).to_bytes(4, "big")
        + response
        + encode_short_string("en_US"),
    )


def read_tune(arguments: bytes) -> Tune:
    """Raises AmqpSyntaxError."""
    reader = Reader(arguments)
    return Tune(reader.short(), reader.long(), reader.short())


def encode_tune_ok(channel_max: int, frame_max: int, heartbeat: int) -> bytes:
    """What both sides keep to from now on."""
    return encode_method(
        0, CONNECTION_TUNE_OK, _u16.pack(channel_max) + frame_max.to_bytes(4, "big") + _u16.pack(heartbeat)
    )


def encode_open(vhost: str) -> bytes:
    """connection.open."""
    return encode_method(0, CONNECTION_OPEN, encode_short_string(vhost) + b"\x00\x00")


def encode_close(code: int, text: str) -> bytes:
    """connection.close."""
    return encode_method(0, CONNECTION_CLOSE, _u16.pack(code) + encode_short_string(text) + b"\x00\x00\x00\x00")


def read_close(arguments: bytes) -> Close:
    """connection.close and channel.close look alike. Raises AmqpSyntaxError."""
    reader = Reader(arguments)
    return Close(reader.short(), reader.short_string(), reader.short() << 16 | reader.short())


# -- channel -----------------------------------------------------------------------------------------------------


def encode_channel_open(channel: int) -> bytes:
    """channel.open."""
    return encode_method(channel, CHANNEL_OPEN, b"\x00")


def encode_confirm_select(channel: int) -> bytes:
    """confirm.select: every publish from now on is numbered from 1 and answered by an ack or a nack."""
    return encode_method(channel, CONFIRM_SELECT, b"\x00")


# -- consuming ----------------------------------------------------------------------------------------------------


def encode_qos(channel: int, prefetch: int) -> bytes:
    """At most ``prefetch`` unsettled deliveries for each consumer begun later (quorum queues know no other kind)."""
    return encode_method(channel, BASIC_QOS, b"\x00\x00\x00\x00" + _u16.pack(prefetch) + b"\x00")


def encode_consume(channel: int, queue: str, consumer_tag: str) -> bytes:
    """basic.consume with manual acks."""
    return encode_method(
        channel,
        BASIC_CONSUME,
        b"\x00\x00" + encode_short_string(queue) + encode_short_string(consumer_tag) + b"\x00" + b"\x00\x00\x00\x00",
    )


def encode_cancel(channel: int, consumer_tag: str) -> bytes:
    """basic.cancel, answered by cancel-ok once no more deliveries come."""
    return encode_method(channel, BASIC_CANCEL, encode_short_string(consumer_tag) + b"\x00")


def encode_ack(channel: int, tag: int) -> bytes:
    """basic.ack of one delivery."""
    return _settle.pack(1, channel, 13, 60, 80, tag, 0, 0xCE)


def encode_nack(channel: int, tag: int, requeue: bool) -> bytes:
    """basic.nack of one delivery: back to the queue, or to the dead letters."""
    return _settle.pack(1, channel, 13, 60, 120, tag, 2 if requeue else 0, 0xCE)
