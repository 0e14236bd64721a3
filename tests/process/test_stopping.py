"""SIGTERM finishes what it can, hands back the rest and exits 0; a second one ends at once (contract 4.7)."""

from __future__ import annotations

import signal
import time

import pytest

from tests.process.harness import COMMANDS, DEAD, Stage, cancel_of
from tests.support.timing import SECOND, eventually
from worker.simulator import Behaviour, Script


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle_it_ends_at_once_with_0(stage: Stage, number: signal.Signals) -> None:
    await stage.open()
    worker = await stage.start()
    began = time.monotonic()
    worker.signal(number)
    assert await worker.ended() == 0
    assert time.monotonic() - began < 5 * SECOND
    assert stage.events.seen == []


async def test_what_is_in_flight_is_finished_and_confirmed(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(delay=0.5, gap=0.5)))
    worker = await stage.start()
    await stage.publish_each(stage.place(100))
    await stage.venue.until(lambda: len(stage.venue.cancels) == 100, 10 * SECOND)
    assert await worker.terminate() == 0
    assert await stage.broker.depth(COMMANDS) == 0
    await stage.settled()
    assert {e.outcome for e in stage.check_finals(once=True).values()} == {"canceled"}
    assert max(stage.sends().values()) == 1


async def test_while_it_stops_it_says_so_and_takes_nothing(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(pending=False, delay=4.0 * SECOND)))
    worker = await stage.start(venue__report_timeout=60.0)
    await stage.publish_each(stage.place(1))
    await stage.venue.until(lambda: len(stage.venue.cancels) == 1)
    worker.signal(signal.SIGTERM)
    await worker.until_unready("stopping")
    # Not by the broker's count: a consumer that was canceled counts while it holds something unsettled.
    await eventually(lambda: len(worker.log_events("consumer_stopped")) == 2)
    late = stage.place(1)
    await stage.publish_each(late)
    assert await stage.broker.depth(COMMANDS) == 1
    assert worker.running, "it was over before: nothing was tested"
    assert await worker.ended() == 0
    assert await stage.broker.depth(COMMANDS) == 1
    assert stage.sends()[late[0]] == 0
    assert len(stage.events.finals()) == 1


async def test_what_is_not_sent_goes_back(stage: Stage) -> None:
    """Behind a rate limit most commands wait: they come back to the queue, each once, and the next worker does them."""
    await stage.open()
    worker = await stage.start(venue__rate_limit=10.0)
    await stage.publish_each(stage.place(100))
    await stage.venue.until(lambda: len(stage.venue.cancels) >= 5)
    assert await worker.terminate() == 0
    sent = len(stage.venue.cancels)
    await eventually(lambda: len(stage.events.finals()) == sent)
    assert await stage.broker.depth(COMMANDS) == 100 - sent > 0
    await stage.start()
    await stage.settled()
    assert max(stage.sends().values()) == 1
    stage.check_finals(once=True)


async def test_after_the_grace_the_rest_goes_back_and_is_0_too(stage: Stage) -> None:
    """A venue that never comes to an end: nothing is said of it, the next worker asks and waits on."""
    await stage.open()
    order = stage.venue.place(behaviour=Behaviour(steps=("PendingCancel", "Canceled @6")))
    worker = await stage.start(shutdown__grace=1.0)
    command_id = await stage.publish([cancel_of(order.order_id), cancel_of(stage.place(1)[0])])
    await eventually(lambda: "pending_cancel" in stage.events.outcomes(command_id))
    assert await worker.terminate(6 * SECOND) == 0
    assert await stage.broker.depth(COMMANDS) == 1 and await stage.broker.depth(DEAD) == 0
    assert [e for e in stage.events.of(command_id, 0) if e.final] == []
    await stage.start()
    await stage.settled()
    await stage.end_all()
    assert stage.check_finals(once=False)[command_id, 0].outcome == "canceled"
    assert max(stage.sends().values()) == 1
    stage.check_truth()


async def test_a_grace_of_0_hands_everything_back(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(pending=False, delay=1.0)))
    worker = await stage.start(shutdown__grace=0)
    await stage.publish_each(stage.place(20))
    await stage.venue.until(lambda: len(stage.venue.cancels) == 20)
    assert await worker.terminate() == 0
    assert await stage.broker.depth(COMMANDS) == 20
    await stage.start()
    await stage.settled()
    stage.check_no_blind_resend()
    stage.check_truth()


async def test_a_second_signal_ends_at_once_and_acks_nothing(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(pending=False, delay=3.0)))
    worker = await stage.start()
    await stage.publish_each(stage.place(10))
    await stage.venue.until(lambda: len(stage.venue.cancels) == 10)
    worker.signal(signal.SIGTERM)
    await worker.until_unready("stopping")
    began = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert await worker.ended() == 1
    assert time.monotonic() - began < 1 * SECOND

    async def back() -> bool:
        return await stage.broker.depth(COMMANDS) == 10

    await eventually(back)
    assert stage.events.finals() == []


async def test_stopping_without_a_venue(stage: Stage) -> None:
    await stage.open()
    stage.venue.refuse(-1, 503)
    worker = stage.worker()
    worker.spawn()
    await worker.until_unready("no venue session")
    assert await worker.terminate() == 0


async def test_stopping_without_a_broker(stage: Stage) -> None:
    await stage.open()
    worker = stage.worker(broker__url="amqp://guest:guest@127.0.0.1:1/")
    worker.spawn()
    await worker.until_unready("topology")
    assert await worker.terminate() == 0


async def test_stopping_during_doubt_ends_in_order(stage: Stage) -> None:
    """What is doubtful is looked up within the grace; what is not resolved then comes back unsaid."""
    await stage.open(Script(behaviour=Behaviour(play="silent", pending=False)))
    worker = await stage.start(venue__report_timeout=0.5)
    commands = await stage.publish_each(stage.place(10))
    await stage.venue.until(lambda: len(stage.venue.cancels) == 10)
    assert await worker.terminate() == 0
    await stage.settled()
    finals = stage.check_finals(once=True)
    assert {finals[c, 0].outcome for c in commands} == {"canceled"}
