"""What the events of a mass cancel prove."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.events import ledger, make_event
from worker.cli.ledger import counts_of
from worker.cli.sweep import MassRequest, Progress, mass_request
from worker.errors import UsageError
from worker.wire.event import CodeError, InputError, encode_event, final_id, routing_key, unresolved_id
from worker.wire.seen import SeenEvent, SeenMass, read_event

ALL = mass_request("m-1", "x", True, None, None, None, 1024)


def seen(outcome: str, index: int | None = 0, command_id: str | None = "m-1", **more: Any) -> SeenEvent:
    return read_event(encode_event(make_event(command_id, index, outcome, **more)))


def mass(outcome: str, **counts: Any) -> SeenEvent:
    return seen(outcome, mass=ledger(**counts))


def after(*events: SeenEvent, asked: MassRequest = ALL) -> Progress:
    progress = Progress(asked)
    for event in events:
        progress.take(event)
    return progress


def test_a_request_is_what_the_contract_asks_for() -> None:
    assert json.loads(ALL.body) == {
        "type": "OrderMassCancelRequest",
        "data": [{"ClOrdID": "x", "MassCancelRequestType": "AllOrders"}],
    }
    asked = mass_request("m-1", "x", False, "BTC-USD", "Buy", "desk@example.com", 1024)
    assert json.loads(asked.body)["data"] == [
        {
            "ClOrdID": "x",
            "MassCancelRequestType": "Security",
            "Symbol": "BTC-USD",
            "Side": "Buy",
            "CustomerUser": "desk@example.com",
        }
    ]
    assert asked.scope == "every open Buy order in BTC-USD of desk@example.com that the worker's API key sees"


@pytest.mark.parametrize(
    ("everything", "symbol", "side", "user"),
    [
        (False, None, None, None),
        (True, "BTC-USD", None, None),
        (False, "", None, None),
        (False, "BTC USD", None, None),
        (True, None, None, ""),
        (True, None, None, "a\nb"),
        (True, None, "buy", None),
    ],
)
def test_a_request_that_would_be_invalid_is_a_usage_error(
    everything: bool, symbol: str | None, side: str | None, user: str | None
) -> None:
    with pytest.raises(UsageError):
        mass_request("m-1", "x", everything, symbol, side, user, 1024)


@pytest.mark.parametrize("symbol", [None, "A.B"])
def test_every_event_about_the_whole_comes_through_the_bindings(symbol: str | None) -> None:
    asked = mass_request("m-1", "x", symbol is None, symbol, None, None, 1024)
    keys = asked.routing_keys()
    for outcome in ("mass_canceled", "mass_incomplete", "unresolved"):
        assert routing_key(outcome, True, symbol) in keys
    for outcome in ("invalid", "unauthorized"):
        assert routing_key(outcome, True, None) in keys
    assert routing_key("mass_progress", False, symbol) in keys
    assert not [key for key in keys if "*" in key or "#" in key]


def test_flat_is_the_final_that_says_so_and_nothing_else() -> None:
    assert not after().is_flat
    assert not after(mass("mass_progress", matched=2, canceled=2)).is_flat
    assert not after(mass("mass_incomplete", matched=2, canceled=2)).is_flat
    assert not after(mass("mass_canceled", matched=2, canceled=1, unknown=1, remaining=["o-1"])).is_flat
    assert not after(seen("unresolved")).is_flat
    assert after(mass("mass_canceled", matched=2, canceled=2)).is_flat
    assert after(mass("mass_canceled")).is_flat


def test_another_command_s_end_and_an_order_s_end_are_not_ours() -> None:
    assert not after(seen("mass_canceled", command_id="m-2", mass=ledger())).is_flat
    progress = after(seen("canceled", 1, order_id="o-1", of_sweep=True), seen("canceled", 0, event_id="other"))
    assert progress.final is None


def test_the_latest_ledger_stands_and_the_final_s_for_good() -> None:
    progress = after(mass("mass_progress", matched=1), seen("mass_progress", attempt=2, mass=ledger(matched=2)))
    assert progress.mass is not None
    assert progress.mass.matched == 2
    assert not progress.take(mass("mass_progress", matched=9))  # an id that came before
    assert progress.mass.matched == 2
    progress.take(mass("mass_canceled", matched=3, canceled=3))
    progress.take(seen("mass_progress", attempt=3, mass=ledger(matched=4)))
    assert progress.mass.matched == 3
    assert progress.is_flat


@pytest.mark.parametrize(
    ("events", "begins"),
    [
        ([], "NOT VERIFIED: no final event came."),
        ([mass("mass_canceled")], "NOTHING MATCHED (matched 0; 1 sweep, 0.0 s). Covered: every open order"),
        ([mass("mass_canceled", restarted=True)], "VERIFIED FLAT (matched 0; 1 sweep, 0.0 s, begun anew). Covered:"),
        (
            [mass("mass_canceled", matched=3, canceled=2, already_closed=1, sweeps=2, elapsed_ms=1500.0)],
            "VERIFIED FLAT (matched 3: 2 canceled, 1 already closed; 2 sweeps, 1.5 s). Covered: every open order",
        ),
        (
            [seen("mass_incomplete", mass=ledger(matched=1, rejected=1), error=CodeError("survivors", None, "1 left"))],
            "NOT FLAT (matched 1: 1 rejected; 1 sweep, 0.0 s): mass_incomplete: 1 left. Asked for: every open order",
        ),
        (
            [seen("unauthorized", None, error=InputError("user_id", "mass_cancel_users", "not you"))],
            "NOT FLAT: unauthorized: not you. Asked for: ",
        ),
    ],
)
def test_the_one_line_that_counts(events: list[SeenEvent], begins: str) -> None:
    assert after(*events).conclusion().startswith(begins)


@pytest.mark.parametrize(
    ("users", "customer_user", "said"),
    [(["a", "b"], None, True), (["a"], "a", False), (None, None, False)],
)
def test_what_the_worker_covered_is_told_where_it_is_less_than_was_asked(
    users: list[str] | None, customer_user: str | None, said: bool
) -> None:
    asked = mass_request("m-1", "x", True, None, None, customer_user, 1024)
    body = json.loads(encode_event(make_event("m-1", 0, "mass_canceled", mass=ledger()))) | {
        "scope": {"customer_users": users}
    }
    line = after(read_event(json.dumps(body).encode()), asked=asked).conclusion()
    assert (", only those of a, b (kill.customer_users)" in line) is said
    assert ("kill.customer_users" in line) is said


def test_why_survivors_survived_is_looked_up_by_id() -> None:
    progress = after(mass("mass_incomplete", matched=1, unknown=1, remaining=["o-1"]))
    assert progress.survivors_finals == {
        final_id("m-1", "order o-1"): "o-1",
        unresolved_id("m-1", "order o-1"): "o-1",
    }


def test_what_is_nought_is_left_out() -> None:
    assert counts_of(SeenMass(5, 1, 1, 1, 1, 1, (), 3, True, 60_250.0)) == (
        "matched 5: 1 canceled, 1 already closed, 1 rejected, 1 unknown, 1 not sent; 3 sweeps, 60.2 s, begun anew"
    )
