"""Events as consumers read them: what the worker writes comes back, and nothing a newer one adds does harm."""

from __future__ import annotations

import json

import pytest
from msgspec import Raw

from worker.wire.event import CodeError, Event, InputError, OrderState, RejectError, Times, encode_event
from worker.wire.seen import SeenEventError, read_event

REPORT = b'{"ExecType": "CancelRejected", "Text": "too late", "CumQty": "0.1",\n "X": [1]}'


def published(**changes: object) -> bytes:
    terms: dict[str, object] = {
        "event_id": "e", "command_id": "c", "index": 1, "outcome": "canceled", "final": True, "sent": "yes",
        "order_live": False, "symbol": "BTC-USD", "cl_ord_id": "x", "orig_cl_ord_id": None, "order_id": "o",
        "order": OrderState("Canceled", "0.1", "0", "1.00", "2021-09-15T04:09:42.238000Z"), "report": Raw(REPORT),
        "error": None, "supersedes": None, "late": False, "attempt": 1, "lane": "kill", "worker": "w",
        "session_id": "s", "user_id": "risk", "app_id": None, "reason": "why",
        "times": Times(None, None, None, None, "2021-09-15T04:09:42.238000Z"),
    }  # fmt: skip
    return encode_event(Event(**(terms | changes)))  # type: ignore[arg-type]


def test_what_the_worker_writes_comes_back() -> None:
    seen = read_event(published())
    assert (seen.event_id, seen.command_id, seen.index, seen.outcome, seen.final) == ("e", "c", 1, "canceled", True)
    assert (seen.sent, seen.order_live, seen.symbol, seen.order_id, seen.lane) == ("yes", False, "BTC-USD", "o", "kill")
    assert seen.order is not None
    assert seen.order.cum_qty == "0.1"
    assert bytes(seen.report) == REPORT
    assert seen.times.published == "2021-09-15T04:09:42.238000Z"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (InputError("Symbol", "required", "Symbol: required"), "Symbol: required"),
        (RejectError("UnknownOrder", "no", "refused: UnknownOrder"), "refused: UnknownOrder"),
        (RejectError(2, None, "refused: 2"), "refused: 2"),
        (CodeError(1, "bad", "code 1"), "code 1"),
        (CodeError("unresolved", None, "nobody knows"), "nobody knows"),
        (None, "CancelRejected too late"),
    ],
)
def test_what_is_told_is_our_message_or_else_the_reports_words(error: object, told: str) -> None:
    assert read_event(published(error=error)).told == told


@pytest.mark.parametrize("report", [None, Raw(b'{"ExecType": 7}'), Raw(b"[]"), Raw(b"{}")])
def test_a_report_without_words_tells_nothing(report: object) -> None:
    assert read_event(published(report=report)).told == ""


def test_unknown_and_missing_fields_pass() -> None:
    seen = read_event(json.dumps({"event_id": "e", "outcome": "new_word", "final": False, "more": {"x": 1}}).encode())
    assert (seen.command_id, seen.index, seen.order_live, seen.late, seen.told) == (None, None, None, False, "")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"outcome": "x", "final": true}', b"[" * 100_000]
)
def test_what_is_no_event_is_told_without_the_body(body: bytes) -> None:
    with pytest.raises(SeenEventError, match="not an event"):
        read_event(body)
