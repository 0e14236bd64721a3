"""The demo's verdict finds every way in which it may not add up."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from worker.demo.kinds import KINDS, Ask, Due, asks, dues
from worker.demo.verdict import Books, Seen, Verdict, verdict
from worker.simulator import Truth
from worker.wire.event import OrderState
from worker.wire.seen import SeenEvent

CLOSED = {"canceled": "Canceled", "already_closed": "Filled"}


class World:
    """A run that adds up, to be spoilt."""

    def __init__(self, count: int = 1) -> None:
        self.asked = asks(count, seed=1)
        self.finals = {(ask.command_id, due.index): final(ask, due) for ask, due in dues(self.asked)}
        self.truths = {
            due.order_id: truth(due) for ask, due in dues(self.asked) if due.order_id and due.outcome != "unknown_order"
        }
        never = ("invalid", "deadline_passed")
        self.sent = {due.order_id: 1 for _, due in dues(self.asked) if due.order_id and due.outcome not in never}
        self.dead = [ask.command_id for ask in self.asked if ask.dead]
        self.left = {"cancel.commands": 0}
        self.exit_status: int | None = 0
        self.more: list[SeenEvent] = []

    def of(self, kind: str) -> tuple[str, int | None]:
        """Command and index of the first final of a kind."""
        return next((ask.command_id, due.index) for ask, due in dues(self.asked) if ask.kind == kind)

    def change(self, kind: str, **changes: object) -> None:
        self.finals[self.of(kind)] = msgspec.structs.replace(self.finals[self.of(kind)], **changes)

    def change_truth(self, kind: str, **changes: object) -> None:
        order_id = self.finals[self.of(kind)].order_id
        assert order_id is not None
        self.truths[order_id] = msgspec.convert(
            {**{name: getattr(self.truths[order_id], name) for name in self.truths[order_id].__slots__}, **changes},
            Truth,
        )

    def verdict(self) -> Verdict:
        seen = Seen()
        for event in (*self.finals.values(), *self.more):
            seen.take(event)
        return verdict(self.asked, seen, Books(self.truths, self.sent, self.dead, self.left, self.exit_status))


def final(ask: Ask, due: Due) -> SeenEvent:
    never = due.outcome in ("invalid", "deadline_passed")
    order = OrderState(None, "0.1", None, None, None) if due.outcome == "canceled" else None
    return SeenEvent(
        f"{ask.command_id}/{due.index}", due.outcome, True, ask.command_id, due.index, "never" if never else "yes",
        due.order_live, cl_ord_id=f"cancel-{due.order_id}", order_id=due.order_id, order=order,
    )  # fmt: skip


def truth(due: Due) -> Truth:
    status = CLOSED.get(due.outcome, "New")
    by = f"cancel-{due.order_id}" if due.outcome == "canceled" else None
    return Truth(due.order_id or "", "BTC-USD", status, "0.10", "0", by, {})


def test_a_run_as_expected_adds_up() -> None:
    found = World(3).verdict()
    assert found.problems == []
    assert found.adds_up
    assert found.total.commands == 3 * (len(KINDS) - 1) + 2
    assert found.total.due == found.total.seen == found.total.right == found.total.borne_out


def test_the_same_seed_asks_for_the_same() -> None:
    assert asks(2, 5) == asks(2, 5)
    assert asks(2, 5) != asks(2, 6)


def lose_final(world: World) -> None:
    del world.finals[world.of("accepted")]


def second_final(world: World) -> None:
    event = world.finals[world.of("accepted")]
    world.more.append(msgspec.structs.replace(event, event_id="other", outcome="already_closed"))


def unasked(world: World) -> None:
    world.more.append(SeenEvent("x", "canceled", True, "nobody's", 0))


def dead_missing(world: World) -> None:
    world.dead.pop()


def dead_twice(world: World) -> None:
    world.dead.append(world.dead[0])


def dead_unexpected(world: World) -> None:
    world.dead.append(world.asked[0].command_id)


def no_such_order(world: World) -> None:
    order_id = world.finals[world.of("rejected")].order_id
    assert order_id is not None
    del world.truths[order_id]


def sent_although_late(world: World) -> None:
    world.sent[world.finals[world.of("deadline passed")].order_id or ""] = 1


def refused_without_asking(world: World) -> None:
    world.sent[world.finals[world.of("error frame")].order_id or ""] = 0


SPOILT: dict[str, tuple[Callable[[World], None], str]] = {
    "a final is missing": (lose_final, "no final for cancel 0"),
    "two finals": (second_final, "two finals for cancel 0"),
    "a final of nobody's": (unasked, "nobody asked for"),
    "another outcome": (lambda world: world.change("rejected", outcome="refused"), "expected cancel_rejected"),
    "another order_live": (lambda world: world.change("too late", order_live=True), "order_live True; expected"),
    "canceled, but it works": (lambda world: world.change_truth("accepted", status="New"), "is New"),
    "canceled, but by another": (lambda world: world.change_truth("accepted", canceled_by="x"), "canceled, but"),
    "closed, but it works": (lambda world: world.change_truth("too late", status="New"), "already_closed, but"),
    "rejected, but closed": (lambda world: world.change_truth("rejected", status="Canceled"), "cancel_rejected, but"),
    "no such order": (no_such_order, "the venue has no such order"),
    "filled otherwise": (lambda world: world.change_truth("partly filled", cum_qty="0.2"), "filled 0.1, but"),
    "sent after its deadline": (sent_although_late, "deadline_passed, but"),
    "refused, and never sent": (refused_without_asking, "refused, but"),
    "a dead letter is missing": (dead_missing, "is not among the dead letters"),
    "a dead letter stands twice": (dead_twice, "is among the dead letters"),
    "a dead letter too many": (dead_unexpected, "is among the dead letters"),
    "a queue that is not empty": (lambda world: world.left.update(q=3), "3 messages are left in queue q"),
    "the worker failed": (lambda world: setattr(world, "exit_status", 1), "the worker ended with exit status 1"),
    "the worker was killed": (lambda world: setattr(world, "exit_status", None), "ended with exit status None"),
}


@pytest.mark.parametrize(("spoil", "told"), SPOILT.values(), ids=SPOILT)
def test_whatever_does_not_add_up_is_told(spoil: Callable[[World], None], told: str) -> None:
    world = World()
    spoil(world)
    found = world.verdict()
    assert not found.adds_up
    assert any(told in problem for problem in found.problems), found.problems


def test_a_deadline_that_passed_after_a_redelivery_may_have_been_looked_up() -> None:
    world = World()
    world.change("deadline passed", sent="maybe", order_live=True)
    assert world.verdict().adds_up
    world.change("deadline passed", sent="never", order_live=True)
    assert not world.verdict().adds_up


def test_the_same_event_again_is_counted_and_harmless() -> None:
    world = World()
    world.more.append(world.finals[world.of("sent twice")])
    found = world.verdict()
    assert found.adds_up
    assert found.repeated == 1


def test_an_unresolved_and_the_final_that_supersedes_it_are_no_contradiction() -> None:
    for order in (1, -1):
        seen = Seen()
        events = [
            SeenEvent("u", "unresolved", True, "c", 0),
            SeenEvent("f", "canceled", True, "c", 0, supersedes="u"),
        ]
        for event in events[::order]:
            seen.take(event)
        assert seen.contradictions == []
        assert seen.finals["c", 0].outcome == "canceled"
