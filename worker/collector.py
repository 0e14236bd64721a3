"""Python's garbage collector by the clock, so that it never has much to look at.

What a cancel leaves behind dies by reference count (worker/core/command.py); the collector is for the rest, such as
errors with their tracebacks. Left alone it starts when objects made outnumber objects freed by a threshold: not while
as many come as go, and then it looks at all that is in flight at once, some 25 ms with 50,000 cancels.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Final

EVERY_S: Final = 0.05
"""How often what was made since the last time is looked at."""

ALL_EVERY_S: Final = 60.0
"""How often, at the most, everything is looked at."""

AT_ONCE: Final = 10_000
"""Objects made in one turn of the loop after which what is new is looked at without waiting for the clock."""

NEVER: Final = 1_000_000

FEW: Final = 1_000
"""Commands in hand beyond which not everything is looked at: it would be a pause."""


async def collect_garbage(
    in_hand: Callable[[], int], every_s: float = EVERY_S, all_every_s: float = ALL_EVERY_S
) -> None:
    """Collect until cancelled. ``in_hand``: how many commands are held. What is there already is never looked at."""
    loop = asyncio.get_running_loop()
    gc.collect()
    gc.freeze()
    thresholds = gc.get_threshold()
    gc.set_threshold(AT_ONCE, NEVER, NEVER)
    try:
        due = loop.time() + all_every_s
        while True:
            await asyncio.sleep(every_s)
            if loop.time() >= due and in_hand() < FEW:
                due = loop.time() + all_every_s
                gc.collect()
            else:
                gc.collect(0)
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
