"""Three nodes, quorum queues: whichever of them is killed, the worker goes on with the others (issue 4, faults 3)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.process.harness import COMMANDS, Stage, Worker, cancel_of
from tests.support.broker import Broker
from tests.support.timing import SECOND, eventually
from worker.demo.node import PrivateNode
from worker.simulator import Behaviour, Script

Nodes = tuple[PrivateNode, ...]

SETTLED_S = 8.0
"""A node that dies within seconds of the first declaration may not bring its queues back for minutes (faults A30)."""


@pytest.fixture
async def cluster_stage(private_cluster: Nodes, tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage that publishes to and watches the first node, which is never killed; the second leads the queues."""
    async with Broker.on(private_cluster[0]) as broker, Stage(broker, tmp_path) as made:
        await made.open(Script(behaviour=Behaviour(gap=0.05, jitter=0.3)))
        await made.declare(private_cluster[1].url)
        declared = time.monotonic()
        await eventually(lambda: time.monotonic() - declared > SETTLED_S, SETTLED_S + 2)
        yield made


def _urls(nodes: Nodes) -> str:
    """The third first: a worker that starts is connected to it."""
    return ",".join(node.url for node in (nodes[2], nodes[0], nodes[1]))


async def _leads(stage: Stage, node: PrivateNode, queue: str = COMMANDS) -> bool:
    told = await stage.broker.api("GET", f"queues/%2F/{queue}")
    assert isinstance(told, dict)
    return bool(told.get("leader") == node.identity.name)


async def _finals(stage: Stage, more: int) -> None:
    wanted = len(stage.finals_by_cancel()) + more
    await eventually(lambda: len(stage.finals_by_cancel()) >= wanted, 40 * SECOND, 0.05)


async def _unsettled(worker: Worker, count: int) -> None:
    """Wait until the worker holds so many commands."""

    async def held() -> bool:
        lanes = (await worker.status())["lanes"]
        return bool(sum(lane["unsettled_commands"] for lane in lanes.values()) == count)

    await eventually(held, 40 * SECOND)


def _links_made(worker: Worker) -> int:
    return len(worker.log_events("consumer_up")) + len(worker.log_events("publisher_up"))


async def _publish(stage: Stage, count: int) -> None:
    orders = stage.place(count)
    for n in range(0, count, 5):
        lane = "kill" if n % 25 == 0 else "cancel"
        await stage.publish([cancel_of(o) for o in orders[n : n + 5]], lane=lane)


async def _books_agree(stage: Stage, count: int) -> None:
    await stage.end_all()
    finals = stage.check_finals(once=False)
    assert len(finals) == count and {e.outcome for e in finals.values()} == {"canceled"}
    stage.check_truth()
    stage.check_no_blind_resend()
    await stage.stored({e.event_id for e in finals.values()})


@pytest.mark.slow
@pytest.mark.timeout(120 * SECOND)
async def test_the_leader_and_then_the_workers_own_node_are_killed_under_load(
    cluster_stage: Stage, private_cluster: Nodes
) -> None:
    """The first is not even noticed (faults A25); after the second it goes on with another node of ``broker.url``."""
    stage = cluster_stage
    _, leader, own = private_cluster
    worker = await stage.start(broker__url=_urls(private_cluster), venue__rate_limit=60.0)
    assert _links_made(worker) == 4
    assert await _leads(stage, leader)
    await _publish(stage, 200)
    await _finals(stage, 30)
    await leader.kill()
    await _finals(stage, 60)
    assert await worker.readiness() == []
    assert not await _leads(stage, leader)
    assert _links_made(worker) == 4 and not worker.log_events("publisher_lost"), "the change was noticed"
    await leader.start(within_s=60 * SECOND)
    await _publish(stage, 200)
    await _finals(stage, 30)
    await own.kill()
    await worker.until_unready("lane")
    await worker.until_ready(40 * SECOND)
    assert _links_made(worker) == 8
    assert stage.missing(), "the load was over: nothing was tested"
    await stage.settled(60 * SECOND)
    await _books_agree(stage, 400)


@pytest.mark.slow
@pytest.mark.timeout(120 * SECOND)
async def test_without_a_majority_it_waits_says_so_and_heals(cluster_stage: Stage, private_cluster: Nodes) -> None:
    """Nothing is confirmed, so nothing is acked, though every queue can still be declared (faults A24)."""
    stage = cluster_stage
    alive, *others = private_cluster
    worker = await stage.start(broker__url=alive.url, venue__rate_limit=60.0)
    await _publish(stage, 200)
    await _finals(stage, 30)
    for node in others:
        await node.kill()
    reasons = await worker.until_unready("lane", 40 * SECOND)
    held = (await worker.status())["lanes"]
    print(f"{held} while {reasons}")
    assert held["cancel"]["unconfirmed_events"] > 0 and held["cancel"]["unsettled_commands"] > 0, "nothing was tested"
    assert await stage.broker.exists(COMMANDS), "the queue can be declared"
    for node in others:
        await node.start(within_s=90 * SECOND)
    await worker.until_ready(60 * SECOND)
    await _unsettled(worker, 0)
    assert await worker.terminate() == 0
    # An ack is a write: what a queue that had just found a leader made of the last ones is seen now (faults A7).
    print(f"{await stage.broker.depth(COMMANDS)} commands came back")
    await _unsettled(await stage.start(), 0)
    await stage.settled(60 * SECOND)
    await _books_agree(stage, 200)
