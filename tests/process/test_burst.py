"""A burst on the kill lane behind a backlog of the normal one, at full size (contract 4.5, faults I9 and I11)."""

from __future__ import annotations

import time
import uuid

import aio_pika
import msgspec
import pytest

from tests.process.harness import COMMANDS, SCALE, Stage, cancel_of
from tests.support.timing import SECOND, eventually
from worker.simulator import Behaviour, Script


async def _publish(stage: Stage, order_ids: list[str], lane: str) -> list[str]:
    """One command per order, unconfirmed but counted by the queue; returns the command ids."""
    command_ids = [uuid.uuid4().hex for _ in order_ids]
    async with await aio_pika.connect(stage.broker.url) as connection:
        channel = await connection.channel(publisher_confirms=False)
        exchange = await channel.get_exchange(COMMANDS, ensure=False)
        for command_id, order_id in zip(command_ids, order_ids, strict=True):
            body = msgspec.json.encode({"type": "OrderCancelRequest", "data": [cancel_of(order_id)]})
            persistent = aio_pika.DeliveryMode.PERSISTENT
            message = aio_pika.Message(body, message_id=command_id, delivery_mode=persistent)
            await exchange.publish(message, lane)
    return command_ids


@pytest.mark.slow
@pytest.mark.timeout(300 * SECOND)
async def test_a_burst_of_10_000_kill_commands_passes_a_backlog_of_100_000(stage: Stage) -> None:
    """All kills are final while the normal lane waits, and of the normal lane nothing is lost."""
    kills, waiting = int(10_000 * SCALE), int(100_000 * SCALE)
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    await stage.declare()
    backlog = [*stage.place(2_000), *(str(uuid.uuid4()) for _ in range(waiting - 2_000))]
    normal = set(await _publish(stage, backlog, "cancel"))

    async def all_wait() -> bool:
        return await stage.broker.depth(COMMANDS) == waiting

    await eventually(all_wait, 60 * SECOND)
    worker = await stage.start(venue__rate_limit=20.0)
    await eventually(stage.events.finals, 30 * SECOND)
    began = time.monotonic()
    killed = await _publish(stage, stage.place(kills), "kill")
    stage.published.update(dict.fromkeys(killed, 1))
    await eventually(lambda: len(stage.events.seen) >= kills and not stage.missing(), 120 * SECOND, 0.5)
    print(f"{kills} kill commands past a backlog of {waiting}: {time.monotonic() - began:.2f} s")
    assert await worker.terminate() == 0
    finals = stage.check_finals(once=True)
    assert {finals[command_id, 0].outcome for command_id in killed} == {"canceled"}
    done = sum(command_id in normal for command_id, _ in finals)
    assert done < 2_000, "the normal lane went on as if there were no limit"

    async def none_lost() -> bool:
        return await stage.broker.depth(COMMANDS) == waiting - done

    await eventually(none_lost, 20 * SECOND)
