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


def test_what_a_replay_told_before_it_broke_off_is_final_as_well() -> None:
    driver = Driver()
    driver.lose(1)
    session = driver.connect(replay=None)
    driver.deliver(item(TransactTime=at(-0.01)))
    driver.frame(session, data=[anothers("Trade", -0.2, **FILL)], initial=True, next="cursor")
    driver.lose(session)
    assert driver.outcome() == "already_closed"
    assert driver.engine.desk._closed_before == []


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
