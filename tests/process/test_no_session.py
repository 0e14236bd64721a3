"""Without a ready session no command is taken; with the session back everything goes on (contract 4.6, faults 3)."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from typing import Any

import pytest

from tests.process.harness import COMMANDS, KEY, SCALE, SECRET, Stage, Worker, cancel_of
from tests.process.venue_process import VenueProcess
from tests.support.timing import SECOND, eventually
from worker.simulator import Behaviour, Connect, Login, Placed, Script, Streams


async def test_while_the_venue_refuses_the_queue_keeps_the_commands(stage: Stage) -> None:
    await stage.open()
    stage.venue.refuse(-1, 503)
    worker = stage.worker()
    worker.spawn()
    reasons = await worker.until_unready("no venue session")
    assert any("503" in reason for reason in await worker.until_unready("503")), reasons
    began = time.monotonic()
    await eventually(lambda: stage.events.named("worker_unavailable"), 10 * SECOND)
    assert time.monotonic() - worker.started_at < 12 * SECOND, "unavailable_after is 5 s"
    (event,) = stage.events.named("worker_unavailable")
    assert (event.body["command_id"], event.body["index"], event.final) == (None, None, False)
    assert event.message.routing_key == "info.worker_unavailable._"
    await stage.publish_each(stage.place(20))
    assert (await worker.readiness()) and began
    assert await stage.broker.depth(COMMANDS) == 20, "nothing is handed out: all are ready, none unacked"
    assert await stage.broker.consumers(COMMANDS) == 0
    stage.venue.accept()
    await worker.until_ready()
    await stage.settled()
    await eventually(lambda: stage.events.named("worker_available"))
    (event,) = stage.events.named("worker_available")
    assert event.message.routing_key == "info.worker_available._"
    assert max(stage.sends().values()) == 1
    stage.check_finals(once=True)


@pytest.mark.parametrize("status", [401, 429, 302])
async def test_a_refused_log_in_is_named(stage: Stage, status: int) -> None:
    await stage.open()
    location = "ws://127.0.0.1:9/elsewhere" if status == 302 else None
    stage.venue.refuse(-1, status, location=location)
    worker = stage.worker()
    worker.spawn()
    await worker.until_unready(str(status))
    status_page = await worker.status()
    assert status_page["ready"] is False and status_page["sessions"]["ready"] == 0


async def test_a_venue_that_is_down_is_named(stage: Stage) -> None:
    await stage.open()
    worker = stage.worker(venue__url="ws://127.0.0.1:1/ws/v1")
    worker.spawn()
    reasons = await worker.until_unready("no venue session is ready:")
    assert await stage.broker.consumers(COMMANDS) == 0 if await stage.broker.exists(COMMANDS) else reasons


async def test_unsent_commands_are_handed_back_once_per_outage(stage: Stage) -> None:
    await stage.open()
    worker = await stage.start(venue__rate_limit=4.0, venue__unavailable_after=1.0)
    commands = await stage.publish_each(stage.place(60))
    await stage.venue.until(lambda: len(stage.venue.cancels) >= 4)
    stage.venue.refuse(-1, 503)
    stage.venue.cut()
    sent = len(stage.venue.cancels)
    await worker.until_unready("no venue session")

    async def back() -> bool:
        return await stage.broker.depth(COMMANDS) >= len(commands) - sent

    await eventually(back)
    await eventually(lambda: stage.events.named("worker_unavailable"))
    await worker.kill()
    letters = await stage.broker.drain(COMMANDS)
    counts = [int(str(letter.headers.get("x-delivery-count", 0))) for letter in letters]
    # Those that were sent came back by the kill, once more than they were handed out.
    assert max(counts) == 1, counts
    assert len(letters) + len(stage.finals_by_cancel()) >= len(commands)
    assert not stage.events.named("unresolved")


async def test_an_outage_ends_and_nothing_was_lost(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(gap=0.1)))
    worker = await stage.start(venue__rate_limit=100.0, venue__unavailable_after=0.5)
    await stage.publish_each(stage.place(100))
    await stage.venue.until(lambda: len(stage.venue.cancels) >= 30)
    stage.venue.refuse(-1, 503)
    stage.venue.cut()
    await worker.until_unready("no venue session")
    await stage.publish_each(stage.place(50))
    await eventually(lambda: stage.events.named("worker_unavailable"))
    stage.venue.accept()
    await stage.settled()
    await stage.end_all()
    stage.check_finals(once=True)
    stage.check_truth()
    stage.check_no_blind_resend()
    assert {e.outcome for e in stage.events.finals()} == {"canceled"}


async def test_a_paused_lane_does_not_give_an_earlier_loss_for_its_reason(stage: Stage) -> None:
    """Its link is up: why it was down once is not why it pauses now."""
    await stage.open()
    worker = await stage.start()
    await stage.broker.close_connections()
    await eventually(lambda: len(worker.log_events("consumer_lost")) == 2, 10 * SECOND)
    await worker.until_ready()
    stage.venue.refuse(-1, 503)
    stage.venue.cut()
    reasons = await worker.until_unready("the cancel lane is not consumed")
    lanes = [f"the {lane} lane is not consumed (paused)" for lane in ("kill", "cancel")]
    assert [reason for reason in reasons if "is not consumed" in reason] == lanes


NO_TIME_OUT: dict[str, object] = {"venue__report_timeout": 600.0, "venue__pending_timeout": 600.0}
"""Only the loss of a session brings doubt."""

HOWS: tuple[Any, ...] = ("reset", "drop", 1000, 1001, 1008, 1011, 4000)


@pytest.mark.slow
async def test_sessions_are_cut_under_load_in_every_way(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(gap=0.03, jitter=0.1)))
    await stage.start(venue__sessions=2, **NO_TIME_OUT)
    orders = stage.place(420)

    async def publish() -> None:
        for n in range(0, 420, 6):
            await stage.publish([cancel_of(order_id) for order_id in orders[n : n + 6]])
            await asyncio.sleep(0.03)

    publishing = asyncio.create_task(publish())
    for number, how in enumerate(HOWS * 2):
        sent = len(stage.venue.cancels)
        await stage.venue.until(lambda: len(stage.venue.cancels) >= min(sent + 12, 400), 10)  # noqa: B023
        sessions = list(stage.venue.sessions.values())
        if number % 3 == 2 and sessions:
            stage.venue.cut_after_bytes(150, sessions[0], how)
        else:
            stage.venue.cut(None if number % 2 else sessions[0] if sessions else None, how)
        await stage.venue.until(lambda: len(stage.venue.sessions) >= 1, 10)
    await publishing
    await stage.settled(40 * SECOND)
    await stage.end_all()
    finals = stage.check_finals(once=True)
    assert len(finals) == 420 and {e.outcome for e in finals.values()} == {"canceled"}
    stage.check_truth()
    stage.check_no_blind_resend()


@pytest.mark.slow
async def test_sessions_are_cut_at_random_bytes_under_load(stage: Stage) -> None:
    """In the middle of a header, of a report, of a frame that carries two: whatever was read before counts."""
    await stage.open(Script(behaviour=Behaviour(gap=0.03, jitter=0.1), streams=Streams(records_per_frame=3)))
    await stage.start(venue__sessions=2, **NO_TIME_OUT)
    many, cuts = int(600 * SCALE), int(30 * SCALE)
    orders = stage.place(many)

    async def publish() -> None:
        for n in range(0, many, 6):
            await stage.publish([cancel_of(order_id) for order_id in orders[n : n + 6]])
            await asyncio.sleep(0.05)

    publishing = asyncio.create_task(publish())
    for _ in range(cuts):
        sessions = [s for s in stage.venue.sessions.values() if s.subscriptions]
        if sessions:
            session = random.choice(sessions)
            stage.venue.cut_after_bytes(random.randrange(1, 3000), session, random.choice(("reset", "drop")))
            gone = session.number
            await stage.venue.until(lambda: gone not in stage.venue.sessions, 10 * SECOND)  # noqa: B023
        await stage.venue.until(lambda: any(s.subscriptions for s in stage.venue.sessions.values()), 10 * SECOND)
    await publishing
    await stage.settled(40 * SECOND)
    await stage.end_all()
    finals = stage.check_finals(once=True)
    assert len(finals) == many and {e.outcome for e in finals.values()} == {"canceled"}
    stage.check_truth()
    stage.check_no_blind_resend()


@pytest.mark.slow
async def test_a_venue_that_stands_still_again_and_again_under_load(stage: Stage) -> None:
    """SIGSTOP of its process: every line is half-open. Noticed within 3 s by default, and nothing is sent after it."""
    placed = Placed(order_id="o", count=300, behaviour=(Behaviour(gap=0.05, jitter=0.2),))
    login = Login(key=KEY, secret=SECRET)
    async with VenueProcess(Script(login=login, orders=(placed,))) as venue:
        await stage.open_at(venue.url)
        worker = await stage.start(venue__rate_limit=40.0, **NO_TIME_OUT)
        targets = [f"o-{n + 1}" for n in range(300)]

        for begin in range(0, 300, 100):
            await stage.publish_each(targets[begin : begin + 80])
            await eventually(lambda: len(stage.finals_by_cancel()) >= begin + 20, 20 * SECOND)  # noqa: B023
            began = time.monotonic()
            venue.stop()
            await worker.until_unready("no venue session", 8 * SECOND)
            noticed = time.monotonic() - began
            await stage.publish_each(targets[begin + 80 : begin + 100])
            assert await stage.broker.depth(COMMANDS) >= 20, "it takes commands without a session"
            venue.go_on()
            assert noticed < 3.0 + 1.0 * SECOND, f"noticed after {noticed:.1f} s; 1 s ping_interval, 2 s ping_timeout"
            await worker.until_ready()
        await stage.settled(40 * SECOND)
        await stage.end_all()
        stage.books = await venue.books()
    finals = stage.check_finals(once=True)
    assert len(finals) == 300 and {e.outcome for e in finals.values()} <= {"canceled", "already_closed"}
    stage.check_truth()
    stage.check_no_blind_resend()


async def test_a_cut_before_the_frame_is_read_is_sent_again_after_a_look_up(stage: Stage) -> None:
    await stage.open()
    orders = stage.place(8, behaviour=(Behaviour(cut="before"), Behaviour(pending=False)))
    await stage.start()
    command_id = await stage.publish([cancel_of(order_id) for order_id in orders])
    await stage.settled()
    finals = stage.check_finals(once=True)
    assert {e.outcome for e in finals.values()} == {"canceled"}
    assert stage.check_no_blind_resend() == 8
    doubtful = [e for e in stage.events.of(command_id) if e.outcome == "doubtful"]
    assert len(doubtful) == 8 and {e.body["sent"] for e in doubtful} == {"maybe"}


async def test_a_cut_after_the_frame_is_read_is_not_sent_again(stage: Stage) -> None:
    await stage.open()
    orders = stage.place(8, behaviour=Behaviour(cut="after"))
    await stage.start()
    await stage.publish([cancel_of(order_id) for order_id in orders])
    await stage.settled()
    assert {e.outcome for e in stage.check_finals(once=True).values()} == {"canceled"}
    assert max(stage.sends().values()) == 1


async def test_a_half_open_venue_is_noticed_within_ping_interval_and_timeout(stage: Stage) -> None:
    await stage.open()
    worker = await stage.start()
    stage.venue.stall()
    began = time.monotonic()
    await worker.until_unready("no venue session", 8 * SECOND)
    noticed = time.monotonic() - began
    assert noticed < 3.0 + 1.0 * SECOND, f"noticed after {noticed:.1f} s; 1 s ping_interval and 2 s ping_timeout"
    await stage.publish_each(stage.place(10))
    assert await stage.broker.depth(COMMANDS) == 10
    stage.venue.resume()
    await stage.settled()
    stage.check_finals(once=True)
    stage.check_no_blind_resend()


async def test_cancels_sent_into_a_half_open_session_are_doubt_and_not_lost(stage: Stage) -> None:
    """What the frozen peer got when it woke was handed to it before it was declared dead (faults W1)."""
    await stage.open()
    worker = await stage.start(venue__sessions=1)
    orders = stage.place(30)
    stage.venue.stall()
    commands = await stage.publish_each(orders)
    await worker.until_unready("no venue session", 8 * SECOND)
    stage.venue.resume()
    await stage.settled(30 * SECOND)
    finals = stage.check_finals(once=False)
    assert {finals[c, 0].outcome for c in commands} <= {"canceled", "already_closed"}
    stage.check_truth()
    stage.check_no_blind_resend()


async def test_a_session_without_hello_is_given_up(stage: Stage) -> None:
    await stage.open()
    stage.venue.next_connect(Connect(hello="never"), 2)
    worker = stage.worker(venue__hello_timeout=0.5)
    worker.spawn()
    await worker.until_ready()
    assert stage.venue.ledger.counts["upgrades"] >= 3


async def test_nobody_hears_of_a_short_loss(stage: Stage) -> None:
    await stage.open()
    worker: Worker = await stage.start()
    for _ in range(3):
        stage.venue.cut()
        await stage.publish([cancel_of(o) for o in stage.place(2)], command_id=uuid.uuid4().hex)
        await stage.settled()
        await worker.until_ready()
    assert not stage.events.named("worker_unavailable") and not stage.events.named("worker_available")
