"""Doubt and how it ends: the venue is asked, never guessed at (contract 4.2, 4.3, sections 3 and 6; faults I3, I5)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.driver import Driver
from tests.core.payloads import START_US, Fields, item, order, report
from worker.core.cancel import CancelState
from worker.core.clock import Now
from worker.core.command import CommandState
from worker.core.desk import ReadyClock
from worker.core.facts import Delivery
from worker.core.reconcile import Conclusion, conclude, lookup_start, start_date
from worker.wire.command import CancelItem, Context, derive_cl_ord_id
from worker.wire.timestamp import format_utc
from worker.wire.venue import Record

WORKING = [order("New", ClOrdID="ord-000417")]
SECOND = 1_000_000


def doubtful(**venue: Any) -> Driver:
    """A driver whose one cancel was sent and has had no report within its time; the venue does not answer yet."""
    driver = Driver(venue=venue)
    driver.answering = False
    driver.deliver(item())
    driver.advance(5)
    assert driver.outcomes() == ["doubtful"]
    return driver


def answer(driver: Driver, reqid: int | None = None, *records: Fields, **fields: Any) -> None:
    """The last question, or the one with ``reqid``, is answered and its snapshot ended by the venue."""
    asked = next(s for s in reversed(driver.subscribes()) if reqid in (None, s.frame["reqid"]))
    stream = asked.frame["streams"][0]["name"]
    driver.frame(asked.session, asked.frame["reqid"], stream, data=list(records), **{"initial": True, **fields})


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


@pytest.mark.parametrize("reqid", [None, 0])
def test_an_error_frame_for_nobody_in_particular_casts_doubt_on_every_frame_of_the_session(reqid: int | None) -> None:
    driver = Driver(sessions=2, venue={"max_batch": 1})
    driver.answering = False
    driver.deliver(item(1), item(2))
    driver.error(reqid, code=1, session=1)
    assert [e["index"] for e in driver.events("doubtful")] == [0]
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
        before = driver.mono
        driver.error(driver.cancel_frames()[-1]["reqid"], code=code)
        while len(driver.cancel_frames()) == n + 1:
            driver.advance(0.05)
        waits.append(driver.mono - before)
    assert driver.finals() == []
    assert waits == pytest.approx([0.25, 0.5, 1.0, 2.0], abs=0.06)


def test_an_error_frame_after_the_answer_says_nothing() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.report("PendingCancel", ClOrdID="y-1")
    driver.error(driver.cancel_frames()[0]["reqid"], code=1)
    driver.error(4711, code=1)
    assert driver.outcomes() == ["pending_cancel"]


def test_doubtful_is_told_once_per_attempt() -> None:
    driver = Driver()
    driver.orders = WORKING
    driver.deliver(item())
    for _ in range(2):
        driver.error(driver.cancel_frames()[-1]["reqid"])
        driver.lose(1)
        driver.connect()
        driver.advance(2)
    assert [e["attempt"] for e in driver.events("doubtful")] == list(range(1, len(driver.events("doubtful")) + 1))


# -- what is asked


def test_a_few_are_asked_one_by_one_first_for_reports_then_for_the_order() -> None:
    driver = doubtful()
    ((asked),) = driver.questions()
    assert (asked["name"], asked["OrderID"]) == ("ExecutionReport", "order-1")
    answer(driver)
    assert [(q["name"], q["OrderID"]) for q in driver.questions()] == [
        ("ExecutionReport", "order-1"), ("Order", "order-1"),
    ]  # fmt: skip
    reqid = driver.subscribes()[-1].frame["reqid"]
    answer(driver, None, *WORKING)
    assert {"reqid": reqid, "type": "cancel"} in [s.frame for s in driver.sent], "the stream is ended"
    assert driver.cancels_sent() == ["y-1", "y-1"]


def test_many_are_asked_by_one_replay_and_one_list_and_what_the_list_does_not_show_by_itself() -> None:
    driver = Driver()
    driver.answering = False
    driver.deliver(*(item(n) for n in range(12)), redelivered=True)
    assert [q.keys() for q in driver.questions()] == [{"name", "StartDate"}]
    answer(driver, None, report("Canceled", ClOrdID="y-0", OrderID="order-0"))
    assert driver.outcome(index=0) == "canceled"
    assert [q["name"] for q in driver.questions()] == ["ExecutionReport", "Order"]
    assert "OrderID" not in driver.questions()[1]
    answer(driver, None, *(order("New", OrderID=f"order-{n}") for n in range(1, 11)))
    assert driver.cancels_sent() == [f"y-{n}" for n in range(1, 11)]
    assert [q.get("OrderID") for q in driver.questions()[2:]] == ["order-11"]


def test_an_order_known_by_its_client_id_is_looked_for_among_its_symbols() -> None:
    driver = Driver()
    driver.answering = False
    driver.deliver(item(OrderID=None, OrigClOrdID="ord-000417"), redelivered=True)
    answer(driver)
    assert (driver.questions()[1]["name"], driver.questions()[1]["Symbol"]) == ("Order", "BTC-USD")
    answer(driver, None, order("New", OrderID="order-8", ClOrdID="another"), order("New", OrderID="order-7"))
    assert driver.cancels_sent() == ["y-1"]
    driver.report("Canceled", ClOrdID="z-9", OrderID="order-7")
    assert driver.outcome() == "already_closed", "its OrderID was learned"


def test_an_order_whose_client_ids_changed_is_found_by_the_order_id_that_its_reports_told() -> None:
    driver = Driver()
    driver.answering = False
    driver.deliver(item(OrderID=None, OrigClOrdID="ord-000417"), redelivered=True)
    answer(driver, None, report("New", ClOrdID="ord-000417", OrderID="order-7"))
    assert driver.questions()[1]["OrderID"] == "order-7"
    answer(driver, None, order("New", OrderID="order-7", ClOrdID="ord-000419", OrigClOrdID="ord-000418"))
    assert driver.cancels_sent() == ["y-1"]


@pytest.mark.parametrize(
    ("age_s", "start_s_ago"), [(None, 900), (0, 60), (100, 160), (839, 899), (841, 900), (5000, 900), (-500, -440)]
)
def test_a_look_up_starts_at_the_commands_time_minus_overlap_at_most_lookback_ago(
    age_s: int | None, start_s_ago: int
) -> None:
    driver = Driver(venue={"lookback": 900.0, "overlap": 60.0})
    stamp = None if age_s is None else driver.utc_us // SECOND - age_s
    driver.deliver(item(), redelivered=True, timestamp_s=stamp)
    assert driver.questions()[0]["StartDate"] == format_utc(driver.utc_us - start_s_ago * SECOND)


def test_questions_are_dated_by_the_venues_clock() -> None:
    driver = Driver(sessions=0, venue={"lookback": 900.0})
    session = driver.open()
    driver.greet(session, format_utc(driver.utc_us + 300 * SECOND))
    driver.frame(session, data=[], initial=True)
    driver.deliver(item(), redelivered=True)
    assert driver.questions()[0]["StartDate"] == format_utc(driver.utc_us - 600 * SECOND)


def test_a_single_order_is_asked_for_however_old_it_is() -> None:
    """Protocol 8.5: an early StartDate; an order older than the horizon must not read as unknown."""
    driver = Driver(venue={"order_horizon": 10.0})
    driver.deliver(item(), redelivered=True)
    assert driver.questions()[1]["StartDate"] < "2020"


def test_a_lost_session_asks_the_open_questions_again_elsewhere() -> None:
    driver = doubtful()
    driver.lose(1)
    session = driver.connect()
    assert driver.subscribes(session)[-1].frame["streams"][0]["OrderID"] == "order-1"
    driver.answering = True
    driver.orders = WORKING
    driver.advance(0)
    assert driver.cancels_sent() == ["y-1", "y-1"]


def test_doubt_that_arises_during_a_look_up_waits_for_one_begun_after_it() -> None:
    driver = doubtful()
    driver.deliver(item(2), id="later", redelivered=True)
    asked = [q.get("OrderID") for q in driver.questions()]
    assert asked == ["order-1"]
    answer(driver)
    answer(driver, None, *WORKING)
    assert [q.get("OrderID") for q in driver.questions()][2:] == ["order-2"]


def test_an_answer_that_arrives_during_a_look_up_is_looked_up_by_a_later_one() -> None:
    """The list was read before the reject came: it cannot say what the order is after it (I5)."""
    driver = doubtful()
    answer(driver)
    driver.report("CancelRejected", ClOrdID="y-1", OrdStatus="New", CxlRejReason=0)
    answer(driver, None, *WORKING)
    assert driver.finals() == []
    driver.answering = True
    driver.orders = [order("Filled", ClOrdID="ord-000417")]
    driver.advance(2)
    assert driver.outcome() == "already_closed"


# -- what an answer proves


def a_cancel(*, redelivered: bool = False) -> CancelState:
    command = CommandState(
        "cmd-1", Context("cmd-1"), "cancel", Delivery("cancel", 1, 1), redelivered, b"", 0, "", None
    )  # fmt: skip
    return CancelState(command, CancelItem(0, "BTC-USD", "y-1", "order-1", None, None, None))


@pytest.mark.parametrize(
    ("status", "fields", "conclusion"),
    [
        ("Canceled", {"cl_ord_id": "y-1"}, "canceled"),
        ("Cancelled", {"cl_ord_id": "y-1"}, "canceled"),
        ("Canceled", {"cl_ord_id": "z-9"}, "already_closed"),
        ("Canceled", {"cl_ord_id": None}, "already_closed"),
        ("Filled", {"cl_ord_id": "y-1"}, "already_closed"),
        ("Rejected", {}, "already_closed"),
        ("Expired", {}, "already_closed"),
        ("PendingCancel", {"exec_type": "Trade", "leaves_qty": "0"}, "already_closed"),
        ("DoneForDay", {"time_in_force": "FillAndKill"}, "already_closed"),
        ("DoneForDay", {"time_in_force": "GoodTillCancel"}, "working"),
        ("PendingCancel", {"cl_ord_id": "y-1"}, "pending"),
        ("PendingCancel", {"cl_ord_id": "z-9"}, "running"),
        ("PendingReplace", {"cl_ord_id": "z-9"}, "running"),
        ("New", {}, "working"),
        ("PartiallyFilled", {"cl_ord_id": "y-1"}, "working"),
        ("Vaporised", {}, "working"),
        (None, {}, "unclear"),
    ],
)
def test_what_an_order_record_proves(status: str | None, fields: dict[str, Any], conclusion: Conclusion) -> None:
    assert conclude(a_cancel(), Record(ord_status=status, **fields), absence_proven=True) == conclusion


@pytest.mark.parametrize(("proven", "conclusion"), [(True, "absent"), (False, "unclear")])
def test_absence_counts_only_if_it_was_proven(proven: bool, conclusion: Conclusion) -> None:
    assert conclude(a_cancel(), None, proven) == conclusion


@pytest.mark.parametrize("redelivered", [True, False])
def test_the_fresh_id_of_another_process_is_recognised(redelivered: bool) -> None:
    record = Record(ord_status="Canceled", cl_ord_id=derive_cl_ord_id("cmd-1", 0, 2))
    assert conclude(a_cancel(redelivered=redelivered), record, True) == "canceled"
    assert conclude(a_cancel(redelivered=redelivered), Record(ord_status="Canceled", cl_ord_id="z-9"), True) == (
        "already_closed"
    )


def test_where_a_look_up_starts() -> None:
    now = Now(0.0, START_US)
    assert lookup_start(a_cancel(), 900.0, 60.0, now) == START_US - 900 * SECOND
    assert start_date(-5, 0) == "1970-01-01T00:00:00.000000Z"


def test_a_report_comes_before_an_order_record() -> None:
    driver = Driver()
    driver.history = [report("Canceled", ClOrdID="y-1")]
    driver.orders = [order("Canceled", ClOrdID="z-9")]
    driver.deliver(item(), redelivered=True)
    assert (driver.outcome(), driver.final()["report"]) == ("canceled", driver.history[0])
    assert [q["name"] for q in driver.questions()] == ["ExecutionReport"]


def test_a_replay_is_judged_in_the_order_of_its_timestamps() -> None:
    """Pages may come in any order: the reject of an earlier send, then what the next one brought."""
    reports = [
        report("CancelRejected", ClOrdID="y-1", OrdStatus="New", CxlRejReason=2, Timestamp="2026-03-09T14:09:12.2Z"),
        report("Trade", OrdStatus="Filled", LeavesQty="0", Timestamp="2026-03-09T14:09:12.10Z"),
    ]
    for history in (reports, reports[::-1]):
        driver = Driver()
        driver.history = history
        driver.deliver(item(), redelivered=True, timestamp_s=START_US // SECOND - 5)
        assert driver.outcome() == "already_closed"


def test_a_pending_cancel_of_ours_in_the_replay_is_waited_for() -> None:
    driver = Driver()
    driver.history = [report("PendingCancel", ClOrdID="y-1")]
    driver.orders = WORKING
    driver.deliver(item(), redelivered=True)
    driver.advance(20)
    assert driver.cancels_sent() == []
    driver.report("Canceled", ClOrdID="y-1")
    assert (driver.outcome(), driver.final()["sent"]) == ("canceled", "yes")


def test_another_ones_pending_cancel_is_waited_for_as_well() -> None:
    driver = Driver()
    driver.orders = [order("PendingCancel", ClOrdID="z-9")]
    driver.deliver(item(), redelivered=True)
    driver.advance(3)
    assert (driver.cancels_sent(), driver.finals()) == ([], [])
    driver.orders = WORKING
    driver.report("CancelRejected", ClOrdID="z-9", CxlRejReason=2)
    driver.advance(1)
    assert driver.cancels_sent() == ["y-1"], "never sent, never refused: under its own id"


def test_reports_from_before_the_command_are_evidence_but_no_news() -> None:
    driver = Driver()
    driver.history = [
        report("New", Timestamp="2026-03-09T14:08:00.000000Z"),
        report("Canceled", ClOrdID="z-9", Timestamp="2026-03-09T14:08:30.000000Z"),
    ]
    driver.deliver(item(), redelivered=True)
    assert driver.outcomes() == ["already_closed"]


def spoil(driver: Driver, reqid: int, how: str) -> None:
    """The question is answered by nothing, but not to an end that the venue gave and we could read."""
    if how == "timer":
        driver.advance(3)
    elif how == "error":
        driver.error(reqid)
    elif how == "bad record":
        answer(driver, reqid, {"OrderID": "order-1", "OrdStatus": 7})
    elif how == "bad frame":
        driver.raw(1, b'{"reqid":')
        driver.frame(1, data=[], initial=True)  # the report stream, read anew
        answer(driver, reqid)
    elif how == "gap":
        stream = "Order" if "Order" in str(driver.subscribes()[-1]) else "ExecutionReport"
        for seq in (1, 3):
            driver.raw(1, {"reqid": reqid, "type": stream, "seqNum": seq, "initial": seq == 3, "data": []})
    else:
        assert how == "nothing"
        answer(driver, reqid)


@pytest.mark.parametrize("stream", ["ExecutionReport", "Order"])
@pytest.mark.parametrize("how", ["nothing", "timer", "error", "bad record", "bad frame", "gap"])
def test_only_an_answer_read_to_the_venues_own_end_proves_that_there_is_no_order(stream: str, how: str) -> None:
    driver = Driver(venue={"unknown_wait": 1.0})
    driver.answering = False
    driver.deliver(item(), redelivered=True)
    seen = 0
    while driver.mono < 1030.0:
        asked = [s.frame for s in driver.subscribes() if "OrderID" in s.frame["streams"][0]]
        for frame in asked[seen:]:
            if frame["streams"][0]["name"] == stream:
                spoil(driver, frame["reqid"], how)
            else:
                answer(driver, frame["reqid"])
        seen = len(asked)
        driver.advance(0.1)
    assert seen >= 6
    assert driver.outcome() == ("unknown_order" if how == "nothing" else None)


# -- unknown orders


def test_unknown_takes_look_ups_that_agree_over_unknown_wait() -> None:
    driver = Driver(venue={"unknown_wait": 5.0})
    driver.deliver(item(), redelivered=True)
    driver.advance(4.9)
    assert driver.finals() == []
    assert len(driver.questions()) > 4
    driver.advance(0.2)
    assert (driver.outcome(), driver.final()["order_live"], driver.final()["sent"]) == ("unknown_order", None, "maybe")


def test_one_look_up_is_not_enough_however_late_it_comes() -> None:
    driver = Driver(venue={"unknown_wait": 5.0})
    driver.answering = False
    driver.deliver(item())
    driver.report("CancelRejected", ClOrdID="y-1", OrdStatus="Rejected", OrderID="NONE", CxlRejReason=1)
    driver.lose(1)
    driver.advance(20)
    driver.answering = True
    driver.connect()
    assert driver.finals() == [], "look-ups over unknown_wait must agree, and this is the first"
    driver.advance(5.1)
    assert driver.outcome() == "unknown_order"


def test_an_order_that_appears_within_unknown_wait_is_canceled_after_all() -> None:
    driver = Driver(venue={"unknown_wait": 5.0})
    driver.deliver(item(), redelivered=True)
    driver.advance(2)
    driver.orders = WORKING
    driver.advance(3)
    assert driver.cancels_sent() == ["y-1"]


# -- sending again


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
    driver.orders = [order("Canceled", ClOrdID="y-1")]
    driver.advance(0.9)
    driver.advance(5)
    assert driver.outcome() in ("canceled", "unresolved")


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
    driver = Driver(venue={"doubt_window": 5.2, "report_timeout": 5.0})
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
    driver = Driver(sessions=3, venue={"report_sessions": 1, "max_batch": 1})
    driver.answering = False
    driver.deliver(item(1), item(2), item(3))
    assert [len(driver.cancel_frames(s)) for s in (1, 2, 3)] == [1, 1, 1]
    driver.lose(1)
    assert sorted(e["index"] for e in driver.events("doubtful")) == [0, 1, 2]
    assert {e["index"]: e["sent"] for e in driver.events("doubtful")} == {0: "maybe", 1: "yes", 2: "yes"}


def test_with_fanout_all_a_command_session_that_lives_on_keeps_its_frames() -> None:
    driver = Driver(sessions=3, venue={"report_sessions": 2, "report_fanout": "all", "max_batch": 1})
    driver.deliver(item(1), item(2), item(3))
    driver.lose(1)
    assert driver.engine.stats.inflight["cancel"] == 2, "only what the lost session carried is given up"
    reqid = driver.cancel_frames(3)[0]["reqid"]
    driver.orders = [order("New", OrderID="order-3")]
    driver.error(reqid, code=1, session=3)
    assert driver.outcome(index=2) == "refused", "an error frame still finds its cancel"
