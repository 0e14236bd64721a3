"""Every way a session can break: cuts before and after a frame, at any byte, close codes, half-open lines."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.simulator.client import Client, dial, item, ready, signed, utc_now
from tests.simulator.conftest import Open
from worker.simulator import Behaviour, Connect, Frames


async def gone(client: Client) -> int | None:
    """Waits for the end of the session; its close code, None if it just broke."""
    with pytest.raises(ConnectionClosed):
        await client.until(lambda _: False)
    code = client.connection.close_code
    return None if code == 1006 else code


@pytest.mark.parametrize("how", ["reset", "drop", 1001, 1008, 1013, 4001])
async def test_a_cut_ends_the_session_as_asked(open_venue: Open, how: Any) -> None:
    venue = await open_venue()
    async with ready(venue) as client, ready(venue) as other:
        venue.cut(1, how)
        assert await gone(client) == (how if isinstance(how, int) else None)
        await venue.until(lambda: list(venue.sessions) == [2])
        venue.cut(how=how)
        await gone(other)
    async with ready(venue):
        assert list(venue.sessions) == [3]


async def test_a_reset_and_a_drop_look_different_to_tcp(open_venue: Open) -> None:
    venue = await open_venue()
    ends = []
    for how in ("reset", "drop"):
        venue.next_connect(Connect(cut_after_frames=1, cut_how=how))
        reader, writer = await asyncio.open_connection("127.0.0.1", venue.port)
        headers = "".join(f"{name}: {value}\r\n" for name, value in signed("127.0.0.1").items())
        request = (
            "GET /ws/v1 HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" + headers + "\r\n"
        )
        writer.write(request.encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert b'"hello"' in await reader.readuntil(b"}")
        try:
            ends.append(await reader.read(1))
        except ConnectionResetError:
            ends.append(b"reset")
        writer.close()
    assert ends == [b"reset", b""]


@pytest.mark.parametrize("how", ["reset", 1013])
@pytest.mark.parametrize(("when", "status", "fate"), [("before", "New", "cut"), ("after", "Canceled", "processed")])
async def test_cut_before_or_after_a_frame_is_processed(
    open_venue: Open, how: Any, when: Any, status: str, fate: str
) -> None:
    venue = await open_venue()
    order = venue.place(behaviour=(Behaviour(cut=when, cut_how=how), Behaviour()))
    neighbour = venue.place()
    async with ready(venue) as client:
        await client.following()
        await client.cancel(item("y1", neighbour.order_id), item("y2", order.order_id))
        await gone(client)
        assert all(frame["type"] != "ExecutionReport" or frame.get("initial") for frame in client.seen)
    assert [venue.truth()[o.order_id].status for o in (neighbour, order)] == [status, status]
    assert [seen.fate for seen in venue.cancels] == [fate, fate]
    async with ready(venue) as client:  # what happened unseen stands in the replay
        await client.following(OrderID=order.order_id)
        expected = ["New"] if when == "before" else ["New", "PendingCancel", "Canceled"]
        assert [report["ExecType"] for report in client.seen[-1]["data"]] == expected


@pytest.mark.parametrize("count", [1, 2, 3, 4])
async def test_cut_after_the_nth_frame(open_venue: Open, count: int) -> None:
    venue = await open_venue()
    order = venue.place()
    venue.next_connect(Connect(cut_after_frames=count, cut_how="drop"))
    async with dial(venue) as client:
        try:
            await client.subscribe()
            await client.cancel(item("y", order.order_id))
        except ConnectionClosed:
            pass
        await gone(client)
        assert len(client.seen) == count


async def test_cut_at_every_byte_of_hello(open_venue: Open) -> None:
    venue = await open_venue()
    async with ready(venue) as client:
        size = len('{"type":"hello","ts":"2026-03-09T14:07:05.201377Z","session_id":"2Q7DKM41VXR00"}') + 2
        assert client.seen[0]["type"] == "hello"
    for count in range(1, size + 1):
        venue.next_connect(Connect(cut_after_bytes=count))
        async with dial(venue) as client:
            await gone(client)
            assert len(client.seen) == (1 if count == size else 0)


async def test_cut_within_a_report(open_venue: Open) -> None:
    venue = await open_venue()
    order = venue.place()
    async with ready(venue) as client:
        await client.following()
        venue.cut_after_bytes(100)
        await client.cancel(item("y", order.order_id))
        await gone(client)
        assert client.seen[-1]["initial"] is True
    assert venue.truth()[order.order_id].status == "Canceled"


async def test_cut_after_a_time(open_venue: Open) -> None:
    venue = await open_venue(connect=(Connect(cut_after=0.05, cut_how=4000),))
    async with ready(venue) as client:
        assert await gone(client) == 4000


async def test_a_half_open_session_swallows_what_is_sent_until_it_wakes(open_venue: Open) -> None:
    venue = await open_venue()
    order = venue.place()
    async with ready(venue) as client, ready(venue) as other:
        await client.following()
        await other.following()
        venue.stall(1)
        await client.cancel(item("y", order.order_id))
        await client.send("Ping", ts=utc_now(), data=[{}])
        await client.quiet()
        waiter = asyncio.ensure_future(await client.connection.ping())
        await asyncio.sleep(0.05)
        assert not waiter.done()  # RFC pings go unanswered too
        await other.quiet()
        venue.fill(order, "0.1")
        assert (await other.reports(1))[0]["ExecType"] == "Trade"
        await client.quiet()
        assert not venue.cancels
        venue.resume(1)
        found = [(await client.frame()) for _ in range(4)]
        assert [frame["type"] for frame in found] == ["ExecutionReport"] * 3 + ["Pong"]
        assert found[2]["data"][0]["ExecType"] == "Canceled"
        await asyncio.wait_for(waiter, 1)


async def test_a_stalled_venue_answers_no_upgrade(open_venue: Open) -> None:
    venue = await open_venue()
    async with ready(venue) as client:
        venue.stall()
        await client.send("Ping", ts=utc_now(), data=[{}])

        async def late() -> str:
            async with dial(venue) as second:
                return str((await second.frame())["type"])

        task = asyncio.create_task(late())
        await client.quiet()
        assert not task.done()
        venue.resume()
        assert await asyncio.wait_for(task, 2) == "hello"
        assert (await client.frame())["type"] == "Pong"


async def test_a_stalled_session_can_be_cut(open_venue: Open) -> None:
    venue = await open_venue()
    async with ready(venue) as client:
        venue.stall(1)
        venue.cut(1)
        await gone(client)


async def test_a_frame_over_the_limit_closes_with_1009(open_venue: Open) -> None:
    venue = await open_venue(frames=Frames(max_frame=2000))
    async with ready(venue) as client:
        await client.cancel(*(item(f"y{n}", "o") for n in range(100)))
        assert await gone(client) == 1009


async def test_the_venue_may_ping_by_the_rfc(open_venue: Open) -> None:
    venue = await open_venue(frames=Frames(ping_interval=0.02))
    async with ready(venue) as client:
        await client.quiet(0.1)
        await client.send("Ping", ts=utc_now(), data=[{}])
        assert (await client.frame())["type"] == "Pong"


async def test_reports_of_a_session_that_is_gone_reach_the_others(open_venue: Open) -> None:
    venue = await open_venue()
    order = venue.place(behaviour=Behaviour(delay=0.05))
    async with ready(venue) as client, ready(venue) as other:
        await other.following()
        await client.cancel(item("y", order.order_id))
        await venue.until(lambda: venue.cancels)
        venue.cut(1)
        assert [report["ExecType"] for report in await other.reports(2)] == ["PendingCancel", "Canceled"]
