"""Events to bytes: the three frames of a mandatory, persistent basic.publish (contract section 3).

The method frame depends on AMQP exchange and routing key alone and is kept; header names and the few texts that repeat
are kept as bytes. One event costs about a microsecond.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Final

from worker.broker.codec import FRAME_MAX, FRAME_OVERHEAD
from worker.broker.fields import encode_short_string, short_bytes
from worker.broker.methods import BASIC_PUBLISH, encode_method
from worker.core.effects import OutEvent

CONTENT_TYPE: Final = "application/json"
APP_ID: Final = "cancel-worker"
KEPT: Final = 4096
"""Method frames kept, by routing key: routing keys hold symbols, and those come from outside."""

# content_type, headers, delivery_mode, message_id, timestamp, type, app_id; correlation_id if there is one.
_FLAGS: Final = 1 << 15 | 1 << 13 | 1 << 12 | 1 << 7 | 1 << 6 | 1 << 5 | 1 << 3
_CORRELATION_ID: Final = 1 << 10
_MANDATORY: Final = b"\x01"
_END: Final = b"\xce"
_PERSISTENT: Final = b"\x02"
_pack_header = Struct(">BHIHHQH").pack
_pack_body_head = Struct(">BHI").pack
_pack_u32 = Struct(">I").pack
_pack_u64 = Struct(">Q").pack
_CONTENT_TYPE: Final = encode_short_string(CONTENT_TYPE)
_APP_ID_END: Final = encode_short_string(APP_ID) + _END
# Of the header frame's payload, what no event changes: its head, the content type, the table's size, the delivery
# mode, the length of the message id, the timestamp and the app id.
_REST: Final = 14 + len(_CONTENT_TYPE) + 4 + 1 + 1 + 8 + len(_APP_ID_END) - 1
_LENGTH: Final = tuple(bytes((size,)) for size in range(256))


class ContentEncoder:
    """Encodes events for one channel and one AMQP exchange (``""``: the default one, where the key names a queue)."""

    __slots__ = ("_channel", "_exchange", "_limit", "_methods", "_names", "_types")

    def __init__(self, channel: int, exchange: str, frame_max: int = FRAME_MAX) -> None:
        self._channel = channel
        self._exchange = encode_short_string(exchange)
        self._limit = frame_max - FRAME_OVERHEAD
        self._methods: dict[str, bytes] = {}
        self._names: dict[str, tuple[bytes, bytes, bytes]] = {}
        self._types: dict[str, bytes] = {}

    def encode(self, event: OutEvent, routing_key: str) -> bytes:
        """The frames of one publish. A body of more than one frame's size is split."""
        method = self._methods.get(routing_key)
        if method is None:
            method = self._keep_method(routing_key)
        type_ = self._types.get(event.outcome)
        if type_ is None:
            type_ = self._types[event.outcome] = encode_short_string(event.outcome)  # outcomes are a closed set
        names = self._names
        # Headers first: the header frame begins with its length.
        parts = [method, b"", _CONTENT_TYPE, b""]
        table_size = 0
        for name, value in event.headers.items():
            as_text, as_true, as_false = names.get(name) or self._keep_name(name)
            if value is True:
                parts.append(as_true)
                table_size += len(as_true)
            elif value is False:
                parts.append(as_false)
                table_size += len(as_false)
            else:
                text = value.encode("utf-8", "surrogateescape")
                parts += (as_text, _pack_u32(len(text)), text)
                table_size += len(as_text) + 4 + len(text)
        parts[3] = _pack_u32(table_size)
        message_id = short_bytes(event.event_id)
        size = _REST + table_size + len(message_id) + len(type_)
        if event.correlation_id is None:
            flags = _FLAGS
            parts += (_PERSISTENT, _LENGTH[len(message_id)], message_id)
        else:
            flags = _FLAGS | _CORRELATION_ID
            correlation_id = short_bytes(event.correlation_id)
            size += 1 + len(correlation_id)
            parts += (
                _PERSISTENT,
                _LENGTH[len(correlation_id)],
                correlation_id,
                _LENGTH[len(message_id)],
                message_id,
            )
        body = event.body
        body_size = len(body)
        parts[1] = _pack_header(2, self._channel, size, 60, 0, body_size, flags)
        parts += (_pack_u64(event.timestamp_s), type_, _APP_ID_END)
        if 0 < body_size <= self._limit:
            parts += (_pack_body_head(3, self._channel, body_size), body, _END)
        else:
            parts += self._split(body)
        return b"".join(parts)

    def _split(self, body: bytes) -> Iterator[bytes]:
        for start in range(0, len(body), self._limit):
            part = body[start : start + self._limit]
            yield _pack_body_head(3, self._channel, len(part))
            yield part
            yield _END

    def _keep_method(self, routing_key: str) -> bytes:
        if len(self._methods) >= KEPT:
            self._methods.clear()
        arguments = b"\x00\x00" + self._exchange + encode_short_string(routing_key) + _MANDATORY
        method = self._methods[routing_key] = encode_method(self._channel, BASIC_PUBLISH, arguments)
        return method

    def _keep_name(self, name: str) -> tuple[bytes, bytes, bytes]:
        key = encode_short_string(name)
        known = self._names[name] = (key + b"S", key + b"t\x01", key + b"t\x00")
        return known
