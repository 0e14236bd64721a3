"""Where the demo's commands and events live: a private RabbitMQ node, or names of its own on a server that is given."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final

from msgspec import Struct

from worker.app import make_dial
from worker.broker.driver import connection, limited
from worker.broker.topology import topology_of
from worker.config import Config, load, mask_url
from worker.demo.node import PrivateNode
from worker.errors import BrokerError

GIVEN_VARIABLE: Final = "CANCEL_WORKER_TEST_BROKER"
"""Environment variable: the AMQP URL of a server to use instead of a private node."""

_NAMES: Final = (
    "commands_exchange",
    "commands_queue",
    "kill_queue",
    "dead_exchange",
    "dead_queue",
    "results_exchange",
    "audit_queue",
)


class Place(Struct, frozen=True):
    """``settings``: variables of the environment that lead a worker there. ``where``: for people, without password."""

    settings: dict[str, str]
    where: str


@asynccontextmanager
async def place(environment: Mapping[str, str] = os.environ) -> AsyncIterator[Place]:
    """A place that nobody else uses; nothing of it is left afterwards.

    Raises NodeMissingError if there is no RabbitMQ on this machine, NodeError if it does not start, BrokerError if a
    given server cannot be cleaned up.
    """
    given = environment.get(GIVEN_VARIABLE)
    if not given:
        async with PrivateNode() as node:
            yield Place({_variable("url"): node.url}, f"a private RabbitMQ node in {node.directory}")
        return
    prefix = f"demo-{secrets.token_hex(4)}."
    config = load((), {_variable("url"): given})
    settings = {_variable(name): prefix + getattr(config.broker, name) for name in _NAMES}
    settings[_variable("url")] = given
    try:
        yield Place(settings, f"{mask_url(given)}, under names that begin with {prefix}")
    finally:
        await _clear(load((), settings))


def _variable(key: str) -> str:
    return f"CANCEL_WORKER__BROKER__{key.upper()}"


async def _clear(config: Config) -> None:
    """Delete every object of the topology, whether it is there or not (RabbitMQ says ok to both)."""
    dial = make_dial(config, "cancel-worker demo")
    topology = topology_of(config.broker)
    async with connection(dial, "clean up") as link:
        for delete in ("queue", "exchange"):
            names = [one.name for one in (topology.queues if delete == "queue" else topology.exchanges)]
            for name in names:
                # A refused deletion costs its channel, and must not keep the others from being deleted.
                with suppress(BrokerError):
                    async with limited(f"{delete} {name}", dial.rpc_timeout_s):
                        channel = await link.channel()
                        if delete == "queue":
                            await channel.queue_delete(name)
                        else:
                            await channel.exchange_delete(name)
                        await channel.close()
