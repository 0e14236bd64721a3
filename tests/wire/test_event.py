"""Events (contract section 3): ids, routing keys, and the JSON that goes out."""

from __future__ import annotations

import json
import uuid
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw, structs

from worker.wire import event as wire
from worker.wire.event import CodeError, Event, InputError, OrderState, Outcome, RejectError, Times

COMMAND_IDS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)
INDEXES = st.integers(0, 999)

# -- ids

RECIPES = [
    (wire.final_id("cmd-1", 3), "cmd-1\n3\nfinal"),
    (wire.unresolved_id("cmd-1", 3), "cmd-1\n3\nunresolved"),
    (wire.report_id("cmd-1", 3, "exec-9"), "cmd-1\n3\nreport\nexec-9"),
    (wire.attempt_id("cmd-1", 3, "doubtful", 2), "cmd-1\n3\ndoubtful\n2"),
    (wire.command_event_id("cmd-1", "ab" * 32, "invalid"), f"cmd-1\n{'ab' * 32}\ninvalid"),
    (wire.command_event_id(None, "ab" * 32, "invalid"), f"{'ab' * 32}\n{'ab' * 32}\ninvalid"),
    (wire.worker_event_id("w-1", "worker_unavailable", 1), "w-1\nworker_unavailable\n1"),
]


@pytest.mark.parametrize(("made", "line"), RECIPES)
def test_an_id_is_the_uuid5_of_its_line(made: str, line: str) -> None:
    assert made == str(uuid.uuid5(wire.NAMESPACE, line))


def test_ids_never_change_between_releases() -> None:
    """A consumer that has seen an id must meet the same one after an upgrade."""
    assert str(wire.NAMESPACE) == "6f0d1c2e-98a4-5b1d-8d5c-0c5b1f7a3e21"
    assert wire.final_id("cmd-1", 0) == "afa8af7e-daf4-59a0-a777-f66b61651f4a"
    assert wire.unresolved_id("cmd-1", 0) == "cb0bd5e0-d193-5a17-a0ce-e6df9960a780"


@given(st.text())
def test_the_fast_way_is_the_librarys(name: str) -> None:
    assert wire.derived_uuid(name) == str(uuid.uuid5(wire.NAMESPACE, name))


def test_half_a_surrogate_pair_is_no_reason_to_fail() -> None:
    assert uuid.UUID(wire.report_id("cmd-1", 0, "\ud800")).version == 5


@given(st.lists(st.tuples(COMMAND_IDS, INDEXES, st.text(max_size=10), st.integers(0, 20)), min_size=2, max_size=8))
def test_what_differs_has_another_id(inputs: list[tuple[str, int, str, int]]) -> None:
    made: dict[str, tuple[Any, ...]] = {}
    for command_id, index, exec_id, attempt in inputs:
        for made_id, meaning in (
            (wire.final_id(command_id, index), ("final", command_id, index)),
            (wire.unresolved_id(command_id, index), ("unresolved", command_id, index)),
            (wire.report_id(command_id, index, exec_id), ("report", command_id, index, exec_id)),
            (wire.attempt_id(command_id, index, "doubtful", attempt), ("doubtful", command_id, index, attempt)),
            (wire.command_event_id(command_id, "ab" * 32, "invalid"), ("invalid", command_id)),
        ):
            assert made.setdefault(made_id, meaning) == meaning


# -- routing keys


@pytest.mark.parametrize(
    ("outcome", "final", "symbol", "key"),
    [
        ("canceled", True, "BTC-USD", "final.canceled.BTC-USD"),
        ("report", False, "BTC-USD", "info.report.BTC-USD"),
        ("canceled", True, "A.B*C#D", "final.canceled.A_B_C_D"),
        ("invalid", True, None, "final.invalid._"),
        ("invalid", True, "", "final.invalid._"),
        ("worker_unavailable", False, None, "info.worker_unavailable._"),
    ],
)
def test_routing_key(outcome: str, final: bool, symbol: str | None, key: str) -> None:
    assert wire.routing_key(outcome, final, symbol) == key


@given(st.lists(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=64), max_size=5))
def test_a_key_has_three_words_and_no_wildcard_however_often_it_is_asked_for(symbols: list[str]) -> None:
    for symbol in symbols * 2:
        key = wire.routing_key("canceled", True, symbol)
        assert key.count(".") == 2
        assert not set("*#") & set(key)
        assert len(key) < 256


def test_keys_of_many_symbols_are_not_kept_for_ever() -> None:
    for n in range(5000):
        assert wire.routing_key("canceled", True, f"S{n}") == f"final.canceled.S{n}"
    assert len(wire._keys) <= 4096


# -- the closed sets


def test_every_outcome_of_the_contract_is_there() -> None:
    assert set(get_args(Outcome)) == {
        "pending_cancel", "report", "doubtful", "canceled", "already_closed", "cancel_rejected", "unknown_order",
        "refused", "deadline_passed", "invalid", "unauthorized", "unresolved", "mass_progress", "mass_canceled",
        "mass_incomplete", "worker_unavailable", "worker_available",
    }  # fmt: skip
    assert set(get_args(Outcome)) >= wire.FINAL_OUTCOMES >= wire.DEAD_LETTERED
    assert {"invalid", "unauthorized", "unresolved", "mass_incomplete"} == wire.DEAD_LETTERED


# -- the JSON

EVENT = Event(
    event_id="b0e3",
    command_id="cmd-1",
    index=0,
    outcome="canceled",
    final=True,
    sent="yes",
    order_live=False,
    symbol="BTC-USD",
    cl_ord_id="y-1",
    orig_cl_ord_id=None,
    order_id="order-1",
    order=OrderState("Canceled", "0.1", "0", "61250.00", "2026-03-09T14:09:12.1Z"),
    report=Raw(b'{ "ExecType" : "Canceled",\n\t"Qty":1.50, "dup":1, "dup":2, "t":"\\u00e9 \xc3\xa9" }'),
    error=None,
    supersedes=None,
    late=False,
    attempt=1,
    lane="cancel",
    worker="worker-1",
    session_id="1109RQ13KXR00",
    user_id="risk",
    app_id=None,
    reason="limit breach",
    times=Times("a", "b", "c", "d", "e"),
)


def test_keys_stand_in_the_contracts_order() -> None:
    read = json.loads(wire.encode_event(EVENT))
    assert list(read) == [
        "event_id", "command_id", "index", "outcome", "final", "sent", "order_live", "symbol", "cl_ord_id",
        "orig_cl_ord_id", "order_id", "order", "report", "error", "supersedes", "late", "attempt", "lane", "worker",
        "session_id", "user_id", "app_id", "reason", "times",
    ]  # fmt: skip
    assert list(read["order"]) == ["status", "cum_qty", "leaves_qty", "avg_px", "as_of"]
    assert list(read["times"]) == ["enqueued", "received", "sent", "reported", "published"]


def test_every_byte_of_the_report_is_kept() -> None:
    assert EVENT.report is not None
    assert b'"report":' + bytes(EVENT.report) + b',"error"' in wire.encode_event(EVENT)


@pytest.mark.parametrize(
    ("error", "read"),
    [
        (None, None),
        (InputError("Symbol", "required", "m"), {"field": "Symbol", "rule": "required", "message": "m"}),
        (RejectError("3", None, "m"), {"reason": "3", "text": None, "message": "m"}),
        (CodeError(7, "no", "m"), {"code": 7, "msg": "no", "message": "m"}),
    ],
)
def test_error_has_one_of_three_shapes(error: wire.EventError | None, read: dict[str, Any] | None) -> None:
    assert json.loads(wire.encode_event(structs.replace(EVENT, error=error)))["error"] == read


def test_what_the_command_did_not_bring_is_not_there_and_what_it_brought_is() -> None:
    extra = {"deadline": "2026-03-09T14:10:00Z", "traceparent": "00-ab-cd-01", "tracestate": "a=b"}
    assert EVENT.deadline is UNSET
    assert not extra.keys() & json.loads(wire.encode_event(EVENT)).keys()
    brought = json.loads(wire.encode_event(structs.replace(EVENT, **extra)))
    assert {key: brought[key] for key in extra} == extra
