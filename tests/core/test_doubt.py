"""Doubt and how it ends: the venue is asked, never guessed at (contract 4.2, 4.3, sections 3 and 6; faults I3, I5)."""

from __future__ import annotations

import pytest

from tests.core.driver import Driver
from tests.core.payloads import item, order
from worker.core.desk import ReadyClock

WORKING = [order("New", ClOrdID="ord-000417")]


# -- what makes a cancel doubtful


def test_silence_is_doubt_after_report_timeout_and_not_before() -> None:
    driver = Driver(venue={"report_timeout": 3.0})
    driver.deliver(item())
    driver.answering = False
    driver.advance(2.999)
    assert driver.outcomes() == []
    driver.advance(0.002)
    (event,) = driver.events()
    assert (event["outcome"], event["final"], event["order_live"], event["sent"]) == ("doubtful", False, None, "yes")
    assert driver.engine.stats.doubts["no_report"] == 1


def test_a_report_on_the_order_alone_does_not_answer_for_the_cancel() -> None:
    driver = Driver()
    driver.answering = False
    driver.deliver(item())
    driver.report("Trade", ClOrdID="ord-000417")
    driver.advance(5)
    assert driver.outcomes() == ["report", "doubtful"]


def test_after_a_pending_cancel_the_venue_has_more_time() -> None:
    driver = Driver(venue={"pending_timeout": 30.0})
    driver.answering = False
    driver.deliver(item())
    driver.advance(4)
    driver.report("PendingCancel", ClOrdID="y-1")
    driver.advance(29.9)
    assert driver.outcomes() == ["pending_cancel"]
    driver.advance(0.2)
    assert driver.outcomes() == ["pending_cancel", "doubtful"]
    assert driver.engine.stats.doubts["pending"] == 1


@pytest.mark.parametrize("pending", [False, True])
def test_a_lost_session_makes_what_was_sent_on_it_doubtful(pending: bool) -> None:
    driver = Driver(sessions=2)
    driver.answering = False
    driver.deliver(item(1), id="one")
    driver.deliver(item(2), id="two")
    if pending:
        driver.report("PendingCancel", 1, ClOrdID="y-1")
    driver.lose(1)
    (event,) = driver.events("doubtful")
    assert (event["command_id"], event["sent"]) == ("one", "yes" if pending else "maybe")
    assert [q["OrderID"] for q in driver.questions()] == ["order-1"], "asked at once on the other session"


def deliver_each(driver: Driver, *numbers: int) -> None:
    """One command each, so that they go out on one session after the other."""
    for n in numbers:
        driver.deliver(item(n), id=f"cmd-{n}")


@pytest.mark.parametrize("reqid", [None, 0])
def test_an_error_frame_for_nobody_in_particular_casts_doubt_on_every_frame_of_the_session(reqid: int | None) -> None:
    driver = Driver(sessions=2)
    driver.answering = False
    deliver_each(driver, 1, 2, 3)
    assert [len(driver.cancel_frames(session)) for session in (1, 2)] == [2, 1]
    driver.error(reqid, code=1, session=1)
    assert [e["command_id"] for e in driver.events("doubtful")] == ["cmd-1", "cmd-3"]
    assert driver.finals() == []


def test_an_error_frame_for_a_batch_fails_nobody_and_each_goes_alone_from_then_on() -> None:
    driver = Driver()
    driver.orders = [order("New", OrderID=f"order-{n}") for n in (1, 2, 3)]
    driver.deliver(item(1), item(2), item(3))
    driver.error(driver.cancel_frames()[0]["reqid"], code=1)
    assert driver.outcomes() == ["doubtful"] * 3
    assert {e["error"]["code"] for e in driver.events()} == {1}
    driver.advance(1)
    assert [len(frame["data"]) for frame in driver.cancel_frames()] == [3, 1, 1, 1]
    driver.error(driver.cancel_frames()[2]["reqid"], code=1)
    driver.advance(1)
    assert [(e["index"], e["outcome"]) for e in driver.finals()] == [(1, "refused")]


@pytest.mark.parametrize("code", [2, 7, "E7"])
def test_any_other_code_is_doubt_with_growing_waits(code: int | str) -> None:
    driver = Driver()
    driver.orders = WORKING
    driver.deliver(item())
    waits = []
    for n in range(4):
        driver.error(driver.cancel_frames()[-1]["reqid"], code=code)
        waits.append(driver.advance_until(lambda: len(driver.cancel_frames()) == n + 2, step=0.05))  # noqa: B023
    assert driver.finals() == []
    for n, wait in enumerate(waits, 1):
        assert 0.25 <= wait <= 0.25 * 2**n + 0.06
    assert max(waits) > 0.6, "they grow"


def test_an_error_frame_after_the_answer_says_nothing() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.report("PendingCancel", ClOrdID="y-1")
    driver.error(driver.cancel_frames()[0]["reqid"], code=1)
    driver.error(4711, code=1)
    assert driver.outcomes() == ["pending_cancel"]


def test_doubtful_is_told_once_per_attempt() -> None:
    driver = Driver()
    driver.answering = False
    driver.deliver(item())
    for attempt in (1, 2):
        driver.error(driver.cancel_frames()[-1]["reqid"])
        driver.report("CancelRejected", ClOrdID="y-1", OrdStatus="New", CxlRejReason=3)  # a new doubt, the same attempt
        driver.advance(6)
        driver.report("PendingCancel", ClOrdID="y-1")
        driver.confirm()
        driver.advance(31)
        assert [e["attempt"] for e in driver.events("doubtful")] == list(range(1, attempt + 1))
        driver.orders = [order("New", ClOrdID="ord-000417")]
        driver.answering = True
        driver.advance(6)
        driver.answering = False
    told = [event.event_id for event in driver.published if event.outcome == "doubtful"]
    assert len(told) == len(set(told)), "nor published again after its confirm"


# -- the end of patience


def test_unresolved_after_the_doubt_window_and_not_before() -> None:
    driver = Driver(venue={"doubt_window": 20.0, "snapshot_timeout": 1.0})
    driver.answering = False
    driver.deliver(item())
    delivery = driver.deliver(item())
    driver.advance(5 + 19.9)
    assert driver.finals() == []
    driver.advance(0.2)
    final = driver.final()
    assert (final["outcome"], final["sent"], final["order_live"]) == ("unresolved", "yes", None)
    driver.confirm()
    assert driver.settlement(delivery) == "dead_letter"
    assert list(driver.left_over()) == []


def test_only_time_with_a_ready_session_counts_against_the_window() -> None:
    driver = Driver(venue={"doubt_window": 20.0})
    driver.answering = False
    driver.deliver(item())
    driver.lose(1)
    driver.advance(500)
    session = driver.connect()
    driver.advance(15)
    driver.lose(session)
    driver.advance(500)
    driver.connect()
    driver.advance(4.9)
    assert driver.finals() == []
    driver.advance(0.3)
    assert driver.outcome() == "unresolved"


def test_unresolved_says_what_was_last_proven_of_the_order() -> None:
    driver = Driver(venue={"doubt_window": 20.0, "max_resends": 0})
    driver.orders = [order("PartiallyFilled", CumQty="0.3")]
    driver.deliver(item())
    driver.advance(26)
    final = driver.final()
    assert (final["outcome"], final["order_live"], final["order"]["cum_qty"]) == ("unresolved", True, "0.3")


def test_a_send_that_is_on_its_way_when_the_window_ends_may_still_be_answered() -> None:
    driver = Driver(venue={"doubt_window": 5.2, "report_timeout": 5.0, "lookup_max": 0.25})
    driver.orders = WORKING
    driver.deliver(item())
    driver.advance(5.1)
    assert len(driver.cancels_sent()) == 2, "looked up, and sent again"
    driver.advance(4.7)
    driver.error(driver.cancel_frames()[1]["reqid"])
    driver.advance(0.3)
    assert len(driver.cancels_sent()) == 3, "just before the window ends"
    driver.advance(0.5)
    assert driver.finals() == []
    driver.report("Canceled", ClOrdID="y-1")
    assert driver.outcome() == "canceled"


def test_a_window_that_ends_while_a_cancel_waits_to_be_sent_wakes_nobody_and_is_not_forgotten() -> None:
    driver = Driver(
        broker={"max_inflight": 1}, venue={"doubt_window": 20.0, "pending_timeout": 600.0, "ping_interval": 600.0}
    )
    driver.orders = [order("New", OrderID=f"order-{n}", ClOrdID=f"ord-{n}") for n in (1, 2)]
    driver.answering = False
    driver.deliver(item(1), id="first")
    driver.advance(5)
    driver.deliver(item(2), id="second")
    driver.report("PendingCancel", ClOrdID="y-2", OrderID="order-2")
    driver.answering = True
    driver.advance(25)
    assert driver.cancels_sent() == ["y-1", "y-2"], "the first works, and waits for the end of the second"
    due = driver.engine.next_due()
    assert due is None or due > driver.mono + 60.0
    driver.answering = False
    driver.report("Canceled", ClOrdID="y-2", OrderID="order-2")
    assert driver.cancels_sent() == ["y-1", "y-2", "y-1"]
    driver.advance(4.9)
    assert driver.outcome("first") is None
    driver.advance(0.3)
    assert driver.outcome("first") == "unresolved"


def test_pending_for_ever_ends_in_unresolved() -> None:
    driver = Driver(venue={"doubt_window": 100.0})
    driver.orders = [order("PendingCancel", ClOrdID="y-1")]
    driver.deliver(item())
    driver.advance(6)
    assert driver.finals() == []
    driver.advance(120)
    assert driver.outcome() == "unresolved"


def test_nothing_left_of_a_pending_order_is_no_proof_that_it_is_live() -> None:
    driver = Driver(venue={"doubt_window": 20.0})
    driver.orders = [order("PendingCancel", ClOrdID="y-1", ExecType="PendingCancel", LeavesQty="0")]
    driver.deliver(item())
    driver.advance(30)
    assert (driver.outcome(), driver.final()["order_live"]) == ("unresolved", None)


def test_the_ready_clock_runs_only_while_it_is_on() -> None:
    clock = ReadyClock()
    assert clock.read(10.0) == 0.0
    clock.run(True, 10.0)
    clock.run(True, 12.0)
    assert clock.read(15.0) == 5.0
    clock.run(False, 16.0)
    clock.run(False, 20.0)
    assert clock.read(99.0) == 6.0


# -- who sees which report (venue.report_fanout)


@pytest.mark.parametrize(("fanout", "doubtful_at_once"), [("unknown", True), ("own", True), ("all", False)])
def test_an_unbroken_stream_on_another_session_spares_the_replay_only_if_all_see_all(
    fanout: str, doubtful_at_once: bool
) -> None:
    driver = Driver(sessions=2, venue={"report_fanout": fanout})
    driver.answering = False
    driver.deliver(item())
    driver.lose(1)
    assert bool(driver.questions()) is doubtful_at_once
    driver.report("Canceled", 2, ClOrdID="y-1")
    assert driver.outcome() == "canceled"
    driver.confirm()
    driver.advance(3)
    assert driver.engine.stats.inflight["cancel"] == 0


def test_with_fanout_all_a_stream_that_began_after_the_send_is_not_unbroken() -> None:
    driver = Driver(venue={"report_fanout": "all"})
    driver.answering = False
    driver.deliver(item())
    driver.advance(1)
    driver.connect(1)
    driver.lose(1)
    assert driver.questions()


def test_with_fanout_all_silence_is_doubt_all_the_same() -> None:
    driver = Driver(sessions=2, venue={"report_fanout": "all"})
    driver.answering = False
    driver.deliver(item())
    driver.lose(1)
    driver.advance(5)
    assert driver.outcomes() == ["doubtful"]


def test_a_lost_report_session_casts_doubt_on_what_was_sent_on_command_sessions() -> None:
    driver = Driver(sessions=3, venue={"report_sessions": 1})
    driver.answering = False
    deliver_each(driver, 1, 2, 3)
    assert [len(driver.cancel_frames(s)) for s in (1, 2, 3)] == [1, 1, 1]
    driver.lose(1)
    told = {e["command_id"]: e["sent"] for e in driver.events("doubtful")}
    assert told == {"cmd-1": "maybe", "cmd-2": "yes", "cmd-3": "yes"}


def test_with_fanout_all_a_command_session_that_lives_on_keeps_its_frames() -> None:
    driver = Driver(sessions=3, venue={"report_sessions": 2, "report_fanout": "all"})
    deliver_each(driver, 1, 2, 3)
    driver.lose(1)
    assert driver.engine.stats.inflight["cancel"] == 2, "only what the lost session carried is given up"
    reqid = driver.cancel_frames(3)[0]["reqid"]
    driver.orders = [order("New", OrderID="order-3")]
    driver.error(reqid, code=1, session=3)
    assert driver.outcome(id="cmd-3") == "refused", "an error frame still finds its cancel"


@pytest.mark.parametrize(
    ("pending_of", "refused", "doubtful_after"), [("z-9", "z-9", 5), ("z-9", "z-8", 30), ("y-1", "z-9", 30)]
)
def test_after_the_refusal_of_anothers_request_the_own_answer_is_due_as_after_a_send(
    pending_of: str, refused: str, doubtful_after: float
) -> None:
    driver = Driver(venue={"report_timeout": 5.0, "pending_timeout": 30.0})
    driver.answering = False
    driver.deliver(item())
    driver.report("PendingCancel", ClOrdID=pending_of)
    driver.report("CancelRejected", ClOrdID=refused, CxlRejReason=2)
    driver.advance(doubtful_after - 0.1)
    assert "doubtful" not in driver.outcomes()
    driver.advance(0.2)
    assert driver.outcomes()[-1] == "doubtful"


def test_the_own_pending_cancel_makes_it_wait_for_the_end_again() -> None:
    driver = Driver(venue={"report_timeout": 5.0, "pending_timeout": 30.0})
    driver.deliver(item())
    driver.report("PendingCancel", ClOrdID="z-9")
    driver.report("CancelRejected", ClOrdID="z-9", CxlRejReason=2)
    driver.report("PendingCancel", ClOrdID="y-1")
    driver.advance(29)
    assert "doubtful" not in driver.outcomes()


@pytest.mark.parametrize(("codes", "code", "outcome"), [((1,), 7, None), ((1, 7), 7, "refused"), ((), 1, None)])
def test_which_codes_refuse_for_certain_is_a_setting(codes: tuple[int, ...], code: int, outcome: str | None) -> None:
    driver = Driver(venue={"refusal_codes": codes})
    driver.orders = WORKING
    driver.deliver(item())
    driver.error(driver.cancel_frames()[0]["reqid"], code=code)
    driver.advance(1)
    assert driver.outcome() == outcome
    assert len(driver.cancels_sent()) == (1 if outcome else 2)
