"""What goes into a frame, when, and in which order (contract 4.5, 4.6 and section 2; faults I4, I6, I9)."""

from __future__ import annotations

import json
from copy import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.driver import Driver, delivered
from tests.core.payloads import Fields, cancel_body, item, order, report
from worker.core.batch import MAKE_WAY_PAUSE_S, MAKE_WAY_S, RateBudget
from worker.core.effects import SendText
from worker.core.facts import Delivery
from worker.wire.command import Lane, Properties, derive_cl_ord_id
from worker.wire.timestamp import format_utc, parse_utc


def ids(frame: Fields) -> list[str]:
    return [each["ClOrdID"] for each in frame["data"]]


def at_once(driver: Driver, *commands: tuple[Lane, list[Fields]]) -> None:
    """Several commands in one turn of the loop: before anything is flushed."""
    facts = [
        delivered(Delivery(lane, 1, 100 + n), cancel_body(*items), Properties(message_id=f"cmd-{n}"))
        for n, (lane, items) in enumerate(commands)
    ]
    driver.step(*facts)


# -- frames


def test_a_frame_is_the_venues_request_with_what_the_command_gave() -> None:
    driver = Driver()
    driver.deliver(
        item(1, Timestamp="2026-03-09T14:09:11.5Z", TransactTime="2026-03-09T15:09:11.238+01:00"),
        item(2, OrderID=None, OrigClOrdID="ord-000418", TransactTime=None),
    )
    (frame,) = driver.cancel_frames()
    assert frame["type"] == "OrderCancelRequest"
    assert frame["data"] == [
        {
            "Symbol": "BTC-USD",
            "ClOrdID": "y-1",
            "TransactTime": "2026-03-09T14:09:11.238000Z",
            "OrderID": "order-1",
            "Timestamp": "2026-03-09T14:09:11.5Z",
        },
        {
            "Symbol": "BTC-USD",
            "ClOrdID": "y-2",
            "TransactTime": format_utc(driver.utc_us),
            "OrigClOrdID": "ord-000418",
        },
    ]


@pytest.mark.parametrize(
    ("target", "names"),
    [("order_id", {"OrderID"}), ("orig_cl_ord_id", {"OrigClOrdID"}), ("both", {"OrderID", "OrigClOrdID"})],
)
def test_which_of_two_ids_is_sent_is_a_setting(target: str, names: set[str]) -> None:
    driver = Driver(venue={"target": target})
    driver.deliver(item(OrigClOrdID="ord-000417"))
    assert {"OrderID", "OrigClOrdID"} & driver.cancel_frames()[0]["data"][0].keys() == names


def test_request_ids_count_up_over_all_kinds_of_message_and_are_never_0() -> None:
    driver = Driver(sessions=2)
    driver.deliver(item())
    driver.advance(7)
    for session in (1, 2):
        used = [s.frame["reqid"] for s in driver.sent if s.session == session and s.frame["type"] != "cancel"]
        assert used == list(range(1, len(used) + 1))


@pytest.mark.parametrize(("waiting", "frames"), [(1, [1]), (3, [3]), (4, [3, 1]), (7, [3, 3, 1])])
def test_a_frame_takes_what_waits_up_to_max_batch(waiting: int, frames: list[int]) -> None:
    driver = Driver(venue={"max_batch": 3})
    driver.deliver(*(item(n) for n in range(waiting)))
    assert [len(frame["data"]) for frame in driver.cancel_frames()] == frames
    assert driver.cancels_sent() == [f"y-{n}" for n in range(waiting)], "in order of arrival"


def test_commands_that_come_together_share_a_frame() -> None:
    driver = Driver()
    at_once(driver, ("cancel", [item(1)]), ("cancel", [item(2), item(3)]))
    assert [ids(frame) for frame in driver.cancel_frames()] == [["y-1", "y-2", "y-3"]]


def test_kill_goes_first_and_no_frame_mixes_lanes() -> None:
    driver = Driver(venue={"max_batch": 2}, kill={"normal_batch": 0})
    at_once(driver, ("cancel", [item(1), item(2), item(3)]), ("kill", [item(4), item(5), item(6)]))
    assert [ids(frame) for frame in driver.cancel_frames()] == [["y-4", "y-5"], ["y-6"], ["y-1", "y-2"], ["y-3"]]


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=40),
    st.integers(2048, 6000),
    st.sampled_from(["order_id", "both"]),
)
def test_no_frame_is_longer_than_the_limit(lengths: list[int], most: int, target: str) -> None:
    driver = Driver(venue={"max_batch": 1000, "max_frame_bytes": most, "target": target})
    items = [
        item(n, OrderID='"' * length, OrigClOrdID="\\" * length, Symbol="S" * length, Timestamp="2026-03-09T14:09:11Z")
        for n, length in enumerate(lengths)
    ]
    delivered(Delivery("cancel", 1, 1), cancel_body(*items), Properties(message_id="c"))(driver.engine, driver.now)
    driver.engine.flush(driver.now)
    sent = [e.data for e in driver.engine.effects if isinstance(e, SendText)]
    assert all(len(data) <= most for data in sent)
    assert sum(len(json.loads(data)["data"]) for data in sent) == len(lengths)


def test_cancels_go_to_the_ready_session_with_the_fewest_out() -> None:
    driver = Driver(sessions=2, venue={"max_batch": 2})
    driver.open()  # not ready, never chosen
    for n in range(0, 8, 2):
        driver.deliver(item(n), item(n + 1), id=f"cmd-{n}")
    assert [len(driver.cancel_frames(session)) for session in (1, 2, 3)] == [2, 2, 0]


# -- bounds


def test_what_is_in_flight_is_bounded_in_cancels_and_each_end_makes_room() -> None:
    driver = Driver(venue={"max_batch": 2}, kill={"max_inflight": 3})
    driver.deliver(*(item(n) for n in range(5)), lane="kill")
    assert driver.cancels_sent() == ["y-0", "y-1", "y-2"]
    driver.report("Canceled", ClOrdID="y-1", OrderID="order-1")
    assert driver.cancels_sent() == ["y-0", "y-1", "y-2", "y-3"]
    driver.report("PendingCancel", ClOrdID="y-0", OrderID="order-0")
    assert len(driver.cancels_sent()) == 4, "accepted is not ended"


def test_a_full_normal_lane_does_not_hold_up_the_kill_lane() -> None:
    driver = Driver(broker={"max_inflight": 1})
    driver.deliver(item(1), item(2))
    driver.deliver(item(3), id="k", lane="kill")
    assert driver.cancels_sent() == ["y-1", "y-3"]


def test_the_rate_limit_is_the_normal_lanes_alone() -> None:
    driver = Driver(venue={"rate_limit": 10.0})
    driver.deliver(*(item(n) for n in range(5)))
    driver.deliver(*(item(n) for n in range(10, 20)), id="k", lane="kill")
    assert driver.cancels_sent() == ["y-0", *(f"y-{n}" for n in range(10, 20))]
    driver.advance(0.3 + 1e-6)
    assert driver.cancels_sent()[11:] == ["y-1", "y-2", "y-3"]
    driver.advance(1)
    assert len(driver.cancels_sent()) == 15


def test_the_kill_lane_has_a_rate_of_its_own() -> None:
    driver = Driver(kill={"rate_limit": 10.0})
    driver.deliver(item(1), item(2), lane="kill")
    driver.deliver(item(3), item(4), id="n")
    assert driver.cancels_sent() == ["y-1", "y-3", "y-4"]
    driver.advance(0.11)
    assert driver.cancels_sent()[3:] == ["y-2"]


def test_a_full_normal_lane_does_not_make_the_kill_lane_oversleep() -> None:
    driver = Driver(kill={"rate_limit": 10.0}, broker={"max_inflight": 1})
    at_once(driver, ("kill", [item(1), item(2)]), ("cancel", [item(3), item(4)]))
    due = driver.engine.next_due()
    assert due is not None
    assert due <= driver.mono + 0.1 + 1e-6
    driver.advance(0.11)
    assert driver.cancels_sent() == ["y-1", "y-3", "y-2"]


def in_pairs() -> Driver:
    """A driver whose normal lane makes way in twos: two of its five cancels went out after a kill cancel."""
    driver = Driver(kill={"normal_batch": 2})
    at_once(driver, ("kill", [item(0)]), ("cancel", [item(n) for n in range(1, 6)]))
    assert driver.cancels_sent() == ["y-0", "y-1", "y-2"]
    return driver


def test_while_kill_cancels_come_the_normal_lane_goes_on_a_few_at_a_time() -> None:
    driver = in_pairs()
    driver.report("Canceled", ClOrdID="y-1", OrderID="order-1")
    driver.report("Canceled", ClOrdID="y-2", OrderID="order-2")
    assert len(driver.cancels_sent()) == 3, "their finals wait for the broker"
    driver.confirm()
    assert driver.cancels_sent()[3:] == ["y-3", "y-4"]


def test_a_slow_venue_does_not_stop_the_lane_that_makes_way() -> None:
    driver = in_pairs()
    due = driver.engine.next_due()
    assert due is not None
    assert due <= driver.mono + MAKE_WAY_PAUSE_S + 1e-6
    driver.advance(MAKE_WAY_PAUSE_S + 1e-6)
    assert driver.cancels_sent()[3:] == ["y-3", "y-4"]
    driver.advance(MAKE_WAY_PAUSE_S + 1e-6)
    assert driver.cancels_sent()[5:] == ["y-5"]


def test_what_was_under_way_before_the_kill_cancel_goes_first() -> None:
    driver = Driver(kill={"normal_batch": 2})
    driver.deliver(item(1), item(2), item(3), id="before")
    at_once(driver, ("kill", [item(0)]), ("cancel", [item(4)]))
    assert driver.cancels_sent() == ["y-1", "y-2", "y-3", "y-0"]
    driver.advance(MAKE_WAY_PAUSE_S + 1e-6)
    assert driver.cancels_sent()[4:] == ["y-4"]


def test_a_second_after_the_last_kill_cancel_the_normal_lane_goes_on_as_ever() -> None:
    driver = Driver(kill={"normal_batch": 2})
    driver.deliver(item(0), id="k", lane="kill")
    driver.advance(MAKE_WAY_S - 0.1)
    driver.deliver(item(1), id="l", lane="kill")
    driver.advance(MAKE_WAY_S - 0.1)
    driver.deliver(*(item(n) for n in range(2, 7)), id="n")
    assert len(driver.cancels_sent()) == 4
    driver.advance(0.1 + 1e-6)
    assert driver.cancels_sent() == [f"y-{n}" for n in range(7)]


def test_whether_the_normal_lane_makes_way_is_a_setting() -> None:
    driver = Driver(kill={"normal_batch": 0})
    at_once(driver, ("kill", [item(0)]), ("cancel", [item(n) for n in range(1, 6)]))
    assert len(driver.cancels_sent()) == 6


def test_frames_per_second_hold_back_the_normal_lane_and_count_the_kill_lanes() -> None:
    driver = Driver(venue={"frames_per_second": 10.0, "max_batch": 1})
    driver.deliver(item(1), item(2))
    driver.deliver(item(3), item(4), id="k", lane="kill")
    assert driver.cancels_sent() == ["y-1", "y-3", "y-4"]
    driver.advance(0.25)
    assert len(driver.cancels_sent()) == 3, "two frames of the kill lane have used it up"
    driver.advance(0.1)
    assert driver.cancels_sent()[3:] == ["y-2"]


def test_nothing_is_sent_without_a_session_whose_reports_are_live() -> None:
    driver = Driver(sessions=0)
    driver.deliver(item())
    session = driver.open()
    assert not driver.sent, "nothing before hello"
    driver.greet(session)
    assert not driver.cancels_sent(), "nor before the replay has ended"
    driver.frame(session, data=[], initial=True)
    assert driver.cancels_sent() == ["y-1"]


# -- deadlines: the wall clock, checked in the step that writes

DEADLINE = "2026-03-09T14:09:13.000000Z"


@pytest.mark.parametrize(("late_us", "sent"), [(-1, True), (0, True), (1, False)])
@pytest.mark.parametrize("header", [DEADLINE, "2026-03-09T15:09:13+01:00"])
def test_not_sent_after_its_deadline_to_the_microsecond(late_us: int, sent: bool, header: str) -> None:
    driver = Driver()
    driver.utc_us = parse_utc(DEADLINE) + late_us
    driver.deliver(item(), headers={"deadline": header})
    assert bool(driver.cancels_sent()) is sent
    if not sent:
        final = driver.final()
        assert (final["outcome"], final["sent"], final["order_live"]) == ("deadline_passed", "never", None)
        assert final["attempt"] == 0
        assert final["deadline"] == header


def test_a_deadline_that_passes_in_the_queue_harms_no_neighbour() -> None:
    driver = Driver(venue={"rate_limit": 10.0})
    driver.deliver(item(0), id="first")
    driver.deliver(item(1), id="hurried", headers={"deadline": format_utc(driver.utc_us + 50_000)})
    driver.deliver(item(2), id="patient")
    driver.advance(0.3)
    assert driver.cancels_sent() == ["y-0", "y-2"]
    assert (driver.outcome("hurried"), driver.outcome("patient")) == ("deadline_passed", None)


def test_a_deadline_between_two_of_one_batch_keeps_only_the_late_one_back() -> None:
    driver = Driver()
    late: dict[str, object] = {"deadline": format_utc(driver.utc_us - 1)}
    driver.step(
        *(
            delivered(Delivery("cancel", 1, n), cancel_body(item(n)), Properties(message_id=f"c{n}", headers=headers))
            for n, headers in enumerate(({}, late, {}))
        )
    )
    assert driver.cancels_sent() == ["y-0", "y-2"]
    assert driver.outcome("c1") == "deadline_passed"


@pytest.mark.parametrize(
    ("orders", "outcome", "order_live"),
    [
        ([order("New", ClOrdID="ord-000417")], "deadline_passed", True),
        ([order("Canceled", ClOrdID="y-1")], "canceled", False),
        ([order("Filled", ClOrdID="ord-000417")], "already_closed", False),
    ],
)
def test_redelivered_after_its_deadline_a_cancel_is_looked_up_first(
    orders: list[Fields], outcome: str, order_live: bool | None
) -> None:
    driver = Driver()
    driver.orders = orders
    driver.deliver(item(), redelivered=True, headers={"deadline": "2026-03-09T14:09:11Z"})
    assert driver.questions()
    final = driver.final()
    assert (final["outcome"], final["order_live"]) == (outcome, order_live)
    assert final["sent"] == ("yes" if outcome == "canceled" else "maybe")
    assert not driver.cancels_sent()


def test_after_a_send_no_deadline_makes_a_guess_and_none_is_sent_again() -> None:
    driver = Driver()
    driver.answering = False
    driver.deliver(item(), headers={"deadline": format_utc(driver.utc_us + 1_000_000)})
    driver.advance(6)
    assert not driver.finals(), "the time-out is doubt, though the deadline is over"
    driver.answering = True
    driver.orders = [order("New", ClOrdID="ord-000417")]
    driver.advance(1)
    assert driver.cancels_sent() == ["y-1"]
    assert (driver.outcome(), driver.final()["sent"], driver.final()["order_live"]) == ("deadline_passed", "yes", True)


# -- the parts by themselves


@given(
    st.floats(0.5, 5000),
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 50)), min_size=1, max_size=30),
)
def test_no_span_of_time_sees_more_than_the_rate_and_one_burst(rate: float, asks: list[tuple[float, int]]) -> None:
    budget, at, granted = RateBudget(rate), 0.0, []
    for wait, wanted in asks:
        at += wait
        got = budget.available(at, wanted)
        assert 0 <= got <= wanted
        budget.spend(got)
        granted.append((at, got))
        due = budget.next_due(at)
        if due is not None:
            assert copy(budget).available(due + 1e-6, 1) == 1
    for first in range(len(granted)):
        span = granted[-1][0] - granted[first][0]
        assert sum(n for _, n in granted[first:]) <= rate * span + max(1.0, rate * 0.1) + 1.001


def test_a_rate_of_0_is_no_limit() -> None:
    budget = RateBudget(0.0)
    budget.spend(10**6)
    assert budget.available(0.0, 10**6) == 10**6
    assert budget.next_due(0.0) is None


def test_a_clock_that_steps_back_grants_nothing() -> None:
    budget = RateBudget(10.0)
    assert budget.available(100.0, 5) == 1
    budget.spend(1)
    assert budget.available(50.0, 5) == 0


def test_a_cancel_stands_in_one_frame_once_though_it_queued_twice() -> None:
    """Queued to be sent again, then doubtful by a report, then queued once more, all while nothing could go out."""
    driver = Driver(broker={"max_inflight": 3})
    driver.orders = [order("New", OrderID="order-1", ClOrdID="ord-000417")]
    driver.deliver(*(item(n) for n in (2, 3, 4)), id="blocks")
    driver.deliver(item(5), id="waits")
    driver.deliver(item(1), redelivered=True)
    driver.report("CancelRejected", ClOrdID="y-1", OrdStatus="PendingCancel", CxlRejReason=3)
    driver.report("CancelRejected", ClOrdID="z-9", OrdStatus="New", CxlRejReason=2)  # the other one ended: look up
    driver.advance(0.5)
    assert len(driver.cancels_sent()) == 3
    driver.frame(1, data=[report("Canceled", ClOrdID=f"y-{n}", OrderID=f"order-{n}") for n in (2, 3, 4)])
    assert driver.cancels_sent()[3:] == ["y-5", derive_cl_ord_id("cmd-1", 0, 2)]
    driver.report("Canceled", ClOrdID="y-5", OrderID="order-5")
    driver.report("Canceled", ClOrdID=driver.cancels_sent()[4])
    driver.confirm()
    assert list(driver.left_over()) == []


def test_the_delay_of_each_cancel_of_a_frame_is_counted_from_the_receipt_of_its_own_command() -> None:
    driver = Driver(kill={"max_inflight": 1})
    driver.deliver(item(0), lane="kill", id="first")
    driver.deliver(item(1), item(2), lane="kill", id="early")
    driver.let_pass(driver.mono + 2.0)
    driver.deliver(item(3), lane="kill", id="late")
    delays = driver.engine.stats.send_delay["kill"]
    assert (delays.count, delays.sum) == (1, 0.0)
    driver.engine._bounds["kill"] = 4
    driver.report("Canceled", ClOrdID="y-0", OrderID="order-0")
    assert [ids(frame) for frame in driver.cancel_frames()] == [["y-0"], ["y-1", "y-2", "y-3"]]
    assert (delays.count, delays.sum) == (4, 4.0)


def test_the_frames_of_one_command_go_to_one_session_and_those_of_many_to_the_next() -> None:
    """In one write: the venue answers a session's first frames before it reads another session's."""
    driver = Driver(sessions=2, venue={"max_batch": 1})
    driver.deliver(*(item(n) for n in range(1, 51)))
    assert [len(driver.cancel_frames(session)) for session in (1, 2)] == [50, 0]
    driver.deliver(*(item(n) for n in range(51, 171)), id="more")
    assert [len(driver.cancel_frames(session)) for session in (1, 2)] == [100, 70]
