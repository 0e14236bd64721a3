"""A RabbitMQ as a test sees it: a vhost (or a name prefix) of its own, and the few things tests do with a broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Self
from urllib.parse import quote, urlsplit, urlunsplit

import aio_pika
import aiohttp
from aio_pika.abc import (
    AbstractChannel,
    AbstractConnection,
    AbstractExchange,
    AbstractIncomingMessage,
    AbstractQueue,
    HeadersType,
)
from yarl import URL

from tests.support.timing import SECOND, eventually
from worker.demo.node import PrivateNode

RPC_S = 10 * SECOND


class Broker:
    """One test's part of a RabbitMQ. Made by the fixture ``broker``, or with ``Broker.on(node)`` around a private node.

    ``url``: AMQP URL with user, password and vhost. ``management``: HTTP API with user and password, None if there is
    none. ``node``: the private node, None if the server was given from outside. ``name(n)``: what to call an object so
    that it is this test's alone; in a vhost of one's own that is ``n`` itself.
    """

    def __init__(
        self, url: str, management: str | None, node: PrivateNode | None, vhost: str, prefix: str = ""
    ) -> None:
        self.url = url
        self.management = management
        self.node = node
        self.vhost = vhost
        self.prefix = prefix
        self._connection: AbstractConnection | None = None
        self._channel: AbstractChannel | None = None
        self._declared: list[tuple[str, str]] = []

    @classmethod
    def on(cls, node: PrivateNode) -> Broker:
        """The default vhost of a node that nobody else uses."""
        return cls(node.url, node.management_url, node, "/")

    @classmethod
    async def with_own_vhost(cls, url: str, management: str, node: PrivateNode | None) -> Broker:
        """Make a vhost that ``close`` deletes, and with it every connection to it."""
        vhost = f"test-{uuid.uuid4().hex[:12]}"
        broker = cls(_with_vhost(url, vhost), management, node, vhost)
        await broker.api("PUT", f"vhosts/{vhost}")
        user = quote(urlsplit(url).username or "guest", safe="")
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        await broker.api("PUT", f"permissions/{vhost}/{user}", everything)
        broker._declared.append(("vhost", vhost))
        return broker

    @classmethod
    def with_prefix(cls, url: str) -> Broker:
        """On a server without management API: the URL's own vhost, shared, with a prefix before each object's name."""
        vhost = urlsplit(url).path.removeprefix("/") or "/"
        return cls(url, None, None, vhost, prefix=f"test-{uuid.uuid4().hex[:12]}.")

    def name(self, name: str) -> str:
        return self.prefix + name

    async def api(self, method: str, path: str, body: object = None) -> object:
        """A request to the management API; ``path`` follows ``/api/``; returns the answer's JSON, or None."""
        assert self.management is not None, "this broker has no management API"
        address = URL(f"{self.management}/api/{path}", encoded=True)
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=RPC_S)) as session,
            session.request(method, address, json=body) as response,
        ):
            text = await response.text()
            assert response.status < 300, f"{method} /api/{path}: {response.status} {text[:200]}"
            answer: object = json.loads(text) if text else None
            return answer

    async def channel(self) -> AbstractChannel:
        """An open channel of this helper's own connection, with confirms; a new one where the last was closed."""
        if self._connection is None or not self._connection.connected.is_set():  # is_closed means only: closed by us
            self._connection = await aio_pika.connect(self.url, timeout=RPC_S)
            self._channel = None
        if self._channel is None or self._channel.is_closed:
            self._channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
        return self._channel

    async def declare_exchange(self, exchange: str, kind: str = "direct") -> AbstractExchange:
        """A durable AMQP exchange, deleted after the test."""
        channel = await self.channel()
        declared = await channel.declare_exchange(exchange, aio_pika.ExchangeType(kind), durable=True, timeout=RPC_S)
        self._declared.append(("exchange", exchange))
        return declared

    async def declare_queue(
        self,
        queue: str,
        *,
        kind: str = "quorum",
        arguments: Mapping[str, object] | None = None,
        bind: Iterable[tuple[str, str]] = (),
    ) -> AbstractQueue:
        """A durable queue, deleted after the test; ``bind`` holds pairs of AMQP exchange and routing key."""
        channel = await self.channel()
        everything: dict[str, object] = {"x-queue-type": kind, **(arguments or {})}
        declared = await channel.declare_queue(queue, durable=True, arguments=everything, timeout=RPC_S)  # type: ignore[arg-type]
        self._declared.append(("queue", queue))
        for exchange, key in bind:
            await declared.bind(exchange, key, timeout=RPC_S)
        return declared

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        headers: HeadersType | None = None,
        content_type: str | None = "application/json",
        message_id: str | None = None,
        correlation_id: str | None = None,
        reply_to: str | None = None,
        user_id: str | None = None,
        app_id: str | None = None,
        timestamp_s: int | None = None,
        mandatory: bool = True,
    ) -> None:
        """Publish one persistent message and wait for its confirm.

        Raises aio_pika's DeliveryError (nack) or PublishError (returned as unroutable).
        """
        channel = await self.channel()
        target = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
        message = aio_pika.Message(
            body,
            headers=headers,
            content_type=content_type,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
            message_id=message_id,
            correlation_id=correlation_id,
            reply_to=reply_to,
            user_id=user_id,
            app_id=app_id,
            timestamp=timestamp_s,
        )
        async with asyncio.timeout(RPC_S):
            await target.publish(message, routing_key, mandatory=mandatory)

    async def get(self, queue: str) -> AbstractIncomingMessage | None:
        """Take and ack the message at the head of a queue, None if it is empty. Not for streams."""
        channel = await self.channel()
        source = await channel.get_queue(queue, ensure=False)
        message = await source.get(fail=False, timeout=RPC_S)
        if message is not None:
            await message.ack()
        return message

    async def take(self, queue: str, count: int, within_s: float = 10 * SECOND) -> list[AbstractIncomingMessage]:
        """Wait for ``count`` messages, take and ack them. Raises AssertionError if fewer come in time."""
        taken: list[AbstractIncomingMessage] = []

        async def enough() -> bool:
            while len(taken) < count and (message := await self.get(queue)) is not None:
                taken.append(message)
            return len(taken) == count

        try:
            await eventually(enough, within_s)
        except AssertionError:
            raise AssertionError(f"{len(taken)} of {count} messages came to {queue} within {within_s:g} s") from None
        return taken

    async def drain(self, queue: str) -> list[AbstractIncomingMessage]:
        """Take and ack all that is in a queue now."""
        drained = []
        while (message := await self.get(queue)) is not None:
            drained.append(message)
        return drained

    async def read_stream(
        self, queue: str, count: int, within_s: float = 10 * SECOND, offset: str = "first"
    ) -> list[AbstractIncomingMessage]:
        """Wait for the first ``count`` messages of a stream from ``offset`` on; they stay in it."""
        read: list[AbstractIncomingMessage] = []
        channel = await self.channel()
        source = await channel.get_queue(queue, ensure=False)
        await channel.set_qos(prefetch_count=100, timeout=RPC_S)

        async def note(message: AbstractIncomingMessage) -> None:
            read.append(message)
            await message.ack()

        tag = await source.consume(note, arguments={"x-stream-offset": offset}, timeout=RPC_S)
        try:
            await eventually(lambda: len(read) >= count, within_s)
        except AssertionError:
            raise AssertionError(f"{len(read)} of {count} messages are in {queue} after {within_s:g} s") from None
        finally:
            await source.cancel(tag, timeout=RPC_S)
        return read[:count]

    async def depth(self, queue: str) -> int:
        """Messages ready in a queue, as the broker counts them now (unacked ones are not in it)."""
        return (await self._look_at(queue))[0]

    async def consumers(self, queue: str) -> int:
        return (await self._look_at(queue))[1]

    async def exists(self, queue: str) -> bool:
        try:
            await self._look_at(queue)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False
        return True

    async def delete_queue(self, queue: str) -> None:
        channel = await self.channel()
        await channel.queue_delete(queue, timeout=RPC_S)

    async def delete_exchange(self, exchange: str) -> None:
        channel = await self.channel()
        await channel.exchange_delete(exchange, timeout=RPC_S)

    async def close_connections(self, reason: str = "closed by a test") -> None:
        """End every connection to this test's vhost, as an operator would (0.5 s). Needs a node of ours."""
        assert self.node is not None, "the broker was given from outside"
        await self.node.ctl("close_all_connections", "--vhost", self.vhost, reason)

    async def close(self) -> None:
        """Close the helper's connection and delete what it declared; a vhost of its own goes with all that is in it."""
        if self.prefix:
            for kind, name in reversed(self._declared):
                with contextlib.suppress(aio_pika.exceptions.AMQPError):
                    await (self.delete_queue(name) if kind == "queue" else self.delete_exchange(name))
        if self._connection is not None:
            await self._connection.close()
        if ("vhost", self.vhost) in self._declared:
            await self.api("DELETE", f"vhosts/{self.vhost}")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _look_at(self, queue: str) -> tuple[int, int]:
        """Ready messages and consumers, by a passive declare on a new channel: a cached queue object is stale."""
        _ = await self.channel()
        assert self._connection is not None
        async with await self._connection.channel(publisher_confirms=False) as channel:
            answer = (await channel.declare_queue(queue, passive=True, timeout=RPC_S)).declaration_result
            return answer.message_count or 0, answer.consumer_count or 0


def _with_vhost(url: str, vhost: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path="/" + quote(vhost, safe="")))
