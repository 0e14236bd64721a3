"""What has ended is freed by counting references alone: no garbage collector ever looks at it."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from tests.core.driver import Driver
from tests.core.payloads import item
from worker.core.reconcile import Inquiry, Query
from worker.core.session import SessionState, Subscription

KEPT = 10
"""Ended cancels that the engine remembers."""


@pytest.fixture(autouse=True)
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _canceled(driver: Driver, n: int) -> None:
    driver.deliver(item(n), id=f"cmd-{n}")
    driver.report("PendingCancel", ClOrdID=f"y-{n}", OrderID=f"order-{n}")
    driver.report("Canceled", ClOrdID=f"y-{n}", OrderID=f"order-{n}")
    driver.confirm()


def _refused(driver: Driver, n: int) -> None:
    driver.deliver(item(n, OrderID=""), id=f"cmd-{n}")
    driver.confirm()


@pytest.mark.parametrize("one", [_canceled, _refused])
def test_what_has_ended_leaves_nothing_behind(one: Callable[[Driver, int], None]) -> None:
    driver = Driver(results={"memory": KEPT})

    def bytes_after(first: int, last: int) -> int:
        for n in range(first, last):
            one(driver, n)
            for kept in (driver.sent, driver.published, driver.settled, driver.notes):
                kept.clear()
            driver.engine.tick(driver.now)
        return tracemalloc.get_traced_memory()[0]

    bytes_after(0, 200)
    tracemalloc.start()
    try:
        before = bytes_after(200, 400)
        after = bytes_after(400, 1_400)
    finally:
        tracemalloc.stop()
    assert after - before < 1_000 * 200, "a command that is left over is ten times that"


def test_what_was_asked_on_a_lost_session_goes_with_it() -> None:
    driver = Driver()
    driver.answering = False
    before = {kind: _alive(kind) for kind in (SessionState, Subscription, Inquiry, Query)}
    for n in range(20):
        driver.deliver(item(n), id=f"cmd-{n}", redelivered=True)
        driver.lose(n + 1)
        driver.connect()
    for kind, alive in before.items():
        assert _alive(kind) - alive <= 3, kind


def _alive(kind: type) -> int:
    return sum(type(each) is kind for each in gc.get_objects())
