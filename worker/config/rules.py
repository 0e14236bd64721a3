"""One key's rule: what the struct's annotation allows, in words, and whether a value obeys it."""

from __future__ import annotations

import math
from datetime import date, datetime, time
from functools import cache
from typing import Any, NamedTuple, get_type_hints

import msgspec
from msgspec import inspect

from worker.config.secret import Secret, mask_url
from worker.config.structs import Config

_LONGEST_TEXT = 4096
_LARGEST_INT = 2**63 - 1  # what TOML promises and JSON encoders take


class Key(NamedTuple):
    """One setting; ``rule`` follows "must be". ``text``: its variable in the environment needs no quotes."""

    section: str
    key: str
    type: Any
    secret: bool
    text: bool
    max_bytes: int
    rule: str

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        return f"CANCEL_WORKER__{self.section}__{self.key}".upper()

    def accept(self, value: object) -> object:
        """The value in the struct's type. Raises ValueError with the whole rule; a secret's value is never in it."""
        try:
            _well_formed(value)
            accepted: object = (
                Secret(msgspec.convert(value, str)) if self.secret else msgspec.convert(value, self.type, str_keys=True)
            )
            texts = accepted if isinstance(accepted, tuple) else (accepted,)
            if any(isinstance(text, str) and len(text.encode()) > self.max_bytes for text in texts):
                raise ValueError
        except (ValueError, RecursionError):
            shown = "" if self.secret else f", got {show(value)}"
            raise ValueError(f"must be {self.rule}{shown}") from None
        return accepted


@cache
def keys() -> dict[str, dict[str, Key]]:
    """All settings, by section and key."""
    table: dict[str, dict[str, Key]] = {}
    for section, struct in get_type_hints(Config).items():
        hints = get_type_hints(struct, include_extras=True)
        table[section] = {}
        for key, hint in hints.items():
            info = _without_none(inspect.type_info(hint))
            bare = info.type if isinstance(info, inspect.Metadata) else info
            secret = isinstance(bare, inspect.CustomType)
            text = secret or isinstance(bare, inspect.StrType | inspect.LiteralType)
            table[section][key] = Key(section, key, hint, secret, text, _max_bytes(bare), _in_words(info))
    return table


def show(value: object) -> str:
    """A value as an error quotes it: short, on one line, no password of a URL."""
    match value:
        case bool():
            return str(value).lower()
        case int() if value.bit_length() > 64:
            return "a number that is too long"
        case int() | float():
            return str(value)
        case str():
            text = mask_url(value)
            quoted = ascii(text if len(text) <= 60 else text[:57] + "...")
            return f'"{quoted[1:-1]}"'
        case list():
            return "a list" if value else "an empty list"
        case dict():
            return "a table"
        case datetime() | date() | time():
            return "a date or time"
        case _:
            return f"a {type(value).__name__}"


def _without_none(info: inspect.Type) -> inspect.Type:
    if isinstance(info, inspect.UnionType):
        rest = [member for member in info.types if not isinstance(member, inspect.NoneType)]
        return rest[0] if len(rest) == 1 else info
    return info


def _max_bytes(info: inspect.Type) -> int:
    """AMQP limits names in bytes (short strings), whereas msgspec counts characters."""
    match info:
        case inspect.StrType(max_length=int() as most):
            return most
        case inspect.VarTupleType(item_type=item):
            return _max_bytes(item)
        case _:
            return _LONGEST_TEXT


def _in_words(info: inspect.Type) -> str:
    match info:
        case inspect.Metadata(type=inner, extra_json_schema=extra):
            return str((extra or {}).get("description") or _in_words(inner))
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType():
            return "a whole number" + _range(info)
        case inspect.FloatType():
            return "a number" + _range(info)
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(f'"{value}"' for value in values)
        case inspect.VarTupleType(item_type=item, min_length=least):
            return ("a list, not empty, each " if least else "a list, each ") + _in_words(item)
        case inspect.StrType(max_length=most) if most is not None:
            return f"a text of 1 to {most} bytes without control characters"
        case inspect.DictType():
            return "a table of plain values and lists of them"
        case _:
            return "a text without control characters"


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    if info.gt is not None:
        return f" above {info.gt:.17g} and up to {info.le:.17g}" if info.le is not None else f" above {info.gt:.17g}"
    if info.ge is not None and info.le is not None:
        return f" from {info.ge:.17g} to {info.le:.17g}"
    return ""


def _well_formed(value: object) -> None:
    """Raises ValueError for what no key takes: control characters, half a surrogate pair, NaN, endless numbers."""
    match value:
        case str():
            value.encode()  # UnicodeEncodeError is a ValueError
            if not value.isprintable():
                raise ValueError
        case bool():
            return
        case int() if abs(value) > _LARGEST_INT:
            raise ValueError
        case float() if not math.isfinite(value):
            raise ValueError
        case list():
            for item in value:
                _well_formed(item)
        case dict():
            for name, item in value.items():
                _well_formed(name)
                _well_formed(item)
