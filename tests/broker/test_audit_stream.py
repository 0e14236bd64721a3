"""Reading the audit stream, against a real broker."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.support.broker import Broker
from tests.support.events import make_event, publish_event
from tests.support.timing import SECOND
from worker.broker.audit_stream import PREFETCH, Start, find_final, opened
from worker.broker.dial import Dial
from worker.config import Broker as Settings
from worker.errors import BrokerError, TopologyError

AUDIT = {"x-max-age": "30D"}


def dial(broker: Broker) -> Dial:
    return Dial(lambda: [broker.url], name="test")


def settings(broker: Broker) -> Settings:
    return Settings(audit_queue=broker.name("cancel.audit"))


async def declare(broker: Broker) -> None:
    results = broker.name("cancel.results")
    await broker.declare_exchange(results, "topic")
    await broker.declare_queue(broker.name("cancel.audit"), kind="stream", arguments=AUDIT, bind=[(results, "#")])


async def read(broker: Broker, start: Start, quiet: float = 0.5 * SECOND) -> list[str]:
    """The event ids from ``start`` to the end."""
    ids = []
    async with opened(dial(broker), settings(broker)) as stream:
        async for batch in stream.to_end(start, quiet):
            assert batch
            ids += [message.event_id or "" for message in batch]
    return ids


async def test_it_reads_from_the_first_event_to_the_last_in_order(broker: Broker) -> None:
    await declare(broker)
    assert await read(broker, "first") == []
    ids = []
    for index in range(5):
        event = make_event("c-1", index, "canceled")
        ids.append(event.event_id)
        await publish_event(broker, event)
        assert await read(broker, "first") == ids  # a stream is never used up
    assert await read(broker, "next") == []


async def test_more_than_the_prefetch_is_read_whole(broker: Broker) -> None:
    await declare(broker)
    count = PREFETCH * 2 + 7
    events = [make_event("c-1", index, "canceled") for index in range(count)]
    await asyncio.gather(*[publish_event(broker, event) for event in events])
    ids = await read(broker, "first")
    assert len(ids) == count
    assert set(ids) == {event.event_id for event in events}
    last = events[-1].event_id
    assert set(await find_final(dial(broker), settings(broker), {last, "none"}, None, 20 * SECOND)) == {last}


async def test_a_start_in_time_leaves_out_what_is_long_past(broker: Broker) -> None:
    await declare(broker)
    await publish_event(broker, make_event("c-1", 0, "canceled"))
    await asyncio.sleep(2.1)  # the broker's times are whole seconds, and an event's chunk is its place in time
    since_us = time.time_ns() // 1000
    assert await read(broker, since_us) == []
    late = make_event("c-1", 1, "canceled")
    await publish_event(broker, late)
    assert await read(broker, since_us) == [late.event_id]
    assert len(await read(broker, since_us - 60_000_000)) == 2
    started = time.monotonic()
    assert await read(broker, since_us + 600_000_000, quiet=30) == []
    assert time.monotonic() - started < 20  # that the stream ends long before needs no waiting


async def test_following_goes_on_with_what_comes(broker: Broker) -> None:
    await declare(broker)
    first, second = make_event("c-1", 0, "canceled"), make_event("c-1", 1, "canceled")
    await publish_event(broker, first)
    ids: list[str | None] = []
    async with asyncio.timeout(20 * SECOND), opened(dial(broker), settings(broker)) as stream:
        async for batch in stream.follow("first"):
            ids += [message.event_id for message in batch]
            if len(ids) == 2:
                break
            await publish_event(broker, second)
    assert ids == [first.event_id, second.event_id]


async def test_find_final_gives_the_events_that_are_there(broker: Broker) -> None:
    await declare(broker)
    event = make_event("c-1", 0, "mass_canceled")
    await publish_event(broker, make_event("c-2", 0, "canceled"))
    await publish_event(broker, event)
    now_us = time.time_ns() // 1000
    for since_us in (None, now_us, now_us - 3_600_000_000, now_us + 3_600_000_000):
        found = await find_final(dial(broker), settings(broker), {event.event_id, "x"}, since_us, 20 * SECOND)
        assert list(found) == [event.event_id]
        assert found[event.event_id].outcome == "mass_canceled"


async def test_a_message_that_only_claims_the_id_is_not_the_final(broker: Broker) -> None:
    await declare(broker)
    event = make_event("c-1", 0, "mass_canceled")
    for body in (b"", b"{}", b'{"event_id": "other", "outcome": "canceled", "final": true}'):
        await broker.publish(broker.name("cancel.results"), "final.x._", body, message_id=event.event_id)
    assert await find_final(dial(broker), settings(broker), {event.event_id}, None, 20 * SECOND) == {}


async def test_a_search_that_is_not_finished_in_time_is_an_error_and_no_answer(broker: Broker) -> None:
    await declare(broker)  # an empty stream answers nothing, for longer than this
    with pytest.raises(BrokerError, match=r"not read to its end within 0.2 s"):
        await find_final(dial(broker), settings(broker), {"x"}, None, 0.2)


async def test_a_missing_stream_is_named(broker: Broker) -> None:
    with pytest.raises(TopologyError, match=f"queue {broker.name('cancel.audit')} is missing"):
        await read(broker, "first")


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_a_queue_of_another_kind_loses_nothing(broker: Broker, kind: str) -> None:
    name = broker.name("cancel.audit")
    await broker.declare_queue(name, kind=kind)
    await broker.publish("", name, b"{}")
    with pytest.raises(BrokerError, match=f"queue {name}"):
        await read(broker, "first")
    assert len(await broker.take(name, 1)) == 1


async def test_a_stream_that_is_deleted_ends_the_reading(broker: Broker) -> None:
    await declare(broker)
    await publish_event(broker, make_event("c-1", 0, "canceled"))

    async def follow() -> None:
        async with asyncio.timeout(20 * SECOND), opened(dial(broker), settings(broker)) as stream:
            async for _ in stream.follow("first"):
                await broker.delete_queue(broker.name("cancel.audit"))

    with pytest.raises(BrokerError, match="was deleted"):
        await follow()
