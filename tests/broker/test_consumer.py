"""A consumer on a real RabbitMQ."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import aio_pika
import pytest

from tests.broker.recorder import Recorder, dial_to, running
from tests.support.broker import Broker
from tests.support.timing import SECOND, eventually
from worker.broker.consumer import Consumer
from worker.demo.node import PrivateNode
from worker.wire.command import Properties


def consumer_of(broker: Broker, queue: str, recorder: Recorder, prefetch: int = 100, heartbeat_s: int = 5) -> Consumer:
    consumer = Consumer("cancel", queue, prefetch, dial_to(broker.url, heartbeat_s=heartbeat_s), recorder)
    recorder.on_up = lambda lane: consumer.consume(True)
    return consumer


@pytest.fixture
async def queue(broker: Broker) -> str:
    name = broker.name("commands")
    await broker.declare_queue(name)
    return name


async def depth_is(broker: Broker, queue: str, depth: int) -> None:
    async def reached() -> bool:
        return await broker.depth(queue) == depth

    await eventually(reached)


async def consumers_are(broker: Broker, queue: str, count: int) -> None:
    async def reached() -> bool:
        return await broker.consumers(queue) == count

    await eventually(reached)


async def test_every_property_that_the_contract_names_arrives(broker: Broker, queue: str) -> None:
    user = broker.url.split("//", 1)[1].split(":", 1)[0]
    headers = {
        "reason": "fat finger",
        "deadline": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "n": 5,
        "big": 2**40,
        "ok": True,
        "ratio": 1.5,
        "none": None,
        "list": ["a", 1],
        "table": {"deep": {"er": "x"}},
    }
    recorder = Recorder()
    async with running(consumer_of(broker, queue, recorder)):
        await broker.publish(
            "", queue, b"{}", headers=headers, message_id="m-1", correlation_id="c-1", reply_to="r-1",  # type: ignore[arg-type]
            user_id=user, app_id="desk", timestamp_s=1_700_000_000,
        )  # fmt: skip
        (delivered,) = await recorder.until_delivered(1)
    found = dict(delivered.properties.headers)
    assert found.pop("x-delivery-count", 0) == 0  # absent from RabbitMQ 4 on
    assert found == headers
    assert delivered.properties == Properties(
        "application/json", "m-1", "c-1", "r-1", user, "desk", 1_700_000_000, delivered.properties.headers
    )
    assert not delivered.redelivered


@pytest.mark.parametrize("size", [0, 1, 131_063, 131_064, 131_065, 1_048_576])
async def test_a_body_of_any_size_arrives_whole(broker: Broker, queue: str, size: int) -> None:
    data = bytes(n % 251 for n in range(size))
    recorder = Recorder()
    async with running(consumer_of(broker, queue, recorder)):
        await broker.publish("", queue, data)
        await broker.publish("", queue, b"after")
        delivered = await recorder.until_delivered(2)
    assert [message.body for message in delivered] == [data, b"after"]
    assert recorder.batches >= 1


async def test_settling_acks_dead_letters_and_hands_back(broker: Broker) -> None:
    queue, dead, letters = broker.name("commands"), broker.name("dead"), broker.name("letters")
    await broker.declare_exchange(dead, "fanout")
    await broker.declare_queue(letters, bind=[(dead, "")])
    await broker.declare_queue(queue, arguments={"x-dead-letter-exchange": dead})
    for body in (b"acked", b"dead", b"back"):
        await broker.publish("", queue, body)
    recorder = Recorder()
    consumer = consumer_of(broker, queue, recorder)
    async with running(consumer):
        for message, how in zip(await recorder.until_delivered(3), ("ack", "dead_letter", "requeue"), strict=True):
            consumer.settle(message.delivery, how)  # type: ignore[arg-type]
        again = (await recorder.until_delivered(4))[3]
        assert (again.body, again.redelivered) == (b"back", True)
        assert again.delivery.tag == 4
        consumer.settle(again.delivery, "ack")
        (letter,) = await broker.take(letters, 1)
        assert letter.body == b"dead"
    await depth_is(broker, queue, 0)
    stats = consumer.stats
    assert (stats.acks, stats.dead_letters, stats.requeues, stats.deliveries, stats.redeliveries) == (2, 1, 1, 4, 1)


async def test_prefetch_bounds_what_is_in_hand(broker: Broker, queue: str) -> None:
    for number in range(7):
        await broker.publish("", queue, str(number).encode())
    recorder = Recorder()
    consumer = consumer_of(broker, queue, recorder, prefetch=3)
    async with running(consumer):
        await recorder.until_delivered(3)
        assert await broker.depth(queue) == 4
        assert len(recorder.deliveries) == 3
        consumer.settle(recorder.deliveries[1].delivery, "ack")
        await recorder.until_delivered(4)
        assert len(recorder.deliveries) == 4


async def test_stopping_is_answered_and_leaves_deliveries_valid(broker: Broker, queue: str) -> None:
    await broker.publish("", queue, b"1")
    recorder = Recorder()
    consumer = consumer_of(broker, queue, recorder)
    async with running(consumer):
        (first,) = await recorder.until_delivered(1)
        assert str(consumer.state) == "consuming"
        consumer.consume(False)
        await recorder.until("consumer_stopped")
        assert str(consumer.state) == "up"
        await broker.publish("", queue, b"2")
        await depth_is(broker, queue, 1)
        consumer.settle(first.delivery, "ack")
        consumer.consume(False)
        await recorder.until("consumer_stopped", 2)
        assert len(recorder.deliveries) == 1
        consumer.consume(True)
        await recorder.until_delivered(2)
        assert recorder.deliveries[1].delivery.epoch == first.delivery.epoch
        assert not recorder.deliveries[1].redelivered
    assert recorder.count("consumer_up") == 1


async def test_changing_ones_mind_is_carried_out_in_the_end(broker: Broker, queue: str) -> None:
    recorder = Recorder()
    consumer = Consumer("kill", queue, 10, dial_to(broker.url), recorder)
    consumer.consume(True)  # before it is up: ignored
    async with running(consumer):
        await recorder.until("consumer_up")
        assert str(consumer.state) == "up"
        for on in (True, False, True, False, True):
            consumer.consume(on)
        await eventually(lambda: consumer.state == "consuming")
        await broker.publish("", queue, b"1")
        await recorder.until_delivered(1)


async def test_when_the_operator_closes_the_connection_it_comes_back_with_a_new_epoch(
    broker: Broker, queue: str
) -> None:
    if broker.node is None:
        pytest.skip("the broker was given from outside")
    await broker.publish("", queue, b"1")
    recorder = Recorder()
    consumer = consumer_of(broker, queue, recorder)
    async with running(consumer):
        (first,) = await recorder.until_delivered(1)
        await broker.close_connections("maintenance")
        (_, lane, reason) = await recorder.until("consumer_lost")
        assert lane == "cancel"
        assert "maintenance" in str(reason)
        assert "320" in str(reason)
        second = (await recorder.until_delivered(2))[1]
        assert second.redelivered
        assert second.delivery.epoch == first.delivery.epoch + 1
        consumer.settle(first.delivery, "ack")  # of a channel that is gone
        assert consumer.stats.stale_settlements == 1
        consumer.settle(second.delivery, "ack")
        await consumer.close()
    assert await broker.depth(queue) == 0


async def test_a_queue_deleted_under_the_consumer_is_named_and_taken_up_when_it_is_back(
    broker: Broker, queue: str
) -> None:
    recorder = Recorder()
    consumer = consumer_of(broker, queue, recorder)
    async with running(consumer):
        await eventually(lambda: consumer.state == "consuming")
        await broker.delete_queue(queue)
        (_, _, reason) = await recorder.until("consumer_lost")
        assert f"queue {queue} was deleted" in str(reason)
        (_, _, reason) = await recorder.until("consumer_lost", 3)
        assert f"queue {queue}" in str(reason)
        assert "404" in str(reason)
        await broker.declare_queue(queue)
        await eventually(lambda: consumer.state == "consuming")
        await broker.publish("", queue, b"1")
        await recorder.until_delivered(1)


async def test_a_channel_closed_for_a_wrong_ack_is_made_anew(broker: Broker, queue: str) -> None:
    await broker.publish("", queue, b"1")
    recorder = Recorder()
    consumer = consumer_of(broker, queue, recorder)
    async with running(consumer):
        (first,) = await recorder.until_delivered(1)
        consumer.settle(first.delivery, "requeue")
        consumer.settle(first.delivery, "ack")  # a second time: the broker closes the channel (faults A8)
        (_, _, reason) = await recorder.until("consumer_lost")
        assert "406" in str(reason)
        last = recorder.deliveries[-1].delivery
        await eventually(lambda: recorder.deliveries[-1].delivery.epoch > last.epoch)
        assert recorder.deliveries[-1].redelivered


async def test_what_the_port_raises_ends_run(broker: Broker, queue: str) -> None:
    await broker.publish("", queue, b"1")
    for call in ("command_delivered", "consumer_up"):
        recorder = Recorder()
        recorder.raises = call
        consumer = consumer_of(broker, queue, recorder)
        with pytest.raises(RuntimeError, match=f"a bug in {call}"):
            await asyncio.wait_for(consumer.run(), 10 * SECOND)
        await consumer.close()
        assert str(consumer.state) == "down"
    await depth_is(broker, queue, 1)


async def test_closing_hands_back_what_was_not_settled(broker: Broker, queue: str) -> None:
    await broker.publish("", queue, b"1")
    await broker.publish("", queue, b"2")
    recorder = Recorder()
    consumer = consumer_of(broker, queue, recorder)
    async with running(consumer):
        messages = await recorder.until_delivered(2)
        consumer.settle(messages[0].delivery, "ack")
        await consumer.close()
        await consumer.close()
    left = await broker.drain(queue)
    assert [(message.body, message.redelivered) for message in left] == [(b"2", True)]


async def test_closing_without_running_and_running_after_closing_do_nothing(broker: Broker, queue: str) -> None:
    consumer = consumer_of(broker, queue, recorder := Recorder())
    await consumer.close()
    await consumer.run()
    assert recorder.told == []


async def test_cancelling_run_closes_the_connection(broker: Broker, queue: str) -> None:
    recorder = Recorder()
    consumer = consumer_of(broker, queue, recorder)
    task = asyncio.create_task(consumer.run())
    await eventually(lambda: consumer.state == "consuming")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await consumers_are(broker, queue, 0)


async def test_a_header_that_no_command_may_have_spares_the_link(broker: Broker, queue: str) -> None:
    """aio-pika can't send a broken string; its connection can."""
    recorder = Recorder()
    async with running(consumer_of(broker, queue, recorder)):
        connection = await aio_pika.connect(broker.url)
        async with connection:
            channel = await connection.channel(publisher_confirms=False)
            message = aio_pika.Message(b"{}", message_id="\N{LATIN SMALL LETTER E WITH ACUTE}")
            await channel.default_exchange.publish(message, queue)
            (delivered,) = await recorder.until_delivered(1)
    assert delivered.properties.message_id == "é"


@pytest.mark.slow
async def test_a_frozen_broker_is_lost_within_two_heartbeats(private_node: PrivateNode) -> None:
    broker = Broker.on(private_node)
    async with broker:
        await broker.declare_queue("commands")
        await broker.publish("", "commands", b"1")
    recorder = Recorder()
    consumer = consumer_of(broker, "commands", recorder, heartbeat_s=2)
    loop = asyncio.get_running_loop()
    async with running(consumer):
        await recorder.until_delivered(1)
        await asyncio.sleep(5 * SECOND)  # quiet, but alive: heartbeats go both ways
        assert recorder.count("consumer_lost") == 0
        private_node.pause()
        frozen = loop.time()
        (_, _, reason) = await recorder.until("consumer_lost")
        assert 2.0 <= loop.time() - frozen <= 4.5
        assert "two heartbeats" in str(reason)
        private_node.resume()
        again = (await recorder.until_delivered(2, within_s=20 * SECOND))[1]
        assert again.redelivered
        consumer.settle(again.delivery, "ack")


@pytest.mark.slow
async def test_a_killed_broker_is_noticed_at_once_and_taken_up_again(private_node: PrivateNode) -> None:
    broker = Broker.on(private_node)
    async with broker:
        await broker.declare_queue("commands")
        await broker.publish("", "commands", b"1")
        await asyncio.sleep(3 * SECOND)  # faults A30
    recorder = Recorder()
    consumer = consumer_of(broker, "commands", recorder)
    async with running(consumer):
        await recorder.until_delivered(1)
        await private_node.kill()
        await recorder.until("consumer_lost", within_s=2 * SECOND)
        (_, _, reason) = await recorder.until("consumer_failed")
        assert "127.0.0.1" in str(reason)
        assert consumer.last_error == reason
        await private_node.start()
        again = (await recorder.until_delivered(2, within_s=20 * SECOND))[1]
        assert again.redelivered
