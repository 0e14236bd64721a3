"""Two workers, one cancel: the one that comes later finds in the replay what the first saw live (contract 3, Ids)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.core.driver import Driver
from tests.core.payloads import START_US, Fields, item, order, report
from worker.wire.timestamp import format_utc

SECOND = 1_000_000
EQUAL = ("event_id", "outcome", "order_live", "order", "report", "error")


def at(seconds: float) -> str:
    """The venue's clock, from the moment of the command on."""
    return format_utc(START_US + round(seconds * SECOND))


def ours(exec_type: str, seconds: float, **fields: Any) -> Fields:
    return report(exec_type, ClOrdID="y-1", Timestamp=at(seconds), **fields)


def anothers(exec_type: str, seconds: float, **fields: Any) -> Fields:
    return report(exec_type, **{"ClOrdID": "ord-000417", "Timestamp": at(seconds), **fields})


FILL: Fields = {"OrdStatus": "Filled", "LeavesQty": "0", "CumQty": "0.5"}
TOO_LATE: Fields = {"OrdStatus": "Filled", "CxlRejReason": 0, "LeavesQty": "0", "CumQty": "0.5"}

STORIES: dict[str, tuple[list[Fields], list[Fields], Fields]] = {
    "canceled": ([], [ours("PendingCancel", 0.1), ours("Canceled", 0.2)], order("Canceled", ClOrdID="y-1")),
    "a fill comes after the cancel": (
        [], [ours("Canceled", 0.2), anothers("Trade", 0.3, CumQty="0.1")], order("Canceled", ClOrdID="y-1"),
    ),
    "the fill wins": (
        [], [ours("PendingCancel", 0.1), anothers("Trade", 0.2, **FILL), ours("CancelRejected", 0.3, **TOO_LATE)],
        order("Filled"),
    ),
    "the fill wins, in the other form": (
        [], [anothers("Trade", 0.2, **FILL), ours("CancelRejected", 0.3, **TOO_LATE)], order("Filled"),
    ),
    "filled before the command": (
        [anothers("Trade", -0.2, **FILL)], [ours("CancelRejected", 0.3, **TOO_LATE)], order("Filled"),
    ),
    "expired before the command": (
        [anothers("Expired", -5)], [ours("CancelRejected", 0.3, OrdStatus="Expired", CxlRejReason=0)],
        order("Expired"),
    ),
    "canceled by another hand before the command": (
        [report("Canceled", ClOrdID="z-9", Timestamp=at(-0.2))],
        [ours("CancelRejected", 0.3, OrdStatus="Canceled", CxlRejReason=0)],
        order("Canceled", ClOrdID="z-9"),
    ),
    "canceled by another hand, then refused": (
        [],
        [
            report("Canceled", ClOrdID="z-9", Timestamp=at(0.2)),
            ours("CancelRejected", 0.3, OrdStatus="Canceled", CxlRejReason=0),
        ],
        order("Canceled", ClOrdID="z-9"),
    ),
    "refused, and filled later": (
        [], [ours("CancelRejected", 0.3, CxlRejReason=2), anothers("Trade", 9, **FILL)], order("Filled"),
    ),
    "refused, and canceled by another hand later": (
        [], [ours("CancelRejected", 0.3, CxlRejReason=2), report("Canceled", ClOrdID="z-9", Timestamp=at(9))],
        order("Canceled", ClOrdID="z-9"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("transact_time", "timestamp_s"), [(at(-0.01), None), (None, 0), (at(-0.01), -1)],
    ids=["TransactTime", "AMQP timestamp", "both"],
)  # fmt: skip
@pytest.mark.parametrize("name", STORIES)
@pytest.mark.parametrize("step", [1, -1], ids=["in turn", "backwards"])
def test_the_second_worker_tells_the_same_final(
    name: str, transact_time: str | None, timestamp_s: int | None, step: int
) -> None:
    before, after, then = STORIES[name]
    told = []
    for again in (False, True):
        driver = Driver()
        driver.history = before[::step]
        driver.orders = [then]
        stamp = None if timestamp_s is None else START_US // SECOND + timestamp_s
        if again:
            driver.advance(60)
            driver.history = [*before, *after][::step]
        driver.deliver(item(TransactTime=transact_time), redelivered=again, timestamp_s=stamp)
        for each in () if again else after:
            driver.advance(0.1)
            driver.history.append(each)
            driver.frame(1, data=[each])
        driver.advance(1)
        told.append({key: driver.final()[key] for key in EQUAL})
        assert len(driver.cancels_sent()) == (0 if again else 1)
    assert told[0] == told[1]


def test_an_order_closed_before_the_command_and_no_answer_since_rests_on_what_closed_it() -> None:
    driver = Driver()
    driver.history = [anothers("Trade", -0.2, **FILL)]
    driver.orders = [order("Filled")]
    driver.deliver(item(TransactTime=at(-0.01)), redelivered=True)
    assert (driver.outcome(), driver.final()["report"], driver.final()["sent"]) == (
        "already_closed", driver.history[0], "maybe",
    )  # fmt: skip
    assert driver.cancels_sent() == []


def test_what_is_sent_waits_for_its_answer_though_a_replay_tells_what_closed_the_order_before() -> None:
    fill, reject = anothers("Trade", -0.2, **FILL), ours("CancelRejected", 0.3, **TOO_LATE)
    driver = Driver()
    driver.deliver(item(TransactTime=at(-0.01)))
    driver.connect(1, replay=[fill])
    assert driver.finals() == []
    driver.frame(1, data=[reject])
    assert (driver.outcome(), driver.final()["report"]) == ("already_closed", reject)


@pytest.mark.parametrize("silent", [False, True])
def test_what_is_sent_and_not_answered_is_ended_by_what_closed_the_order_before(silent: bool) -> None:
    driver = Driver()
    driver.history, driver.orders = [anothers("Trade", -0.2, **FILL)], [order("Filled")]
    driver.deliver(item(TransactTime=at(-0.01)))
    if silent:
        driver.advance(5.1)
    else:
        driver.lose(1)
        driver.connect(replay=driver.history)
    assert (driver.outcome(), driver.final()["report"]) == ("already_closed", driver.history[0])


def test_what_a_replay_told_before_it_broke_off_counts_when_the_next_one_tells_it() -> None:
    """On the page that is missing there may be the answer to the cancel, which somebody else has told."""
    driver = Driver()
    driver.lose(1)
    session = driver.connect(replay=None)
    driver.deliver(item(TransactTime=at(-0.01)))
    driver.history = [anothers("Trade", -0.2, **FILL)]
    driver.frame(session, data=driver.history, initial=True, next="cursor")
    driver.lose(session)
    assert driver.outcome() is None
    assert driver.engine.desk._closed_before == []
    driver.connect(replay=driver.history)
    assert driver.engine.stats.conflicting_reports == 0
    assert (driver.outcome(), driver.final()["report"]) == ("already_closed", driver.history[0])
    assert driver.cancels_sent() == []


def test_a_refusal_that_left_no_trace_is_found_out_again_by_sending_again() -> None:
    """The look-up finds the order working and nothing of the cancel; the venue refuses it once more."""
    told = []
    for again in (False, True):
        driver = Driver()
        driver.orders = [order("New")]
        driver.deliver(item(), redelivered=again)
        assert len(driver.questions()) == (2 if again else 0)
        driver.error(driver.cancel_frames()[0]["reqid"], code=1, msg="invalid request")
        driver.advance(1)
        told.append({key: driver.final()[key] for key in EQUAL})
    assert told[0] == told[1]
    assert told[0]["outcome"] == "refused"


# -- what one worker saw live, and another did not


def duplicate(driver: Driver, transact_time: str | None = at(-0.01)) -> None:
    """A publisher's duplicate: nothing marks it as one."""
    driver.deliver(item(TransactTime=transact_time))


def told(driver: Driver) -> dict[str, Any]:
    return {key: driver.final()[key] for key in EQUAL}


def test_a_reject_that_says_closed_is_final_at_once() -> None:
    """Whatever closed the order, the venue has said that it is; nobody else is known to have told it."""
    driver = Driver()
    duplicate(driver)
    reject = ours("CancelRejected", 0.3, **TOO_LATE)
    driver.frame(1, data=[reject])
    assert (driver.outcome(), driver.final()["report"], driver.final()["error"]["reason"]) == (
        "already_closed",
        reject,
        0,
    )
    assert driver.questions() == []


@pytest.mark.parametrize("how", ["holds nothing else", "breaks off", "is refused"])
def test_a_reject_counts_where_the_history_tells_of_no_earlier_end(how: str) -> None:
    driver = Driver()
    duplicate(driver)
    reject = ours("CancelRejected", 0.3, **TOO_LATE)
    driver.history = [reject]
    driver.answering = how == "holds nothing else"
    driver.frame(1, data=[reject])
    for _ in range(400):
        if how == "is refused" and driver._unanswered:
            driver.error(driver._unanswered.pop().frame["reqid"])
        driver.advance(0.1)
    assert (driver.outcome(), driver.final()["report"]) == ("already_closed", reject)
    assert driver.cancels_sent() == ["y-1"], "what is closed is not sent again"


def test_a_duplicate_id_does_not_make_the_order_newer_than_the_report() -> None:
    """Reason 6 came after the fill, which only the look-up tells."""
    fill, six = anothers("Trade", 0.2, **FILL), ours("CancelRejected", 0.5, CxlRejReason=6, OrdStatus="Filled")
    driver = Driver()
    driver.history = [fill, ours("CancelRejected", 0.3, **TOO_LATE)]
    duplicate(driver)
    driver.frame(1, data=[six])
    assert (driver.final()["report"], driver.final()["order"]["as_of"]) == (fill, fill["Timestamp"])


def test_after_a_duplicate_id_the_first_end_counts_and_not_what_comes_live() -> None:
    """An earlier send of it was refused, and the order was canceled by another hand later."""
    refused = ours("CancelRejected", 0.1, CxlRejReason=2)
    six, other = ours("CancelRejected", 0.5, CxlRejReason=6), report("Canceled", ClOrdID="z-9", Timestamp=at(0.6))
    driver = Driver()
    driver.answering = False
    duplicate(driver)
    driver.frame(1, data=[six])
    driver.frame(1, data=[other])
    assert driver.finals() == []
    driver.history = [refused, six, other]
    driver.answering = True
    driver.advance(1)
    assert (driver.outcome(), driver.final()["report"]) == ("cancel_rejected", refused)


def test_a_live_frame_between_the_pages_of_a_look_up_ends_nothing_that_an_earlier_page_may_have_ended() -> None:
    refused, other = ours("CancelRejected", 0.1, CxlRejReason=2), report("Canceled", ClOrdID="z-9", Timestamp=at(5))
    driver = Driver()
    driver.answering = False
    driver.deliver(item(TransactTime=at(-0.01)), redelivered=True)
    asked = driver.subscribes()[-1].frame["reqid"]
    driver.frame(1, asked, initial=True, data=[], next="2")
    driver.frame(1, asked, data=[other])
    assert driver.finals() == []
    driver.frame(1, asked, initial=True, data=[refused])
    assert (driver.outcome(), driver.final()["report"]) == ("cancel_rejected", refused)


def test_at_one_instant_what_closed_the_order_comes_before_the_reject() -> None:
    closed, reject = report("Canceled", ClOrdID="z-9", Timestamp=at(1)), ours("CancelRejected", 1, **TOO_LATE)
    for history in ([closed, reject], [reject, closed]):
        driver = Driver()
        driver.history = history
        driver.deliver(item(TransactTime=at(-0.01)), redelivered=True)
        assert driver.final()["report"] == closed


def test_an_unknown_order_rests_on_the_first_reject_though_that_names_no_order() -> None:
    """A replay of one order does not hold it, so after the first look-up everything is replayed."""
    reject = ours("CancelRejected", 0.1, OrdStatus="Rejected", OrderID="NONE", CxlRejReason=1)
    later = {**reject, "Timestamp": at(0.5), "ExecID": "later"}
    for again in (False, True):
        driver = Driver(venue={"unknown_wait": 2.0})
        driver.history = [later, reject]
        driver.deliver(item(TransactTime=at(-0.01)), redelivered=again)
        if not again:
            driver.frame(1, data=[reject])
            driver.frame(1, data=[later])
        driver.advance(10)
        assert (driver.outcome(), driver.final()["report"]) == ("unknown_order", reject)


def test_a_list_is_believed_only_after_the_reports_were_read_to_their_end() -> None:
    """A replay that broke off may hold the report: it is asked for again before the final has none."""
    canceled = ours("Canceled", 0.2)
    driver = Driver()
    driver.orders = [order("Canceled", ClOrdID="y-1", Timestamp=at(0.4))]
    driver.answering = False
    driver.deliver(item(TransactTime=at(-0.01)), redelivered=True)
    refused = 0
    while refused < 2:
        for sent in list(driver._unanswered):
            driver._unanswered.remove(sent)
            if sent.frame["type"] == "subscribe" and sent.frame["streams"][0]["name"] == "ExecutionReport":
                driver.error(sent.frame["reqid"])
                refused += 1
            else:
                driver._answer(sent)
        driver.advance(0.1)
    assert driver.finals() == []
    driver.history = [canceled]
    driver.answering = True
    driver.advance(5)
    assert (driver.final()["report"], driver.final()["order"]["as_of"]) == (canceled, canceled["Timestamp"])


def test_a_venue_that_ends_no_replay_is_believed_by_its_list_in_the_end() -> None:
    driver = Driver()
    driver.orders = [order("Canceled", ClOrdID="y-1", Timestamp=at(0.4))]
    driver.answering = False
    driver.deliver(item(TransactTime=at(-0.01)), redelivered=True)
    for _ in range(300):
        for sent in list(driver._unanswered):
            if sent.frame["type"] != "subscribe" or sent.frame["streams"][0]["name"] == "Order":
                driver._unanswered.remove(sent)
                driver._answer(sent)
        driver.advance(0.1)
    assert (driver.outcome(), driver.final()["report"]) == ("canceled", None)
    assert driver.cancels_sent() == []


def ask_in_vain(driver: Driver, seconds: float, page: list[Fields]) -> None:
    """Every replay breaks off after one page; every list is read to its end."""
    for _ in range(round(seconds * 10)):
        for sent in list(driver._unanswered):
            driver._unanswered.remove(sent)
            if sent.frame["type"] == "subscribe" and sent.frame["streams"][0]["name"] == "ExecutionReport":
                driver.frame(1, sent.frame["reqid"], initial=True, data=page, next="2")
            else:
                driver._answer(sent)
        driver.advance(0.1)


def test_what_a_list_shows_working_is_not_sent_again_beside_a_replay_in_vain() -> None:
    """It may hold the reject that another worker has told as the end; only a venue that ends none is not waited for."""
    refused = ours("CancelRejected", 0.1, CxlRejReason=2)
    for answering in (True, False):
        driver = Driver()
        driver.orders = [order("New", Timestamp=at(0.1))]
        driver.answering = False
        driver.deliver(item(TransactTime=at(-0.01)), redelivered=True)
        (cancel,) = driver.engine.intake.commands["cmd-1"].cancels
        ask_in_vain(driver, 3, [])
        assert cancel.lookups == 1
        assert driver.cancels_sent() == []
        driver.history, driver.answering = [refused], answering
        if answering:
            driver.advance(5)
            assert (driver.outcome(), driver.final()["report"]) == ("cancel_rejected", refused)
            assert driver.cancels_sent() == []
        else:
            ask_in_vain(driver, 6, [])
            assert driver.cancels_sent() == ["y-1"]


def test_the_page_of_a_look_up_that_broke_off_does_not_end_what_another_page_may_have_ended() -> None:
    refused, other = ours("CancelRejected", 0.1, CxlRejReason=2), report("Canceled", ClOrdID="z-9", Timestamp=at(5))
    driver = Driver()
    driver.answering = False
    driver.deliver(item(TransactTime=at(-0.01)), redelivered=True)
    ask_in_vain(driver, 3, [other])
    assert driver.finals() == []
    driver.history = [refused, other]
    driver.answering = True
    driver.advance(5)
    assert (driver.outcome(), driver.final()["report"]) == ("cancel_rejected", refused)


def test_what_comes_live_after_a_look_up_in_vain_waits_for_the_next_one() -> None:
    refused, other = ours("CancelRejected", 0.1, CxlRejReason=2), report("Canceled", ClOrdID="z-9", Timestamp=at(5))
    driver = Driver()
    driver.answering = False
    driver.deliver(item(TransactTime=at(-0.01)), redelivered=True)
    (cancel,) = driver.engine.intake.commands["cmd-1"].cancels
    driver.advance_until(lambda: cancel.lookups > 0, 0.1)
    driver.frame(1, data=[other])
    assert driver.finals() == []
    driver.history, driver.answering = [refused, other], True
    driver.advance(20)
    assert (driver.outcome(), driver.final()["report"]) == ("cancel_rejected", refused)


@pytest.mark.parametrize("word", ["PendingCancel", "CancelRejected"])
def test_a_word_that_ends_no_cancel_does_not_end_the_wait_for_the_history(word: str) -> None:
    """It moves the cancel out of its doubt while the venue is asked; an end that comes then may not be the first."""
    first = ours(word, 0.1, **({"OrdStatus": "PendingReplace", "CxlRejReason": 3} if word == "CancelRejected" else {}))
    refused, other = ours("CancelRejected", 0.2, CxlRejReason=2), report("Canceled", ClOrdID="z-9", Timestamp=at(5))
    driver = Driver()
    driver.answering = False
    driver.deliver(item(TransactTime=at(-0.01)), redelivered=True)
    driver.frame(1, data=[first])
    driver.frame(1, data=[other])
    assert driver.finals() == []
    driver.history, driver.answering = [first, refused, other], True
    driver.advance(60)
    assert (driver.outcome(), driver.final()["report"]) == ("cancel_rejected", refused)


def test_an_end_heard_while_its_look_up_was_lost_is_asked_about_at_once() -> None:
    pending, fill = ours("PendingCancel", 0.1), anothers("Trade", 0.2, **FILL)
    driver = Driver(sessions=2)
    driver.answering = False
    driver.deliver(item(TransactTime=at(-0.01)), redelivered=True)
    driver.frame(1, data=[pending])
    driver.frame(1, data=[fill])
    driver.history, driver.answering = [pending, fill], True
    driver.lose(1)
    driver.lose(2)
    driver.connect(replay=driver.history)
    driver.advance(1)
    assert (driver.outcome(), driver.final()["report"]) == ("already_closed", fill)


@pytest.mark.parametrize("word", ["PendingCancel", "CancelRejected"])
def test_a_word_that_comes_after_an_end_was_heard_does_not_end_the_asking(word: str) -> None:
    """Out of its doubt it would wait for half a minute, should the look-up that is under way be in vain."""
    before = ours(word, 0.1, **({"OrdStatus": "PendingReplace", "CxlRejReason": 3} if word == "CancelRejected" else {}))
    fill = anothers("Trade", 0.2, **FILL)
    driver = Driver()
    driver.answering = False
    driver.deliver(item(TransactTime=at(-0.01)), redelivered=True)
    driver.frame(1, data=[fill])
    driver.frame(1, data=[before])
    driver.advance(2.2)
    driver.history, driver.answering = [before, fill], True
    driver.advance(2)
    assert (driver.outcome(), driver.final()["report"]) == ("already_closed", fill)


def test_of_a_cancel_that_nobody_else_had_a_reject_is_believed_after_one_look_up_in_vain() -> None:
    driver = Driver()
    driver.deliver(item(TransactTime=at(-0.01)))
    driver.answering = False
    reject = ours("CancelRejected", 0.3, OrdStatus="Canceled", CxlRejReason=0)
    driver.frame(1, data=[reject])
    driver.advance_until(lambda: bool(driver.finals()), 0.1, most=6)
    assert (driver.outcome(), driver.final()["report"]) == ("already_closed", reject)


def test_an_order_that_a_list_shows_closed_is_asked_about_again_though_nobody_else_had_the_cancel() -> None:
    """A redelivery of the command, if this process dies now, would find the report and publish another final."""
    driver = Driver()
    driver.answering = False
    driver.orders = [order("Canceled", ClOrdID="y-1", Timestamp=at(0.2))]
    driver.deliver(item(TransactTime=at(-0.01)))
    (cancel,) = driver.engine.intake.commands["cmd-1"].cancels
    driver.advance(5)
    ask_in_vain(driver, 6, [])
    assert cancel.lookups == 1
    assert driver.finals() == []
    canceled = ours("Canceled", 0.2)
    driver.history, driver.answering = [canceled], True
    driver.advance(5)
    assert (driver.outcome(), driver.final()["report"]) == ("canceled", canceled)


def test_nor_does_the_replay_of_a_new_session_that_broke_off() -> None:
    refused, other = ours("CancelRejected", 0.1, CxlRejReason=2), report("Canceled", ClOrdID="z-9", Timestamp=at(5))
    driver = Driver(sessions=2)
    duplicate(driver)
    driver.answering = False
    driver.lose(1)
    driver.history = [refused, other]
    session = driver.connect(replay=None)
    driver.frame(session, initial=True, data=[other], next="2")
    driver.lose(session)
    assert driver.finals() == []
    driver.answering = True
    driver.advance(5)
    assert (driver.outcome(), driver.final()["report"]) == ("cancel_rejected", refused)


@pytest.mark.parametrize("answered", [False, True], ids=["the fill", "the fill and the reject"])
def test_where_every_replay_breaks_off_what_it_told_counts_in_the_end(answered: bool) -> None:
    """What closed the order before the cancel was asked for gives way to the answer to it, as in a whole replay."""
    fill, reject = anothers("Trade", -0.2, **FILL), ours("CancelRejected", 0.3, **TOO_LATE)
    driver = Driver()
    driver.orders = [order("Filled", Timestamp=at(0.4))]
    driver.answering = False
    driver.deliver(item(TransactTime=at(-0.01)), redelivered=True)
    if answered:
        driver.frame(1, data=[fill])
        driver.frame(1, data=[reject])
    ask_in_vain(driver, 30, [fill])
    assert (driver.outcome(), driver.final()["report"]) == ("already_closed", reject if answered else fill)
    assert driver.final()["order"]["as_of"] == driver.final()["report"]["Timestamp"]


def test_what_waits_for_its_redelivery_is_ended_by_the_look_up_after_it() -> None:
    refused, other = ours("CancelRejected", 0.1, CxlRejReason=2), report("Canceled", ClOrdID="z-9", Timestamp=at(5))
    driver = Driver()
    driver.answering = False
    driver.deliver(item(), item(2), redelivered=True)
    driver.frame(1, data=[report("Canceled", OrderID="order-2", ClOrdID="y-2")])
    driver.lose_consumer("cancel")
    driver.frame(1, data=[other])
    assert driver.outcome() is None
    driver.history = [refused, other]
    driver.answering = True
    driver.deliver(item(), item(2), redelivered=True, epoch=2)
    driver.advance(5)
    assert (driver.outcome(), driver.final()["report"]) == ("cancel_rejected", refused)


def test_an_order_that_a_look_up_found_working_is_told_as_of_the_reject() -> None:
    """Whatever happened to it since; a duplicate's reject makes the venue's record of it newer, and changes nothing."""
    reject = ours("Rejected", 0.2, OrdRejReason=99, Text="cancel request refused")
    for again, since in ((False, 0.2), (True, 5)):
        driver = Driver()
        driver.history = [reject]
        driver.orders = [order("New", Timestamp=at(since))]
        driver.deliver(item(TransactTime=at(-0.01)), redelivered=again)
        if not again:
            driver.frame(1, data=[reject])
        driver.advance(1)
        assert (driver.outcome(), driver.final()["report"]) == ("cancel_rejected", reject)
        told_order = driver.final()["order"]
        assert (told_order["status"], told_order["as_of"]) == ("New", reject["Timestamp"])
