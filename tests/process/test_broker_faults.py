"""The broker goes, returns, refuses, runs out of memory: nothing is lost or doubled (contract 4.1, faults 2.1, 3)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.process.harness import AUDIT, COMMANDS, DEAD, RESULTS, Seen, Stage, Worker, cancel_of
from tests.support.broker import Broker
from tests.support.proxy import Proxy
from tests.support.timing import SECOND, eventually
from worker.demo.node import PrivateNode
from worker.simulator import Behaviour, Script


@pytest.fixture
async def own_stage(private_node: PrivateNode, tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage on a node that the test may kill."""
    async with Broker.on(private_node) as broker, Stage(broker, tmp_path) as made:
        yield made


def _node(stage: Stage) -> PrivateNode:
    if stage.broker.node is None:
        pytest.skip("needs a node of ours")
    return stage.broker.node


def _lost_by(worker: Worker, reason: str) -> set[tuple[str, str]]:
    """The links (consumer or publisher, lane) that were lost for this reason."""
    names = ("consumer_lost", "publisher_lost")
    return {(name, e["lane"]) for name in names for e in worker.log_events(name) if reason in str(e["reason"])}


@pytest.mark.slow
async def test_all_connections_are_closed_under_load(stage: Stage) -> None:
    """An operator's rabbitmqctl: what is sent is followed to its final, what is not comes back, each once by id."""
    _node(stage)
    await stage.open(Script(behaviour=Behaviour(gap=0.05, jitter=0.3)))
    worker = await stage.start(venue__rate_limit=150.0)
    orders = stage.place(300)
    commands = [orders[n : n + 3] for n in range(0, 300, 3)]
    for of in commands[:80]:
        await stage.publish([cancel_of(o) for o in of], lane="kill" if of[0] < "8" else "cancel")
    for n in (1, 2, 3):
        await eventually(lambda: len(stage.finals_by_cancel()) >= 40 * n, 15 * SECOND)  # noqa: B023
        await stage.broker.close_connections()
    for of in commands[80:]:
        await stage.publish([cancel_of(o) for o in of])
    await stage.settled(40 * SECOND)
    await worker.until_ready()
    await stage.end_all()
    finals = stage.check_finals(once=False)
    assert len(finals) == 300 and {e.outcome for e in finals.values()} == {"canceled"}
    stage.check_truth()
    stage.check_no_blind_resend()
    stored = {e.event_id for e in await stage.audited()}
    assert {e.event_id for e in finals.values()} <= stored


@pytest.mark.slow
async def test_the_node_is_killed_under_load(own_stage: Stage) -> None:
    stage = own_stage
    node = _node(stage)
    await stage.open(Script(behaviour=Behaviour(gap=0.05, jitter=0.5)))
    await stage.declare()
    declared = time.monotonic()
    worker = await stage.start(venue__rate_limit=100.0)
    await stage.publish_each(stage.place(50))
    await stage.settled()
    # A node that dies within seconds of the first declaration may not bring its queues back for minutes (faults A30).
    await eventually(lambda: time.monotonic() - declared > 8, 10)
    orders = stage.place(250)
    for n in range(0, 250, 5):
        await stage.publish([cancel_of(o) for o in orders[n : n + 5]])
    await eventually(lambda: len(stage.finals_by_cancel()) >= 100, 15 * SECOND)
    await node.kill()
    assert await worker.until_unready("lane", 15 * SECOND)
    # One that starts now waits for the broker.
    late = stage.worker(venue__rate_limit=100.0)
    late.spawn()
    await late.until_unready("topology", 20 * SECOND)
    assert (await late.get("/livez"))[0] == 200
    # What is in flight at the venue comes to its end there; its events wait.
    await stage.venue.until(lambda: all(not stage.venue.order(s.order_id or "").busy for s in stage.venue.cancels), 10)
    await node.start()
    await worker.until_ready(60 * SECOND)
    await late.until_ready(60 * SECOND)
    await stage.settled(60 * SECOND)
    await stage.end_all()
    finals = stage.check_finals(once=False)
    assert len(finals) == 300 and {e.outcome for e in finals.values()} == {"canceled"}
    stage.check_truth()
    stage.check_no_blind_resend()
    stored = {e.event_id for e in await stage.audited()}
    assert {e.event_id for e in finals.values()} <= stored, "published before the audit stream was there (faults A29)"


@pytest.mark.slow
async def test_a_frozen_broker_is_noticed_and_nothing_is_lost(own_stage: Stage) -> None:
    stage = own_stage
    node = _node(stage)
    await stage.open(Script(behaviour=Behaviour(gap=0.05)))
    worker = await stage.start(broker__heartbeat=1, broker__connect_timeout=2.0)
    await stage.publish_each(stage.place(20))
    await stage.settled()
    await stage.publish_each(stage.place(20))
    node.pause()
    try:
        began = time.monotonic()
        # Each of the four links by itself, whether anything waits for an answer on it or not.
        await eventually(lambda: len(_lost_by(worker, "nothing heard from the broker")) == 4, 15 * SECOND)
        assert time.monotonic() - began < 3 * (1 + 1) + SECOND, "3 x (heartbeat + 1) (faults A17)"
        assert await worker.until_unready("is not consumed") and await worker.until_unready("cannot publish")
    finally:
        node.resume()
    await worker.until_ready(60 * SECOND)
    await stage.settled(60 * SECOND)
    await stage.end_all()
    assert len(stage.check_finals(once=False)) == 40
    stage.check_truth()
    stage.check_no_blind_resend()


async def test_acks_that_never_arrive_bring_the_same_finals_again(stage: Stage) -> None:
    """After every confirm the line swallows what the consumer says: an ack is only a write (faults A7, I12)."""
    await stage.open(Script(behaviour=Behaviour(pending=False, delay=0.5)))
    async with Proxy(stage.broker.url) as proxy:
        worker = await stage.start(broker__url=proxy.url, broker__heartbeat=1)
        commands = await stage.publish_each(stage.place(20))
        await stage.venue.until(lambda: len(stage.venue.cancels) == 20, 10 * SECOND)
        assert proxy.lose_what_is_said(b"consume cancel") == 1
        await eventually(lambda: not stage.missing(), 10 * SECOND)
        # The broker hears nothing of it, not even a heartbeat, and gives all of them back.
        await eventually(lambda: len(stage.events.finals()) == 40, 20 * SECOND)
        await worker.until_ready()
        await stage.empty()
        await stage.end_all()
    stage.check_finals(once=False)
    assert {len({e.raw for e in stage.events.of(c)}) for c in commands} == {1}, "repeated byte for byte"
    assert max(stage.sends().values()) == 1


async def test_nothing_is_published_before_the_audit_stream_is_there(stage: Stage) -> None:
    """faults A29, with declare = false, where the worker may only wait for it; cancels go on."""
    _node(stage)
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    await stage.declare()
    worker = await stage.start(broker__declare=False)
    await stage.broker.delete_queue(AUDIT)
    await stage.broker.close_connections()
    await worker.until_unready(AUDIT, 20 * SECOND)
    await stage.publish_each(stage.place(20))
    await stage.venue.until(lambda: not any(t.open for t in stage.venue.truth().values()), 20 * SECOND)
    assert await worker.until_unready(AUDIT)
    assert stage.events.seen == []
    await stage.declare()
    await worker.until_ready()
    await stage.settled()
    finals = stage.check_finals(once=False)
    stored = {e.event_id for e in await stage.audited()}
    assert {e.event_id for e in finals.values()} <= stored
    await stage.end_all()


async def test_with_declare_the_audit_stream_is_made_again(stage: Stage) -> None:
    _node(stage)
    await stage.open()
    worker = await stage.start()
    await stage.publish_each(stage.place(3))
    await stage.settled()
    await stage.broker.delete_queue(AUDIT)
    await stage.broker.close_connections()
    seen = len(stage.events.seen)
    await stage.publish_each(stage.place(3))
    await stage.settled()
    await worker.until_ready()
    stored = {e.event_id for e in await _read_all(stage, 6)}
    assert stored == {e.event_id for e in stage.events.seen[seen:]}
    await stage.end_all()


async def _read_all(stage: Stage, count: int) -> list[Seen]:
    return [Seen(m.body, m) for m in await stage.broker.read_stream(AUDIT, count)]


async def test_an_event_that_no_queue_takes_holds_its_command_and_says_so(stage: Stage) -> None:
    await stage.open()
    worker = await stage.start(results__retry_max=1.0)
    await stage.publish_each(stage.place(2))
    await stage.settled()
    channel = await stage.broker.channel()
    for queue in ("watch", AUDIT):
        await (await channel.get_queue(queue, ensure=False)).unbind(RESULTS, "#")
    before = len(stage.events.seen)
    await stage.publish_each(stage.place(5))
    reasons = await worker.until_unready("refused")
    assert any("no queue takes it" in reason for reason in reasons)
    assert len(stage.events.seen) == before
    assert "event_refused" in worker.log()
    assert "event_refused: no queue takes it" in (await worker.get("/status"))[1]
    assert await stage.broker.depth(DEAD) == 0
    for queue in ("watch", AUDIT):
        await (await channel.get_queue(queue, ensure=False)).bind(RESULTS, "#")
    await stage.settled()
    await worker.until_ready()
    stage.check_finals(once=True)
    await stage.end_all()


async def test_a_final_that_is_not_confirmed_holds_its_command_through_a_crash(stage: Stage) -> None:
    """Every outcome is known and none is stored when the worker dies: nothing was acked (contract 4.1)."""
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    worker = await stage.start(results__retry_max=1.0)
    channel = await stage.broker.channel()
    for queue in ("watch", AUDIT):
        await (await channel.get_queue(queue, ensure=False)).unbind(RESULTS, "#")
    await stage.publish_each(stage.place(5))
    await worker.until_unready("5 events are refused")
    await eventually(lambda: len(worker.log_events("event_refused")) >= 20, 10 * SECOND)
    await worker.kill()

    async def back() -> bool:
        return await stage.broker.depth(COMMANDS) == 5

    await eventually(back)
    await (await channel.get_queue("watch", ensure=False)).bind(RESULTS, "#")
    await stage.start()
    await stage.settled()
    await stage.end_all()
    assert {e.outcome for e in stage.check_finals(once=True).values()} == {"canceled"}
    assert max(stage.sends().values()) == 1


async def test_a_full_foreign_queue_turns_events_into_nacks_until_it_is_healed(stage: Stage) -> None:
    """The others stored it already: they get it again, under the same id."""
    await stage.open()
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    await stage.broker.declare_queue("careless", kind="classic", arguments=full, bind=[(RESULTS, "final.#")])
    worker = await stage.start(results__retry_max=0.5)
    await stage.publish_each(stage.place(10))
    reasons = await worker.until_unready("refused by a queue")
    assert any("refused" in reason for reason in reasons)
    metrics = (await worker.get("/metrics"))[1]
    assert '"text": "event_refused: nack: refused by a queue' in (await worker.get("/status"))[1]
    assert any("nack" in line and not line.endswith(" 0.0") for line in metrics.splitlines() if line[0] != "#")
    await stage.broker.delete_queue("careless")
    await stage.settled()
    await worker.until_ready()
    await stage.end_all()
    finals = stage.check_finals(once=False)
    assert len(finals) == 10 and max(stage.sends().values()) == 1
    assert len(stage.events.finals()) > 10, "nothing was repeated: the queue was never full"


@pytest.mark.slow
async def test_a_memory_alarm_delays_events_and_stops_no_cancel(own_stage: Stage) -> None:
    stage = own_stage
    node = _node(stage)
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    worker = await stage.start()
    orders = stage.place(150)
    await stage.publish_each(orders[:50])
    await stage.settled()
    # Commands that wait in the queue when the alarm begins: the publisher of the test would be blocked as well.
    await worker.terminate()
    await stage.publish_each(orders[50:])
    await node.ctl("set_vm_memory_high_watermark", "0.0001")
    worker = stage.worker()
    worker.spawn()
    try:
        await worker.until_unready("blocks publishing", 20 * SECOND)
        await stage.venue.until(lambda: len(stage.venue.cancels) == 150, 20 * SECOND)
        assert stage.missing(), "the events went through the alarm: nothing was tested"
    finally:
        await node.ctl("set_vm_memory_high_watermark", "0.6")
    await worker.until_ready(30 * SECOND)
    await stage.settled(30 * SECOND)
    await stage.end_all()
    stage.check_finals(once=False)
    assert max(stage.sends().values()) == 1
    stage.check_truth()


@pytest.mark.slow
async def test_alarms_go_on_and_off_under_load(own_stage: Stage) -> None:
    """Memory and disk, in turn: cancels in hand are sent, events wait, and each final comes once by id."""
    stage = own_stage
    node = _node(stage)
    await stage.open(Script(behaviour=Behaviour(gap=0.02)))
    stage.venue.on_cancel = lambda item: Behaviour(delay=2.0)
    worker = await stage.start(broker__max_inflight=10, venue__report_timeout=30.0)  # 5 a second: load for 80 s
    alarms = (
        (("set_vm_memory_high_watermark", "0.0001"), ("set_vm_memory_high_watermark", "0.6")),
        (("set_disk_free_limit", "1000000GB"), ("set_disk_free_limit", "50MB")),
    )
    for on, off in alarms * 2:
        # The broker blocks nobody who has nothing to publish, and an alarm may take many seconds to begin.
        await stage.publish_each(stage.place(max(0, 400 - len(stage.missing()))))
        finals = len(stage.finals_by_cancel())
        await eventually(lambda: len(stage.finals_by_cancel()) >= finals + 10, 20 * SECOND)  # noqa: B023
        await node.ctl(*on)
        try:
            await worker.until_unready("blocks publishing", 20 * SECOND)
            sent = len(stage.venue.cancels)
            await stage.venue.until(lambda: len(stage.venue.cancels) >= sent + 10, 10 * SECOND)  # noqa: B023
        finally:
            await node.ctl(*off)
        await worker.until_ready(30 * SECOND)
    assert stage.missing(), "the load was over: nothing was tested"
    assert len(worker.log_events("publisher_blocked")) >= 4
    stage.venue.on_cancel = None
    await stage.settled(30 * SECOND)
    await stage.end_all()
    finals_by_key = stage.check_finals(once=False)
    assert len(finals_by_key) == len(stage.published) and max(stage.sends().values()) == 1
    stage.check_truth()


@pytest.mark.slow
async def test_sigterm_during_an_alarm_ends_within_the_grace_and_acks_nothing(own_stage: Stage) -> None:
    """What was sent and has no confirmed final comes back; the next worker tells it and sends nothing."""
    stage = own_stage
    node = _node(stage)
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    await stage.declare()
    await stage.publish_each(stage.place(50))
    await node.ctl("set_vm_memory_high_watermark", "0.0001")
    try:
        worker = stage.worker(shutdown__grace=1.0)
        worker.spawn()
        await worker.until_unready("blocks publishing", 30 * SECOND)
        await stage.venue.until(lambda: len(stage.venue.cancels) == 50, 20 * SECOND)
        began = time.monotonic()
        assert await worker.terminate(15 * SECOND) == 0
        took = time.monotonic() - began
        # The grace, then 2 s for the confirms of suspects and for each of five closes at the most.
        assert took < 1.0 + 2.0 + 5 * SECOND, f"SIGTERM took {took:.1f} s"
        assert stage.events.finals() == []

        async def back() -> bool:
            return await stage.broker.depth(COMMANDS) == 50

        await eventually(back, 10 * SECOND)
    finally:
        await node.ctl("set_vm_memory_high_watermark", "0.6")
    await stage.start()
    await stage.settled(30 * SECOND)
    await stage.end_all()
    assert {e.outcome for e in stage.check_finals(once=False).values()} == {"canceled"}
    assert max(stage.sends().values()) == 1
    stage.check_truth()


@pytest.mark.slow
async def test_sigterm_while_the_broker_is_gone_ends_within_the_grace(own_stage: Stage) -> None:
    """The node dies under load, the worker is told to stop while it tries to reconnect: 0, and nothing is lost."""
    stage = own_stage
    node = _node(stage)
    await stage.open(Script(behaviour=Behaviour(pending=False, delay=0.3)))
    await stage.declare()
    declared = time.monotonic()
    worker = await stage.start(shutdown__grace=2.0, venue__rate_limit=60.0)
    await eventually(lambda: time.monotonic() - declared > 8, 10)  # faults A30
    await stage.publish_each(stage.place(100))
    await stage.venue.until(lambda: len(stage.venue.cancels) >= 30, 10 * SECOND)
    await node.kill()
    await worker.until_unready("lane", 10 * SECOND)
    began = time.monotonic()
    assert await worker.terminate(15 * SECOND) == 0
    assert time.monotonic() - began < 2.0 + 2.0 + 5 * SECOND
    await node.start()
    await stage.start()
    await stage.settled(60 * SECOND)
    await stage.end_all()
    assert {e.outcome for e in stage.check_finals(once=False).values()} == {"canceled"}
    assert max(stage.sends().values()) == 1
    stage.check_truth()
    stage.check_no_blind_resend()


@pytest.mark.slow
@pytest.mark.parametrize("hold_limit", [900.0, 1.0])
async def test_what_is_held_for_long_goes_on_and_its_redelivery_joins_it(own_stage: Stage, hold_limit: float) -> None:
    """One attempt goes on, and a cancel is sent once (faults A12, I7).

    The broker's ack timeout closes the channel of a worker that holds on (900); one that hands back in time never
    sees it.
    """
    stage = own_stage
    for key, ms in (("consumer_timeout", 3000), ("channel_tick_interval", 500)):
        await _node(stage).ctl("eval", f"application:set_env(rabbit, {key}, {ms}).")
    await stage.open(Script(behaviour=Behaviour(pending=False, delay=9.0)))
    worker = await stage.start(broker__hold_limit=hold_limit, venue__report_timeout=60.0)
    await stage.publish_each(stage.place(5))
    await stage.settled(40 * SECOND)
    await worker.until_ready(10 * SECOND)
    await stage.end_all()
    assert {e.outcome for e in stage.check_finals(once=True).values()} == {"canceled"}
    assert max(stage.sends().values()) == 1
    stage.check_truth()
    closed = [e for e in worker.log_events("consumer_lost") if "timed out" in str(e["reason"])]
    assert bool(closed) is (hold_limit == 900.0), closed


async def test_the_commands_queue_is_deleted_and_made_again(stage: Stage) -> None:
    await stage.open()
    worker = await stage.start()
    await stage.publish_each(stage.place(5))
    await stage.settled()
    await stage.broker.delete_queue(COMMANDS)
    reasons = await worker.until_unready(COMMANDS)
    assert any("the cancel lane is not consumed" in reason for reason in reasons)
    killed = await stage.publish([cancel_of(stage.place(1)[0])], lane="kill")
    await eventually(lambda: stage.events.outcomes(killed)[-1:] == ["canceled"])
    await stage.declare()
    await worker.until_ready()
    await stage.publish_each(stage.place(5))
    await stage.settled()
    stage.check_finals(once=True)
    await stage.end_all()


async def test_the_results_exchange_is_deleted_and_made_again(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    worker = await stage.start()
    await stage.publish_each(stage.place(5))
    await stage.settled()
    await stage.broker.delete_exchange(RESULTS)
    await stage.publish_each(stage.place(5))
    # With declare = true the worker makes it again and binds the audit stream; others bind for themselves.
    await worker.until_ready()
    await stage.empty()
    await stage.end_all()
    assert len({event.event_id for event in await _read_all(stage, 10)}) == 10


@pytest.mark.slow
async def test_kill_commands_pass_a_backlog(stage: Stage) -> None:
    """The kill lane is done while the normal lane waits behind its rate limit (contract 4.5)."""
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    await stage.declare()
    backlog = stage.place(400)
    await stage.publish_each(backlog)
    await stage.start(venue__rate_limit=50.0)
    await eventually(stage.events.finals)
    began = time.monotonic()
    killed = [await stage.publish([cancel_of(o)], lane="kill") for o in stage.place(20)]
    await eventually(lambda: all(stage.events.outcomes(c)[-1:] == ["canceled"] for c in killed), 5 * SECOND)
    took = time.monotonic() - began
    left = len(stage.missing())
    assert left > 100, f"no backlog any more: {left}"
    print(f"20 kill commands past a backlog of {left}: {took:.2f} s")
    await stage.settled(30 * SECOND)
    stage.check_finals(once=True)


async def test_the_broker_url_may_name_several_brokers(stage: Stage) -> None:
    await stage.open()
    worker = await stage.start(broker__url=f"amqp://guest:guest@127.0.0.1:1/,{stage.broker.url}")
    await stage.publish_each(stage.place(2))
    await stage.settled()
    assert await worker.readiness() == []


async def test_a_wrong_password_is_named_and_not_shown(stage: Stage) -> None:
    await stage.open()
    url = stage.broker.url.replace("@", "wrong-password@")
    worker = stage.worker(broker__url=url)
    worker.spawn()
    reasons = await worker.until_unready("topology: ", 10 * SECOND)
    reasons = await worker.until_unready("ACCESS_REFUSED", 10 * SECOND)
    assert reasons and "wrong-password" not in worker.log()
    assert await worker.terminate() == 0
