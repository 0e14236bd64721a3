"""Frames as a broker sends them, written by pamqp: an encoder that shares nothing with ours."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pamqp.frame
from pamqp import base, body, commands, header

from worker.wire.command import Properties

HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"


def method(channel: int, frame: base.Frame) -> bytes:
    return bytes(pamqp.frame.marshal(frame, channel))


def content(channel: int, data: bytes, properties: commands.Basic.Properties, frame_size: int = 131_064) -> bytes:
    """The header frame and the body frames of at most ``frame_size`` bytes each."""
    frames = pamqp.frame.marshal(header.ContentHeader(body_size=len(data), properties=properties), channel)
    for start in range(0, len(data), frame_size):
        frames += pamqp.frame.marshal(body.ContentBody(data[start : start + frame_size]), channel)
    return bytes(frames)


def deliver(
    data: bytes,
    properties: commands.Basic.Properties | None = None,
    *,
    tag: int = 1,
    redelivered: bool = False,
    channel: int = 1,
    frame_size: int = 131_064,
) -> bytes:
    frame = commands.Basic.Deliver("kill-1", tag, redelivered, "cancel.commands", "kill")
    return method(channel, frame) + content(channel, data, properties or commands.Basic.Properties(), frame_size)


def returned(message_id: str, channel: int = 1, data: bytes = b"{}") -> bytes:
    frame = commands.Basic.Return(312, "NO_ROUTE", "cancel.results", "final.canceled.X")
    return method(channel, frame) + content(channel, data, commands.Basic.Properties(message_id=message_id))


def header_frame(payload: bytes, flags: int, size: int, channel: int = 1) -> bytes:
    """A content header with a property list of our own making."""
    inside = b"\x00\x3c\x00\x00" + size.to_bytes(8, "big") + flags.to_bytes(2, "big") + payload
    return b"\x02" + channel.to_bytes(2, "big") + len(inside).to_bytes(4, "big") + inside + b"\xce"


class Received:
    """Keeps what a parser tells, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def delivered(self, channel: int, tag: int, redelivered: bool, properties: Properties, body: bytes) -> None:
        self.told.append(("delivered", channel, tag, redelivered, properties, body))

    def returned(self, channel: int, code: int, text: str, properties: Properties, body: bytes) -> None:
        self.told.append(("returned", channel, code, text, properties, body))

    def confirmed(self, channel: int, tag: int, multiple: bool, stored: bool) -> None:
        self.told.append(("confirmed", channel, tag, multiple, stored))

    def method_received(self, channel: int, method: int, arguments: bytes) -> None:
        self.told.append(("method", channel, method, arguments))


def pamqp_properties(properties: Properties, others: Mapping[str, object] | None = None) -> commands.Basic.Properties:
    """The same properties, as pamqp knows them; ``others`` are those that the worker does not read."""
    return commands.Basic.Properties(
        content_type=properties.content_type,
        message_id=properties.message_id,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        user_id=properties.user_id,
        app_id=properties.app_id,
        timestamp=None if properties.timestamp_s is None else datetime.fromtimestamp(properties.timestamp_s, UTC),
        headers=dict(properties.headers) or None,  # type: ignore[arg-type]
        **(others or {}),  # type: ignore[arg-type]
    )
