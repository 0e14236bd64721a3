"""A RabbitMQ cluster on this machine, made of private nodes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

from worker.demo.node import PrivateNode


@contextlib.asynccontextmanager
async def private_cluster(
    size: int = 3, settings: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[PrivateNode, ...]]:
    """Start ``size`` nodes that form one cluster (some ten seconds for three); all of them are gone afterwards.

    The first node owns the cluster's epmd: kill or stop it like any other, but leave ``close`` to this function.
    Raises NodeError as ``PrivateNode.start`` does.
    """
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(PrivateNode(name="r1", settings=settings))
        others = [PrivateNode(name=f"r{n}", peer=first, settings=settings) for n in range(2, size + 1)]
        for node in others:
            stack.push_async_callback(node.close)
        async with asyncio.TaskGroup() as starting:
            for node in others:
                starting.create_task(node.start(within_s=90.0))
        yield (first, *others)
