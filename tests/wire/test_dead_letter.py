"""Dead letters: what they say of themselves, and what becomes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest

from tests.wire.bad_bodies import JSON, as_json, cancel_request, good_item, mass_request
from worker.wire.command import Lane, read_command
from worker.wire.dead_letter import DeadLetter, Death, read_dead_letter
from worker.wire.event import CodeError, command_event_id, final_id, unresolved_id
from worker.wire.properties import Properties
from worker.wire.timestamp import from_datetime

AT = datetime(2030, 1, 2, tzinfo=UTC)
QUEUES: dict[str, Lane] = {"cancel.kill": "kill", "cancel.commands": "cancel"}
ONE = as_json(cancel_request(good_item(0)))
MASS = as_json(mass_request(MassCancelRequestType="Security", Symbol="A", ClOrdID="k"))


def entry(queue: str = "cancel.commands", reason: str = "rejected", **more: object) -> dict[str, object]:
    return {
        "queue": queue,
        "reason": reason,
        "count": 1,
        "time": AT,
        "exchange": "x",
        "routing-keys": ["cancel"],
    } | more


def letter(
    body: bytes = ONE,
    message_id: str | None = "c-1",
    user_id: str | None = None,
    deaths: object = (entry(),),
    headers: Mapping[str, object] | None = None,
) -> DeadLetter:
    """A letter; a tuple of deaths stands for the list that the broker writes."""
    account = {"x-death": list(deaths) if isinstance(deaths, tuple) else deaths}
    properties = Properties(JSON, message_id, user_id=user_id, headers=account | dict(headers or {}))
    return read_dead_letter(body, properties, 1 << 20)


def test_it_is_called_by_its_command_id() -> None:
    assert letter().id == "c-1"
    assert letter(message_id=None).id == good_item(0)["ClOrdID"]
    digest = hashlib.sha256(b"[]").hexdigest()
    assert letter(b"[]", None).id == f"sha256:{digest[:16]}"


def test_its_deaths_are_the_broker_s_account_latest_first() -> None:
    found = letter(deaths=(entry("cancel.kill", "delivery_limit", count=3), entry()))
    assert found.deaths[0] == Death("cancel.kill", "delivery_limit", 3, from_datetime(AT))
    assert found.lane(QUEUES) == "kill"
    assert found.was_moved_by_broker
    assert not letter().was_moved_by_broker
    assert letter().lane(QUEUES) == "cancel"


@pytest.mark.parametrize(
    "deaths",
    [None, "x", [], [7], [{}], [{"queue": None, "reason": 3, "count": "many", "time": "then"}], [entry("elsewhere")]],
)
def test_an_odd_account_stops_nothing(deaths: object) -> None:
    found = letter(deaths=deaths)
    assert found.lane(QUEUES) is None
    assert found.id == "c-1"


def test_a_mass_cancel_and_what_is_invalid_are_not_requeued() -> None:
    assert letter().why_not_requeued() is None
    assert "never requeued" in (letter(MASS).why_not_requeued() or "")
    assert letter(MASS).is_mass
    assert "invalid again" in (letter(b"[]").why_not_requeued() or "")
    partly = as_json(cancel_request(good_item(0), {}))
    assert letter(partly).why_not_requeued() is None
    assert letter(partly).cancels == 2


def test_requeued_headers_are_the_publisher_s_and_who_it_was() -> None:
    brokers: dict[str, object] = {
        "x-first-death-queue": "q", "x-first-death-reason": "rejected", "x-first-death-exchange": "x",
        "x-last-death-queue": "q", "x-delivery-count": 9, "x-acquired-count": 2, "x-opt-deaths": [],
    }  # fmt: skip
    found = letter(
        user_id="risk", headers=brokers | {"reason": "why", "deadline": "d", "n": 1, "CC": ["a"], "BCC": ["b"]}
    )
    assert found.requeue_headers() == {
        "reason": "why", "deadline": "d", "n": 1, "requeue_of": "c-1", "original_user": "risk",
    }  # fmt: skip


def test_original_user_is_who_published_it_first_and_can_not_be_made_up() -> None:
    assert "original_user" not in letter().requeue_headers()
    assert "original_user" not in letter(headers={"original_user": "forged"}).requeue_headers()
    assert letter(user_id="risk", headers={"original_user": "forged"}).requeue_headers()["original_user"] == "risk"
    again = letter(user_id="operator", headers={"requeue_of": "c-1", "original_user": "risk"})
    assert again.requeue_headers()["original_user"] == "risk"
    assert letter(user_id="operator", headers={"requeue_of": "c-1"}).requeue_headers()["original_user"] == "operator"


def test_a_requeued_command_is_the_same_command_for_the_worker() -> None:
    found = letter(message_id=None, user_id="risk")
    properties = Properties(content_type=JSON, message_id=found.command_id, headers=found.requeue_headers())
    again = read_command(found.body, properties, 1 << 20)
    assert again.context.command_id == found.command_id
    assert again.context.requeue_of == found.command_id
    assert not again.context.has_x_death


def test_each_cancel_has_its_own_ends() -> None:
    body = as_json(cancel_request(good_item(0), good_item(1)))
    digest = hashlib.sha256(body).hexdigest()
    ends = dict(letter(body).ends())
    assert list(ends) == [0, 1]
    assert {final_id("c-1", 1), unresolved_id("c-1", 1), command_event_id("c-1", digest, "unauthorized")} <= ends[1]
    assert final_id("c-1", 0) not in ends[1]
    assert list(dict(letter(MASS).ends())) == [0]
    [(index, whole)] = letter(b"[]").ends()
    assert index is None
    assert command_event_id("c-1", hashlib.sha256(b"[]").hexdigest(), "unresolved") in whole


def test_unresolved_claims_nothing_of_the_order() -> None:
    found = letter(
        user_id="risk", deaths=(entry(reason="delivery_limit"),), headers={"reason": "why", "traceparent": "t"}
    )
    event = found.unresolved(0, "cancel", "me", from_datetime(AT))
    assert event.event_id == unresolved_id("c-1", 0)
    assert (event.outcome, event.final, event.sent, event.order_live) == ("unresolved", True, "maybe", None)
    assert (event.symbol, event.order_id) == ("BTC-USD", good_item(0)["OrderID"])
    assert (event.user_id, event.reason, event.worker, event.traceparent) == ("risk", "why", "me", "t")
    assert isinstance(event.error, CodeError)
    assert (event.error.code, event.error.msg) == ("dead_lettered", "delivery_limit")
    assert event.times.published == "2030-01-02T00:00:00.000000Z"
    assert event.event_id in dict(found.ends())[0]


def test_unresolved_of_a_mass_cancel_and_of_a_whole_command() -> None:
    mass = letter(MASS).unresolved(0, "kill", "me", 0)
    assert (mass.event_id, mass.symbol, mass.cl_ord_id, mass.index) == (unresolved_id("c-1", 0), "A", "k", 0)
    for message_id in ("c-1", None):
        found = letter(b"[]", message_id)
        event = found.unresolved(None, None, "me", 0)
        assert (event.index, event.symbol, event.lane, event.command_id) == (None, None, None, message_id)
        assert event.event_id in found.ends()[0][1]
    item = letter(as_json(cancel_request({}))).unresolved(0, "cancel", "me", 0)
    assert (item.index, item.symbol) == (0, None)
