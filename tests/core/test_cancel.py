"""The life of one cancel: legal moves, what a report means for it (protocol 5.4 and 6), and whose report it is."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.payloads import report
from worker.core.cancel import (
    MOVES,
    CancelState,
    IllegalMoveError,
    Phase,
    Verdict,
    cancel_of,
    concerns,
    is_request,
    judge,
    live_after,
    reject_error,
)
from worker.core.command import CommandState
from worker.core.facts import Delivery
from worker.wire.command import CancelItem, Context, derive_cl_ord_id
from worker.wire.venue import Record, read_record

OURS = {"ClOrdID": "y-1"}
ORDERS_OWN = {"ClOrdID": "ord-000417"}
ANOTHERS = {"ClOrdID": "z-9"}


def verdict_on(cancel: CancelState, told: Record) -> Verdict:
    return judge(cancel, told, is_request(cancel, told))


def a_cancel(
    *,
    order_id: str | None = "order-1",
    orig: str | None = None,
    redelivered: bool = False,
    attempt: int = 1,
    phase: Phase = Phase.SENT,
) -> CancelState:
    command = CommandState(
        "cmd-1", Context("cmd-1"), "cancel", Delivery("cancel", 1, 1), redelivered, b"", 0, "", None
    )  # fmt: skip
    cancel = cancel_of(command, CancelItem(0, "BTC-USD", "y-1", order_id, orig, None, None))
    cancel.attempt = attempt
    cancel.phase = phase
    return cancel


def record(exec_type: str, **fields: Any) -> Record:
    return read_record(msgspec.Raw(msgspec.json.encode(report(exec_type, **fields))))


# -- moves

LEGAL = {(here, there) for here, reach in MOVES.items() for there in reach}


def test_the_moves_are_these() -> None:
    drawn = {
        "queued": "sent pending running doubt parked final",
        "sent": "pending running doubt final",
        "pending": "running doubt final",
        "running": "pending doubt final",
        "doubt": "queued pending running parked final",
        "parked": "doubt pending running final",
        "final": "",
    }
    assert {(a.value, b.value) for a, b in LEGAL} == {(a, b) for a, reach in drawn.items() for b in reach.split()}


@pytest.mark.parametrize(("here", "there"), list(product(Phase, Phase)))
def test_a_legal_move_moves_and_an_illegal_one_raises_and_changes_nothing(here: Phase, there: Phase) -> None:
    cancel = a_cancel(phase=here)
    if here is there or (here, there) in LEGAL:
        cancel.move(there)
        assert cancel.phase is there
    else:
        with pytest.raises(IllegalMoveError):
            cancel.move(there)
        assert cancel.phase is here


def test_nothing_leaves_the_final_phase_and_only_the_queue_leads_to_a_send() -> None:
    assert not MOVES[Phase.FINAL]
    assert {here for here, there in LEGAL if there is Phase.SENT} == {Phase.QUEUED}
    assert {here for here, there in LEGAL if there is Phase.QUEUED} == {Phase.DOUBT}


# -- protocol section 6, row by row


@pytest.mark.parametrize(
    ("exec_type", "fields", "verdict"),
    [
        # PendingCancel, by any match
        ("PendingCancel", OURS, "pending"),
        ("PendingCancel", ORDERS_OWN, "pending"),
        ("PendingCancel", {**ANOTHERS, "LeavesQty": "0"}, "pending"),
        ("PendingCancel", {**OURS, "OrdStatus": "Filled"}, "already_closed"),
        # Canceled: ours, or by another hand (contract 3: already_closed)
        ("Canceled", OURS, "canceled"),
        ("Canceled", {**OURS, "OrdStatus": "Cancelled"}, "canceled"),
        ("Cancelled", {**OURS, "OrdStatus": "Cancelled"}, "canceled"),
        ("Canceled", {**OURS, "CumQty": "0.2", "LeavesQty": "0.3"}, "canceled"),
        ("Canceled", ANOTHERS, "already_closed"),
        ("Canceled", ORDERS_OWN, "already_closed"),
        ("Canceled", {"ClOrdID": None}, "already_closed"),
        # CancelRejected for this cancel
        ("CancelRejected", {**OURS, "OrdStatus": "Canceled", "CxlRejReason": 0}, "look_up"),  # by whose hand?
        ("CancelRejected", {**OURS, "OrdStatus": "Cancelled", "CxlRejReason": 0}, "look_up"),
        ("CancelRejected", {**OURS, "OrdStatus": "Filled", "CxlRejReason": 0}, "already_closed"),
        ("CancelRejected", {**OURS, "OrdStatus": "Expired", "CxlRejReason": 1}, "already_closed"),
        ("CancelRejected", {**OURS, "OrdStatus": "DoneForDay", "TimeInForce": "FillAndKill"}, "already_closed"),
        ("CancelRejected", {**OURS, "OrdStatus": "PendingCancel", "CxlRejReason": 3}, "running"),
        ("CancelRejected", {**OURS, "OrdStatus": "New", "CxlRejReason": 3}, "running"),
        ("CancelRejected", {**OURS, "OrdStatus": "PendingCancel"}, "running"),
        ("CancelRejected", {**OURS, "OrdStatus": "PendingReplace", "CxlRejReason": 99}, "running"),
        ("CancelRejected", {**OURS, "OrdStatus": "New", "CxlRejReason": 1}, "unknown"),
        ("CancelRejected", {**OURS, "OrdStatus": "PendingCancel", "CxlRejReason": 1}, "unknown"),
        ("CancelRejected", {**OURS, "OrdStatus": "Rejected"}, "unknown"),
        ("CancelRejected", {**OURS, "OrdStatus": "Rejected", "OrderID": "NONE", "CxlRejReason": 1}, "unknown"),
        ("CancelRejected", {**OURS, "OrdStatus": "New", "OrderID": "NONE", "CxlRejReason": 2}, "unknown"),
        ("CancelRejected", {**OURS, "OrdStatus": "New", "OrderID": "", "CxlRejReason": 2}, "unknown"),
        ("CancelRejected", {**OURS, "OrdStatus": "New", "OrderID": None}, "unknown"),
        ("CancelRejected", {**OURS, "OrdStatus": "New", "CxlRejReason": 0}, "look_up"),
        ("CancelRejected", {**OURS, "OrdStatus": "Vaporised", "CxlRejReason": 2}, "look_up"),
        ("CancelRejected", {**OURS, "OrdStatus": None, "CxlRejReason": 2}, "look_up"),
        ("CancelRejected", {**OURS, "OrdStatus": "New", "CxlRejReason": 6}, "duplicate"),
        ("CancelRejected", {**OURS, "OrdStatus": "Canceled", "CxlRejReason": 6}, "duplicate"),
        ("CancelRejected", {**OURS, "OrdStatus": "New", "CxlRejReason": 2}, "cancel_rejected"),
        ("CancelRejected", {**OURS, "OrdStatus": "PartiallyFilled", "CxlRejReason": 5}, "cancel_rejected"),
        ("CancelRejected", {**OURS, "OrdStatus": "New", "CxlRejReason": 99}, "cancel_rejected"),
        ("CancelRejected", {**OURS, "OrdStatus": "Suspended"}, "cancel_rejected"),
        ("CancelRejected", {**OURS, "OrdStatus": "DoneForDay", "CxlRejReason": 2}, "cancel_rejected"),  # GTC: works on
        # Rejected: the cancel as a message, or the order itself
        ("Rejected", OURS, "look_up"),
        ("Rejected", {**OURS, "OrdStatus": "New", "CxlRejReason": 2}, "cancel_rejected"),
        ("Rejected", {**OURS, "OrdStatus": "New", "OrdRejReason": 5}, "unknown"),
        ("Rejected", {**OURS, "OrdRejReason": 6}, "duplicate"),
        ("Rejected", {**OURS, "OrdStatus": "New", "OrdRejReason": 0}, "cancel_rejected"),
        ("Rejected", ANOTHERS, "look_up"),
        # CancelRejected of another request
        ("CancelRejected", {**ANOTHERS, "OrdStatus": "New", "CxlRejReason": 2}, "none"),
        ("CancelRejected", {**ANOTHERS, "OrdStatus": "New", "CxlRejReason": 6}, "none"),
        # Fills
        ("Trade", {**ORDERS_OWN, "LeavesQty": "0.1"}, "none"),
        ("Trade", {**OURS, "OrdStatus": "PendingCancel", "LeavesQty": "0.1"}, "none"),
        ("Trade", {**ORDERS_OWN, "LeavesQty": "0"}, "already_closed"),
        ("Trade", {**OURS, "OrdStatus": "PendingCancel", "LeavesQty": "0.000"}, "already_closed"),
        ("Trade", {**ORDERS_OWN, "OrdStatus": "Filled", "LeavesQty": None}, "already_closed"),
        ("Restated", {**ORDERS_OWN, "OrdStatus": "Filled"}, "already_closed"),
        # Moot
        ("Expired", ORDERS_OWN, "already_closed"),
        ("DoneForDay", {**ORDERS_OWN, "TimeInForce": "FillOrKill"}, "already_closed"),
        ("DoneForDay", {**ORDERS_OWN, "LeavesQty": "0"}, "already_closed"),
        ("DoneForDay", ORDERS_OWN, "none"),
        # Replaces of somebody
        ("Replaced", ANOTHERS, "none"),
        ("ReplaceRejected", {**ANOTHERS, "OrdStatus": "New"}, "none"),
        ("ReplaceRejected", {**ANOTHERS, "OrdStatus": "Filled"}, "already_closed"),
        # No news, and words that nobody listed: by OrdStatus
        *((word, ORDERS_OWN, "none") for word in ("New", "PendingNew", "Restated", "Stopped", "Paused", "Triggered")),
        ("Vaporised", {**ORDERS_OWN, "OrdStatus": "New"}, "none"),
        ("Vaporised", {**ORDERS_OWN, "OrdStatus": "Expired"}, "already_closed"),
        ("Vaporised", {**ORDERS_OWN, "OrdStatus": "Canceled"}, "look_up"),  # by whose hand?
        ("Restated", {**OURS, "OrdStatus": "Rejected"}, "look_up"),
        ("Vaporised", {**ORDERS_OWN, "OrdStatus": "Evaporating"}, "none"),
        ("Vaporised", {**ORDERS_OWN, "OrdStatus": None}, "none"),
    ],
)
def test_a_report_is_read_as_protocol_section_6_says(exec_type: str, fields: dict[str, Any], verdict: Verdict) -> None:
    assert verdict_on(a_cancel(), record(exec_type, **fields)) == verdict


REASONS: list[tuple[int, tuple[str, ...], Verdict]] = [
    (0, ("TooLateToCancel",), "look_up"),
    (1, ("UnknownOrder",), "unknown"),
    (2, ("BrokerOption", "BrokerCredit"), "cancel_rejected"),
    (3, ("OrderAlreadyInPendingStatus",), "running"),
    (4, ("UnableToProcessOrderMassCancelRequest",), "cancel_rejected"),
    (5, ("OrigOrdModTime",), "cancel_rejected"),
    (6, ("DuplicateClOrdID",), "duplicate"),
    (7, (), "cancel_rejected"),
    (18, (), "cancel_rejected"),
    (99, ("Other",), "cancel_rejected"),
]


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [(form, verdict) for code, words, verdict in REASONS for form in (code, str(code), float(code), *words)],
)
def test_a_reason_is_a_number_a_number_in_quotes_or_a_word(reason: float | str, verdict: Verdict) -> None:
    told = record("CancelRejected", **OURS, OrdStatus="New", CxlRejReason=reason)
    assert verdict_on(a_cancel(), told) == verdict
    assert reject_error(told).reason == reason, "the raw value is kept"


@pytest.mark.parametrize("reason", ["", "Nonsense", -1, 3.5, 1e300, "٣", "12345"])
def test_a_reason_nobody_listed_leaves_the_word_to_ord_status(reason: float | str) -> None:
    told = {
        status: record("CancelRejected", **OURS, OrdStatus=status, CxlRejReason=reason) for status in ("New", "Filled")
    }
    assert verdict_on(a_cancel(), told["New"]) == "cancel_rejected"
    assert verdict_on(a_cancel(), told["Filled"]) == "already_closed"


@pytest.mark.parametrize(("attempt", "redelivered"), [(2, False), (1, True)])
def test_a_reject_that_reads_canceled_may_speak_of_our_own_earlier_send(attempt: int, redelivered: bool) -> None:
    told = record("CancelRejected", **OURS, OrdStatus="Canceled", CxlRejReason=0)
    assert verdict_on(a_cancel(attempt=attempt, redelivered=redelivered), told) == "look_up"


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"OrdStatus": "New", "CxlRejReason": 2}, "none"),
        ({"OrdStatus": "New", "CxlRejReason": 6}, "none"),
        ({"OrdStatus": "Rejected", "CxlRejReason": 1}, "none"),
        ({"OrdStatus": "Canceled", "CxlRejReason": 0}, "none"),  # perhaps by the later send: its own report tells
        ({"OrdStatus": "Filled", "CxlRejReason": 0}, "already_closed"),
    ],
)
def test_a_reject_of_a_send_that_a_fresh_id_has_replaced_tells_at_most_that_the_order_is_closed(
    fields: dict[str, Any], verdict: Verdict
) -> None:
    cancel = a_cancel(attempt=2)
    cancel.take_fresh_id()
    assert judge(cancel, record("CancelRejected", **OURS, **fields), True) == verdict
    assert judge(cancel, record("Canceled", **OURS), True) == "canceled"


@pytest.mark.parametrize(
    ("exec_type", "fields"),
    [
        ("CancelRejected", {**ANOTHERS, "CxlRejReason": 2}),
        ("ReplaceRejected", ANOTHERS),
        ("Replaced", ANOTHERS),
    ],
)
def test_the_end_of_another_request_is_news_for_who_waits_for_just_that(exec_type: str, fields: dict[str, Any]) -> None:
    told = record(exec_type, **fields)
    assert verdict_on(a_cancel(phase=Phase.RUNNING), told) == "running_ended"
    assert verdict_on(a_cancel(phase=Phase.SENT), told) == "none"


def test_an_order_that_was_refused_is_closed_if_the_report_bears_its_own_client_id() -> None:
    assert verdict_on(a_cancel(order_id=None, orig="ord-000417"), record("Rejected", **ORDERS_OWN)) == "already_closed"


@pytest.mark.parametrize(
    ("orig", "verdict"), [("ord-000417", "already_closed"), ("an-older-one", "look_up"), (None, "look_up")]
)
def test_a_client_id_that_is_its_own_original_is_the_orders(orig: str | None, verdict: Verdict) -> None:
    """Another request on the order, refused as a message, names the order by another id than its own."""
    told = record("Rejected", **ORDERS_OWN, OrigClOrdID=orig)
    assert verdict_on(a_cancel(), told) == verdict


def test_a_reject_of_the_cancels_id_is_never_a_word_on_the_order() -> None:
    """OrdStatus must read Rejected there (protocol 6) and says nothing of the order."""
    for exec_type in ("CancelRejected", "Rejected"):
        assert live_after(record(exec_type, **OURS, OrdStatus="Rejected")) is None


# -- whose report

IDS = [None, "", "NONE", "order-1", "order-2"]


@pytest.mark.parametrize(("known", "told"), list(product([None, "order-1"], IDS)))
def test_the_order_ids_agree_where_both_are_known(known: str | None, told: str | None) -> None:
    cancel = a_cancel(order_id=known, orig="ord-000417")
    says = record("Canceled", **OURS, OrderID=told)
    assert concerns(cancel, says) is (known is None or told in (None, "", "NONE", known))


# -- is the order live


@pytest.mark.parametrize(
    ("exec_type", "fields", "live"),
    [
        ("Canceled", {}, False),
        ("Canceled", {"OrdStatus": None}, False),
        ("Cancelled", {"OrdStatus": "Cancelled"}, False),
        ("Expired", {"OrdStatus": None}, False),
        ("Trade", {"LeavesQty": "0"}, False),
        ("Trade", {"LeavesQty": "0.1"}, True),
        ("Trade", {"OrdStatus": "PendingCancel", "LeavesQty": "0"}, False),
        ("PendingCancel", {}, True),
        ("PendingCancel", {"LeavesQty": "0"}, None),
        ("CancelRejected", {"OrdStatus": "Filled"}, False),
        ("CancelRejected", {"OrdStatus": "New"}, True),
        ("CancelRejected", {"OrdStatus": "PendingCancel", "LeavesQty": "0"}, None),
        ("DoneForDay", {}, True),
        ("DoneForDay", {"TimeInForce": "FillAndKill"}, False),
        ("Restated", {"OrdStatus": "Vaporised"}, True),
        ("Restated", {"OrdStatus": None}, None),
    ],
)
def test_whether_the_order_works_after_a_report(exec_type: str, fields: dict[str, Any], live: bool | None) -> None:
    assert live_after(record(exec_type, **fields)) is live


# -- ids of later sends


def test_fresh_ids_are_derived_and_never_repeat() -> None:
    cancel = a_cancel()
    for n in range(2, 6):
        cancel.take_fresh_id()
        assert cancel.cl_ord_id == derive_cl_ord_id("cmd-1", 0, n)
    assert all(cancel.owns(each) for each in ("y-1", *(derive_cl_ord_id("cmd-1", 0, n) for n in range(2, 6))))
    assert not cancel.owns("z-9")
    assert not cancel.owns(None)


@pytest.mark.parametrize("redelivered", [True, False])
def test_a_cancel_knows_the_fresh_ids_of_another_process(redelivered: bool) -> None:
    """One that had the command before, or one that has it now: a delivery was lost, or it was published twice."""
    assert a_cancel(redelivered=redelivered).owns(derive_cl_ord_id("cmd-1", 0, 2))
    assert not a_cancel(redelivered=redelivered).owns(derive_cl_ord_id("cmd-1", 1, 2)), "the neighbour's"


def test_an_older_record_never_replaces_what_is_known_of_the_order() -> None:
    cancel = a_cancel()
    cancel.note_order(record("Trade", CumQty="0.3", Timestamp="2026-03-09T14:09:12.5Z"), True)
    cancel.note_order(record("Trade", CumQty="0.1", Timestamp="2026-03-09T14:09:12Z"), True)
    assert cancel.order is not None
    assert (cancel.order.cum_qty, cancel.order.as_of) == ("0.3", "2026-03-09T14:09:12.5Z")


# -- nothing the venue may say is too much

WORDS = st.sampled_from(
    [
        None,
        "New",
        "Canceled",
        "Filled",
        "PendingCancel",
        "Rejected",
        "CancelRejected",
        "Trade",
        "Replaced",
        "Expired",
        "?",
    ]
)
QUANTITIES = st.one_of(st.none(), st.sampled_from(["0", "0.00", "-0", "", "x", "1e9"]), st.integers(), st.floats())
REASON = st.one_of(st.none(), st.text(max_size=30), st.integers(), st.floats())


@given(
    st.builds(
        Record,
        cl_ord_id=st.sampled_from([None, "y-1", "z-9", "ord-000417"]),
        order_id=st.sampled_from(IDS),
        exec_type=WORDS,
        ord_status=WORDS,
        leaves_qty=QUANTITIES,
        cxl_rej_reason=REASON,
        ord_rej_reason=REASON,
    ),
    st.sampled_from(Phase),
    st.booleans(),
)
def test_judging_never_raises_and_only_the_venues_own_words_end_a_cancel(
    told: Record, phase: Phase, redelivered: bool
) -> None:
    verdict = verdict_on(a_cancel(phase=phase, redelivered=redelivered), told)
    live_after(told)
    reject_error(told)
    if verdict == "canceled":
        assert (told.exec_type, told.cl_ord_id) == ("Canceled", "y-1")
    if verdict == "cancel_rejected":
        assert told.exec_type in ("CancelRejected", "Rejected")
        assert told.cl_ord_id == "y-1"
        assert live_after(told) is not False
    if verdict == "already_closed":
        assert live_after(told) is not True


@pytest.mark.parametrize("told", [(2, 3), (3, 2), (3, 1, 2)])
def test_of_the_ids_that_another_process_took_the_latest_is_the_cancels_id(told: tuple[int, ...]) -> None:
    """A replay may tell of them in any order; a reject of an earlier one is not the reject of the last send."""
    ids = {1: "y-1", 2: derive_cl_ord_id("cmd-1", 0, 2), 3: derive_cl_ord_id("cmd-1", 0, 3)}
    cancel = a_cancel(redelivered=True)
    for n in told:
        cancel.adopt(ids[n])
    assert cancel.cl_ord_id == ids[3]
    assert set(cancel.earlier_ids) == {ids[1], ids[2]}
