"""Long-running commands of the command line: their end by a signal, and JSON lines."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any


async def until_told(work: Coroutine[Any, Any, None]) -> bool:
    """Run ``work``. True if it ended by itself; False if SIGINT or SIGTERM ended it, which is in order here."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    told = False

    def end() -> None:
        nonlocal told
        told = True
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    try:
        await task
    except asyncio.CancelledError:
        if not told:
            raise
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    return not told


def write_json(body: bytes) -> None:
    """An event on one line of standard output, as it was published: a newline can only stand between tokens."""
    sys.stdout.write(body.decode("utf-8", "replace").replace("\n", " ") + "\n")
    sys.stdout.flush()
