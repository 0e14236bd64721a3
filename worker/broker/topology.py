"""The AMQP objects of contract section 1: what they are, declaring them, checking that they are there."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import Any, Final, Literal, TypeAlias

from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelNotFoundEntity, ChannelPreconditionFailed
from aiormq.exceptions import ChannelLockedResource
from msgspec import Struct

from worker.broker.dial import Dial
from worker.broker.driver import connection, limited
from worker.config import Broker
from worker.errors import BrokerError, TopologyError

ExchangeType: TypeAlias = Literal["direct", "fanout", "topic"]
Arguments: TypeAlias = dict[str, str | int]

# inequivalent arg 'x-overflow' for queue 'q' in vhost '/': received 'drop-head' but current is 'reject-publish'
# ... received none but current is the value '100000' of type 'signedint'
_INEQUIVALENT: Final = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)' for (?P<kind>exchange|queue) '.*?' in vhost '.*?': "
    r"received (?P<wanted>.*) but current is (?P<found>.*)\Z",
    re.DOTALL,
)
_QUOTED: Final = re.compile(r"'(.*?)'", re.DOTALL)


class Exchange(Struct, frozen=True):
    """A durable AMQP exchange."""

    name: str
    type: ExchangeType


class Queue(Struct, frozen=True):
    """A durable queue."""

    name: str
    arguments: Arguments


class Binding(Struct, frozen=True):
    """From an AMQP exchange to a queue; ``routing_key`` is empty for a fanout."""

    exchange: str
    queue: str
    routing_key: str


class Topology(Struct, frozen=True):
    """All objects, in the order in which they can be declared: AMQP exchanges, queues, bindings."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]


def topology_of(broker: Broker) -> Topology:
    """The topology of contract section 1 under the names and arguments that are configured."""
    lane: Arguments = {
        "x-queue-type": "quorum",
        "x-dead-letter-exchange": broker.dead_exchange,
        "x-dead-letter-strategy": broker.dead_letter_strategy,
        "x-overflow": broker.overflow,
        "x-delivery-limit": broker.delivery_limit,
    }
    return Topology(
        (
            Exchange(broker.commands_exchange, "direct"),
            Exchange(broker.dead_exchange, "fanout"),
            Exchange(broker.results_exchange, "topic"),
        ),
        (
            Queue(broker.dead_queue, {"x-queue-type": "quorum", "x-delivery-limit": broker.dead_delivery_limit}),
            Queue(broker.commands_queue, lane),
            Queue(broker.kill_queue, lane),
            _audit_queue(broker),
        ),
        (
            Binding(broker.dead_exchange, broker.dead_queue, ""),
            Binding(broker.commands_exchange, broker.commands_queue, broker.cancel_key),
            Binding(broker.commands_exchange, broker.kill_queue, broker.kill_key),
            _audit_binding(broker),
        ),
    )


def _audit_queue(broker: Broker) -> Queue:
    return Queue(
        broker.audit_queue,
        {
            "x-queue-type": "stream",
            "x-max-age": broker.audit_max_age,
            "x-max-length-bytes": broker.audit_max_length_bytes,
            "x-stream-max-segment-size-bytes": broker.audit_segment_bytes,
        },
    )


def _audit_binding(broker: Broker) -> Binding:
    return Binding(broker.results_exchange, broker.audit_queue, broker.audit_key)


async def declare(dial: Dial, broker: Broker) -> None:
    """Declare and bind everything; objects that are there already are left alone.

    Raises TopologyError for the first that is there with another type or argument, naming both values, BrokerError if
    the broker can't be reached or refuses.
    """
    topology = topology_of(broker)
    async with connection(dial, "topology") as link:
        async with limited("channel.open", dial.rpc_timeout_s):
            channel = await link.channel()
        for exchange in topology.exchanges:
            await _declare_exchange(channel, exchange, dial.rpc_timeout_s)
        for queue in topology.queues:
            await _declare_queue(channel, queue, dial.rpc_timeout_s)
        for binding in topology.bindings:
            await _bind(channel, binding, dial.rpc_timeout_s)


async def check(dial: Dial, broker: Broker) -> None:
    """Check that every exchange and queue exists, changing nothing; the broker tells no arguments and no bindings so.

    Raises TopologyError for the first that is missing, BrokerError if the broker can't be reached or refuses.
    """
    topology = topology_of(broker)
    async with connection(dial, "topology") as link:
        async with limited("channel.open", dial.rpc_timeout_s):
            channel = await link.channel()
        for exchange in topology.exchanges:
            await _find_exchange(channel, exchange.name, dial.rpc_timeout_s)
        for queue in topology.queues:
            await _find_queue(channel, queue.name, dial.rpc_timeout_s)


async def ensure_audit(dial: Dial, broker: Broker) -> None:
    """See that the audit stream is there and, if ``broker.declare``, bound: before anything is published (faults A29).

    Raises TopologyError if it is missing or other than configured, BrokerError as ``declare``.
    """
    async with connection(dial, "topology") as link:
        async with limited("channel.open", dial.rpc_timeout_s):
            channel = await link.channel()
        if broker.declare:
            await _declare_exchange(channel, Exchange(broker.results_exchange, "topic"), dial.rpc_timeout_s)
            await _declare_queue(channel, _audit_queue(broker), dial.rpc_timeout_s)
            await _bind(channel, _audit_binding(broker), dial.rpc_timeout_s)
        else:
            await _find_queue(channel, broker.audit_queue, dial.rpc_timeout_s)


async def _declare_exchange(channel: AbstractChannel, exchange: Exchange, within: float) -> None:
    call = channel.declare_exchange(exchange.name, exchange.type, durable=True)
    await _asked(f"exchange {exchange.name}", call, within)


async def _declare_queue(channel: AbstractChannel, queue: Queue, within: float) -> None:
    call = channel.declare_queue(queue.name, durable=True, arguments=dict(queue.arguments))
    await _asked(f"queue {queue.name}", call, within)


async def _bind(channel: AbstractChannel, binding: Binding, within: float) -> None:
    # The driver binds through a queue object; this one asks the broker for nothing.
    queue = await channel.get_queue(binding.queue, ensure=False)
    call = queue.bind(binding.exchange, binding.routing_key)
    await _asked(f"binding of queue {binding.queue} to exchange {binding.exchange}", call, within)


async def _find_exchange(channel: AbstractChannel, name: str, within: float) -> None:
    await _asked(f"exchange {name}", channel.declare_exchange(name, passive=True), within)


async def _find_queue(channel: AbstractChannel, name: str, within: float) -> None:
    await _asked(f"queue {name}", channel.declare_queue(name, passive=True), within)


async def _asked(object: str, call: Awaitable[Any], within: float) -> None:
    async with limited(object, within):
        try:
            await call
        except ChannelNotFoundEntity as error:
            raise absence(object, str(error)) from None
        except ChannelPreconditionFailed as error:
            raise mismatch(object, str(error)) from None
        except ChannelLockedResource as error:
            raise TopologyError(object, "exclusive", "false", "true", detail=str(error)) from None


def absence(object: str, text: str) -> TopologyError | BrokerError:
    """A NOT_FOUND: the object is missing, or only its node is not back yet: no reason to give up (faults A29)."""
    if "down or inaccessible" in text:
        return BrokerError(f"{object} is not there yet ({text})")
    return TopologyError(object, detail=text)


def mismatch(object: str, text: str) -> TopologyError:
    """What the broker says in a PRECONDITION_FAILED, taken apart: the argument, our value and its own."""
    found = _INEQUIVALENT.search(text)
    if found is None:
        return TopologyError(object, "declaration", "accepted", "refused it", detail=text)
    return TopologyError(object, found["argument"], _value(found["wanted"]), _value(found["found"]))


def _value(text: str) -> str | int | None:
    """``none``, ``'a'`` or ``the value 'a' of type 'b'``."""
    quoted = _QUOTED.search(text)
    if quoted is None:
        return None
    value = quoted[1]
    return int(value) if value.isascii() and value.isdecimal() else value
