"""The verdict on sequences of events: every rule, kept and broken."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.events import ledger, make_event
from worker import audit
from worker.audit import Audit, Verdict
from worker.core.intake import CONFLICT_RULE
from worker.wire.event import CodeError, Event, InputError, OrderState, encode_event, final_id, unresolved_id
from worker.wire.seen import read_event

T = 1_700_000_000_000_000
SECOND = 1_000_000


def judged(events: Iterable[Event], since_us: int | None = None, until_us: int | None = None) -> Verdict:
    """The verdict on these events, as they stand on the wire."""
    auditor = Audit(since_us, until_us)
    for event in events:
        auditor.take(read_event(encode_event(event)))
    return auditor.verdict()


def kinds(verdict: Verdict) -> list[str]:
    return [problem.kind for problem in verdict.problems]


def canceled(index: int = 0, command_id: str = "c-1", **more: Any) -> Event:
    return make_event(command_id, index, "canceled", **more)


def unresolved(index: int = 0, **more: Any) -> Event:
    return make_event("c-1", index, "unresolved", **more)


ORDER = OrderState("Canceled", "0.1", "0", "61250.00", None)
CONFLICT = InputError("message_id", CONFLICT_RULE, "another")
SWEPT: dict[str, Any] = {"of_sweep": True, "lane": "kill"}


def mass(outcome: str = "mass_canceled", **counts: Any) -> Event:
    return make_event("m-1", 0, outcome, mass=ledger(**counts), lane="kill")


def swept(index: int, outcome: str = "canceled", **more: Any) -> Event:
    return make_event("m-1", index, outcome, order_id=f"o-{index}", **SWEPT, **more)


CLEAN: dict[str, list[Event]] = {
    "nothing": [],
    "one final": [canceled()],
    "a final of each cancel, in any order": [canceled(2), canceled(0), canceled(1)],
    "infos before and after": [make_event("c-1", 0, "pending_cancel"), canceled(), make_event("c-1", 0, "report")],
    "the same final again": [canceled(), canceled(), canceled()],
    "two commands": [canceled(), canceled(command_id="c-2")],
    "unresolved alone": [unresolved()],
    "unresolved and what supersedes it": [unresolved(), canceled(supersedes=unresolved_id("c-1", 0))],
    "a final that supersedes what never was": [canceled(supersedes=unresolved_id("c-1", 0))],
    "a final first confirmed, then superseding": [
        canceled(), unresolved(), canceled(supersedes=unresolved_id("c-1", 0)),
    ],
    "invalid as a whole": [make_event("c-1", None, "invalid")],
    "invalid as a whole without an id": [make_event(None, None, "invalid"), make_event(None, None, "invalid")],
    "an end of the whole for all cancels": [make_event("c-1", 1, "doubtful"), make_event("c-1", None, "unauthorized")],
    "unauthorized, then carried out for an operator": [
        make_event("c-1", None, "unauthorized"), canceled(supersedes=unresolved_id("c-1", 0)),
    ],
    "another body under the same id": [make_event("c-1", None, "invalid", error=CONFLICT), canceled()],
    "only another body's": [make_event("c-1", None, "invalid", error=CONFLICT)],
    "the worker about itself": [make_event(None, None, "worker_unavailable", symbol=None)],
    "a mass cancel": [
        make_event("m-1", 0, "mass_progress", mass=ledger(matched=1, unsent=1)),
        swept(1), swept(2, "already_closed"), mass(matched=2, canceled=1, already_closed=1),
    ],
    "a mass cancel that matched nothing": [mass()],
    "a mass cancel that left some": [
        swept(1, "cancel_rejected"), swept(2, "deadline_passed", sent="never"), swept(3, "unknown_order"),
        mass("mass_incomplete", matched=3, rejected=1, unsent=1, unknown=1, remaining=["o-1", "o-2", "o-3"]),
    ],
    "a mass cancel begun anew": [swept(1), swept(2), swept(1), mass(matched=1, canceled=1, restarted=True)],
    "a mass cancel ended by a person": [make_event("m-1", 0, "mass_progress"), make_event("m-1", 0, "unresolved")],
    "a mass cancel that was not allowed": [make_event("m-1", None, "unauthorized")],
}  # fmt: skip


@pytest.mark.parametrize("events", CLEAN.values(), ids=CLEAN)
def test_what_the_contract_allows_is_clean(events: list[Event]) -> None:
    verdict = judged(events)
    assert [str(problem) for problem in verdict.problems] == []
    assert verdict.is_clean
    assert verdict.events == len(events)


BROKEN: dict[str, tuple[list[Event], list[str]]] = {
    "only infos": ([make_event("c-1", 0, "pending_cancel")], ["no final"]),
    "one cancel without": ([canceled(0), make_event("c-1", 1, "doubtful")], ["no final"]),
    "a hole": ([canceled(0), canceled(3)], ["gap", "gap"]),
    "a hole before an info": ([make_event("c-1", 1, "report")], ["gap", "no final"]),
    "a last one unresolved, a first missing": ([unresolved(1)], ["gap"]),
    "two outcomes under one id": ([canceled(), make_event("c-1", 0, "already_closed")], ["contradiction"]),
    "one outcome, live and not": ([canceled(order_live=False), canceled(order_live=None)], ["contradiction"]),
    "one outcome, two orders": ([canceled(), canceled(order=ORDER)], ["contradiction"]),
    "one outcome of the whole, told apart": (
        [make_event("c-1", None, "invalid"), make_event("c-1", None, "invalid", order_live=True)],
        ["contradiction"],
    ),
    "an id that is not made of command and index": ([canceled(event_id="mine")], ["wrong id"]),
    "another cancel's id": ([canceled(0), canceled(1, event_id=final_id("c-1", 0))], ["wrong id"]),
    "two finals under two ids": ([canceled(), canceled(event_id="mine")], ["wrong id", "second final"]),
    "a final besides unresolved": ([canceled(), unresolved()], ["second final"]),
    "a final that supersedes something else": ([unresolved(), canceled(supersedes="other")], ["second final"]),
    "ended as a whole and one by one": ([make_event("c-1", None, "invalid"), canceled()], ["second final"]),
    "another body's end only, and an info": (
        [make_event("c-1", None, "invalid", error=CONFLICT), make_event("c-1", 0, "report")],
        ["no final"],
    ),
    "a mass cancel without an end": ([make_event("m-1", 0, "mass_progress"), swept(1)], ["no final"]),
    "orders of a mass cancel without one": ([swept(1)], ["no final"]),
    "a ledger that does not add up": ([swept(1), mass(matched=2, canceled=1)], ["ledger"]),
    "a ledger that counts too many": ([swept(1), mass(matched=2, canceled=2)], ["ledger"]),
    "a ledger that counts too few": ([swept(1), swept(2), mass(matched=1, canceled=1)], ["ledger"]),
    "a ledger begun anew that counts too many": ([swept(1), mass(matched=2, canceled=2, restarted=True)], ["ledger"]),
    "a ledger that counts otherwise": ([swept(1), mass(matched=1, rejected=1)], ["ledger", "ledger"]),
    "flat with survivors": ([swept(1), mass(matched=1, canceled=1, remaining=["o-2"])], ["ledger"]),
    "an order with two ends": ([swept(1), swept(1, "cancel_rejected"), mass(matched=1, canceled=1)], ["contradiction"]),
}  # fmt: skip


@pytest.mark.parametrize(("events", "expected"), BROKEN.values(), ids=BROKEN)
def test_what_it_forbids_is_told(events: list[Event], expected: list[str]) -> None:
    verdict = judged(events)
    assert sorted(kinds(verdict)) == sorted(expected), [str(problem) for problem in verdict.problems]
    assert not verdict.is_clean
    assert sum(verdict.counts.values()) == len(expected)


def test_a_report_that_differs_is_told() -> None:
    import msgspec

    one, other = (canceled(report=msgspec.Raw(b'{"ExecID": "%d"}' % n)) for n in range(2))
    assert judged([one, one]).is_clean
    assert kinds(judged([one, other])) == ["contradiction"]


def test_a_message_that_is_no_event_is_told() -> None:
    auditor = Audit()
    auditor.unreadable(7, "not an event: it is empty")
    verdict = auditor.verdict()
    assert [str(problem) for problem in verdict.problems] == [
        "not an event: the message at offset 7: not an event: it is empty"
    ]


def test_what_is_counted() -> None:
    verdict = judged([
        canceled(0), canceled(0), unresolved(1), make_event("c-2", None, "invalid"),
        swept(1), mass(matched=1, canceled=1),
    ])  # fmt: skip
    assert (verdict.events, verdict.repeated, verdict.commands, verdict.cancels) == (6, 1, 3, 4)
    assert (verdict.mass_cancels, verdict.open) == (1, 1)
    assert dict(verdict.outcomes) == {"canceled": 2, "unresolved": 1, "invalid": 1}


def test_of_a_command_begun_before_the_reading_nothing_is_missed() -> None:
    events = [make_event("c-1", 3, "doubtful", at_us=T), make_event("m-1", 0, "mass_progress", at_us=T)]
    verdict = judged(events, since_us=T + 1)
    assert verdict.is_clean
    assert (verdict.commands, verdict.partial) == (2, 2)
    assert kinds(judged(events, since_us=T)) == ["gap", "gap", "gap", "no final", "no final"]
    contradiction = [canceled(at_us=T), make_event("c-1", 0, "already_closed", at_us=T)]
    assert kinds(judged(contradiction, since_us=T + 1)) == ["contradiction"]


def test_a_command_begun_after_the_end_is_not_judged() -> None:
    late = [make_event("c-2", 0, "doubtful", at_us=T + SECOND), canceled(at_us=T + SECOND, event_id="wrong")]
    verdict = judged([canceled(command_id="c-0", at_us=T), *late], until_us=T + 1)
    assert verdict.is_clean
    assert (verdict.commands, verdict.later) == (1, 2)
    # Its final comes after the end, and is its final all the same.
    slow = [make_event("c-1", 0, "doubtful", at_us=T), canceled(at_us=T + SECOND)]
    assert judged(slow, until_us=T + 1).is_clean
    assert kinds(judged(slow[:1], until_us=T + 1)) == ["no final"]


def test_all_problems_are_counted_and_a_thousand_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "KEPT", 2)
    verdict = judged([make_event(f"c-{number}", 0, "doubtful") for number in range(5)])
    assert verdict.counts == {"no final": 5}
    assert len(verdict.problems) == 2


def test_the_rule_of_another_body_is_the_worker_s() -> None:
    assert audit.OTHER_BODY == CONFLICT_RULE


ALL = [event for events in CLEAN.values() for event in events]


@given(st.lists(st.sampled_from(list(CLEAN)), unique=True), st.randoms(use_true_random=False))
def test_the_sequence_and_repetition_of_events_change_nothing(names: list[str], random: Any) -> None:
    """A consumer may see the commands in any interleaving; each command's own events keep their meaning."""
    events = []
    for number, name in enumerate(names):
        for event in CLEAN[name]:
            if event.command_id is not None and event.index is not None and event.command_id == "c-1":
                made = unresolved_id if event.outcome == "unresolved" else final_id
                command_id = f"c-1-{number}"
                supersedes = event.supersedes and unresolved_id(command_id, event.index)
                event_id = made(command_id, event.index) if event.final else event.event_id
                events.append(_with(event, command_id=command_id, event_id=event_id, supersedes=supersedes))
    random.shuffle(events)
    again = [*events, *random.sample(events, len(events) // 2)]
    assert [str(problem) for problem in judged(again).problems] == [str(p) for p in judged(events).problems]


def _with(event: Event, **values: Any) -> Event:
    import msgspec

    return msgspec.structs.replace(event, **values)


def test_an_error_of_any_form_is_read() -> None:
    assert judged([unresolved(error=CodeError("unresolved", None, "no word"))]).is_clean
