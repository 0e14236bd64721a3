"""Which runs make up the whole benchmark, and which a quick look."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Final

from bench import faults, growth, latency, mass, startup
from bench.candidates import CANDIDATES
from bench.load import Load
from bench.rows import Row
from bench.throughput import Run, drain
from bench.venue import Manner
from worker.demo.node import PrivateNode

Step = tuple[Run, Callable[[PrivateNode, Run], Awaitable[Row]]]

OURS: Final = "worker"
ALL: Final = tuple(CANDIDATES)
FAST: Final = ("c", OURS, "node", "go", "naive")
LATENCY_S: Final = 6.0
ONE_REPORT_SESSION: Final = {"CANCEL_WORKER__VENUE__REPORT_SESSIONS": "1"}


def throughput(repetition: int, candidates: tuple[str, ...] = ALL, share: float = 1.0) -> Iterator[Step]:
    """Everybody's throughput; ``share`` of the usual number of commands."""
    for candidate in candidates:
        load = Load(int(CANDIDATES[candidate].commands * share))
        yield Run("throughput", "", candidate, repetition), partial(drain, load=load)


def open_loop(
    repetition: int,
    rates: tuple[int, ...] = (500, 2000),
    candidates: tuple[str, ...] = FAST,
    seconds: float = LATENCY_S,
) -> Iterator[Step]:
    """Latency at fixed rates."""
    for rate in rates:
        for candidate in candidates:
            run = Run("latency", f"{rate:,}/s", candidate, repetition)
            yield run, partial(latency.steady, rate=rate, seconds=seconds)


def batches(repetition: int, candidates: tuple[str, ...] = ("c", OURS, "node", "go")) -> Iterator[Step]:
    """Commands of many cancels: cost per cancel, and large ones one at a time."""
    for cancels in (1, 20, 100, 1000):
        for candidate in candidates:
            run = Run("batch", f"{cancels:,} a command", candidate, repetition)
            yield run, partial(drain, load=Load(40_000 // cancels, cancels))
    for candidate in candidates:
        yield large_command(repetition, candidate)


def large_command(repetition: int, candidate: str) -> Step:
    """How soon all 1,000 cancels of a command are on the wire."""
    run = Run("large command", "1,000 cancels", candidate, repetition)
    return run, partial(latency.large_commands, cancels=1000, commands=21, rate=1.0)


def growing(repetition: int) -> Iterator[Step]:
    """Our worker with ever more commands, and ever more cancels in flight. The million is done once."""
    for commands in (1_000, 10_000, 100_000, 1_000_000):
        if commands < 1_000_000 or repetition == 1:
            run = Run("commands", f"{commands:,}", OURS, repetition)
            yield run, partial(growth.many_commands, commands=commands)
    for inflight in (10, 100, 1_000, 10_000, 50_000):
        run = Run("in flight", f"{inflight:,}", OURS, repetition)
        yield run, partial(growth.many_in_flight, inflight=inflight, commands=max(20_000, 3 * inflight))
    run = Run("memory", "50,000 in flight", OURS, repetition)
    yield run, partial(growth.memory_in_flight, inflight=50_000)


def foreign(repetition: int) -> Iterator[Step]:
    """Our worker at 1,000/s, with and without other users' reports; one of its sessions carries reports."""
    cases = {
        "none": Manner(),
        "50,000/s, 20 a frame": Manner(foreign_rate=50_000, records=20),
        "50,000/s, 1 a frame": Manner(foreign_rate=50_000),
    }
    for case, manner in cases.items():
        run = Run("foreign reports", case, OURS, repetition)
        yield run, partial(latency.steady, rate=1000, seconds=LATENCY_S, manner=manner, settings=ONE_REPORT_SESSION)


def mixed(repetition: int) -> Iterator[Step]:
    """The kill lane alone, and while the normal lane works as fast as it can."""
    for case, backlog in (("alone", 0), ("under full normal load", 120_000)):
        run = Run("kill lane", case, OURS, repetition)
        yield run, partial(latency.kill_lane, rate=100, seconds=LATENCY_S, backlog=backlog)


def mass_cancels(repetition: int) -> Iterator[Step]:
    """Ever more open orders, and a venue that takes 2 ms for each cancel."""
    for orders in (1_000, 2_000, 5_000, 10_000):
        run = Run("mass cancel", f"{orders:,} orders", OURS, repetition)
        yield run, partial(mass.mass_cancel, orders=orders)


def broken_links(repetition: int) -> Iterator[Step]:
    """Our worker while things break."""
    for case, fault in faults.FAULTS.items():
        run = Run("fault", case, OURS, repetition)
        yield run, partial(faults.under_load, fault=fault, rate=500, seconds=10.0)


def starting(repetition: int) -> Iterator[Step]:
    """Our worker's start."""
    yield Run("start-up", "", OURS, repetition), startup.start_up


SCENARIOS: Final[dict[str, Callable[[int], Iterator[Step]]]] = {
    "throughput": throughput,
    "latency": open_loop,
    "batch": batches,
    "growth": growing,
    "foreign": foreign,
    "mixed": mixed,
    "mass": mass_cancels,
    "faults": broken_links,
    "start-up": starting,
}


def quick(repetition: int) -> Iterator[Step]:
    """The key figures in two to three minutes."""
    yield from throughput(repetition, ("c", OURS, "node", "go", "naive", "faststream"), 0.5)
    yield from open_loop(repetition, (500, 2000), ("c", OURS, "node"), 4.0)
    yield large_command(repetition, OURS)
    yield from starting(repetition)
