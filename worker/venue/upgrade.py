"""The HTTP answer to a WebSocket upgrade that is not 101: which status, when to come back, what it said."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from worker.errors import VenueRefusedError
from worker.venue.reasons import quoted

HEAD_END: Final = b"\r\n\r\n"
_HINTS: Final = {
    401: "check key, secret, URL and clock",
    403: "check the key's rights and its list of addresses",
}


def status_of(head: bytes) -> int:
    """The status code of a whole response head; 0 if there is none to be read."""
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    return int(words[1]) if len(words) > 1 and len(words[1]) == 3 and words[1].isdigit() else 0


def refusal(head: bytes, body: bytes, secrets: Iterable[str], now: datetime) -> VenueRefusedError:
    """The error for an answer other than 101. ``now`` is UTC, for a Retry-After given as a date."""
    status = status_of(head)
    asked = _retry_after(head, now)
    text = f"upgrade refused with HTTP {status}"
    with suppress(ValueError):
        text += f" {HTTPStatus(status).phrase}"
    if 300 <= status < 400:
        text += " (redirects are not followed)"
    if status in _HINTS:
        text += f" ({_HINTS[status]})"
    if asked is not None:
        text += f" (Retry-After {asked:.0f} s)"
    said = quoted(body, secrets)
    return VenueRefusedError(status, f"{text}: {said}" if said else text, asked)


def _retry_after(head: bytes, now: datetime) -> float | None:
    """Seconds from Retry-After, a number of them or a date (RFC 9110, 10.2.3); None if absent or unreadable."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() != b"retry-after":
            continue
        text = value.strip().decode("latin-1")
        if text.isascii() and text.isdigit():
            return float(text[:9])
        try:
            date = parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError):
            return None
        return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds())
    return None
