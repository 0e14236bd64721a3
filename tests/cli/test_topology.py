"""``cancel-worker topology``: what it prints is what RabbitMQ takes, and what it declares."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cli.conftest import Ended, broker_settings, cli
from tests.support.broker import Broker


def test_the_table_names_every_object_of_the_contract(here: Callable[..., Ended]) -> None:
    status, out, err = here("topology", settings={"CANCEL_WORKER__BROKER__KILL_QUEUE": "desk.kill"})
    assert (status, err) == (0, "")
    for word in ("cancel.commands", "desk.kill", "cancel.dead", "cancel.results", "cancel.audit", "x-delivery-limit"):
        assert word in out
    assert "cancel.kill" not in out


def test_the_definitions_are_json_with_the_virtual_host_of_the_url(here: Callable[..., Ended]) -> None:
    settings = {"CANCEL_WORKER__BROKER__URL": "amqp://user:hunter2@host/trading%2Feu"}
    status, out, err = here("topology", "--format", "definitions", settings=settings)
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert {one["vhost"] for kind in ("exchanges", "queues", "bindings") for one in found[kind]} == {"trading/eu"}
    assert "hunter2" not in out
    status, out, err = here("topology", "--format", "definitions", "--vhost", "/")
    assert json.loads(out)["vhosts"] == [{"name": "/"}]


async def test_declare_may_be_repeated(broker: Broker) -> None:
    settings = broker_settings(broker)
    try:
        for _ in range(2):
            ended = await cli("topology", "--declare", settings=settings)
            assert (ended.status, ended.err) == (0, "")
            assert ended.out.endswith("declared: all of it is on the broker\n")
        await broker.publish(broker.name("cancel.commands"), "kill", b"{}")
        assert len(await broker.take(broker.name("cancel.kill"), 1)) == 1
    finally:
        await delete_all(broker)


async def test_imported_definitions_are_what_declare_wants(broker: Broker) -> None:
    if broker.management is None:
        pytest.skip("the given broker has no management API to import by")
    settings = broker_settings(broker)
    ended = await cli("topology", "--format", "definitions", settings=settings)
    await broker.api("POST", "definitions", json.loads(ended.out))
    # Declaring would name the first argument that differs.
    ended = await cli("topology", "--declare", settings=settings)
    assert (ended.status, ended.err) == (0, "")
    bindings = await broker.api("GET", f"bindings/{broker.vhost}")
    assert isinstance(bindings, list)
    assert len([one for one in bindings if one["source"]]) == 4
    await delete_all(broker)


async def test_an_object_with_other_arguments_is_named_with_both_values(broker: Broker) -> None:
    name = broker.name("cancel.dead")
    await broker.declare_queue(name, arguments={"x-delivery-limit": 7})
    try:
        ended = await cli("topology", "--declare", settings=broker_settings(broker))
        assert (ended.status, ended.out) == (2, "")
        assert ended.err == (f"cancel-worker: queue {name}: x-delivery-limit should be 100000, the broker has 7\n")
    finally:
        await delete_all(broker)


async def test_a_broker_that_is_not_there_is_one_line() -> None:
    settings = {"CANCEL_WORKER__BROKER__URL": "amqp://user:hunter2@127.0.0.1:1/"}
    ended = await cli("topology", "--declare", settings=settings)
    assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)
    assert ended.err.startswith("cancel-worker: 127.0.0.1:1: ")
    assert "hunter2" not in ended.err


async def delete_all(broker: Broker) -> None:
    """On a broker that is shared by names, what the command declared is ours to delete."""
    if broker.prefix:
        for queue in ("cancel.dead", "cancel.commands", "cancel.kill", "cancel.audit"):
            await broker.delete_queue(broker.name(queue))
        for exchange in ("cancel.commands", "cancel.dead", "cancel.results"):
            await broker.delete_exchange(broker.name(exchange))
