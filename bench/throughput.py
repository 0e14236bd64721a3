"""Throughput: a backlog of commands, the time until all their results are in the results queue, CPU per cancel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from bench.broker import COMMANDS, RESULTS, new_place, until
from bench.candidates import CANDIDATES, Running
from bench.load import Load, preload
from bench.machine import cpu_s, rss_bytes
from bench.rows import Row
from bench.venue import AT_ITS_BEST, Manner, Venue
from worker.demo.node import PrivateNode

START_WITHIN_S = 30.0
LINGER_S = 0.3
"""How long a run waits for what should not come: a third result, a second cancel."""

NO_SETTINGS: Mapping[str, str] = {}


class Run(NamedTuple):
    """Which run this is in the tables."""

    scenario: str
    case: str
    candidate: str
    repetition: int

    def row(self, figures: dict[str, float], broken: str) -> Row:
        return Row(self.scenario, self.case, self.candidate, self.repetition, figures, broken)


async def drain(
    node: PrivateNode,
    run: Run,
    load: Load,
    *,
    manner: Manner = AT_ITS_BEST,
    settings: Mapping[str, str] = NO_SETTINGS,
    within_s: float = 300.0,
    on_first: Callable[[int], object] = lambda pid: None,
) -> Row:
    """One run; ``on_first`` gets the process id once the first cancel is on the wire.

    Its conditions: exactly two results per cancel, no command left over, no cancel sent twice.
    """
    async with new_place(node) as place:
        with Venue(manner) as venue:
            await preload(place.url, load)
            await asyncio.sleep(LINGER_S)
            with Running(CANDIDATES[run.candidate], place.url, venue.url, settings) as running:
                pids = {"cpu_us": running.pid, "broker_us": place.broker_pid, "venue_us": venue.pid}
                if not await until(lambda: venue.seen().cancels > 0, START_WITHIN_S):
                    raise RuntimeError(f"{run.candidate} sent no cancel; see the logs in .cache/bench")
                on_first(running.pid)
                before = {name: cpu_s(pid) for name, pid in pids.items()}
                await place.until_messages(RESULTS, 2 * load.total, within_s)
                finished_ns = time.monotonic_ns()
                used = {name: cpu_s(pid) - before[name] for name, pid in pids.items()}
                memory = rss_bytes(running.pid)
                await asyncio.sleep(LINGER_S)
                results = await place.messages(RESULTS)
            await asyncio.sleep(LINGER_S)
            left = await place.messages(COMMANDS)
            seen = venue.seen()
    figures = {
        "rate": load.total / ((finished_ns - seen.first_ns) / 1e9),
        **{name: 1e6 * spent / load.total for name, spent in used.items()},
        "per_frame": seen.cancels / max(1, seen.frames),
        "rss_mib": memory / 2**20,
    }
    return run.row(figures, broken(results, 2 * load.total, left, seen.duplicates))


def broken(results: int, expected: int, left: int, duplicates: int) -> str:
    """The condition that a run did not meet; empty if it met them all."""
    if results != expected:
        return f"{results} results, expected {expected}"
    if left:
        return f"{left} commands left over"
    return f"{duplicates} cancels sent twice" if duplicates else ""
