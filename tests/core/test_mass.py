"""Mass cancels (contract section 5): everything in scope, and flat only when the venue itself has shown it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.core.driver import Driver
from tests.core.payloads import START_US, Fields, order, report
from worker.core.facts import Delivery
from worker.wire import event as wire
from worker.wire.command import derive_sweep_cl_ord_id
from worker.wire.timestamp import format_utc

SECOND = 1_000_000


def sweep(
    driver: Driver, scope: str = "AllOrders", *, headers: dict[str, object] | None = None, **more: Any
) -> Delivery:
    """A mass cancel on the kill lane; ``more`` are fields of its item, or AMQP properties."""
    properties = {key: more.pop(key) for key in list(more) if key in ("redelivered", "timestamp_s", "user_id")}
    item = {"MassCancelRequestType": scope, **more}
    body = json.dumps({"type": "OrderMassCancelRequest", "data": [item]}).encode()
    return driver.deliver(body=body, id="mass", lane="kill", headers=headers, **properties)


def opened(driver: Driver, *numbers: int, **fields: Any) -> None:
    """Orders that the venue's list shows working."""
    driver.orders += [order("New", OrderID=f"order-{n}", ClOrdID=f"x-{n}", **fields) for n in numbers]


def obey(driver: Driver, but: tuple[str, ...] = ()) -> None:
    """The venue cancels what it was asked to, but for some orders."""
    for frame in driver.cancel_frames():
        for each in frame["data"]:
            standing = [o for o in driver.orders if o["OrderID"] == each["OrderID"]]
            if standing and each["OrderID"] not in but:
                driver.orders.remove(standing[0])
                driver.report("Canceled", OrderID=each["OrderID"], ClOrdID=each["ClOrdID"])


def mass_final(driver: Driver) -> Fields:
    (event,) = [e for e in driver.finals("mass") if e["index"] == 0]
    return event


def order_finals(driver: Driver) -> dict[str, str]:
    return {e["order_id"]: e["outcome"] for e in driver.finals("mass") if e["index"]}


def test_nothing_matched_is_flat_once_the_venue_has_shown_it() -> None:
    driver = Driver()
    driver.answering = False
    delivery = sweep(driver)
    (asked,) = driver.questions()
    assert asked == {"name": "Order", "StartDate": format_utc(START_US - 30 * 86_400 * SECOND)}
    assert driver.finals() == []
    driver.answering = True
    driver.advance(0)
    final = mass_final(driver)
    assert (final["outcome"], final["order_live"], final["sent"]) == ("mass_canceled", False, "never")
    assert final["event_id"] == wire.final_id("mass", 0)
    assert {k: v for k, v in final["mass"].items() if k not in ("elapsed_ms", "sweeps")} == {
        "matched": 0, "canceled": 0, "already_closed": 0, "rejected": 0, "unknown": 0, "unsent": 0,
        "remaining": [], "restarted": False,
    }  # fmt: skip
    driver.confirm()
    assert driver.settlement(delivery) == "ack"
    assert list(driver.left_over()) == []


def test_the_book_is_swept_at_once_and_the_snapshot_adds_what_it_lacks() -> None:
    driver = Driver()
    driver.answering = False
    driver.report("New", OrderID="order-1", ClOrdID="x-1")
    driver.report("New", OrderID="order-2", ClOrdID="x-2")
    driver.report("Canceled", OrderID="order-2", ClOrdID="x-2")
    delivery = sweep(driver)
    assert driver.cancels_sent() == [derive_sweep_cl_ord_id("mass", "order-1", 0)]
    opened(driver, 1, 3)
    driver.answering = True
    driver.advance(0)
    assert [each["OrderID"] for frame in driver.cancel_frames() for each in frame["data"]] == ["order-1", "order-3"]
    obey(driver)
    driver.advance(2)
    assert order_finals(driver) == {"order-1": "canceled", "order-3": "canceled"}
    final = mass_final(driver)
    assert (final["outcome"], final["mass"]["matched"], final["mass"]["canceled"]) == ("mass_canceled", 2, 2)
    driver.confirm()
    assert driver.settlement(delivery) == "ack"
    assert list(driver.left_over()) == []


def test_an_orders_final_has_an_id_from_its_order_id_and_a_number_that_only_counts() -> None:
    driver = Driver()
    opened(driver, 5)
    sweep(driver)
    obey(driver)
    (event,) = [e for e in driver.finals("mass") if e["order_id"] == "order-5"]
    assert event["index"] == 1
    other = Driver()
    opened(other, 1, 5)
    sweep(other)
    obey(other)
    (again,) = [e for e in other.finals("mass") if e["order_id"] == "order-5"]
    assert (again["index"], again["event_id"]) == (2, event["event_id"])


def test_flat_needs_a_snapshot_begun_after_the_last_send() -> None:
    driver = Driver()
    opened(driver, 1)
    sweep(driver)
    snapshots = len(driver.questions())
    obey(driver)
    assert [e["outcome"] for e in driver.finals("mass")] == ["canceled"]
    driver.advance(1)
    assert mass_final(driver)["outcome"] == "mass_canceled"
    assert len(driver.questions()) > snapshots


@pytest.mark.parametrize(
    ("asked", "fields", "covered"),
    [
        ({}, {}, True),
        ({"scope": "Security", "Symbol": "BTC-USD"}, {"Symbol": "BTC-USD"}, True),
        ({"scope": "Security", "Symbol": "BTC-USD"}, {"Symbol": "ETH-USD"}, False),
        ({"Side": "Buy"}, {"Side": "Buy"}, True),
        ({"Side": "Buy"}, {"Side": "Sell"}, False),
        ({"CustomerUser": "desk"}, {"CustomerUser": "desk"}, True),
        ({"CustomerUser": "desk"}, {"CustomerUser": "other"}, False),
        ({}, {"SubmitTime": format_utc(START_US + 59 * SECOND)}, True),
        ({}, {"SubmitTime": format_utc(START_US + 61 * SECOND)}, False),
    ],
)
def test_what_is_in_scope(asked: dict[str, Any], fields: Fields, covered: bool) -> None:
    driver = Driver()
    opened(driver, 1, **fields)
    sweep(driver, **asked)
    assert bool(driver.cancels_sent()) is covered
    if not covered:
        driver.advance(1)
        assert mass_final(driver)["outcome"] == "mass_canceled"


def test_customer_users_narrow_every_mass_cancel_that_names_nobody() -> None:
    driver = Driver(kill={"customer_users": ("a", "b")})
    opened(driver, 1, CustomerUser="a")
    opened(driver, 2, CustomerUser="c")
    sweep(driver)
    assert [each["OrderID"] for frame in driver.cancel_frames() for each in frame["data"]] == ["order-1"]


@pytest.mark.parametrize("fields", [{"CustomerUser": None}, {"CustomerUser": "desk", "OrderID": None}])
def test_an_order_that_cannot_be_told_in_or_out_of_scope_is_no_proof(fields: Fields) -> None:
    driver = Driver()
    driver.orders = [order("New", **fields)]
    delivery = sweep(driver, CustomerUser="desk")
    driver.advance(70)
    final = mass_final(driver)
    assert (final["outcome"], final["error"]["code"]) == ("mass_incomplete", "not_proven")
    driver.confirm()
    assert driver.settlement(delivery) == "dead_letter"


def test_silence_is_never_flat() -> None:
    driver = Driver()
    driver.answering = False
    sweep(driver)
    driver.advance(70)
    final = mass_final(driver)
    assert (final["outcome"], final["error"]["code"], final["order_live"]) == ("mass_incomplete", "not_proven", None)
    assert driver.engine.stats.mass_running == 0


def test_a_bad_record_in_the_list_is_no_proof() -> None:
    driver = Driver()
    driver.orders = [{"OrderID": "order-1", "OrdStatus": 7}]
    sweep(driver)
    driver.advance(70)
    assert mass_final(driver)["error"]["code"] == "not_proven"


def test_survivors_are_named_and_their_rejects_are_reports_until_the_end() -> None:
    driver = Driver()
    opened(driver, 1, 2)
    delivery = sweep(driver)
    told = 0
    for _ in range(300):
        frames = driver.cancel_frames()
        for frame in frames[told:]:
            for each in frame["data"]:
                ids = {"OrderID": each["OrderID"], "ClOrdID": each["ClOrdID"]}
                if each["OrderID"] == "order-1":
                    driver.report("CancelRejected", **ids, CxlRejReason=2)
                else:
                    driver.orders = [o for o in driver.orders if o["OrderID"] == "order-1"]
                    driver.report("Canceled", **ids)
        told = len(frames)
        driver.advance(0.1)
    final = mass_final(driver)
    assert (final["outcome"], final["error"]["code"]) == ("mass_incomplete", "survivors")
    assert final["mass"]["remaining"] == ["order-1"]
    assert (final["mass"]["rejected"], final["mass"]["canceled"]) == (1, 1)
    assert order_finals(driver) == {"order-1": "cancel_rejected", "order-2": "canceled"}
    attempts = [y for y in driver.cancels_sent() if y != derive_sweep_cl_ord_id("mass", "order-2", 1)]
    assert len(attempts) == len(set(attempts)) > 2, "each round under an id of its own"
    driver.confirm()
    assert driver.settlement(delivery) == "dead_letter"
    assert list(driver.left_over()) == []


def test_after_its_deadline_nothing_is_sent_and_one_look_tells_what_is_left() -> None:
    driver = Driver()
    opened(driver, 1)
    sweep(driver, headers={"deadline": format_utc(START_US - 1)})
    driver.advance(1)
    assert driver.cancels_sent() == []
    final = mass_final(driver)
    assert (final["outcome"], final["error"]["code"], final["sent"]) == ("mass_incomplete", "deadline", "never")
    assert (final["mass"]["unsent"], final["mass"]["remaining"]) == (1, ["order-1"])
    assert order_finals(driver) == {"order-1": "deadline_passed"}


def test_an_order_that_was_never_sent_is_told_as_the_list_showed_it() -> None:
    driver = Driver()
    opened(driver, 1, Symbol="ETH-USD")
    sweep(driver, headers={"deadline": format_utc(START_US - 1)})
    driver.advance(1)
    (event,) = [e for e in driver.finals("mass") if e["index"]]
    assert (event["symbol"], event["sent"], event["order_live"]) == ("ETH-USD", "never", True)
    assert event["order"]["status"] == "New"


def test_an_order_of_which_no_word_came_is_told_as_the_last_list_showed_it() -> None:
    driver = Driver()
    opened(driver, 1)
    sweep(driver, headers={"deadline": format_utc(START_US + 20 * SECOND)})
    driver.advance(60)
    (event,) = [e for e in driver.finals("mass") if e["index"]]
    assert (event["outcome"], event["sent"], event["order_live"]) == ("unresolved", "yes", True)


def test_its_events_repeat_the_scope_and_say_whose_orders_it_covers() -> None:
    driver = Driver(kill={"customer_users": ("a", "b")})
    driver.answering = False
    sweep(driver, "Security", Symbol="BTC-USD", Side="Buy")
    driver.advance(1)
    asked = {"MassCancelRequestType": "Security", "Symbol": "BTC-USD", "Side": "Buy", "CustomerUser": None}
    told = [e["scope"] for e in driver.events(id="mass")]
    assert told
    assert all(scope == asked | {"customer_users": ["a", "b"]} for scope in told)


@pytest.mark.parametrize(("age_s", "sent"), [(59, True), (61, False)])
def test_without_a_deadline_it_is_max_age_after_the_amqp_timestamp(age_s: int, sent: bool) -> None:
    driver = Driver(kill={"max_age": 60.0})
    opened(driver, 1, SubmitTime="2026-03-09T14:00:00.000000Z")
    sweep(driver, timestamp_s=START_US // SECOND - age_s)
    assert bool(driver.cancels_sent()) is sent


def test_orders_that_close_otherwise_are_booked_so_and_a_list_may_tell_it() -> None:
    driver = Driver()
    opened(driver, 1, 2)
    sweep(driver)
    driver.report("Trade", OrderID="order-1", ClOrdID="x-1", OrdStatus="Filled", LeavesQty="0")
    driver.orders = [order("Expired", OrderID="order-2")]
    driver.advance(10)
    assert order_finals(driver) == {"order-1": "already_closed", "order-2": "already_closed"}
    assert mass_final(driver)["mass"]["already_closed"] == 2


def test_an_order_that_the_list_shows_canceled_by_our_own_request_is_canceled() -> None:
    driver = Driver()
    opened(driver, 1)
    sweep(driver)
    driver.orders = [order("Canceled", OrderID="order-1", ClOrdID=driver.cancels_sent()[0])]
    driver.advance(10)
    assert order_finals(driver) == {"order-1": "canceled"}
    assert mass_final(driver)["outcome"] == "mass_canceled"


def test_an_order_that_opens_while_the_mass_cancel_runs_is_swept_too() -> None:
    driver = Driver()
    opened(driver, 1)
    sweep(driver)
    opened(driver, 2)
    obey(driver)
    for _ in range(30):
        driver.advance(0.1)
        obey(driver)
    assert order_finals(driver) == {"order-1": "canceled", "order-2": "canceled"}
    assert mass_final(driver)["outcome"] == "mass_canceled"


def test_progress_is_told_at_least_every_250_ms() -> None:
    driver = Driver()
    opened(driver, 1)
    sweep(driver)
    for _ in range(40):
        driver.advance(0.05)
    progress = driver.events("mass_progress")
    assert len(progress) >= 8
    assert {e["mass"]["matched"] for e in progress} == {1}
    assert len({e["event_id"] for e in progress}) == len(progress)
    assert all((e["final"], e["index"]) == (False, 0) for e in progress)


def test_a_cancel_that_another_command_has_just_sent_is_not_sent_again() -> None:
    driver = Driver()
    driver.deliver(body=b'{"type":"OrderCancelRequest","data":[{"Symbol":"BTC-USD","OrderID":"order-1"}]}', id="one")
    opened(driver, 1)
    sweep(driver)
    assert len(driver.cancels_sent()) == 1
    obey(driver)
    driver.advance(1)
    assert driver.outcome("one") == "canceled"
    assert order_finals(driver) == {"order-1": "already_closed"}
    assert mass_final(driver)["outcome"] == "mass_canceled"


def test_but_if_that_one_is_refused_it_is_sent_after_all() -> None:
    driver = Driver()
    driver.deliver(body=b'{"type":"OrderCancelRequest","data":[{"Symbol":"BTC-USD","OrderID":"order-1"}]}', id="one")
    opened(driver, 1)
    sweep(driver)
    (sent,) = driver.cancels_sent()
    driver.report("CancelRejected", OrderID="order-1", ClOrdID=sent, CxlRejReason=2)
    assert driver.outcome("one") == "cancel_rejected"
    driver.advance(8)
    assert set(driver.cancels_sent()[1:]) & {derive_sweep_cl_ord_id("mass", "order-1", n) for n in range(20)}


def test_a_snapshot_on_a_lost_session_is_taken_anew() -> None:
    driver = Driver(sessions=2)
    driver.answering = False
    sweep(driver)
    before = len(driver.questions())
    driver.lose(driver.subscribes()[-1].session)
    driver.answering = True
    driver.advance(3)
    assert len(driver.questions()) > before
    assert mass_final(driver)["outcome"] == "mass_canceled"


# -- once: a redelivered mass cancel looks for its own final first


def test_a_redelivered_mass_cancel_whose_final_stands_in_the_audit_stream_is_only_acked() -> None:
    driver = Driver()
    opened(driver, 1)
    delivery = sweep(driver, redelivered=True, timestamp_s=START_US // SECOND - 3)
    (search,) = driver.searches
    assert (search.event_id, search.since_us) == (wire.final_id("mass", 0), START_US - 3 * SECOND)
    assert driver.cancels_sent() == []
    driver.audit_says(True, "mass")
    assert (driver.settlement(delivery), driver.events(), driver.cancels_sent()) == ("ack", [], [])
    assert list(driver.left_over()) == []


def test_not_found_it_starts_again_from_a_fresh_snapshot_and_says_so() -> None:
    driver = Driver()
    driver.report("New", OrderID="order-9")
    opened(driver, 1)
    sweep(driver, redelivered=True)
    driver.audit_says(False, "mass")
    assert [each["OrderID"] for frame in driver.cancel_frames() for each in frame["data"]] == ["order-1"]
    obey(driver)
    driver.advance(2)
    assert mass_final(driver)["mass"]["restarted"] is True


def test_an_audit_stream_that_cannot_be_read_is_asked_again_before_anything_fires() -> None:
    driver = Driver()
    opened(driver, 1)
    sweep(driver, redelivered=True)
    for n in range(2):
        driver.audit_says(None, "mass")
        driver.advance(30)
        assert len(driver.searches) == n + 2
    assert driver.cancels_sent() == []
    driver.audit_says(True, "somebody else's")
    assert driver.settled == []


def test_a_second_delivery_of_a_running_mass_cancel_joins_it() -> None:
    driver = Driver()
    opened(driver, 1)
    first, second = sweep(driver), sweep(driver)
    assert len(driver.cancels_sent()) == 1
    obey(driver)
    driver.advance(2)
    driver.confirm()
    assert (driver.settlement(first), driver.settlement(second)) == ("ack", "ack")
    assert mass_final(driver)["mass"]["canceled"] == 1


def test_a_second_delivery_while_an_order_waits_for_anothers_cancel_ends_nothing() -> None:
    driver = Driver()
    driver.deliver(body=b'{"type":"OrderCancelRequest","data":[{"Symbol":"BTC-USD","OrderID":"order-1"}]}', id="one")
    opened(driver, 1)
    sweep(driver)
    sweep(driver)
    assert driver.events("doubtful") == []
    obey(driver)
    driver.advance(1)
    assert order_finals(driver) == {"order-1": "already_closed"}


def test_a_late_close_after_a_reject_is_the_orders_final() -> None:
    driver = Driver()
    opened(driver, 1)
    sweep(driver)
    (sent,) = driver.cancels_sent()
    driver.report("CancelRejected", OrderID="order-1", ClOrdID=sent, CxlRejReason=2)
    driver.report("Canceled", OrderID="order-1", ClOrdID="z-9")
    driver.orders = []
    driver.advance(2)
    assert order_finals(driver) == {"order-1": "already_closed"}
    assert mass_final(driver)["outcome"] == "mass_canceled"
    assert mass_final(driver)["mass"]["rejected"] == 0


def test_reports_before_the_book_began_open_nothing_again() -> None:
    driver = Driver()
    driver.report("Canceled", OrderID="order-1")
    driver.frame(1, data=[report("New", OrderID="order-1")])
    driver.report("New", OrderID="NONE")
    sweep(driver)
    assert driver.cancels_sent() == []
