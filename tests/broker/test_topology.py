"""Declaring and checking the topology of contract section 1 on a real RabbitMQ."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tests.broker.recorder import dial_to
from tests.support.broker import Broker
from tests.support.timing import SECOND, eventually
from worker import config
from worker.broker.driver import limited
from worker.broker.topology import absence, check, declare, ensure_audit, mismatch, topology_of
from worker.errors import BrokerError, BrokerRefusedError, TopologyError


def settings(broker: Broker, **changes: object) -> config.Broker:
    """The default topology with this test's names; a small stream, since the node may be on a small disk."""
    names = (
        "commands_exchange", "commands_queue", "kill_queue", "dead_exchange", "dead_queue", "results_exchange",
        "audit_queue",
    )  # fmt: skip
    default = config.Broker()
    named: dict[str, object] = {name: broker.name(getattr(default, name)) for name in names}
    return msgspec.structs.replace(default, **(named | changes))


async def test_what_is_declared_is_found_and_may_be_declared_again(broker: Broker) -> None:
    dial, wanted = dial_to(broker.url), settings(broker)
    await declare(dial, wanted)
    await declare(dial, wanted)
    await check(dial, wanted)
    await ensure_audit(dial, wanted)
    await ensure_audit(dial, settings(broker, declare=False))


async def test_the_broker_has_all_that_the_contract_lists(broker: Broker) -> None:
    if broker.management is None:
        pytest.skip("the broker was given from outside")
    await declare(dial_to(broker.url), settings(broker))
    queues = await broker.api("GET", f"queues/{broker.vhost}")
    assert isinstance(queues, list)
    arguments = {queue["name"]: queue["arguments"] for queue in queues}
    lane = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": "cancel.dead",
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
        "x-delivery-limit": 100_000,
    }
    assert arguments == {
        "cancel.commands": lane,
        "cancel.kill": lane,
        "cancel.dead": {"x-queue-type": "quorum", "x-delivery-limit": 100_000},
        "cancel.audit": {
            "x-queue-type": "stream",
            "x-max-age": "30D",
            "x-max-length-bytes": 20_000_000_000,
            "x-stream-max-segment-size-bytes": 100_000_000,
        },
    }
    assert all(queue["durable"] for queue in queues)
    exchanges = await broker.api("GET", f"exchanges/{broker.vhost}")
    assert isinstance(exchanges, list)
    assert {x["name"]: (x["type"], x["durable"]) for x in exchanges if x["name"].startswith("cancel.")} == {
        "cancel.commands": ("direct", True),
        "cancel.dead": ("fanout", True),
        "cancel.results": ("topic", True),
    }
    bindings = await broker.api("GET", f"bindings/{broker.vhost}")
    assert isinstance(bindings, list)
    assert {(b["source"], b["destination"], b["routing_key"]) for b in bindings if b["source"]} == {
        ("cancel.commands", "cancel.commands", "cancel"),
        ("cancel.commands", "cancel.kill", "kill"),
        ("cancel.dead", "cancel.dead", ""),
        ("cancel.results", "cancel.audit", "#"),
    }


async def test_commands_are_dead_lettered_with_body_and_headers(broker: Broker) -> None:
    wanted = settings(broker)
    await declare(dial_to(broker.url), wanted)
    await broker.publish(wanted.commands_exchange, wanted.kill_key, b"bad", headers={"reason": "x"})
    channel = await broker.channel()
    message = await (await channel.get_queue(wanted.kill_queue, ensure=False)).get(timeout=10 * SECOND, fail=True)
    await message.nack(requeue=False)
    (letter,) = await broker.take(wanted.dead_queue, 1)
    assert letter.body == b"bad"
    assert letter.headers["reason"] == "x"


@pytest.mark.parametrize(
    ("changes", "argument", "found"),
    [
        ({"delivery_limit": 7}, "x-delivery-limit", 7),
        ({"overflow": "drop-head", "dead_letter_strategy": "at-most-once"}, None, None),
        ({"dead_exchange": "elsewhere"}, "x-dead-letter-exchange", "elsewhere"),
        ({"audit_max_age": "1D"}, "x-max-age", "1D"),
        ({"audit_segment_bytes": 1_000_000}, "x-stream-max-segment-size-bytes", 1_000_000),
    ],
)
async def test_an_argument_that_differs_is_named_with_both_values(
    broker: Broker, changes: dict[str, object], argument: str | None, found: object
) -> None:
    dial, wanted = dial_to(broker.url), settings(broker)
    await declare(dial, settings(broker, **changes))
    with pytest.raises(TopologyError) as differs:
        await declare(dial, wanted)
    error = differs.value
    assert error.exit_status == 2
    assert error.object.startswith("queue ")
    if argument is None:
        assert (error.wanted, error.found) in {("reject-publish", "drop-head"), ("at-least-once", "at-most-once")}
        return
    assert (error.argument, error.found) == (argument, found)
    lane_value = topology_of(wanted).queues[3 if error.object.endswith("audit") else 1].arguments[argument]
    assert error.wanted == lane_value
    assert str(found) in str(error)
    assert str(lane_value) in str(error)


async def test_an_object_of_another_type_is_named(broker: Broker) -> None:
    wanted = settings(broker)
    await broker.declare_exchange(wanted.results_exchange, "fanout")
    with pytest.raises(TopologyError) as differs:
        await declare(dial_to(broker.url), wanted)
    error = differs.value
    assert (error.object, error.argument, error.wanted, error.found) == (
        f"exchange {wanted.results_exchange}", "type", "topic", "fanout",
    )  # fmt: skip


async def test_what_is_missing_is_named(broker: Broker) -> None:
    dial, wanted = dial_to(broker.url), settings(broker, declare=False)
    with pytest.raises(TopologyError) as missing:
        await check(dial, wanted)
    assert (missing.value.object, missing.value.argument) == (f"exchange {wanted.commands_exchange}", None)
    await declare(dial, wanted)
    await broker.delete_queue(wanted.kill_queue)
    with pytest.raises(TopologyError, match=f"queue {wanted.kill_queue} is missing"):
        await check(dial, wanted)
    await broker.delete_queue(wanted.audit_queue)
    with pytest.raises(TopologyError, match=f"queue {wanted.audit_queue} is missing"):
        await ensure_audit(dial, wanted)


async def test_a_lost_audit_stream_is_made_and_bound_again_where_that_is_allowed(broker: Broker) -> None:
    dial, wanted = dial_to(broker.url), settings(broker)
    await declare(dial, wanted)
    await broker.delete_queue(wanted.audit_queue)
    await ensure_audit(dial, wanted)
    await broker.publish(wanted.results_exchange, "final.canceled.X", b"{}")
    assert len(await broker.read_stream(wanted.audit_queue, 1)) == 1


async def test_a_broker_that_cannot_be_reached_or_refuses_is_told_without_the_password(broker: Broker) -> None:
    user, password = broker.url.partition("//")[2].partition("@")[0].split(":")
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1"):
        await check(dial_to("amqp://user:s3cret@127.0.0.1:1/"), settings(broker))
    with pytest.raises(BrokerRefusedError) as refused:
        await check(dial_to(broker.url.replace(password, "wr0ng-pass")), settings(broker))
    assert "wr0ng-pass" not in repr(refused.value)
    server = broker.url.partition("@")[2].partition("/")[0]
    with pytest.raises(BrokerRefusedError, match="virtual host nowhere"):
        await check(dial_to(f"amqp://{user}:{password}@{server}/nowhere"), settings(broker))


async def test_missing_rights_are_a_refusal_that_names_the_object(broker: Broker) -> None:
    if broker.management is None:
        pytest.skip("the broker was given from outside")
    user = "reader"
    await broker.api("PUT", f"users/{user}", {"password": "reader", "tags": ""})
    try:
        rights = {"configure": "", "write": "", "read": ".*"}
        await broker.api("PUT", f"permissions/{broker.vhost}/{user}", rights)
        url = broker.url.replace(broker.url.split("//")[1].split("@")[0], "reader:reader")
        with pytest.raises(BrokerRefusedError, match=r"exchange cancel\.commands"):
            await declare(dial_to(url), settings(broker))
    finally:
        await broker.api("DELETE", f"users/{user}")


async def test_another_url_is_tried_when_the_first_does_not_answer(broker: Broker) -> None:
    await declare(dial_to("amqp://user:secret@127.0.0.1:1/", broker.url), settings(broker))


async def test_no_connection_is_left_behind(broker: Broker) -> None:
    if broker.management is None:
        pytest.skip("the broker was given from outside")
    await declare(dial_to(broker.url), settings(broker))

    async def none_left() -> bool:
        return await broker.api("GET", f"vhosts/{broker.vhost}/connections") == []

    await eventually(none_left, 20 * SECOND)


async def test_a_frozen_driver_is_given_up_and_its_false_cancellation_is_an_error() -> None:
    with pytest.raises(BrokerError, match=r"queue x: no answer within 0\.05 s"):
        async with limited("queue x", 0.05):
            await asyncio.sleep(5)
    with pytest.raises(BrokerError, match="the connection was lost"):
        async with limited("queue x", 5):
            raise asyncio.CancelledError  # faults A4: nobody cancelled us
    task = asyncio.create_task(_limited_sleep())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def _limited_sleep() -> None:
    async with limited("queue x", 5):
        await asyncio.sleep(5)


INEQUIVALENT = (
    "PRECONDITION_FAILED - inequivalent arg '{}' for queue 'it's' in vhost '/': received {} but current is {}"
)


@pytest.mark.parametrize(
    ("text", "argument", "wanted", "found"),
    [
        (INEQUIVALENT.format("x-overflow", "'drop-head'", "'none'"), "x-overflow", "drop-head", "none"),
        (INEQUIVALENT.format("x-n", "none", "the value '100000' of type 'signedint'"), "x-n", None, 100_000),
        (INEQUIVALENT.format("x-n", "the value '1000' of type 'short'", "none"), "x-n", 1000, None),
        ("invalid arg 'x-max-age' for queue 'q': {error,unacceptable}", "declaration", "accepted", "refused it"),
    ],
)
def test_what_the_broker_says_is_taken_apart(text: str, argument: str, wanted: object, found: object) -> None:
    error = mismatch("queue q", text)
    assert (error.object, error.argument, error.wanted, error.found) == ("queue q", argument, wanted, found)


def test_every_binding_joins_objects_of_the_topology() -> None:
    topology = topology_of(config.Broker(results_exchange="other", audit_key="final.#"))
    exchanges = {exchange.name for exchange in topology.exchanges}
    queues = {queue.name for queue in topology.queues}
    assert all(binding.exchange in exchanges and binding.queue in queues for binding in topology.bindings)
    assert ("other", "cancel.audit", "final.#") in {(b.exchange, b.queue, b.routing_key) for b in topology.bindings}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NOT_FOUND - no queue 'cancel.audit' in vhost '/'", TopologyError),
        ("NOT_FOUND - home node 'r1@localhost' of durable queue 'cancel.audit' is down or inaccessible", BrokerError),
    ],
)
def test_an_object_whose_node_is_not_back_yet_is_not_missing(text: str, kind: type[Exception]) -> None:
    error = absence("queue cancel.audit", text)
    assert type(error) is kind
    assert "queue cancel.audit" in str(error)
