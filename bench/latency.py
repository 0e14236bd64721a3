"""Latency under an open loop: commands at a fixed rate, timed from when each was meant to be sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from bench.broker import COMMANDS, KILL, RESULTS, new_place
from bench.candidates import CANDIDATES, Running
from bench.load import Load, open_loop, preload
from bench.machine import cpu_s
from bench.rows import Row
from bench.throughput import LINGER_S, NO_SETTINGS, Run, broken
from bench.venue import AT_ITS_BEST, Manner, Venue
from worker.demo.node import PrivateNode

WARM_UP_S = 0.5
KILL_FIRST = 2_000_000
"""The kill lane's cancels are numbered from here on."""


def percentiles(name: str, later: Iterable[int], earlier: Iterable[int]) -> dict[str, float]:
    """p50, p99 and worst of the differences in milliseconds; a time of 0 is left out."""
    waits = sorted(b - a for a, b in zip(earlier, later, strict=True) if b)
    if not waits:
        return {}
    return {
        f"{name}_p50": waits[len(waits) // 2] / 1e6,
        f"{name}_p99": waits[min(len(waits) - 1, len(waits) * 99 // 100)] / 1e6,
        f"{name}_max": waits[-1] / 1e6,
    }


async def steady(
    node: PrivateNode,
    run: Run,
    rate: float,
    seconds: float,
    *,
    manner: Manner = AT_ITS_BEST,
    settings: Mapping[str, str] = NO_SETTINGS,
) -> Row:
    """Commands of one cancel at a fixed rate: to the wire and to the result, in ms; and CPU per cancel."""
    load = Load(int(rate * seconds))
    skipped = int(rate * WARM_UP_S)
    async with new_place(node) as place:
        with Venue(manner) as venue:
            with Running(CANDIDATES[run.candidate], place.url, venue.url, settings) as running:
                await place.until_consumed(COMMANDS)
                await asyncio.sleep(1.0)
                before = cpu_s(running.pid), cpu_s(place.broker_pid)
                timed = await open_loop(place.url, load, rate, 2 * load.total)
                used = cpu_s(running.pid) - before[0], cpu_s(place.broker_pid) - before[1]
                await asyncio.sleep(LINGER_S)
                more = await place.messages(RESULTS)
            await asyncio.sleep(LINGER_S)
            left, seen, arrivals = await place.messages(COMMANDS), venue.seen(), venue.arrivals(1, load.total)
    figures = {
        **percentiles("wire", arrivals[skipped:], timed.sent_ns[skipped:]),
        **percentiles("result", timed.final_ns[skipped:], timed.sent_ns[skipped:]),
        "cpu_us": 1e6 * used[0] / load.total,
        "broker_us": 1e6 * used[1] / load.total,
        "foreign": float(seen.foreign),
        "cancels": float(load.total),
    }
    return run.row(figures, broken(timed.received + more, 2 * load.total, left, seen.duplicates))


async def large_commands(node: PrivateNode, run: Run, cancels: int, commands: int, rate: float) -> Row:
    """Commands of many cancels, one at a time: until the last of them is on the wire; from the first to the last."""
    load = Load(commands, cancels)
    async with new_place(node) as place:
        with Venue() as venue:
            with Running(CANDIDATES[run.candidate], place.url, venue.url):
                await place.until_consumed(COMMANDS)
                await asyncio.sleep(1.0)
                timed = await open_loop(place.url, load, rate, 2 * load.total)
            await asyncio.sleep(LINGER_S)
            left, seen, arrivals = await place.messages(COMMANDS), venue.seen(), venue.arrivals(1, load.total)
    by_command = [slice(start, start + cancels) for start in range(cancels, load.total, cancels)]  # one to warm up
    sent = [timed.sent_ns[part.start] for part in by_command]
    figures = {
        **percentiles("all_on_wire", _last(arrivals, by_command), sent),
        **percentiles("first_to_last", _last(arrivals, by_command), [min(arrivals[part]) for part in by_command]),
        **percentiles("all_final", _last(timed.final_ns, by_command), sent),
    }
    return run.row(figures, broken(timed.received, 2 * load.total, left, seen.duplicates))


def _last(times: Sequence[int], parts: Iterable[slice]) -> list[int]:
    return [max(times[part]) for part in parts]


async def kill_lane(node: PrivateNode, run: Run, rate: float, seconds: float, backlog: int) -> Row:
    """The kill lane at a fixed rate while the normal lane works off a backlog (0: has nothing to do)."""
    load, normal = Load(int(rate * seconds), first=KILL_FIRST, key="kill"), Load(backlog)
    expected = 2 * (load.total + normal.total)
    async with new_place(node) as place:
        with Venue() as venue:
            await preload(place.url, normal)
            with Running(CANDIDATES[run.candidate], place.url, venue.url):
                await place.until_consumed(COMMANDS, KILL)
                timed = await open_loop(place.url, load, rate, expected)
            await asyncio.sleep(LINGER_S)
            left = await place.messages(COMMANDS) + await place.messages(KILL)
            seen = venue.seen()
            arrivals, others = venue.arrivals(KILL_FIRST, load.total), venue.arrivals(1, max(1, normal.total))
    began, ended = timed.sent_ns[0], timed.sent_ns[-1]
    skipped = int(rate * WARM_UP_S)
    figures = {
        **percentiles("wire", arrivals[skipped:], timed.sent_ns[skipped:]),
        **percentiles("result", timed.final_ns[skipped:], timed.sent_ns[skipped:]),
        "normal_rate": sum(began < at < ended for at in others) / ((ended - began) / 1e9),
    }
    wrong = broken(timed.received, expected, left, seen.duplicates)
    if not wrong and backlog and max(others) < ended:
        wrong = "the backlog was used up too early"
    return run.row(figures, wrong)
