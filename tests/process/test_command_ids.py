"""One command id is one command: joined, repeated, promoted, or kept apart (contract 2, 3, 4.3, 4.5)."""

from __future__ import annotations

import uuid

from tests.process.harness import COMMANDS, Stage, cancel_of
from tests.support.timing import SECOND, eventually
from worker.simulator import Behaviour, Script


async def test_the_same_command_twice_at_once_is_one_attempt(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(pending=False, delay=0.7)))
    await stage.start()
    items = [cancel_of(o) for o in stage.place(5)]
    command_id = await stage.publish(items)
    for _ in range(3):
        await stage.publish(items, command_id=command_id)
    await stage.settled()
    await stage.end_all()
    assert max(stage.sends().values()) == 1
    stage.check_finals(once=False)
    stage.check_truth()


async def test_the_same_command_after_its_end_gets_the_same_finals(stage: Stage) -> None:
    await stage.open()
    await stage.start()
    await stage.broker.declare_queue("answers", kind="classic")
    items = [cancel_of(o) for o in stage.place(3)]
    command_id = await stage.publish(items)
    await stage.settled()
    first = {e.event_id: e.raw for e in stage.events.finals()}
    await stage.publish(items, command_id=command_id, reply_to="answers")
    await stage.empty()
    await eventually(lambda: len(stage.events.finals()) == 6)
    assert {e.event_id: e.raw for e in stage.events.finals()[3:]} == first
    replies = await stage.broker.take("answers", 3)
    assert {reply.body for reply in replies} == set(first.values())
    await stage.end_all()
    assert max(stage.sends().values()) == 1


async def test_the_same_command_after_its_end_at_another_worker(stage: Stage) -> None:
    """That worker cannot know: at most one more send with the same ClOrdID, the same event ids (contract 4.3)."""
    await stage.open()
    first = await stage.start()
    items = [cancel_of(o) for o in stage.place(3)]
    command_id = await stage.publish(items, timestamp_s=None)
    await stage.settled()
    assert await first.terminate() == 0
    ids = {e.event_id for e in stage.events.finals()}
    await stage.start()
    await stage.publish(items, command_id=command_id)
    await eventually(lambda: len(stage.events.finals()) >= 6, 15 * SECOND)
    await stage.empty()
    await stage.end_all()
    assert {e.event_id for e in stage.events.finals()} == ids
    assert max(stage.sends().values()) <= 2
    assert len({s.cl_ord_id for s in stage.venue.cancels}) == 3
    assert {e.outcome for e in stage.events.finals()} == {"canceled"}, "what was once confirmed is not replaced"


async def test_the_same_commands_at_two_workers_at_once_get_the_same_finals(stage: Stage) -> None:
    """One venue's ledger: an order may be asked for twice, under one ClOrdID, and is told of once (contract 4.3)."""
    await stage.open(Script(behaviour=Behaviour(gap=0.05, jitter=0.3)))
    await stage.declare()
    orders = stage.place(100)
    items = {uuid.uuid4().hex: [cancel_of(o) for o in orders[n : n + 2]] for n in range(0, 100, 2)}
    for _ in range(2):  # one after the other in the queue, so that each of two workers that take turns gets one
        for command_id, of in items.items():
            await stage.publish(of, command_id=command_id)
    workers = [stage.worker(broker__prefetch=3), stage.worker(broker__prefetch=3)]
    for worker in workers:
        worker.spawn()
    await stage.settled()
    await stage.empty()
    await stage.end_all()
    finals = stage.check_finals(once=False)
    assert len(finals) == 100 and {e.outcome for e in finals.values()} == {"canceled"}
    told_by = {event.body["worker"] for event in stage.events.finals()}
    assert len(told_by) == 2, "one worker did it all: nothing was tested"
    assert max(stage.sends().values()) <= 2
    assert len({s.cl_ord_id for s in stage.venue.cancels}) == 100, "the same ClOrdID, whoever sends"
    stage.check_truth()


async def test_the_same_id_with_other_content_is_invalid_and_both_are_kept_apart(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(pending=False, delay=0.7)))
    await stage.start()
    orders = stage.place(3)
    command_id = await stage.publish([cancel_of(orders[0])], headers={"reason": "first"})
    await stage.venue.until(lambda: stage.venue.cancels)
    await stage.publish([cancel_of(orders[1])], command_id=command_id, headers={"reason": "second"})  # in flight
    await eventually(lambda: len(stage.events.named("invalid")) == 1)
    await eventually(lambda: stage.events.outcomes(command_id)[-1:] == ["canceled"])
    await stage.publish([cancel_of(orders[2])], command_id=command_id, headers={"reason": "third"})  # ended
    await eventually(lambda: len(stage.events.named("invalid")) == 2)
    letters = await stage.dead_letters(2)
    assert {letter.headers["reason"] for letter in letters} == {"second", "third"}
    await stage.end_all()
    for event in stage.events.named("invalid"):
        assert event.body["index"] is None and event.body["error"]["field"] == "message_id"
    assert len({e.event_id for e in stage.events.finals()}) == 3
    assert [stage.sends()[o] for o in orders] == [1, 0, 0]


async def test_a_command_that_waits_in_the_normal_lane_is_promoted_by_the_kill_lane(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    orders = stage.place(64)
    await stage.start(venue__rate_limit=5.0, kill__rate_limit=0.0)
    await stage.publish_each(orders[:60])
    last = [cancel_of(o) for o in orders[60:]]
    command_id = await stage.publish(last)

    async def taken() -> bool:
        return await stage.broker.depth(COMMANDS) == 0

    await eventually(taken)
    await stage.publish(last, command_id=command_id, lane="kill")
    await eventually(lambda: stage.events.outcomes(command_id, 3)[-1:] == ["canceled"], 3 * SECOND)
    assert len(stage.missing()) > 20, "the normal lane was through: nothing was tested"
    assert {e.body["lane"] for e in stage.events.of(command_id)} == {"kill"}
    await stage.settled(30 * SECOND)
    await stage.end_all()
    assert max(stage.sends().values()) == 1
    stage.check_finals(once=True)


async def test_two_commands_may_cancel_one_order(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(gap=0.2)))
    await stage.start()
    (order_id,) = stage.place(1)
    commands = [await stage.publish([cancel_of(order_id)]) for _ in range(3)]
    await stage.settled()
    await stage.end_all()
    finals = stage.check_finals(once=True)
    told = [finals[c, 0].outcome for c in commands]
    assert told.count("canceled") == 1 and set(told) == {"canceled", "already_closed"}
    assert all(finals[c, 0].body["order_live"] is False for c in commands)


async def test_two_commands_may_use_one_cl_ord_id(stage: Stage) -> None:
    """Two systems that know nothing of each other: a report settles only the cancel whose OrderID agrees."""
    await stage.open()
    times = {"report_timeout": 1.0, "unknown_wait": 1.0, "doubt_window": 3.0, "lookup_min": 0.1, "lookup_max": 0.3}
    await stage.start(**{f"venue__{key}": value for key, value in times.items()})
    shared = str(uuid.uuid4())
    first, second = stage.place(2)
    one = await stage.publish([cancel_of(first, ClOrdID=shared)])
    two = await stage.publish([cancel_of(second, ClOrdID=shared)])
    await stage.settled()
    finals = stage.check_finals(once=True)
    assert finals[one, 0].outcome == "canceled"
    # The venue refuses the second use (reason 6): for the worker a send that arrived, whose outcome never shows.
    assert finals[two, 0].outcome == "unresolved"
    assert stage.venue.truth()[second].open
    stage.check_truth()
