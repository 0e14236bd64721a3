"""A text that must not be seen: shown masked wherever it is printed, logged or formatted (contract 4.8)."""

from __future__ import annotations

import re
from typing import NoReturn

MASK = "***"

# The password of any URL inside a text: from the colon after the user to the last @ before a blank, the end, or the
# next URL of a list; one slash will do, as in a URL that was taken for a path. Greedy on purpose: a raw / or @ in a
# password is a mistake, but must not show the rest of it. Of the scheme its last letter will do: to look for its
# beginning takes the square of a long word's length.
_URL_PASSWORD = re.compile(
    r"(?P<head>[A-Za-z0-9+.-]://?[^\s/?#:@]*):\S*?@(?=[^\s@]*(?:,\s*[A-Za-z][A-Za-z0-9+.-]*://|\s|\Z))"
)


class Secret:
    """Holds a secret text. ``reveal()`` gives it; ``str``, ``repr``, ``format`` and errors give the mask. Can't be
    pickled."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that needs it."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        return MASK

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return self._text == other._text

    def __hash__(self) -> int:
        return hash(("Secret", self._text))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")


def mask_url(text: str) -> str:
    """``text`` with the password of every URL in it masked: ``amqp://user:***@host/``."""
    return _URL_PASSWORD.sub(rf"\g<head>:{MASK}@", text) if "@" in text else text
