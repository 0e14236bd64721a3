"""Faults of every kind, drawn by chance; then they stop, and the books must agree (faults I11, section 4)."""

from __future__ import annotations

import asyncio
import random
import signal
import uuid
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime

import aio_pika
import pytest

from tests.process.harness import Stage, cancel_of
from tests.support.timing import SECOND, eventually
from worker.simulator import Behaviour, Cancels, Script, Streams, Weighted

B = Behaviour
MIX = tuple(
    Weighted(behaviour=behaviour, weight=weight)
    for weight, behaviour in (
        (40, B(gap=0.02, jitter=0.05)),
        (10, B(pending=False)),
        (8, B(play="partial_fill", gap=0.05)),
        (8, B(play="fill_wins", gap=0.02)),
        (4, B(play="fill_only", gap=0.02)),
        (5, B(play="reject", reason=2)),
        (3, B(play="reject", reason=0, reason_form="word")),
        (3, B(play="message_reject")),
        (5, B(play="canceled_by_other")),
        (4, B(play="replace_running")),
        (4, B(play="cancel_running", settle=0.3)),
        (6, B(play="silent")),
        (6, B(play="ignore")),
        (3, B(play="error", code=429, msg="slow down")),
        (5, B(duplicates=2, order="shuffled")),
        (5, B(pending=False, delay=1.5)),
        (3, B(cut="before")),
        (3, B(cut="after")),
        (3, B(lose=("Canceled",), gap=0.1)),
    )
)
"""No refusal (error code 1): the venue keeps no trace of one, so what comes again after a crash may end otherwise."""
SCRIPT = Script(
    mix=MIX,
    streams=Streams(page_size=40, page_overlap=3, replay_order="shuffled", records_per_frame=5),
    cancels=Cancels(fill_id="cancel"),
)
OUTCOMES = {"canceled", "already_closed", "cancel_rejected", "unknown_order"}
SETTINGS = {
    "venue__report_timeout": 0.8,
    "venue__pending_timeout": 2.0,
    "venue__unknown_wait": 0.5,
    "venue__lookup_min": 0.1,
    "venue__lookup_max": 0.5,
    "venue__unavailable_after": 1.0,
    "venue__max_resends": 20,
    "broker__heartbeat": 2,
    "broker__suspect_after": 1000,
}


async def sure(publishing: Coroutine[object, object, object]) -> bool:
    """Publish; False if the broker closed the connection meanwhile, so that nobody knows whether it is there."""
    try:
        await publishing
    except (aio_pika.exceptions.AMQPError, RuntimeError, OSError):  # RuntimeError: closed, and not yet known to be
        await asyncio.sleep(0.05)
        return False
    except asyncio.CancelledError:  # what the driver makes of a confirm that will not come
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return False
    return True


@pytest.mark.slow
async def test_after_every_fault_at_once_the_books_agree(stage: Stage) -> None:
    await stage.open(SCRIPT)
    # Who gets a command between the last fill and the reject that follows it hears of the reject alone.
    stage.may_differ = {"already_closed": {"order", "report"}}
    await stage.declare()
    orders = [stage.venue.place(customer_user="trader@example.com").order_id for _ in range(500)]
    nowhere = [str(uuid.uuid4()) for _ in range(10)]
    targets = orders + nowhere
    random.shuffle(targets)
    twice: set[str] = set()
    living = [await stage.start(**SETTINGS), await stage.start(**SETTINGS)]

    async def publish() -> None:
        while targets:
            size = min(len(targets), random.choice((1, 1, 2, 5, 20)))
            items = [cancel_of(targets.pop()) for _ in range(size)]
            stamp = int(datetime.now(UTC).timestamp()) if random.random() < 0.7 else None
            lane = random.choice(("cancel", "cancel", "kill"))
            command_id = uuid.uuid4().hex
            while not await sure(stage.publish(items, command_id=command_id, lane=lane, timestamp_s=stamp)):
                twice.update(str(item["OrderID"]) for item in items)
            if random.random() < 0.1:
                twice.update(str(item["OrderID"]) for item in items)
                await sure(stage.publish(items, lane=random.choice(("cancel", "kill")), command_id=command_id))
            await asyncio.sleep(random.uniform(0, 0.05))

    async def kill_worker() -> None:
        victim = random.randrange(len(living))
        await living[victim].kill()
        living[victim] = stage.worker(**SETTINGS)
        living[victim].spawn()

    async def pause_worker() -> None:
        victim = random.choice(living)
        victim.signal(signal.SIGSTOP)
        await asyncio.sleep(random.uniform(0.2, 3))
        victim.signal(signal.SIGCONT)

    async def stop_worker() -> None:
        victim = random.randrange(len(living))
        if "worker_started" in living[victim].log():
            assert await living[victim].terminate(30 * SECOND) == 0
            living[victim] = stage.worker(**SETTINGS)
            living[victim].spawn()

    async def cut_session() -> None:
        sessions = list(stage.venue.sessions.values())
        if sessions:
            stage.venue.cut(random.choice(sessions), random.choice(("reset", "drop", 1001, 4000)))

    async def cut_all_sessions() -> None:
        stage.venue.cut()

    async def refuse() -> None:
        stage.venue.refuse(random.randrange(1, 5), random.choice((503, 429, 401)))
        stage.venue.cut()

    async def stall() -> None:
        sessions = list(stage.venue.sessions.values())
        for session in sessions:
            stage.venue.stall(session)
        await asyncio.sleep(random.uniform(0.1, 3))
        for session in sessions:
            if session.number in stage.venue.sessions:
                stage.venue.resume(session)

    async def garble() -> None:
        stage.venue.send_raw(
            random.choice((b"{", b'{"type":"ExecutionReport","reqid":1,"data":[{"OrderID":5}]}', b"[]"))
        )

    async def gap() -> None:
        stage.venue.skip_seq()

    async def close_connections() -> None:
        if stage.broker.node is not None:
            await stage.broker.close_connections()

    faults: list[Callable[[], Awaitable[None]]] = [
        kill_worker, kill_worker, pause_worker, stop_worker, cut_session, cut_session, cut_all_sessions, refuse, stall,
        garble, gap, close_connections,
    ]  # fmt: skip
    publishing = asyncio.create_task(publish())
    drawn = []
    for _ in range(12):
        fault = random.choice(faults)
        drawn.append(fault.__name__)
        await fault()
        await asyncio.sleep(random.uniform(0.05, 0.6))
    print("faults:", *drawn)
    await publishing
    stage.venue.accept()
    await stage.settled(60 * SECOND)
    await eventually(lambda: not stage.venue._timers, 10 * SECOND)  # the venue has done all that it meant to do
    for worker in living:
        await worker.until_ready()
    await stage.end_all()
    finals = stage.check_finals(once=False)
    assert len(finals) == 510
    told = {key: event.outcome for key, event in finals.items() if event.outcome not in OUTCOMES}
    assert not told, told
    unknown = {event.body["order_id"] for event in finals.values() if event.outcome == "unknown_order"}
    assert unknown == set(nowhere)
    stage.check_truth()
    stage.check_no_blind_resend(but=twice)  # a publisher's duplicate at another worker may be sent once more
    stored = {event.event_id for event in await stage.audited()}
    assert {event.event_id for event in finals.values()} <= stored
