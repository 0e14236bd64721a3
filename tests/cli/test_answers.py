"""When ``cancel`` may end, and with which exit status."""

from __future__ import annotations

import pytest

from worker.cli.answers import Answers, line_of, told_of, tone_of
from worker.cli.request import body_of_options, request
from worker.wire.event import OrderState
from worker.wire.seen import SeenError, SeenEvent, SeenTimes


def answers(count: int = 2) -> Answers:
    return Answers(request("id", body_of_options("A", [f"o{n}" for n in range(count)], [], []), 10_000))


def final(index: int | None, outcome: str = "canceled", event_id: str = "", supersedes: str | None = None) -> SeenEvent:
    return SeenEvent(
        event_id or f"{index}-{outcome}", outcome, True, "id", index, order_live=False, supersedes=supersedes
    )


def test_it_ends_when_every_cancel_has_its_final() -> None:
    seen = answers()
    assert seen.take(final(1))
    assert (seen.missing, seen.is_complete, seen.all_done) == ([0], False, False)
    assert seen.take(final(0, "already_closed"))
    assert (seen.missing, seen.is_complete, seen.all_done) == ([], True, True)


def test_an_event_that_came_before_counts_once() -> None:
    seen = answers(1)
    assert seen.take(final(0))
    assert not seen.take(final(0))


def test_events_of_other_commands_are_nothing_to_it() -> None:
    seen = answers(1)
    assert not seen.take(SeenEvent("e", "canceled", True, "another", 0))
    assert not seen.take(SeenEvent("f", "worker_unavailable", False))
    assert seen.missing == [0]


@pytest.mark.parametrize(
    "outcome", ["cancel_rejected", "unknown_order", "refused", "deadline_passed", "invalid", "unresolved"]
)
def test_any_other_final_is_no_success(outcome: str) -> None:
    seen = answers(2)
    seen.take(final(0))
    seen.take(final(1, outcome))
    assert seen.is_complete
    assert not seen.all_done


def test_a_final_about_the_command_ends_all_of_it_without_success() -> None:
    seen = answers(2)
    seen.take(final(None, "unauthorized"))
    assert seen.is_complete
    assert not seen.all_done
    rows, tones = seen.rows()
    assert [row[3] for row in rows] == ["unauthorized", "unauthorized"]
    assert tones == ["bad", "bad"]


def test_the_final_that_supersedes_an_unresolved_one_counts() -> None:
    seen = answers(1)
    seen.take(final(0, "unresolved", "u"))
    seen.take(final(0, "canceled", "f", supersedes="u"))
    assert seen.all_done
    late = answers(1)
    late.take(final(0, "canceled", "f", supersedes="u"))
    late.take(final(0, "unresolved", "u"))
    assert late.all_done


def test_what_has_no_final_yet_is_shown_as_such() -> None:
    seen = answers(2)
    seen.take(final(0))
    rows, tones = seen.rows()
    assert [row[3] for row in rows] == ["canceled", "no final yet"]
    assert tones == ["good", "doubt"]


def test_a_line_says_when_what_which_order_whether_it_lives_and_why() -> None:
    event = SeenEvent(
        "e",
        "cancel_rejected",
        True,
        "id",
        3,
        order_live=True,
        symbol="BTC-USD",
        order_id="o-1",
        order=OrderState("PartiallyFilled", "0.20", "0.30", None, None),
        error=SeenError(message="reason 2"),
        late=True,
        times=SeenTimes(published="2021-09-15T04:09:42.238123Z"),
    )
    line = line_of(event)
    for word in (
        "04:09:42.238",
        "cancel_rejected",
        "#3",
        "BTC-USD",
        "o-1",
        "live yes",
        "reason 2",
        "filled 0.20",
        "late",
    ):
        assert word in line
    assert tone_of(event) == "bad"
    assert told_of(SeenEvent("e", "canceled", True, order=OrderState("Canceled", "0", "0", None, None))) == ""
