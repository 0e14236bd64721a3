"""Contract section 3: every outcome by every cause, what its event says, and what becomes of the command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from tests.core.driver import Driver
from tests.core.payloads import Fields, item, order, report
from worker.core.desk import CONFLICTS_TOLD, EXEC_IDS_KEPT
from worker.wire import event as wire
from worker.wire.timestamp import format_utc

OURS: Fields = {"ClOrdID": "y-1"}
ANOTHERS: Fields = {"ClOrdID": "z-9"}


class Case(NamedTuple):
    """Reports that come after the send, Order records that a look-up finds, and what must come of it."""

    cause: str
    reports: list[Fields]
    outcome: str
    order_live: bool | None
    sent: str = "yes"
    orders: Sequence[Fields] = ()
    reason: object = None
    infos: Sequence[str] = ()
    dead: bool = False


def live(exec_type: str, **fields: Any) -> Fields:
    return {"ExecType": exec_type, **fields}


def rejected(**fields: Any) -> Fields:
    return live("CancelRejected", **OURS, **fields)


WORKING = [order("New", ClOrdID="ord-000417")]
FILLED = [order("Filled", ClOrdID="ord-000417", CumQty="0.5", LeavesQty="0")]

CASES = [
    Case("Canceled", [live("Canceled", **OURS)], "canceled", False),
    Case(
        "Canceled after PendingCancel", [live("PendingCancel", **OURS), live("Canceled", **OURS)],
        "canceled", False, infos=["pending_cancel"],
    ),
    Case(
        "a fill in between",
        [live("PendingCancel", **OURS), live("Trade", ClOrdID="ord-000417"), live("Canceled", **OURS)],
        "canceled", False, infos=["pending_cancel", "report"],
    ),
    Case("canceled by another hand", [live("Canceled", **ANOTHERS)], "already_closed", False),
    Case("filled", [live("Trade", ClOrdID="ord-000417", OrdStatus="Filled", LeavesQty="0")], "already_closed", False),
    Case(
        "filled while pending", [live("Trade", **OURS, OrdStatus="PendingCancel", LeavesQty="0")],
        "already_closed", False,
    ),
    Case("expired", [live("Expired", ClOrdID="ord-000417")], "already_closed", False),
    Case("reject of a filled order", [rejected(OrdStatus="Filled", CxlRejReason=0)], "already_closed", False, reason=0),
    Case(
        "reject of a canceled order, and no look-up tells by whom",
        [rejected(OrdStatus="Canceled", CxlRejReason="TooLateToCancel")],
        "already_closed", False, reason="TooLateToCancel", infos=["report"],
    ),
    Case(
        "reject of an order canceled by another", [rejected(OrdStatus="Canceled", CxlRejReason="TooLateToCancel")],
        "already_closed", False, orders=[order("Canceled", **ANOTHERS)], reason="TooLateToCancel", infos=["report"],
    ),
    Case(
        "reject of an order that an earlier copy of this cancel canceled",
        [rejected(OrdStatus="Canceled", CxlRejReason="TooLateToCancel")],
        "canceled", False, orders=[order("Canceled", **OURS)], infos=["report"],
    ),
    Case(
        "too late, says the reject, and the look-up agrees", [rejected(OrdStatus="New", CxlRejReason=0)],
        "already_closed", False, orders=FILLED, reason=0, infos=["report"],
    ),
    Case(
        "reason 3 and the other request closes the order",
        [rejected(OrdStatus="PendingCancel", CxlRejReason=3), live("Canceled", **ANOTHERS)],
        "already_closed", False, infos=["report"],
    ),
    Case("rejected", [rejected(OrdStatus="New", CxlRejReason=2)], "cancel_rejected", True, reason=2),
    Case(
        "too late, says the reject, but the order works", [rejected(OrdStatus="New", CxlRejReason=0)],
        "cancel_rejected", True, orders=WORKING, reason=0, infos=["report"],
    ),
    Case(
        "unknown, says the reject, but the order works", [rejected(OrdStatus="New", CxlRejReason=1)],
        "cancel_rejected", True, orders=WORKING, reason=1, infos=["report"],
    ),
    Case(
        "refused as a message, and the order works", [live("Rejected", **OURS, Text="bad")],
        "cancel_rejected", True, orders=WORKING, infos=["report"],
    ),
    Case(
        "no such order, by reject and look-ups", [rejected(OrdStatus="Rejected", OrderID="NONE", CxlRejReason=1)],
        "unknown_order", None, reason=1, infos=["report"],
    ),
    Case("silence, and no such order by look-ups", [], "unknown_order", None, infos=["doubtful"]),
    Case("silence, and the look-up finds it filled", [], "already_closed", False, orders=FILLED, infos=["doubtful"]),
    Case(
        "silence, and the look-up finds it canceled by this cancel", [],
        "canceled", False, orders=[order("Canceled", **OURS)], infos=["doubtful"],
    ),
    Case(
        "silence, and the look-up finds it canceled by another", [],
        "already_closed", False, orders=[order("Canceled", **ANOTHERS)], infos=["doubtful"],
    ),
    Case(
        "reason 6 for ever", [rejected(OrdStatus="New", CxlRejReason=6)],
        "unresolved", True, orders=WORKING, infos=["report"], dead=True,
    ),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case.cause for case in CASES])
def test_an_outcome_has_its_cause_its_axes_and_its_settlement(case: Case) -> None:
    driver = Driver()
    driver.orders = list(case.orders)
    delivery = driver.deliver(item())
    for fields in case.reports:
        driver.report(fields["ExecType"], **{k: v for k, v in fields.items() if k != "ExecType"})
    driver.advance(310)
    final = driver.final()
    assert (final["outcome"], final["sent"], final["order_live"]) == (case.outcome, case.sent, case.order_live)
    assert driver.outcomes() == [*case.infos, case.outcome]
    assert (final["error"] or {}).get("reason") == case.reason
    assert driver.settlement(delivery) is None, "nothing is confirmed yet"
    driver.confirm()
    assert driver.settlement(delivery) == ("dead_letter" if case.dead else "ack")
    assert list(driver.left_over()) == []
    assert driver.engine.stats.finals[case.outcome] == 1
    assert len(driver.cancels_sent()) == 1


def test_refused_needs_an_error_frame_for_this_cancel_alone_with_a_code_that_says_no() -> None:
    driver = Driver()
    driver.orders = WORKING
    delivery = driver.deliver(item())
    driver.error(driver.cancel_frames()[0]["reqid"], code=1, msg="invalid request")
    final = driver.final()
    assert (final["outcome"], final["sent"], final["order_live"]) == ("refused", "yes", True)
    assert final["error"] | {"message": ""} == {"code": 1, "msg": "invalid request", "message": ""}
    assert driver.outcomes() == ["doubtful", "refused"]
    driver.confirm()
    assert driver.settlement(delivery) == "ack"


@pytest.mark.parametrize(
    ("orders", "order_live"), [(WORKING, True), (FILLED, False), ([], None)], ids=["working", "closed", "unknown"]
)
def test_whether_a_refused_cancels_order_is_live_is_told_by_look_up(
    orders: list[Fields], order_live: bool | None
) -> None:
    driver = Driver()
    driver.orders = orders
    driver.deliver(item())
    driver.error(driver.cancel_frames()[0]["reqid"], code=1)
    assert (driver.final()["outcome"], driver.final()["order_live"]) == ("refused", order_live)


def test_a_report_outranks_the_refusal() -> None:
    driver = Driver()
    driver.answering = False
    driver.deliver(item())
    driver.error(driver.cancel_frames()[0]["reqid"], code=1)
    driver.report("Canceled", **OURS)
    assert driver.outcome() == "canceled"


def test_one_bad_item_ends_alone_and_takes_its_command_to_the_dead_letters() -> None:
    driver = Driver()
    delivery = driver.deliver(item(1), item(2, Symbol=""), item(3))
    assert driver.cancels_sent() == ["y-1", "y-3"]
    bad = driver.final(index=1)
    assert (bad["outcome"], bad["sent"], bad["order_live"]) == ("invalid", "never", None)
    assert bad["error"]["field"] == "Symbol"
    driver.report("Canceled", ClOrdID="y-1")
    driver.report("Canceled", ClOrdID="y-3", OrderID="order-3")
    assert driver.settlement(delivery) is None
    driver.confirm()
    assert [e["outcome"] for e in driver.finals()] == ["invalid", "canceled", "canceled"]
    assert driver.settlement(delivery) == "dead_letter"


@pytest.mark.parametrize(
    ("body", "id", "field"),
    [
        (b"{", "cmd-1", "body"),
        (b'{"type":"OrderCancelRequest","data":[]}', "cmd-1", "data"),
        (b'{"type":"OrderCancelRequest","data":[{"Symbol":"S","OrderID":"o"}]}', None, "message_id"),
    ],
)
def test_a_spoilt_command_is_one_event_with_no_index(body: bytes, id: str | None, field: str) -> None:
    driver = Driver()
    delivery = driver.deliver(body=body, id=id)
    (event,) = driver.finals()
    assert (event["outcome"], event["index"], event["command_id"], event["sent"]) == ("invalid", None, id, "never")
    assert event["error"]["field"] == field
    assert driver.published[0].routing_key == "final.invalid._"
    driver.confirm()
    assert driver.settlement(delivery) == "dead_letter"
    assert not driver.cancels_sent()


# -- what an event says


def test_a_final_carries_everything_the_contract_lists() -> None:
    driver = Driver()
    driver.deliver(
        item(OrigClOrdID="ord-000417"),
        correlation_id="corr-1",
        user_id="risk",
        app_id="limits",
        timestamp_s=driver.utc_us // 1_000_000 - 3,
        reply_to="answers",
        headers={"reason": "limit breach", "traceparent": "00-ab-cd-01", "tracestate": "a=b"},
    )
    driver.advance(0.25)
    record = driver.report("Canceled", **OURS, CumQty="0.1", LeavesQty="0", AvgPx="61250.00")
    assert driver.final() == {
        "event_id": wire.final_id("cmd-1", 0),
        "command_id": "cmd-1",
        "index": 0,
        "outcome": "canceled",
        "final": True,
        "sent": "yes",
        "order_live": False,
        "symbol": "BTC-USD",
        "cl_ord_id": "y-1",
        "orig_cl_ord_id": "ord-000417",
        "order_id": "order-1",
        "order": {
            "status": "Canceled",
            "cum_qty": "0.1",
            "leaves_qty": "0",
            "avg_px": "61250.00",
            "as_of": record["Timestamp"],
        },
        "report": record,
        "error": None,
        "supersedes": None,
        "late": False,
        "attempt": 1,
        "lane": "cancel",
        "worker": "worker-1",
        "session_id": "2Q7DKM41VXR01",
        "user_id": "risk",
        "app_id": "limits",
        "reason": "limit breach",
        "times": {
            "enqueued": "2026-03-09T14:09:09.000000Z",
            "received": "2026-03-09T14:09:12.000000Z",
            "sent": "2026-03-09T14:09:12.000000Z",
            "reported": "2026-03-09T14:09:12.250000Z",
            "published": "2026-03-09T14:09:12.250000Z",
        },
        "traceparent": "00-ab-cd-01",
        "tracestate": "a=b",
    }
    (event,) = driver.published
    assert (event.event_id, event.correlation_id, event.outcome) == (wire.final_id("cmd-1", 0), "corr-1", "canceled")
    assert event.headers.items() >= {"command_id": "cmd-1", "final": True, "traceparent": "00-ab-cd-01"}.items()
    assert event.routing_key == "final.canceled.BTC-USD"
    assert event.timestamp_s == driver.utc_us // 1_000_000
    assert [(reply.reply_to, reply.event) for reply in driver.replies] == [("answers", event)]


def test_only_finals_are_replied_and_only_if_the_setting_allows() -> None:
    for reply_to, replies in ((True, 1), (False, 0)):
        driver = Driver(results={"reply_to": reply_to})
        driver.deliver(item(), reply_to="answers")
        driver.report("PendingCancel", **OURS)
        driver.report("Canceled", **OURS)
        assert len(driver.replies) == replies


def test_every_byte_of_a_report_goes_out_again() -> None:
    driver = Driver()
    driver.deliver(item())
    raw = b'{ "ExecType":"Canceled" ,"ClOrdID":"y-1",\t"OrderID":"order-1","OrdStatus":"Canceled","Price":1.50}'
    driver.raw(1, b'{"reqid":1,"type":"ExecutionReport","data":[' + raw + b"]}")
    assert b'"report":' + raw + b"," in driver.published[0].body


@pytest.mark.parametrize(("leaves", "order_live"), [("0.5", True), ("0", None)])
def test_a_pending_cancel_is_live_unless_nothing_is_left(leaves: str, order_live: bool | None) -> None:
    driver = Driver()
    driver.deliver(item())
    record = driver.report("PendingCancel", **OURS, LeavesQty=leaves)
    (event,) = driver.events()
    assert (event["outcome"], event["final"], event["order_live"]) == ("pending_cancel", False, order_live)
    assert event["event_id"] == wire.report_id("cmd-1", 0, record["ExecID"])
    assert driver.published[0].routing_key == "info.pending_cancel.BTC-USD"


def test_a_report_after_the_final_is_late_and_changes_nothing() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.report("Canceled", **ANOTHERS)
    driver.report("CancelRejected", **OURS, OrdStatus="Canceled", CxlRejReason=0)
    driver.report("Trade", ClOrdID="ord-000417")
    assert [(e["outcome"], e["late"]) for e in driver.events()] == [
        ("already_closed", False), ("report", True), ("report", True),
    ]  # fmt: skip
    assert driver.engine.stats.late_reports == 2


@pytest.mark.parametrize("status", ["Canceled", "Cancelled"])
def test_a_reject_that_says_canceled_is_believed_though_the_order_record_lags(status: str) -> None:
    driver = Driver()
    driver.orders = WORKING
    driver.deliver(item())
    driver.report("CancelRejected", **OURS, OrdStatus=status, CxlRejReason=0)
    driver.advance(10)
    (final,) = driver.finals()
    assert (final["outcome"], final["order_live"]) == ("already_closed", False)
    assert len(driver.cancels_sent()) == 1


@pytest.mark.parametrize(
    ("fields", "outcome", "order_live"),
    [
        ({"OrdStatus": "Canceled", "CxlRejReason": 0}, "already_closed", False),
        ({"OrdStatus": "New", "CxlRejReason": 0}, "cancel_rejected", True),
        ({"OrdStatus": "Rejected", "CxlRejReason": 1, "OrderID": "NONE"}, "cancel_rejected", True),
    ],
)
@pytest.mark.parametrize("record_id", ["y-1", "z-9"])
def test_a_record_that_still_shows_the_cancel_pending_is_older_than_its_reject(
    fields: Fields, outcome: str, order_live: bool, record_id: str
) -> None:
    """An order that waits for another's request goes on waiting, unless the reject said that it is closed."""
    driver = Driver()
    driver.orders = [order("PendingCancel", ClOrdID=record_id)]
    driver.deliver(item())
    driver.report("PendingCancel", **OURS)
    driver.report("CancelRejected", **{**OURS, **fields})
    driver.advance(10)
    if record_id == "y-1" or outcome == "already_closed":
        (final,) = driver.finals()
        assert (final["outcome"], final["order_live"]) == (outcome, order_live)
    else:
        assert driver.finals() == []
    assert len(driver.cancels_sent()) == 1


def test_a_fill_reported_after_the_order_closed_is_booked_and_the_order_stays_closed() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.report("Canceled", **OURS, CumQty="0.1")
    driver.report("Trade", ClOrdID="ord-000417", OrdStatus="PartiallyFilled", CumQty="0.3", AvgPx="61000")
    late = driver.events()[-1]
    assert (late["late"], late["order"]["status"], late["order"]["cum_qty"]) == (True, "Canceled", "0.3")
    driver.report("Trade", ClOrdID="ord-000417", OrdStatus="PartiallyFilled", CumQty="0.2")
    assert driver.events()[-1]["order"]["cum_qty"] == "0.3"


def test_what_was_filled_is_kept_when_the_last_report_leaves_it_out() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.report("Trade", ClOrdID="ord-000417", OrdStatus="PartiallyFilled", CumQty="0.1", AvgPx="61250")
    driver.report("Canceled", **OURS, CumQty=None, AvgPx=None)
    (final,) = driver.finals()
    assert (final["order"]["cum_qty"], final["order"]["avg_px"]) == ("0.1", "61250")


def test_canceled_tells_the_order_as_its_report_has_it_whatever_came_since() -> None:
    """Another worker sent the duplicate and was refused: both finals must be equal (contract 3, Ids)."""
    told, done = [], report("Canceled", **OURS)
    for refused in (False, True):
        driver = Driver()
        driver.deliver(item())
        if refused:
            driver.history = [done]
            refusal: Fields = {
                "OrdStatus": "Canceled",
                "CxlRejReason": 0,
                "Timestamp": format_utc(driver.utc_us + 1_000),
            }
            driver.report("CancelRejected", **OURS, **refusal)
            driver.advance(10)
        else:
            driver.report("Canceled", **{k: v for k, v in done.items() if k != "ExecType"})
        (final,) = driver.finals()
        told.append((final["outcome"], final["order"], final["report"], final["order_live"]))
    assert told[0] == told[1]


def test_a_late_report_is_known_even_after_its_command_was_settled_but_not_for_ever() -> None:
    driver = Driver(results={"memory": 1})
    for n in (1, 2):
        driver.deliver(item(n), id=f"cmd-{n}")
        driver.report("Canceled", ClOrdID=f"y-{n}", OrderID=f"order-{n}")
        driver.confirm()
    driver.report("Trade", OrderID="order-1")
    assert driver.outcomes("cmd-1") == ["canceled"]
    driver.report("Trade", OrderID="order-2")
    assert driver.outcomes("cmd-2") == ["canceled", "report"]


# -- ids


def test_the_final_has_one_id_whatever_its_outcome_but_unresolved() -> None:
    ids = {}
    for outcome, exec_type, fields in (
        ("canceled", "Canceled", OURS),
        ("already_closed", "Canceled", ANOTHERS),
        ("cancel_rejected", "CancelRejected", {**OURS, "CxlRejReason": 2}),
    ):
        driver = Driver()
        driver.deliver(item())
        driver.report(exec_type, **fields)
        ids[outcome] = driver.final()["event_id"]
    assert set(ids.values()) == {wire.final_id("cmd-1", 0)}


@pytest.mark.parametrize("headers", [{"x-death": [{"count": 1}]}, {"requeue_of": "cmd-1"}])
def test_a_final_of_what_was_dead_names_the_unresolved_it_supersedes(headers: dict[str, object]) -> None:
    driver = Driver()
    driver.orders = [order("Canceled", **OURS)]
    driver.deliver(item(1), item(2, Symbol=""), headers=headers)
    assert driver.final(index=0)["outcome"] == "canceled"
    assert driver.final(index=0)["supersedes"] == wire.unresolved_id("cmd-1", 0)
    assert driver.final(index=1)["supersedes"] == wire.unresolved_id("cmd-1", 1)


def test_unresolved_supersedes_nothing_and_what_never_died_neither() -> None:
    driver = Driver(venue={"doubt_window": 1.0})
    driver.answering = False
    driver.deliver(item(), headers={"x-death": [{}]})
    driver.advance(2)
    final = driver.final()
    assert (final["outcome"], final["supersedes"]) == ("unresolved", None)
    assert final["event_id"] == wire.unresolved_id("cmd-1", 0)
    other = Driver()
    other.deliver(item())
    other.report("Canceled", **OURS)
    assert other.final()["supersedes"] is None


def test_requeued_from_the_dead_letters_the_truth_follows_under_the_finals_own_id() -> None:
    driver = Driver(venue={"doubt_window": 1.0})
    driver.answering = False
    dead = driver.deliver(item())
    driver.advance(10)
    driver.confirm()
    assert (driver.outcome(), driver.settlement(dead)) == ("unresolved", "dead_letter")
    driver.answering = True
    driver.orders = [order("Canceled", **OURS)]
    again = driver.deliver(item(), headers={"x-death": [{}]})
    driver.confirm()
    first, second = driver.finals()
    assert (second["outcome"], second["supersedes"]) == ("canceled", first["event_id"])
    assert driver.settlement(again) == "ack"
    assert driver.cancels_sent() == ["y-1"], "nothing is sent again"


# -- whose report


def test_a_report_of_another_order_settles_nothing_though_the_cl_ord_id_is_ours() -> None:
    """Two systems use one ClOrdID (contract 4.2)."""
    driver = Driver()
    driver.deliver(item(1, ClOrdID="same"), id="a")
    driver.deliver(item(2, ClOrdID="same"), id="b")
    driver.report("Canceled", ClOrdID="same", OrderID="order-2")
    assert (driver.outcome("a"), driver.outcome("b")) == (None, "canceled")
    driver.report("CancelRejected", ClOrdID="same", OrderID="order-1", CxlRejReason=2)
    assert (driver.outcome("a"), driver.outcome("b")) == ("cancel_rejected", "canceled")
    assert driver.outcomes("b") == ["canceled"]


def test_a_report_that_names_no_order_for_a_shared_cl_ord_id_ends_nobody_by_itself() -> None:
    driver = Driver()
    driver.answering = False
    for n in (1, 2):
        driver.deliver(item(n, ClOrdID="same"), id=f"cmd-{n}")
    driver.report("CancelRejected", ClOrdID="same", OrderID="NONE", OrdStatus="Rejected", CxlRejReason=1)
    assert not driver.finals()


def test_two_commands_on_one_order_each_get_their_own_word() -> None:
    driver = Driver()
    driver.deliver(item(1, ClOrdID="y-a"), id="a")
    driver.deliver(item(1, ClOrdID="y-b"), id="b")
    driver.report("Canceled", ClOrdID="y-a")
    assert (driver.outcome("a"), driver.outcome("b")) == ("canceled", "already_closed")
    driver.confirm()
    assert list(driver.left_over()) == []


def test_foreign_reports_are_skipped_quietly() -> None:
    driver = Driver()
    driver.deliver(item())
    driver.report("Canceled", ClOrdID="z-1", OrderID="order-77")
    driver.report("Trade", ClOrdID=None, OrderID=None)
    assert not driver.published
    assert driver.engine.stats.foreign_reports == 2


def test_an_order_named_by_its_client_id_alone() -> None:
    driver = Driver()
    driver.deliver(item(OrderID=None, OrigClOrdID="ord-000417"))
    assert "OrderID" not in driver.cancel_frames()[0]["data"][0]
    driver.report("Canceled", ClOrdID="y-1", OrigClOrdID="ord-000417", OrderID="order-7")
    assert (driver.outcome(), driver.final()["order_id"]) == ("canceled", "order-7")


@pytest.mark.parametrize(
    "closing",
    [
        {"ClOrdID": "ord-000418", "OrigClOrdID": "ord-000417", "OrderID": "order-7"},  # by the client id that named it
        {"ClOrdID": "ord-000418", "OrigClOrdID": None, "OrderID": "order-7"},  # by the OrderID learned meanwhile
        {"ClOrdID": "ord-000418", "OrigClOrdID": None, "OrderID": None},  # by the client id learned meanwhile
    ],
)
def test_after_a_replace_the_order_goes_by_its_new_client_id(closing: Fields) -> None:
    driver = Driver()
    driver.deliver(item(OrderID=None, OrigClOrdID="ord-000417"))
    driver.report("Replaced", ClOrdID="ord-000418", OrigClOrdID="ord-000417", OrderID="order-7")
    assert driver.outcomes() == ["report"]
    driver.report("Trade", OrdStatus="Filled", LeavesQty="0", **closing)
    assert driver.outcome() == "already_closed"


# -- once per ExecID


def test_a_report_that_comes_on_two_sessions_counts_once() -> None:
    driver = Driver(sessions=2)
    driver.deliver(item())
    for session in (1, 2, 1):
        driver.report("Trade", session, ExecID="e-1", ClOrdID="ord-000417")
    for session in (2, 1):
        driver.report("Canceled", session, ExecID="e-2", **OURS)
    assert driver.outcomes() == ["report", "canceled"]
    assert driver.engine.stats.duplicate_reports == 3


@pytest.mark.parametrize("sessions", [1, 2])
def test_an_exec_id_with_other_content_is_kept_counted_and_looked_up(sessions: int) -> None:
    driver = Driver(sessions=sessions)
    driver.orders = [order("Canceled", ClOrdID="y-1")]
    driver.deliver(item())
    driver.report("PendingCancel", ExecID="e-1", **OURS)
    for session in range(1, sessions + 1):
        driver.report("Canceled", session, ExecID="e-1", Timestamp=format_utc(driver.utc_us), **OURS)
    assert driver.outcomes() == ["pending_cancel", "report", "canceled"]
    kept = driver.events("report")[0]
    assert kept["report"]["ExecType"] == "Canceled"
    assert kept["event_id"] != driver.events("pending_cancel")[0]["event_id"], "nobody drops it for its id"
    assert [q["name"] for q in driver.questions()] == ["ExecutionReport", "Order", "ExecutionReport"]
    assert driver.engine.stats.conflicting_reports == 1


def test_a_venue_that_contradicts_itself_for_ever_costs_a_bounded_number_of_events_and_ids() -> None:
    driver = Driver()
    driver.answering = False
    driver.deliver(item())
    driver.report("PendingCancel", ExecID="e-1", **OURS)
    for n in range(400):
        driver.report("Canceled", ExecID="e-1", Text=str(n), **OURS)
    assert driver.outcomes() == ["pending_cancel"] + ["report"] * CONFLICTS_TOLD
    assert driver.engine.stats.conflicting_reports == 400
    for n in range(EXEC_IDS_KEPT):
        driver.report("Trade", ClOrdID="ord-000417", ExecID=f"t-{n}")
    driver.report("Canceled", ExecID=f"t-{EXEC_IDS_KEPT - 1}", **OURS)
    (cancel,) = driver.engine.intake.commands["cmd-1"].cancels
    assert len(cancel.exec_ids) == EXEC_IDS_KEPT


def test_a_conflict_makes_a_look_up_begin_anew_that_was_under_way() -> None:
    driver = Driver()
    driver.orders = [order("New", ClOrdID="ord-000417")]
    driver.answering = False
    driver.deliver(item())
    driver.report("PendingCancel", ExecID="e-1", **OURS)
    driver.report("Canceled", ExecID="e-1", Text="first", **OURS)
    asked = len(driver.questions())
    driver.report("Canceled", ExecID="e-1", Text="second", **OURS)
    driver.orders = [order("Canceled", ClOrdID="y-1")]
    question = driver.subscribes()[-1].frame
    driver.frame(1, question["reqid"], data=[], initial=True)
    assert driver.cancels_sent() == ["y-1"]
    driver.answering = True
    driver.advance(0.1)
    assert [q["name"] for q in driver.questions()[asked:]] == ["ExecutionReport", "Order", "ExecutionReport"]
    assert driver.outcome() == "canceled"


def test_a_report_without_exec_id_is_told_by_its_bytes() -> None:
    driver = Driver()
    driver.deliver(item())
    stamp = format_utc(driver.utc_us)
    for _ in range(2):
        driver.report("Trade", ExecID="", Timestamp=stamp, ClOrdID="ord-000417")
    driver.report("Trade", ExecID="", Timestamp=stamp, ClOrdID="ord-000417", CumQty="0.2")
    assert driver.outcomes() == ["report", "report"]


def test_a_replay_after_the_final_says_nothing_new() -> None:
    driver = Driver()
    driver.deliver(item())
    record = driver.report("Canceled", **OURS)
    driver.confirm()
    driver.lose(1)
    driver.connect(replay=[report("New", OrderID="order-1", Timestamp="2026-03-09T14:08:00.000000Z"), record])
    assert driver.outcomes() == ["canceled"]


def test_what_is_told_late_of_a_settled_command_is_told_as_its_final_was() -> None:
    """Of an ended cancel little more than its final is kept: a late report's event is made from that."""
    driver = Driver()
    headers: dict[str, object] = {"reason": "limit", "deadline": "2126-02-25T06:13:20Z", "traceparent": "00-1-2-3"}
    driver.deliver(item(OrigClOrdID="x-1"), headers=headers, correlation_id="corr-1", user_id="risk", app_id="desk")
    driver.report("PendingCancel", **OURS)
    driver.report("Canceled", CumQty="0.1", **OURS)
    driver.confirm()
    final, told = driver.final(), driver.published[-1]
    driver.advance(1)
    driver.report("Trade", ExecID="t-9", OrdStatus="PartiallyFilled", CumQty="0.2", LeavesQty="0", **OURS)
    (late,), out = driver.events("report"), driver.published[-1]
    changed = {"event_id", "outcome", "final", "order", "report", "late", "times"}
    assert {key for key in final.keys() | late.keys() if final.get(key) != late.get(key)} == changed
    assert (late["outcome"], late["final"], late["late"], late["order"]["cum_qty"]) == ("report", False, True, "0.2")
    assert late["event_id"] == wire.report_id("cmd-1", 0, "t-9")
    assert (out.correlation_id, out.headers, out.lane) == ("corr-1", told.headers | {"final": False}, told.lane)
    driver.report("Trade", ExecID="t-9", OrdStatus="PartiallyFilled", CumQty="0.2", LeavesQty="0", **OURS)
    driver.report("Trade", ExecID="t-10", OrdStatus="PartiallyFilled", CumQty="0.15", LeavesQty="0", **OURS)
    assert [e["order"]["cum_qty"] for e in driver.events("report")] == ["0.2", "0.2"], (
        "once each, and nothing goes back"
    )
