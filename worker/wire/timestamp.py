"""Points in time, as UTC microseconds since the epoch and as text.

One form goes out, `2019-02-13T05:17:32.000000Z` (contract section 3, protocol section 2); what comes in is ISO-8601
with a zone. Which forms of it are read:

- calendar dates, extended (`2021-09-15T04:09:42.238Z`) or basic (`20210915T040942.238Z`), not mixed, no week dates;
- `T` and `Z` in either case (RFC 3339 allows both), never a blank;
- seconds may be missing; a fraction has 1 to 9 digits after `.` or `,`, and what is below a microsecond is cut off;
- the zone is `Z`, `+hh:mm`, `+hhmm` or `+hh`; without a zone it would be a guess;
- second 60 only where a leap second can be, at 23:59 UTC; it counts as the second after it, as POSIX does;
- years 0001 to 9999 after the change to UTC; hour 24 is not read.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

US_PER_SECOND: Final = 1_000_000
MIN_US: Final = -62_135_596_800 * US_PER_SECOND
"""0001-01-01T00:00:00Z."""
MAX_US: Final = 253_402_300_800 * US_PER_SECOND - 1
"""The last microsecond of the year 9999."""

MAX_TEXT: Final = 40
"""Longer than any form read here; what is longer is refused before it is matched."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_US: Final = timedelta(microseconds=1)
_SECOND: Final = timedelta(seconds=1)
_EXTENDED: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r"(?:[Zz]|([+-])([0-9]{2})(?::?([0-9]{2}))?)"
)
_BASIC: Final = re.compile(
    r"([0-9]{4})([0-9]{2})([0-9]{2})[Tt]([0-9]{2})([0-9]{2})(?:([0-9]{2})(?:[.,]([0-9]{1,9}))?)?"
    r"(?:[Zz]|([+-])([0-9]{2})(?::?([0-9]{2}))?)"
)


@lru_cache(maxsize=1024)
def _second(second: int) -> str:
    return (_EPOCH + second * _SECOND).isoformat()[:19] + "."


def format_utc(utc_us: int) -> str:
    """`2019-02-13T05:17:32.000000Z`. Raises ValueError outside the years 1 to 9999."""
    second, fraction = divmod(utc_us, US_PER_SECOND)
    try:
        return f"{_second(second)}{fraction:06d}Z"
    except OverflowError:
        raise ValueError("a time outside the years 0001 to 9999") from None


def parse_utc(text: str) -> int:
    """UTC microseconds of an ISO-8601 time with a zone. Raises ValueError, without the text, for anything else."""
    return (datetime.fromisoformat(text) - _EPOCH) // _US if _is_canonical(text) else _parse(text)


def normalise_utc(text: str) -> str:
    """The same point in time as format_utc writes it. Raises ValueError as parse_utc does."""
    return text if _is_canonical(text) else format_utc(_parse(text))


def _is_canonical(text: str) -> bool:
    """Whether it is as format_utc writes it, as nearly all is; of anything else _parse is the judge."""
    if len(text) != 27 or text[26] != "Z" or text[4:20:3] != "--T::.":
        return False
    try:
        datetime.fromisoformat(text)  # reads more than that, but in this shape nothing else
    except ValueError:  # no such day or hour, second 60, or no digits
        return False
    return True


def _parse(text: str) -> int:
    match = (_EXTENDED.fullmatch(text) or _BASIC.fullmatch(text)) if len(text) <= MAX_TEXT else None
    if match is None:
        raise ValueError("not an ISO-8601 time with a zone")
    year, month, day, hour, minute, second, fraction, sign, zone_hour, zone_minute = match.groups(default="0")
    leap = second == "60"
    # Raises ValueError for a day or an hour that the calendar does not have.
    local = datetime(int(year), int(month), int(day), int(hour), int(minute), 59 if leap else int(second), tzinfo=UTC)
    if int(zone_hour) > 23 or int(zone_minute) > 59:
        raise ValueError("a zone a day or more from UTC")
    offset_s = int(zone_hour) * 3600 + int(zone_minute) * 60
    utc_s = (local - _EPOCH) // _SECOND + (offset_s if sign == "-" else -offset_s)
    if leap:
        if utc_s % 86_400 != 86_399:
            raise ValueError("second 60 where no leap second can be")
        utc_s += 1
    return _in_range(utc_s * US_PER_SECOND + int(fraction.ljust(6, "0")[:6]))


def from_datetime(value: datetime) -> int:
    """UTC microseconds of a datetime; a naive one is UTC, as an AMQP timestamp is. Raises ValueError out of range."""
    since_epoch = (value.replace(tzinfo=UTC) if value.tzinfo is None else value) - _EPOCH
    return _in_range(since_epoch // _US)


def _in_range(utc_us: int) -> int:
    if not MIN_US <= utc_us <= MAX_US:
        raise ValueError("a time outside the years 0001 to 9999")
    return utc_us
