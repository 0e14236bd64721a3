"""An event becomes one line: JSON, or text for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from time import time_ns
from typing import Any, Final, Literal

import msgspec
import structlog

from worker.log.redaction import SECRET_FIELDS, Redaction, describe_exception, in_short
from worker.wire.timestamp import format_utc

Format = Literal["json", "console"]

_ODD_FIELDS: Final = SECRET_FIELDS | {"exc_info"}
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})


class Renderer:
    """Level and fields in, one masked line out. It never raises."""

    def __init__(self, format: Format, redaction: Redaction, colors: bool) -> None:
        self._redaction = redaction
        self._encode = msgspec.json.Encoder(enc_hook=in_short).encode
        self._console = structlog.dev.ConsoleRenderer(colors=colors) if format == "console" else None

    def __call__(self, level: str, event: Mapping[str, Any], /) -> bytes:
        fields: dict[str, Any] = {"timestamp": format_utc(time_ns() // 1000), "level": level, "event": None, **event}
        try:
            if self._console is None and _ODD_FIELDS.isdisjoint(event) and _PLAIN.issuperset(map(type, event.values())):
                line = self._encode(fields)
                if not self._redaction.suspects(line):
                    return line
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError):
            pass  # half a surrogate pair, a number beyond 64 bits
        try:
            return self._render_odd(fields)
        except Exception:  # noqa: BLE001 - whatever a field's repr may raise: faults M4
            return self._encode({"timestamp": fields["timestamp"], "level": "error", "event": "log_line_lost"})

    def _render_odd(self, fields: dict[str, Any]) -> bytes:
        """A line for a terminal, or with a field that is to be masked or that is no plain value."""
        error = fields.pop("exc_info", None)
        if error:
            fields["exception"] = describe_exception(error)
        fields = self._redaction.value(fields)
        if self._console is not None:
            text = str(self._console(None, fields["level"], fields))
            return text.replace("\n", "\\n").encode("utf-8", "backslashreplace")
        try:
            return self._encode(fields)
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError):
            return self._encode({_safe(name): _safe(value) for name, value in fields.items()})


def _safe(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()
