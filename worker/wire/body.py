"""A body read key by key: slower than into a typed struct, but a key that stands twice is seen.

A decoder into structs or dicts keeps the last of two equal keys and says nothing (faults M1). Here every object is a
Record, which knows its repeated keys, however they were written (JSON escapes, MessagePack's four string headers).
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Final, Never

import msgspec
from msgspec import Raw

from worker.wire.rules import Number, Unreadable

UNREADABLE: Final = Unreadable()


class UnreadableBodyError(Exception):
    """The bytes are not what the content type says; the text says why, bounded, without quoting them."""


class Record(dict[str, object]):
    """One object of a body: the last value of each key, and which keys stood more than once."""

    __slots__ = ("repeated",)

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.repeated: frozenset[str] = frozenset()
        if len(self) != len(pairs):
            self.repeated = frozenset(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)


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
    raise json.JSONDecodeError("NaN and Infinity are no JSON", "", 0)


_JSON: Final = json.JSONDecoder(
    object_pairs_hook=Record, parse_int=Number, parse_float=Number, parse_constant=_refuse_constant
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
        return Record([(key, _data(value) if key == "data" else _leaf(value)) for key, value in envelope])
    except (msgspec.DecodeError, IndexError):
        raise UnreadableBodyError("no MessagePack") from None
    except RecursionError:
        raise UnreadableBodyError("nested too deeply") from None


_split: Final = msgspec.msgpack.Decoder(list[Raw]).decode
_decode: Final = msgspec.msgpack.Decoder().decode


def _data(packed: bytes) -> object:
    if not _is_array(packed):
        return _leaf(packed)
    items = (bytes(raw) for raw in _split(packed))
    return [
        _leaf(item) if (pairs := _pairs(item)) is None else Record([(key, _leaf(value)) for key, value in pairs])
        for item in items
    ]


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
        return Record([])
    try:
        return _decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return UNREADABLE
