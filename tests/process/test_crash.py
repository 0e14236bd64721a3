"""SIGKILL at any moment loses nothing, doubles nothing and never sends blindly (contract 4.1 to 4.3)."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.process.harness import COMMANDS, SCALE, Stage, cancel_of, gather_some
from tests.support.timing import SECOND, eventually
from worker.simulator import Behaviour, Script, Weighted

MIX = (
    Weighted(behaviour=Behaviour(gap=0.02, jitter=0.05), weight=60),
    Weighted(behaviour=Behaviour(pending=False), weight=20),
    Weighted(behaviour=Behaviour(play="partial_fill", gap=0.05), weight=10),
    Weighted(behaviour=Behaviour(play="fill_wins", gap=0.02), weight=10),
    Weighted(behaviour=Behaviour(pending=False, delay=0.3), weight=20),
)


@pytest.mark.slow
@pytest.mark.timeout(240 * SECOND * max(1, SCALE))
async def test_sigkill_20_times_under_5000_cancels_at_random_moments(stage: Stage) -> None:
    """Each final exactly once by id, every truth right, none lost, none sent again although it was done."""
    many, kills = int(5000 * SCALE), int(20 * SCALE)
    await stage.open(Script(mix=MIX))
    await stage.declare()
    orders = stage.place(many)
    commands = [orders[n : n + 10] for n in range(0, many * 4 // 5, 10)]
    commands += [[order_id] for order_id in orders[many * 4 // 5 :]]
    random.shuffle(commands)

    async def publish(number: int, of: list[str]) -> None:
        lane = "kill" if number % 5 == 0 else "cancel"
        await stage.publish([cancel_of(order_id) for order_id in of], lane=lane, timestamp_s=_now_s())

    async def publish_all() -> None:
        await gather_some([lambda n=n, of=of: publish(n, of) for n, of in enumerate(commands)])  # type: ignore[misc]

    publishing = asyncio.create_task(publish_all())
    died_with: list[int] = []
    # Nobody is to become a suspect, which would be handled alone, for being prefetched by ten that were killed.
    settings: dict[str, object] = {"broker__suspect_after": 1000}
    for number in range(kills):
        worker = stage.worker(**settings, venue__rate_limit=300.0, kill__rate_limit=100.0)
        worker.spawn()
        # From the first frame it sends to when it has done its share and more; the last ones die while little is left.
        sent, seen = len(stage.venue.cancels), len(stage.events.seen)
        if number % 4:
            await stage.venue.until(lambda: len(stage.venue.cancels) > sent or not stage.missing(), 30 * SECOND)  # noqa: B023
        await asyncio.sleep(random.choice((random.uniform(0, 0.05), random.uniform(0, 0.5), random.uniform(0, 1.2))))
        await worker.kill()
        died_with.append(len(stage.events.seen) - seen)
    await publishing
    began = time.monotonic()
    await stage.start(**settings)
    await stage.settled(120 * SECOND)
    took = time.monotonic() - began
    await stage.end_all()
    finals = stage.check_finals(once=False)
    assert len(finals) == many
    assert {event.outcome for event in finals.values()} <= {"canceled", "already_closed"}
    stage.check_truth()
    resent = stage.check_no_blind_resend()
    print(f"{kills} kills, events by each life: {died_with}; the rest took {took:.1f} s")
    print(f"{resent} sent again after a look-up; {len(stage.events.finals())} finals for {many} cancels")
    stored = {event.event_id for event in await stage.audited()}
    assert {event.event_id for event in finals.values()} <= stored


def _now_s() -> int:
    return int(datetime.now(UTC).timestamp())


@pytest.mark.parametrize("k", [1, 13, 39])
async def test_killed_with_k_of_40_finals_out(stage: Stage, k: int) -> None:
    """What had its outcome keeps it; only doubt is looked up."""
    await stage.open()
    orders = [stage.venue.place(behaviour=Behaviour(pending=False, delay=0.05 + 0.04 * n)).order_id for n in range(40)]
    worker = await stage.start()
    command_id = await stage.publish([cancel_of(order_id) for order_id in orders], timestamp_s=_now_s())
    await stage.venue.until(lambda: len(stage.venue.cancels) == 40)
    await eventually(lambda: len(stage.finals_by_cancel()) >= k, 10 * SECOND, 0.002)
    await worker.kill()
    await stage.start()
    await stage.settled()
    await stage.end_all()
    finals = stage.check_finals(once=False)
    assert [finals[command_id, i].outcome for i in range(40)] == ["canceled"] * 40
    stage.check_truth()
    stage.check_no_blind_resend()


@pytest.mark.parametrize("arrived", [True, False])
async def test_killed_after_the_send(stage: Stage, arrived: bool) -> None:
    """Arrived: nothing is sent again. Not arrived: one look-up, one send, the same ClOrdID."""
    await stage.open()
    first = Behaviour(pending=False, delay=0.3) if arrived else Behaviour(play="ignore")
    orders = stage.place(12, behaviour=(first, Behaviour(pending=False)))
    worker = await stage.start()
    commands = await stage.publish_each(orders)
    await stage.venue.until(lambda: len(stage.venue.cancels) == 12)
    await worker.kill()
    await eventually(lambda: not arrived or not any(t.open for t in stage.venue.truth().values()))
    await stage.start()
    await stage.settled()
    await stage.end_all()
    finals = stage.check_finals(once=False)
    for command_id, order_id in zip(commands, orders, strict=True):
        final = finals[command_id, 0].body
        assert final["outcome"] == "canceled" and final["sent"] == "yes"
        assert final["attempt"] == (0 if arrived else 1), "attempt counts the sends of this process"
        sends = stage.venue.sends_of(order_id)
        assert len(sends) == (1 if arrived else 2)
        assert len({seen.cl_ord_id for seen in sends}) == 1
    assert stage.check_no_blind_resend() == (0 if arrived else 12)


async def test_past_its_deadline_a_redelivered_cancel_is_looked_up_and_not_sent(stage: Stage) -> None:
    """Working without a trace of it: ``deadline_passed``, perhaps sent, and the order lives (contract 3)."""
    await stage.open()
    ignored = stage.venue.place(behaviour=Behaviour(play="ignore")).order_id
    done = stage.venue.place(behaviour=Behaviour(pending=False, delay=0.2)).order_id
    worker = await stage.start()
    deadline = datetime.now(UTC) + timedelta(seconds=1.5)
    commands = [
        await stage.publish([cancel_of(order_id)], headers={"deadline": deadline.isoformat()})
        for order_id in (ignored, done)
    ]
    await stage.venue.until(lambda: len(stage.venue.cancels) == 2)
    await worker.kill()
    await eventually(lambda: datetime.now(UTC) > deadline)
    await stage.start()
    await stage.settled()
    finals = stage.check_finals(once=False)
    passed, canceled = (finals[command_id, 0].body for command_id in commands)
    assert (passed["outcome"], passed["sent"], passed["order_live"]) == ("deadline_passed", "maybe", True)
    assert canceled["outcome"] == "canceled"
    assert max(stage.sends().values()) == 1
    stage.check_truth()


async def test_prefetched_and_unsent_commands_are_looked_up_in_bulk(stage: Stage) -> None:
    """After a crash one replay, not one question per command (faults A27)."""
    await stage.open()
    await stage.declare()
    orders = stage.place(500)
    await stage.publish_each(orders, timestamp_s=_now_s())
    worker = await stage.start(venue__rate_limit=1.0)

    async def taken() -> bool:
        return await stage.broker.depth(COMMANDS) == 0

    await eventually(taken, 10 * SECOND)
    await worker.kill()
    before = len([f for f in stage.venue.received if f.type == "subscribe"])
    await stage.start()
    await stage.settled()
    asked = len([f for f in stage.venue.received if f.type == "subscribe"]) - before
    assert asked <= 60, f"{asked} subscriptions for 500 doubtful cancels"
    await stage.end_all()
    assert {e.outcome for e in stage.check_finals(once=False).values()} == {"canceled"}
    stage.check_no_blind_resend()


async def test_two_workers_share_the_queue_and_one_dies(stage: Stage) -> None:
    await stage.open(Script(mix=MIX))
    first = await stage.start(broker__prefetch=20)
    await stage.start(broker__prefetch=20)
    orders = stage.place(300)
    await stage.publish_each(orders[:200], timestamp_s=_now_s())
    await first.kill()
    await stage.publish_each(orders[200:], timestamp_s=_now_s())
    await stage.settled()
    await stage.end_all()
    stage.check_finals(once=False)
    stage.check_truth()
    stage.check_no_blind_resend()
