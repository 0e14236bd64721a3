"""AMQP 0-9-1 field values and tables (4.2.5), and a reader of method arguments.

The field types are those that RabbitMQ reads and sends, which differ from the specification's in ``s`` (16 bits,
signed), ``l`` and ``L`` (both 64 bits, signed) and ``x`` (bytes). Values come out as str, int, bool, float, aware
datetime, bytes, list, dict and None. A string that is not UTF-8 is decoded with ``surrogateescape``: it can be told
from every valid one, and encodes back to the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Final

MAX_DEPTH: Final = 64
"""Tables and arrays inside each other; deeper ones are refused rather than exhaust the stack."""

_unpack_u16 = Struct(">H").unpack_from
_unpack_u32 = Struct(">I").unpack_from
_unpack_u64 = Struct(">Q").unpack_from
_pack_u16 = Struct(">H").pack
_pack_u32 = Struct(">I").pack
_pack_i32 = Struct(">i").pack
_pack_i64 = Struct(">q").pack

# The types of one number: how to read it, and its size in bytes.
_NUMBERS: Final = {
    ord(kind): (Struct(code).unpack_from, Struct(code).size)
    for kind, code in {
        "b": ">b",
        "B": ">B",
        "s": ">h",
        "u": ">H",
        "I": ">i",
        "i": ">I",
        "l": ">q",
        "L": ">q",
        "f": ">f",
        "d": ">d",
    }.items()
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND: Final = int((datetime.max.replace(tzinfo=UTC) - _EPOCH).total_seconds())


class AmqpSyntaxError(ValueError):
    """The peer sent something that is no AMQP 0-9-1. The text names the rule that was broken, never the bytes."""


def decode_table(buffer: bytes, start: int, stop: int) -> dict[str, object]:
    """The table whose entries are ``buffer[start:stop]`` (its length, 4 bytes, stands before ``start``).

    Raises AmqpSyntaxError.
    """
    try:
        return _table(buffer, start, stop, 0)
    except (IndexError, struct.error):
        raise AmqpSyntaxError("a field table is cut short") from None


def _table(buffer: bytes, position: int, stop: int, depth: int) -> dict[str, object]:
    if depth > MAX_DEPTH:
        raise AmqpSyntaxError(f"field tables more than {MAX_DEPTH} deep")
    table: dict[str, object] = {}
    while position < stop:
        end = position + 1 + buffer[position]
        key = str(buffer[position + 1 : end], "utf-8", "surrogateescape")
        kind = buffer[end]
        if kind == 0x53:  # "S" and whole numbers are what headers are made of
            start = end + 5
            position = start + _unpack_u32(buffer, end + 1)[0]
            table[key] = str(buffer[start:position], "utf-8", "surrogateescape")
        elif kind in _NUMBERS:
            unpack, size = _NUMBERS[kind]
            table[key] = unpack(buffer, end + 1)[0]
            position = end + 1 + size
        else:
            table[key], position = _value(buffer, end, stop, depth)
    if position > stop:
        raise AmqpSyntaxError("a field is longer than its table")
    return table


def _value(buffer: bytes, position: int, stop: int, depth: int) -> tuple[object, int]:
    """The value whose type octet is at ``position``, and the position behind it."""
    kind = buffer[position]
    position += 1
    if kind in _NUMBERS:
        unpack, size = _NUMBERS[kind]
        return unpack(buffer, position)[0], position + size
    match kind:
        case 0x53:  # S: long string
            start = position + 4
            end = start + _unpack_u32(buffer, position)[0]
            return str(buffer[start:end], "utf-8", "surrogateescape"), end
        case 0x74:  # t
            return buffer[position] != 0, position + 1
        case 0x54:  # T: seconds since the epoch
            return _timestamp(_unpack_u64(buffer, position)[0]), position + 8
        case 0x46 | 0x41:  # F: table, A: array
            start = position + 4
            end = start + _unpack_u32(buffer, position)[0]
            if end > stop:
                raise AmqpSyntaxError("a field is longer than its table")
            inside = _table if kind == 0x46 else _array
            return inside(buffer, start, end, depth + 1), end
        case 0x56:  # V
            return None, position
        case 0x44:  # D: value times ten to the minus scale
            return _unpack_u32(buffer, position + 1)[0] / 10 ** buffer[position], position + 5
        case 0x78:  # x: bytes
            start = position + 4
            end = start + _unpack_u32(buffer, position)[0]
            return buffer[start:end], end
    raise AmqpSyntaxError(f"there is no field type {kind:#04x}")


def _array(buffer: bytes, position: int, stop: int, depth: int) -> list[object]:
    if depth > MAX_DEPTH:
        raise AmqpSyntaxError(f"field tables more than {MAX_DEPTH} deep")
    values: list[object] = []
    while position < stop:
        value, position = _value(buffer, position, stop, depth)
        values.append(value)
    if position > stop:
        raise AmqpSyntaxError("a field is longer than its array")
    return values


def _timestamp(seconds: int) -> datetime | int:
    # A second that no datetime can hold stays a number: not a time, and whoever expects one will say so.
    return _EPOCH + timedelta(seconds=seconds) if seconds <= _LAST_SECOND else seconds


class Reader:
    """Reads the arguments of one method in order. Every call raises AmqpSyntaxError when the bytes are used up."""

    __slots__ = ("_buffer", "_position")

    def __init__(self, arguments: bytes) -> None:
        self._buffer = arguments
        self._position = 0

    def _take(self, size: int) -> int:
        start = self._position
        if start + size > len(self._buffer):
            raise AmqpSyntaxError("the arguments of a method are cut short")
        self._position = start + size
        return start

    def octet(self) -> int:
        """8 bits."""
        return self._buffer[self._take(1)]

    def short(self) -> int:
        """16 bits, unsigned."""
        return int(_unpack_u16(self._buffer, self._take(2))[0])

    def long(self) -> int:
        """32 bits, unsigned."""
        return int(_unpack_u32(self._buffer, self._take(4))[0])

    def short_string(self) -> str:
        """At most 255 bytes."""
        size = self.octet()
        start = self._take(size)
        return self._buffer[start : start + size].decode("utf-8", "surrogateescape")

    def long_string(self) -> str:
        """Up to 4 GiB, and to the frame's end."""
        size = self.long()
        start = self._take(size)
        return self._buffer[start : start + size].decode("utf-8", "surrogateescape")

    def table(self) -> dict[str, object]:
        """A field table."""
        size = self.long()
        start = self._take(size)
        return decode_table(self._buffer, start, start + size)


# -- to bytes -----------------------------------------------------------------------------------------------------


def short_bytes(text: str) -> bytes:
    """At most 255 bytes of ``text``, cut at a character.

    What goes out was checked where it came in, or came as such a string itself; were it too long all the same, an event
    that can never be published would hold its command for ever.
    """
    data = text.encode("utf-8", "surrogateescape")
    return data if len(data) <= 255 else data[:255].decode("utf-8", "ignore").encode()


def encode_short_string(text: str) -> bytes:
    """Length octet and ``short_bytes``."""
    data = short_bytes(text)
    return bytes((len(data),)) + data


def encode_long_string(text: str) -> bytes:
    """Length of 4 bytes and the text as UTF-8."""
    data = text.encode("utf-8", "surrogateescape")
    return _pack_u32(len(data)) + data


def encode_table(table: Mapping[str, object]) -> bytes:
    """A field table of str, bool, int, bytes, datetime, None, float, list and dict values, length included.

    Raises TypeError on anything else, OverflowError on an int of more than 64 bits.
    """
    entries = b"".join(encode_short_string(key) + _encode_value(value) for key, value in table.items())
    return _pack_u32(len(entries)) + entries


def _encode_value(value: object) -> bytes:
    match value:
        case str():
            return b"S" + encode_long_string(value)
        case bool():
            return b"t\x01" if value else b"t\x00"
        case int():
            if -(2**31) <= value < 2**31:
                return b"I" + _pack_i32(value)
            if -(2**63) <= value < 2**63:
                return b"l" + _pack_i64(value)
            raise OverflowError("a field holds integers of 64 bits at most")
        case bytes():
            return b"x" + _pack_u32(len(value)) + value
        case datetime():
            return b"T" + Struct(">Q").pack(int((value - _EPOCH).total_seconds()))
        case None:
            return b"V"
        case float():
            return b"d" + Struct(">d").pack(value)
        case dict():
            return b"F" + encode_table(value)
        case list():
            items = b"".join(map(_encode_value, value))
            return b"A" + _pack_u32(len(items)) + items
    raise TypeError(f"a field can't hold a {type(value).__name__}")
