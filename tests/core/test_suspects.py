"""Commands that keep coming back: alone, one at a time, ended rather than handed back (contract 4.6)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.driver import Driver
from tests.core.payloads import Fields, item, order, report

WORKING = [order("New", OrderID=f"order-{n}", ClOrdID="ord-000417") for n in range(1, 10)]


def settled(driver: Driver) -> list[str]:
    return [each.how for each in driver.settled]


def suspect(driver: Driver, n: int, *more: Fields, **properties: Any) -> Any:
    return driver.deliver(
        item(n), *more, id=f"cmd-{n}", redelivered=True, headers={"x-delivery-count": 9}, **properties
    )


@pytest.mark.parametrize(("count", "frames"), [(8, [9]), (9, [1] * 9)])
def test_each_cancel_of_a_suspect_goes_alone(count: int, frames: list[int]) -> None:
    driver = Driver()
    driver.orders = WORKING
    driver.deliver(*(item(n) for n in range(1, 10)), redelivered=True, headers={"x-delivery-count": count})
    assert [len(frame["data"]) for frame in driver.cancel_frames()] == frames, "all found working by one list"


def test_a_suspect_goes_alone_though_others_that_wait_go_in_one_frame() -> None:
    driver = Driver(broker={"max_inflight": 3})
    driver.orders = WORKING
    driver.deliver(item(5), item(6), item(7), id="before")
    driver.deliver(item(1), id="ordinary")
    suspect(driver, 2)
    ends = [report("Canceled", ClOrdID=f"y-{n}", OrderID=f"order-{n}") for n in (5, 6, 7)]
    driver.frame(1, data=ends)
    assert [[each["ClOrdID"] for each in frame["data"]] for frame in driver.cancel_frames()[1:]] == [["y-1"], ["y-2"]]


def test_suspects_are_handled_one_at_a_time() -> None:
    driver = Driver()
    driver.orders = WORKING
    first = suspect(driver, 1, item(5))
    suspect(driver, 2)
    driver.deliver(item(3), id="innocent")
    assert driver.cancels_sent() == ["y-1", "y-5", "y-3"]
    driver.report("Canceled", ClOrdID="y-1")
    driver.report("Canceled", ClOrdID="y-5", OrderID="order-5")
    assert driver.cancels_sent() == ["y-1", "y-5", "y-3"], "not before the first one is settled"
    driver.confirm()
    assert driver.settlement(first) == "ack"
    assert driver.cancels_sent() == ["y-1", "y-5", "y-3", "y-2"]


@pytest.mark.parametrize(("count", "alone"), [(8, False), (9, True)])
def test_the_tenth_delivery_makes_a_suspect(count: int, alone: bool) -> None:
    driver = Driver()
    driver.orders = WORKING
    for n in (1, 2):
        driver.deliver(item(n), id=f"cmd-{n}", redelivered=True, headers={"x-delivery-count": count})
    assert driver.cancels_sent() == (["y-1"] if alone else ["y-1", "y-2"])


def test_a_suspect_is_ended_rather_than_handed_back() -> None:
    driver = Driver()
    driver.lose(1)
    delivery, ordinary = suspect(driver, 1), driver.deliver(item(2), id="ordinary")
    driver.stop_consumers()
    assert driver.settlement(ordinary) == "requeue"
    final = driver.final()
    assert (final["outcome"], final["sent"], final["order_live"]) == ("unresolved", "maybe", None)
    driver.confirm()
    assert driver.settlement(delivery) == "dead_letter"
    assert list(driver.left_over()) == []


def test_a_suspect_is_ended_at_the_end_of_grace_before_the_worker_stops() -> None:
    driver = Driver()
    driver.orders = WORKING
    delivery = suspect(driver, 1)
    driver.ask_to_stop()
    driver.stop_consumers()
    driver.end_grace()
    assert driver.final()["outcome"] == "unresolved"
    assert (driver.settlement(delivery), driver.stopped) == (None, 0), "its final is not confirmed yet"
    driver.confirm()
    assert (driver.settlement(delivery), driver.stopped) == ("dead_letter", 1)


def test_a_suspect_that_is_held_too_long_is_ended() -> None:
    driver = Driver(broker={"hold_limit": 20.0})
    driver.orders = WORKING
    delivery = suspect(driver, 1)
    driver.report("PendingCancel", ClOrdID="y-1")
    driver.advance(26)
    assert driver.final()["outcome"] == "unresolved"
    driver.confirm()
    assert driver.settlement(delivery) == "dead_letter"


def test_a_suspect_that_waits_its_turn_is_ended_as_well() -> None:
    driver = Driver()
    driver.lose(1)
    suspect(driver, 1)
    suspect(driver, 2)
    driver.stop_consumers()
    driver.confirm()
    assert settled(driver) == ["dead_letter", "dead_letter"]


def test_a_suspect_of_the_normal_lane_never_holds_up_one_of_the_kill_lane() -> None:
    driver = Driver()
    driver.answering = False
    suspect(driver, 1)
    driver.answering = True
    driver.orders = WORKING
    suspect(driver, 2, lane="kill")
    assert "y-2" in driver.cancels_sent()


def test_a_suspect_that_waits_is_looked_up_even_when_it_is_promoted() -> None:
    driver = Driver()
    suspect(driver, 1)
    suspect(driver, 2)
    driver.orders = [order("Filled", OrderID="order-2")]
    driver.deliver(item(2), id="cmd-2", lane="kill")
    driver.advance(10)
    assert driver.cancels_sent() == []
    driver.confirm()
    assert driver.outcome("cmd-2") == "already_closed"


def test_a_suspect_whose_end_is_told_while_it_waits_harms_nobody() -> None:
    driver = Driver()
    suspect(driver, 1)
    suspect(driver, 2, item(3))
    driver.report("Canceled", ClOrdID="y-2", OrderID="order-2")
    driver.orders = WORKING
    driver.report("Canceled", ClOrdID="y-1", OrderID="order-1")
    driver.confirm()
    assert driver.outcome("cmd-2", 0) == "canceled"
    assert driver.cancels_sent() == ["y-3"]


def test_a_suspect_that_is_gone_makes_room_for_the_next() -> None:
    driver = Driver()
    driver.orders = WORKING
    suspect(driver, 1)
    suspect(driver, 2, lane="kill")
    driver.lose_consumer("cancel")
    driver.advance(30)
    assert "y-2" in driver.cancels_sent()
