"""What the worker declares and what stops its start, as an operator sees it (contract 1)."""

from __future__ import annotations

from typing import Any

import aio_pika
import pytest

from tests.process.harness import AUDIT, COMMANDS, DEAD, KILL, RESULTS, Stage, Worker
from tests.support.broker import RPC_S
from tests.support.timing import eventually
from worker.demo.node import PrivateNode

LANE = {
    "x-dead-letter-exchange": DEAD,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    "x-delivery-limit": 100_000,
}


async def _refused(worker: Worker) -> str:
    """Start a worker that has to end with 2; its one line for the operator."""
    worker.spawn()
    assert await worker.ended() == 2, worker.log()
    lines = [line for line in worker.log().splitlines() if not line.startswith("{")]
    assert len(lines) == 1, worker.log()
    assert "Traceback" not in worker.log()
    return lines[0]


async def test_declaring_twice_changes_nothing(stage: Stage) -> None:
    await stage.open()
    await stage.start()
    await stage.publish_each(stage.place(2))
    await stage.settled()
    await stage.end_all()
    await stage.start()
    await stage.start()
    await stage.publish_each(stage.place(2))
    await stage.settled()
    await stage.end_all()
    assert len(await stage.audited()) == len(stage.events.seen) == 8


async def test_the_topology_is_that_of_the_contract(stage: Stage, own_node: PrivateNode) -> None:
    """By the broker's own account."""
    await stage.open()
    await stage.start()
    vhost = stage.broker.vhost
    queues = {queue["name"]: queue for queue in await _listed(stage, "queues", vhost)}
    assert set(queues) == {COMMANDS, KILL, DEAD, AUDIT, "watch"}
    for name in (COMMANDS, KILL):
        assert queues[name]["arguments"] == {"x-queue-type": "quorum", **LANE}
    assert queues[DEAD]["arguments"] == {"x-queue-type": "quorum", "x-delivery-limit": 100_000}
    assert queues[AUDIT]["arguments"] == {
        "x-queue-type": "stream",
        "x-max-age": "30D",
        "x-max-length-bytes": 20_000_000_000,
        "x-stream-max-segment-size-bytes": 100_000_000,
    }
    assert all(q["durable"] for q in queues.values())
    types = {exchange["name"]: exchange["type"] for exchange in await _listed(stage, "exchanges", vhost)}
    assert (types[COMMANDS], types[DEAD], types[RESULTS]) == ("direct", "fanout", "topic")
    listed = await _listed(stage, "bindings", vhost)
    bindings = {(binding["source"], binding["destination"], binding["routing_key"]) for binding in listed}
    assert {
        (COMMANDS, COMMANDS, "cancel"), (COMMANDS, KILL, "kill"), (DEAD, DEAD, ""), (RESULTS, AUDIT, "#"),
    } <= bindings  # fmt: skip
    assert own_node.running


async def _listed(stage: Stage, kind: str, vhost: str) -> list[dict[str, Any]]:
    answer = await stage.broker.api("GET", f"{kind}/{vhost}")
    assert isinstance(answer, list)
    return answer


@pytest.mark.parametrize(
    ("queue", "argument", "ours", "theirs"),
    [
        (COMMANDS, "x-delivery-limit", 100_000, 7),
        (KILL, "x-overflow", "reject-publish", "drop-head"),
        (DEAD, "x-delivery-limit", 100_000, None),
        (AUDIT, "x-max-age", "30D", "1D"),
    ],
)
async def test_a_queue_with_another_argument_stops_the_start(
    stage: Stage, queue: str, argument: str, ours: object, theirs: object
) -> None:
    await stage.open()
    kind = "stream" if queue == AUDIT else "quorum"
    wanted: dict[str, object] = {}
    if queue in (COMMANDS, KILL):
        wanted = dict(LANE)
        if argument == "x-overflow":
            wanted["x-dead-letter-strategy"] = "at-most-once"
    elif queue == AUDIT:
        wanted = {"x-max-length-bytes": 20_000_000_000, "x-stream-max-segment-size-bytes": 100_000_000}
    if theirs is not None:
        wanted[argument] = theirs
    else:
        wanted.pop(argument, None)
    await stage.broker.declare_queue(queue, kind=kind, arguments=wanted)
    extra = {"broker__dead_letter_strategy": "at-most-once"} if argument == "x-overflow" else {}
    line = await _refused(stage.worker(**extra))
    assert f"queue {queue}" in line and argument in line
    assert str(ours) in line and (str(theirs) if theirs is not None else "none") in line


async def test_an_exchange_of_another_type_stops_the_start(stage: Stage) -> None:
    await stage.open()
    await stage.broker.declare_exchange(COMMANDS, "fanout")
    line = await _refused(stage.worker())
    assert f"exchange {COMMANDS}" in line and "type" in line and "direct" in line and "fanout" in line


@pytest.mark.parametrize("missing", [COMMANDS, KILL, DEAD, AUDIT])
async def test_without_declare_a_missing_queue_stops_the_start(stage: Stage, missing: str) -> None:
    await stage.open()
    await stage.declare()
    await stage.broker.delete_queue(missing)
    line = await _refused(stage.worker(broker__declare=False))
    assert f"queue {missing}" in line and "missing" in line
    assert not await stage.broker.exists(missing)


async def test_without_declare_a_missing_exchange_stops_the_start(stage: Stage) -> None:
    await stage.open()
    await stage.declare()
    await stage.broker.delete_exchange(DEAD)
    line = await _refused(stage.worker(broker__declare=False))
    assert f"exchange {DEAD}" in line and "missing" in line


async def test_without_declare_it_works_with_what_is_there(stage: Stage) -> None:
    await stage.open()
    await stage.declare()
    await stage.start(broker__declare=False)
    await stage.publish_each(stage.place(2))
    await stage.settled()
    await stage.end_all()


async def test_every_name_may_be_another(stage: Stage) -> None:
    await stage.open()
    names = {
        "commands_exchange": "x.in", "commands_queue": "q.normal", "kill_queue": "q.kill", "cancel_key": "n",
        "kill_key": "k", "dead_exchange": "x.dead", "dead_queue": "q.dead", "audit_queue": "q.audit",
        "delivery_limit": 50, "audit_max_age": "7D",
    }  # fmt: skip
    await stage.start(**{f"broker__{key}": value for key, value in names.items()})
    channel = await stage.broker.channel()
    exchange = await channel.get_exchange("x.in", ensure=False)
    body = b'{"type":"OrderCancelRequest","data":[{"Symbol":"BTC-USD","OrderID":"%s"}]}'
    for number, (key, order_id) in enumerate(zip(("n", "k"), stage.place(2), strict=True)):
        await exchange.publish(
            aio_pika.Message(body % order_id.encode(), message_id=f"m{number}", delivery_mode=2), key, timeout=RPC_S
        )
        stage.published[f"m{number}"] = 1
    await eventually(lambda: not stage.missing(), 15)
    finals = stage.check_finals(once=True)
    assert [finals[f"m{n}", 0].body["lane"] for n in range(2)] == ["cancel", "kill"]
    assert await stage.broker.exists("q.audit") and not await stage.broker.exists(COMMANDS)


async def test_a_wrong_setting_stops_the_start_before_anything_is_touched(stage: Stage) -> None:
    await stage.open()
    worker = stage.worker(venue__max_batch=0)
    line = await _refused(worker)
    assert "venue.max_batch" in line or "CANCEL_WORKER__VENUE__MAX_BATCH" in line
    assert not await stage.broker.exists(COMMANDS)
