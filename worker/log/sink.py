"""Where finished lines go: a bounded buffer in front of a descriptor or stream, which never raises and never waits."""

from __future__ import annotations

import asyncio
import os
import select
import stat
import threading
from collections.abc import Callable
from typing import Final, Protocol

_BUFFER_BYTES: Final = 4 * 1024 * 1024  # what a stalled reader may leave unwritten before lines are dropped
_RETRY_S: Final = 0.05
_PIPE_BYTES: Final = 4096  # POSIX: a pipe that polls writable takes PIPE_BUF bytes without blocking


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
        self._never_full = False
        if self._stream is None:
            self._poll.register(self._fd, select.POLLOUT)
            if _is_file(self._fd):
                self._chunk, self._never_full = _BUFFER_BYTES, True
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
            while written < len(data) and (self._never_full or self._poll.poll(0)):
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


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False
