"""Publish a mass cancel with a confirm, follow its events, tell how far it is (contract section 5)."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any, Final

import aio_pika
from msgspec import Struct

from worker.app import make_dial
from worker.broker.audit_stream import find_final
from worker.broker.confirmed import NotStoredError, confirming_channel, existing, publish_confirmed, user_of
from worker.broker.driver import connection, limited
from worker.cli.answers import LIVE
from worker.cli.console import Console
from worker.cli.following import write_json
from worker.cli.ledger import counts_of
from worker.cli.open_orders import open_orders
from worker.cli.request import JSON
from worker.cli.sweep import MassRequest, Progress
from worker.errors import BrokerError, CancelWorkerError, TopologyError
from worker.wire.seen import SeenEvent, SeenEventError, read_event

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage, AbstractQueue
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    from worker.broker.dial import Dial
    from worker.config import Config

_KEPT: Final = 50_000
_LINE_EVERY_S: Final = 1.0
_REASONS_WITHIN_S: Final = 10.0
_MOST_ROWS: Final = 20


class Order(Struct, frozen=True):
    """What to publish and how; ``wait`` in seconds, ``deadline`` as the header has it."""

    request: MassRequest
    reason: str | None
    deadline: str | None
    wait: float
    as_json: bool


async def kill(config: Config, order: Order) -> int:
    """The exit status of ``kill``: 0 only if verified flat.

    Raises BrokerError if the broker fails before the final came, TopologyError if there is nowhere to publish to.
    """
    dial = make_dial(config, "cancel-worker kill")
    follower = _Follower(order)
    begun_us = time.time_ns() // 1000
    within = dial.rpc_timeout_s
    try:
        async with connection(dial, "kill") as link:
            channel = await confirming_channel(link, within)
            queue = await _queue_of_our_own(channel, config, order.request, within)
            async with limited("basic.consume", within):
                await queue.consume(follower.received, no_ack=True, exclusive=True)
            link.close_callbacks.add(follower.lost)
            await follower.publish(channel, config, _message(order, user_of(link)), within)
            await follower.follow()
            if follower.progress.final is None:
                await follower.explain(link, config.broker.kill_queue, within)
    except (asyncio.CancelledError, BrokerError):
        follower.tell_what_stays()
        raise
    reasons = await _reasons(dial, config, follower.progress, begun_us)
    return follower.conclude(reasons)


async def show_open(config: Config, asked: MassRequest) -> None:
    """What the venue lists as open in the scope, before a person is asked; that it can't be had stops nobody.

    On standard error, as the question: standard output is for what comes of the mass cancel.
    """
    console = Console(sys.stderr)
    found = await open_orders(config, asked.covers(config.kill.customer_users))
    rows = [[symbol, side, str(count)] for symbol, side, count in found.by_symbol_and_side]
    if rows:
        console.table(("symbol", "side", "open orders"), rows[:_MOST_ROWS])
        if len(rows) > _MOST_ROWS:
            console.line(f"and {len(rows) - _MOST_ROWS} more", "quiet")
    if found.lacks is None:
        console.line(f"open in this scope now, by the venue's list: {len(found)}", "head")
    else:
        console.line(f"open in this scope: at least {len(found)}; the list is not whole: {found.lacks}", "doubt")


class _Follower:
    """Takes deliveries, tells each event once."""

    def __init__(self, order: Order) -> None:
        self.progress = Progress(order.request)
        self._order = order
        self._console = Console()
        self._show = _Bar() if sys.stdout.isatty() and not order.as_json else None
        self._published: bool | None = False
        self._changed = asyncio.Event()
        self._lost: str | None = None
        self._next_line = 0.0
        self._last_line = ""

    async def publish(self, channel: AbstractChannel, config: Config, message: aio_pika.Message, within: float) -> None:
        """Publish; if that is broken off, whether the command was stored is not known."""
        broker = config.broker
        self._published = None
        try:
            await publish_confirmed(channel, broker.commands_exchange, broker.kill_key, message, within)
        except (NotStoredError, TopologyError):
            self._published = False
            raise
        self._published = True
        if not self._order.as_json:
            self._console.line(f"mass cancel {self._order.request.command_id} is in the kill lane", "quiet")

    def tell_what_stays(self) -> None:
        """We are broken off: what that means for the mass cancel."""
        if self._show is not None:
            self._show.stop()
        command_id = self._order.request.command_id
        if self._published:
            _note(f"mass cancel {command_id} was published and stays in force until its deadline")
        elif self._published is None:
            _note(f"mass cancel {command_id} may have been published: to repeat it safely, give it this --command-id")

    async def received(self, message: AbstractIncomingMessage) -> None:
        """One event of anybody's."""
        try:
            event = read_event(message.body)
        except SeenEventError:
            return  # somebody else's message on the results exchange
        if self.progress.take(event):
            self._changed.set()  # first: a reader of ours that is gone must not keep us waiting
            if self._order.as_json:
                write_json(message.body)
            else:
                self._tell()
        elif event.command_id is None and event.outcome.startswith("worker_") and not self._order.as_json:
            words = {"worker_unavailable": "has no session at the venue", "worker_available": "is back at the venue"}
            self._line(f"worker {event.worker} {words.get(event.outcome, event.outcome)}")

    def _tell(self) -> None:
        mass = self.progress.mass
        if mass is None:
            return
        if self._show is not None:
            self._show.at(mass.matched, mass.canceled + mass.already_closed, counts_of(mass))
            return
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + _LINE_EVERY_S
            self._line(f"{counts_of(mass)}; {len(mass.remaining)} remaining")

    def _line(self, text: str) -> None:
        if text != self._last_line:
            self._last_line = text
            self._console.line(text)

    def lost(self, *_: object) -> None:
        """The connection is gone."""
        self._lost = "the connection to the broker was lost"
        self._changed.set()

    async def follow(self) -> None:
        """Until the final or the end of the wait. Raises BrokerError if the connection is lost."""
        try:
            async with asyncio.timeout(self._order.wait):
                while self.progress.final is None:
                    if self._lost is not None:
                        raise BrokerError(self._lost)
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        finally:
            if self._show is not None:
                self._show.stop()

    async def explain(self, link: AbstractConnection, queue: str, within: float) -> None:
        """The wait is over without a final: say what that means."""
        command_id = self._order.request.command_id
        _note(f"no final event within {self._order.wait:g} s: mass cancel {command_id} may still be carried out")
        try:
            async with limited(f"queue {queue}", within):
                channel = await link.channel()
                found = (await channel.declare_queue(queue, passive=True)).declaration_result
        except BrokerError:
            return  # a hint that could not be had
        if not found.consumer_count:
            _note(f"no worker takes commands from {queue} now; {found.message_count} wait in it")

    def conclude(self, reasons: dict[str, SeenEvent]) -> int:
        """The survivors, the one line that counts, and the exit status."""
        progress = self.progress
        if not self._order.as_json:
            if not progress.is_flat and progress.remaining:
                rows = [_row(order_id, reasons.get(order_id)) for order_id in progress.remaining]
                self._console.table(("not proven closed", "outcome", "order live", "told"), rows, ["bad"] * len(rows))
            self._console.line(progress.conclusion(), "good" if progress.is_flat else "bad")
        return 0 if progress.is_flat else 1


class _Bar:
    """The live bar on a terminal: closed of matched."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def at(self, matched: int, closed: int, text: str) -> None:
        """Show a ledger."""
        if self._bar is None or self._task is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("closed"), TextColumn("{task.description}"))
            self._bar = Progress(*columns, transient=True, auto_refresh=False)
            self._bar.start()
            self._task = self._bar.add_task("", total=None)
        self._bar.update(self._task, description=text, total=matched or None, completed=closed, refresh=True)

    def stop(self) -> None:
        """Leave the terminal as it was; may be called twice."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _row(order_id: str, final: SeenEvent | None) -> list[str]:
    if final is None:
        return [order_id, "not known", LIVE[None], ""]
    return [order_id, final.outcome, LIVE[final.order_live], final.told]


async def _reasons(dial: Dial, config: Config, progress: Progress, begun_us: int) -> dict[str, SeenEvent]:
    """What the finals of the survivors say, by OrderID, from the audit stream; what can't be had is left out."""
    wanted = progress.survivors_finals
    if progress.final is None or not wanted:
        return {}
    try:
        found = await find_final(dial, config.broker, set(wanted), begun_us, _REASONS_WITHIN_S)
    except CancelWorkerError as error:
        _note(f"why they survived could not be read: {error}")
        return {}
    return {wanted[event_id]: event for event_id, event in found.items()}


async def _queue_of_our_own(
    channel: AbstractChannel, config: Config, asked: MassRequest, within: float
) -> AbstractQueue:
    """An exclusive queue that goes with this connection, bound before anything is published."""
    results = config.broker.results_exchange
    arguments: dict[str, Any] = {"x-max-length": _KEPT, "x-overflow": "drop-head"}
    async with limited("queue for the events", within):
        queue = await channel.declare_queue(exclusive=True, auto_delete=True, arguments=arguments)
    for key in asked.routing_keys():
        async with existing(f"exchange {results}", within):
            await queue.bind(results, key)
    return queue


def _message(order: Order, user: str | None) -> aio_pika.Message:
    """The mass cancel as an AMQP message; the timestamp is what ``kill.max_age`` counts from."""
    headers: dict[str, Any] = {"reason": order.reason, "deadline": order.deadline}
    return aio_pika.Message(
        order.request.body,
        content_type=JSON,
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=order.request.command_id,
        correlation_id=order.request.command_id,
        user_id=user,
        app_id="cancel-worker-cli",
        timestamp=int(time.time()),
        headers={name: value for name, value in headers.items() if value is not None},
    )


def _note(text: str) -> None:
    """A line beside the events: standard error, where it harms no reader of JSON."""
    print(f"cancel-worker: {text}", file=sys.stderr, flush=True)
