"""Bounds, odd surroundings, and venues that keep to the protocol in their own way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from pathlib import Path

import aio_pika
import pytest

from tests.process.harness import COMMANDS, DEAD, RESULTS, Stage, cancel_of
from tests.support.broker import RPC_S
from tests.support.timing import SECOND, eventually
from worker.simulator import Behaviour, Cancels, Login, Script, Streams

SOON = {"venue__report_timeout": 1.0, "venue__lookup_min": 0.1, "venue__lookup_max": 0.5, "venue__unknown_wait": 1.0}


async def test_what_is_in_flight_is_bounded_in_cancels(stage: Stage) -> None:
    """One command of 200 with a bound of 15: never more than 15 are out (contract 4.5)."""
    await stage.open(Script(behaviour=Behaviour(pending=False, delay=0.1)))
    await stage.start(broker__max_inflight=15)
    orders = stage.place(200)
    await stage.publish([cancel_of(order_id) for order_id in orders])
    out = []

    def watch() -> bool:
        answered = sum(1 for truth in stage.venue.truth().values() if not truth.open)
        out.append(len(stage.venue.cancels) - answered)
        return not stage.missing()

    await eventually(watch, 20 * SECOND, 0.005)
    assert 5 < max(out) <= 15, max(out)
    stage.check_finals(once=True)


async def _deliver_often(stage: Stage, times: int) -> None:
    """Hand the message at the head of the queue back, so often."""
    for _ in range(times):
        channel = await stage.broker.channel()
        source = await channel.get_queue(COMMANDS, ensure=False)
        message = await source.get(timeout=RPC_S)
        assert message is not None
        await message.nack(requeue=True)


async def test_a_command_delivered_often_is_handled_alone_and_done(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    await stage.declare()
    orders = stage.place(6)
    suspect = await stage.publish([cancel_of(o) for o in orders[:3]])
    await _deliver_often(stage, 10)
    await stage.publish([cancel_of(o) for o in orders[3:]])
    await stage.start()
    await stage.settled()
    await stage.end_all()
    assert {e.outcome for e in stage.check_finals(once=True).values()} == {"canceled"}
    assert [stage.venue.sends_of(o)[0].batch for o in orders[:3]] == [1, 1, 1], "alone in its frame"
    assert len(stage.events.of(suspect)) == 3


async def test_a_suspect_is_ended_rather_than_handed_back(stage: Stage) -> None:
    await stage.open(Script(streams=Streams(snapshot="never")))
    await stage.declare()
    suspect = await stage.publish([cancel_of(stage.place(1)[0])])
    await _deliver_often(stage, 9)
    worker = await stage.start(venue__snapshot_timeout=0.3)

    async def taken() -> bool:
        return await stage.broker.depth(COMMANDS) == 0

    await eventually(taken)
    stage.venue.refuse(-1, 503)
    stage.venue.cut()
    await worker.until_unready("no venue session")
    await eventually(lambda: stage.events.outcomes(suspect)[-1:] == ["unresolved"])
    (letter,) = await stage.dead_letters(1)
    assert letter.message_id == suspect
    assert await stage.broker.depth(COMMANDS) == 0
    assert stage.venue.cancels == []


async def test_a_venue_that_limits_the_rate_is_followed_to_the_end(stage: Stage) -> None:
    """Whole frames refused by code 429: doubt with back-off, nobody rejected (contract 4.2)."""
    await stage.open(Script(cancels=Cancels(rate_limit=60.0), behaviour=Behaviour(pending=False)))
    await stage.start(**SOON)
    await stage.publish_each(stage.place(150))
    await stage.settled(60 * SECOND)
    await stage.end_all()
    assert {e.outcome for e in stage.check_finals(once=True).values()} == {"canceled"}
    stage.check_no_blind_resend()


async def test_every_session_gets_only_its_own_reports(stage: Stage) -> None:
    await stage.open(Script(streams=Streams(report_fanout="own"), behaviour=Behaviour(gap=0.2)))
    await stage.start(**SOON, venue__sessions=3)
    await stage.publish_each(stage.place(120))
    for _ in range(4):
        before = len(stage.finals_by_cancel())
        await eventually(lambda: len(stage.finals_by_cancel()) >= min(before + 10, 120))  # noqa: B023
        stage.venue.cut(next(iter(stage.venue.sessions.values()), None))
        await stage.publish_each(stage.place(20))
    await stage.settled()
    await stage.end_all()
    assert {e.outcome for e in stage.check_finals(once=True).values()} == {"canceled"}
    stage.check_no_blind_resend()


@pytest.mark.parametrize("which", ["first", "last"])
async def test_one_session_carries_the_reports_of_two(stage: Stage, which: str) -> None:
    await stage.open(Script(behaviour=Behaviour(gap=0.2)))
    await stage.start(**SOON, venue__sessions=2, venue__report_sessions=1)
    await stage.publish_each(stage.place(60))
    for _ in range(3):
        sessions = list(stage.venue.sessions.values())
        stage.venue.cut(sessions[0 if which == "first" else -1])
        await stage.venue.until(lambda: len(stage.venue.sessions) == 2)
        await stage.publish_each(stage.place(20))
    await stage.settled()
    await stage.end_all()
    assert {e.outcome for e in stage.check_finals(once=True).values()} == {"canceled"}
    stage.check_truth()
    stage.check_no_blind_resend()


@pytest.mark.parametrize("offset", [-300.0, 300.0])
async def test_a_venue_whose_clock_is_wrong(stage: Stage, offset: float) -> None:
    await stage.open(Script(clock_offset=offset, login=Login(clock_skew=0)))
    first = await stage.start(**SOON)
    loud = stage.place(10)
    silent = stage.place(10, behaviour=Behaviour(play="silent", pending=False))
    ignored = stage.place(10, behaviour=(Behaviour(play="ignore"), Behaviour(pending=False)))
    await stage.publish_each([*loud, *silent, *ignored])
    await stage.venue.until(lambda: len(stage.venue.cancels) >= 30, 10)
    await first.kill()
    await stage.start(**SOON)
    await stage.settled()
    await stage.end_all()
    assert {e.outcome for e in stage.check_finals(once=False).values()} == {"canceled"}
    stage.check_no_blind_resend()
    assert all(stage.sends()[o] == 1 for o in silent)


async def test_unreadable_frames_and_gaps_lose_no_outcome(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(gap=0.1)))
    worker = await stage.start(**SOON)
    for frame in (b"{", b"[]", b'"x"', b'{"type":5}', b'{"type":"ExecutionReport","reqid":1,"data":[{"OrderID":5},7]}'):
        await stage.publish_each(stage.place(10))
        stage.venue.send_raw(frame)
        stage.venue.skip_seq()
    await stage.settled()
    assert await worker.readiness() == []
    await stage.end_all()
    assert {e.outcome for e in stage.check_finals(once=True).values()} == {"canceled"}
    stage.check_no_blind_resend()


async def test_a_worker_that_stood_still_goes_on(stage: Stage) -> None:
    """SIGSTOP for longer than heartbeat and Ping allow: links fall, nothing is lost (faults 3, loop stall)."""
    await stage.open(Script(behaviour=Behaviour(gap=0.1)))
    worker = await stage.start(broker__heartbeat=1)
    commands = await stage.publish_each(stage.place(60))
    await eventually(stage.events.finals)
    worker.signal(signal.SIGSTOP)

    async def given_up() -> bool:
        return await stage.broker.consumers(COMMANDS) == 0

    await eventually(given_up, 15 * SECOND)
    worker.signal(signal.SIGCONT)
    await stage.settled()
    await worker.until_ready()
    await stage.end_all()
    assert set(commands) == {key[0] for key in stage.check_finals(once=False)}
    stage.check_truth()
    stage.check_no_blind_resend()


async def test_a_log_that_cannot_be_written_stops_nothing(stage: Stage) -> None:
    await stage.open()
    worker = stage.worker()
    worker.log_path = Path("/dev/full")
    worker.spawn()
    worker.log_path = Path(os.devnull)
    await worker.until_ready()
    await stage.publish_each(stage.place(20))
    await stage.settled()
    metrics = (await worker.get("/metrics"))[1]
    dropped = [line for line in metrics.splitlines() if "log" in line and not line.startswith("#")]
    assert any(float(line.split()[-1]) > 0 for line in dropped), dropped
    assert await worker.terminate() == 0


async def test_a_taken_operations_port_is_one_line_and_1(stage: Stage) -> None:
    await stage.open()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        worker = stage.worker(ops__port=taken.getsockname()[1])
        worker.spawn()
        assert await worker.ended() == 1
    lines = [line for line in worker.log().splitlines() if not line.startswith("{")]
    assert len(lines) == 1 and "ops.port" in lines[0] and "Traceback" not in worker.log()


async def test_without_operations_port_it_works_too(stage: Stage) -> None:
    await stage.open()
    worker = stage.worker(ops__port=0)
    worker.spawn()
    await eventually(lambda: worker.log_events("consumer_up"), 30 * SECOND)
    await stage.publish_each(stage.place(3))
    await stage.settled()
    await stage.end_all()


async def test_an_answer_may_go_to_the_direct_reply_queue(stage: Stage) -> None:
    """RabbitMQ's pseudo queue for requests and answers: what a careful client would use."""
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    await stage.start()
    (order_id,) = stage.place(1)
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    async with await aio_pika.connect(stage.broker.url, timeout=RPC_S) as connection:
        channel = await connection.channel(publisher_confirms=False)

        async def note(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            answers.put_nowait(message.body)

        direct = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
        await direct.consume(note, no_ack=True, timeout=RPC_S)
        body = json.dumps({"type": "OrderCancelRequest", "data": [cancel_of(order_id)]}).encode()
        exchange = await channel.get_exchange(COMMANDS, ensure=False)
        message = aio_pika.Message(body, message_id="asked", reply_to="amq.rabbitmq.reply-to", delivery_mode=2)
        await exchange.publish(message, "cancel", timeout=RPC_S)
        async with asyncio.timeout(10 * SECOND):
            answer = json.loads(await answers.get())
    assert (answer["command_id"], answer["outcome"]) == ("asked", "canceled")


async def test_a_foreign_binding_may_see_finals_only(stage: Stage) -> None:
    await stage.open()
    await stage.watch("desk", "final.canceled.BTC-USD")
    await stage.start()
    bitcoin, ether = stage.venue.place(), stage.venue.place(symbol="ETH-USD")
    await stage.publish([cancel_of(bitcoin.order_id), cancel_of(ether.order_id, Symbol="ETH-USD")])
    await stage.settled()
    (only,) = await stage.broker.take("desk", 1)
    assert (only.exchange, only.routing_key) == (RESULTS, "final.canceled.BTC-USD")
    assert await stage.broker.depth("desk") == 0 and await stage.broker.depth(DEAD) == 0
