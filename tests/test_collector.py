"""The garbage collector by the clock: what is new is looked at all the time, what is old when little is in hand."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from worker.collector import FEW, collect_garbage


class Knot:
    """Holds itself alive."""

    def __init__(self) -> None:
        self.itself = self


async def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> bool:
    end = asyncio.get_running_loop().time() + within_s
    while not condition() and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.01)
    return condition()


@contextmanager
def collecting(in_hand: Callable[[], int]) -> Iterator[None]:
    task = asyncio.create_task(collect_garbage(in_hand, every_s=0.01, all_every_s=0.02))
    try:
        yield
    finally:
        task.cancel()


def tied() -> weakref.ref[Knot]:
    return weakref.ref(Knot())


async def test_what_is_made_and_thrown_away_is_collected_soon() -> None:
    with collecting(lambda: FEW):
        await asyncio.sleep(0.05)
        knot = tied()
        assert await eventually(lambda: knot() is None)


async def test_what_is_old_is_collected_only_while_little_is_in_hand() -> None:
    in_hand = FEW
    with collecting(lambda: in_hand):
        await asyncio.sleep(0.05)
        held = Knot()
        knot = weakref.ref(held)
        await asyncio.sleep(0.05)
        del held
        await asyncio.sleep(0.2)
        assert knot() is not None, "everything was looked at: a pause"
        in_hand = FEW - 1
        assert await eventually(lambda: knot() is None)


async def test_nothing_is_collected_in_between_and_the_collector_is_left_as_it_was() -> None:
    assert gc.isenabled()
    with collecting(lambda: 0):
        await asyncio.sleep(0.05)
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
    await asyncio.sleep(0)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
