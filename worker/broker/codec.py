"""AMQP 0-9-1 (with RabbitMQ's extensions): bytes to values and back. No socket, clock or loop is reachable from here.

``Parser`` cuts what a broker sends into frames and hands deliveries, returns and confirms to a ``Receiver`` as they
end, without an object per frame; every other method goes to ``method_received`` with its raw arguments, read by the
functions of ``worker.broker.methods``. Work is linear in the bytes received, however small the chunks are.

Whatever the peer sends, the only exception raised by reading is ``AmqpSyntaxError``. After it the connection must be
dropped: nothing says where the next frame begins. A message's *properties* are the publisher's, not the broker's, and
never cost the connection: see ``MALFORMED_CONTENT_TYPE``.

Frames: octet type, short channel, long size, payload, octet 0xCE (AMQP 0-9-1, 2.3.5 and 4.2.3).
"""

from __future__ import annotations

import struct
from struct import Struct
from typing import Final, Protocol

from worker.broker.fields import AmqpSyntaxError, Reader, decode_table
from worker.wire.command import Properties

FRAME_MAX: Final = 131_072
"""Bytes of a frame, head and end included, that we ask for: RabbitMQ's own default."""
FRAME_MIN: Final = 4_096
"""The least frame size a peer may ask for (AMQP 0-9-1, 4.2.3)."""
FRAME_OVERHEAD: Final = 8
FRAME_END: Final = 0xCE
PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
MALFORMED_CONTENT_TYPE: Final = "application/x-malformed-properties"
"""``content_type`` of a message whose properties can't be read: as no command has this type, it is judged ``invalid``.

A string in them that is not UTF-8 is no such case: it is decoded with ``surrogateescape``, so that it can be told
from every valid one, and echoed byte for byte.
"""
MAX_BODY: Final = 512 * 1024 * 1024
"""Bytes of one message body; RabbitMQ itself refuses more. Bounds what a broken peer can make us collect."""

METHOD, HEADER, BODY, HEARTBEAT_FRAME = 1, 2, 3, 8
DELIVER: Final = 60 << 16 | 60
RETURN: Final = 60 << 16 | 50
ACK: Final = 60 << 16 | 80
NACK: Final = 60 << 16 | 120
BASIC: Final = 60

_frame_head = Struct(">BHI")
_method_head = Struct(">BHII")
_u32 = Struct(">I")
_u64 = Struct(">Q")
_tag_and_bits = Struct(">QB")
_content_head = Struct(">HHQH")  # class, weight, body size, property flags
_header_frame = Struct(">BHIHHQH")
_unpack_frame_head = _frame_head.unpack_from
_unpack_method_head = _method_head.unpack_from
_unpack_u32 = _u32.unpack_from
_unpack_u64 = _u64.unpack_from
_unpack_tag_and_bits = _tag_and_bits.unpack_from
_unpack_content_head = _content_head.unpack_from
_unpack_header_frame = _header_frame.unpack_from


class ContentReceiver(Protocol):
    """Whom a ``Parser`` tells of what comes often: messages and confirms."""

    def delivered(self, channel: int, tag: int, redelivered: bool, properties: Properties, body: bytes) -> None:
        """One whole basic.deliver."""

    def returned(self, channel: int, code: int, text: str, properties: Properties, body: bytes) -> None:
        """One whole basic.return. The message id is the one known thing about what came back (faults A2)."""

    def confirmed(self, channel: int, tag: int, multiple: bool, stored: bool) -> None:
        """basic.ack (``stored``) or basic.nack of the broker, about publishes."""


class Receiver(ContentReceiver, Protocol):
    """Whom a ``Parser`` tells. Called while ``receive`` runs; whatever a call raises goes through ``receive``."""

    def method_received(self, channel: int, method: int, arguments: bytes) -> None:
        """Any other method; ``method`` is class id shifted left by 16, or method id."""


class _Content:
    """A message that has begun on a channel: its method, then its header, then ``left`` bytes of body."""

    __slots__ = ("code", "left", "method", "parts", "properties", "redelivered", "tag", "text")

    def __init__(self, method: int) -> None:
        self.method = method
        self.tag = 0
        self.redelivered = False
        self.code = 0
        self.text = ""
        self.properties: Properties | None = None
        self.left = -1  # until the header came
        self.parts: list[bytes] = []


class Parser:
    """What the broker sends, from the first byte after our protocol header on.

    ``frame_max`` bounds a frame; set it once tune is done. Feed chunks to ``receive`` until it raises.
    """

    def __init__(self, receiver: Receiver, frame_max: int = FRAME_MAX) -> None:
        self.frame_max = frame_max
        self._receiver = receiver
        self._chunks: list[bytes] = []
        self._held = 0  # bytes in _chunks
        self._needed = 7  # no frame can end before that many bytes are held
        self._contents: dict[int, _Content] = {}
        self._first = True
        self._stopped = False

    def receive(self, chunk: bytes) -> None:
        """Take the next bytes and tell the receiver all that they complete. Raises AmqpSyntaxError."""
        if self._stopped:
            return
        if self._held:
            # Joined only once a frame may be complete, so that a body in a thousand chunks is copied once, not a
            # thousand times.
            self._chunks.append(chunk)
            self._held += len(chunk)
            if self._held < self._needed:
                return
            chunk = b"".join(self._chunks)
            self._chunks.clear()
            self._held = 0
        position = self._parse(chunk)
        if position < len(chunk):
            rest = chunk[position:] if position else chunk
            self._chunks.append(rest)
            self._held = len(rest)
            self._needed = 7 if len(rest) < 7 else _unpack_u32(rest, 3)[0] + FRAME_OVERHEAD

    def _parse(self, buffer: bytes) -> int:
        """Handle each whole frame of ``buffer``; the position of the first byte that belongs to none."""
        position, end = 0, len(buffer)
        receiver, contents, largest = self._receiver, self._contents, self.frame_max - FRAME_OVERHEAD
        if self._first and end >= 7:
            if buffer.startswith(b"AMQP"):
                raise AmqpSyntaxError("the peer speaks another version of AMQP than 0-9-1")
            self._first = False
        while end - position >= 7:
            # Twelve bytes are the shortest method frame: read its id with the head. In other frames it means nothing.
            if end - position >= 12:
                kind, channel, size, method = _unpack_method_head(buffer, position)
            else:
                kind, channel, size = _unpack_frame_head(buffer, position)
                method = 0
            if size > largest or not 1 <= kind <= HEARTBEAT_FRAME:
                raise AmqpSyntaxError(_wrong_head(kind, size, self.frame_max))
            start = position + 7
            stop = start + size
            if stop >= end:
                break
            if buffer[stop] != FRAME_END:
                raise AmqpSyntaxError("a frame does not end with 0xCE")
            position = stop + 1
            if kind == METHOD:
                if size < 4:
                    raise AmqpSyntaxError("a method frame is shorter than its method id")
                if contents and channel in contents:
                    raise AmqpSyntaxError("a method came between a message's method and its body")
                if method == DELIVER:
                    at = start + 5 + buffer[start + 4] if size > 4 else stop
                    if at + 9 > stop:
                        raise AmqpSyntaxError("basic.deliver is cut short")
                    tag, redelivered = _unpack_tag_and_bits(buffer, at)
                    # Most often header and body are in the buffer as well: then nothing need be kept.
                    if end - position >= 29:
                        kind, channel_2, size, class_, _, body_size, flags = _unpack_header_frame(buffer, position)
                        middle = position + 7 + size
                        if (
                            kind == HEADER
                            and channel_2 == channel
                            and class_ == BASIC
                            and 14 <= size <= largest
                            and 0 < body_size <= largest
                            and end - middle >= body_size + 9
                            and buffer[middle] == FRAME_END
                        ):
                            kind, channel_2, size = _unpack_frame_head(buffer, middle + 1)
                            after = middle + 8 + body_size
                            if (
                                kind == BODY
                                and channel_2 == channel
                                and size == body_size
                                and buffer[after] == FRAME_END
                            ):
                                properties = decode_properties(buffer, position + 21, middle, flags)
                                position = after + 1
                                receiver.delivered(
                                    channel, tag, redelivered & 1 == 1, properties, buffer[middle + 8 : after]
                                )
                                continue
                    content = contents[channel] = _Content(DELIVER)
                    content.tag = tag
                    content.redelivered = redelivered & 1 == 1
                elif method == ACK or method == NACK:  # noqa: SIM109 - no tuple to build, and there are many
                    if size < 13:
                        raise AmqpSyntaxError("a confirm is cut short")
                    tag, bits = _unpack_tag_and_bits(buffer, start + 4)
                    receiver.confirmed(channel, tag, bits & 1 == 1, method == ACK)
                elif method == RETURN:
                    contents[channel] = _read_return(buffer[start + 4 : stop])
                else:
                    receiver.method_received(channel, method, buffer[start + 4 : stop])
                    if self._stopped:
                        return end
            elif kind == BODY:
                self._body(channel, buffer[start:stop])
            elif kind == HEADER:
                self._header(channel, buffer, start, stop)
            elif kind != HEARTBEAT_FRAME:
                raise AmqpSyntaxError(_wrong_head(kind, size, self.frame_max))
        return position

    def _header(self, channel: int, buffer: bytes, start: int, stop: int) -> None:
        content = self._contents.get(channel)
        if content is None or content.left >= 0:
            raise AmqpSyntaxError("a content header came without its method")
        if stop - start < 14:
            raise AmqpSyntaxError("a content header is cut short")
        class_, _, size, flags = _unpack_content_head(buffer, start)
        if class_ != BASIC:
            raise AmqpSyntaxError("a content header is not of class basic")
        if size > MAX_BODY:
            raise AmqpSyntaxError(f"a message body of {size} bytes is announced, {MAX_BODY} are the most")
        content.properties = decode_properties(buffer, start + 14, stop, flags)
        content.left = size
        if not size:
            self._complete(channel, content)

    def _body(self, channel: int, part: bytes) -> None:
        content = self._contents.get(channel)
        if content is None or content.left < 0:
            raise AmqpSyntaxError("a message body came without its header")
        content.left -= len(part)
        if content.left < 0:
            raise AmqpSyntaxError("a message body is longer than its header says")
        content.parts.append(part)
        if not content.left:
            self._complete(channel, content)

    def _complete(self, channel: int, content: _Content) -> None:
        del self._contents[channel]
        body = b"".join(content.parts)
        properties = content.properties
        assert properties is not None  # complete only after the header
        if content.method == DELIVER:
            self._receiver.delivered(channel, content.tag, content.redelivered, properties, body)
        else:
            self._receiver.returned(channel, content.code, content.text, properties, body)

    def stop(self) -> None:
        """Called from ``method_received``: tell nothing more, whatever is still in the chunk."""
        self._stopped = True

    def channel_closed(self, channel: int) -> None:
        """Forget a message that a closing channel left unfinished."""
        self._contents.pop(channel, None)


def _wrong_head(kind: int, size: int, frame_max: int) -> str:
    if kind not in (METHOD, HEADER, BODY, HEARTBEAT_FRAME):
        return f"there is no frame of type {kind}"
    return f"a frame of {size + FRAME_OVERHEAD} bytes is longer than the {frame_max} agreed on"


def _read_return(arguments: bytes) -> _Content:
    reader = Reader(arguments)
    content = _Content(RETURN)
    content.code = reader.short()
    content.text = reader.short_string()
    return content


# -- properties --------------------------------------------------------------------------------------------------

_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE, _PRIORITY = 1 << 15, 1 << 14, 1 << 13, 1 << 12, 1 << 11
_CORRELATION_ID, _REPLY_TO, _EXPIRATION, _MESSAGE_ID, _TIMESTAMP = 1 << 10, 1 << 9, 1 << 8, 1 << 7, 1 << 6
_TYPE, _USER_ID, _APP_ID, _CLUSTER_ID, _MORE_FLAGS = 1 << 5, 1 << 4, 1 << 3, 1 << 2, 1
_MALFORMED: Final = Properties(content_type=MALFORMED_CONTENT_TYPE)


def decode_properties(buffer: bytes, position: int, stop: int, flags: int) -> Properties:
    """The property list in ``buffer[position:stop]``, whose flags word was read already. Never raises.

    Of the 14 properties those that contract section 2 names are read, the others skipped. A list that can't be read
    comes back with ``MALFORMED_CONTENT_TYPE`` and nothing else set.
    """
    content_type = message_id = correlation_id = reply_to = user_id = app_id = None
    timestamp_s = None
    headers: dict[str, object] = {}
    try:
        if flags & _CONTENT_TYPE:
            end = position + 1 + buffer[position]
            content_type = str(buffer[position + 1 : end], "utf-8", "surrogateescape")
            position = end
        if flags & _CONTENT_ENCODING:
            position += 1 + buffer[position]
        if flags & _HEADERS:
            end = position + 4 + _unpack_u32(buffer, position)[0]
            if end > stop:
                return _MALFORMED
            if end > position + 4:
                headers = decode_table(buffer, position + 4, end)
            position = end
        if flags & _DELIVERY_MODE:
            position += 1
        if flags & _PRIORITY:
            position += 1
        if flags & _CORRELATION_ID:
            end = position + 1 + buffer[position]
            correlation_id = str(buffer[position + 1 : end], "utf-8", "surrogateescape")
            position = end
        if flags & _REPLY_TO:
            end = position + 1 + buffer[position]
            reply_to = str(buffer[position + 1 : end], "utf-8", "surrogateescape")
            position = end
        if flags & _EXPIRATION:
            position += 1 + buffer[position]
        if flags & _MESSAGE_ID:
            end = position + 1 + buffer[position]
            message_id = str(buffer[position + 1 : end], "utf-8", "surrogateescape")
            position = end
        if flags & _TIMESTAMP:
            timestamp_s = _unpack_u64(buffer, position)[0]
            position += 8
        if flags & _TYPE:
            position += 1 + buffer[position]
        if flags & _USER_ID:
            end = position + 1 + buffer[position]
            user_id = str(buffer[position + 1 : end], "utf-8", "surrogateescape")
            position = end
        if flags & _APP_ID:
            end = position + 1 + buffer[position]
            app_id = str(buffer[position + 1 : end], "utf-8", "surrogateescape")
            position = end
        if flags & _CLUSTER_ID:
            position += 1 + buffer[position]
        # One check at the end stands for one at each field: every step only ever goes forward, and what lies behind
        # ``stop`` is the frame's end or another frame, so reading there is wrong but harmless.
        if position > stop or flags & _MORE_FLAGS:
            return _MALFORMED
    except (AmqpSyntaxError, IndexError, struct.error):
        return _MALFORMED
    return Properties(content_type, message_id, correlation_id, reply_to, user_id, app_id, timestamp_s, headers)
