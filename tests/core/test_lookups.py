"""Asking the venue: what is asked, and what an answer proves (contract 4.2, 6; protocol section 8; faults I5)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.driver import Driver
from tests.core.payloads import START_US, Fields, item, order, report
from worker.core.cancel import CancelState, cancel_of
from worker.core.clock import Now
from worker.core.command import CommandState
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
    answer(driver)
    assert [(q["name"], q.get("OrderID")) for q in driver.questions()] == [
        ("ExecutionReport", None), ("ExecutionReport", "order-7"), ("Order", "order-7"),
    ]  # fmt: skip
    answer(driver, None, order("New", OrderID="order-7", ClOrdID="ord-000419", OrigClOrdID="ord-000418"))
    assert driver.cancels_sent() == ["y-1"]


REPLACED = [
    report("New", ClOrdID="ord-1", OrderID="order-7"),
    report("Replaced", ClOrdID="ord-2", OrigClOrdID="ord-1", OrderID="order-7", OrdStatus="New"),
    report("Replaced", ClOrdID="ord-3", OrigClOrdID="ord-2", OrderID="order-7", OrdStatus="New"),
    report("Canceled", ClOrdID="z-9", OrigClOrdID="ord-3", OrderID="order-7"),
]


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("known", ["ord-1", "ord-2"])
@pytest.mark.parametrize("step", [1, -1], ids=["in turn", "backwards"])
def test_replaces_are_followed_from_a_client_id_to_the_reports_under_later_ones(
    step: int, known: str, many: bool
) -> None:
    """Pages come in any order: the end of the order may be read before what ties it to the id that we know."""
    driver = Driver()
    driver.history = [{**each, "Timestamp": f"2026-03-09T14:09:0{n}Z"} for n, each in enumerate(REPLACED, 1)][::step]
    driver.orders = [order("Canceled", OrderID="order-7", ClOrdID="z-9", OrigClOrdID="ord-3")]
    others = [item(n) for n in range(10)] if many else []
    driver.deliver(item(9, OrderID=None, OrigClOrdID=known, ClOrdID="y"), *others, redelivered=True)
    final = driver.final(index=0)
    assert (final["outcome"], final["order_id"]) == ("already_closed", "order-7")
    assert final["report"]["ClOrdID"] == "z-9", "the report, and not the Order record"
    assert "y" not in driver.cancels_sent()


def test_an_order_found_closed_by_its_client_id_has_its_reports_read_by_its_order_id() -> None:
    driver = Driver()
    driver.history = [report("Canceled", ClOrdID="z-9", OrderID="order-7")]
    driver.orders = [order("Canceled", OrderID="order-7", ClOrdID="z-9", OrigClOrdID="ord-1")]
    driver.deliver(item(OrderID=None, OrigClOrdID="ord-1"), redelivered=True)
    assert (driver.outcome(), driver.final()["report"]) == ("already_closed", driver.history[0])


@pytest.mark.parametrize(
    ("age_s", "start_s_ago"), [(None, 900), (0, 60), (100, 160), (839, 899), (841, 900), (5000, 900), (-500, 900)]
)
def test_a_look_up_starts_at_the_commands_time_minus_overlap_at_most_lookback_ago(
    age_s: int | None, start_s_ago: int
) -> None:
    """A publisher's clock that runs ahead does not move it past the reports it asks for."""
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


def test_a_question_that_costs_one_session_after_the_other_is_asked_ever_more_seldom() -> None:
    """Else no session would live long enough for anything else."""
    driver = doubtful()
    waits = []
    for session in range(1, 8):
        asked = len(driver.questions())
        driver.lose(session)
        driver.connect()
        waits.append(driver.advance_until(lambda asked=asked: len(driver.questions()) > asked, 0.05))  # type: ignore[misc]
    assert waits[0] == 0, "the first loss may have had any reason"
    assert all(0.2 <= wait <= 5.1 for wait in waits[1:])
    assert waits[-1] > 1
    driver.answering = True
    driver.orders = WORKING
    driver.lose(8)
    driver.connect()
    driver.advance(6)
    assert driver.cancels_sent() == ["y-1", "y-1"]
    driver.answering = False
    driver.advance(10)
    asked = len(driver.questions())
    driver.lose(9)
    driver.connect()
    assert len(driver.questions()) > asked, "after an answer the count begins anew"


@pytest.mark.parametrize("when", ["before the loss", "before it is asked again"])
def test_a_question_that_needs_no_answer_any_more_holds_no_later_one_up(when: str) -> None:
    driver = doubtful()
    for session in (1, 2, 3):
        asked = len(driver.questions())
        driver.lose(session)
        driver.connect()
        driver.advance_until(lambda asked=asked: len(driver.questions()) > asked, 0.05)  # type: ignore[misc]
    if when == "before the loss":
        driver.report("Canceled", ClOrdID="y-1")
    driver.lose(4)
    driver.connect()
    if when == "before it is asked again":
        driver.report("Canceled", ClOrdID="y-1")
        driver.advance(6)
    asked = len(driver.questions())
    driver.deliver(item(2), id="later", redelivered=True)
    assert len(driver.questions()) == asked + 1
    driver.lose(5)
    driver.connect()
    assert len(driver.questions()) == asked + 2, "it has cost one session only"


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
    return cancel_of(command, CancelItem(0, "BTC-USD", "y-1", "order-1", None, None, None))


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


def test_a_replay_under_way_when_a_redelivered_command_comes_does_not_end_it() -> None:
    """Its first page went by: its own look-up tells the same report as whoever had the command before (contract 3)."""
    fill = report("Trade", OrdStatus="Filled", LeavesQty="0", Timestamp="2026-03-09T14:09:12.10Z")
    reject = report(
        "CancelRejected", ClOrdID="y-1", OrdStatus="Filled", LeavesQty="0", CxlRejReason=0,
        Timestamp="2026-03-09T14:09:12.11Z",
    )  # fmt: skip
    driver = Driver()
    second = driver.open(slot=1)
    driver.greet(second)
    driver.frame(second, initial=True, next="2", data=[fill])
    driver.answering = False
    driver.deliver(item(), redelivered=True, timestamp_s=START_US // SECOND - 5)
    driver.frame(second, initial=True, data=[reject])
    driver.frame(second, data=[reject | {"ExecID": "live-1"}])
    assert driver.finals() == [], "neither by that replay nor by a live report"
    asked = driver.subscribes()[-1]
    driver.frame(asked.session, asked.frame["reqid"], initial=True, data=[fill, reject])
    assert driver.final()["report"]["ExecType"] == "Trade"


CANCELED: Fields = {"ClOrdID": "y-1", "OrdStatus": "Canceled", "LeavesQty": "0"}


@pytest.mark.parametrize("many", [False, True], ids=["one by one", "by one replay"])
def test_an_end_that_is_told_live_while_the_list_is_read_is_not_sent_after(many: bool) -> None:
    """The replay was read to its end and held nothing: what comes live after it is the first to end the cancel."""
    driver = Driver()
    driver.answering = False
    driver.deliver(*(item(n) for n in range(1, 12 if many else 2)), redelivered=True)
    answer(driver, driver.subscribes()[-1].frame["reqid"])
    listing = driver.subscribes()[-1].frame
    assert listing["streams"][0]["name"] == "Order"
    driver.frame(1, listing["reqid"], "Order", data=WORKING, initial=True, next="2")
    told = driver.report("Canceled", **CANCELED)
    driver.frame(1, listing["reqid"], "Order", data=[], initial=True)
    driver.answering = True
    driver.advance(1)
    assert (driver.outcome(), driver.final()["report"]) == ("canceled", told)
    assert "y-1" not in driver.cancels_sent()


def test_an_end_that_is_told_live_while_the_replay_is_read_stands_if_that_holds_no_earlier_one() -> None:
    driver = Driver()
    driver.answering = False
    driver.deliver(item(), redelivered=True)
    told = driver.report("CancelRejected", ClOrdID="y-1", CxlRejReason=2)
    driver.report("Canceled", ClOrdID="z-9")
    assert driver.finals() == []
    answer(driver, driver.subscribes()[-1].frame["reqid"], report("PendingCancel", ClOrdID="y-1"))
    assert (driver.outcome(), driver.final()["report"]) == ("cancel_rejected", told), "the first, as for who sent it"


def test_a_list_read_before_does_not_outweigh_an_end_that_was_told_live() -> None:
    driver = Driver()
    driver.orders = [order("New", OrderID=f"order-{n}", ClOrdID=f"ord-{n}") for n in range(1, 41)]
    driver.deliver(*(item(n) for n in range(1, 21)), id="first", redelivered=True)
    driver.answering = False
    driver.deliver(*(item(n) for n in range(21, 41)), id="second", redelivered=True)
    driver.report("Canceled", **CANCELED | {"ClOrdID": "y-21", "OrderID": "order-21"})
    answer(driver, driver.subscribes()[-1].frame["reqid"])
    assert driver.outcome("second", index=0) == "canceled"
    assert "y-21" not in driver.cancels_sent()
    assert "y-22" in driver.cancels_sent(), "the list serves"


def test_an_end_from_before_the_command_that_another_replay_told_is_no_news() -> None:
    """Nor is it the report that the final rests on: whoever sent the cancel had the reject that followed."""
    stamp = START_US // SECOND - 5
    fields: Fields = {"OrdStatus": "Filled", "LeavesQty": "0"}
    fill = report("Trade", Timestamp=format_utc(START_US - 600 * SECOND), **fields)
    reject = report("CancelRejected", ClOrdID="y-1", CxlRejReason=0, Timestamp=format_utc(START_US - SECOND), **fields)
    driver = Driver()
    second = driver.connect(1, replay=None)
    driver.answering = False
    driver.deliver(item(TransactTime=None), redelivered=True, timestamp_s=stamp)
    driver.frame(second, data=[fill], initial=True)
    answer(driver, driver.subscribes()[-1].frame["reqid"], reject)
    assert driver.outcomes() == ["already_closed"]
    assert driver.final()["report"] == reject


@pytest.mark.parametrize("doubt_window", [1.0, 300.0], ids=["the window ends", "the look-up ends by its timer"])
def test_what_the_venue_told_is_never_unresolved(doubt_window: float) -> None:
    driver = Driver(venue={"doubt_window": doubt_window})
    driver.answering = False
    driver.deliver(item(), redelivered=True)
    driver.advance(0.5)
    told = driver.report("Canceled", **{**CANCELED, "ClOrdID": "z-9"})
    assert driver.finals() == []
    driver.advance(30)
    assert (driver.outcome(), driver.final()["report"]) == ("already_closed", told)
    assert driver.cancels_sent() == []


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
    before = len(driver.subscribes())
    driver.answering = False
    driver.deliver(item(), redelivered=True)
    seen = 0
    while driver.mono < 1030.0:
        asked = [s.frame for s in driver.subscribes()[before:]]
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


def test_an_order_is_not_unknown_by_an_answer_whose_first_frame_went_missing() -> None:
    driver = Driver(venue={"unknown_wait": 1.0})
    driver.answering = False
    driver.deliver(item(1), redelivered=True)
    asked = 0
    for _ in range(200):
        for sent in driver.subscribes(1)[1 + asked :]:
            asked += 1
            driver.frame_numbers[1, sent.frame["reqid"]] = 1
            driver.frame(1, sent.frame["reqid"], sent.frame["streams"][0]["name"], initial=True, data=[])
        driver.advance(0.05)
    assert asked >= 4
    assert driver.outcome() is None
    driver.answering = True
    driver.advance(20)
    assert driver.outcome() == "unknown_order"
