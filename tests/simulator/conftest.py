"""Fixtures: a venue of a script, closed with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.simulator.client import KEY, SECRET
from worker.simulator import Script, Simulator

Open = Callable[..., Awaitable[Simulator]]


@pytest.fixture
async def open_venue() -> AsyncIterator[Open]:
    """open_venue(streams=Streams(...), ...) starts a venue with that script."""
    async with AsyncExitStack() as stack:

        async def start(**script: Any) -> Simulator:
            return await stack.enter_async_context(Simulator(Script(**script), key=KEY, secret=SECRET))

        yield start
