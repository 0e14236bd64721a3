"""Look-ups of one prefetch after the other: few questions, each begun after the doubt (contract 4.3, 6; faults I5)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import pytest

from tests.core.driver import Driver, delivered
from tests.core.payloads import Fields, cancel_body, item, order, report
from worker.core import listing
from worker.core.facts import Delivery
from worker.core.listing import SERVES_S
from worker.core.lookups import GATHER_S
from worker.wire.command import Lane, Properties
from worker.wire.timestamp import format_utc
from worker.wire.venue import Record

SECOND = 1_000_000


def numbered(first: int, last: int) -> range:
    return range(first, last + 1)


def redeliver(driver: Driver, first: int, last: int, lane: Lane = "cancel") -> None:
    """Commands of one cancel each, as they come after a crash: in one turn of the loop."""
    facts = []
    for n in numbered(first, last):
        properties = Properties(message_id=f"cmd-{n}", headers={})
        facts.append(delivered(Delivery(lane, 1, n), cancel_body(item(n)), properties, redelivered=True))
    driver.step(*facts)


def working(first: int, last: int) -> list[Fields]:
    return [order("New", OrderID=f"order-{n}", ClOrdID=f"ord-{n}") for n in numbered(first, last)]


def streams(driver: Driver) -> list[str]:
    return [q["name"] + (" of one" if "OrderID" in q else "") for q in driver.questions()]


def drained(**venue: Any) -> Driver:
    """After a first prefetch of 20 whose look-up, one replay and one list, found every order working."""
    driver = Driver(venue=venue)
    driver.orders = working(1, 40)
    redeliver(driver, 1, 20)
    assert len(driver.cancels_sent()) == 20
    assert streams(driver) == ["ExecutionReport", "Order"]
    return driver


def test_after_a_look_up_of_many_the_next_waits_for_as_many() -> None:
    driver = drained()
    asked = len(driver.questions())
    redeliver(driver, 21, 39)
    assert len(driver.questions()) == asked, "the next are gathered"
    redeliver(driver, 40, 40)
    assert len(driver.questions()) == asked + 1
    assert len(driver.cancels_sent()) == 40


@pytest.mark.parametrize("lane", ["kill", "cancel"])
def test_those_that_are_gathered_wait_for_a_moment_only(lane: Lane) -> None:
    driver = Driver()
    driver.orders = working(1, 21)
    redeliver(driver, 1, 20, lane)
    redeliver(driver, 21, 21, lane)
    asked = len(driver.questions())
    driver.advance(GATHER_S[lane] - 0.01)
    assert len(driver.questions()) == asked
    driver.advance(0.02)
    assert len(driver.questions()) > asked
    assert driver.cancels_sent()[-1] == "y-21"


def test_a_look_up_of_a_few_makes_nobody_wait() -> None:
    driver = Driver()
    driver.orders = working(1, 9)
    for n in numbered(1, 9):
        redeliver(driver, n, n)
        assert driver.cancels_sent()[-1] == f"y-{n}"


def test_without_a_session_those_that_are_gathered_wake_nobody() -> None:
    driver = drained()
    redeliver(driver, 21, 21)
    driver.lose(1)
    driver.let_pass(driver.mono + GATHER_S["cancel"] + 0.1)
    driver.engine.tick(driver.now)
    due = driver.engine.next_due()
    assert due is None or due > driver.mono


def calls(work: Callable[[], object]) -> int:
    """How many calls of functions a piece of work costs the worker: a measure that no busy machine can spoil."""
    count = 0

    def called(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call") and frame.f_globals["__name__"].startswith("worker.")

    sys.setprofile(called)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def look_up_missing(many: int) -> Driver:
    """The list shows none of them, so each is asked for by itself."""
    driver = Driver(venue={"unknown_wait": 60.0})
    driver.answering = False
    before = at = len(driver.sent)
    redeliver(driver, 1, many)
    while at < len(driver.sent):
        sent = driver.sent[at].frame
        at += 1
        if sent["type"] == "subscribe":
            driver.frame(1, sent["reqid"], sent["streams"][0]["name"], data=[], initial=True)
    assert sum(sent.frame["type"] == "subscribe" for sent in driver.sent[before:]) == many + 2
    return driver


def look_up_by_client_ids(many: int) -> Driver:
    """They are known by client ids alone."""
    driver = Driver()
    ids = [str(uuid5(NAMESPACE_OID, str(n))) for n in numbered(1, many)]
    driver.orders = [order("New", OrderID=f"o-{n}", ClOrdID=each) for n, each in enumerate(ids)]
    driver.deliver(*(item(n, OrderID=None, OrigClOrdID=each) for n, each in enumerate(ids)), redelivered=True)
    assert len(driver.cancels_sent()) == many
    return driver


@pytest.mark.parametrize("look_up", [look_up_missing, look_up_by_client_ids])
def test_what_a_look_up_costs_grows_as_the_number_of_its_cancels(look_up: Callable[[int], Driver]) -> None:
    look_up(20)
    few, many = (calls(partial(look_up, n)) for n in (100, 400))
    assert many < 5 * few


# -- one list serves several replays


def test_ten_thousand_cancels_are_asked_about_by_one_list_and_a_replay_for_each_prefetch() -> None:
    driver = Driver(venue={"report_timeout": 60.0})
    driver.orders = working(1, 10_000)
    for first in range(1, 10_000, 500):
        redeliver(driver, first, first + 99)  # as the acks of the ones before let them come
        redeliver(driver, first + 100, first + 499)
        driver.advance(0.2)
    assert len(driver.cancels_sent()) == 10_000
    assert (streams(driver).count("Order"), streams(driver).count("ExecutionReport")) == (1, 21)
    assert len(driver.questions()) == 22


def test_the_list_does_not_spare_the_replay_and_the_replay_reaches_back_to_before_the_list() -> None:
    driver = Driver(venue={"overlap": 60.0, "lookback": 900.0})
    driver.orders = working(1, 40)
    stamp = driver.utc_us // SECOND
    driver.deliver(*(item(n) for n in numbered(1, 20)), id="first", redelivered=True, timestamp_s=stamp)
    listed_at = driver.utc_us
    driver.advance(3)
    stamp += 2  # published after the list was read
    driver.deliver(*(item(n) for n in numbered(21, 40)), id="second", redelivered=True, timestamp_s=stamp)
    assert streams(driver) == ["ExecutionReport", "Order", "ExecutionReport"]
    assert driver.questions()[2]["StartDate"] == format_utc(listed_at - 60 * SECOND)
    assert len(driver.cancels_sent()) == 40


def test_what_a_report_since_the_list_speaks_of_is_asked_for_again() -> None:
    driver = drained()
    driver.advance(1)
    now = format_utc(driver.utc_us)
    driver.history = [
        report("Trade", OrderID="order-22", ClOrdID="ord-22", Timestamp=now),
        report("PendingCancel", OrderID="order-23", ClOrdID="z-9", Timestamp=now),
        report("Canceled", OrderID="order-24", ClOrdID="y-24", Timestamp=now),
        report("CancelRejected", OrderID="order-25", ClOrdID="y-25", CxlRejReason=0, Timestamp=now),
        report("CancelRejected", OrderID="order-26", ClOrdID="y-26", CxlRejReason=0, OrdStatus=None, Timestamp=now),
    ]
    driver.orders[22] = order("PendingCancel", OrderID="order-23", ClOrdID="z-9")
    redeliver(driver, 21, 40)
    asked = [q["OrderID"] for q in driver.questions() if "OrderID" in q and q["name"] == "Order"]
    assert sorted(asked) == ["order-22", "order-23", "order-25", "order-26"]
    outcomes = {event["command_id"]: event["outcome"] for event in driver.finals()}
    assert outcomes == {"cmd-24": "canceled", "cmd-25": "cancel_rejected", "cmd-26": "cancel_rejected"}
    assert sorted(set(range(1, 41)) - {int(y.removeprefix("y-")) for y in driver.cancels_sent()}) == [23, 24, 25, 26]


def test_an_order_that_told_its_id_only_now_has_its_reports_read_before_the_list_counts() -> None:
    driver = drained()
    driver.advance(1)
    now = format_utc(driver.utc_us)
    driver.history = [  # backwards: what ties the order to the client id comes last
        report("Canceled", OrderID="order-21", ClOrdID="z-9", OrigClOrdID="ord-21b", Timestamp=now),
        report("New", OrderID="order-21", ClOrdID="ord-21", Timestamp="2026-03-09T14:09:01Z"),
    ]
    driver.deliver(
        item(21, OrderID=None, OrigClOrdID="ord-21"), *map(item, numbered(22, 40)), id="cmd-2x", redelivered=True
    )
    assert driver.outcome("cmd-2x", 0) == "already_closed"
    assert len(driver.cancels_sent()) == 39


def test_what_the_list_did_not_show_is_asked_for() -> None:
    driver = Driver()
    driver.orders = [*working(1, 20), order("Filled", OrderID="order-21")]
    redeliver(driver, 1, 20)
    driver.orders += working(22, 40)
    redeliver(driver, 21, 40)
    assert streams(driver)[2:4] == ["ExecutionReport", "Order"], "many that it did not show: a new list"
    assert driver.outcome("cmd-21") == "already_closed"
    assert len(driver.cancels_sent()) == 39


def test_a_list_serves_no_cancel_that_this_process_has_sent() -> None:
    """Its doubt may be younger than the list."""
    driver = drained()
    driver.advance(6)
    assert len(driver.cancels_sent()) == 40, "silence: looked up, and sent again"
    assert streams(driver).count("Order") == 2


def test_a_list_serves_for_a_moment_only() -> None:
    for seconds, lists in ((SERVES_S - 1, 1), (SERVES_S + 1, 2)):
        driver = drained(report_timeout=100.0)
        driver.advance(seconds)
        redeliver(driver, 21, 40)
        assert streams(driver).count("Order") == lists
        assert len(driver.cancels_sent()) == 40


@pytest.mark.parametrize("how", ["timer", "bad record"])
def test_beside_a_replay_that_proves_nothing_the_list_proves_nothing(how: str) -> None:
    driver = drained()
    driver.answering = False
    redeliver(driver, 21, 40)
    replay = driver.subscribes()[-1].frame["reqid"]
    driver.answering = True
    driver._unanswered.clear()
    if how == "timer":
        driver.advance(2.1)
    else:
        driver.frame(1, replay, data=[{"OrderID": {}}], initial=True)
    assert streams(driver)[2:4] == ["ExecutionReport", "Order"]
    assert len(driver.cancels_sent()) == 20, "it may hold the end of any of them"
    driver.advance(1)
    assert len(driver.cancels_sent()) == 40


def test_a_list_that_broke_off_or_is_too_long_serves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    for how in ("too long", "broken"):
        driver = Driver()
        driver.orders = working(1, 40)
        if how == "too long":
            monkeypatch.setattr(listing, "MOST_LISTED", 39)
        else:
            monkeypatch.undo()
            driver.orders.append({"OrderID": "order-99", "OrdStatus": 7})
        redeliver(driver, 1, 20)
        redeliver(driver, 21, 40)
        assert streams(driver).count("Order") == 2
        assert len(driver.cancels_sent()) == 40


def test_a_list_that_no_longer_serves_is_let_go_of() -> None:
    driver = drained(report_timeout=100.0)
    driver.engine.tick(driver.now)
    assert driver.engine.lookups._listed is not None
    driver.let_pass(driver.mono + SERVES_S)
    driver.engine.tick(driver.now)
    assert driver.engine.lookups._listed is None


def test_a_list_keeps_open_orders_only_and_no_more_than_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_LISTED", 3)
    kept = listing.OpenList(0)
    for n in range(10):
        kept.note(Record(order_id=f"o-{n}", ord_status=("Filled", "PendingCancel", "?", None)[n % 4]))
    assert not kept._records
    for n in range(4):
        kept.note(Record(order_id=f"o-{n}", ord_status="New"))
        assert len(kept._records) == (n + 1 if n < 3 else 0)
