"""The composition root: builds every part from the configuration once, owns the tasks and the order of stopping."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from worker import __version__
from worker.broker import topology
from worker.broker.audit_stream import find_final
from worker.broker.consumer import Consumer
from worker.broker.dial import Dial, TlsFiles
from worker.broker.publisher import Publisher
from worker.collector import collect_garbage
from worker.config import Config, Secret, broker_urls, venue_credentials
from worker.core.engine import Engine
from worker.core.outbox import LANES
from worker.errors import BrokerError, CancelWorkerError
from worker.log import Log, configure, describe_exception, get_logger
from worker.ops.http import OpsServer
from worker.ops.metrics import Exposition, WorkerCollector
from worker.ops.status import LastErrors
from worker.ops.view import WorkerView
from worker.runner import Runner, system_clock
from worker.venue.pool import Pool
from worker.wire.command import Lane

CLOSE_WITHIN_S: Final = 2.0
"""Limit for each orderly close at the end (faults A18: a frozen broker is not waited for)."""

SEARCH_WITHIN_S: Final = 20.0
"""Limit of one look into the audit stream for a mass cancel's own final (contract section 5)."""


def run(config: Config) -> int:
    """Run one worker until SIGTERM or SIGINT. Returns the exit status; raises CancelWorkerError if it can't start."""
    import uvloop

    venue_credentials(config)
    broker_urls(config)
    log = configure(config.log.level, config.log.format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop_runner:
        return loop_runner.run(_supervise(config, log))


async def _supervise(config: Config, log: Log) -> int:
    loop = asyncio.get_running_loop()
    log.sink.attach(loop)
    stop = asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            log.sink.flush()
            os._exit(1)  # a second signal ends at once; nothing is acked by that (contract 4.7)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        return await serve(config, log, stop)
    except CancelWorkerError:
        raise
    except BaseExceptionGroup as group:
        told, bugs = group.split(CancelWorkerError)
        if told is not None and bugs is None:
            raise _first(told) from None
        get_logger().error("worker_failed", error=describe_exception(_first(bugs or group)))
        return 1
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        log.sink.detach()


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def worker_name() -> str:
    """The worker's name in events and on its connections: unique per process (contract section 3)."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def make_dial(config: Config, name: str) -> Dial:
    """How the broker is reached by this configuration; URLs are read anew at every attempt (contract section 6)."""
    broker = config.broker
    files = TlsFiles(*(Path(p) if p else None for p in (broker.ca_file, broker.cert_file, broker.key_file)))
    return Dial(
        lambda: broker_urls(config),
        name=name,
        tls=files,
        heartbeat_s=broker.heartbeat,
        connect_timeout_s=broker.connect_timeout,
        rpc_timeout_s=broker.rpc_timeout,
        reconnect_min_s=broker.reconnect_min,
        reconnect_max_s=broker.reconnect_max,
    )


class Worker:
    """All parts of one worker, put together."""

    def __init__(self, config: Config, log: Log) -> None:
        self.config = config
        self.name = worker_name()
        self.log = get_logger(worker=self.name)
        self.errors = LastErrors()
        self.engine = Engine(config, self.name, system_clock())
        self._finished = asyncio.Event()
        self._searches: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.runner = Runner(self.engine, self.log, asyncio.get_running_loop(), self)
        self.dial = make_dial(config, self.name)

        def credentials() -> tuple[Secret, Secret]:
            pair = venue_credentials(config)
            log.hide(*pair)
            return pair

        broker, prefetch = config.broker, {"kill": config.kill.prefetch, "cancel": config.broker.prefetch}
        queues: dict[Lane, str] = {"kill": broker.kill_queue, "cancel": broker.commands_queue}
        self.consumers = {lane: Consumer(lane, queues[lane], prefetch[lane], self.dial, self.runner) for lane in LANES}
        self.publishers = {
            lane: Publisher(
                lane,
                broker.results_exchange,
                self.dial,
                self.runner,
                self._prepare,
                config.results.confirm_timeout,
            )
            for lane in LANES
        }
        self.pool = Pool(config.venue, credentials, self.runner, random.Random())
        self.runner.attach({**self.consumers}, {**self.publishers}, self.pool)
        exposition = Exposition(
            WorkerCollector(
                self.engine.stats, __version__, os.environ.get("CANCEL_WORKER_COMMIT", ""), lambda: log.dropped
            )
        )
        self.view = WorkerView(
            self.engine,
            self.name,
            __version__,
            self.errors,
            exposition,
            {**self.consumers},
            {**self.publishers},
            self.pool,
            config.venue.sessions,
        )
        self.ops = OpsServer(config.ops.host, config.ops.port, self.view) if config.ops.port else None

    def trouble(self, source: str, reason: str) -> None:
        """Keep an error for the status page."""
        self.errors.add(time.time_ns() // 1000, source, reason)

    def stopped(self) -> None:
        """What was in flight has come to its end."""
        self._finished.set()

    def search_audit(self, command_id: str, event_id: str, since_us: int | None) -> None:
        """Look for an event in the audit stream, beside everything else."""
        task = asyncio.get_running_loop().create_task(self._search(command_id, event_id, since_us))
        self._searches.add(task)
        task.add_done_callback(self._searches.discard)

    async def _search(self, command_id: str, event_id: str, since_us: int | None) -> None:
        found: bool | None = None
        try:
            found = event_id in await find_final(self.dial, self.config.broker, {event_id}, since_us, SEARCH_WITHIN_S)
        except CancelWorkerError as error:
            self.trouble("broker", str(error))
            self.log.warning("audit_search_failed", command_id=command_id, reason=str(error))
        self.runner.audit_searched(command_id, found)

    def failed(self, error: Exception) -> None:
        """The engine raised: a bug, which ends the process."""
        if not self._failure.done():
            self._failure.set_exception(error)

    async def _prepare(self) -> None:
        """After every connect of a publisher nothing is published before the audit stream is there (faults A29)."""
        await topology.ensure_audit(self.dial, self.config.broker)

    async def _topology(self) -> None:
        """Declare or check the topology; waits for a broker that can't be reached, raises for one that disagrees."""
        retry = self.dial.retry()
        while True:
            try:
                if self.config.broker.declare:
                    await topology.declare(self.dial, self.config.broker)
                else:
                    await topology.check(self.dial, self.config.broker)
            except BrokerError as error:
                self.view.topology_problem = str(error)
                self.trouble("broker", str(error))
                self.log.warning("broker_unreachable", reason=str(error))
                await asyncio.sleep(retry.delay_after(error, 0.0))
            else:
                self.view.topology_problem = None
                return

    async def serve(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set and what is in flight has come to its end, or ``shutdown.grace`` is used up."""
        async with asyncio.TaskGroup() as tasks:
            background: list[asyncio.Task[None]] = []

            def begin(part: Coroutine[Any, Any, None], name: str) -> None:
                background.append(tasks.create_task(_until_told(part, name, stop), name=name))

            if self.ops is not None:
                await self.ops.start()
            self.runner.start()
            begin(_raise_from(self._failure), "clock")
            begin(self.pool.run(), "venue sessions")
            ready = tasks.create_task(self._start_links(begin), name="topology")
            self.log.info("worker_started", version=__version__, venue=self.config.venue.url)
            await stop.wait()
            ready.cancel()
            await self._stop()
            for task in background:
                task.cancel()

    async def _start_links(self, begin: Callable[[Coroutine[Any, Any, None], str], None]) -> None:
        await self._topology()
        begin(collect_garbage(lambda: len(self.engine.intake.commands)), "garbage collection")
        for lane in LANES:
            begin(self.publishers[lane].run(), f"publish {lane}")
            begin(self.consumers[lane].run(), f"consume {lane}")

    async def _stop(self) -> None:
        """Consumers first, the links to the broker last: heartbeats must outlive the last ack."""
        self.log.info("worker_stopping", grace_s=self.config.shutdown.grace)
        self.runner.stop()
        try:
            async with asyncio.timeout(self.config.shutdown.grace):
                await self._finished.wait()
        except TimeoutError:
            self.runner.grace_over()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_WITHIN_S):  # for the confirms of suspects' finals, if there are any
                    await self._finished.wait()
        self.runner.close()
        await _quietly(self.pool.close())
        for search in list(self._searches):
            search.cancel()
        for lane in LANES:
            await _quietly(self.consumers[lane].close(CLOSE_WITHIN_S))
        for lane in LANES:
            await _quietly(self.publishers[lane].close(CLOSE_WITHIN_S))
        if self.ops is not None:
            await _quietly(self.ops.close())
        self.log.info("worker_stopped", finals=sum(self.engine.stats.finals.values()))


async def serve(config: Config, log: Log, stop: asyncio.Event) -> int:
    """Run one worker in this loop until ``stop`` is set. Raises ``CancelWorkerError``, alone or in a group."""
    await Worker(config, log).serve(stop)
    return 0


async def _raise_from(future: asyncio.Future[None]) -> None:
    await future


async def _until_told(part: Coroutine[Any, Any, None], name: str, stop: asyncio.Event) -> None:
    """Run a part; one that ends without being told to ends the process (faults I8)."""
    await part
    if not stop.is_set():
        raise RuntimeError(f"{name} ended without being told to")


async def _quietly(closing: Coroutine[Any, Any, None]) -> None:
    """Close within a limit and go on whatever happens: the next part has to be closed too."""
    try:
        async with asyncio.timeout(CLOSE_WITHIN_S + 1.0):
            await closing
    except (TimeoutError, OSError, CancelWorkerError) as error:
        get_logger().warning("close_failed", error=describe_exception(error))
