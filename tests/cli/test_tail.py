"""``cancel-worker tail`` on a real broker."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.cli.conftest import Ended, broker_settings, cli, finish, start
from tests.cli.test_topology import delete_all
from tests.support.broker import Broker
from tests.support.events import ledger, make_event, publish_event
from tests.support.timing import SECOND, eventually

pytestmark = pytest.mark.process


@asynccontextmanager
async def declared(broker: Broker) -> AsyncIterator[dict[str, str]]:
    """The topology; the settings that lead to it."""
    settings = broker_settings(broker)
    try:
        ended = await cli("topology", "--declare", settings=settings)
        assert ended.status == 0, ended.err
        yield settings
    finally:
        await delete_all(broker)


async def listening(broker: Broker, settings: Mapping[str, str], *arguments: str) -> asyncio.subprocess.Process:
    """A ``tail`` that has bound its queue."""
    process = await start(["tail", *arguments], settings)

    async def bound() -> bool:
        assert process.returncode is None, await finish(process)
        assert broker.management is not None
        found = await broker.api("GET", f"exchanges/{broker.vhost}/{broker.name('cancel.results')}/bindings/source")
        assert isinstance(found, list)
        return len(found) > 1

    await eventually(bound, 20 * SECOND, 0.1)
    return process


async def test_live_it_shows_what_comes_until_ctrl_c(broker: Broker) -> None:
    if broker.management is None:
        pytest.skip("the given broker has no management API to see the binding by")
    async with declared(broker) as settings:
        await publish_event(broker, make_event("before", 0, "canceled"))
        process = await listening(broker, settings)
        event = make_event("c-1", 3, "canceled", order_id="o-7", user_id="risk")
        await broker.publish(broker.name("cancel.results"), "final.x.y", b"no event")
        await publish_event(broker, event)
        await publish_event(broker, event)  # the same id again: shown once
        await publish_event(broker, make_event("m-1", 0, "mass_progress", mass=ledger(matched=4, canceled=4)))
        assert process.stdout is not None
        async with asyncio.timeout(20 * SECOND):
            first, second = [(await process.stdout.readline()).decode() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        ended = await finish(process)
        assert (ended.status, ended.out, ended.err) == (0, "", "")
        for word in ("canceled", "#3", "BTC-USD", "o-7", "command c-1 by risk", datetime.now(UTC).strftime("%Y-%m")):
            assert word in first
        assert "matched 4: 4 canceled; 1 sweep" in second


async def test_filters_and_count(broker: Broker) -> None:
    if broker.management is None:
        pytest.skip("the given broker has no management API to see the binding by")
    async with declared(broker) as settings:
        arguments = ("--json", "--final", "--symbol", "A.B", "--outcome", "canceled", "--order-id", "o-1")
        process = await listening(broker, settings, *arguments, "--count", "1")
        for more in ({"symbol": "A_B"}, {"order_id": "o-2"}, {"outcome": "report"}, {"outcome": "refused"}, {}):
            values: dict[str, Any] = {"symbol": "A.B", "order_id": "o-1"} | more
            await publish_event(broker, make_event("c-1", 0, values.pop("outcome", "canceled"), **values))
        ended = await finish(process)
        assert (ended.status, ended.err) == (0, "")
        [event] = [json.loads(line) for line in ended.out.splitlines()]
        assert (event["symbol"], event["order_id"], event["outcome"]) == ("A.B", "o-1", "canceled")


async def test_since_shows_what_was_and_goes_on(broker: Broker) -> None:
    async with declared(broker) as settings:
        old_us = (time.time_ns() // 1000) - 7_200_000_000
        await publish_event(broker, make_event("old", 0, "canceled", at_us=old_us))
        await publish_event(broker, make_event("c-1", 0, "canceled"))
        process = await start(["tail", "--since", "1h", "--json", "--count", "2"], settings)
        assert process.stdout is not None
        async with asyncio.timeout(20 * SECOND):
            assert json.loads(await process.stdout.readline())["command_id"] == "c-1"
        await publish_event(broker, make_event("c-2", 0, "canceled"))
        ended = await finish(process)
        assert (ended.status, ended.err) == (0, "")
        assert json.loads(ended.out)["command_id"] == "c-2"


async def test_until_ends_it(broker: Broker) -> None:
    async with declared(broker) as settings:
        await publish_event(broker, make_event("c-1", 0, "canceled"))
        ended = await cli("tail", "--since", "1h", "--until", "now", "--json", settings=settings)
        assert (ended.status, ended.err, ended.out.count("\n")) == (0, "", 1)
        soon = (datetime.now(UTC) + timedelta(seconds=5 * SECOND)).isoformat()
        ended = await cli("tail", "--until", soon, settings=settings)
        assert ended == Ended(0, "", "")
        soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()  # it may come before the stream is open
        ended = await cli("tail", "--since", "1h", "--until", soon, "--command-id", "c-1", settings=settings)
        assert (ended.status, ended.err, ended.out.count("\n")) == (0, "", 1)


async def test_a_lost_connection_is_one_line(broker: Broker) -> None:
    if broker.node is None or broker.management is None:
        pytest.skip("the broker was given from outside")
    async with declared(broker) as settings:
        process = await listening(broker, settings)
        await broker.close_connections()
        ended = await finish(process)
        assert (ended.status, ended.out) == (1, "")
        assert ended.err == "cancel-worker: the connection to the broker was lost\n"


async def test_a_topology_that_is_not_there_is_exit_status_2(broker: Broker) -> None:
    settings = broker_settings(broker)
    ended = await cli("tail", settings=settings)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert f"exchange {broker.name('cancel.results')} is missing" in ended.err
    ended = await cli("tail", "--since", "1h", settings=settings)
    assert (ended.status, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert f"queue {broker.name('cancel.audit')} is missing" in ended.err


async def test_no_broker_is_one_line() -> None:
    settings = {"CANCEL_WORKER__BROKER__URL": "amqp://user:hunter2@127.0.0.1:1/"}
    for arguments in (["tail"], ["tail", "--since", "1h"], ["audit", "verify"], ["audit", "export"]):
        ended = await cli(*arguments, settings=settings)
        assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)
        assert "hunter2" not in ended.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--since", "soon"],
        ["--until", "2020-01-01T00:00:00Z"],
        ["--since", "1h", "--until", "2h"],
        ["--outcome", "cancelled"],
        ["--count", "0"],
    ],
)
def test_what_makes_no_sense_is_a_usage_error(arguments: list[str], here: Callable[..., Ended]) -> None:
    status, out, err = here("tail", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("cancel-worker: ")
