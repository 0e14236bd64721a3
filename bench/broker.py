"""A private RabbitMQ node; every run gets a vhost of its own with the worker's topology and a queue for the results."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aio_pika
import aiohttp
from aio_pika.abc import AbstractChannel

from worker.app import make_dial
from worker.broker import topology
from worker.config import load
from worker.demo.node import PrivateNode

COMMANDS, KILL, RESULTS = "cancel.commands", "cancel.kill", "bench.results"

POLL_S = 0.03

_vhosts = itertools.count(1)


class Place:
    """One vhost: the topology of contract section 1, and ``bench.results``, a quorum queue bound to all events."""

    def __init__(self, url: str, channel: AbstractChannel, node: PrivateNode) -> None:
        self.url = url
        self.node = node
        self._channel = channel

    @property
    def broker_pid(self) -> int:
        pid = self.node.pid
        assert pid is not None, "the node has died"
        return pid

    async def messages(self, queue: str) -> int:
        """Messages that wait in a queue."""
        return (await self._ask(queue))[0]

    async def consumers(self, queue: str) -> int:
        return (await self._ask(queue))[1]

    async def _ask(self, queue: str) -> tuple[int, int]:
        declared = (await self._channel.declare_queue(queue, passive=True)).declaration_result
        return declared.message_count or 0, declared.consumer_count or 0

    async def until_messages(self, queue: str, count: int, within_s: float = 300.0) -> int:
        """Wait until so many messages wait in a queue, or the time is up; how many there are then."""
        end = time.monotonic() + within_s
        while (found := await self.messages(queue)) < count and time.monotonic() < end:
            await asyncio.sleep(POLL_S)
        return found

    async def until_consumed(self, *queues: str, within_s: float = 20.0) -> None:
        """Wait until each queue has a consumer."""
        end = time.monotonic() + within_s
        for queue in queues:
            while not await self.consumers(queue):
                if time.monotonic() > end:
                    raise TimeoutError(f"nobody consumes {queue}")
                await asyncio.sleep(POLL_S)


@asynccontextmanager
async def new_place(node: PrivateNode) -> AsyncIterator[Place]:
    """A fresh vhost of a running node, deleted at the end."""
    vhost = f"bench-{next(_vhosts)}"
    parts = urlsplit(node.url)
    url = f"amqp://{parts.username}:{parts.password}@127.0.0.1:{parts.port}/{vhost}"
    async with aiohttp.ClientSession(raise_for_status=True) as http:
        await http.put(f"{node.management_url}/api/vhosts/{vhost}")
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        await http.put(f"{node.management_url}/api/permissions/{vhost}/{parts.username}", json=everything)
        try:
            config = load([], {"CANCEL_WORKER__BROKER__URL": url})
            await topology.declare(make_dial(config, "bench"), config.broker)
            async with await aio_pika.connect(url) as connection:
                channel = await connection.channel()
                results = await channel.declare_queue(RESULTS, durable=True, arguments={"x-queue-type": "quorum"})
                await results.bind(config.broker.results_exchange, "#")
                yield Place(url, channel, node)
        finally:
            await http.delete(f"{node.management_url}/api/vhosts/{vhost}")


async def until(condition: Callable[[], bool], within_s: float, step_s: float = 0.005) -> bool:
    """Wait for a condition that costs no system call; whether it came true."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(step_s)
    return True
