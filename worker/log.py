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

import asyncio
import logging
import os
import select
import stat
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import time_ns
from typing import Any, Final, Literal, NamedTuple, Protocol, cast
from urllib.parse import quote

import msgspec
import structlog

from worker.config.secret import MASK, Secret, mask_url
from worker.wire.timestamp import format_utc

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["json", "console"]

LEVELS: Final[dict[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_BUFFER_BYTES: Final = 4 * 1024 * 1024  # what a stalled reader may leave unwritten before lines are dropped
_RETRY_S: Final = 0.05
_PIPE_BYTES: Final = 4096  # POSIX: a pipe that polls writable takes PIPE_BUF bytes without blocking
_SHORTEST_SECRET: Final = 4  # a shorter value would mask half of every line; its key's name still masks it

_SECRET_FIELDS: Final = frozenset(
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
_ODD_FIELDS: Final = _SECRET_FIELDS | {"exc_info"}
_PLAIN: Final = frozenset({str, int, float, bool, type(None)})
_LIBRARIES: Final = ("aio_pika", "aiohttp", "aiormq", "asyncio", "websockets")


class Stream(Protocol):
    """Where lines go if there is no file descriptor: anything with a binary ``write``."""

    def write(self, data: bytes, /) -> object: ...


class Sink:
    """Takes finished lines. ``dropped`` counts those that were lost; nothing here raises."""

    def __init__(self, stream: int | Stream) -> None:
        self._stream = stream if not isinstance(stream, int) else None
        self._fd = stream if isinstance(stream, int) else -1
        self._poll = select.poll()
        self._chunk = _PIPE_BYTES
        if self._stream is None:
            self._poll.register(self._fd, select.POLLOUT)
            if _is_file(self._fd):
                self._chunk = _BUFFER_BYTES
        self._lines: list[bytes] = []
        self._bytes = 0
        self._torn = False
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._scheduled = False
        self.dropped = 0

    def write(self, line: bytes) -> None:
        """Take one line without its newline. It is written now, or at the end of this turn of the attached loop."""
        with self._lock:
            if self._bytes + len(line) > _BUFFER_BYTES:
                self.dropped += 1
                return
            self._lines.append(line)
            self._bytes += len(line) + 1
            loop = self._loop
            if loop is not None and self._loop_thread == threading.get_ident():
                if not self._scheduled:
                    self._scheduled = self._later(loop.call_soon, self._turn_ended)
                if self._scheduled:
                    return
        self.flush()

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Write once per turn of ``loop``; to be called in the loop's thread. ``detach`` before the loop ends."""
        self._loop, self._loop_thread, self._scheduled = loop, threading.get_ident(), False

    def detach(self) -> None:
        """Write with each line again, beginning with what is waiting."""
        self._loop = None
        self.flush()

    def flush(self) -> bool:
        """Write what the stream takes without waiting. True if nothing is left."""
        with self._lock:
            if not self._lines:
                return True
            data = b"\n".join(self._lines) + b"\n"
            written, failed = self._write_some(data)
            if failed:
                self._torn = written > 0 and data[written - 1] != 10
                self.dropped += data.count(b"\n", written)
                written = len(data)
            rest = data[written:]
            self._lines = [rest[:-1]] if rest else []
            self._bytes = len(rest)
            return not rest

    def _write_some(self, data: bytes) -> tuple[int, bool]:
        """Bytes written, and whether the stream failed."""
        written = 0
        try:
            if self._stream is not None:
                self._stream.write(data)
                return len(data), False
            if self._torn:
                os.write(self._fd, b"\n")  # ends the half line that a failure left behind
                self._torn = False
            while written < len(data) and self._poll.poll(0):
                written += os.write(self._fd, data[written : written + self._chunk])
        except (OSError, ValueError):
            return written, True
        return written, False

    def _turn_ended(self) -> None:
        self._scheduled = False
        loop = self._loop
        if not self.flush() and loop is not None:
            self._scheduled = self._later(loop.call_later, _RETRY_S, self._turn_ended)

    @staticmethod
    def _later(call: Callable[..., object], *args: object) -> bool:
        try:
            call(*args)
        except RuntimeError:  # the loop is closed
            return False
        return True


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
        return mask_url(text) if "@" in text else text

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
                return self.text(_unknown(value))

    def _field(self, name: str, value: object) -> object:
        return MASK if name.lower().replace("-", "_") in _SECRET_FIELDS else self.value(value)


class _Renderer:
    """Level and fields in, one masked line out. It never raises."""

    def __init__(self, format: Format, redaction: Redaction, colors: bool) -> None:
        self._redaction = redaction
        self._encode = msgspec.json.Encoder(enc_hook=_unknown).encode
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


class _Lines(NamedTuple):
    """What structlog calls the wrapped logger: where a line is made, and where it goes."""

    render: _Renderer
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

    def __init__(self, renderer: _Renderer, sink: Sink) -> None:
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
    renderer = _Renderer(format, redaction, colors=isinstance(target, int) and os.isatty(target))
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


def _unknown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 1000 else text[:997] + "..."


def _safe(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _target(stream: int | Stream | None) -> int | Stream:
    """The stream's descriptor, if it has one: writes then go past Python's own buffer."""
    if isinstance(stream, int):
        return stream
    try:
        descriptor: int = (sys.stdout if stream is None else cast(Any, stream)).fileno()
    except (AttributeError, OSError, ValueError):
        return sys.stdout.buffer if stream is None else stream
    return descriptor
