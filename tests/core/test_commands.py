"""Commands in and out: one attempt per id, settled once, late enough, handed back once (contract 4, 5; I1, I7)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.driver import LANES, Driver
from tests.core.payloads import Fields, item, order
from worker.core.facts import ConsumerStopped, ConsumerUp
from worker.wire import event as wire

WORKING = [order("New", OrderID=f"order-{n}", ClOrdID="ord-000417") for n in range(1, 10)]


def settled(driver: Driver) -> list[str]:
    return [each.how for each in driver.settled]


# -- settled only after every final is confirmed


def test_a_command_is_acked_after_the_last_of_its_finals_was_confirmed_and_not_before() -> None:
    driver = Driver()
    delivery = driver.deliver(item(1), item(2))
    driver.report("PendingCancel", ClOrdID="y-1")
    driver.report("Canceled", ClOrdID="y-1")
    driver.confirm()
    assert driver.settlement(delivery) is None, "one cancel is open"
    driver.report("Canceled", ClOrdID="y-2", OrderID="order-2")
    assert driver.settlement(delivery) is None, "one final is not confirmed"
    driver.confirm()
    assert settled(driver) == ["ack"]


def test_the_confirm_of_an_event_that_is_no_final_settles_nothing() -> None:
    driver = Driver()
    delivery = driver.deliver(item(1))
    driver.report("PendingCancel", ClOrdID="y-1")
    driver.report("Trade", ClOrdID="ord-000417")
    driver.confirm()
    assert driver.settlement(delivery) is None


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_one_dead_lettered_outcome_decides_for_the_whole_command(dead: int) -> None:
    driver = Driver()
    delivery = driver.deliver(*(item(n, Symbol="" if n == dead else "S") for n in range(3)))
    for n in range(3):
        driver.report("Canceled", ClOrdID=f"y-{n}", OrderID=f"order-{n}")
    driver.confirm()
    assert driver.settlement(delivery) == "dead_letter"
    assert driver.engine.stats.commands_dead_lettered["cancel"] == 1


# -- one attempt per command id


def test_a_duplicate_joins_the_attempt_that_is_running_and_both_are_settled_with_it() -> None:
    driver = Driver()
    first, second = driver.deliver(item()), driver.deliver(item(), redelivered=True)
    assert driver.cancels_sent() == ["y-1"]
    driver.report("Canceled", ClOrdID="y-1")
    driver.confirm()
    assert (driver.settlement(first), driver.settlement(second)) == ("ack", "ack")
    assert len(driver.finals()) == 1
    assert driver.engine.stats.commands_joined["cancel"] == 1


def test_a_duplicate_between_final_and_confirm_is_settled_with_the_confirm() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.report("Canceled", ClOrdID="y-1")
    driver.deliver(item())
    assert settled(driver) == []
    driver.confirm()
    assert settled(driver) == ["ack", "ack"]


def test_a_command_that_ended_a_while_ago_gets_the_same_finals_again_and_nothing_is_sent() -> None:
    driver = Driver()
    driver.deliver(item(1), item(2, Symbol=""))
    driver.report("Canceled", ClOrdID="y-1")
    driver.confirm()
    before = [(e.event_id, e.body) for e in driver.published if e.final]
    again, third = driver.deliver(item(1), item(2, Symbol="")), driver.deliver(item(1), item(2, Symbol=""))
    assert driver.settlement(again) is None, "the repeated finals are not confirmed"
    assert [(e.event_id, e.body) for e in driver.published if e.final] == before * 2, (
        "and one publish each is in flight"
    )
    driver.confirm()
    assert (driver.settlement(again), driver.settlement(third)) == ("dead_letter", "dead_letter")
    assert driver.cancels_sent() == ["y-1"]
    assert list(driver.left_over()) == []


def test_the_memory_of_ended_commands_is_bounded_in_cancels() -> None:
    driver = Driver(results={"memory": 2})
    for n in range(3):
        driver.deliver(item(n), id=f"cmd-{n}")
        driver.report("Canceled", ClOrdID=f"y-{n}", OrderID=f"order-{n}")
        driver.confirm()
    for n in range(3):
        driver.deliver(item(n), id=f"cmd-{n}")
    assert driver.cancels_sent() == ["y-0", "y-1", "y-2", "y-0"], "the first one is forgotten"


def test_without_memory_nothing_is_remembered() -> None:
    driver = Driver(results={"memory": 0})
    for _ in range(2):
        driver.deliver(item())
        driver.report("Canceled", ClOrdID="y-1")
        driver.confirm()
    assert driver.cancels_sent() == ["y-1", "y-1"]
    assert settled(driver) == ["ack", "ack"]


@pytest.mark.parametrize("ended", [False, True])
def test_same_id_other_content_is_never_merged_and_never_sent(ended: bool) -> None:
    driver = Driver()
    first = driver.deliver(item(1))
    if ended:
        driver.report("Canceled", ClOrdID="y-1")
        driver.confirm()
    other = driver.deliver(item(2))
    assert driver.cancels_sent() == ["y-1"]
    event = driver.final(index=None)
    assert (event["outcome"], event["error"]["field"]) == ("invalid", "message_id")
    if not ended:
        driver.report("Canceled", ClOrdID="y-1")
    driver.confirm()
    assert (driver.settlement(first), driver.settlement(other)) == ("ack", "dead_letter")
    assert driver.outcome() == "canceled"


def test_a_broken_body_under_a_known_id_leaves_the_first_untouched() -> None:
    driver = Driver()
    first, broken = driver.deliver(item()), driver.deliver(body=b"{")
    driver.confirm()
    assert (driver.settlement(first), driver.settlement(broken)) == (None, "dead_letter")


def test_without_message_id_the_first_cl_ord_id_is_the_command_id() -> None:
    driver = Driver()
    driver.deliver(item(), id=None)
    driver.deliver(item(), id=None)
    driver.report("Canceled", ClOrdID="y-1")
    assert driver.cancels_sent() == ["y-1"]
    assert driver.final("y-1")["event_id"] == wire.final_id("y-1", 0)
    assert driver.published[0].correlation_id == "y-1"


def test_a_requeued_command_is_judged_anew_though_it_is_remembered() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.report("CancelRejected", ClOrdID="y-1", CxlRejReason=2)
    driver.confirm()
    driver.orders = WORKING
    driver.deliver(item(), headers={"requeue_of": "cmd-1"})
    assert driver.questions(), "what was dead is doubtful first"
    assert driver.cancels_sent() == ["y-1", "y-1"]


def test_a_requeued_delivery_that_joins_makes_the_final_name_what_it_supersedes() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.deliver(item(), headers={"x-death": [{}]})
    driver.report("Canceled", ClOrdID="y-1")
    assert driver.final()["supersedes"] == wire.unresolved_id("cmd-1", 0)


def test_the_report_events_of_a_requeued_command_are_its_own() -> None:
    driver = Driver(venue={"doubt_window": 1.0})
    driver.answering = False
    driver.deliver(item())
    driver.advance(10)
    driver.confirm()
    driver.deliver(item(), headers={"x-death": [{}]})
    driver.report("Trade", ClOrdID="ord-000417")
    assert [e["late"] for e in driver.events("report")] == [False]


# -- the kill lane overtakes


def test_a_command_that_waits_in_the_normal_lane_is_promoted_by_the_kill_lane() -> None:
    driver = Driver(venue={"rate_limit": 1.0})
    driver.deliver(item(1), id="first")
    slow = driver.deliver(item(2), id="second")
    assert driver.cancels_sent() == ["y-1"]
    fast = driver.deliver(item(2), id="second", lane="kill")
    assert driver.cancels_sent() == ["y-1", "y-2"]
    driver.report("Canceled", ClOrdID="y-2", OrderID="order-2")
    assert driver.final("second")["lane"] == "kill"
    assert [e.lane for e in driver.published] == ["kill"]
    driver.confirm()
    assert (driver.settlement(slow), driver.settlement(fast)) == ("ack", "ack")
    driver.advance(5)
    assert driver.cancels_sent() == ["y-1", "y-2"]


def test_the_normal_lane_never_slows_a_kill_command_down() -> None:
    driver = Driver(kill={"rate_limit": 10.0})
    driver.deliver(item(1), item(2), lane="kill")
    driver.deliver(item(1), item(2), lane="cancel")
    driver.advance(0.2)
    driver.report("Canceled", ClOrdID="y-2", OrderID="order-2")
    assert driver.final(index=1)["lane"] == "kill"


def test_promoted_while_doubtful_the_question_goes_ahead() -> None:
    driver = Driver(sessions=0)
    driver.deliver(item(), redelivered=True)
    driver.deliver(item(), lane="kill")
    driver.orders = WORKING
    driver.connect()
    assert driver.cancels_sent() == ["y-1"]
    driver.report("Canceled", ClOrdID="y-1")
    assert driver.final()["lane"] == "kill"


# -- redelivery is doubt first


@pytest.mark.parametrize(
    "marks",
    [
        {"redelivered": True},
        {"headers": {"x-delivery-count": 1}},
        {"headers": {"x-death": [{}]}},
        {"headers": {"requeue_of": "?"}},
    ],
)
def test_what_may_have_been_sent_before_is_looked_up_before_it_is_sent(marks: dict[str, Any]) -> None:
    driver = Driver()
    driver.answering = False
    driver.deliver(item(), **marks)
    assert (driver.cancels_sent(), len(driver.questions())) == ([], 1)
    driver.orders = WORKING
    driver.answering = True
    driver.advance(0)
    assert driver.cancels_sent() == ["y-1"], "with the same ClOrdID"
    assert [q["name"] for q in driver.questions()] == ["ExecutionReport", "Order"]


def test_a_fresh_command_is_sent_at_once() -> None:
    driver = Driver()
    driver.deliver(item())
    assert (driver.cancels_sent(), driver.questions()) == (["y-1"], [])


# -- no session


def test_commands_are_taken_exactly_while_a_session_is_ready() -> None:
    driver = Driver(sessions=0)
    assert driver.consuming == {"kill": False, "cancel": False}
    session = driver.connect()
    assert driver.consuming == {"kill": True, "cancel": True}
    driver.lose(session)
    assert driver.consuming == {"kill": False, "cancel": False}


def test_what_is_held_unsent_goes_back_once_when_no_delivery_can_come_any_more() -> None:
    driver = Driver(venue={"rate_limit": 1.0, "max_batch": 1})
    sent, waiting = driver.deliver(item(1), id="sent"), driver.deliver(item(2), id="waiting")
    driver.lose(1)
    late = driver.deliver(item(3), id="late")
    assert driver.settled == []
    driver.stop_consumers()
    assert (driver.settlement(sent), driver.settlement(waiting), driver.settlement(late)) == (
        None,
        "requeue",
        "requeue",
    )
    assert driver.engine.stats.commands_handed_back["cancel"] == 2
    driver.orders = [order("Canceled", ClOrdID="y-1")]
    driver.connect()
    driver.confirm()
    assert driver.settlement(sent) == "ack"
    assert driver.consuming == {"kill": True, "cancel": True}
    assert len(driver.settled) == 3
    assert list(driver.left_over()) == []


def test_a_command_that_was_handed_back_comes_again_as_doubt() -> None:
    driver = Driver()
    driver.lose(1)
    driver.deliver(item())
    driver.stop_consumers()
    driver.connect()
    driver.orders = WORKING
    driver.deliver(item(), redelivered=True)
    assert driver.questions()
    assert driver.cancels_sent() == ["y-1"]


def test_a_session_that_is_back_before_the_broker_confirms_hands_nothing_back() -> None:
    driver = Driver()
    driver.lose(1)
    delivery = driver.deliver(item())
    driver.connect()
    driver.stop_consumers()
    assert driver.settlement(delivery) is None
    assert driver.cancels_sent() == ["y-1"]
    assert driver.consuming == {"kill": True, "cancel": True}


# -- lost deliveries


def test_deliveries_lost_unsent_are_forgotten_and_sent_ones_are_followed_to_their_final() -> None:
    driver = Driver(venue={"rate_limit": 1.0, "max_batch": 1})
    driver.deliver(item(1), id="sent")
    driver.deliver(item(2), id="unsent")
    driver.lose_consumer("cancel")
    driver.advance(2)
    assert driver.cancels_sent() == ["y-1"], "what was not sent is not ours any more"
    driver.report("Canceled", ClOrdID="y-1")
    assert driver.outcome("sent") == "canceled"
    driver.confirm()
    assert driver.settled == [], "there is nothing to settle"
    again = driver.deliver(item(1), id="sent", redelivered=True, epoch=2)
    driver.confirm()
    assert driver.settlement(again) == "ack"
    assert driver.cancels_sent() == ["y-1"]


def test_a_redelivery_joins_the_attempt_that_outlived_its_channel() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.lose_consumer("cancel")
    again = driver.deliver(item(), redelivered=True, epoch=2)
    driver.report("Canceled", ClOrdID="y-1")
    driver.confirm()
    assert settled(driver) == ["ack"]
    assert driver.settlement(again) == "ack"


def test_a_lost_lane_harms_no_delivery_of_the_other() -> None:
    driver = Driver(venue={"rate_limit": 1.0}, kill={"rate_limit": 1.0})
    driver.deliver(item(0), id="n0")
    driver.deliver(item(10), id="k0", lane="kill")
    normal, kill = driver.deliver(item(1), id="n1"), driver.deliver(item(11), id="k1", lane="kill")
    driver.lose_consumer("kill")
    driver.advance(1.1)
    assert sorted(driver.cancels_sent()) == ["y-0", "y-1", "y-10"]
    assert (driver.settlement(normal), driver.settlement(kill)) == (None, None)


def test_the_unsent_part_of_a_sent_command_waits_for_the_redelivery_and_is_looked_up() -> None:
    driver = Driver(venue={"rate_limit": 1.0, "max_batch": 1})
    driver.deliver(item(1), item(2))
    driver.lose_consumer("cancel")
    driver.advance(3)
    assert driver.cancels_sent() == ["y-1"]
    driver.orders = WORKING[1:]
    driver.deliver(item(1), item(2), redelivered=True, epoch=2)
    assert {q["OrderID"] for q in driver.questions()} == {"order-2"}
    assert driver.cancels_sent() == ["y-1", "y-2"]


def test_doubt_without_a_delivery_is_answered_but_nothing_is_sent_for_it() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.lose_consumer("cancel")
    driver.orders = WORKING
    driver.advance(30)
    assert driver.cancels_sent() == ["y-1"], "whoever gets the redelivery sends"
    driver.deliver(item(), redelivered=True, epoch=2)
    assert driver.cancels_sent() == ["y-1", "y-1"]


def test_a_cancel_that_waited_parked_past_its_window_has_a_window_again() -> None:
    """Its command stays because another final of it is not confirmed; then the redelivery comes."""
    driver = Driver(venue={"doubt_window": 20.0})
    driver.answering = False
    driver.deliver(item(1), item(2), redelivered=True)
    driver.report("Canceled", ClOrdID="y-1")
    driver.lose_consumer("cancel")
    driver.advance(60)
    driver.deliver(item(1), item(2), redelivered=True, epoch=2)
    driver.advance(60)
    assert driver.outcome(index=1) == "unresolved"


def test_the_finals_of_a_lost_lane_leave_nothing_behind() -> None:
    driver = Driver()
    driver.deliver(body=b"{")
    driver.deliver(item(1), item(2, Symbol=""), id="cmd-2")
    driver.lose_consumer("cancel")
    driver.report("Canceled", ClOrdID="y-1")
    driver.confirm()
    assert driver.settled == []
    assert list(driver.left_over()) == []


# -- the broker's patience (faults A12)


def test_what_is_held_too_long_is_handed_back_and_its_redelivery_joins_what_goes_on_here() -> None:
    driver = Driver(broker={"hold_limit": 60.0}, venue={"doubt_window": 600.0, "pending_timeout": 30.0})
    driver.orders = [order("PendingCancel", ClOrdID="y-1")]
    held = driver.deliver(item())
    driver.advance(59)
    assert driver.settlement(held) is None
    driver.advance(8)
    assert driver.settlement(held) == "requeue"
    again = driver.deliver(item(), redelivered=True, headers={"x-delivery-count": 1})
    driver.advance(20)
    assert driver.cancels_sent() == ["y-1"], "one attempt goes on"
    driver.report("Canceled", ClOrdID="y-1")
    driver.confirm()
    assert driver.settlement(again) == "ack"
    assert list(driver.left_over()) == []


# -- commands that keep coming back


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


# -- SIGTERM


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


# -- who may do what (contract 5)


@pytest.mark.parametrize(
    ("rules", "lane", "user", "headers", "allowed"),
    [
        ({}, "kill", None, {}, True),
        ({"cancel_users": ("risk",)}, "cancel", "risk", {}, True),
        ({"cancel_users": ("risk",)}, "cancel", "intern", {}, False),
        ({"cancel_users": ("risk",)}, "cancel", None, {}, False),
        ({"cancel_users": ("risk",)}, "kill", "intern", {}, True),
        ({"kill_users": ("risk",)}, "kill", "risk", {}, True),
        ({"kill_users": ("risk",)}, "kill", "intern", {}, False),
        ({"kill_users": ("risk",)}, "cancel", "intern", {}, True),
        ({"cancel_users": ()}, "cancel", "risk", {}, False),
        ({"mass_cancel_users": ("risk",)}, "cancel", "intern", {}, True),
        ({"requeue_users": ("ops",)}, "cancel", "ops", {"requeue_of": "c", "original_user": "risk"}, True),
        ({"requeue_users": ("ops",)}, "cancel", "intern", {"requeue_of": "c", "original_user": "risk"}, False),
        ({"requeue_users": ("ops",)}, "cancel", "intern", {"requeue_of": "c"}, False),
        ({"requeue_users": ("ops",)}, "cancel", None, {"requeue_of": "c", "original_user": "risk"}, False),
        ({"requeue_users": ("ops",)}, "cancel", None, {"requeue_of": "c"}, False),
        ({"requeue_users": ("ops",)}, "cancel", "risk", {"requeue_of": "c", "original_user": "risk"}, True),
        (
            {"requeue_users": ("ops",), "cancel_users": ("risk",)},
            "cancel", "risk", {"requeue_of": "c", "original_user": "risk"}, True,
        ),
        (
            {"requeue_users": ("ops",), "cancel_users": ("risk",)},
            "cancel", "intern", {"requeue_of": "c", "original_user": "intern"}, False,
        ),
    ],
)  # fmt: skip
def test_who_may_do_what(
    rules: dict[str, Any], lane: Any, user: str | None, headers: dict[str, object], allowed: bool
) -> None:
    driver = Driver(authorization=rules)
    driver.orders = WORKING
    delivery = driver.deliver(item(), lane=lane, user_id=user, headers=headers)
    assert bool(driver.cancels_sent()) is allowed
    if allowed:
        return
    event = driver.final(index=None)
    assert (event["outcome"], event["sent"], event["error"]["field"]) == ("unauthorized", "never", "user_id")
    driver.confirm()
    assert driver.settlement(delivery) == "dead_letter"
    assert driver.questions() == []


def test_an_unauthorized_mass_cancel_is_refused_before_anything_else() -> None:
    driver = Driver(authorization={"mass_cancel_users": ("risk",)})
    body = b'{"type":"OrderMassCancelRequest","data":[{"MassCancelRequestType":"AllOrders"}]}'
    driver.deliver(body=body, lane="kill", user_id="intern")
    assert driver.outcome(index=None) == "unauthorized"
