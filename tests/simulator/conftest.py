"""Fixtures: a venue of a script, closed with the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

from tests.simulator.client import KEY, SECRET
from worker.simulator import Script, Simulator

Loops = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Loops:
    """Lines break on both loops: uvloop writes and closes sockets in its own way."""
    if item.path.name == "test_breaks.py":
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


Open = Callable[..., Awaitable[Simulator]]


@pytest.fixture
async def open_venue() -> AsyncIterator[Open]:
    """open_venue(streams=Streams(...), ...) starts a venue with that script."""
    async with AsyncExitStack() as stack:

        async def start(**script: Any) -> Simulator:
            return await stack.enter_async_context(Simulator(Script(**script), key=KEY, secret=SECRET))

        yield start
