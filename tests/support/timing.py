"""One unit for every time-out of the tests, and waiting for conditions instead of sleeping."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, overload

T = TypeVar("T")

SECOND: Final = float(os.environ.get("CANCEL_WORKER_TEST_SECOND", "1"))
"""What tests call a second. A slow machine sets CANCEL_WORKER_TEST_SECOND=3, and time-outs are three times longer."""


@overload
async def eventually(condition: Callable[[], Awaitable[T]], within_s: float = ..., every_s: float = ...) -> T: ...
@overload
async def eventually(condition: Callable[[], T], within_s: float = ..., every_s: float = ...) -> T: ...
async def eventually(
    condition: Callable[[], Awaitable[T]] | Callable[[], T], within_s: float = 5 * SECOND, every_s: float = 0.02
) -> T:
    """Ask until the answer is true, and return it. AssertionError with the last answer after ``within_s`` seconds."""
    end = time.monotonic() + within_s
    while True:
        answer = condition()
        value: T = await answer if isinstance(answer, Awaitable) else answer
        if value:
            return value
        if time.monotonic() >= end:
            raise AssertionError(
                f"not within {within_s:g} s: {getattr(condition, '__name__', condition)} gave {value!r}"
            )
        await asyncio.sleep(every_s)
