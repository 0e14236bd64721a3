"""Times on the command line, and which events they and the other filters select."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.events import make_event
from worker.cli.moment import moment
from worker.cli.selection import Repeats, Selection
from worker.errors import UsageError
from worker.wire.event import encode_event, routing_key
from worker.wire.seen import SeenEvent, read_event

NOW = 1_700_000_000_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", NOW),
        ("90s", NOW - 90_000_000),
        ("15m", NOW - 900_000_000),
        ("1.5h", NOW - 5_400_000_000),
        ("7d", NOW - 604_800_000_000),
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14T23:13:20.000001+01:00", NOW + 1),
    ],
)
def test_a_time_is_a_point_or_how_long_ago(text: str, expected: int) -> None:
    assert moment(text, "--since", NOW) == expected


@pytest.mark.parametrize("text", ["", "soon", "15", "-5m", "2023-11-14T22:13:20", "2023-11-14", "5 m", "5w"])
def test_anything_else_names_the_option(text: str) -> None:
    with pytest.raises(UsageError, match="--since must be a time"):
        moment(text, "--since", NOW)


def seen(**more: Any) -> SeenEvent:
    return read_event(encode_event(make_event("c-1", 0, more.pop("outcome", "canceled"), at_us=NOW, **more)))


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (Selection(), True),
        (Selection(outcomes=frozenset({"canceled", "invalid"})), True),
        (Selection(outcomes=frozenset({"invalid"})), False),
        (Selection(symbols=frozenset({"BTC-USD"})), True),
        (Selection(symbols=frozenset({"BTC_USD"})), False),
        (Selection(order_ids=frozenset({"o-1"})), True),
        (Selection(order_ids=frozenset({"o-2"})), False),
        (Selection(command_ids=frozenset({"c-1"})), True),
        (Selection(command_ids=frozenset({"c-2"})), False),
        (Selection(finals_only=True), True),
        (Selection(since_us=NOW, until_us=NOW), True),
        (Selection(since_us=NOW + 1), False),
        (Selection(until_us=NOW - 1), False),
        (Selection(outcomes=frozenset({"canceled"}), symbols=frozenset({"ETH-USD"})), False),
    ],
)
def test_every_filter_must_hold(selection: Selection, wanted: bool) -> None:
    assert selection.wants(seen(order_id="o-1")) is wanted


def test_infos_are_no_finals() -> None:
    assert not Selection(finals_only=True).wants(seen(outcome="pending_cancel"))


@pytest.mark.parametrize(
    ("selection", "keys"),
    [
        (Selection(), ["*.*.*"]),
        (Selection(finals_only=True), ["final.*.*"]),
        (Selection(outcomes=frozenset({"report", "canceled"})), ["final.canceled.*", "info.report.*"]),
        (Selection(outcomes=frozenset({"report", "canceled"}), finals_only=True), ["final.canceled.*"]),
        (Selection(symbols=frozenset({"A.B"})), ["*.*.A_B"]),
        (Selection(symbols=frozenset({"A", "B"}), finals_only=True), ["final.*.A", "final.*.B"]),
        (Selection(symbols=frozenset({"A.B", "A_B"})), ["*.*.A_B"]),
    ],
)
def test_the_broker_is_asked_for_little_else(selection: Selection, keys: list[str]) -> None:
    assert selection.routing_keys() == keys


def test_an_event_that_is_wanted_comes_through_the_binding() -> None:
    selection = Selection(outcomes=frozenset({"canceled"}), symbols=frozenset({"A.B#C"}))
    assert selection.routing_keys() == [routing_key("canceled", True, "A.B#C")]


def test_repeats_are_known_and_the_oldest_forgotten() -> None:
    repeats = Repeats(2)
    assert [repeats.is_new(name) for name in ("a", "a", "b", "a", "c", "b", "a")] == [
        True, False, True, False, True, False, True,
    ]  # fmt: skip
