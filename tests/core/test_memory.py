"""What has ended is freed by counting references alone: no garbage collector ever looks at it."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator

import pytest

from tests.core.driver import Driver
from tests.core.payloads import START_US, item, order, report
from worker.core.facts import ConsumerUp
from worker.core.reconcile import Inquiry, Query
from worker.core.session import SessionState, Subscription
from worker.core.snapshot import Snapshot
from worker.core.sweep import Recovery, Sweep
from worker.wire.command import derive_sweep_cl_ord_id

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


# -- mass cancels


def _sweep(driver: Driver, n: int, *, redelivered: bool = False) -> None:
    body = b'{"type":"OrderMassCancelRequest","data":[{"MassCancelRequestType":"AllOrders"}]}'
    stamp = START_US // 1_000_000 - 2
    driver.deliver(body=body, id=f"mass-{n}", lane="kill", redelivered=redelivered, timestamp_s=stamp)
    if redelivered:
        driver.audit_says(False, f"mass-{n}")


def _obey(driver: Driver, seconds: float) -> None:
    """The venue cancels each order that it is asked to."""
    for _ in range(round(seconds * 10)):
        driver.advance(0.1)
        for asked in (each for frame in driver.cancel_frames() for each in frame["data"]):
            if any(o["OrderID"] == asked["OrderID"] for o in driver.orders):
                driver.orders = [o for o in driver.orders if o["OrderID"] != asked["OrderID"]]
                driver.report("Canceled", OrderID=asked["OrderID"], ClOrdID=asked["ClOrdID"])


def _mass_canceled(driver: Driver, n: int) -> None:
    driver.orders = [order("New", OrderID=f"order-{n}-{k}", ClOrdID=f"x-{n}-{k}") for k in range(10)]
    _sweep(driver, n)
    _obey(driver, 1)


def _mass_incomplete(driver: Driver, n: int) -> None:
    driver.orders = [order("New", OrderID=f"order-{n}", ClOrdID=f"x-{n}")]
    _sweep(driver, n)
    driver.advance(70)


def _restarted(driver: Driver, n: int) -> None:
    """Another process sent a cancel, and a session is lost while its replay and the first list are under way."""
    request = derive_sweep_cl_ord_id(f"mass-{n}", f"order-{n}-0", 1)
    driver.history = [report("Canceled", OrderID=f"order-{n}-0", ClOrdID=request)]
    driver.orders = [order("New", OrderID=f"order-{n}-1", ClOrdID=f"x-{n}")]
    driver.answering = False
    _sweep(driver, n, redelivered=True)
    driver.advance(3)
    driver.lose(driver.engine.sessions.all()[0].number)
    driver.connect()
    driver.answering = True
    _obey(driver, 5)


def _handed_back(driver: Driver, n: int) -> None:
    """While its only order waits for another command's cancel it loses its delivery, and is dropped."""
    driver.deliver(item(n), id=f"one-{n}")
    driver.orders = [order("New", OrderID=f"order-{n}", ClOrdID=f"x-{n}")]
    _sweep(driver, n)
    driver.lose_consumer("kill")
    driver.step(ConsumerUp("kill"))
    driver.advance(20)
    assert driver.events(id=f"mass-{n}") == []
    driver.report("Canceled", OrderID=f"order-{n}", ClOrdID=f"y-{n}")


@pytest.mark.parametrize("one", [_mass_canceled, _mass_incomplete, _restarted, _handed_back])
def test_a_mass_cancel_that_has_ended_leaves_nothing_behind(one: Callable[[Driver, int], None]) -> None:
    driver = Driver(results={"memory": KEPT})
    kinds = (Sweep, Snapshot, Recovery)
    before = [_alive(kind) for kind in kinds]
    for n in range(3):
        one(driver, n)
        driver.confirm()
    assert driver.engine.intake.is_empty
    for n in range(100, 101 + KEPT):
        _canceled(driver, n)
    driver.unconfirmed.clear()
    for kept in (driver.sent, driver.published, driver.settled, driver.notes):
        kept.clear()
    assert [_alive(kind) for kind in kinds] == before


def test_the_orders_of_a_mass_cancel_are_freed_with_it() -> None:
    driver = Driver(results={"memory": KEPT})

    def bytes_after(first: int, last: int) -> int:
        for n in range(first, last):
            _mass_canceled(driver, n)
            driver.confirm()
            for kept in (driver.sent, driver.published, driver.settled, driver.notes, driver.replies):
                kept.clear()
        return tracemalloc.get_traced_memory()[0]

    bytes_after(0, 20)
    tracemalloc.start()
    try:
        before = bytes_after(20, 40)
        after = bytes_after(40, 100)
    finally:
        tracemalloc.stop()
    assert after - before < 60 * 10 * 300, "an order that is left over is three times that, with its cancel"


@pytest.mark.parametrize("lost", [False, True])
def test_of_the_lists_that_a_mass_cancel_reads_one_is_kept(lost: bool) -> None:
    driver = Driver(results={"memory": KEPT}, sessions=2)
    driver.orders = [order("New", OrderID="order-1", ClOrdID="x-1")]
    before = _alive(Snapshot)
    _sweep(driver, 1)
    for _ in range(10):
        driver.advance(1.1)
        if lost:
            driver.answering = False
            driver.advance(1.1)
            driver.lose(driver.subscribes()[-1].session)
            driver.connect()
            driver.answering = True
    assert len([q for q in driver.questions() if q["name"] == "Order"]) >= 10
    assert _alive(Snapshot) - before <= 1


def test_a_mass_cancel_under_way_keeps_no_frame_of_the_venue() -> None:
    driver = Driver()
    driver.orders = [order("New", OrderID=f"order-{n}", ClOrdID=f"x-{n}") for n in range(5)]
    _sweep(driver, 1)
    cancels = [each for frame in driver.cancel_frames() for each in frame["data"]]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for each in cancels:
            ours = report("Canceled", OrderID=each["OrderID"], ClOrdID=each["ClOrdID"])
            driver.frame(1, data=[ours, report("Expired", OrderID="another's", Text="." * 1_000_000)])
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert len([e for e in driver.finals("mass-1") if e["outcome"] == "canceled"]) == len(cancels) == 5
    assert after - before < 1_000_000


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


def test_what_is_remembered_of_ended_cancels_is_hardly_seen_by_the_collector() -> None:
    """Else a look at everything would be a pause, with 10,000 of them some 30 ms."""
    driver = Driver(results={"memory": 1_000})

    def tracked_after(first: int, last: int) -> int:
        for n in range(first, last):
            _canceled(driver, n)
            for kept in (driver.sent, driver.published, driver.settled, driver.notes):
                kept.clear()
        driver.engine.tick(driver.now)
        gc.collect()
        return len(gc.get_objects())

    before = tracked_after(0, 100)
    assert tracked_after(100, 600) - before < 2 * 500
