"""Everything at once on this machine: a broker, the venue simulator, the worker, a stream of cancels, a verdict."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import aio_pika

from worker.app import make_dial
from worker.broker.driver import connection, limited
from worker.broker.topology import declare
from worker.config import Config, load
from worker.demo.kinds import Ask, asks, dues
from worker.demo.place import place
from worker.demo.process import WorkerProcess
from worker.demo.verdict import Books, Seen, Verdict, verdict
from worker.errors import BrokerError, CancelWorkerError
from worker.simulator import Login, Script, Simulator
from worker.wire.seen import SeenEvent, SeenEventError, read_event

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange, AbstractIncomingMessage

    from worker.broker.dial import Dial

READY_WITHIN_S: Final = 15.0
STREAM_S: Final = 3.0
"""The stream of commands takes about so long, a command at least each ``SLOWEST_S`` seconds."""
SLOWEST_S: Final = 0.1
FINALS_WITHIN_S: Final = 20.0
PER_COMMAND_S: Final = 0.02
DEAD_WITHIN_S: Final = 5.0
_POLL_S: Final = 0.05


class DemoError(CancelWorkerError):
    """The demo could not be carried out."""


class Show(Protocol):
    """Where the demo tells what happens."""

    def step(self, text: str) -> None:
        """The demo does something."""

    def event(self, event: SeenEvent, kind: str) -> None:
        """The worker published something new; ``kind`` is what the demo asked for, empty if nothing."""


async def demo(show: Show, files: Sequence[Path], count: int, seed: int, environment: Mapping[str, str]) -> Verdict:
    """Play it all through and compare. Nothing runs and nothing is on disk afterwards, however it ends.

    ``files``: configuration of the worker. Raises CancelWorkerError if a part does not start or ends too early.
    """
    asked = asks(count, seed)
    begun = time.monotonic()
    async with AsyncExitStack() as stack:
        config = load(files)
        venue = await stack.enter_async_context(_simulator(config, seed))
        show.step(f"venue: a simulator at {venue.url}")
        show.step("broker: starting ...")
        where = await stack.enter_async_context(place(environment))
        show.step(f"broker: {where.where} ({time.monotonic() - begun:.1f} s)")
        settings = where.settings | {"CANCEL_WORKER__VENUE__URL": venue.url}
        config = load(files, settings)
        dial = make_dial(config, "cancel-worker demo")
        await declare(dial, config.broker)
        link = await stack.enter_async_context(connection(dial, "events"))
        seen = Seen()
        await _follow(link, config, dial, seen, show, {ask.command_id: ask.kind for ask in asked})
        started = time.monotonic()
        worker = await stack.enter_async_context(WorkerProcess(files, settings))
        await _until_ready(link, config, dial, worker)
        show.step(f"worker: a process of its own, ready after {time.monotonic() - started:.2f} s")
        show.step(f"commands: {sum(ask.copies for ask in asked)}, some of every kind, in mixed order")
        await _publish(link, config, dial, venue, asked)
        await _until_final(worker, asked, seen)
        dead = await _dead_letters(link, config, dial, {ask.command_id for ask in asked if ask.dead})
        show.step("worker: told to stop")
        status = await worker.stop(config.shutdown.grace + 5.0)
        books = Books(
            venue.truth(),
            Counter(cancel.order_id or "" for cancel in venue.cancels),
            dead,
            await _left(link, config, dial),
            status,
        )
        return verdict(asked, seen, books)


def _simulator(config: Config, seed: int) -> Simulator:
    """A venue that lets the configured key in."""
    key, secret = config.venue.api_key, config.venue.api_secret
    if key is None or secret is None:
        raise DemoError("the demo needs venue.api_key and venue.api_secret in its configuration file: any will do")
    return Simulator(Script(seed=seed, login=Login(key=key.reveal(), secret=secret.reveal())))


async def _follow(
    link: AbstractConnection, config: Config, dial: Dial, seen: Seen, show: Show, kinds: Mapping[str, str]
) -> None:
    """A consumer's queue, bound to all events, before anything is published."""

    async def received(message: AbstractIncomingMessage) -> None:
        try:
            event = read_event(message.body)
        except SeenEventError as error:
            seen.contradictions.append(str(error))
            return
        if seen.take(event):
            show.event(event, kinds.get(event.command_id or "", ""))

    async with limited("queue for the events", dial.rpc_timeout_s):
        channel = await link.channel()
        queue = await channel.declare_queue(exclusive=True, auto_delete=True)
        await queue.bind(config.broker.results_exchange, "#")
        await queue.consume(received, no_ack=True)


async def _until_ready(link: AbstractConnection, config: Config, dial: Dial, worker: WorkerProcess) -> None:
    """A worker takes commands only while a session is ready (contract 4.6): consumers on both lanes say so."""
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            for queue in (config.broker.kill_queue, config.broker.commands_queue):
                while not (await _look_at(link, queue, dial))[1]:
                    worker.check()
                    await asyncio.sleep(_POLL_S)
    except TimeoutError:
        said = worker.last_words[-1] if worker.last_words else "it said nothing"
        raise DemoError(f"the worker was not ready within {READY_WITHIN_S:g} s: {said}") from None


async def _publish(
    link: AbstractConnection, config: Config, dial: Dial, venue: Simulator, asked: Sequence[Ask]
) -> None:
    """The stream: each command's orders come to stand at the venue, then the command goes to its lane."""
    async with limited("channel.open", dial.rpc_timeout_s):
        channel = await link.channel(publisher_confirms=True, on_return_raises=True)
        exchange = await channel.get_exchange(config.broker.commands_exchange, ensure=False)
    pause = min(SLOWEST_S, STREAM_S / len(asked))
    for ask in asked:
        for order in ask.orders:
            venue.place(order_id=order.order_id, symbol=order.symbol, behaviour=order.behaviour)
        for _ in range(ask.copies):
            await _send(link, exchange, config, dial, ask)
        await asyncio.sleep(pause)


async def _send(link: AbstractConnection, exchange: AbstractExchange, config: Config, dial: Dial, ask: Ask) -> None:
    assert isinstance(link, aio_pika.Connection)
    message = aio_pika.Message(
        ask.body,
        content_type=ask.content_type,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=ask.command_id,
        user_id=link.url.user,
        app_id="cancel-worker-demo",
        timestamp=int(time.time()),
        headers=dict(ask.headers),
    )
    key = config.broker.kill_key if ask.lane == "kill" else config.broker.cancel_key
    async with limited("publish", dial.rpc_timeout_s):
        await exchange.publish(message, key, mandatory=True)


async def _until_final(worker: WorkerProcess, asked: Sequence[Ask], seen: Seen) -> None:
    """Until every final is there; what is missing by then is told by the verdict."""
    wanted = {(ask.command_id, due.index) for ask, due in dues(asked)}
    end = time.monotonic() + FINALS_WITHIN_S + PER_COMMAND_S * len(asked)
    while not wanted <= seen.finals.keys() and time.monotonic() < end:
        worker.check()
        await asyncio.sleep(_POLL_S)


async def _dead_letters(link: AbstractConnection, config: Config, dial: Dial, expected: set[str]) -> list[str]:
    """Command ids among the dead letters; waits for those expected, for dead-lettering takes the broker a moment."""
    found: list[str] = []
    end = time.monotonic() + DEAD_WITHIN_S
    async with limited("dead letters", dial.rpc_timeout_s + DEAD_WITHIN_S):
        channel: AbstractChannel = await link.channel()
        queue = await channel.get_queue(config.broker.dead_queue, ensure=False)
        while True:
            message = await queue.get(fail=False)
            if message is not None:
                await message.ack()
                found.append(message.message_id or "")
            elif expected <= set(found) or time.monotonic() >= end:
                return found
            else:
                await asyncio.sleep(_POLL_S)


async def _left(link: AbstractConnection, config: Config, dial: Dial) -> dict[str, int]:
    """Messages left in both lanes and among the dead letters, once the worker's links are gone: nothing is unacked."""
    queues = (config.broker.kill_queue, config.broker.commands_queue, config.broker.dead_queue)
    end = time.monotonic() + DEAD_WITHIN_S
    for queue in queues:
        while (await _look_at(link, queue, dial))[1] and time.monotonic() < end:
            await asyncio.sleep(_POLL_S)
    return {queue: (await _look_at(link, queue, dial))[0] for queue in queues}


async def _look_at(link: AbstractConnection, queue: str, dial: Dial) -> tuple[int, int]:
    """Ready messages and consumers of a queue, as the broker counts them now."""
    async with limited(f"queue {queue}", dial.rpc_timeout_s):
        channel = await link.channel()
        answer = (await channel.declare_queue(queue, passive=True)).declaration_result
        await channel.close()
    if answer.message_count is None or answer.consumer_count is None:
        raise BrokerError(f"queue {queue}: the broker did not count")
    return answer.message_count, answer.consumer_count
