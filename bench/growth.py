"""Growth: what a cancel costs as commands and cancels in flight become many; memory, and pauses of the collector."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.broker import COMMANDS, RESULTS, new_place, until
from bench.candidates import CANDIDATES, Running
from bench.load import Load, preload
from bench.machine import PLACE, PROJECT, rss_bytes
from bench.rows import Row
from bench.throughput import LINGER_S, Run, broken, drain
from bench.venue import Manner, Venue
from worker.demo.node import PrivateNode

GC_FILE: Final = PLACE / "gc.stats"
REMEMBERED: Final = 12_000
"""A little more than ``results.memory``: after so many cancels the worker's memory of ended ones has its full size."""

RELEASE_AFTER_MS: Final = 12_000


@contextmanager
def watched_collector(file: Path = GC_FILE) -> Iterator[tuple[dict[str, str], dict[str, float]]]:
    """Settings that make a worker note its collections, and figures that are filled in at the end of the block."""
    file.unlink(missing_ok=True)
    figures: dict[str, float] = {}
    yield {"PYTHONPATH": str(PROJECT / "bench" / "watch"), "BENCH_GC_FILE": str(file)}, figures
    collections, longest_ns, cpu_longest_ns = struct.unpack("<3Q", file.read_bytes())
    figures.update(gc_runs=float(collections), gc_longest_ms=longest_ns / 1e6, gc_cpu_ms=cpu_longest_ns / 1e6)


async def many_commands(node: PrivateNode, run: Run, commands: int) -> Row:
    """A backlog of so many commands: CPU per cancel, memory at the end, the longest collection."""
    with watched_collector() as (settings, collector):
        within_s = 60.0 + commands / 500
        row = await drain(node, run, Load(commands), settings=settings, within_s=within_s, on_first=forget_start_up)
    row.figures.update(collector)
    return row


def forget_start_up(_: int) -> None:
    """What was collected while the worker started does not count: nothing was in flight."""
    with GC_FILE.open("r+b") as numbers:
        numbers.write(bytes(24))


def room_for(inflight: int) -> Mapping[str, str]:
    """Settings with which so many cancels may be in flight, and none becomes doubtful for slowness."""
    return {
        "CANCEL_WORKER__BROKER__PREFETCH": str(inflight),
        "CANCEL_WORKER__BROKER__MAX_INFLIGHT": str(inflight),
        "CANCEL_WORKER__VENUE__REPORT_TIMEOUT": "60",
    }


async def many_in_flight(node: PrivateNode, run: Run, inflight: int, commands: int) -> Row:
    """A venue so slow that about so many cancels are in flight at 10,000 cancels a second."""
    manner = Manner(delay_ms=max(1, inflight // 10))
    with watched_collector() as (watch, collector):
        settings = {**room_for(inflight), **watch}
        row = await drain(node, run, Load(commands), manner=manner, settings=settings, on_first=forget_start_up)
    row.figures.update(collector)
    return row


async def memory_in_flight(node: PrivateNode, run: Run, inflight: int) -> Row:
    """Resident memory per cancel in flight: a venue that answers only when all of them are on the wire."""
    warm_up, load = Load(REMEMBERED), Load(inflight, first=REMEMBERED + 1)
    expected = 2 * (warm_up.total + load.total)
    manner = Manner(delay_ms=RELEASE_AFTER_MS)
    async with new_place(node) as place:
        with Venue(manner) as venue:
            await preload(place.url, warm_up)
            with Running(CANDIDATES[run.candidate], place.url, venue.url, room_for(inflight)) as running:
                await place.until_messages(RESULTS, 2 * warm_up.total)
                empty = rss_bytes(running.pid)
                await preload(place.url, load)
                if not await until(lambda: venue.seen().cancels >= warm_up.total + load.total, RELEASE_AFTER_MS / 1e3):
                    return run.row({}, "the venue answered before all cancels were on the wire")
                full = rss_bytes(running.pid)
                results = await place.until_messages(RESULTS, expected)
            await asyncio.sleep(LINGER_S)
            left, seen = await place.messages(COMMANDS), venue.seen()
    figures = {"bytes_per_cancel": (full - empty) / inflight, "rss_mib": full / 2**20}
    return run.row(figures, broken(results, expected, left, seen.duplicates))
