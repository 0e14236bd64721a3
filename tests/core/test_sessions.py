"""The life of sessions: hello, replay, pages, gaps, Pings, losses (protocol 3 and 8, faults section 3 and I6)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.core.driver import Driver, received
from tests.core.payloads import START_US, Fields, item, order, report
from worker.core.facts import SessionLost
from worker.core.sessions import WORDS_MET
from worker.core.stats import Histogram
from worker.wire.timestamp import format_utc

SECOND = 1_000_000


def last(driver: Driver) -> Fields:
    return driver.sent[-1].frame


def greeted() -> Driver:
    """A session whose replay has not begun to come."""
    driver = Driver(sessions=0)
    driver.connect(replay=None)
    return driver


# -- hello


def test_nothing_is_said_before_hello_and_the_report_stream_is_asked_for_after_it() -> None:
    driver = Driver(sessions=0)
    session = driver.open()
    driver.advance(4.9)
    assert driver.sent == []
    driver.greet(session)
    assert last(driver)["type"] == "subscribe"
    assert last(driver)["streams"][0]["name"] == "ExecutionReport"


def test_no_hello_in_time_ends_the_session() -> None:
    driver = Driver(sessions=0, venue={"hello_timeout": 5.0})
    driver.open()
    driver.advance(5.0)
    assert [d.session for d in driver.dropped] == [1]
    driver.greet(1)
    driver.advance(30)
    assert driver.sent == [], "and nothing is said on it any more"
    assert len(driver.dropped) == 1


def test_a_second_hello_changes_nothing() -> None:
    driver = Driver()
    before = len(driver.sent)
    driver.greet(1)
    assert len(driver.sent) == before


@pytest.mark.parametrize("ts", ["2026-03-09T14:10:12.000000Z", "gibberish"])
def test_the_venues_clock_is_learned_from_hello(ts: str) -> None:
    driver = Driver(sessions=0)
    driver.greet(driver.open(), ts)
    assert driver.engine.stats.clock_offset_s == (60.0 if ts != "gibberish" else 0.0)


# -- the replay that makes a session ready


def test_the_first_stream_starts_an_overlap_ago() -> None:
    driver = Driver(sessions=0, venue={"overlap": 60.0})
    driver.greet(driver.open())
    assert last(driver)["streams"][0]["StartDate"] == format_utc(START_US - 60 * SECOND)


def test_a_new_stream_starts_at_the_last_report_minus_the_overlap() -> None:
    driver = Driver(venue={"overlap": 60.0})
    driver.advance(100)
    driver.report("New", OrderID="order-77", Timestamp=format_utc(driver.utc_us))
    at = driver.utc_us
    driver.report("New", OrderID="order-77", Timestamp="2026-03-09T14:09:12Z")
    driver.lose(1)
    driver.advance(500)
    driver.connect(replay=None)
    assert last(driver)["streams"][0]["StartDate"] == format_utc(at - 60 * SECOND)


def test_after_a_timestamp_that_is_none_a_new_stream_starts_a_lookback_ago() -> None:
    driver = Driver(venue={"overlap": 60.0, "lookback": 900.0})
    driver.report("New", OrderID="order-77", Timestamp="yesterday")
    driver.lose(1)
    driver.connect(replay=None)
    assert last(driver)["streams"][0]["StartDate"] == format_utc(START_US - 960 * SECOND)


def test_a_new_stream_starts_before_the_earliest_send_that_is_not_settled() -> None:
    driver = Driver(sessions=2, venue={"overlap": 60.0, "report_timeout": 1000.0})
    driver.deliver(item())
    driver.advance(50)
    driver.report("New", OrderID="order-77", session=2)
    driver.lose(2)
    driver.connect(1, replay=None)
    assert last(driver)["streams"][0]["StartDate"] == format_utc(START_US - 60 * SECOND)


@pytest.mark.parametrize("settled", [False, True])
def test_a_send_on_the_lost_session_counts_until_it_is_settled(settled: bool) -> None:
    driver = Driver(venue={"overlap": 60.0, "report_timeout": 250.0})
    driver.deliver(item())
    driver.advance(200)
    driver.report("New", OrderID="order-77", Timestamp=format_utc(driver.utc_us))
    at = driver.utc_us
    driver.lose(1)
    driver.orders = [order("Canceled", ClOrdID="y-1")]
    driver.connect(replay=() if settled else None)
    if settled:
        assert driver.outcome() == "canceled"
        driver.lose(2)
        driver.connect(replay=None)
    main = next(s for s in reversed(driver.subscribes()) if "OrderID" not in s.frame["streams"][0])
    since = at if settled else START_US
    assert main.frame["streams"][0]["StartDate"] == format_utc(since - 60 * SECOND)


def test_extra_stream_fields_are_merged_in() -> None:
    driver = Driver(venue={"extra_stream_fields": {"User": "desk"}})
    assert driver.subscribes()[0].frame["streams"][0]["User"] == "desk"


def test_ready_after_the_last_page_and_not_before() -> None:
    driver = greeted()
    driver.deliver(item())
    for page in ("a", "b"):
        driver.frame(1, initial=True, data=[report("New", OrderID="order-9")], next=page)
        assert last(driver) == {"reqid": 1, "type": "page", "streams": [{"name": "ExecutionReport", "after": page}]}
        assert driver.ready_told == []
    driver.frame(1, initial=True, data=[])
    assert (driver.ready_told, driver.cancels_sent()) == ([1], ["y-1"])


def test_a_silent_snapshot_ends_on_a_timer() -> None:
    driver = Driver(sessions=0, venue={"snapshot_timeout": 2.0})
    driver.connect(replay=None)
    driver.advance(1.9)
    assert driver.ready_told == []
    driver.advance(0.2)
    assert driver.ready_told == [1]


def test_live_reports_of_others_do_not_put_off_the_end_of_a_silent_snapshot() -> None:
    """An empty snapshot may bring no frame at all (protocol 3.2); on a busy account the stream is never quiet."""
    driver = Driver(sessions=0, venue={"snapshot_timeout": 2.0})
    driver.connect(replay=None)
    for _ in range(10):
        driver.advance(0.5)
        driver.report("Trade", OrderID="order-77")
    assert driver.ready_told == [1]


def test_a_page_that_comes_in_time_puts_it_off() -> None:
    driver = Driver(sessions=0, venue={"snapshot_timeout": 2.0})
    driver.connect(replay=None)
    for n in range(4):
        driver.advance(1.5)
        driver.frame(1, initial=True, data=[report("New", OrderID="order-9")], next=f"page-{n}")
    assert driver.ready_told == []


def test_a_cursor_that_repeats_without_news_ends_the_paging() -> None:
    driver = greeted()
    record = report("New", OrderID="order-9")
    for _ in range(2):
        driver.frame(1, initial=True, data=[record], next="same")
    assert driver.ready_told == [1]


def test_a_cursor_that_repeats_with_news_goes_on() -> None:
    driver = greeted()
    for _ in range(3):
        driver.frame(1, initial=True, data=[report("New", OrderID="order-9")], next="same")
    assert driver.ready_told == []


def test_pages_are_bounded() -> None:
    driver = Driver(sessions=0, venue={"max_pages": 3})
    driver.connect(replay=None)
    for n in range(4):
        driver.frame(1, initial=True, data=[report("New", OrderID="order-9")], next=f"page-{n}")
    assert driver.ready_told == [1]


@pytest.mark.parametrize(("first", "second"), [("streams", "data"), ("data", "streams")])
def test_a_refused_page_is_asked_for_once_under_the_other_name(first: str, second: str) -> None:
    driver = Driver(sessions=0, venue={"page_array": first})
    driver.connect(replay=None)
    driver.frame(1, initial=True, data=[], next="cursor")
    assert first in last(driver)
    driver.error(1)
    assert second in last(driver)
    assert last(driver)[second] == [{"name": "ExecutionReport", "after": "cursor"}]
    driver.frame(1, initial=True, data=[], next="cursor-2")
    assert second in last(driver), "and stays so"
    driver.error(1)
    assert driver.dropped, "a venue that refuses both refuses the stream"


def test_a_refused_report_stream_ends_the_session() -> None:
    driver = greeted()
    driver.error(1, code=1)
    assert [d.session for d in driver.dropped] == [1]
    assert driver.ready_told == []


def test_a_session_that_carries_no_reports_is_ready_with_hello_but_sends_only_beside_one_that_does() -> None:
    driver = Driver(sessions=0, venue={"report_sessions": 1})
    command_session = driver.connect(1)
    driver.deliver(item(1))
    assert (driver.ready_told, driver.cancels_sent()) == ([1], [])
    assert driver.consuming["cancel"] is False
    driver.connect(0)
    assert driver.cancels_sent() == ["y-1"]
    driver.lose(2)
    driver.deliver(item(2), id="cmd-2")
    assert driver.cancels_sent() == ["y-1"], "without a live report stream sends stop at once"
    assert driver.engine.sessions.pick() is None
    assert [s.number for s in driver.engine.sessions.all()] == [command_session]


# -- what a replay tells


def test_what_was_missed_is_settled_from_the_replay() -> None:
    driver = Driver()
    driver.answering = False
    driver.deliver(item())
    driver.lose(1)
    driver.connect(replay=[report("PendingCancel", ClOrdID="y-1"), report("Canceled", ClOrdID="y-1")])
    assert driver.outcomes() == ["doubtful", "pending_cancel", "canceled"]


def test_a_live_report_during_the_replay_counts_at_once() -> None:
    driver = Driver(sessions=2)
    driver.answering = False
    driver.deliver(item())
    driver.lose(1)
    driver.connect(replay=None)
    driver.report("Canceled", ClOrdID="y-1")
    assert driver.outcome() == "canceled"


def test_what_a_replay_told_counts_though_it_broke_off() -> None:
    driver = Driver()
    driver.answering = False
    driver.deliver(item())
    driver.lose(1)
    session = driver.connect(replay=None)
    driver.frame(session, initial=True, data=[report("Canceled", ClOrdID="y-1")], next="more")
    assert driver.finals() == []
    driver.lose(session)
    assert driver.outcome() == "canceled"


# -- frames that are missing or can't be read


def test_a_gap_in_the_report_stream_reads_it_anew() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.raw(1, {"reqid": 1, "type": "ExecutionReport", "seqNum": 3, "data": [report("Canceled", ClOrdID="y-1")]})
    assert [s.frame["type"] for s in driver.sent[-2:]] == ["cancel", "subscribe"]
    assert driver.consuming["cancel"] is False, "what the missing frame told is not known"
    driver.raw(1, {"reqid": 1, "type": "ExecutionReport", "seqNum": 4, "data": [report("Trade")]})
    assert driver.outcomes() == [], "frames of the ended stream are dropped"
    driver.stop_consumers()
    driver.frame(1, initial=True, data=[report("Canceled", ClOrdID="y-1")])
    assert driver.outcome() == "canceled"
    assert driver.consuming["cancel"] is True


def skip(driver: Driver, session: int, **fields: Any) -> None:
    """A frame of the report stream goes missing before this one."""
    driver.frame_numbers[session, driver.main(session)] += 1
    driver.frame(session, **fields)


def test_gaps_in_a_row_are_read_anew_once_every_few_seconds_and_none_is_forgotten() -> None:
    driver = Driver(venue={"overlap": 0.0, "ping_interval": 60.0})
    driver.deliver(item())
    skip(driver, 1, data=[])
    driver.stop_consumers()
    driver.frame(1, data=[], initial=True)
    for n in range(20):
        skip(driver, 1, data=[report("Trade", ClOrdID="ord-000417", Timestamp=format_utc(driver.utc_us))])
        assert len(driver.events("report")) == n + 1, "what came is heeded at once"
        driver.advance(0.1)
    assert (len(driver.subscribes(1)), driver.consuming["cancel"]) == (2, True)
    driver.advance(2.9)
    assert len(driver.subscribes(1)) == 2
    driver.advance(0.2)
    assert (len(driver.subscribes(1)), driver.consuming["cancel"]) == (3, False)
    driver.stop_consumers()
    driver.frame(1, initial=True, data=[report("Canceled", ClOrdID="y-1")])
    assert driver.outcome() == "canceled"
    driver.advance(30)
    assert (len(driver.subscribes(1)), driver.consuming["cancel"]) == (3, True)


def test_what_is_read_anew_later_begins_where_something_was_missed() -> None:
    driver = Driver(venue={"overlap": 0.0})
    for _ in range(2):
        skip(driver, 1, data=[])
        driver.frame(1, data=[], initial=True)
    skip(driver, 1, data=[])
    missed_at = driver.utc_us
    driver.advance(3)
    driver.report("New", ClOrdID="z-9", OrderID="order-9")
    driver.advance(3)
    assert len(driver.subscribes(1)) == 3
    assert driver.subscribes(1)[-1].frame["streams"][0]["StartDate"] == format_utc(missed_at)


def test_each_session_has_gaps_of_its_own_and_one_that_is_dropped_reads_nothing_anew() -> None:
    driver = Driver(sessions=2, venue={"ping_interval": 1.0, "ping_timeout": 2.0})
    for session in (1, 2):
        skip(driver, session, data=[])
        driver.frame(session, data=[], initial=True)
        skip(driver, session, data=[])
        assert len(driver.subscribes(session)) == 2
    driver.alive = False
    driver.advance(10)
    assert len(driver.dropped) == 2
    assert len(driver.subscribes()) == 4


def test_a_replay_with_a_gap_makes_no_session_ready() -> None:
    driver = Driver()
    skip(driver, 1, data=[])
    driver.stop_consumers()
    driver.frame(1, data=[], initial=True, next="2")
    skip(driver, 1, data=[], initial=True)
    assert (len(driver.subscribes(1)), driver.consuming["cancel"]) == (2, False)
    driver.advance(4.9)
    assert len(driver.subscribes(1)) == 2
    driver.advance(0.2)
    assert (len(driver.subscribes(1)), driver.consuming["cancel"]) == (3, False)
    driver.frame(1, data=[], initial=True)
    assert driver.consuming["cancel"] is True


@pytest.mark.parametrize("name", ["seqNum", "seq"])
@pytest.mark.parametrize("numbers", [[2, 3, 4], [2, 2, 3], [None, None], [2, None, 3], [2, 1, 2]])
def test_numbers_that_go_on_repeat_or_are_missing_are_no_gap(name: str, numbers: list[int | None]) -> None:
    driver = Driver()
    before = len(driver.sent)
    for n in numbers:
        number = {} if n is None else {name: n}
        driver.raw(1, {"reqid": 1, "type": "ExecutionReport", "data": [], **number})
    assert len(driver.sent) == before


def test_unreadable_frames_are_counted_and_the_stream_is_read_anew_but_not_for_each() -> None:
    driver = Driver()
    for _ in range(3):
        driver.raw(1, b"\x00garbage")
        driver.frame(1, data=[], initial=True)
    assert driver.engine.stats.bad_frames == 3
    assert len(driver.subscribes(1)) == 2
    driver.advance(5)
    assert len(driver.subscribes(1)) == 3, "for those that came since the last time"
    driver.frame(1, data=[], initial=True)
    driver.advance(5)
    assert len(driver.subscribes(1)) == 3
    driver.raw(1, b"\x00garbage")
    assert len(driver.subscribes(1)) == 4


def test_one_bad_record_harms_no_neighbour() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.frame(1, data=[{"ClOrdID": 7}, report("Canceled", ClOrdID="y-1")])
    assert driver.outcome() == "canceled"
    assert driver.engine.stats.bad_records == 1


@pytest.mark.parametrize(
    "frame",
    [
        {"type": "ExecutionReport", "reqid": 99, "data": [report("Canceled", ClOrdID="y-1")]},
        {"type": "Order", "reqid": 99, "data": [order("Canceled", ClOrdID="y-1")]},
        {"type": "Pong", "reqid": 5, "data": [{"n": 5}]},
        {"type": "Vaporised", "data": []},
        {"type": "error"},
    ],
)
def test_frames_that_belong_to_nobody_change_nothing(frame: Fields) -> None:
    driver = Driver()
    driver.deliver(item(1, ClOrdID="y-other"))
    driver.raw(1, frame)
    assert driver.finals() == []


def test_a_report_under_the_reqid_of_a_look_up_that_was_ended_counts() -> None:
    """A venue may go on with the last stream that it was asked for."""
    driver = Driver()
    driver.deliver(item(1), redelivered=True)
    (asked,) = {s.frame["reqid"] for s in driver.subscribes()[1:] if s.frame["streams"][0]["name"] == "ExecutionReport"}
    assert asked not in driver.engine.sessions.all()[0].subscriptions
    driver.raw(1, {"reqid": asked, "type": "ExecutionReport", "data": [report("Canceled", ClOrdID="y-1")]})
    assert driver.outcome() == "canceled"


def test_a_report_without_reqid_is_the_report_streams() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.raw(1, {"type": "ExecutionReport", "data": [report("Canceled", ClOrdID="y-1")]})
    assert driver.outcome() == "canceled"


def test_facts_of_a_session_that_is_gone_change_nothing() -> None:
    driver = Driver()
    driver.lose(1)
    before = len(driver.sent)
    driver.step(SessionLost(1, "again"), received(1, json.dumps({"type": "hello"}).encode()))
    assert len(driver.sent) == before
    assert driver.engine.stats.session_losses == 1


# -- Ping


def pings(driver: Driver) -> list[Fields]:
    return [s.frame for s in driver.sent if s.frame["type"] == "Ping"]


def test_a_quiet_line_is_pinged_and_any_frame_is_life() -> None:
    driver = Driver(venue={"ping_interval": 1.0, "ping_timeout": 2.0})
    driver.alive = False
    driver.advance(0.9)
    assert pings(driver) == []
    driver.advance(0.2)
    (ping,) = pings(driver)
    assert ping["data"] == [{"n": ping["reqid"]}]
    driver.advance(1.5)
    driver.raw(1, {"type": "Vaporised"})
    driver.advance(1.5)
    assert (len(pings(driver)), driver.dropped) == (2, [])


def test_a_line_that_is_never_quiet_is_never_pinged() -> None:
    driver = Driver(venue={"ping_interval": 1.0})
    for _ in range(10):
        driver.advance(0.9)
        driver.report("Trade", OrderID="order-77")
    assert pings(driver) == []


def test_no_frame_in_time_after_a_ping_ends_the_session_and_nothing_more_goes_out_on_it() -> None:
    driver = Driver(venue={"ping_interval": 1.0, "ping_timeout": 2.0})
    driver.alive = False
    driver.advance(3.1)
    assert [d.session for d in driver.dropped] == [1]
    driver.deliver(item())
    driver.advance(10)
    assert driver.cancels_sent() == [], "none is sent after detection"
    assert len(driver.dropped) == 1
    assert len(pings(driver)) == 1


def test_nothing_revives_a_session_that_is_being_dropped_but_its_reports_count() -> None:
    driver = Driver(sessions=0, venue={"ping_interval": 1.0, "ping_timeout": 1.0, "snapshot_timeout": 50.0})
    driver.alive = False
    driver.connect(replay=None)
    driver.advance(2.1)
    assert driver.dropped
    driver.frame(1, initial=True, data=[])
    assert driver.ready_told == []
    assert driver.consuming["cancel"] is False


# -- told to the outside


def test_unavailable_is_told_once_per_outage_and_so_is_its_end() -> None:
    driver = Driver(sessions=0, venue={"unavailable_after": 5.0})
    driver.advance(4.9)
    assert driver.outcomes() == []
    driver.advance(30)
    session = driver.connect()
    driver.advance(1.5)
    driver.lose(session, "the venue closed")
    driver.advance(30)
    driver.connect()
    driver.advance(1.5)
    assert driver.outcomes() == ["worker_unavailable", "worker_available"] * 2
    assert len({e["event_id"] for e in driver.events()}) == 4
    again = driver.events()[2]
    assert (again["command_id"], again["final"], again["index"]) == (None, False, None)
    assert "the venue closed" in again["error"]["message"]
    assert driver.published[2].routing_key == "info.worker_unavailable._"
    assert driver.published[2].headers == {"final": False}


def test_a_short_outage_is_not_told() -> None:
    driver = Driver(venue={"unavailable_after": 5.0})
    driver.lose(1)
    driver.advance(4)
    driver.connect()
    driver.advance(20)
    assert driver.outcomes() == []


def test_ready_and_lost_are_told_to_the_pool_and_the_log() -> None:
    driver = Driver(sessions=2)
    driver.lose(1, "1006")
    assert driver.ready_told == [1, 2]
    told: list[tuple[str, Any]] = [(n.name, n.fields.get("reason")) for n in driver.notes]
    assert ("session_lost", "1006") in told
    assert driver.engine.stats.sessions_ready == 1


def test_a_word_that_no_page_lists_is_logged_once_and_goes_by_ord_status() -> None:
    driver = Driver()
    driver.deliver(item())
    for _ in range(3):
        driver.report("Vaporised", ClOrdID="ord-000417", OrdStatus="Evaporating")
    driver.report("New", ClOrdID="ord-000417", OrdStatus="New")
    met = [note.fields for note in driver.notes if note.name == "unknown_word"]
    assert met == [
        {"field": "ExecType", "word": "'Vaporised'"}, {"field": "OrdStatus", "word": "'Evaporating'"},
    ]  # fmt: skip
    assert driver.engine.stats.reports["other"] == 3
    for n in range(200):
        driver.report(f"Word{n}", ClOrdID="ord-000417")
    assert len([note for note in driver.notes if note.name == "unknown_word"]) == WORDS_MET
    driver.report("Vaporised", ClOrdID="ord-000417", OrdStatus="Filled")
    assert driver.outcome() == "already_closed"


def test_an_unknown_word_for_the_status_alone_is_logged_too() -> None:
    driver = Driver()
    driver.report("New", OrderID="order-77", OrdStatus="Evaporating")
    assert [note.fields for note in driver.notes if note.name == "unknown_word"] == [
        {"field": "OrdStatus", "word": "'Evaporating'"}
    ]
    assert driver.engine.stats.reports["New"] == 1


def test_a_report_counts_whatever_stands_in_its_fields_that_decide_nothing() -> None:
    driver = Driver()
    driver.deliver(item())
    raw = (
        b'{"ExecType":"Canceled","OrdStatus":"Canceled","ClOrdID":"y-1","OrderID":"order-1","ExecID":7,"Text":12,'
        b'"Side":1, "CumQty":{"a":[1]},"CxlRejReason":[],"Timestamp":1700000000}'
    )
    driver.raw(1, b'{"reqid":1,"type":"ExecutionReport","seqNum":"2","ts":0,"initial":7,"data":[' + raw + b"]}")
    assert driver.outcome() == "canceled"
    assert b'"report":' + raw + b"," in driver.published[0].body
    assert driver.engine.stats.bad_records == driver.engine.stats.bad_frames == 0


@pytest.mark.parametrize("reason", [[3], {"Code": 6, "Name": "DuplicateClOrdID"}, True])
@pytest.mark.parametrize("name", ["CxlRejReason", "OrdRejReason"])
def test_a_reject_whose_reason_cannot_be_read_is_doubt(name: str, reason: object) -> None:
    """It may say that the cancel runs, or that an earlier send of it arrived (protocol 5.4)."""
    driver = Driver()
    driver.answering = False
    driver.deliver(item())
    fields: Fields = {"ClOrdID": "y-1", name: reason}
    driver.report("CancelRejected" if name == "CxlRejReason" else "Rejected", **fields)
    assert (driver.outcomes(), driver.engine.stats.bad_records) == ([], 1)
    driver.advance(5)
    assert driver.outcomes() == ["doubtful"]
    driver.report("Canceled", ClOrdID="y-1")
    assert driver.outcome() == "canceled"


@pytest.mark.parametrize("initial", [False, True], ids=["live", "in the replay"])
def test_nesting_at_the_edge_of_what_can_be_read_harms_nothing_else(initial: bool) -> None:
    """The records of a frame are taken apart by a second reading that goes deeper by some levels than the first."""
    seen = set()
    for depth in range(900, 1_010):
        driver = Driver()
        driver.answering = False
        driver.deliver(item())
        session = 1
        if initial:
            driver.lose(1)
            session = driver.connect(replay=None)
        record = json.dumps(report("Trade", ClOrdID="ord-000417"))[:-1].encode()
        text = b'{"reqid":%d,"type":"ExecutionReport","initial":%s,"seqNum":2,"data":[%s,"Odd":%s}]}'
        odd = b"[" * depth + b"]" * depth
        driver.raw(session, text % (driver.main(session), json.dumps(initial).encode(), record, odd))
        seen.add(driver.engine.stats.bad_frames)
        if not initial:
            assert driver.engine.stats.bad_frames or [event.outcome for event in driver.published] == ["report"]
        driver.advance(2.5)  # what was begun anew ends by its timer
        driver.report("Canceled", session, ClOrdID="y-1")
        assert driver.outcome() == "canceled"
    assert seen == {0, 1}, "the edge was met"


def test_a_cancel_that_waits_for_its_redelivery_holds_no_replay_back() -> None:
    driver = Driver()
    driver.orders = [order("New", ClOrdID="ord-000417")]
    driver.deliver(item())
    driver.lose_consumer("cancel")
    driver.lose(1)
    session = driver.connect()
    driver.advance(7200)
    driver.report("New", session, ClOrdID="z-9", OrderID="order-9")
    last_report = driver.utc_us
    driver.lose(session)
    driver.connect()
    assert driver.subscribes()[-1].frame["streams"][0]["StartDate"] == format_utc(last_report - 60 * SECOND)


# -- what one read brings

_ONE_READ = st.lists(
    st.one_of(
        st.tuples(
            st.just("reports"),
            st.lists(
                st.tuples(
                    st.sampled_from(["New", "Trade", "PendingCancel", "Canceled", "CancelRejected", "Vaporised"]),
                    st.sampled_from(["y-1", "y-2", "z-1"]),
                    st.sampled_from(["order-1", "order-2", "order-3", "order-4", "NONE", None]),
                    st.sampled_from(["ord-1", "ord-2", None]),
                    st.integers(1, 6),
                ),
                max_size=3,
            ),
        ),
        st.sampled_from([("gap", []), ("unreadable", []), ("bad record", []), ("Pong", []), ("error", [])]),
    ),
    max_size=12,
)


def _messages(
    driver: Driver, read: list[tuple[str, list[tuple[str, str, str | None, str | None, int]]]]
) -> list[bytes]:
    made: list[Fields | str] = []
    seq = driver.frame_numbers[1, driver.main(1)]
    for kind, reports in read:
        if kind in ("reports", "bad record", "gap"):
            seq += 2 if kind == "gap" else 1
            data = [
                report(
                    exec_type,
                    ClOrdID=cl_ord_id,
                    OrderID=order_id,
                    OrigClOrdID=orig,
                    ExecID=f"x-{n}",
                    Timestamp=format_utc(START_US + n * 1000),
                )
                for exec_type, cl_ord_id, order_id, orig, n in reports
            ]
            bad = [{"ClOrdID": 7}, report("Trade", ClOrdID="y-1", ExecID="x-9")] if kind == "bad record" else []
            made.append({"reqid": driver.main(1), "type": "ExecutionReport", "seqNum": seq, "data": [*bad, *data]})
        elif kind == "unreadable":
            made.append("{")
        elif kind == "Pong":
            made.append({"reqid": 99, "type": "Pong"})
        else:
            made.append({"type": "error", "error": {"code": 7, "msg": "no"}})
    return [(each if isinstance(each, str) else json.dumps(each)).encode() for each in made]


def _outcome_of(driver: Driver) -> tuple[object, ...]:
    stats = {
        name: value.counts if isinstance(value, Histogram) else value
        for name, value in structs.asdict(driver.engine.stats).items()
        if not name.endswith("_delay")
    }
    sessions = driver.engine.sessions
    book = sessions._book
    events = [(event.event_id, event.outcome, event.body) for event in driver.published]
    return stats, driver.notes, driver.sent, events, book.ids(), book._closed, sessions._last_report_at


@given(_ONE_READ)
def test_what_comes_in_one_read_means_what_it_means_message_by_message(
    read: list[tuple[str, list[tuple[str, str, str | None, str | None, int]]]],
) -> None:
    outcomes = []
    for at_once in (True, False):
        driver = Driver()
        driver.deliver(item(1, OrigClOrdID="ord-1"), item(2, OrderID=None, OrigClOrdID="ord-2"), id="cmd-1")
        messages = _messages(driver, read)
        if at_once:
            driver.step(lambda engine, now: engine.frames_received(1, messages, now))  # noqa: B023 - called at once
        else:
            driver.step(*(received(1, message) for message in messages))
        outcomes.append(_outcome_of(driver))
    assert outcomes[0] == outcomes[1]


def test_the_newest_time_of_a_report_is_kept_whatever_its_precision_and_order() -> None:
    driver = Driver()
    for stamp in (
        "2026-03-09T14:09:15Z",
        "2026-03-09T14:09:15.5Z",
        "2026-03-09T14:09:15.25Z",
        "2026-03-09T14:09:14.999999Z",
    ):
        driver.report("New", Timestamp=stamp)
    assert driver.engine.sessions._last_report_at == "2026-03-09T14:09:15.5Z"


def test_the_stream_of_a_look_up_says_nothing_of_how_far_the_report_stream_is() -> None:
    driver = Driver()
    driver.answering = False
    driver.report("New")
    newest = driver.engine.sessions._last_report_at
    driver.deliver(item(), redelivered=True)
    reqid = driver.subscribes()[-1].frame["reqid"]
    assert reqid != driver.main(1)
    driver.frame(1, reqid, data=[report("New", Timestamp="2026-03-09T15:00:00.000000Z")])
    assert driver.engine.sessions._last_report_at == newest
