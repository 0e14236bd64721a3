"""The garbage collector by the clock: what is new is looked at all the time, what is old when little is in hand."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from worker.collector import AT_ONCE, FEW, collect_garbage


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


async def test_what_one_turn_makes_is_looked_at_a_part_at_a_time() -> None:
    found: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            found.append(info["generation"])

    with collecting(lambda: FEW):
        await asyncio.sleep(0.05)
        gc.callbacks.append(note)
        try:
            made: list[list[int]] = [[] for _ in range(5 * AT_ONCE)]
        finally:
            gc.callbacks.remove(note)
    assert len(made) == 5 * AT_ONCE
    assert 4 <= len(found) <= 6
    assert set(found) == {0}


async def test_the_collector_is_left_as_it_was() -> None:
    before = gc.get_threshold()
    with collecting(lambda: 0):
        await asyncio.sleep(0.05)
        assert gc.get_threshold() != before
        assert gc.get_freeze_count() > 0
    await asyncio.sleep(0)
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
