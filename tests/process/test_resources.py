"""Descriptors and memory run out: what is held is bounded, then the worker takes nothing, or ends (faults 3)."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.process.harness import COMMANDS, Stage, Worker, cancel_of
from tests.support.timing import SECOND, eventually
from worker.simulator import Behaviour, Script


def _limit(worker: Worker, what: int, most: int) -> None:
    resource.prlimit(worker.process.pid, what, (most, resource.prlimit(worker.process.pid, what)[1]))


def _bytes(worker: Worker, name: str) -> int:
    """A figure of /proc/PID/status, for example VmRSS."""
    status = Path(f"/proc/{worker.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) * 1024


async def test_out_of_descriptors_it_goes_on_with_what_is_open_and_heals(stage: Stage) -> None:
    """Sessions that are lost cannot be made anew: no command is taken, the reason is told, and it may end any time."""
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    worker = await stage.start()
    soft = resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE)[0]
    _limit(worker, resource.RLIMIT_NOFILE, 3)
    await stage.publish_each(stage.place(10))
    await stage.settled()
    stage.venue.cut()
    await eventually(lambda: worker.log_events("log_in_failed"), 10 * SECOND)
    await eventually(lambda: len(worker.log_events("consumer_stopped")) == 2, 10 * SECOND)
    assert "too many open files" in worker.log_events("log_in_failed")[0]["reason"]
    await stage.publish_each(stage.place(10))
    assert await stage.broker.depth(COMMANDS) == 10
    assert (await worker.get("/readyz"))[0] != 200
    assert worker.running
    _limit(worker, resource.RLIMIT_NOFILE, soft)
    await stage.settled()
    await worker.until_ready()
    await stage.end_all()
    stage.check_finals(once=True)
    assert max(stage.sends().values()) == 1


async def test_a_limit_of_descriptors_that_is_too_low_for_the_broker_is_named(stage: Stage) -> None:
    await stage.open()
    worker = stage.worker()
    worker.command = ("sh", "-c", 'ulimit -n 16; exec "$0" "$@"', *worker.command)
    worker.spawn()
    await eventually(lambda: "oo many open files" in worker.log(), 20 * SECOND)
    assert (await worker.get("/readyz"))[0] != 200
    assert await worker.terminate() == 0
    assert "Traceback" not in worker.log()


async def test_what_large_commands_weigh_is_not_kept(stage: Stage) -> None:
    """300 commands of 0.9 MB, all in hand behind a rate limit: 270 MB came, and a small part of it stays."""
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    worker = await stage.start(venue__rate_limit=1.0)
    padding = "x" * 900_000
    before = _bytes(worker, "VmRSS")
    for order_id in stage.place(300):
        await stage.publish([cancel_of(order_id)], envelope={"note": padding})

    async def taken() -> bool:
        return await stage.broker.depth(COMMANDS) == 0

    await eventually(taken, 20 * SECOND)
    grown = _bytes(worker, "VmHWM") - before
    print(f"300 commands of 0.9 MB in hand: {grown / 1e6:.0f} MB more")
    assert grown < 60_000_000
    assert await worker.terminate() == 0


@pytest.mark.slow
async def test_out_of_memory_it_ends_and_the_next_one_finishes(stage: Stage) -> None:
    """A hard limit ends it in the middle of a step, by whatever the allocator makes of that."""
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    worker = await stage.start(venue__rate_limit=500.0)
    _limit(worker, resource.RLIMIT_DATA, _bytes(worker, "VmData") + 12_000_000)
    orders = stage.place(6000)
    for n in range(0, 6000, 500):
        await stage.publish([cancel_of(order_id) for order_id in orders[n : n + 500]])
        await eventually(lambda: len(stage.venue.cancels) >= n // 10 or not worker.running)  # noqa: B023
    status = await worker.ended(30 * SECOND)
    assert status != 0
    sent = len(stage.venue.cancels)
    print(f"ended with {status} after {sent} of 6000 cancels")
    await stage.start()
    await stage.settled(60 * SECOND)
    await stage.end_all()
    finals = stage.check_finals(once=False)
    assert len(finals) == 6000 and {e.outcome for e in finals.values()} == {"canceled"}
    assert max(stage.sends().values()) == 1
    stage.check_truth()
