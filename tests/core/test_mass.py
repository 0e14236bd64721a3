"""Mass cancels (contract section 5): everything in scope, and flat only when the venue itself has shown it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from tests.core.driver import Driver, Told, delivered, received
from tests.core.payloads import START_US, Fields, cancel_body, item, order, report
from worker.core import sweep as sweep_module
from worker.core import sweeps
from worker.core.effects import SendText
from worker.core.facts import Delivery, PublisherUp
from worker.wire import event as wire
from worker.wire.command import Properties, derive_sweep_cl_ord_id
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


def pace(driver: Driver, seconds: float, but: tuple[str, ...] = ()) -> None:
    """Let time pass while the venue cancels what it is asked to."""
    for _ in range(round(seconds * 10)):
        driver.advance(0.1)
        obey(driver, but)


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


def in_book(driver: Driver, orders: int) -> None:
    """So many working orders in the worker's own book, and in the venue's list."""
    driver.orders = [order("New", OrderID=f"order-{n}", ClOrdID=f"x-{n}") for n in range(orders)]
    driver.frame(1, data=[report("New", OrderID=f"order-{n}", ClOrdID=f"x-{n}") for n in range(orders)])


def mass_command(id: str) -> Told:
    """A mass cancel of everything, as one fact."""
    body = json.dumps({"type": "OrderMassCancelRequest", "data": [{"MassCancelRequestType": "AllOrders"}]}).encode()
    return delivered(Delivery("kill", 1, 1000 + int(id[-1])), body, Properties(message_id=id))


def test_the_first_cancels_leave_while_the_others_are_made_and_no_list_is_asked_for_before_the_last() -> None:
    driver = Driver(sessions=2)
    most = sweeps.TAKEN_UP_AT_ONCE
    in_book(driver, 2 * most + 1)
    driver.answering = False
    engine = driver.engine
    before = len(driver.sent)
    mass_command("mass-1")(engine, driver.now)
    carried_out: list[int] = []
    more = True
    while more:
        more = engine.flush(driver.now)
        frames = [json.loads(e.data) for e in engine.effects if isinstance(e, SendText)]
        engine.effects.clear()
        carried_out.append(sum(len(frame["data"]) for frame in frames if frame["type"] == "OrderCancelRequest"))
        asked = [frame for frame in frames if frame["type"] == "subscribe"]
        assert bool(asked) is not more, "the list of all orders would be in the way of the cancels"
    assert carried_out == [0, most, most, 1, 0]
    assert len(driver.sent) == before


def test_nothing_of_the_normal_lane_goes_between_the_parts_of_a_sweep() -> None:
    driver = Driver(kill={"normal_batch": 0})
    in_book(driver, 2 * sweeps.TAKEN_UP_AT_ONCE)
    driver.answering = False
    normal = delivered(Delivery("cancel", 1, 1), cancel_body(item(7)), Properties(message_id="one"))
    driver.step(normal, mass_command("mass-1"))
    assert driver.cancels_sent()[-1] == "y-7"


def test_an_order_that_closes_before_its_turn_comes_is_not_sent_for() -> None:
    driver = Driver()
    in_book(driver, 3)
    driver.answering = False
    closed = report("Canceled", OrderID="order-1", ClOrdID="x-1")
    frame = {"reqid": driver.main(1), "type": "ExecutionReport", "data": [closed]}
    driver.step(mass_command("mass-1"), received(1, json.dumps(frame).encode()))
    assert [each["OrderID"] for frame in driver.cancel_frames() for each in frame["data"]] == ["order-0", "order-2"]


def test_a_mass_cancel_joins_a_single_one_that_comes_with_it() -> None:
    driver = Driver(sessions=2)
    in_book(driver, 3)
    driver.answering = False
    single = delivered(Delivery("kill", 1, 1), cancel_body(item(1)), Properties(message_id="one"))
    driver.step(mass_command("mass-1"), single)
    sent = [each["OrderID"] for frame in driver.cancel_frames() for each in frame["data"]]
    assert sent == ["order-1", "order-0", "order-2"]


def test_two_mass_cancels_that_come_at_once_send_one_cancel_an_order() -> None:
    driver = Driver(sessions=2)
    in_book(driver, 2 * sweeps.TAKEN_UP_AT_ONCE)
    driver.step(mass_command("mass-1"), mass_command("mass-2"))
    sent = [each["OrderID"] for frame in driver.cancel_frames() for each in frame["data"]]
    assert sorted(sent) == sorted(f"order-{n}" for n in range(2 * sweeps.TAKEN_UP_AT_ONCE))
    pace(driver, 5)
    finals = [e for command in ("mass-1", "mass-2") for e in driver.finals(command)]
    assert [e["outcome"] for e in finals if e["index"] == 0] == ["mass_canceled", "mass_canceled"]


def test_two_mass_cancels_whose_lists_end_at_once_send_one_cancel_an_order() -> None:
    driver = Driver(kill={"read_orders": False})
    driver.answering = False
    driver.step(mass_command("mass-1"), mass_command("mass-2"))
    lists = [s.frame["reqid"] for s in driver.subscribes() if s.frame["streams"][0]["name"] == "Order"]
    assert len(lists) == 2
    opened(driver, 0, 1, 2)
    frames = [{"reqid": reqid, "type": "Order", "seqNum": 1, "initial": True, "data": driver.orders} for reqid in lists]
    driver.step(*(received(1, json.dumps(frame).encode()) for frame in frames))
    assert sorted(each["OrderID"] for frame in driver.cancel_frames() for each in frame["data"]) == [
        "order-0", "order-1", "order-2",
    ]  # fmt: skip
    driver.answering = True
    pace(driver, 10)
    finals = [e for command in ("mass-1", "mass-2") for e in driver.finals(command)]
    assert [e["outcome"] for e in finals if e["index"] == 0] == ["mass_canceled", "mass_canceled"]
    assert {e["outcome"] for e in finals if e["index"]} <= {"canceled", "already_closed"}


EVERYTHING = json.dumps({"type": "OrderMassCancelRequest", "data": [{"MassCancelRequestType": "AllOrders"}]}).encode()


def test_a_mass_cancel_that_is_promoted_does_not_wait_for_what_the_normal_lane_holds_back() -> None:
    driver = Driver(venue={"rate_limit": 5.0})
    opened(driver, *range(20))
    driver.deliver(body=EVERYTHING, id="mass-1")
    driver.deliver(body=EVERYTHING, id="mass-2")
    driver.deliver(body=EVERYTHING, id="mass-2", lane="kill")
    driver.advance(0.1)
    assert {each["OrderID"] for frame in driver.cancel_frames() for each in frame["data"]} == {
        f"order-{n}" for n in range(20)
    }


def test_a_mass_cancel_does_not_wait_for_one_whose_deadline_is_earlier() -> None:
    driver = Driver(kill={"rate_limit": 20.0})
    opened(driver, *range(200))
    driver.deliver(body=EVERYTHING, id="mass-1", lane="kill", headers={"deadline": format_utc(START_US + SECOND)})
    driver.deliver(body=EVERYTHING, id="mass-2", lane="kill")
    pace(driver, 4)
    assert len(driver.cancels_sent()) > 70


@pytest.mark.parametrize("how", ["rejected", "rejected while pending", "refused"])
def test_a_mass_cancel_waits_for_anothers_cancel_no_longer_than_that_is_on_its_way(how: str) -> None:
    """The wait for what a PendingCancel promised is half a minute, and a deadline may come before its end."""
    driver = Driver()
    opened(driver, 1)
    driver.deliver(item(1), id="one", lane="kill")
    if how == "rejected while pending":
        driver.report("PendingCancel", OrderID="order-1", ClOrdID="y-1")
    sweep(driver)
    driver.advance(0.1)
    assert driver.cancels_sent() == ["y-1"], "it is joined"
    if how == "refused":
        driver.error(driver.cancel_frames()[0]["reqid"], 1)
    else:
        driver.report("CancelRejected", OrderID="order-1", ClOrdID="y-1", CxlRejReason=2)
    driver.advance(1.1)
    (frame,) = driver.cancel_frames()[1:]
    assert [(each["OrderID"], each["ClOrdID"] == "y-1") for each in frame["data"]] == [("order-1", False)]


def test_a_mass_cancel_does_not_wait_for_what_is_handed_back() -> None:
    driver = Driver(kill={"rate_limit": 1.0})
    opened(driver, 1, 2)
    driver.deliver(item(1), id="one", lane="kill")
    driver.deliver(body=EVERYTHING, id="mass-1", lane="kill")
    driver.deliver(body=EVERYTHING, id="mass-2")
    driver.lose_consumer("kill")
    driver.advance(1)
    assert "order-2" in {each["OrderID"] for frame in driver.cancel_frames() for each in frame["data"]}


def test_an_order_that_only_joined_anothers_cancel_counts_as_unsent_and_its_final_says_so() -> None:
    driver = Driver()
    opened(driver, 1)
    driver.deliver(item(1), id="one")
    sweep(driver, headers={"deadline": format_utc(START_US + SECOND)})
    pace(driver, 10, but=("order-1",))
    (event,) = [e for e in driver.finals("mass") if e["index"]]
    assert (event["outcome"], event["sent"], event["order_live"]) == ("deadline_passed", "never", True)
    assert (mass_final(driver)["mass"]["unsent"], mass_final(driver)["mass"]["unknown"]) == (1, 0)


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


def test_an_order_for_which_no_cancel_can_be_made_is_a_survivor_by_name() -> None:
    driver = Driver()
    opened(driver, 1, Symbol=None)
    sweep(driver)
    driver.advance(65)
    final = mass_final(driver)
    assert (final["error"]["code"], final["mass"]["remaining"]) == ("survivors", ["order-1"])
    assert (final["mass"]["matched"], final["mass"]["unsent"]) == (1, 1)
    assert order_finals(driver) == {"order-1": "deadline_passed"}


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


def test_a_list_that_costs_every_session_does_not_keep_the_mass_cancel_for_ever() -> None:
    """Before its deadline it goes on trying; after it, a few times more."""
    driver = Driver(kill={"read_orders": False})
    opened(driver, 1)
    driver.answering = False
    delivery = sweep(driver, headers={"deadline": format_utc(START_US + 10 * SECOND)})
    lost = 0
    while not driver.finals("mass") and lost < 30:
        lost += 1
        driver.lose(lost)
        driver.connect()
        driver.advance(1)
    assert (lost, mass_final(driver)["error"]["code"]) == (16, "not_proven")
    driver.confirm()
    assert driver.settlement(delivery) == "dead_letter"
    assert list(driver.left_over()) == []


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


def test_a_pending_cancel_holds_the_final_up_no_longer_than_a_first_report_takes() -> None:
    """Contract 5: after the deadline one fresh snapshot, then the final."""
    driver = Driver(venue={"report_timeout": 5.0, "pending_timeout": 30.0})
    opened(driver, 1, 2)
    sweep(driver, headers={"deadline": format_utc(START_US + 2 * SECOND)})
    first, second = driver.cancels_sent()
    for n, sent in ((1, first), (2, second)):
        driver.report("PendingCancel", OrderID=f"order-{n}", ClOrdID=sent)
    driver.advance(6.5)
    driver.orders.pop(0)
    driver.report("Canceled", OrderID="order-1", ClOrdID=first)
    assert "mass_incomplete" not in driver.outcomes("mass"), "it may still come"
    driver.advance(1.5)
    final = mass_final(driver)
    assert (final["outcome"], final["error"]["code"], final["mass"]["remaining"]) == (
        "mass_incomplete", "deadline", ["order-2"],
    )  # fmt: skip
    assert order_finals(driver) == {"order-1": "canceled", "order-2": "unresolved"}
    assert driver.cancels_sent() == [first, second]
    driver.report("Canceled", OrderID="order-2", ClOrdID=second)
    assert [e["late"] for e in driver.events("report")] == [True]
    driver.confirm()
    assert list(driver.left_over()) == []


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


def test_progress_does_not_pile_up_while_the_broker_confirms_none() -> None:
    driver = Driver()
    driver.answering = False
    driver.lose_publisher("kill")
    sweep(driver)
    driver.lose(1)
    driver.advance(50)
    assert len(driver.engine.outbox) <= 10
    driver.step(PublisherUp("kill"))
    told = driver.events("mass_progress")
    assert told
    driver.confirm()
    driver.advance(1)
    news = driver.events("mass_progress")[len(told) :]
    assert len(news) >= 4, "it goes on"
    assert len({e["event_id"] for e in told + news}) == len(told + news)


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
    before, lost = len(driver.questions()), driver.subscribes()[-1].session
    sent = [s for s in driver.sent if s.session == lost]
    driver.lose(lost)
    driver.answering = True
    driver.advance(3)
    assert [s for s in driver.sent if s.session == lost] == sent, "what was asked there needs no end"
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


@pytest.mark.parametrize("n", [0, 9, 63])
def test_a_cancel_of_any_sweep_of_another_process_is_the_mass_cancels_own(n: int) -> None:
    """It was restarted, or two workers carry it out since one lost its delivery: both must tell the same."""
    driver = Driver()
    opened(driver, 1)
    sweep(driver, redelivered=True)
    driver.audit_says(False, "mass")
    driver.report("Canceled", OrderID="order-1", ClOrdID=derive_sweep_cl_ord_id("mass", "order-1", n))
    assert order_finals(driver) == {"order-1": "canceled"}


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


def test_delivered_too_often_it_is_ended_rather_than_handed_back() -> None:
    driver = Driver()
    driver.answering = False
    opened(driver, 1)
    delivery = sweep(driver, redelivered=True, headers={"x-delivery-count": 9})
    driver.audit_says(False, "mass")
    driver.lose(1)
    driver.stop_consumers()
    final = mass_final(driver)
    assert (final["outcome"], final["error"]["code"], final["sent"]) == ("mass_incomplete", "not_proven", "maybe")
    assert "delivered 10 times" in final["error"]["message"]
    driver.confirm()
    assert driver.settlement(delivery) == "dead_letter"
    assert list(driver.left_over()) == []


@pytest.mark.parametrize("flat", [False, True])
def test_it_is_ended_once_however_often_it_is_found_to_have_been_delivered_too_often(flat: bool) -> None:
    """Its final waits for a confirm while deliveries held too long are looked over, and the worker is stopped."""
    driver = Driver(broker={"hold_limit": 20.0})
    driver.answering = flat
    driver.lose_publisher("kill")
    delivery = sweep(driver, redelivered=True, headers={"x-delivery-count": 9})
    driver.audit_says(False, "mass")
    driver.advance(40)
    driver.ask_to_stop()
    driver.stop_consumers()
    driver.end_grace()
    driver.step(PublisherUp("kill"))
    assert [e.outcome for e in driver.published if e.final] == ["mass_canceled" if flat else "mass_incomplete"]
    driver.confirm()
    assert driver.settlement(delivery) == ("ack" if flat else "dead_letter")
    assert driver.stopped == 1
    assert list(driver.left_over()) == []


def test_its_final_may_be_confirmed_after_it_was_handed_back() -> None:
    driver = Driver()
    driver.lose_publisher("kill")
    delivery = sweep(driver)
    driver.ask_to_stop()
    driver.stop_consumers()
    driver.end_grace()
    assert driver.settlement(delivery) == "requeue"
    driver.step(PublisherUp("kill"))
    driver.confirm()
    assert mass_final(driver)["outcome"] == "mass_canceled"
    assert list(driver.left_over()) == []


def test_once_incomplete_it_is_dead_lettered_however_often_it_comes() -> None:
    driver = Driver()
    opened(driver, 1)
    first = sweep(driver)
    driver.advance(70)
    assert mass_final(driver)["outcome"] == "mass_incomplete"
    driver.confirm()
    again = sweep(driver, redelivered=True)
    driver.confirm()
    assert (driver.settlement(first), driver.settlement(again)) == ("dead_letter", "dead_letter")


def test_once_acked_for_its_final_in_the_audit_stream_it_is_acked_however_often_it_comes() -> None:
    driver = Driver()
    first = sweep(driver, redelivered=True)
    driver.audit_says(True, "mass")
    again = sweep(driver, redelivered=True)
    assert (driver.settlement(first), driver.settlement(again)) == ("ack", "ack")
    assert driver.events() == []
    assert list(driver.left_over()) == []


def test_a_large_mass_cancel_pushes_nobody_elses_end_out_of_memory() -> None:
    driver = Driver(results={"memory": 20})
    driver.deliver(body=b'{"type":"OrderCancelRequest","data":[{"Symbol":"BTC-USD","OrderID":"order-99"}]}', id="one")
    driver.report("Canceled", OrderID="order-99", ClOrdID=driver.cancels_sent()[0])
    driver.confirm()
    opened(driver, *range(1, 31))
    sweep(driver)
    obey(driver)
    driver.advance(1)
    driver.confirm()
    sent = len(driver.cancels_sent())
    opened(driver, 50)
    again = sweep(driver)
    once_more = driver.deliver(
        body=b'{"type":"OrderCancelRequest","data":[{"Symbol":"BTC-USD","OrderID":"order-99"}]}', id="one"
    )
    driver.confirm()
    assert (driver.settlement(again), driver.settlement(once_more)) == ("ack", "ack")
    assert len(driver.cancels_sent()) == sent, "neither fires again"
    assert driver.published[-2].event_id == wire.final_id("mass", 0)


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
    driver.advance(1.5)
    assert len(driver.cancels_sent()) == 1, "the one that was joined is young still"
    assert driver.engine.stats.doubts["redelivered"] == 0
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


def test_a_reject_in_mid_sweep_is_told_as_a_report_and_ends_nothing() -> None:
    driver = Driver()
    opened(driver, 1)
    sweep(driver)
    (sent,) = driver.cancels_sent()
    record = driver.report("CancelRejected", OrderID="order-1", ClOrdID=sent, CxlRejReason=2, Text="not now")
    (told,) = driver.events("report")
    assert (told["final"], told["order_live"], told["report"]) == (False, True, record)
    assert told["event_id"] == wire.report_id("mass", "order order-1", record["ExecID"])
    assert driver.finals() == []


def test_a_report_between_a_reject_and_the_orders_final_is_not_late() -> None:
    driver = Driver()
    opened(driver, 1)
    sweep(driver)
    (sent,) = driver.cancels_sent()
    driver.report("CancelRejected", OrderID="order-1", ClOrdID=sent, CxlRejReason=2)
    driver.report("Trade", OrderID="order-1", ClOrdID="x-1", CumQty="0.1", LeavesQty="0.4")
    assert [(e["report"]["ExecType"], e["late"]) for e in driver.events("report")] == [
        ("CancelRejected", False), ("Trade", False),
    ]  # fmt: skip
    assert driver.engine.stats.late_reports == 0
    pace(driver, 20)
    assert order_finals(driver) == {"order-1": "canceled"}
    driver.report("Trade", OrderID="order-1", ClOrdID="x-1", CumQty="0.2", LeavesQty="0")
    assert driver.events("report")[-1]["late"]


def test_a_cancel_that_comes_to_its_deadline_unsent_takes_no_earlier_answer_away() -> None:
    driver = Driver(kill={"rate_limit": 1.0})
    opened(driver, 1)
    sweep(driver, headers={"deadline": format_utc(START_US + 200_000)})
    (sent,) = driver.cancels_sent()
    driver.report("CancelRejected", OrderID="order-1", ClOrdID=sent, CxlRejReason=2)
    driver.advance(5)
    assert len(driver.cancels_sent()) == 1
    (event,) = [e for e in driver.finals("mass") if e["index"]]
    assert (event["outcome"], event["sent"], event["attempt"]) == ("cancel_rejected", "yes", 1)
    assert mass_final(driver)["mass"]["rejected"] == 1


def test_only_orders_submitted_before_the_deadline_by_the_clock_of_the_venue_are_swept() -> None:
    """A venue whose clock is five minutes ahead: its SubmitTime is no proof that an order is too young."""
    driver = Driver(sessions=0)
    driver.greet(driver.open(), format_utc(START_US + 300 * SECOND))
    driver.frame(1, data=[], initial=True)
    opened(driver, 1, SubmitTime=format_utc(START_US + 299 * SECOND))
    opened(driver, 2, SubmitTime=format_utc(START_US + 361 * SECOND))
    sweep(driver)
    assert [each["OrderID"] for frame in driver.cancel_frames() for each in frame["data"]] == ["order-1"]


def test_a_list_that_lags_behind_the_reports_is_no_proof_and_names_no_survivor() -> None:
    driver = Driver()
    opened(driver, 1)
    sweep(driver)
    driver.report("Canceled", OrderID="order-1", ClOrdID=driver.cancels_sent()[0])
    driver.advance(65)
    final = mass_final(driver)
    assert (final["outcome"], final["error"]["code"]) == ("mass_incomplete", "not_proven")
    assert final["mass"]["remaining"] == []
    assert "the list still shows 1 order reported as closed" in final["error"]["message"]


def test_a_list_that_holds_fewer_orders_than_the_venue_counts_is_no_proof() -> None:
    driver = Driver()
    driver.answering = False
    sweep(driver)
    answered = 0
    while not driver.finals():
        driver.advance(0.05)
        if len(driver.questions()) > answered:
            answered += 1
            driver.frame(1, driver.subscribes()[-1].frame["reqid"], "Order", initial=True, data=[], total_count=1)
    final = mass_final(driver)
    assert final["error"]["code"] == "not_proven"
    assert "the venue counts 1 order and listed 0" in final["error"]["message"]


def test_an_order_on_two_pages_makes_up_for_no_order_that_the_list_lacks() -> None:
    driver = Driver()
    driver.answering = False
    sweep(driver)
    reqid = driver.subscribes()[-1].frame["reqid"]
    page = {"initial": True, "data": [order("Filled", OrderID="order-1", LeavesQty="0")], "total_count": 2}
    driver.frame(1, reqid, "Order", **page, next="a")
    driver.frame(1, reqid, "Order", **page)
    driver.advance(0.1)
    assert driver.finals("mass") == []
    driver.advance(70)
    assert mass_final(driver)["outcome"] == "mass_incomplete"


def test_a_list_whose_first_frame_went_missing_is_no_proof() -> None:
    """The numbers of a stream's frames begin with 1 (protocol section 8, rule 7)."""
    driver = Driver()
    driver.answering = False
    sweep(driver)
    reqid = driver.subscribes()[-1].frame["reqid"]
    driver.frame_numbers[1, reqid] = 1
    driver.frame(1, reqid, "Order", initial=True, data=[])
    driver.advance(0.1)
    assert driver.finals("mass") == []
    driver.answering = True
    driver.advance(3)
    assert mass_final(driver)["outcome"] == "mass_canceled", "by another list"


def test_an_order_that_leaves_the_list_is_not_closed_by_that() -> None:
    driver = Driver()
    driver.answering = False
    sweep(driver)
    reqid = driver.subscribes()[-1].frame["reqid"]
    page = [order("New", OrderID="order-1", ClOrdID="x-1")]
    driver.frame(1, reqid, "Order", initial=True, data=page, next="a")
    driver.frame(1, reqid, "Order", action="Remove", data=[order("Canceled", OrderID="order-1", ClOrdID="x-1")])
    driver.frame(1, reqid, "Order", initial=True, data=[])
    driver.advance(0.1)
    assert [each["OrderID"] for frame in driver.cancel_frames() for each in frame["data"]] == ["order-1"]
    assert driver.finals() == []


def test_a_page_that_is_older_than_a_live_frame_opens_nothing_again() -> None:
    driver = Driver()
    driver.answering = False
    sweep(driver)
    reqid = driver.subscribes()[-1].frame["reqid"]
    driver.frame(1, reqid, "Order", initial=True, data=[], next="a")
    driver.frame(1, reqid, "Order", data=[order("Cancelled", OrderID="order-1", ClOrdID="x-1")])
    driver.frame(1, reqid, "Order", initial=True, data=[order("New", OrderID="order-1", ClOrdID="x-1")])
    driver.advance(0)
    assert driver.cancels_sent() == []
    assert mass_final(driver)["outcome"] == "mass_canceled"


def test_a_list_is_believed_over_a_report_that_does_not_come_when_a_second_one_agrees() -> None:
    driver = Driver()
    opened(driver, 1)
    sweep(driver)
    (sent,) = driver.cancels_sent()
    driver.report("PendingCancel", OrderID="order-1", ClOrdID=sent)
    driver.orders = [order("Canceled", OrderID="order-1", ClOrdID=sent)]
    driver.advance(1.5)
    assert driver.finals() == [], "its report may be on its way"
    driver.advance(2)
    assert order_finals(driver) == {"order-1": "canceled"}


def test_after_a_refused_frame_its_cancels_go_alone_so_that_a_bad_one_harms_no_neighbour() -> None:
    driver = Driver()
    opened(driver, 1, 2, 3)
    sweep(driver)
    seen = 0
    for _ in range(200):
        frames = driver.cancel_frames()
        for frame in frames[seen:]:
            if any(each["OrderID"] == "order-2" for each in frame["data"]):
                driver.error(frame["reqid"], 1)
            else:
                for each in frame["data"]:
                    driver.orders = [o for o in driver.orders if o["OrderID"] != each["OrderID"]]
                    driver.report("Canceled", OrderID=each["OrderID"], ClOrdID=each["ClOrdID"])
        seen = len(frames)
        driver.advance(0.1)
    assert [len(frame["data"]) for frame in driver.cancel_frames()[:4]] == [3, 1, 1, 1]
    assert order_finals(driver) == {"order-1": "canceled", "order-2": "refused", "order-3": "canceled"}
    assert mass_final(driver)["mass"]["remaining"] == ["order-2"]


def test_a_venue_that_asks_for_a_slower_pace_is_not_hammered() -> None:
    """Whole frames refused by a code that is no refusal, though some progress is made: rounds wait ever longer."""
    driver = Driver()
    opened(driver, *range(1, 61))
    sweep(driver)
    seen, rounds = 0, []
    for _ in range(400):
        frames = driver.cancel_frames()
        if len(frames) > seen:
            rounds.append(driver.mono)
            for each in frames[seen]["data"][:1]:
                driver.orders = [o for o in driver.orders if o["OrderID"] != each["OrderID"]]
                driver.report("Canceled", OrderID=each["OrderID"], ClOrdID=each["ClOrdID"])
            for frame in frames[seen:]:
                assert len(frame["data"]) > 1 or len(driver.orders) < 2, "together: alone they would be more frames"
                driver.error(frame["reqid"], 429)
        seen = len(frames)
        driver.advance(0.02)
    waits = [later - earlier for earlier, later in itertools.pairwise(rounds)]
    assert len(rounds) < 12, rounds
    assert waits[4] > 3 * waits[0]


@pytest.mark.parametrize("sessions", [0, 1])
def test_what_can_not_be_done_now_wakes_nobody_again_and_again(sessions: int) -> None:
    """Neither while no session is ready nor while the venue takes its time for a list."""
    driver = Driver(sessions=sessions)
    driver.answering = False
    sweep(driver)
    driver.advance(1.9)
    due = driver.engine.next_due()
    assert due is not None
    assert due > driver.mono


# -- the worker's own book


def listed(*records: Fields, **settings: Any) -> Driver:
    """A worker that began when the venue's list held these orders."""
    driver = Driver(sessions=0, **settings)
    driver.orders = list(records)
    driver.connect()
    driver.orders = []
    return driver


def first_sweep(driver: Driver, **asked: Any) -> list[str]:
    """The orders that a mass cancel sends for before any list of its own has come."""
    driver.answering = False
    sweep(driver, **asked)
    return [each["OrderID"] for frame in driver.cancel_frames() for each in frame["data"]]


def test_orders_older_than_the_worker_are_swept_at_once() -> None:
    driver = listed(
        order("New", OrderID="order-1"),
        order("PendingCancel", OrderID="order-2", ExecType="PendingCancel"),
        order("Filled", OrderID="order-3"),
        order("PartiallyFilled", OrderID="order-4", Symbol="ETH-USD"),
    )
    assert driver.listings() == [{"name": "Order", "StartDate": format_utc(START_US - 30 * 86_400 * SECOND)}]
    assert list(driver.left_over()) == [], "the stream is ended: the reports keep the book"
    driver.report("Canceled", OrderID="order-4")
    assert first_sweep(driver) == ["order-1", "order-2"]


def test_the_list_for_the_book_holds_up_no_cancel() -> None:
    driver = Driver(sessions=0)
    driver.listing = False
    driver.connect()
    driver.deliver({"Symbol": "BTC-USD", "OrderID": "order-1", "ClOrdID": "y-1"})
    assert driver.cancels_sent() == ["y-1"]


def test_a_list_that_reports_have_overtaken_opens_nothing_again() -> None:
    driver = Driver(sessions=0)
    driver.listing = False
    driver.connect()
    (asked,) = [s for s in driver.sent if s.frame["type"] == "subscribe" and s.frame["streams"][0]["name"] == "Order"]
    driver.report("Canceled", OrderID="order-1")
    driver.report("New", OrderID="order-2")
    driver.frame(1, asked.frame["reqid"], "Order", initial=True, data=[order("New", OrderID="order-1")])
    assert first_sweep(driver) == ["order-2"], "closed meanwhile, and opened meanwhile"


def test_one_session_reads_the_list_and_when_it_is_lost_another_does() -> None:
    driver = Driver(sessions=2)
    assert len(driver.listings()) == 1
    driver.orders = [order("New", OrderID="order-1")]
    driver.lose(2)
    assert len(driver.listings()) == 1
    driver.connect()
    assert len(driver.listings()) == 1
    driver.lose(1)
    assert len(driver.listings()) == 2
    driver.orders = []
    assert first_sweep(driver) == ["order-1"]


def test_a_new_list_drops_from_the_book_what_it_does_not_show() -> None:
    driver = listed(order("New", OrderID="order-1"), order("New", OrderID="order-2"))
    driver.orders = [order("New", OrderID="order-2")]
    driver.lose(1)
    driver.connect()
    assert first_sweep(driver) == ["order-2"]


def test_a_list_that_costs_one_session_after_the_other_is_left_alone_for_a_while() -> None:
    """Too large for one message, say: sessions that end as soon as they are ready would carry no cancel at all."""
    driver = Driver(sessions=0)
    driver.listing = False
    for number in (1, 2, 3, 4):
        driver.connect()
        driver.lose(number, "closed with 1009")
        driver.advance(1)
    assert len(driver.listings()) == 2
    driver.advance(60)
    driver.listing = True
    for number in (5, 6):
        driver.connect()
        driver.lose(number)
    assert len(driver.listings()) == 4, "what has worked once is done at every session's start again"


def test_it_is_read_after_that_while_on_the_sessions_that_stayed() -> None:
    driver = Driver(sessions=0)
    driver.listing = False
    for number in (1, 2):
        driver.connect()
        driver.lose(number, "closed with 1009")
    driver.connect()
    driver.orders = [order("New", OrderID="order-1")]
    driver.listing = True
    driver.advance(59)
    assert len(driver.listings()) == 2
    driver.advance(2)
    assert len(driver.listings()) == 3
    driver.advance(300)
    assert len(driver.listings()) == 3, "once"
    driver.orders = []
    assert first_sweep(driver) == ["order-1"]


def test_it_waits_for_a_session_if_none_is_ready_then() -> None:
    driver = Driver(sessions=0)
    driver.listing = False
    for number in (1, 2):
        driver.connect()
        driver.lose(number, "closed with 1009")
    driver.advance(70)
    due = driver.engine.next_due()
    assert due is None or due > driver.mono, "nobody is woken for it"
    driver.connect()
    assert len(driver.listings()) == 3


def test_the_book_can_be_turned_off() -> None:
    driver = listed(order("New", OrderID="order-1"), kill={"read_orders": False})
    assert driver.listings() == []
    assert first_sweep(driver) == []


def test_a_bad_record_in_the_list_for_the_book_drops_nothing() -> None:
    driver = listed(order("New", OrderID="order-1"))
    driver.orders = [{"OrderID": "order-2", "OrdStatus": 7}]
    driver.lose(1)
    driver.connect()
    assert first_sweep(driver) == ["order-1"]


# -- killed within a sweep: what an earlier process did is read from the reports before anything is sent


def of_sweep(exec_type: str, order_number: int, number: int = 1, **fields: Any) -> Fields:
    """A report on the cancel that an earlier process sent in sweep ``number``."""
    order_id = f"order-{order_number}"
    stamp = format_utc(START_US - 1_000_000 + number * 1000)
    request = derive_sweep_cl_ord_id("mass", order_id, number)
    return report(exec_type, **{"OrderID": order_id, "ClOrdID": request, "Timestamp": stamp, **fields})


def restarted(driver: Driver, **more: Any) -> Delivery:
    """The mass cancel comes again and its final does not stand in the audit stream."""
    delivery = sweep(driver, redelivered=True, timestamp_s=START_US // SECOND - 2, **more)
    driver.audit_says(False, "mass")
    return delivery


def test_orders_that_closed_while_no_worker_ran_have_their_finals_and_count() -> None:
    driver = Driver()
    driver.history = [
        report("Trade", OrderID="order-2", ClOrdID="x-2", OrdStatus="Filled", LeavesQty="0",
               Timestamp=format_utc(START_US - 900_000)),
        of_sweep("Canceled", 1),
        of_sweep("CancelRejected", 2, OrdStatus="Filled", CxlRejReason=0),
        of_sweep("CancelRejected", 3, CxlRejReason=2),
        report("Canceled", OrderID="order-9", ClOrdID="somebody's"),
    ]  # fmt: skip
    opened(driver, 3)
    delivery = restarted(driver)
    replay, *_ = driver.questions()
    assert replay == {"name": "ExecutionReport", "StartDate": format_utc(START_US - 62 * SECOND)}
    assert order_finals(driver) == {"order-1": "canceled", "order-2": "already_closed"}
    canceled = next(e for e in driver.finals("mass") if e["order_id"] == "order-1")
    assert canceled["event_id"] == wire.final_id("mass", "order order-1")
    assert (canceled["sent"], canceled["report"], canceled["symbol"]) == ("yes", driver.history[1], "BTC-USD")
    (again,) = driver.cancels_sent()
    assert again == derive_sweep_cl_ord_id("mass", "order-3", 2), "no id of an earlier sweep"
    pace(driver, 2)
    final = mass_final(driver)
    assert (final["outcome"], final["mass"]["restarted"], final["sent"]) == ("mass_canceled", True, "yes")
    assert [final["mass"][k] for k in ("matched", "canceled", "already_closed")] == [3, 2, 1]
    driver.confirm()
    assert driver.settlement(delivery) == "ack"
    assert list(driver.left_over()) == []


def test_of_several_cancels_of_an_order_the_newest_counts_whatever_the_order_of_the_pages() -> None:
    driver = Driver()
    driver.history = [
        of_sweep("Canceled", 1, 3),
        of_sweep("CancelRejected", 1, 2, CxlRejReason=2),
        of_sweep("CancelRejected", 2, 1, CxlRejReason=2),
        of_sweep("Canceled", 2, 2),
    ]
    restarted(driver)
    driver.advance(1)
    told = {e["order_id"]: (e["outcome"], e["cl_ord_id"]) for e in driver.finals("mass") if e["index"]}
    assert told == {
        "order-1": ("canceled", derive_sweep_cl_ord_id("mass", "order-1", 3)),
        "order-2": ("canceled", derive_sweep_cl_ord_id("mass", "order-2", 2)),
    }
    assert driver.cancels_sent() == []
    assert mass_final(driver)["outcome"] == "mass_canceled"


def test_what_a_replay_tells_of_others_costs_a_restarted_mass_cancel_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids that a worker derives look alike: to tell whose one is takes many hashes, so each is looked at once."""
    derived = 0

    def counting(command_id: str, order_id: str, number: int) -> str:
        nonlocal derived
        derived += 1
        return derive_sweep_cl_ord_id(command_id, order_id, number)

    monkeypatch.setattr(sweep_module, "derive_sweep_cl_ord_id", counting)
    driver = Driver()
    alike = [(f"order-{n}", derive_sweep_cl_ord_id("another", f"order-{n}", 1)) for n in range(40)]
    driver.history = [
        report("Trade", OrderID=order_id, ClOrdID=request, Symbol=symbol)
        for symbol, some in (("BTC-USD", alike[:20]), ("ETH-USD", alike[20:]))
        for order_id, request in some * 10
    ]
    restarted(driver, scope="Security", Symbol="BTC-USD")
    assert derived == 20 * 64


def test_an_order_whose_cancel_the_venue_still_works_on_is_waited_for() -> None:
    driver = Driver()
    driver.history = [of_sweep("PendingCancel", 1)]
    driver.orders = [order("PendingCancel", OrderID="order-1")]
    restarted(driver)
    driver.advance(1)
    assert driver.cancels_sent() == []
    driver.report("Canceled", OrderID="order-1", ClOrdID=derive_sweep_cl_ord_id("mass", "order-1", 1))
    driver.orders = []
    driver.advance(2)
    assert order_finals(driver) == {"order-1": "canceled"}
    assert mass_final(driver)["mass"]["canceled"] == 1


def test_a_report_between_the_replay_and_the_list_is_not_missed() -> None:
    driver = Driver()
    driver.answering = False
    restarted(driver)
    replay = driver.subscribes()[-1].frame["reqid"]
    driver.frame(1, replay, initial=True, data=[])
    driver.frame(1, replay, data=[of_sweep("Canceled", 1)])
    driver.answering = True
    driver.advance(1)
    assert order_finals(driver) == {"order-1": "canceled"}
    assert mass_final(driver)["mass"]["matched"] == 1


def test_a_report_right_behind_the_list_is_not_missed() -> None:
    """One read brings the end of the list and the answer to an earlier process's cancel of an order that it shows."""
    driver = Driver()
    driver.answering = False
    restarted(driver)
    driver.frame(1, driver.subscribes()[-1].frame["reqid"], initial=True, data=[])
    driver.advance(0.1)
    asked = driver.subscribes()[-1].frame
    assert asked["streams"][0]["name"] == "Order"
    shown = {"reqid": asked["reqid"], "type": "Order", "initial": True, "seqNum": 1}
    closed = {"reqid": driver.main(1), "type": "ExecutionReport", "data": [of_sweep("Canceled", 1)]}
    gone = {**shown, "initial": False, "seqNum": 2, "data": [order("Canceled", OrderID="order-1")]}
    shown["data"] = [order("New", OrderID="order-1")]
    driver.step(*(received(1, json.dumps(frame).encode()) for frame in (shown, closed, gone)))
    driver.answering = True
    driver.advance(3)
    assert order_finals(driver) == {"order-1": "canceled"}
    assert mass_final(driver)["mass"]["matched"] == 1


def test_a_reject_that_comes_before_the_replay_has_ended_does_not_hide_the_report() -> None:
    """The final rests on the report, and has the order as that report has it: so did that of the process before."""
    canceled = of_sweep("Canceled", 1, 1)
    rejected = of_sweep("CancelRejected", 1, 2, OrdStatus="Canceled", CxlRejReason=0, Timestamp=format_utc(START_US))
    driver = Driver()
    driver.answering = False
    restarted(driver)
    replay = driver.subscribes()[-1].frame["reqid"]
    driver.frame(1, replay, initial=True, data=[canceled], next="2")
    driver.frame(1, replay, data=[rejected])
    assert order_finals(driver) == {}
    driver.frame(1, replay, initial=True, data=[])
    (final,) = [e for e in driver.finals("mass") if e["index"]]
    assert (final["outcome"], final["report"]) == ("canceled", canceled)
    assert final["order"]["as_of"] == canceled["Timestamp"]


@pytest.mark.parametrize("step", [1, -1], ids=["in turn", "backwards"])
@pytest.mark.parametrize("live", [False, True], ids=["replayed", "the reject live"])
def test_what_closed_an_order_after_the_mass_cancel_was_asked_for_is_its_final(step: int, live: bool) -> None:
    """The process before saw the fill; the page that tells of it may come before the order is known to be swept."""
    fill = report("Trade", OrderID="order-1", ClOrdID="x-1", OrdStatus="Filled", LeavesQty="0",
                  Timestamp=format_utc(START_US - 1_500_000))  # fmt: skip
    rejected = of_sweep("CancelRejected", 1, OrdStatus="Filled", CxlRejReason=0)
    driver = Driver()
    driver.answering = False
    restarted(driver)
    replay = driver.subscribes()[-1].frame["reqid"]
    pages = [fill, rejected][::step]
    driver.frame(1, replay, initial=True, data=pages[:1], next="2")
    if live:
        driver.frame(1, data=[rejected])
    driver.frame(1, replay, initial=True, data=pages[1:])
    driver.answering = True
    driver.advance(2)
    (final,) = [e for e in driver.finals("mass") if e["index"]]
    assert (final["outcome"], final["report"], final["order"]["as_of"]) == ("already_closed", fill, fill["Timestamp"])


def test_a_reject_that_says_closed_ends_an_order_of_a_mass_cancel_at_once() -> None:
    driver = Driver()
    opened(driver, 1)
    sweep(driver, timestamp_s=START_US // SECOND - 2)
    (sent,) = driver.cancels_sent()
    driver.orders = []
    rejected = report("CancelRejected", OrderID="order-1", ClOrdID=sent, OrdStatus="Filled", CxlRejReason=0)
    driver.frame(1, data=[rejected])
    (final,) = [e for e in driver.finals("mass") if e["index"]]
    assert (final["outcome"], final["report"]) == ("already_closed", rejected)
    driver.advance(0.5)
    assert mass_final(driver)["outcome"] == "mass_canceled"
    driver.confirm()
    assert list(driver.left_over()) == []


def test_a_lost_report_is_read_before_a_list_is_believed() -> None:
    driver = Driver()
    opened(driver, 1)
    sweep(driver)
    (sent,) = driver.cancels_sent()
    canceled = report("Canceled", OrderID="order-1", ClOrdID=sent)
    driver.history = [canceled]
    driver.orders = [order("Canceled", OrderID="order-1", ClOrdID=sent)]
    driver.advance(10)
    (final,) = [e for e in driver.finals("mass") if e["index"]]
    assert (final["outcome"], final["report"]) == ("canceled", canceled)
    assert mass_final(driver)["outcome"] == "mass_canceled"


def test_a_replay_that_the_venue_does_not_end_holds_up_no_sweep_but_the_final() -> None:
    driver = Driver()
    driver.answering = False
    opened(driver, 1)
    restarted(driver, headers={"deadline": format_utc(START_US + 20 * SECOND)})
    driver.advance(1.5)
    assert driver.cancels_sent() == [], "the replay comes first"
    for _ in range(100):
        for sent in [s for s in driver._unanswered if s.frame["type"] == "subscribe"]:
            if sent.frame["streams"][0]["name"] == "Order":
                driver._unanswered.remove(sent)
                driver._answer(sent)
        obey(driver)
        driver.advance(0.1)
        if driver.cancels_sent() and driver.mono < 1004:
            assert [e for e in driver.finals("mass") if e["index"] == 0] == []
    assert order_finals(driver) == {"order-1": "canceled"}
    assert mass_final(driver)["outcome"] == "mass_canceled", "in vain three times, though the venue answered the lists"


def test_replays_that_break_off_are_not_in_vain_as_long_as_each_brings_an_order() -> None:
    driver = Driver()
    driver.answering = False
    restarted(driver)
    replays = 0
    for _ in range(200):
        for sent in [s for s in driver._unanswered if s.frame["type"] == "subscribe"]:
            driver._unanswered.remove(sent)
            if sent.frame["streams"][0]["name"] == "Order":
                driver._answer(sent)
                continue
            replays += 1
            there = [of_sweep("Canceled", n) for n in (replays, replays + 1)] if replays < 6 else []
            more = {"next": "more"} if replays < 6 else {}
            driver.frame(1, sent.frame["reqid"], initial=True, data=there, **more)
        driver.advance(0.1)
    assert replays == 6
    final = mass_final(driver)
    assert (final["outcome"], final["mass"]["matched"], final["mass"]["canceled"]) == ("mass_canceled", 6, 6)


def test_a_replay_on_a_lost_session_is_asked_anew_on_another() -> None:
    driver = Driver(sessions=2)
    driver.answering = False
    restarted(driver)
    driver.lose(driver.subscribes()[-1].session)
    driver.answering = True
    driver.history = [of_sweep("Canceled", 1)]
    driver.advance(3)
    assert order_finals(driver) == {"order-1": "canceled"}
    assert mass_final(driver)["mass"]["canceled"] == 1


def test_restarted_and_past_its_deadline_it_tells_what_became_of_its_orders_and_sends_nothing() -> None:
    driver = Driver()
    driver.history = [of_sweep("Canceled", 1)]
    opened(driver, 2)
    restarted(driver, headers={"deadline": format_utc(START_US - 1)})
    driver.advance(1)
    assert driver.cancels_sent() == []
    assert order_finals(driver) == {"order-1": "canceled", "order-2": "deadline_passed"}
    (unsent,) = [e for e in driver.finals("mass") if e["order_id"] == "order-2"]
    assert (unsent["sent"], unsent["order_live"]) == ("maybe", True), "an earlier process may have sent it"
    final = mass_final(driver)
    assert (final["outcome"], final["error"]["code"], final["mass"]["remaining"]) == (
        "mass_incomplete", "deadline", ["order-2"],
    )  # fmt: skip
    assert [final["mass"][k] for k in ("matched", "canceled", "unsent")] == [2, 1, 1]


@pytest.mark.parametrize(("form", "kind"), [("none", None), ("array", list), ("comma", str)])
def test_the_list_is_filtered_by_status_only_in_the_form_that_is_said_to_work(form: str, kind: type | None) -> None:
    """Protocol 3.2: array or comma-separated text; and never on a stream of reports, nor to look one order up."""
    driver = Driver(venue={"statuses_form": form})
    opened(driver, 1)
    sweep(driver)
    driver.deliver(
        body=b'{"type":"OrderCancelRequest","data":[{"Symbol":"S","OrderID":"o"}]}', id="y", redelivered=True
    )
    snapshot = next(q for q in driver.questions() if q["name"] == "Order" and "OrderID" not in q)
    statuses = snapshot.get("Statuses")
    assert statuses is None if kind is None else isinstance(statuses, kind)
    if statuses is not None:
        words = statuses.split(",") if isinstance(statuses, str) else statuses
        assert {"New", "PartiallyFilled", "PendingCancel"} <= set(words)
        assert not {"Filled", "Canceled", "Rejected", "Expired"} & set(words)
    for each in (s.frame["streams"][0] for s in driver.subscribes()):
        assert "Statuses" not in each or (each["name"], "OrderID" in each) == ("Order", False)
    obey(driver)
    driver.advance(2)
    assert mass_final(driver)["outcome"] == "mass_canceled"
