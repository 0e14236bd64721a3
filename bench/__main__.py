"""``python -m bench``: the benchmarks of this project. See README.md beside this file."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import rows, suite
from bench.candidates import CANDIDATES
from bench.load import Load
from bench.machine import PLACE
from bench.profile import Profiler
from bench.report import document, tables
from bench.suite import SCENARIOS, Step
from bench.throughput import Run, drain
from worker.demo.node import PrivateNode
from worker.errors import CancelWorkerError

TRIES = 2
"""A run that did not meet its conditions is kept, and tried once more."""


async def measure(steps: Iterator[Step], file: Path, only: frozenset[str]) -> None:
    """Do all runs, one after the other, each on a vhost of its own; a line and a row for each."""
    async with PrivateNode() as node:
        for run, step in steps:
            if not CANDIDATES[run.candidate].is_there or (only and run.candidate not in only):
                continue
            for _ in range(TRIES):
                try:
                    row = await step(node, run)
                except (TimeoutError, RuntimeError) as error:
                    row = run.row({}, str(error))
                rows.append(file, row)
                print(row.line(), flush=True)
                if not row.broken:
                    break
                keep_log(run)


def keep_log(run: Run) -> None:
    """Put the log of a run that broke a condition aside, before the next one overwrites it."""
    log = CANDIDATES[run.candidate].log
    kept = "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()) for part in (run.scenario, run.case) if part)
    copy = shutil.copy(log, log.with_name(f"broken-{run.candidate}-{kept}-{run.repetition}.log"))
    print(f"  its log: {copy}", flush=True)


def repeated(times: int, *parts: Callable[[int], Iterator[Step]]) -> Iterator[Step]:
    """All parts once, then all again, so that candidates are interleaved and slow drifts hit everybody."""
    for repetition in range(1, times + 1):
        for part in parts:
            yield from part(repetition)


async def profile() -> None:
    """One throughput run of our worker with py-spy beside it, after one without, which tells the CPU per cancel."""
    load = Load(CANDIDATES["worker"].commands)
    async with PrivateNode() as node:
        plain = await drain(node, Run("throughput", "", "worker", 1), load)
        profilers: list[Profiler] = []
        await drain(
            node, Run("throughput", "profiled", "worker", 1), load, on_first=lambda pid: profilers.append(Profiler(pid))
        )
    for line in profilers[0].lines(plain.figures["cpu_us"]):
        print(line)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    choice = f"quick (the default), all, profile, report FILE..., or some of: {', '.join(SCENARIOS)}"
    parser.add_argument("what", nargs="*", default=["quick"], help=choice)
    parser.add_argument("--repetitions", type=int, help="default 3, quick: 1")
    parser.add_argument("--only", default="", help="candidates, separated by commas")
    parser.add_argument("--output", type=Path, help="rows go here; default .cache/bench/results-TIME.jsonl")
    given = parser.parse_args()
    what: list[str] = given.what
    if what[0] == "report":
        document([row for file in what[1:] for row in rows.read(Path(file))])
        return 0
    if what == ["profile"]:
        asyncio.run(profile())
        return 0
    if what == ["quick"]:
        steps = repeated(given.repetitions or 1, suite.quick)
    else:
        names = list(SCENARIOS) if what == ["all"] else what
        if unknown := set(names) - set(SCENARIOS):
            parser.error(f"no such scenario: {', '.join(unknown)}")
        steps = repeated(given.repetitions or 3, *(SCENARIOS[name] for name in names))
    stamp = dt.datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    file = given.output or PLACE / f"results-{stamp}.jsonl"
    try:
        asyncio.run(measure(steps, file, frozenset(filter(None, given.only.split(",")))))
    except CancelWorkerError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_status
    print(f"\n{tables(list(rows.read(file)))}\nrows: {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
