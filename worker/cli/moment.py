"""Points in time on the command line: ``--since`` and ``--until``."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Final

from worker.errors import UsageError
from worker.wire.timestamp import parse_utc

_AGO: Final = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,6})?)(?P<unit>s|m|h|d)")
_UNIT_S: Final[Mapping[str, float]] = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def moment(text: str, option: str, utc_us: int | None = None) -> int:
    """UTC microseconds of a time with a zone, of ``now``, or of so long ago: ``90s``, ``15m``, ``2h``, ``7d``.

    ``utc_us`` is the present. Raises UsageError that names the option.
    """
    now_us = time.time_ns() // 1000 if utc_us is None else utc_us
    if text == "now":
        return now_us
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now_us - round(float(ago["number"]) * _UNIT_S[ago["unit"]] * 1e6)
    try:
        return parse_utc(text)
    except ValueError:
        raise UsageError(
            f"{option} must be a time with a zone (ISO-8601), or how long ago, such as 15m, 2h or 7d"
        ) from None
