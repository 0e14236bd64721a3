"""SIGTERM: take no more, finish what was sent, hand the rest back (contract 4.7)."""

from __future__ import annotations

import pytest

from tests.core.driver import LANES, Driver, confirmed
from tests.core.payloads import item, order
from worker.core.facts import ConsumerStopped, ConsumerUp

WORKING = [order("New", OrderID=f"order-{n}", ClOrdID="ord-000417") for n in range(1, 10)]


def settled(driver: Driver) -> list[str]:
    return [each.how for each in driver.settled]


def test_stopping_takes_no_more_finishes_what_was_sent_and_hands_the_rest_back() -> None:
    driver = Driver(venue={"rate_limit": 1.0, "max_batch": 1})
    sent, waiting = driver.deliver(item(1), id="sent"), driver.deliver(item(2), id="waiting")
    driver.ask_to_stop()
    assert driver.consuming == {"kill": False, "cancel": False}
    driver.stop_consumers()
    assert (driver.settlement(sent), driver.settlement(waiting)) == (None, "requeue")
    driver.report("Canceled", ClOrdID="y-1")
    before = driver.stopped
    driver.confirm()
    assert driver.settlement(sent) == "ack"
    assert (before, driver.stopped) == (0, 1), "not before its final is confirmed"


def test_stopping_waits_for_the_confirm_of_every_event_also_of_those_that_are_no_finals() -> None:
    driver = Driver()
    delivery = driver.deliver(item())
    driver.report("PendingCancel", ClOrdID="y-1")
    driver.report("Canceled", ClOrdID="y-1")
    driver.ask_to_stop()
    driver.stop_consumers()
    driver.step(confirmed(driver.unconfirmed.pop()))
    before = driver.stopped
    assert driver.settlement(delivery) == "ack"
    driver.confirm()
    assert (before, driver.stopped) == (0, 1)


def test_stopping_idle_ends_at_once_when_the_consumers_have_stopped() -> None:
    driver = Driver()
    counted = []
    for act in (driver.ask_to_stop, driver.stop_consumers, driver.ask_to_stop, driver.end_grace):
        act()
        counted.append(driver.stopped)
    assert counted == [0, 1, 1, 1], "and says so once"


@pytest.mark.parametrize("connected", [False, True])
def test_stopping_without_a_session_hands_back_what_is_unsent(connected: bool) -> None:
    driver = Driver(sessions=0, connected=connected)
    driver.ask_to_stop()
    driver.stop_consumers()
    assert driver.stopped == 1


def test_while_stopping_nobody_begins_to_consume_again() -> None:
    driver = Driver()
    driver.ask_to_stop()
    driver.lose_consumer("kill")
    driver.step(ConsumerUp("kill"))
    driver.stop_consumers()
    driver.connect(1)
    assert driver.consuming == {"kill": False, "cancel": False}


def test_at_the_end_of_grace_everything_left_goes_back_and_nothing_is_acked() -> None:
    driver = Driver()
    open_ones = [driver.deliver(item(1), id="silent"), driver.deliver(body=b"{", id="invalid")]
    driver.deliver(item(3), id="unconfirmed")
    driver.report("Canceled", ClOrdID="y-3", OrderID="order-3")
    driver.ask_to_stop()
    driver.stop_consumers()
    driver.end_grace()
    assert settled(driver) == ["requeue"] * 3
    assert [driver.settlement(each) for each in open_ones] == ["requeue", "requeue"]
    assert driver.stopped == 1
    assert driver.engine.stats.inflight["cancel"] == 0


def test_stopping_resolves_the_doubt_about_what_was_sent() -> None:
    driver = Driver()
    delivery = driver.deliver(item())
    driver.ask_to_stop()
    driver.stop_consumers()
    driver.orders = [order("Canceled", ClOrdID="y-1")]
    driver.advance(6)
    driver.confirm()
    assert driver.settlement(delivery) == "ack"
    assert driver.stopped == 1


def test_stopping_ends_also_when_all_that_is_left_waits_for_a_redelivery() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.lose_consumer("cancel")
    driver.ask_to_stop()
    driver.stop_consumers()
    driver.orders = WORKING
    driver.advance(8)
    driver.confirm()
    assert driver.stopped == 1


def test_stopping_without_a_session_the_engine_asks_for_no_wake_up_it_does_not_need() -> None:
    driver = Driver(sessions=0)
    driver.ask_to_stop()
    driver.let_pass(driver.mono + 60)
    driver.engine.tick(driver.now)
    due = driver.engine.next_due()
    assert due is None or due > driver.mono


def test_a_consumer_that_stops_twice_is_no_trouble() -> None:
    driver = Driver()
    driver.ask_to_stop()
    for lane in LANES:
        driver.step(ConsumerStopped(lane), ConsumerStopped(lane))
    assert driver.stopped == 1
