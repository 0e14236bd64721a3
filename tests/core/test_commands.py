"""Commands in and out: one attempt per id, settled once, late enough, handed back once (contract 4, 5; I1, I7)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.driver import Driver
from tests.core.payloads import item, order, report
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


def test_a_promoted_command_leaves_with_the_kill_lane_alone_though_its_place_in_the_normal_queue_comes_first() -> None:
    driver = Driver(broker={"max_inflight": 2}, kill={"max_inflight": 1, "normal_batch": 0})
    driver.deliver(item(1), lane="kill", id="kill")
    driver.deliver(item(2), item(3), id="before")
    driver.deliver(item(4), id="ahead")
    driver.deliver(item(5), id="promoted")
    driver.deliver(item(5), id="promoted", lane="kill")
    assert driver.cancels_sent() == ["y-1", "y-2", "y-3"], "both lanes are full"
    ends = [report("Canceled", ClOrdID=f"y-{n}", OrderID=f"order-{n}") for n in (2, 3)]
    driver.frame(1, data=ends)
    assert driver.cancels_sent() == ["y-1", "y-2", "y-3", "y-4"], "room for two in the normal lane"


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


def test_a_publishers_duplicate_that_comes_before_the_redelivery_is_looked_up_too() -> None:
    """It is not marked as redelivered, yet an earlier delivery was sent in part and then let go."""
    driver = Driver(venue={"rate_limit": 1.0, "max_batch": 1})
    driver.deliver(item(1), item(2))
    driver.lose_consumer("cancel")
    driver.report("Canceled", OrderID="order-1", ClOrdID="y-1")
    driver.confirm()
    driver.advance(1)
    assert driver.engine.intake.is_empty
    driver.orders = WORKING[1:]
    driver.history = [report("Canceled", OrderID="order-1", ClOrdID="y-1")]
    driver.deliver(item(1), item(2), epoch=2)
    assert {q["OrderID"] for q in driver.questions()} == {"order-1", "order-2"}
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
    driver.advance(50)
    assert driver.settlement(held) is None
    driver.advance(10)
    assert driver.settlement(held) == "requeue", "half the broker's consumer timeout, and not a moment longer"
    again = driver.deliver(item(), redelivered=True, headers={"x-delivery-count": 1})
    driver.advance(20)
    assert driver.cancels_sent() == ["y-1"], "one attempt goes on"
    driver.report("Canceled", ClOrdID="y-1")
    driver.confirm()
    assert driver.settlement(again) == "ack"
    assert list(driver.left_over()) == []


@pytest.mark.parametrize("hold_limit", [2.0, 60.0])
def test_an_invalid_command_whose_event_is_not_confirmed_is_not_held_longer_either(hold_limit: float) -> None:
    driver = Driver(broker={"hold_limit": hold_limit})
    held = driver.deliver(body=b"{")
    driver.advance(hold_limit / 4)
    assert driver.settlement(held) is None
    driver.advance(hold_limit * 3 / 4)
    assert driver.settlement(held) == "requeue"
    again = driver.deliver(body=b"{", redelivered=True)
    driver.confirm()
    assert driver.settlement(again) == "dead_letter"
    assert len(driver.events("invalid")) == 1
    assert list(driver.left_over()) == []
