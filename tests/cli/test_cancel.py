"""``cancel-worker cancel`` against a real broker, a real worker and the venue simulator."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from tests.cli.conftest import broker_settings, cli, finish, start, venue_settings
from tests.cli.test_topology import delete_all
from tests.support.broker import Broker
from tests.support.timing import SECOND, eventually
from worker.demo.process import WorkerProcess
from worker.simulator import Behaviour, Simulator

pytestmark = pytest.mark.process


@asynccontextmanager
async def working(broker: Broker, venue: Simulator, **more: str) -> AsyncIterator[dict[str, str]]:
    """A worker that takes commands of both lanes; the settings that lead to it."""
    settings = broker_settings(broker) | venue_settings(venue)
    try:
        async with WorkerProcess(
            [], settings | {f"CANCEL_WORKER__{name}": value for name, value in more.items()}
        ) as one:

            async def ready() -> bool:
                one.check()
                queues = broker.name("cancel.kill"), broker.name("cancel.commands")
                return all([await broker.exists(queue) and await broker.consumers(queue) for queue in queues])

            await eventually(ready, 15 * SECOND)
            yield settings
    finally:
        await delete_all(broker)


async def test_every_order_works_no_more_is_exit_status_0(broker: Broker) -> None:
    async with Simulator() as venue:
        one, two = venue.place(), venue.place(cl_ord_id="client-2", behaviour=Behaviour(play="closed"))
        async with working(broker, venue) as settings:
            arguments = ("--symbol", "BTC-USD", "--order-id", one.order_id, "--orig-cl-ord-id", "client-2")
            ended = await cli("cancel", *arguments, settings=settings)
        assert (ended.status, ended.err) == (0, "")
        assert venue.truth()[one.order_id].status == "Canceled"
        assert "pending_cancel" in ended.out
        table = ended.out.splitlines()[-2:]
        assert [line.split()[:5] for line in table] == [
            ["0", "BTC-USD", one.order_id, "canceled", "no"],
            ["1", "BTC-USD", "client-2", "already_closed", "no"],
        ]
        assert two.closed


async def test_an_order_that_works_on_is_exit_status_1(broker: Broker) -> None:
    async with Simulator() as venue:
        order = venue.place(behaviour=Behaviour(play="reject", reason=2, text="market is closed"))
        async with working(broker, venue) as settings:
            ended = await cli("cancel", "--symbol", "BTC-USD", "--order-id", order.order_id, settings=settings)
        assert ended.status == 1
        assert ended.out.splitlines()[-1].split()[3:6] == ["cancel_rejected", "yes", "yes"]
        assert "market is closed" in ended.out


async def test_json_is_one_event_a_line_as_published(broker: Broker) -> None:
    async with Simulator() as venue:
        order = venue.place()
        async with working(broker, venue) as settings:
            body = {"type": "OrderCancelRequest", "data": [{"Symbol": "BTC-USD", "OrderID": order.order_id}]}
            arguments = ("--file", "-", "--json", "--kill", "--command-id", "c-1", "--reason", "desk closed")
            ended = await cli("cancel", *arguments, settings=settings, given=json.dumps(body).encode())
            again = await cli("cancel", *arguments, settings=settings, given=json.dumps(body).encode())
        assert (ended.status, ended.err) == (0, "")
        events = [json.loads(line) for line in ended.out.splitlines()]
        finals = [event for event in events if event["final"]]
        assert len(finals) == 1
        assert (finals[0]["command_id"], finals[0]["lane"], finals[0]["reason"]) == ("c-1", "kill", "desk closed")
        assert finals[0]["user_id"] == urlsplit(broker.url).username
        assert len({event["event_id"] for event in events}) == len(events)
        # The same command once more: the same final, and nothing is sent again.
        assert json.loads(again.out.splitlines()[-1])["event_id"] == finals[0]["event_id"]
        assert len(venue.sends_of(order.order_id)) == 1


async def test_authorization_goes_by_the_user_of_the_url(broker: Broker) -> None:
    async with Simulator() as venue:
        order = venue.place()
        async with working(broker, venue, AUTHORIZATION__CANCEL_USERS='["nobody"]') as settings:
            arguments = ("--symbol", "BTC-USD", "--order-id", order.order_id)
            ended = await cli("cancel", *arguments, settings=settings)
            killed = await cli("cancel", *arguments, "--kill", settings=settings)
        assert ended.status == 1
        assert "unauthorized" in ended.out
        assert killed.status == 0


async def test_without_a_worker_it_says_that_the_command_stays(broker: Broker) -> None:
    settings = broker_settings(broker)
    try:
        await cli("topology", "--declare", settings=settings)
        arguments = ("--symbol", "BTC-USD", "--order-id", "o-1", "--wait", "0.3", "--deadline", "1h", "--reason", "why")
        ended = await cli("cancel", *arguments, settings=settings)
        assert ended.status == 1
        first, second = ended.err.splitlines()
        assert "still in the queue or in flight and may still be carried out" in first
        assert second.endswith(f"no worker takes commands from {broker.name('cancel.commands')} now; 1 wait in it")
        [message] = await broker.take(broker.name("cancel.commands"), 1)
        assert json.loads(message.body)["data"] == [{"Symbol": "BTC-USD", "OrderID": "o-1"}]
        assert message.user_id == urlsplit(broker.url).username
        assert message.message_id == message.correlation_id
        assert message.message_id is not None
        assert message.message_id in first
        assert message.timestamp is not None
        assert abs(datetime.now(UTC) - message.timestamp) < timedelta(seconds=60)
        assert message.headers["reason"] == "why"
        assert message.delivery_mode == 2
    finally:
        await delete_all(broker)


async def test_ctrl_c_says_that_the_command_stays(broker: Broker) -> None:
    settings = broker_settings(broker)
    try:
        await cli("topology", "--declare", settings=settings)
        process = await start(["cancel", "--symbol", "A", "--order-id", "1", "--command-id", "c-9"], settings)
        assert process.stdout is not None
        async with asyncio.timeout(20 * SECOND):
            assert b"command c-9 is in the queue" in await process.stdout.readline()
        process.send_signal(signal.SIGINT)
        ended = await finish(process)
        assert ended.status == 1
        assert "cancel-worker: command c-9 was published and stays in force\n" in ended.err
        assert "Traceback" not in ended.err
    finally:
        await delete_all(broker)


async def test_a_queue_that_takes_no_more_is_told(broker: Broker) -> None:
    settings = broker_settings(broker)
    await broker.declare_exchange(broker.name("cancel.commands"))
    await broker.declare_exchange(broker.name("cancel.results"), "topic")
    name = broker.name("cancel.commands")
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    await broker.declare_queue(name, kind="classic", arguments=full, bind=[(name, "cancel")])
    await broker.publish(name, "cancel", b"{}")
    ended = await cli("cancel", "--symbol", "A", "--order-id", "1", settings=settings)
    assert (ended.status, ended.out) == (1, "")
    assert ended.err == f"cancel-worker: the broker refused the command: queue {name} takes no more\n"


async def test_a_topology_that_is_not_there_is_exit_status_2(broker: Broker) -> None:
    settings = broker_settings(broker)
    ended = await cli("cancel", "--symbol", "A", "--order-id", "1", settings=settings)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert f"exchange {broker.name('cancel.results')} is missing" in ended.err
    await broker.declare_exchange(broker.name("cancel.results"), "topic")
    await broker.declare_exchange(broker.name("cancel.commands"))
    ended = await cli("cancel", "--kill", "--symbol", "A", "--order-id", "1", settings=settings)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err == (
        f"cancel-worker: a binding of exchange {broker.name('cancel.commands')} with routing key kill is missing\n"
    )


async def test_no_broker_is_one_line() -> None:
    settings = {"CANCEL_WORKER__BROKER__URL": "amqp://user:hunter2@127.0.0.1:1/"}
    ended = await cli("cancel", "--symbol", "A", "--order-id", "1", settings=settings)
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert "hunter2" not in ended.err
