"""The schemas say what the worker reads and publishes: held to its own reader and to its own events."""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from tests.support.events import ledger, make_event
from tests.wire.bad_bodies import BAD_BODIES, JSON, as_json, cancel_request, good_item, mass_request
from worker.wire.command import CancelCommand, CancelItem, InvalidCommand, read_command
from worker.wire.event import (
    FINAL_OUTCOMES,
    CodeError,
    Event,
    InputError,
    Outcome,
    RejectError,
    ScopeAsked,
    encode_event,
)
from worker.wire.properties import Properties
from worker.wire.schema import commands_schema, events_schema, mass_ledger_schema
from worker.wire.seen import SeenMass

COMMANDS = Draft7Validator(commands_schema())
EVENTS = Draft7Validator(events_schema())


def is_valid(body: object) -> bool:
    """What the worker says of a body: every item of it is good."""
    command = read_command(as_json(body), Properties(content_type=JSON, message_id="c-1"), 1 << 20)
    if isinstance(command, InvalidCommand):
        return False
    return not isinstance(command, CancelCommand) or all(isinstance(item, CancelItem) for item in command.items)


@pytest.mark.parametrize("schema", [commands_schema(), events_schema()], ids=["commands", "events"])
def test_the_schemas_are_schemas(schema: dict[str, Any]) -> None:
    Draft7Validator.check_schema(schema)


def has_repeated_key(body: bytes) -> bool:
    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in found]
        if len(set(keys)) != len(keys):
            raise RepeatedError
        return dict(found)

    try:
        json.loads(body, object_pairs_hook=pairs)
    except RepeatedError:
        return True
    return False


class RepeatedError(Exception):
    """A key stands twice in one object."""


def readable() -> dict[str, Any]:
    """Bad bodies that are JSON, and bad for what is in them."""
    found = {}
    for name, bad in BAD_BODIES.items():
        if bad.content_type not in (JSON, None) or len(bad.body) > 1 << 20 or bad.field in ("message_id", "body"):
            continue
        try:
            value = json.loads(bad.body)
        except (ValueError, RecursionError):
            continue
        if not has_repeated_key(bad.body):
            found[name] = value
    return found


READABLE = readable()
UNSAYABLE = {"TransactTime on no day"} | {
    name for name in READABLE if BAD_BODIES[name].field == "ClOrdID" and BAD_BODIES[name].spoils == "command"
}
"""That a ClOrdID stands twice, and what the calendar forbids, are beyond a schema."""


@pytest.mark.parametrize("name", sorted(READABLE.keys() - UNSAYABLE))
def test_what_the_worker_refuses_the_schema_refuses(name: str) -> None:
    assert not COMMANDS.is_valid(READABLE[name]), READABLE[name]


def test_enough_of_them_are_tried() -> None:
    assert len(READABLE) > 40
    assert READABLE.keys() > UNSAYABLE
    assert len(UNSAYABLE) < 6


GOOD = {
    "three cancels": cancel_request(good_item(1), good_item(2), good_item(3)),
    "by the client's id": cancel_request({"Symbol": "A", "OrigClOrdID": "x"}),
    "nulls": cancel_request(
        {"Symbol": "A", "OrderID": "1", "OrigClOrdID": None, "ClOrdID": None, "TransactTime": None, "Timestamp": None}
    ),
    "unknown fields and a reqid": cancel_request({"Symbol": "A", "OrderID": "1", "X": [1]}, reqid=[7], more=1),
    "a thousand": cancel_request(*[{"Symbol": "A", "OrderID": "1"}] * 1000),
    "everything": mass_request(MassCancelRequestType="AllOrders"),
    "everything, with nulls": mass_request(
        MassCancelRequestType="AllOrders", Symbol=None, Side=None, CustomerUser=None, ClOrdID=None
    ),
    "one symbol": mass_request(MassCancelRequestType="Security", Symbol="A", Side="Sell", CustomerUser="é desk"),
}


@pytest.mark.parametrize("body", GOOD.values(), ids=GOOD)
def test_what_the_worker_takes_the_schema_takes(body: dict[str, Any]) -> None:
    assert is_valid(body)
    COMMANDS.validate(body)


texts = st.one_of(
    st.none(),
    st.sampled_from(
        ["", "a", "a" * 36, "a" * 37, "a" * 64, "a" * 65, "a b", "a\n", "é", "~", "Buy", "AllOrders", "Security"]
    ),
    st.integers(),
)
times = st.one_of(
    st.none(),
    st.sampled_from(
        [
            "2021-09-15T04:09:42.238000Z", "2021-09-15T04:09:42Z", "2021-09-15t04:09z", "20210915T040942,5+0130",
            "2021-09-15T04:09:42", "2021-09-15 04:09:42Z", "2021-09-15T04:09:42Z\n", "2021-09-15", "x", "",
            "2021-09-15T04:09:42.1234567890Z", "2021-09-15T040942Z", "2021-09-15T04:09:42+1",
        ]
    ),
)  # fmt: skip
ids = ("Symbol", "ClOrdID", "OrderID", "OrigClOrdID")
items = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(ids, texts) | dict.fromkeys(("TransactTime", "Timestamp"), times)
)
masses = st.fixed_dictionaries(
    {},
    optional={"MassCancelRequestType": texts, "Symbol": texts, "Side": texts, "CustomerUser": texts, "ClOrdID": texts},
)


@given(items)
def test_any_cancel_is_judged_alike(item: dict[str, Any]) -> None:
    body = cancel_request(item)
    assert COMMANDS.is_valid(body) == is_valid(body)


@given(masses)
def test_any_mass_cancel_is_judged_alike(item: dict[str, Any]) -> None:
    body = mass_request(**item)
    assert COMMANDS.is_valid(body) == is_valid(body)


# -- events


def test_the_schema_names_every_field_in_its_order() -> None:
    assert list(events_schema()["properties"]) == list(Event.__struct_fields__)
    optional = {field.name for field in msgspec.structs.fields(Event) if not field.required}
    assert set(events_schema()["required"]) == set(Event.__struct_fields__) - optional
    for name in ("order", "times"):
        nested = {field.name: field for field in msgspec.structs.fields(Event)}[name].type
        struct = next(one for one in (nested, *get_args(nested)) if hasattr(one, "__struct_fields__"))
        assert list(events_schema()["properties"][name]["properties"]) == list(struct.__struct_fields__)
    assert list(mass_ledger_schema()["properties"]) == list(SeenMass.__struct_fields__)


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_an_event_of_every_outcome_is_valid(outcome: str) -> None:
    more: dict[str, Any] = {}
    if outcome.startswith("mass_"):
        more["mass"] = ledger(matched=1, unknown=1, remaining=["o-1"])
        more["scope"] = ScopeAsked("AllOrders", None, None, None, ("desk@example.com",))
    command_id = None if outcome.startswith("worker_") else "c-1"
    event = make_event(command_id, 0, outcome, **more)
    EVENTS.validate(json.loads(encode_event(event)))
    flipped = json.loads(encode_event(event)) | {"final": outcome not in FINAL_OUTCOMES}
    assert not EVENTS.is_valid(flipped)


@pytest.mark.parametrize(
    "error",
    [
        InputError("data", "required", "x"),
        InputError(None, "required", "x"),
        RejectError("2", "market is closed", "x"),
        RejectError(2, None, "x"),
        CodeError(1, "no", "x"),
        CodeError("no_report", None, "x"),
    ],
)
def test_each_form_of_an_error_is_valid(error: Any) -> None:
    EVENTS.validate(json.loads(encode_event(make_event("c-1", 0, "refused", error=error))))


WRONG: dict[str, dict[str, Any]] = {
    "an outcome that is none": {"outcome": "cancelled"},
    "a final that is no truth value": {"final": "yes"},
    "a negative index": {"index": -1},
    "an order without its parts": {"order": {}},
    "a report that is a text": {"report": "x"},
    "a time without its zone": {
        "times": {
            "enqueued": "2021-09-15T04:09:42.000000",
            "received": None,
            "sent": None,
            "reported": None,
            "published": None,
        }
    },
    "a lane that is none": {"lane": "fast"},
    "an error of no form": {"error": {"message": "x"}},
    "a ledger with a part missing": {"mass": {"matched": 1}},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_an_event_that_breaks_a_rule_is_not_valid(change: dict[str, Any]) -> None:
    event = json.loads(encode_event(make_event("c-1", 0, "canceled")))
    EVENTS.validate(event)
    assert not EVENTS.is_valid(event | change)


def test_every_field_that_is_always_there_is_required() -> None:
    event = json.loads(encode_event(make_event("c-1", 0, "canceled")))
    for name in event:
        assert not EVENTS.is_valid({key: value for key, value in event.items() if key != name}), name
