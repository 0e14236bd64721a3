"""Logging: the one place that configures structlog. One line per event, as JSON or for a terminal, to one stream.

A log call never raises, never waits for a slow reader and never shows a secret (contract 4.8, faults M4):

- A line is rendered at once and joins a bounded buffer. While a loop is attached the buffer is written once per turn of
  the loop, otherwise with each line. A pipe that takes nothing keeps the buffer; a full buffer or a failing write (a
  full disk, a closed pipe) drops lines and counts them.
- Fields whose name tells a secret are masked, at any depth; known secret values and the passwords of URLs are masked
  wherever they stand. A finished line is searched for them first, so that a line without any pays for no more.
- The libraries' loggers come through the same renderer, from WARNING on: below it websockets prints the headers of the
  log-in (faults W13).
- An exception is one field: type, message, and the innermost places of its traceback.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, cast

import structlog

from worker.config.secret import Secret
from worker.log.redaction import Redaction, describe_exception
from worker.log.render import Format, Renderer
from worker.log.sink import Sink, Stream

__all__ = ["Format", "Level", "Log", "Logger", "Sink", "Stream", "configure", "describe_exception", "get_logger"]

Level = Literal["debug", "info", "warning", "error"]

LEVELS: Final[dict[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_LIBRARIES: Final = ("aio_pika", "aiohttp", "aiormq", "asyncio", "websockets")


class _Lines(NamedTuple):
    """What structlog calls the wrapped logger: where a line is made, and where it goes."""

    render: Renderer
    write: Callable[[bytes], None]


class Logger(structlog.BoundLoggerBase):
    """``log.info("session_ready", session=3)``: a stable event name and fields. Calls never raise and never wait.

    structlog's own filtering logger copies context and fields four times on the way through its chain; with a single
    processor that is 2 of 6 microseconds a line, so the levels go straight to the renderer here.
    """

    _logger: _Lines

    def debug(self, event: str, /, **fields: object) -> None:
        self._line("debug", event, fields)

    def info(self, event: str, /, **fields: object) -> None:
        lines = self._logger
        lines.write(lines.render("info", {"event": event, **self._context, **fields}))

    def warning(self, event: str, /, **fields: object) -> None:
        self._line("warning", event, fields)

    def error(self, event: str, /, **fields: object) -> None:
        self._line("error", event, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """``error`` with the exception that is being handled."""
        self._line("error", event, {"exc_info": True, **fields})

    def _line(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        lines = self._logger
        lines.write(lines.render(level, {"event": event, **self._context, **fields}))


def _nothing(self: Logger, event: str, /, **fields: object) -> None:
    """A level that is switched off."""


def _logger_from(level: Level) -> type[Logger]:
    off = {name: _nothing for name, number in LEVELS.items() if number < LEVELS[level]}
    return type("Logger", (Logger,), off)


class _FromLibrary(logging.Handler):
    """Records of the standard library's loggers, as events."""

    def __init__(self, renderer: Renderer, sink: Sink) -> None:
        super().__init__()
        self._renderer = renderer
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that do not fit their format are not ours
            text = str(record.msg)
        event: dict[str, Any] = {"event": "library_message", "logger": record.name, "message": text}
        if record.exc_info:
            event["exc_info"] = record.exc_info
        level = record.levelname.lower()
        self._sink.write(self._renderer(level if level in LEVELS else "error", event))


class Log:
    """What ``configure`` set up: the sink, to attach a loop to and to read ``dropped`` from; secrets to hide."""

    def __init__(self, sink: Sink, redaction: Redaction) -> None:
        self.sink = sink
        self.hide = redaction.hide

    @property
    def dropped(self) -> int:
        """Lines lost since the start."""
        return self.sink.dropped


def configure(
    level: Level = "info", format: Format = "json", stream: int | Stream | None = None, hide: Iterable[Secret] = ()
) -> Log:
    """Set up logging for this process; may be called again. ``stream``: a file descriptor or a binary stream, unset:
    standard output. ``hide``: secrets known so far."""
    target = _target(stream)
    sink = Sink(target)
    redaction = Redaction()
    redaction.hide(*hide)
    renderer = Renderer(format, redaction, colors=isinstance(target, int) and os.isatty(target))
    structlog.configure(
        processors=[],
        wrapper_class=_logger_from(level),
        logger_factory=lambda *_: _Lines(renderer, sink.write),
        cache_logger_on_first_use=False,
    )
    handler = _FromLibrary(renderer, sink)
    threshold = max(logging.WARNING, LEVELS[level])
    root = logging.getLogger()
    for old in [old for old in root.handlers if isinstance(old, _FromLibrary)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(threshold)
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(threshold)
    logging.raiseExceptions = False
    return Log(sink, redaction)


def get_logger(**bound: object) -> Logger:
    """A logger with these fields on each line. Get it after ``configure``, once per part, not per line."""
    return cast(Logger, structlog.get_logger().bind(**bound))


def _target(stream: int | Stream | None) -> int | Stream:
    """The stream's descriptor, if it has one: writes then go past Python's own buffer."""
    if isinstance(stream, int):
        return stream
    try:
        descriptor: int = (sys.stdout if stream is None else cast(Any, stream)).fileno()
    except (AttributeError, OSError, ValueError):
        return sys.stdout.buffer if stream is None else stream
    return descriptor
