"""A publisher on a real RabbitMQ."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from pamqp import commands

from tests.broker import frames
from tests.broker.recorder import Recorder, dial_to, running
from tests.broker.scripted import Peer, scripted
from tests.support.broker import Broker
from tests.support.timing import SECOND, eventually
from worker.broker.publisher import EVENTS, REPLIES, Publisher
from worker.core.effects import OutEvent
from worker.demo.node import PrivateNode
from worker.errors import BrokerError, TopologyError


def event(number: int | str, body: bytes = b"{}", routing_key: str = "final.canceled.BTC-USD") -> OutEvent:
    headers: dict[str, str | bool] = {"command_id": "cmd-1", "final": True}
    return OutEvent(
        f"e-{number}", "cancel", routing_key, body, "canceled", True, "cmd-1", "corr-1", headers, 1_700_000_000
    )


async def nothing() -> None:
    return None


def publisher_of(
    broker: Broker,
    exchange: str,
    recorder: Recorder,
    prepare: Callable[[], Awaitable[None]] = nothing,
    confirm_timeout_s: float = 10.0,
    heartbeat_s: int = 5,
) -> Publisher:
    return Publisher(
        "cancel", exchange, dial_to(broker.url, heartbeat_s=heartbeat_s), recorder, prepare, confirm_timeout_s
    )


@pytest.fixture
async def exchange(broker: Broker) -> str:
    name = broker.name("results")
    await broker.declare_exchange(name, "topic")
    return name


@pytest.fixture
async def audit(broker: Broker, exchange: str) -> str:
    name = broker.name("audit")
    await broker.declare_queue(name, bind=[(exchange, "#")])
    return name


async def test_an_event_arrives_with_all_that_the_contract_promises(broker: Broker, exchange: str, audit: str) -> None:
    recorder = Recorder()
    publisher = publisher_of(broker, exchange, recorder)
    async with running(publisher):
        await recorder.until("publisher_up")
        publisher.publish(event(1, b'{"outcome":"canceled"}'))
        await recorder.until("event_confirmed")
    (message,) = await broker.take(audit, 1)
    assert message.routing_key == "final.canceled.BTC-USD"
    assert message.body == b'{"outcome":"canceled"}'
    assert (message.message_id, message.correlation_id, message.type) == ("e-1", "corr-1", "canceled")
    assert (message.app_id, message.content_type) == ("cancel-worker", "application/json")
    assert int(message.delivery_mode or 0) == 2
    assert message.timestamp is not None
    assert message.timestamp.timestamp() == 1_700_000_000
    assert {name: message.headers[name] for name in ("command_id", "final")} == {"command_id": "cmd-1", "final": True}


async def test_thousands_of_events_are_each_confirmed_once(broker: Broker, exchange: str, audit: str) -> None:
    recorder = Recorder()
    publisher = publisher_of(broker, exchange, recorder)
    async with running(publisher):
        await recorder.until("publisher_up")
        for number in range(1000):
            publisher.publish(event(number, b"x" * (number % 500)))
        assert publisher.in_flight == 1000
        await recorder.until("event_confirmed", 1000, within_s=20 * SECOND)
        assert publisher.in_flight == 0
        assert sorted(str(told[1]) for told in recorder.told[1:]) == sorted(f"e-{n}" for n in range(1000))
    assert publisher.stats.stray_confirms == 0
    assert publisher.stats.confirmed == 1000
    messages = await broker.drain(audit)
    assert [message.message_id for message in messages] == [f"e-{n}" for n in range(1000)]


@pytest.mark.parametrize("size", [0, 131_064, 131_065, 3_000_000])
async def test_an_event_of_any_size_is_stored(broker: Broker, exchange: str, audit: str, size: int) -> None:
    body = bytes(n % 251 for n in range(size))
    recorder = Recorder()
    publisher = publisher_of(broker, exchange, recorder)
    async with running(publisher):
        await recorder.until("publisher_up")
        publisher.publish(event(1, body))
        await recorder.until("event_confirmed")
    assert (await broker.take(audit, 1))[0].body == body


async def test_without_a_binding_events_are_returned_and_their_acks_not_reported(broker: Broker, exchange: str) -> None:
    some = broker.name("some")
    await broker.declare_queue(some, bind=[(exchange, "final.#")])
    recorder = Recorder()
    publisher = publisher_of(broker, exchange, recorder)
    async with running(publisher):
        await recorder.until("publisher_up")
        for number in range(100):
            publisher.publish(event(number, routing_key="final.x" if number % 2 else "info.x"))
        await recorder.until("event_returned", 50)
        await recorder.until("event_confirmed", 50)
        await eventually(lambda: not publisher._returned)  # every ack of a returned one came
    assert recorder.last("event_returned")[2:] == (312, "NO_ROUTE")
    assert recorder.events("event_returned") == {f"e-{n}" for n in range(0, 100, 2)}
    assert recorder.events("event_confirmed") == {f"e-{n}" for n in range(1, 100, 2)}
    assert publisher.stats.returned == 50
    assert publisher.stats.stray_confirms == 0


async def test_a_full_queue_of_somebody_else_nacks_the_event(broker: Broker, exchange: str, audit: str) -> None:
    await broker.declare_queue(
        broker.name("full"),
        kind="classic",
        arguments={"x-max-length": 1, "x-overflow": "reject-publish"},
        bind=[(exchange, "#")],
    )
    recorder = Recorder()
    publisher = publisher_of(broker, exchange, recorder)
    async with running(publisher):
        await recorder.until("publisher_up")
        for number in range(5):
            publisher.publish(event(number))
        await recorder.until("event_nacked", 4)
        await recorder.until("event_confirmed")
        assert publisher.in_flight == 0
    assert publisher.stats.nacked == 4


async def test_a_loss_stands_for_all_answers_that_are_missing(broker: Broker, exchange: str, audit: str) -> None:
    if broker.node is None:
        pytest.skip("the broker was given from outside")
    recorder = Recorder()
    publisher = publisher_of(broker, exchange, recorder)
    async with running(publisher):
        await recorder.until("publisher_up")
        closing = asyncio.create_task(broker.close_connections("maintenance"))
        number = 0
        while not recorder.count("publisher_lost"):
            publisher.publish(event(number))
            number += 1
            await asyncio.sleep(0.001)
        publisher.publish(event("late"))  # at once: it may be up again by the time the operator has his answer
        assert publisher.stats.unsent == 1
        lost = next(at for at, told in enumerate(recorder.told) if told[0] == "publisher_lost")
        await closing
        await recorder.until("publisher_up", 2)
        assert {told[0] for told in recorder.told[lost + 1 :]} <= {"publisher_up", "publisher_failed"}
        publisher.publish(event("again"))
        await eventually(lambda: ("event_confirmed", "e-again") in recorder.told)
    confirmed = recorder.events("event_confirmed")
    stored = {message.message_id for message in await broker.drain(audit)}
    assert confirmed <= stored
    assert publisher.stats.unanswered == publisher.stats.published - publisher.stats.confirmed


async def test_a_missing_exchange_loses_the_link_and_is_named(broker: Broker) -> None:
    name = broker.name("later")
    recorder = Recorder()
    publisher = publisher_of(broker, name, recorder)
    async with running(publisher):
        await recorder.until("publisher_up")
        publisher.publish(event(1))
        (_, _, reason) = await recorder.until("publisher_lost")
        assert name in str(reason)
        assert "404" in str(reason)
        await broker.declare_exchange(name, "topic")
        await broker.declare_queue(broker.name("bound"), bind=[(name, "#")])
        await recorder.until("publisher_up", 2)
        publisher.publish(event(1))
        await recorder.until("event_confirmed")


async def test_a_reply_reaches_its_queue(broker: Broker, exchange: str) -> None:
    queue = broker.name("replies")
    await broker.declare_queue(queue, kind="classic")
    recorder = Recorder()
    publisher = publisher_of(broker, exchange, recorder)
    async with running(publisher):
        publisher.reply(event(0), queue)  # before it is up: counted
        await recorder.until("publisher_up")
        publisher.reply(event(1), queue)
        (message,) = await broker.take(queue, 1)
    assert (message.message_id, message.correlation_id) == ("e-1", "corr-1")
    assert (publisher.stats.replies, publisher.stats.replies_unsent, publisher.stats.replies_returned) == (1, 1, 0)


async def test_a_missing_reply_queue_is_counted_and_harms_no_event(broker: Broker, exchange: str, audit: str) -> None:
    recorder = Recorder()
    publisher = publisher_of(broker, exchange, recorder)
    async with running(publisher):
        await recorder.until("publisher_up")
        for number in range(10):
            publisher.reply(event(number), broker.name("nowhere"))
            publisher.publish(event(number))
        await recorder.until("event_confirmed", 10)
        await eventually(lambda: publisher.stats.replies_returned == 10)
    assert {told[0] for told in recorder.told[:-1]} == {"publisher_up", "event_confirmed"}


async def test_a_reply_channel_that_the_broker_closes_is_opened_again(
    broker: Broker, exchange: str, audit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broker.node is None:
        pytest.skip("the broker was given from outside")
    monkeypatch.setattr("worker.broker.publisher.REOPEN_AFTER_S", 0.1)
    user, password = "narrow", "narrow"
    await broker.api("PUT", f"users/{user}", {"password": password, "tags": ""})
    try:
        rights = {"configure": "", "write": f"^{exchange}$", "read": ".*"}
        await broker.api("PUT", f"permissions/{broker.vhost}/{user}", rights)
        recorder = Recorder()
        url = broker.url.replace(broker.url.split("//")[1].split("@")[0], f"{user}:{password}")
        publisher = Publisher("cancel", exchange, dial_to(url), recorder, nothing)
        async with running(publisher):
            await recorder.until("publisher_up")
            publisher.publish(event(1))
            publisher.reply(event(1), "anything")  # write access to the default exchange is refused
            await eventually(lambda: publisher.stats.reply_channel_closed == 1)
            publisher.reply(event(1), "anything")
            assert publisher.stats.replies_unsent == 1
            publisher.publish(event(2))
            await recorder.until("event_confirmed", 2)
            await eventually(lambda: publisher._replies_open)
            publisher.reply(event(2), "anything")
            await eventually(lambda: publisher.stats.reply_channel_closed == 2)
            publisher.publish(event(3))
            await recorder.until("event_confirmed", 3)
        assert recorder.count("publisher_lost") == 1  # the close at the end
    finally:
        await broker.api("DELETE", f"users/{user}")


@pytest.mark.parametrize("error", [BrokerError("not yet"), TopologyError("queue cancel.audit")])
async def test_nothing_is_up_before_prepare_is_done(broker: Broker, exchange: str, error: Exception) -> None:
    attempts = 0

    async def prepare() -> None:
        nonlocal attempts
        attempts += 1
        assert publisher.state == "down"
        if attempts < 3:
            raise error

    recorder = Recorder()
    publisher = publisher_of(broker, exchange, recorder, prepare)
    async with running(publisher):
        await recorder.until("publisher_up")
        assert attempts == 3
        assert recorder.told[:2] == [("publisher_failed", "cancel", str(error))] * 2
        assert publisher.stats.failures == 2


async def test_a_prepare_that_never_ends_is_given_up(
    broker: Broker, exchange: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.broker.publisher.PREPARE_WITHIN_S", 0.1)
    recorder = Recorder()
    async with running(publisher_of(broker, exchange, recorder, asyncio.Event().wait)):  # type: ignore[arg-type]
        (_, _, reason) = await recorder.until("publisher_failed")
    assert "not found within 0.1 s" in str(reason)


async def test_what_the_port_raises_ends_run(broker: Broker, exchange: str, audit: str) -> None:
    for call in ("event_confirmed", "publisher_up"):
        recorder = Recorder()
        recorder.raises = call
        publisher = publisher_of(broker, exchange, recorder)
        recorder.on_up = lambda lane, publisher=publisher: publisher.publish(event(1))  # type: ignore[misc]
        with pytest.raises(RuntimeError, match=f"a bug in {call}"):
            await asyncio.wait_for(publisher.run(), 10 * SECOND)
        assert publisher.state == "down"


def scripted_publisher(url: str, recorder: Recorder, confirm_timeout_s: float = 10.0) -> Publisher:
    return Publisher("kill", "cancel.results", dial_to(url), recorder, nothing, confirm_timeout_s)


async def confirming(peer: Peer) -> None:
    """A broker with both channels open and confirms on."""
    await peer.open()
    await peer.open_channel(EVENTS)
    await peer.expect(commands.Confirm.Select)
    peer.say(commands.Confirm.SelectOk(), channel=EVENTS)
    await peer.open_channel(REPLIES)


async def test_confirms_of_a_range_answer_each_event_in_it_once() -> None:
    async def script(peer: Peer) -> None:
        await confirming(peer)
        for _ in range(10):
            await peer.expect(commands.Basic.Publish)
        peer.say(commands.Basic.Ack(2), channel=EVENTS)
        peer.write(frames.returned("e-3", EVENTS))
        peer.say(
            commands.Basic.Ack(4, True),  # 1, 3 (returned) and 4
            commands.Basic.Nack(6, True),  # 5 and 6
            commands.Basic.Ack(8),
            commands.Basic.Ack(6, True),  # nothing is left of these
            commands.Basic.Ack(0, True),  # all that is left
            channel=EVENTS,
        )
        await peer.closed()

    async with scripted(script) as url:
        recorder = Recorder()
        publisher = scripted_publisher(url, recorder)
        async with running(publisher):
            await recorder.until("publisher_up")
            for number in range(1, 11):
                publisher.publish(event(number))
            await eventually(lambda: not publisher.in_flight)
            await publisher.close(0.1)
        assert recorder.told[1:-1] == [
            ("event_confirmed", "e-2"),
            ("event_returned", "e-3", 312, "NO_ROUTE"),
            ("event_confirmed", "e-1"),
            ("event_confirmed", "e-4"),
            ("event_nacked", "e-5"),
            ("event_nacked", "e-6"),
            ("event_confirmed", "e-8"),
            ("event_confirmed", "e-7"),
            ("event_confirmed", "e-9"),
            ("event_confirmed", "e-10"),
        ]
        assert not publisher._returned


async def test_an_event_published_again_from_within_its_own_nack_is_another_publish() -> None:
    async def script(peer: Peer) -> None:
        await confirming(peer)
        await peer.expect(commands.Basic.Publish)
        peer.say(commands.Basic.Nack(1, True), channel=EVENTS)
        await peer.expect(commands.Basic.Publish)
        peer.say(commands.Basic.Ack(2), channel=EVENTS)
        await peer.closed()

    class Again(Recorder):
        def event_nacked(self, event: OutEvent) -> None:
            super().event_nacked(event)
            publisher.publish(event)

    async with scripted(script) as url:
        recorder = Again()
        publisher = scripted_publisher(url, recorder)
        async with running(publisher):
            await recorder.until("publisher_up")
            publisher.publish(event(1))
            await recorder.until("event_confirmed")
            await publisher.close(0.1)
    assert recorder.told[1:3] == [("event_nacked", "e-1"), ("event_confirmed", "e-1")]


@pytest.mark.parametrize("tag", [2, 2**62])
async def test_a_confirm_of_what_was_not_published_costs_the_link(tag: int) -> None:
    async def script(peer: Peer) -> None:
        await confirming(peer)
        await peer.expect(commands.Basic.Publish)
        peer.say(commands.Basic.Ack(tag, True), channel=EVENTS)
        await peer.closed()

    async with scripted(script) as url:
        recorder = Recorder()
        publisher = scripted_publisher(url, recorder)
        async with running(publisher):
            await recorder.until("publisher_up")
            publisher.publish(event(1))
            (_, _, reason) = await recorder.until("publisher_lost")
            await publisher.close(0.1)
    assert "not published" in str(reason)
    assert recorder.count("event_confirmed") == 0


async def test_a_second_confirm_of_one_event_is_counted_and_ignored() -> None:
    async def script(peer: Peer) -> None:
        await confirming(peer)
        await peer.expect(commands.Basic.Publish)
        peer.say(commands.Basic.Ack(1), commands.Basic.Ack(1), channel=EVENTS)
        peer.write(frames.returned("e-unknown", EVENTS))
        await peer.closed()

    async with scripted(script) as url:
        recorder = Recorder()
        publisher = scripted_publisher(url, recorder)
        async with running(publisher):
            await recorder.until("publisher_up")
            publisher.publish(event(1))
            await eventually(lambda: publisher.stats.stray_confirms == 2)
            assert recorder.count("event_confirmed") == 1
            await publisher.close(0.1)


async def test_an_event_without_an_answer_in_time_costs_the_link() -> None:
    async def script(peer: Peer) -> None:
        await confirming(peer)
        peer.say(commands.Connection.Blocked("low on memory"))
        await peer.expect(commands.Basic.Publish)
        await asyncio.sleep(1.0)  # an alarm explains it
        peer.say(commands.Connection.Unblocked())
        while True:  # alive, and confirming others
            await peer.expect(commands.Basic.Publish)
            number = sum(isinstance(frame, commands.Basic.Publish) for _, frame in peer.received)
            peer.say(commands.Basic.Ack(number), channel=EVENTS)

    async with scripted(script) as url:
        recorder = Recorder()
        publisher = scripted_publisher(url, recorder, confirm_timeout_s=0.4)
        loop = asyncio.get_running_loop()
        async with running(publisher):
            await recorder.until("publisher_up")
            publisher.publish(event(0))
            await eventually(lambda: recorder.count("publisher_blocked") == 2)
            began = loop.time()
            assert recorder.count("publisher_lost") == 0
            number = 0
            while not recorder.count("publisher_lost"):
                number += 1
                publisher.publish(event(number))
                await asyncio.sleep(0.02)
                assert loop.time() - began < 3 * SECOND
            assert loop.time() - began >= 0.4
            assert "not confirmed within 0.4 s" in str(recorder.last("publisher_lost")[2])
            assert ("event_confirmed", "e-0") not in recorder.told
            assert recorder.count("event_confirmed") > 5
            await publisher.close(0.1)


async def test_events_that_are_answered_in_time_cost_nothing(broker: Broker, exchange: str, audit: str) -> None:
    recorder = Recorder()
    publisher = publisher_of(broker, exchange, recorder, confirm_timeout_s=0.8)
    async with running(publisher):
        await recorder.until("publisher_up")
        for number in range(20):
            publisher.publish(event(number))
            await asyncio.sleep(0.1)
        await recorder.until("event_confirmed", 20)
        await asyncio.sleep(1.0)
        assert recorder.count("publisher_lost") == 0


@pytest.mark.slow
async def test_an_alarm_is_reported_and_costs_neither_link_nor_event(private_node: PrivateNode) -> None:
    broker = Broker.on(private_node)
    async with broker:
        await broker.declare_exchange("results", "topic")
        await broker.declare_queue("audit", bind=[("results", "#")])
        recorder = Recorder()
        publisher = publisher_of(broker, "results", recorder, confirm_timeout_s=1.0, heartbeat_s=2)
        async with running(publisher):
            await recorder.until("publisher_up")
            publisher.publish(event(0))
            await recorder.until("event_confirmed")
            await private_node.ctl("set_vm_memory_high_watermark", "0")
            publisher.publish(event(1))
            (_, _, reason) = await recorder.until("publisher_blocked")
            assert reason == "low on memory"
            assert publisher.blocked_reason == reason
            await asyncio.sleep(5 * SECOND)  # longer than the confirm time-out and than two heartbeats
            assert recorder.count("publisher_lost") == 0
            assert publisher.in_flight == 1
            await private_node.ctl("set_vm_memory_high_watermark", "0.6")
            await recorder.until("event_confirmed", 2)
            assert recorder.last("publisher_blocked") == ("publisher_blocked", "cancel", None)
            assert publisher.blocked_reason is None


@pytest.mark.slow
async def test_a_frozen_broker_is_lost_and_what_is_published_again_is_stored(private_node: PrivateNode) -> None:
    broker = Broker.on(private_node)
    async with broker:
        await broker.declare_exchange("results", "topic")
        await broker.declare_queue("audit", bind=[("results", "#")])
        recorder = Recorder()
        publisher = publisher_of(broker, "results", recorder, heartbeat_s=2)
        async with running(publisher):
            await recorder.until("publisher_up")
            private_node.pause()
            publisher.publish(event(1))
            await recorder.until("publisher_lost", within_s=5 * SECOND)
            assert publisher.stats.unanswered == 1
            private_node.resume()
            await recorder.until("publisher_up", 2, within_s=20 * SECOND)
            publisher.publish(event(1))
            await recorder.until("event_confirmed")
