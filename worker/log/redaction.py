"""What of a log line must not be seen, and values as plain data without it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from worker.config.secret import MASK, Secret, mask_url

_SHORTEST_SECRET: Final = 4  # a shorter value would mask half of every line; its key's name still masks it

SECRET_FIELDS: Final = frozenset(
    {
        "api_key",
        "api_secret",
        "apikey",
        "apisign",
        "authorization",
        "cookie",
        "password",
        "secret",
        "token",
    }
)


class Redaction:
    """Knows secret values, and masks them and the passwords of URLs."""

    def __init__(self) -> None:
        self._texts: tuple[str, ...] = ()
        self._in_json: tuple[bytes, ...] = ()

    def hide(self, *secrets: Secret | str) -> None:
        """Mask these values from now on, also percent-encoded. A rotated one stays known: it may be in use yet."""
        texts = set(self._texts)
        for secret in secrets:
            text = secret.reveal() if isinstance(secret, Secret) else secret
            if len(text) >= _SHORTEST_SECRET:
                texts |= {
                    form.encode("utf-8", "replace").decode() for form in (text, quote(text), quote(text, safe=""))
                }
        self._texts = tuple(sorted(texts, key=len, reverse=True))
        self._in_json = tuple(msgspec.json.encode(text)[1:-1] for text in self._texts)

    def suspects(self, line: bytes) -> bool:
        """Whether a line of JSON holds a known secret, or what may be a URL with a password."""
        for value in self._in_json:
            if value in line:
                return True
        return b"@" in line and b"://" in line

    def text(self, text: str) -> str:
        """``text`` with its secrets masked."""
        for secret in self._texts:
            text = text.replace(secret, MASK)
        return mask_url(text)

    def value(self, value: object) -> Any:
        """``value`` as plain data with its secrets masked, at any depth.

        May raise what the ``repr`` of a foreign object raises.
        """
        match value:
            case str():
                return self.text(value)
            case int() | float() | None:
                return value
            case Secret():
                return MASK
            case bytes() | bytearray() | memoryview() | msgspec.Raw():
                return self.text(bytes(value).decode("utf-8", "backslashreplace"))
            case Mapping():
                return {self.text(str(name)): self._field(str(name), item) for name, item in value.items()}
            case list() | tuple() | set() | frozenset():
                return [self.value(item) for item in value]
            case msgspec.Struct():
                return self.value(msgspec.structs.asdict(value))
            case BaseException():
                return self.text(describe_exception(value))
            case _:
                return self.text(in_short(value))

    def _field(self, name: str, value: object) -> object:
        return MASK if name.lower().replace("-", "_") in SECRET_FIELDS else self.value(value)


def describe_exception(error: object) -> str:
    """An exception on one line: type, message, and where it came from, innermost place first.

    ``error`` is an exception, an ``exc_info`` triple, or True for the one being handled.
    """
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1] if len(error) > 1 else None
    if not isinstance(error, BaseException):
        return ""
    places = [
        f"{Path(frame.filename).name}:{frame.lineno} {frame.name}"
        for frame in reversed(traceback.extract_tb(error.__traceback__)[-4:])
    ]
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return f"{text} ({' < '.join(places)})" if places else text


def in_short(value: object) -> str:
    """The ``repr`` of a foreign object, of bounded length."""
    text = repr(value)
    return text if len(text) <= 1000 else text[:997] + "..."
