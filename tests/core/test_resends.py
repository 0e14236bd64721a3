"""Sending again: after a look-up, under which ClOrdID, and never after reason 6 (contract 3, 4.3; faults I5)."""

from __future__ import annotations

import pytest

from tests.core.driver import Driver
from tests.core.payloads import item, order
from worker.wire.command import derive_cl_ord_id

WORKING = [order("New", ClOrdID="ord-000417")]


def test_sent_again_only_after_a_look_up_and_under_the_same_id() -> None:
    driver = Driver()
    driver.orders = WORKING
    driver.deliver(item())
    driver.advance(5)
    assert driver.cancels_sent() == ["y-1", "y-1"]
    driver.report("Canceled", ClOrdID="y-1")
    assert (driver.outcome(), driver.final()["attempt"]) == ("canceled", 2)
    first, second = (frame["data"][0] for frame in driver.cancel_frames())
    assert first == second, "the same TransactTime too"


def test_each_further_send_needs_a_look_up_of_its_own_and_max_resends_ends_them() -> None:
    driver = Driver(venue={"max_resends": 2, "doubt_window": 60.0})
    driver.orders = WORKING
    driver.deliver(item())
    driver.advance(50)
    assert driver.cancels_sent() == ["y-1"] * 3
    assert len([q for q in driver.questions() if q["name"] == "Order"]) > 3
    driver.advance(20)
    assert (driver.outcome(), driver.final()["order_live"]) == ("unresolved", True)


def test_with_resend_id_new_each_send_has_an_id_of_its_own_and_any_of_them_counts() -> None:
    driver = Driver(venue={"resend_id": "new"})
    driver.orders = WORKING
    driver.deliver(item())
    driver.advance(5)
    assert driver.cancels_sent() == ["y-1", derive_cl_ord_id("cmd-1", 0, 2)]
    driver.report("Canceled", ClOrdID="y-1")
    assert driver.outcome() == "canceled"


def test_with_resend_id_new_what_may_have_been_sent_by_another_gets_a_new_id_too() -> None:
    driver = Driver(venue={"resend_id": "new"})
    driver.orders = WORKING
    driver.deliver(item(), redelivered=True)
    assert driver.cancels_sent() == [derive_cl_ord_id("cmd-1", 0, 2)]


@pytest.mark.parametrize("ends", ["CancelRejected", "ReplaceRejected", "Replaced"])
def test_reason_3_waits_for_the_other_request_then_sends_under_a_fresh_id(ends: str) -> None:
    driver = Driver()
    driver.orders = WORKING
    driver.deliver(item())
    driver.report("CancelRejected", ClOrdID="y-1", OrdStatus="PendingReplace", CxlRejReason=3)
    assert driver.cancels_sent() == ["y-1"]
    driver.report(ends, ClOrdID="z-9", OrdStatus="New")
    fresh = derive_cl_ord_id("cmd-1", 0, 2)
    assert driver.cancels_sent() == ["y-1", fresh]
    driver.report("Canceled", ClOrdID=fresh)
    assert (driver.outcome(), driver.final()["cl_ord_id"]) == ("canceled", fresh)


def test_reason_3_with_no_end_of_the_other_in_sight_is_looked_up() -> None:
    driver = Driver(venue={"report_timeout": 5.0})
    driver.orders = WORKING
    driver.deliver(item())
    driver.report("CancelRejected", ClOrdID="y-1", OrdStatus="PendingReplace", CxlRejReason=3)
    driver.advance(5.1)
    assert driver.cancels_sent() == ["y-1", derive_cl_ord_id("cmd-1", 0, 2)]


def test_reason_3_then_the_others_pending_cancel_and_its_end() -> None:
    """The report that the other one is pending may come after our reject; its end is what we wait for all the same."""
    driver = Driver()
    driver.orders = WORKING
    driver.deliver(item())
    driver.report("CancelRejected", ClOrdID="y-1", OrdStatus="PendingCancel", CxlRejReason=3)
    driver.report("PendingCancel", ClOrdID="z-9")
    driver.report("CancelRejected", ClOrdID="z-9", CxlRejReason=2)
    assert driver.cancels_sent() == ["y-1", derive_cl_ord_id("cmd-1", 0, 2)]


def test_what_another_process_sent_under_a_fresh_id_is_this_cancel_too() -> None:
    """A second worker had the same command, was told reason 3, and sent again: its outcome is ours, id and all."""
    driver = Driver()
    driver.deliver(item())
    fresh = derive_cl_ord_id("cmd-1", 0, 2)
    driver.report("PendingCancel", ClOrdID=fresh)
    driver.report("Canceled", ClOrdID=fresh)
    assert driver.outcomes() == ["pending_cancel", "canceled"]


def test_a_late_reject_of_the_replaced_send_ends_nothing() -> None:
    driver = Driver()
    driver.orders = WORKING
    driver.deliver(item())
    driver.report("CancelRejected", ClOrdID="y-1", OrdStatus="PendingReplace", CxlRejReason=3)
    driver.report("Replaced", ClOrdID="z-9", OrdStatus="New")
    assert len(driver.cancels_sent()) == 2
    driver.report("CancelRejected", ClOrdID="y-1", OrdStatus="New", CxlRejReason=2)
    assert driver.finals() == []
    driver.report("Canceled", ClOrdID=driver.cancels_sent()[1])
    assert driver.outcome() == "canceled"


def test_reason_6_is_never_answered_by_a_resend() -> None:
    driver = Driver(venue={"doubt_window": 60.0})
    driver.orders = WORKING
    driver.deliver(item())
    driver.report("CancelRejected", ClOrdID="y-1", OrdStatus="New", CxlRejReason=6)
    driver.advance(59)
    assert driver.cancels_sent() == ["y-1"]
    assert len(driver.questions()) > 10, "looked up again and again"
    driver.advance(0.9)
    assert driver.finals() == []
    driver.advance(0.2)
    assert driver.outcome() == "unresolved"


def test_reason_6_after_a_resend_finds_what_the_first_send_did() -> None:
    driver = Driver()
    driver.orders = WORKING
    driver.deliver(item())
    driver.advance(5)
    assert len(driver.cancels_sent()) == 2
    driver.orders = [order("Canceled", ClOrdID="y-1")]
    driver.report("CancelRejected", ClOrdID="y-1", OrdStatus="New", CxlRejReason=6)
    driver.advance(1)
    assert driver.outcome() == "canceled"


def test_a_reject_of_the_second_send_that_reads_canceled_is_looked_up_for_whose_hand_it_was() -> None:
    driver = Driver()
    driver.orders = WORKING
    driver.deliver(item())
    driver.advance(5)
    driver.orders = [order("Canceled", ClOrdID="y-1")]
    driver.report("CancelRejected", ClOrdID="y-1", OrdStatus="Canceled", CxlRejReason=0)
    driver.advance(1)
    assert driver.outcome() == "canceled"
