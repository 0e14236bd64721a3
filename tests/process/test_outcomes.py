"""Every outcome of contract section 3, end to end: a real process, a real broker, the venue's every play."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from tests.process.harness import COMMANDS, DEAD, Seen, Stage, cancel_of
from tests.support.timing import SECOND, eventually
from worker.simulator import Behaviour, Cancels, Script, Streams

QUICK = {
    "venue__report_timeout": 1.0,
    "venue__pending_timeout": 2.0,
    "venue__unknown_wait": 1.0,
    "venue__lookup_min": 0.1,
    "venue__lookup_max": 0.5,
}
B = Behaviour
REFUSED = B(play="error", code=1, msg="invalid request")
BUSY = B(play="error", code=429, msg="rate limit")


@dataclass(frozen=True)
class Case:
    """What the venue does with the cancels on one order in turn, and what has to come of the one command for it.

    ``told``: the outcomes of all events; ``live``, ``sent``, ``attempt`` and ``error`` those of the final;
    ``status``: the order's at the end (by FIX precedence a full one reads PendingCancel until the request ends).
    ``placed`` False: the venue knows no such order.
    """

    plays: tuple[Behaviour, ...]
    told: tuple[str, ...]
    live: bool | None
    status: str
    sent: Literal["never", "maybe", "yes"] = "yes"
    attempt: int = 1
    error: dict[str, object] | None = None
    cum: str | None = None
    placed: bool = True
    fresh_id: bool = False
    deadline: float | None = None
    report: bool | None = None
    counts: dict[str, int] = field(default_factory=dict)


def _reject(reason: int, form: str, shown: object, text: str | None = None) -> Case:
    play = B(play="reject", reason=reason, reason_form=form, text=text)  # type: ignore[arg-type]
    return Case((play,), ("cancel_rejected",), True, "New", error={"reason": shown, "text": text}, report=True)


CASES: dict[str, Case] = {
    "canceled": Case((B(),), ("pending_cancel", "canceled"), False, "Canceled", cum="0", report=True),
    "canceled without PendingCancel": Case((B(pending=False),), ("canceled",), False, "Canceled", report=True),
    "canceled slowly": Case((B(gap=1.5),), ("pending_cancel", "canceled"), False, "Canceled"),
    "canceled after fills": Case(
        (B(play="partial_fill"),), ("report", "pending_cancel", "report", "canceled"), False, "Canceled",
        cum="0.32000000",
    ),
    "canceled after fills with the cancel's id": Case(
        (B(play="partial_fill", fill_id="cancel"),), ("report", "pending_cancel", "report", "canceled"), False,
        "Canceled",
    ),
    "each report three times": Case((B(duplicates=2),), ("pending_cancel", "canceled"), False, "Canceled"),
    "reports reversed": Case((B(order="reversed"),), ("canceled", "report"), False, "Canceled"),
    "the fill wins": Case((B(play="fill_wins"),), ("pending_cancel", "already_closed", "report"), False, "Filled"),
    "the fill wins without PendingCancel": Case(
        (B(play="fill_wins", pending=False),), ("already_closed", "report"), False, "Filled", cum="0.50000000"
    ),
    "the fill wins with the cancel's id": Case(
        (B(play="fill_wins", fill_id="cancel"),), ("pending_cancel", "already_closed", "report"), False, "Filled"
    ),
    "the fill wins and no reject follows": Case(
        (B(play="fill_only"),), ("pending_cancel", "already_closed"), False, "PendingCancel"
    ),
    "only the reject of a filled order is seen": Case(
        (B(play="fill_wins", pending=False, lose=("Trade",)),), ("already_closed",), False, "Filled",
        error={"reason": 0},
    ),
    "expired": Case((B(play="closed", closed_by="Expired"),), ("already_closed", "report"), False, "Expired"),
    "canceled by another hand": Case(
        (B(play="canceled_by_other"),), ("already_closed", "report"), False, "Canceled"
    ),
    "reason 2 as a code": _reject(2, "code", 2, "refused by the venue"),
    "reason 2 in quotes": _reject(2, "text", "2"),
    "reason 2 as a word": _reject(2, "word", "BrokerOption"),
    "reason 5 as a code": _reject(5, "code", 5),
    "reason 5 as a word": _reject(5, "word", "OrigOrdModTime"),
    "reason 99 as a code": _reject(99, "code", 99),
    "reason 99 as a word": _reject(99, "word", "Other", "market is closed"),
    "reason 0 though the order works is looked up": Case(
        (B(play="reject", reason=0),), ("report", "cancel_rejected"), True, "New", error={"reason": 0}
    ),
    "reason 1 though the order works is looked up": Case(
        (B(play="reject", reason=1),), ("report", "cancel_rejected"), True, "New", error={"reason": 1}
    ),
    "reason 1, OrdStatus Rejected, though the order works": Case(
        (B(play="unknown"),), ("report", "cancel_rejected"), True, "New", error={"reason": 1}
    ),
    "rejected after a PendingCancel": Case(
        (B(play="reject", reason=2, pending=True),), ("pending_cancel", "cancel_rejected"), True, "New"
    ),
    "rejected as a message": Case((B(play="message_reject"),), ("report", "cancel_rejected"), True, "New"),
    "unknown order": Case(
        (), ("report", "unknown_order"), None, "", error={"reason": 1}, placed=False, report=True
    ),
    "refused alone in its frame": Case(
        (REFUSED, REFUSED), ("doubtful", "refused"), True, "New",
        error={"code": 1, "msg": "invalid request"},
    ),
    "an error frame of another code is doubt": Case(
        (BUSY, B(pending=False)), ("doubtful", "canceled"), False, "Canceled", attempt=2
    ),
    "silence is doubt, and the replay tells": Case(
        (B(play="silent", pending=False),), ("doubtful", "canceled"), False, "Canceled", report=True
    ),
    "ignored, looked up, sent again": Case(
        (B(play="ignore"), B(pending=False)), ("doubtful", "canceled"), False, "Canceled", attempt=2
    ),
    "ignored twice": Case(
        (B(play="ignore"), B(play="ignore"), B(pending=False)), ("doubtful", "doubtful", "canceled"), False,
        "Canceled", attempt=3,
    ),
    "a PendingCancel for ever, then the order is filled": Case(
        (B(steps=("PendingCancel", "Fill @3.2")),), ("pending_cancel", "doubtful", "already_closed"), False,
        "PendingCancel",
    ),
    "late: reason 6 is no outcome": Case(
        (B(pending=False, delay=2.5),), ("doubtful", "report", "canceled"), False, "Canceled", attempt=2
    ),
    "reason 3, the replace succeeds": Case(
        (B(play="replace_running", ends="Replaced"), B(pending=False)), ("canceled",), False, "Canceled", attempt=2,
        fresh_id=True,
    ),
    "reason 3, the replace is refused": Case(
        (B(play="replace_running", ends="ReplaceRejected"), B(pending=False)), ("canceled",), False, "Canceled",
        attempt=2, fresh_id=True,
    ),
    "reason 3, the order is filled": Case(
        (B(play="replace_running", ends="Fill"),), ("already_closed",), False, "PendingReplace"
    ),
    "reason 3, another cancel is carried out": Case(
        (B(play="cancel_running"),), ("already_closed",), False, "Canceled"
    ),
    "the deadline passed before it came": Case(
        (B(),), ("deadline_passed",), None, "New", sent="never", attempt=0, deadline=-5.0,
    ),
    "the deadline passed while it was in doubt": Case(
        (B(play="ignore"),), ("doubtful", "deadline_passed"), True, "New", sent="yes", deadline=0.9
    ),
    "a deadline ahead": Case((B(pending=False),), ("canceled",), False, "Canceled", deadline=3600.0),
}  # fmt: skip

COMPLETE = frozenset(name for name in CASES if "reason 3" not in name and not name.startswith("silence"))
"""Where all events are listed; the running requests of reason 3 may be told in more than one way, and of what the venue
tells nobody live the replay for another cancel may tell before there is any doubt."""


@pytest.mark.slow
async def test_every_outcome(stage: Stage) -> None:
    """All cases at once through one worker: no case may disturb another."""
    await stage.open()
    orders = {
        name: stage.venue.place(behaviour=case.plays).order_id if case.placed else str(uuid.uuid4())
        for name, case in CASES.items()
    }
    await stage.start(**QUICK)
    commands: dict[str, str] = {}
    for name, case in CASES.items():
        order_id = orders[name]
        headers: dict[str, Any] = {}
        if case.deadline is not None:
            headers["deadline"] = (datetime.now(UTC) + timedelta(seconds=case.deadline)).isoformat()
        commands[name] = await stage.publish([cancel_of(order_id)], headers=headers or None)
        await stage.venue.until(lambda o=order_id, c=case: c.attempt == 0 or stage.venue.sends_of(o), 10)  # type: ignore[misc]
    await stage.settled(30 * SECOND)
    wrong = []
    for name, case in CASES.items():

        def complete(name: str = name, case: Case = case) -> bool:
            return name not in COMPLETE or len(stage.events.of(commands[name], 0)) >= len(case.told)

        await eventually(complete, 5 * SECOND)
        problem = _problem(stage, name, case, commands[name], orders[name])
        if problem:
            wrong.append(f"{name}: {problem}")
    assert not wrong, "\n".join(wrong)
    stage.check_truth()
    assert stage.check_no_blind_resend() >= sum(max(0, case.attempt - 1) for case in CASES.values())
    assert await stage.broker.depth(DEAD) == 0
    await stage.end_all()


def _problem(stage: Stage, name: str, case: Case, command_id: str, order_id: str) -> str | None:
    events = stage.events.of(command_id, 0)
    outcomes = tuple(event.outcome for event in events)
    finals = [event for event in events if event.final]
    if len(finals) != 1:
        return f"{len(finals)} finals: {outcomes}"
    if outcomes != case.told if name in COMPLETE else finals[0].outcome != case.told[-1]:
        return f"told {outcomes}"
    final = finals[0].body
    shown = {"order_live": case.live, "sent": case.sent, "attempt": case.attempt, "late": False}
    differing = {key: final[key] for key, value in shown.items() if final[key] != value}
    if differing:
        return f"{differing} in {final}"
    if case.error is not None:
        error = final["error"] or {}
        if any(error.get(key) != value for key, value in case.error.items()) or not error.get("message"):
            return f"error {error}"
    elif final["outcome"] == "canceled" and final["error"] is not None:
        return f"error {final['error']}"
    if case.report is not None and (final["report"] is not None) != case.report:
        return f"report {final['report']}"
    late = [event.outcome for event in events if event.body["late"]]
    if late != [event.outcome for event in events[events.index(finals[0]) + 1 :]]:
        return f"late {late}"
    if any(event.body["order_live"] is not None for event in events if event.outcome == "doubtful"):
        return "a doubtful event knows the order"
    sends = stage.venue.sends_of(order_id)
    if len(sends) != case.attempt:
        return f"{len(sends)} sends"
    ids = {seen.cl_ord_id for seen in sends}
    if len(ids) != (min(2, case.attempt) if case.fresh_id else min(1, case.attempt)):
        return f"ClOrdIDs {ids}"
    if ids and final["cl_ord_id"] != sends[-1].cl_ord_id:
        return f"cl_ord_id {final['cl_ord_id']}, sent {ids}"
    if case.placed:
        truth = stage.venue.truth()[order_id]
        if truth.status != case.status:
            return f"truth {truth}"
        if case.cum is not None and (final["order"]["cum_qty"], truth.cum_qty) != (case.cum, case.cum):
            return f"order {final['order']}, truth {truth}"
    return None


@pytest.mark.parametrize("spelled", ["NONE", "empty", "sent"])
async def test_an_unknown_order_is_believed_after_look_ups_over_unknown_wait(stage: Stage, spelled: str) -> None:
    await stage.open(Script(cancels=Cancels(unknown_id=spelled)))  # type: ignore[arg-type]
    await stage.start(**QUICK)
    command_id = await stage.publish([cancel_of(str(uuid.uuid4()))])
    by_client = await stage.publish([cancel_of(OrigClOrdID="no-such-order")])
    await stage.settled()
    for one in (command_id, by_client):
        (final,) = [e for e in stage.events.of(one) if e.final]
        assert (final.outcome, final.body["order_live"], final.body["sent"]) == ("unknown_order", None, "yes")
        (reject,) = [e for e in stage.events.of(one) if e.outcome == "report"]
        assert _seconds(final) - _seconds(reject) >= 1.0
    asked = [f for f in stage.venue.received if f.type == "subscribe" and f.message["streams"][0]["name"] == "Order"]
    assert len(asked) >= 4


def _seconds(event: Seen) -> float:
    return datetime.fromisoformat(event.body["times"]["published"]).timestamp()


async def test_an_order_that_appears_late_is_not_unknown(stage: Stage) -> None:
    """Reason 1 may only mean that the order has just been sent (protocol 5.4)."""
    await stage.open()
    await stage.start(**QUICK)
    order_id = stage.venue.place_later(0.5)
    command_id = await stage.publish([cancel_of(order_id)])
    await stage.settled()
    final = stage.check_finals(once=True)[command_id, 0]
    assert final.outcome in ("cancel_rejected", "canceled")
    assert final.body["order_live"] is stage.venue.truth()[order_id].open
    stage.check_truth()


async def test_an_error_frame_for_a_batch_fails_nobody(stage: Stage) -> None:
    """All of the frame is unknown, none failed; the bad one alone is refused in the end."""
    await stage.open()
    await stage.start(**QUICK)
    orders = stage.place(9, behaviour=B(pending=False))
    orders.insert(4, stage.venue.place(behaviour=REFUSED).order_id)
    command_id = await stage.publish([cancel_of(order_id) for order_id in orders])
    await stage.settled()
    finals = stage.check_finals(once=True)
    wanted = ["canceled"] * 4 + ["refused"] + ["canceled"] * 5
    assert [finals[command_id, i].outcome for i in range(10)] == wanted
    assert all(stage.events.outcomes(command_id, i).count("doubtful") == 1 for i in range(4))
    assert [s.batch for s in stage.venue.sends_of(orders[4])] == [10, 1]
    stage.check_no_blind_resend()
    stage.check_truth()


async def test_an_error_frame_without_reqid_fails_nobody(stage: Stage) -> None:
    await stage.open()
    await stage.start(**QUICK)
    orders = stage.place(5, behaviour=(B(play="error", error_reqid="absent"), B(pending=False)))
    command_id = await stage.publish([cancel_of(order_id) for order_id in orders])
    await stage.settled()
    finals = stage.check_finals(once=True)
    assert [finals[command_id, i].outcome for i in range(5)] == ["canceled"] * 5
    stage.check_no_blind_resend()


async def test_who_may_not_is_unauthorized_and_nothing_is_sent(stage: Stage) -> None:
    await stage.open()
    await stage.start(authorization__cancel_users=["risk"], authorization__kill_users=["nobody-else"])
    user = stage.broker.url.split("//")[1].split(":")[0]
    orders = stage.place(3)
    named = await stage.publish([cancel_of(orders[0])], user_id=user)
    nameless = await stage.publish([cancel_of(orders[1]), cancel_of(orders[2])])
    killing = await stage.publish([cancel_of(orders[2])], lane="kill", user_id=user)
    await stage.settled()
    letters = await stage.dead_letters(3)
    assert {letter.message_id for letter in letters} == {named, nameless, killing}
    for command_id in (named, nameless, killing):
        (event,) = stage.events.of(command_id)
        assert (event.outcome, event.body["index"], event.body["sent"]) == ("unauthorized", None, "never")
        assert event.body["error"]["field"] == "user_id" and event.body["error"]["rule"]
        assert event.message.routing_key == "final.unauthorized._"
    assert stage.venue.cancels == []
    assert all(truth.open for truth in stage.venue.truth().values())


async def test_those_who_may_do(stage: Stage) -> None:
    await stage.open()
    user = stage.broker.url.split("//")[1].split(":")[0]
    await stage.start(authorization__cancel_users=["risk", user])
    command_id = await stage.publish([cancel_of(o) for o in stage.place(2)], user_id=user)
    await stage.settled()
    assert stage.check_finals(once=True)[command_id, 1].body["user_id"] == user


@pytest.mark.slow
async def test_unresolved_goes_to_the_dead_letters_and_the_truth_supersedes_it(stage: Stage) -> None:
    """An operator requeues the dead letter once the venue has come to an end (contract 3)."""
    await stage.open()
    await stage.start(**QUICK | {"venue__doubt_window": 3.0, "venue__max_resends": 3})
    # It arrives at once and is carried out much later: every further send is answered by reason 6.
    order = stage.venue.place(behaviour=B(pending=False, delay=8.0))
    neighbour = stage.place(1)[0]
    command_id = await stage.publish([cancel_of(order.order_id), cancel_of(neighbour)], headers={"reason": "limit"})
    await stage.settled()
    unresolved = stage.check_finals(once=True)[command_id, 0]
    assert unresolved.outcome == "unresolved"
    assert (unresolved.body["sent"], unresolved.body["supersedes"]) == ("yes", None)
    assert unresolved.body["error"]["message"]
    assert stage.events.outcomes(command_id, 1)[-1] == "canceled"
    (letter,) = await stage.dead_letters(1)
    assert letter.message_id == command_id and letter.headers["reason"] == "limit"
    assert "x-death" in letter.headers

    await eventually(lambda: not stage.venue.truth()[order.order_id].open, 15 * SECOND)
    sent = len(stage.venue.cancels)
    await stage.publish_body(
        letter.body, message_id=letter.message_id, headers=letter.headers, content_type=letter.content_type
    )
    await eventually(lambda: len([e for e in stage.events.of(command_id) if e.final]) >= 4, 15 * SECOND)
    await stage.empty()
    finals = stage.check_finals(once=False)
    final = finals[command_id, 0]
    assert final.outcome == "canceled"
    assert final.body["supersedes"] == unresolved.event_id
    assert finals[command_id, 1].body["supersedes"] is not None
    assert len(stage.venue.cancels) == sent, "the truth was found: nothing needed sending"
    assert await stage.broker.depth(DEAD) == 0
    stage.check_truth()
    stage.check_no_blind_resend()


async def test_a_look_up_that_no_frame_ends_proves_nothing(stage: Stage) -> None:
    """A venue that answers no snapshot: silence is no outcome, whatever the timers say."""
    await stage.open(Script(streams=Streams(snapshot="never")))
    await stage.start(**QUICK | {"venue__doubt_window": 4.0, "venue__snapshot_timeout": 0.3})
    lost = await stage.publish([cancel_of(str(uuid.uuid4()))])
    ignored = await stage.publish([cancel_of(stage.venue.place(behaviour=B(play="ignore")).order_id)])
    fine = await stage.publish([cancel_of(stage.place(1)[0])])
    await stage.settled(30 * SECOND)
    finals = stage.check_finals(once=True)
    assert finals[fine, 0].outcome == "canceled"
    assert finals[lost, 0].outcome == "unresolved"
    assert finals[ignored, 0].outcome == "unresolved"
    assert max(stage.sends().values()) == 1, "nothing was seen open, so nothing may be sent again"
    letters = await stage.dead_letters(2)
    assert {letter.message_id for letter in letters} == {lost, ignored}


async def test_a_report_comes_before_an_order_record(stage: Stage) -> None:
    """The order closes after a look-up read its reports and before it reads the order (contract 4.2)."""
    await stage.open(Script(streams=Streams(snapshot_delay=1.0)))
    orders = stage.place(3, behaviour=B(pending=False, lose=("*",), delay=2.5))
    await stage.start(**QUICK)
    command_id = await stage.publish([cancel_of(order_id) for order_id in orders])
    await stage.settled()
    finals = stage.check_finals(once=True)
    said = {entry.order_id: entry.record for entry in stage.venue.book.history}
    for index, order_id in enumerate(orders):
        final = finals[command_id, index]
        assert final.outcome == "canceled"
        assert final.report_bytes == said[order_id]
    assert max(stage.sends().values()) == 1


async def test_the_deadline_is_kept_at_the_moment_of_sending(stage: Stage) -> None:
    """Commands that wait behind a rate limit: none is sent after its deadline, those of before are."""
    await stage.open()
    await stage.start(venue__rate_limit=20.0)
    deadline = datetime.now(UTC) + timedelta(seconds=2)
    items = [cancel_of(o) for o in stage.place(120)]
    for n in range(0, 120, 10):
        await stage.publish(items[n : n + 10], headers={"deadline": deadline.isoformat()})
    await stage.settled(30 * SECOND)
    finals = stage.check_finals(once=True).values()
    passed = [e for e in finals if e.outcome == "deadline_passed"]
    assert passed and len(passed) < 120
    assert all(e.body["sent"] == "never" and e.body["order_live"] is None for e in passed)
    at = deadline.timestamp() * 1e6
    assert all(seen.utc_us <= at + 0.5e6 for seen in stage.venue.cancels)
    assert len(stage.venue.cancels) == 120 - len(passed)
    assert await stage.broker.depth(DEAD) == 0 and await stage.broker.depth(COMMANDS) == 0
