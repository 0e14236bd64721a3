"""The venue of the benchmarks, as a process of its own (c/venue.c), and what it has seen."""

from __future__ import annotations

import mmap
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from bench.machine import PLACE

MAX_SEQ = 1 << 21
"""Cancels of one run are numbered from 1 to here, as in c/base.h."""


class Seen(NamedTuple):
    """The head of the venue's statistics; times in nanoseconds of the monotonic clock."""

    cancels: int
    frames: int
    first_ns: int
    last_ns: int
    duplicates: int
    foreign: int
    sessions: int
    pings: int


class Manner(NamedTuple):
    """How the venue behaves; by default at its best.

    ``delay_ms``: answers that late. ``foreign_rate``: reports a second on other users' orders, to each session.
    ``records``: reports in one frame at most. ``own_session_only``: reports go to the session that sent the cancel
    alone, else to every one. ``open_orders``: so many stand open at first.
    """

    delay_ms: int = 0
    foreign_rate: int = 0
    records: int = 1
    own_session_only: bool = False
    open_orders: int = 0


AT_ITS_BEST: Final = Manner()


class Venue:
    """Runs while its ``with`` block does."""

    def __init__(self, manner: Manner = AT_ITS_BEST, file: Path = PLACE / "venue.stats") -> None:
        file.unlink(missing_ok=True)
        options = ["-d", str(manner.delay_ms), "-f", str(manner.foreign_rate), "-r", str(manner.records)]
        options += ["-n", str(manner.open_orders)]
        if manner.own_session_only:
            options.append("-o")
        self._process = subprocess.Popen([PLACE / "venue", *options, file], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        if not port:
            raise RuntimeError("the venue did not start")
        self.url = f"ws://127.0.0.1:{port}/ws/v1"
        with file.open("r+b") as opened:
            self._stats = mmap.mmap(opened.fileno(), 0)

    @property
    def pid(self) -> int:
        return self._process.pid

    def seen(self) -> Seen:
        """What came so far."""
        return Seen(*struct.unpack_from("<8Q", self._stats))

    def arrivals(self, first: int, count: int) -> tuple[int, ...]:
        """When the cancels from number ``first`` on came, in nanoseconds; 0: not yet."""
        return struct.unpack_from(f"<{count}Q", self._stats, 8 * (8 + first))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._stats.close()
