"""The helpers themselves: a test that leans on them has to know that they see what is there."""

from __future__ import annotations

import aio_pika
import pytest

from tests.support.broker import Broker
from tests.support.timing import SECOND, eventually


async def test_messages_are_taken_in_order_with_their_properties(broker: Broker) -> None:
    queue, exchange = broker.name("taken"), broker.name("orders")
    await broker.declare_exchange(exchange, "topic")
    await broker.declare_queue(queue, bind=[(exchange, "final.#")])
    await broker.publish(exchange, "final.one", b"1", message_id="m-1", headers={"final": True})
    await broker.publish(exchange, "final.two", b"2", message_id="m-2", timestamp_s=1_700_000_000)
    first, second = await broker.take(queue, 2)
    assert (first.body, first.message_id, first.routing_key) == (b"1", "m-1", "final.one")
    assert first.headers["final"] is True
    assert (second.body, second.message_id) == (b"2", "m-2")
    assert "final" not in second.headers
    assert second.timestamp is not None
    assert second.timestamp.timestamp() == 1_700_000_000
    assert await broker.drain(queue) == []


async def test_depth_is_what_the_broker_holds_now(broker: Broker) -> None:
    queue = broker.name("counted")
    await broker.declare_queue(queue)
    for _ in range(3):
        await broker.publish("", queue, b"{}")
    await eventually(lambda: _is(broker, queue, 3))
    assert len(await broker.drain(queue)) == 3
    await eventually(lambda: _is(broker, queue, 0))


async def test_an_unroutable_publish_is_an_error(broker: Broker) -> None:
    with pytest.raises(aio_pika.exceptions.PublishError):
        await broker.publish("", broker.name("nowhere"), b"{}")


async def test_a_stream_is_read_again_from_its_start(broker: Broker) -> None:
    queue = broker.name("audit")
    await broker.declare_queue(queue, kind="stream")
    for n in range(5):
        await broker.publish("", queue, str(n).encode())
    for _ in range(2):
        assert [message.body for message in await broker.read_stream(queue, 5)] == [b"0", b"1", b"2", b"3", b"4"]


async def test_too_few_messages_fail_the_wait(broker: Broker) -> None:
    queue = broker.name("short")
    await broker.declare_queue(queue)
    await broker.publish("", queue, b"{}")
    with pytest.raises(AssertionError, match="1 of 2 messages"):
        await broker.take(queue, 2, within_s=0.3 * SECOND)


async def test_what_does_not_exist_is_told_and_the_helper_goes_on(broker: Broker) -> None:
    queue = broker.name("absent")
    assert not await broker.exists(queue)
    await broker.declare_queue(queue)
    assert await broker.exists(queue)
    await broker.delete_queue(queue)
    assert not await broker.exists(queue)


async def test_closed_connections_are_noticed_and_the_helper_comes_back(broker: Broker) -> None:
    if broker.node is None:
        pytest.skip("the broker was given from outside")
    await broker.declare_queue(broker.name("before"))
    connection = await aio_pika.connect(broker.url, timeout=10 * SECOND)
    await broker.close_connections()
    await eventually(lambda: not connection.connected.is_set())
    await connection.close()
    await broker.declare_queue(broker.name("afterwards"))


async def _is(broker: Broker, queue: str, depth: int) -> bool:
    return await broker.depth(queue) == depth
