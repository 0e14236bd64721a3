"""Publish one command with a confirm, and follow the events about it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import aio_pika
from aio_pika.exceptions import ChannelNotFoundEntity, DeliveryError, PublishError
from msgspec import Struct

from worker.app import make_dial
from worker.broker.driver import connection, limited
from worker.cli.answers import HEAD, Answers, line_of, tone_of
from worker.cli.console import Console
from worker.cli.request import Request, properties
from worker.errors import BrokerError, TopologyError
from worker.wire.command import Lane
from worker.wire.event import routing_key
from worker.wire.seen import SeenEvent, SeenEventError, read_event

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue

    from worker.config import Config

_KEPT: Final = 50_000
"""Events that our queue keeps if we read too slowly; beyond it the oldest go, and never the publishers wait."""


class Order(Struct, frozen=True):
    """What to publish and how; ``wait`` in seconds."""

    request: Request
    lane: Lane
    reason: str | None
    deadline: str | None
    wait: float
    as_json: bool


async def publish_and_wait(config: Config, order: Order) -> int:
    """The exit status of ``cancel``: 0 if every order works no more, 1 otherwise.

    Raises BrokerError if the broker fails before the command is stored, TopologyError if there is nowhere to put it.
    """
    dial = make_dial(config, "cancel-worker cancel")
    follower = _Follower(order)
    within = dial.rpc_timeout_s
    try:
        async with connection(dial, "command") as link:
            async with limited("channel.open", within):
                channel = await link.channel(publisher_confirms=True, on_return_raises=True)
            queue = await _queue_of_our_own(channel, config, order.request, within)
            async with limited("basic.consume", within):
                await queue.consume(follower.received, no_ack=True, exclusive=True)
            link.close_callbacks.add(follower.lost)
            await follower.publish(_publish(channel, config, order, _user_of(link), within))
            await follower.follow()
            if not follower.answers.is_complete:
                await follower.explain(link, _queue_of_lane(config, order.lane), within)
    except (asyncio.CancelledError, BrokerError):
        follower.tell_what_stays()
        raise
    return follower.conclude()


class _RefusedError(BrokerError):
    """The broker said no to the command: it is not stored."""


class _Follower:
    """Takes deliveries, tells each event once."""

    def __init__(self, order: Order) -> None:
        self.answers = Answers(order.request)
        self._published: bool | None = False
        self._order = order
        self._console = Console()
        self._changed = asyncio.Event()
        self._lost: str | None = None

    async def publish(self, publishing: Awaitable[None]) -> None:
        """Publish; if that is broken off, whether the command was stored is not known."""
        self._published = None
        try:
            await publishing
        except (_RefusedError, TopologyError):
            self._published = False
            raise
        self._published = True

    def tell_what_stays(self) -> None:
        """We are broken off: what that means for the command."""
        command_id = self._order.request.command_id
        if self._published:
            self.note(f"command {command_id} was published and stays in force")
        elif self._published is None:
            self.note(f"command {command_id} may have been published: to repeat it safely, give it this --command-id")

    async def received(self, message: AbstractIncomingMessage) -> None:
        """One event of anybody's about our symbols."""
        try:
            event = read_event(message.body)
        except SeenEventError:
            return  # somebody else's message on the results exchange
        if self.answers.take(event):
            self._changed.set()  # first: a reader of ours that is gone must not keep us waiting
            if self._order.as_json:
                # A newline can only be between tokens, in a report as the venue wrote it.
                sys.stdout.write(message.body.decode("utf-8", "replace").replace("\n", " ") + "\n")
                sys.stdout.flush()
            else:
                self._console.line(line_of(event), tone_of(event))
        elif event.outcome == "worker_unavailable" and not self._order.as_json:
            self._tell_unavailable(event)

    def _tell_unavailable(self, event: SeenEvent) -> None:
        self._console.line(line_of(event), "doubt")

    def lost(self, *_: object) -> None:
        """The connection is gone."""
        self._lost = "the connection to the broker was lost"
        self._changed.set()

    async def follow(self) -> None:
        """Until every cancel has its final or the wait is over. Raises BrokerError if the connection is lost."""
        if not self._order.as_json:
            count = len(self._order.request.items)
            self._console.line(f"command {self._order.request.command_id} is in the queue: {count} to cancel", "quiet")
        try:
            async with asyncio.timeout(self._order.wait):
                while not self.answers.is_complete:
                    if self._lost is not None:
                        raise BrokerError(self._lost)
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    async def explain(self, link: AbstractConnection, queue: str, within: float) -> None:
        """The wait is over without all finals: say what that means."""
        missing = len(self.answers.missing)
        self.note(
            f"no final event for {missing} of {len(self._order.request.items)} cancels within {self._order.wait:g} s: "
            f"command {self._order.request.command_id} is still in the queue or in flight and may still be carried out"
        )
        try:
            async with limited(f"queue {queue}", within):
                channel = await link.channel()
                found = (await channel.declare_queue(queue, passive=True)).declaration_result
        except BrokerError:
            return  # a hint that could not be had
        if not found.consumer_count:
            self.note(f"no worker takes commands from {queue} now; {found.message_count} wait in it")

    def note(self, text: str) -> None:
        """A line beside the events: standard error, where it harms no reader of JSON."""
        print(f"cancel-worker: {text}", file=sys.stderr, flush=True)

    def conclude(self) -> int:
        """The table at the end, and the exit status."""
        if not self._order.as_json:
            rows, tones = self.answers.rows()
            self._console.line()
            self._console.table(HEAD, rows, tones)
        return 0 if self.answers.all_done else 1


async def _queue_of_our_own(channel: AbstractChannel, config: Config, asked: Request, within: float) -> AbstractQueue:
    """An exclusive queue that goes with this connection, bound to the events of our symbols and those without one."""
    results = config.broker.results_exchange
    arguments: dict[str, str | int] = {"x-max-length": _KEPT, "x-overflow": "drop-head"}
    async with limited("queue for the events", within):
        queue = await channel.declare_queue(exclusive=True, auto_delete=True, arguments=dict(arguments))
    words = {routing_key("canceled", True, symbol).rsplit(".", 1)[1] for symbol in asked.symbols} | {"_"}
    for word in sorted(words):
        async with _existing(f"exchange {results}", within):
            await queue.bind(results, f"*.*.{word}")
    return queue


async def _publish(channel: AbstractChannel, config: Config, order: Order, user: str | None, within: float) -> None:
    broker, asked = config.broker, order.request
    key = broker.kill_key if order.lane == "kill" else broker.cancel_key
    message = aio_pika.Message(
        asked.body,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        **properties(asked, user=user, reason=order.reason, deadline=order.deadline),
    )
    place = f"exchange {broker.commands_exchange}"
    async with _existing(place, within):
        exchange = await channel.get_exchange(broker.commands_exchange, ensure=False)
        try:
            await exchange.publish(message, key, mandatory=True)
        except PublishError:
            raise TopologyError(f"a binding of {place} with routing key {key}") from None
        except DeliveryError:
            queue = _queue_of_lane(config, order.lane)
            raise _RefusedError(f"the broker refused the command: queue {queue} takes no more") from None


@asynccontextmanager
async def _existing(object: str, within: float) -> AsyncIterator[None]:
    """As ``limited``; an object that is not there is a TopologyError."""
    async with limited(object, within):
        try:
            yield
        except ChannelNotFoundEntity as error:
            raise TopologyError(object, detail=str(error)) from None


def _queue_of_lane(config: Config, lane: Lane) -> str:
    return config.broker.kill_queue if lane == "kill" else config.broker.commands_queue


def _user_of(link: AbstractConnection) -> str | None:
    """Whom the broker knows us as; by a client certificate alone it knows better than we do."""
    assert isinstance(link, aio_pika.Connection)
    url = link.url
    return None if url.query.get("auth") == "external" else url.user
