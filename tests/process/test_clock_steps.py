"""The worker's wall clock steps by an hour, there and back, under load (faults 3)."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.process import stepping
from tests.process.harness import Stage, cancel_of
from tests.support.timing import SECOND, eventually
from worker.simulator import Behaviour, Login, Script


@pytest.mark.slow
@pytest.mark.parametrize("hours", [1, -1])
async def test_the_wall_clock_steps_under_load(stage: Stage, tmp_path: Path, hours: int) -> None:
    """No session falls, no wait ends early or late, what is lost is looked up; deadlines go by the clock as it is."""
    clock = tmp_path / "clock"
    stepping.step(clock, 0)
    # Whether the venue takes a timestamp that is an hour off is not what this is about.
    await stage.open(Script(login=Login(clock_skew=0), behaviour=Behaviour(gap=0.05, jitter=0.2)))
    worker = stage.worker(venue__rate_limit=50.0, venue__report_timeout=1.0, venue__lookback=120.0)
    worker.command = (sys.executable, "-m", "tests.process.stepping", str(clock), "run")
    worker.spawn()
    await worker.until_ready()
    silent = Behaviour(play="silent", pending=False)
    for step in (hours * 3600, 0):
        losses = len(worker.log_events("session_lost"))
        await stage.publish_each(stage.place(60), timestamp_s=int(datetime.now(UTC).timestamp()))
        await stage.publish_each(stage.place(10, behaviour=silent))
        stamped = await stage.publish([cancel_of(o) for o in stage.place(5, behaviour=silent)])
        more = len(stage.finals_by_cancel()) + 20
        await eventually(lambda: len(stage.finals_by_cancel()) >= more, 20 * SECOND)  # noqa: B023
        stepping.step(clock, step)
        await stage.settled(40 * SECOND)
        assert await worker.readiness() == []
        assert len(worker.log_events("session_lost")) == losses
        assert {e.outcome for e in stage.events.of(stamped) if e.final} == {"canceled"}
        in_half_an_hour = (datetime.now(UTC) + timedelta(minutes=30)).isoformat()
        (order_id,) = stage.place(1)
        limited = await stage.publish([cancel_of(order_id)], headers={"deadline": in_half_an_hour})
        await eventually(lambda: [e for e in stage.events.of(limited) if e.final])  # noqa: B023
        passed = step == 3600
        assert stage.events.outcomes(limited)[-1] == ("deadline_passed" if passed else "canceled")
        assert stage.sends()[order_id] == (0 if passed else 1)
    await stage.end_all()
    for event in stage.check_finals(once=True).values():
        assert event.outcome == "deadline_passed" or event.body["report"], "its report was asked for in the future"
    stage.check_truth()
    stage.check_no_blind_resend()
    assert max(stage.sends().values()) == 1
