"""A body read key by key: slower than into a typed struct, but a key that stands twice is seen.

A decoder into structs or dicts keeps the last of two equal keys and says nothing (faults M1). Here every object is a
Record, which knows its repeated keys, however they were written (JSON escapes, MessagePack's four string headers).
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final, Never

import msgspec
from msgspec import Raw

from worker.wire.rules import Number, Unreadable

UNREADABLE: Final = Unreadable()
MAX_ITEMS: Final = 1000
"""Cancels in a command (contract section 2, `data`)."""


class UnreadableBodyError(Exception):
    """The bytes are not what the content type says; the text says why, bounded, without quoting them."""


class Record(dict[str, object]):
    """One object of a body: the last value of each key, and which keys stood more than once."""

    repeated: frozenset[str] = frozenset()


def _record(pairs: list[tuple[str, Any]]) -> Record:
    record = Record(pairs)
    if len(record) != len(pairs):
        record.repeated = frozenset(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
    return record


def read_json(body: bytes) -> object:
    """The value of a JSON body: Record, list, str, Number, bool or None. Raises UnreadableBodyError."""
    try:
        return _JSON.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UnreadableBodyError(f"no UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise UnreadableBodyError(f"no JSON at character {error.pos}") from None
    except RecursionError:
        raise UnreadableBodyError("nested too deeply") from None


def _refuse_constant(_: str) -> Never:
    raise UnreadableBodyError("NaN and Infinity are no JSON")


_JSON: Final = json.JSONDecoder(
    object_pairs_hook=_record, parse_int=Number, parse_float=Number, parse_constant=_refuse_constant
)


def read_msgpack(body: bytes) -> object:
    """The value of a MessagePack body: its object, the elements of `data`, the objects among them; scalars as decoded.

    What is deeper, or under a key that is no text, has no meaning in a command: only its framing is checked.
    Raises UnreadableBodyError.
    """
    try:
        envelope = _pairs(body)
        if envelope is None:
            return _leaf(body)
        return _record([(key, _data(value) if key == "data" else _leaf(value)) for key, value in envelope])
    except (msgspec.DecodeError, IndexError):
        raise UnreadableBodyError("no MessagePack") from None
    except RecursionError:
        raise UnreadableBodyError("nested too deeply") from None


_split: Final = msgspec.msgpack.Decoder(list[Raw]).decode
_decode: Final = msgspec.msgpack.Decoder().decode


def _data(packed: bytes) -> object:
    if not _is_array(packed):
        return _leaf(packed)
    items = _split(packed)
    if len(items) > MAX_ITEMS:  # refused whatever they are; reading a million would hold up the loop
        return items
    return [_item(bytes(raw)) for raw in items]


def _item(packed: bytes) -> object:
    pairs = _pairs(packed)
    return _leaf(packed) if pairs is None else _record([(key, _leaf(value)) for key, value in pairs])


def _pairs(packed: bytes) -> list[tuple[str, bytes]] | None:
    """The pairs of a map whose keys are texts, in their order; None: no map.

    A map of n pairs is laid out as an array of 2n elements under another header, and arrays can be split undecoded.
    """
    head = packed[0]
    if 0x80 <= head <= 0x8F:
        count, start = head & 0x0F, 1
    elif head in (0xDE, 0xDF):
        start = 3 if head == 0xDE else 5
        count = int.from_bytes(packed[1:start], "big")
    else:
        return None
    if count > len(packed):
        raise UnreadableBodyError("no MessagePack")
    flat = _split(b"\xdd" + (2 * count).to_bytes(4, "big") + packed[start:])
    return [
        (key, bytes(value))
        for name, value in zip(flat[::2], flat[1::2], strict=True)
        if isinstance(key := _leaf(bytes(name)), str)
    ]


def _is_array(packed: bytes) -> bool:
    return 0x90 <= packed[0] <= 0x9F or packed[0] in (0xDC, 0xDD)


def _leaf(packed: bytes) -> object:
    if _is_array(packed):
        return _split(packed)
    if 0x80 <= packed[0] <= 0x8F or packed[0] in (0xDE, 0xDF):
        return Record()
    try:
        return _decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return UNREADABLE
