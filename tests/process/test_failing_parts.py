"""A part that fails, or ends without being told to, ends the process; the next one does what it held (faults I8)."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.process.harness import Stage
from tests.support.timing import SECOND, eventually
from worker.simulator import Behaviour, Script


@pytest.mark.parametrize("part", ["ends", "raises", "ticks", "reads"])
async def test_a_part_that_fails_ends_the_process_with_1(stage: Stage, part: str) -> None:
    await stage.open(Script(behaviour=Behaviour(pending=False, delay=0.5)))
    worker = stage.worker()
    worker.command = (sys.executable, "-m", "tests.process.failing", part, "run")
    worker.spawn()
    await worker.until_ready()
    await stage.publish_each(stage.place(20))
    await stage.venue.until(lambda: len(stage.venue.cancels) == 20, 10 * SECOND)
    worker.signal(signal.SIGUSR1)
    stage.venue.cut()  # something happens in every part
    assert await worker.ended() == 1
    (told,) = worker.log_events("worker_failed")
    assert ("ended without being told to" if part == "ends" else "ZeroDivisionError") in str(told["error"])
    assert "Traceback" not in worker.log()
    await eventually(lambda: not any(truth.open for truth in stage.venue.truth().values()))
    await stage.start()
    await stage.settled()
    await stage.end_all()
    assert {e.outcome for e in stage.check_finals(once=False).values()} == {"canceled"}
    assert max(stage.sends().values()) == 1
