"""The world around a real worker process: a broker, a venue, a publisher, a consumer of events, and their books.

``Stage`` starts the worker as an operator would (environment, signals) and compares at the end what was published,
what the venue did and which events exist. Nothing here looks into the worker.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import quote

import aio_pika
import aiohttp
import msgspec
from aio_pika.abc import AbstractIncomingMessage, HeadersType

from tests.support.broker import RPC_S, Broker
from tests.support.timing import SECOND, eventually
from worker.broker import topology
from worker.broker.dial import Dial
from worker.config import Broker as BrokerSettings
from worker.core.listing import SERVES_S
from worker.simulator import CancelSeen, Received, Script, Simulator, Truth

REPOSITORY = Path(__file__).parents[2]
KEY = "PROCESSTESTK"
SECRET = "pr0cess-test-s3cret-9x7w5v3u1t"
COMMANDS, KILL, DEAD, RESULTS, AUDIT = (
    "cancel.commands",
    "cancel.kill",
    "cancel.dead",
    "cancel.results",
    "cancel.audit",
)
SCALE = float(os.environ.get("CANCEL_WORKER_TEST_SCALE", "1"))
"""How many times the size that the issue names the larger tests have."""

LIST_SERVES_US = int(SERVES_S * 1e6)
START_S = 30 * SECOND
"""Limit for a start; a machine that runs much else at the same time needs some of it."""

CancelKey = tuple[str, int]
"""Command id and index."""


class VenueBooks(Protocol):
    """What the checks ask a venue for: the simulator, or what a venue process left behind."""

    @property
    def cancels(self) -> list[CancelSeen]: ...
    @property
    def received(self) -> list[Received]: ...
    def truth(self) -> dict[str, Truth]: ...
    def sends_of(self, order_id: str) -> list[CancelSeen]: ...
    def ended_us(self, order_id: str) -> int | None: ...


class _Reported(msgspec.Struct):
    report: msgspec.Raw


@dataclass(frozen=True)
class Seen:
    """One event as a consumer got it."""

    raw: bytes
    message: AbstractIncomingMessage

    @cached_property
    def body(self) -> dict[str, Any]:
        decoded: dict[str, Any] = msgspec.json.decode(self.raw)
        return decoded

    @property
    def event_id(self) -> str:
        return str(self.body["event_id"])

    @property
    def outcome(self) -> str:
        return str(self.body["outcome"])

    @property
    def final(self) -> bool:
        return bool(self.body["final"])

    @property
    def key(self) -> CancelKey:
        """Command id and index; index -1 for an event about the whole command."""
        index = self.body["index"]
        return str(self.body["command_id"]), -1 if index is None else index

    @property
    def report_bytes(self) -> bytes | None:
        """The ``report`` as it stands in the event, every byte."""
        raw = bytes(msgspec.json.decode(self.raw, type=_Reported).report)
        return None if raw == b"null" else raw


class Events:
    """A consumer of one queue that comes back after every loss and keeps what it got, in order.

    A message that it gets twice because of its own lost connection is kept once.
    """

    def __init__(self, broker: Broker, queue: str) -> None:
        self.seen: list[Seen] = []
        self._broker = broker
        self._queue = queue
        self._task: asyncio.Task[None] | None = None
        self._consuming = asyncio.Event()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())
        async with asyncio.timeout(RPC_S):
            await self._consuming.wait()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(OSError, aio_pika.exceptions.AMQPError, asyncio.TimeoutError, RuntimeError):
                await self._consume()
            await asyncio.sleep(0.1)

    async def _consume(self) -> None:
        lost = asyncio.Event()
        connection = await aio_pika.connect(self._broker.url, timeout=RPC_S)
        try:
            channel = await connection.channel(publisher_confirms=False)
            channel.close_callbacks.add(lambda *_: lost.set())
            await channel.set_qos(prefetch_count=1000, timeout=RPC_S)
            queue = await channel.get_queue(self._queue, ensure=False)
            await queue.consume(self._take, timeout=RPC_S)
            self._consuming.set()
            await lost.wait()
        finally:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(connection.close(), 2)

    async def _take(self, message: AbstractIncomingMessage) -> None:
        if not (message.redelivered and any(message.body == held.raw for held in self.seen)):
            self.seen.append(Seen(message.body, message))
        with contextlib.suppress(aio_pika.exceptions.AMQPError, RuntimeError):
            await message.ack()

    def finals(self) -> list[Seen]:
        return [event for event in self.seen if event.final]

    def of(self, command_id: str, index: int | None = None) -> list[Seen]:
        """The events of a command, or of one cancel of it."""
        return [
            event
            for event in self.seen
            if event.body["command_id"] == command_id and (index is None or event.body["index"] == index)
        ]

    def outcomes(self, command_id: str, index: int = 0) -> list[str]:
        return [event.outcome for event in self.of(command_id, index)]

    def named(self, outcome: str) -> list[Seen]:
        return [event for event in self.seen if event.outcome == outcome]


class Worker:
    """One worker process. ``settings`` are configuration keys as ``venue__sessions=3``."""

    def __init__(self, environment: dict[str, str], port: int, log: Path) -> None:
        self.port = port
        self.log_path = log
        self.command: Sequence[str] = (sys.executable, "-m", "worker", "run")
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0

    def spawn(self) -> None:
        """Start the process; does not wait for anything."""
        with self.log_path.open("ab") as log:
            self.started_at = time.monotonic()
            self._process = subprocess.Popen(
                self.command,
                cwd=REPOSITORY,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def until_ready(self, within_s: float = START_S) -> float:
        """Wait for /readyz to be 200; returns the seconds since the spawn."""

        async def ready() -> bool:
            assert self.running, f"the worker ended with {self.process.returncode}"
            return await self.readiness() == []

        try:
            await eventually(ready, within_s)
        except AssertionError as error:
            raise AssertionError(f"{error}; {await self.readiness()}\n{self.log_tail()}") from None
        return time.monotonic() - self.started_at

    async def until_unready(self, part: str, within_s: float = 10 * SECOND) -> list[str]:
        """Wait until one of the reasons of /readyz contains ``part``; returns the reasons."""

        async def named() -> list[str]:
            reasons = await self.readiness() or []
            return reasons if any(part in reason for reason in reasons) else []

        return await eventually(named, within_s)

    async def get(self, path: str) -> tuple[int, str]:
        """Status and body of an operations page; status 0 if nothing answers."""
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5 * SECOND)) as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as answer,
            ):
                return answer.status, await answer.text()
        except (OSError, aiohttp.ClientError, TimeoutError):
            return 0, ""

    async def readiness(self) -> list[str] | None:
        """The reasons of /readyz; empty: ready; None: nothing answers."""
        status, text = await self.get("/readyz")
        if status == 200:
            return []
        if status != 503:
            return None
        reasons: list[str] = msgspec.json.decode(text)["reasons"]
        return reasons

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode((await self.get("/status"))[1])
        return found

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, within_s: float = 20 * SECOND) -> int:
        """The exit status."""
        try:
            await eventually(lambda: not self.running, within_s)
        except AssertionError:
            raise AssertionError(f"the worker still runs:\n{self.log_tail()}") from None
        return self.process.returncode

    async def terminate(self, within_s: float = 20 * SECOND) -> int:
        """SIGTERM, and the exit status."""
        self.signal(signal.SIGTERM)
        return await self.ended(within_s)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.running:
            self.signal(signal.SIGKILL)
        await self.ended()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def log_events(self, name: str) -> list[dict[str, Any]]:
        """The lines of the log whose event is ``name``."""
        found = []
        for line in self.log().splitlines():
            if line.startswith("{"):
                fields = msgspec.json.decode(line)
                if fields.get("event") == name:
                    found.append(fields)
        return found

    def log_tail(self) -> str:
        lines = [line for line in self.log().splitlines() if '"cancel_final"' not in line]
        return "\n".join(lines[-60:])


class Stage:
    """Everything around one or more workers; an ``async with`` block, at whose end all processes are gone."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self.broker = broker
        self.folder = folder
        self.events = Events(broker, "watch")
        self.workers: list[Worker] = []
        self.published: dict[str, int] = {}
        self.may_differ: dict[str, set[str]] = {}
        self.venue_url = ""
        self.books: VenueBooks | None = None
        self._venue: Simulator | None = None
        self._stack = AsyncExitStack()

    @property
    def venue(self) -> Simulator:
        assert self._venue is not None
        return self._venue

    async def open(self, script: Script | None = None, **venue: Any) -> Self:
        """Start the venue and the consumer of events."""
        self._venue = await self._stack.enter_async_context(Simulator(script, key=KEY, secret=SECRET, **venue))
        self.books = self._venue
        return await self.open_at(self._venue.url)

    async def open_at(self, venue_url: str) -> Self:
        """Start the consumer of events; the venue is somebody else's, and ``books`` are to be set at its end."""
        self.venue_url = venue_url
        await self.broker.declare_exchange(RESULTS, "topic")
        await self.watch("watch")
        await self.events.start()
        return self

    async def watch(self, queue: str, key: str = "#") -> None:
        """Declare a queue of a consumer of events."""
        await self.broker.declare_queue(queue, kind="classic", bind=[(RESULTS, key)])

    async def declare(self, url: str | None = None) -> None:
        """Declare the topology before any worker does, as an operator may; ``url``: at another node of the cluster."""
        dial = Dial(lambda: [url or self.broker.url], name="test")
        await topology.declare(dial, BrokerSettings())

    # -- workers

    def worker(self, **settings: object) -> Worker:
        """A worker for this broker and venue, not started. Values are written as in TOML."""
        number = len(self.workers) + 1
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        keys: dict[str, object] = {
            "broker__url": self.broker.url,
            "broker__reconnect_max": 1.0,
            "venue__url": self.venue_url,
            "venue__api_key": KEY,
            "venue__api_secret": SECRET,
            "venue__reconnect_max": 0.5,
            "ops__port": port,
            **settings,
        }
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("CANCEL_WORKER", "COV_"))
        }
        environment["CANCEL_WORKER_CONFIG"] = os.devnull
        environment |= {f"CANCEL_WORKER__{name.upper()}": _toml(value) for name, value in keys.items()}
        worker = Worker(environment, port, self.folder / f"worker-{number}.log")
        self.workers.append(worker)
        return worker

    async def start(self, **settings: object) -> Worker:
        """A worker that is ready."""
        worker = self.worker(**settings)
        worker.spawn()
        await worker.until_ready()
        return worker

    # -- commands

    async def publish(
        self,
        items: Sequence[Mapping[str, object]],
        *,
        command_id: str | None = None,
        lane: str = "cancel",
        msgpack: bool = False,
        envelope: Mapping[str, object] | None = None,
        counted: bool = True,
        **properties: Any,
    ) -> str:
        """Publish one OrderCancelRequest, confirmed; returns its command id. ``command_id`` "" sends no message_id."""
        message_id = uuid.uuid4().hex if command_id is None else command_id
        body = {"type": "OrderCancelRequest", "data": list(items), **(envelope or {})}
        encoded = msgspec.msgpack.encode(body) if msgpack else msgspec.json.encode(body)
        if msgpack:
            properties.setdefault("content_type", "application/msgpack")
        await self.publish_body(encoded, lane=lane, message_id=message_id or None, **properties)
        known = message_id or str(items[0]["ClOrdID"])
        if counted:
            self.published[known] = len(items)
        return known

    async def publish_body(
        self, body: bytes, *, lane: str = "cancel", message_id: str | None = None, **properties: Any
    ) -> None:
        if message_id is not None:
            await self.broker.publish(COMMANDS, lane, body, message_id=message_id, **properties)
            return
        # The driver gives every message a message_id; the management API leaves it out.
        if "timestamp_s" in properties:
            properties["timestamp"] = properties.pop("timestamp_s")
        properties.setdefault("content_type", "application/json")
        given = {name: value for name, value in properties.items() if value is not None}
        request = {
            "properties": {"delivery_mode": 2, **given},
            "routing_key": lane,
            "payload": base64.b64encode(body).decode(),
            "payload_encoding": "base64",
        }
        vhost = quote(self.broker.vhost, safe="")
        answer = await self.broker.api("POST", f"exchanges/{vhost}/{COMMANDS}/publish", request)
        assert answer == {"routed": True}

    async def publish_each(self, order_ids: Iterable[str], **properties: Any) -> list[str]:
        """One command per order."""
        return await gather_some(
            [lambda one=order_id: self.publish([cancel_of(one)], **properties) for order_id in order_ids]  # type: ignore[misc]
        )

    def place(self, count: int, **terms: Any) -> list[str]:
        """Orders that stand in the book; their OrderIDs."""
        return [self.venue.place(**terms).order_id for _ in range(count)]

    # -- waiting

    def missing(self) -> list[CancelKey]:
        """Cancels of published commands that have no final yet; one about the whole command stands for all of it."""
        done = {event.key for event in self.events.finals()}
        return [
            (command_id, index)
            for command_id, count in self.published.items()
            for index in range(count)
            if (command_id, index) not in done and (command_id, -1) not in done
        ]

    async def settled(self, within_s: float = 20 * SECOND) -> None:
        """Wait for a final of every cancel published so far, and for the queues to be empty."""
        try:
            await eventually(lambda: not self.missing(), within_s)
        except AssertionError:
            missing = self.missing()
            told = {key: self.events.outcomes(*key) for key in missing[:5]}
            raise AssertionError(
                f"{len(missing)} of {sum(self.published.values())} cancels have no final after {within_s:g} s, "
                f"such as {told}\n{await self._states()}"
            ) from None
        await self.empty()

    async def empty(self, within_s: float = 10 * SECOND) -> None:
        """Wait until both lanes are empty."""

        async def nothing() -> bool:
            return await self.broker.depth(COMMANDS) == 0 and await self.broker.depth(KILL) == 0

        await eventually(nothing, within_s)

    async def _states(self) -> str:
        told = []
        for worker in self.workers:
            if worker.running:
                told.append(f"port {worker.port}: {await worker.readiness()} {(await worker.status()).get('lanes')}")
            told.append(worker.log_tail())
        return "\n".join(told)

    async def dead_letters(self, count: int, within_s: float = 10 * SECOND) -> list[AbstractIncomingMessage]:
        """Take that many dead letters; there must be no more."""
        taken = await self.broker.take(DEAD, count, within_s)
        assert await self.broker.get(DEAD) is None
        return taken

    async def audited(self) -> list[Seen]:
        """Everything in the audit stream, as far as it is as long as what was seen."""
        messages = await self.broker.read_stream(AUDIT, len(self.events.seen))
        return [Seen(message.body, message) for message in messages]

    async def stored(self, event_ids: set[str], within_s: float = 20 * SECOND) -> None:
        """Wait until the audit stream holds these events: of what was published twice it may hold one."""
        end = time.monotonic() + within_s
        most = len({event.event_id for event in self.events.seen})
        while missing := event_ids - {Seen(m.body, m).event_id for m in await self.broker.read_stream(AUDIT, most)}:
            assert time.monotonic() < end, f"{len(missing)} of {len(event_ids)} finals are not in the audit stream"
            most += len(missing)

    # -- the books

    @property
    def _books(self) -> VenueBooks:
        assert self.books is not None
        return self.books

    def finals_by_cancel(self) -> dict[CancelKey, list[Seen]]:
        found: dict[CancelKey, list[Seen]] = defaultdict(list)
        for event in self.events.finals():
            found[event.key].append(event)
        return dict(found)

    async def end_all(self) -> None:
        """SIGTERM to every worker; each ends with 0, and nothing that it held comes back to a queue."""
        for worker in self.workers:
            if worker.running:
                assert await worker.terminate() == 0, worker.log_tail()
        assert await self.broker.depth(COMMANDS) == 0
        assert await self.broker.depth(KILL) == 0

    def check_finals(self, *, once: bool) -> dict[CancelKey, Seen]:
        """Every published cancel has one final by id, and repeats tell the same; ``once``: there is no repeat.

        ``may_differ``: by outcome, which fields of a repeat are let pass.
        Returns the finals; a final that supersedes an ``unresolved`` stands for both.
        """
        chosen: dict[CancelKey, Seen] = {}
        by_cancel = self.finals_by_cancel()
        for key, events in by_cancel.items():
            ids = {event.event_id: event for event in events}
            unresolved = [event for event in ids.values() if event.outcome == "unresolved"]
            others = [event for event in ids.values() if event.outcome != "unresolved"]
            assert len(unresolved) <= 1 and len(others) <= 1, f"{key}: {[e.body for e in ids.values()]}"
            chosen[key] = (others or unresolved)[0]
            if once:
                assert len(events) == len(ids), f"{key}: {[e.raw for e in events]}"
            for event in events:
                first = ids[event.event_id]
                for field in {"outcome", "order_live", "order", "report"} - self.may_differ.get(event.outcome, set()):
                    assert event.body[field] == first.body[field], f"{key} {field}: {event.body} / {first.body}"
        wanted = {
            (command_id, index)
            for command_id, count in self.published.items()
            for index in range(count)
            if (command_id, -1) not in chosen
        }
        assert not wanted - set(chosen), f"no final: {list(wanted - set(chosen))[:5]}"
        return chosen

    def check_truth(self) -> None:
        """No final says of an order what the venue would not say of it now."""
        truth = self._books.truth()
        for key, event in self.check_finals(once=False).items():
            order_id = event.body["order_id"]
            if order_id not in truth:
                assert event.outcome in ("unknown_order", "invalid", "unauthorized", "deadline_passed"), event.body
                continue
            stands = truth[order_id]
            if event.outcome == "canceled":
                assert stands.status == "Canceled", (key, stands)
                ours = {seen.cl_ord_id for seen in self._books.sends_of(order_id)}
                assert stands.canceled_by in ours, (key, stands)
            elif event.outcome == "already_closed":
                assert _is_closed(stands), (key, stands)
            if event.body["order_live"] is True:
                assert not _is_closed(stands), (key, stands)
            elif event.body["order_live"] is False:
                assert _is_closed(stands), (key, stands)

    def check_no_blind_resend(self, but: Container[str] = ()) -> int:
        """Between two sends on one order the venue was asked for it, or for all, and at a time when it was open.

        A list of all orders read shortly before the first serves as well, together with the reports since then.
        Returns the count of resends.
        """
        asked: dict[str, list[tuple[int, str | None]]] = {"Order": [], "ExecutionReport": []}
        for frame in self._books.received:
            for stream in frame.message["streams"] if frame.type == "subscribe" else ():
                asked[stream["name"]].append((frame.utc_us, stream.get("OrderID")))

        def when(stream: str, order_id: str, since_us: int, until_us: int) -> list[int]:
            return [us for us, one in asked[stream] if since_us < us < until_us and one in (order_id, None)]

        by_order: dict[str, list[CancelSeen]] = defaultdict(list)
        for seen in self._books.cancels:
            by_order[seen.order_id or seen.orig_cl_ord_id or ""].append(seen)
        resent = 0
        for order_id, sends in by_order.items():
            if order_id in but:
                continue
            ended_us = self._books.ended_us(order_id)
            for earlier, later in itertools.pairwise(sends):
                resent += 1
                between = when("Order", order_id, earlier.utc_us, later.utc_us)
                if not between and when("Order", "", earlier.utc_us - LIST_SERVES_US, earlier.utc_us):
                    between = when("ExecutionReport", order_id, earlier.utc_us, later.utc_us)
                assert between, f"{order_id} was sent again without a look-up: {sends}"
                assert ended_us is None or between[0] <= ended_us, f"{order_id} was done and was sent again: {sends}"
        return resent

    def sends(self) -> Counter[str]:
        """How often each order was named in a cancel."""
        return Counter(seen.order_id or seen.orig_cl_ord_id or "" for seen in self._books.cancels)

    # -- life

    async def close(self) -> None:
        for worker in self.workers:
            if worker._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.send_signal(signal.SIGCONT)
                    worker.process.kill()
                worker.process.wait()
        await self.events.stop()
        await self._stack.aclose()
        for worker in self.workers:
            print(f"---- {worker.log_path.name}\n{worker.log_tail()}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


def cancel_of(order_id: str | None = None, **fields: object) -> dict[str, object]:
    """One item of ``data`` with a ClOrdID of its own; a field given as ... is left out."""
    item: dict[str, object] = {"Symbol": "BTC-USD", "ClOrdID": str(uuid.uuid4()), **fields}
    if order_id is not None:
        item["OrderID"] = order_id
    return {name: value for name, value in item.items() if value is not ...}


def _is_closed(truth: Truth) -> bool:
    """A full order reads PendingCancel until the cancel is refused (FIX precedence)."""
    return not truth.open or Decimal(truth.leaves_qty) == 0


async def gather_some(calls: Sequence[Callable[[], Any]], at_once: int = 50) -> list[Any]:
    """Run the calls, so many at a time; their results in order."""
    results: list[Any] = []
    for start in range(0, len(calls), at_once):
        results += await asyncio.gather(*(call() for call in calls[start : start + at_once]))
    return results


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(f'"{each}"' if isinstance(each, str) else str(each) for each in value) + "]"
    return str(value)


__all__ = [
    "AUDIT",
    "COMMANDS",
    "DEAD",
    "KEY",
    "KILL",
    "RESULTS",
    "SCALE",
    "SECRET",
    "Events",
    "HeadersType",
    "Seen",
    "Stage",
    "Worker",
    "cancel_of",
    "gather_some",
]
