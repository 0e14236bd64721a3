"""What holds in any order of things: one outcome per history, and invariants I1, I2, I5, I6, I7, I11 (faults 1)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.core.driver import LANES, Driver, confirmed
from tests.core.payloads import Fields, item, order, report
from worker.core import reconcile
from worker.core.effects import Effect, SendText, Settle
from worker.core.facts import ConsumerUp, Delivery, PublisherUp
from worker.wire import event as wire
from worker.wire.command import Lane

# -- one outcome per history, in whatever order and however often its reports come


class History(NamedTuple):
    """What the venue did to one order, as its reports, and what its list of orders says in the end."""

    name: str
    reports: list[Fields]
    orders: list[Fields]
    outcome: str


def y(exec_type: str, **fields: Any) -> Fields:
    return report(exec_type, ClOrdID="y-1", **fields)


def in_turn(*reports: Fields) -> list[Fields]:
    """The reports with Timestamps a millisecond apart."""
    return [{**each, "Timestamp": f"2026-03-09T14:09:12.{n:03d}Z"} for n, each in enumerate(reports, 1)]


FILL = {"OrdStatus": "Filled", "LeavesQty": "0"}
HISTORIES = [
    History("canceled", in_turn(y("PendingCancel"), y("Canceled")), [order("Canceled", ClOrdID="y-1")], "canceled"),
    History(
        "partly filled, then canceled",
        in_turn(report("Trade"), y("PendingCancel"), y("Trade", OrdStatus="PendingCancel"), y("Canceled")),
        [order("Canceled", ClOrdID="y-1")],
        "canceled",
    ),
    History(
        "the fill wins",
        in_turn(
            y("PendingCancel"),
            y("Trade", OrdStatus="PendingCancel", LeavesQty="0"),
            y("CancelRejected", OrdStatus="Filled", CxlRejReason=0),
        ),
        [order("Filled")],
        "already_closed",
    ),
    History(
        "the fill wins, in the other form",
        in_turn(report("Trade", **FILL), y("CancelRejected", OrdStatus="Filled", CxlRejReason="TooLateToCancel")),
        [order("Filled")],
        "already_closed",
    ),
    History(
        "rejected",
        in_turn(y("PendingCancel"), y("CancelRejected", CxlRejReason=2)),
        [order("New")],
        "cancel_rejected",
    ),
    History(
        "canceled by another hand",
        in_turn(
            report("Canceled", ClOrdID="z-9"), y("CancelRejected", OrdStatus="Canceled", CxlRejReason=0)
        ),
        [order("Canceled", ClOrdID="z-9")],
        "already_closed",
    ),
    History(
        "another cancel was running",
        in_turn(
            report("PendingCancel", ClOrdID="z-9"),
            y("CancelRejected", OrdStatus="PendingCancel", CxlRejReason=3),
            report("Canceled", ClOrdID="z-9"),
        ),
        [order("Canceled", ClOrdID="z-9")],
        "already_closed",
    ),
    History(
        "expired", in_turn(report("Expired"), y("CancelRejected", OrdStatus="Expired")), [order("Expired")],
        "already_closed",
    ),
    History(
        "an unknown order",
        in_turn(y("CancelRejected", OrderID="NONE", OrdStatus="Rejected", CxlRejReason=1)),
        [],
        "unknown_order",
    ),
    History(
        "too late by a hair",
        in_turn(y("CancelRejected", OrdStatus="New", CxlRejReason=0), report("Trade", **FILL)),
        [order("Filled")],
        "already_closed",
    ),
    History(
        "a duplicate of an earlier send",
        in_turn(y("CancelRejected", OrdStatus="New", CxlRejReason=6), y("Canceled")),
        [order("Canceled", ClOrdID="y-1")],
        "canceled",
    ),
]  # fmt: skip


@pytest.mark.parametrize("history", HISTORIES, ids=[h.name for h in HISTORIES])
@settings(max_examples=settings().max_examples // 4)
@given(data=st.data())
def test_the_same_final_in_any_order_and_however_often_reports_come(history: History, data: st.DataObject) -> None:
    driver = Driver(sessions=2)
    driver.history, driver.orders = history.reports, history.orders
    delivery = driver.deliver(item(), redelivered=data.draw(st.booleans()))
    doubled = data.draw(st.permutations(history.reports * 2))
    lost_after = data.draw(st.integers(0, len(doubled)))
    for n, each in enumerate(doubled):
        if n == lost_after:
            driver.lose(1)
            driver.connect(replay=data.draw(st.permutations(history.reports)))
        driver.frame(2, data=[each])
    driver.advance(30)
    assert driver.outcome() == history.outcome
    driver.confirm()
    assert driver.settlement(delivery) == "ack"
    assert len(driver.finals()) == 1
    assert list(driver.left_over()) == []


# -- any facts in any order


class Watched(Driver):
    """A driver that holds every effect against the invariants at the moment it comes out."""

    def __init__(self) -> None:
        self.of: dict[Delivery, str] = {}

        self.confirmed: set[str] = set()
        self.asked_since: dict[str, set[str]] = defaultdict(set)
        super().__init__(
            sessions=2,
            venue={"max_batch": 2, "doubt_window": 60.0, "rate_limit": 50.0, "unknown_wait": 2.0},
            broker={"suspect_after": 3, "max_inflight": 3},
            results={"retry_max": 2.0},
        )

    def _take(self, effect: Effect) -> None:
        if isinstance(effect, Settle):
            self._settles(effect)
        if isinstance(effect, SendText):
            assert effect.session in self.alive_sessions(), "a message for a session that is gone"
        super()._take(effect)
        if isinstance(effect, SendText):
            self._sends(self.sent[-1].session, self.sent[-1].frame)

    def alive_sessions(self) -> list[int]:
        return [state.number for state in self.engine.sessions.all()]

    def _settles(self, effect: Settle) -> None:
        if effect.how == "requeue":
            return
        command = self.of[effect.delivery]
        for n in range(len(COMMANDS[command])):
            ids = {wire.final_id(command, n), wire.unresolved_id(command, n)}
            assert ids & self.confirmed, f"I1: {command} settled before a final of cancel {n} was confirmed"

    def _sends(self, session: int, frame: Fields) -> None:
        if frame["type"] == "subscribe" and frame["streams"][0]["name"] == "Order":
            stream = frame["streams"][0]
            for cl_ord_id, order_id in TARGETS.items():
                if order_id == stream.get("OrderID", order_id):
                    self.asked_since[cl_ord_id].add("asked")
        if frame["type"] != "OrderCancelRequest":
            return
        state = next(s for s in self.engine.sessions.all() if s.number == session)
        assert state.ready, "I6: sent on a session that is not ready"
        for element in frame["data"]:
            target = next(y for y, order_id in TARGETS.items() if order_id == element["OrderID"])
            doubts = self.asked_since[target]
            assert not doubts or "asked" in doubts, f"I5: {target} sent again without a look-up in between"
            doubts.clear()
            doubts.add("sent")

    def confirm_one(self, n: int) -> None:
        event = self.unconfirmed.pop(n % len(self.unconfirmed))
        self.confirmed.add(event.event_id)
        self.step(confirmed(event))

    def confirm(self) -> None:
        while self.unconfirmed:
            self.confirm_one(0)


COMMANDS = {"c1": [item(1)], "c2": [item(2), item(3)], "c3": [item(4)]}
TARGETS = {f"y-{n}": f"order-{n}" for n in range(1, 5)}
REPORTS = st.sampled_from(
    [
        ("PendingCancel", {}), ("Canceled", {}), ("Trade", {}), ("Trade", FILL), ("Expired", {}), ("New", {}),
        ("Replaced", {}), ("Rejected", {}), ("ReplaceRejected", {"OrdStatus": "New"}), ("Vaporised", {}),
        *(
            ("CancelRejected", {"OrdStatus": status, "CxlRejReason": reason})
            for status in ("New", "PendingCancel", "Filled", "Canceled", "Rejected")
            for reason in (0, 1, 2, 3, 6)
        ),
    ]
)  # fmt: skip
NUMBERS = st.integers(1, 4)


class AnyFacts(RuleBasedStateMachine):
    """Three commands with four cancels, and whatever may happen to them, the broker and the venue."""

    def __init__(self) -> None:
        super().__init__()
        self.driver = Watched()
        self.open: dict[Lane, list[Delivery]] = {"kill": [], "cancel": []}
        self.epoch = 1
        self.marked: set[str] = set()

    # -- the broker

    @rule(command=st.sampled_from(sorted(COMMANDS)), kill=st.booleans(), count=st.sampled_from([0, 0, 1, 5]))
    def deliver(self, command: str, kill: bool, count: int) -> None:
        lane: Lane = "kill" if kill else "cancel"
        driver = self.driver
        if driver.engine.consumers[lane] not in ("consuming", "stopping"):
            return
        seen_before = {driver.of[each] for each in driver.of if driver.settlement(each) not in ("ack", "dead_letter")}
        if command in self.marked or (command in seen_before and command not in driver.engine.intake.commands):
            count = count or 1  # a broker marks what it has handed out before
        if count:
            self.marked.add(command)
        delivery = Delivery(lane, self.epoch, driver._tag + 1)
        driver.of[delivery] = command
        headers: dict[str, object] = {"x-delivery-count": count} if count else {}
        if count:
            for each in COMMANDS[command]:
                if command not in driver.engine.intake.commands and command not in driver.engine.intake._ended:
                    driver.asked_since[each["ClOrdID"]] |= {"sent"}
        driver.deliver(*COMMANDS[command], id=command, lane=lane, headers=headers, epoch=self.epoch)
        self.open[lane].append(delivery)

    @precondition(lambda self: self.driver.unconfirmed)
    @rule(n=st.integers(0, 9), how=st.sampled_from(["confirm", "confirm", "nack", "give_back"]))
    def answer_a_publish(self, n: int, how: str) -> None:
        driver = self.driver
        if how == "confirm":
            driver.confirm_one(n)
        else:
            getattr(driver, how)(driver.unconfirmed[n % len(driver.unconfirmed)])

    @rule(lane=st.sampled_from(LANES))
    def lose_the_publisher(self, lane: Lane) -> None:
        self.driver.lose_publisher(lane)
        self.driver.advance(1)
        self.driver.step(PublisherUp(lane))

    @rule(lane=st.sampled_from(LANES))
    def lose_the_consumer(self, lane: Lane) -> None:
        if self.driver.engine.consumers[lane] == "down":
            return
        self.driver.lose_consumer(lane)
        self.open[lane].clear()
        self.epoch += 1
        self.driver.step(ConsumerUp(lane))

    @rule()
    def confirm_the_stop_of_consumers(self) -> None:
        self.driver.stop_consumers()

    # -- the venue

    @rule(slot=st.integers(0, 1))
    def lose_a_session(self, slot: int) -> None:
        sessions = self.driver.alive_sessions()
        if slot < len(sessions):
            self.driver.lose(sessions[slot])

    @rule()
    def open_a_session(self) -> None:
        if len(self.driver.alive_sessions()) < 2:
            self.driver.connect(1)

    @rule(n=NUMBERS, kind=REPORTS, ours=st.booleans(), nameless=st.booleans(), initial=st.booleans())
    def tell(self, n: int, kind: tuple[str, Fields], ours: bool, nameless: bool, initial: bool) -> None:
        sessions = self.driver.alive_sessions()
        if sessions:
            cl_ord_id = f"y-{n}" if ours else "z-9"
            order_id = "NONE" if nameless and kind[0] == "CancelRejected" else f"order-{n}"
            record = report(kind[0], **{**kind[1], "ClOrdID": cl_ord_id, "OrderID": order_id})
            self.driver.frame(sessions[-1], data=[record], initial=initial)

    @rule(n=NUMBERS, status=st.sampled_from(["New", "Canceled", "Filled", "PendingCancel", None]), ours=st.booleans())
    def change_an_order(self, n: int, status: str | None, ours: bool) -> None:
        orders = [each for each in self.driver.orders if each["OrderID"] != f"order-{n}"]
        if status is not None:
            orders.append(order(status, OrderID=f"order-{n}", ClOrdID=f"y-{n}" if ours else "z-9"))
        self.driver.orders = orders

    @rule(on=st.booleans())
    def answer_questions(self, on: bool) -> None:
        self.driver.answering = on
        self.driver.advance(0)

    @rule(n=st.integers(0, 9), code=st.sampled_from([1, 2, 7]), which=st.booleans())
    def refuse_a_frame(self, n: int, code: int, which: bool) -> None:
        for session in self.driver.alive_sessions()[:1]:
            frames = self.driver.cancel_frames(session)
            self.driver.error(frames[-1 - n % len(frames)]["reqid"] if frames and which else None, code, session)

    @rule()
    def send_garbage(self) -> None:
        for session in self.driver.alive_sessions()[-1:]:
            self.driver.raw(session, b"\xff")
            self.driver.frame(session, data=[], initial=True)

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 6.0, 31.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.driver.advance(seconds)

    # -- always

    @invariant()
    def finals_are_one_per_cancel(self) -> None:
        for event in self.driver.published:
            if event.final:
                assert event.index is not None
                assert event.command_id is not None
                expected = wire.unresolved_id if event.outcome == "unresolved" else wire.final_id
                assert event.event_id == expected(event.command_id, event.index), "I2"

    @invariant()
    def bounds_hold(self) -> None:
        engine = self.driver.engine
        for lane in LANES:
            assert 0 <= engine.stats.inflight[lane] <= (3 if lane == "cancel" else 50_000)
        assert sum(s.inflight for s in engine.sessions.all()) == sum(engine.stats.inflight[lane] for lane in LANES)
        for session in engine.sessions.all():
            assert all(0 < frame.unanswered <= len(frame.cancels) for frame in session.frames.values())

    # -- once faults stop, everything comes to rest (I11)

    def teardown(self) -> None:
        driver = self.driver
        driver.stop_consumers()
        if not driver.alive_sessions():
            driver.connect()
        driver.answering = True
        driver.orders = [order("Filled", OrderID=order_id) for order_id in TARGETS.values()]
        for _ in range(60):
            driver.advance(2)
            driver.confirm()
        assert list(driver.left_over()) == []
        for delivery in [*self.open["kill"], *self.open["cancel"]]:
            assert driver.settlement(delivery) is not None, f"{driver.of[delivery]} was never settled"


AnyFacts.TestCase.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=40)
TestAnyFacts = AnyFacts.TestCase


class AnyFactsInBulk(AnyFacts):
    """The same with look-ups by one replay and one list, gathered, where the others ask for each order by itself."""

    def __init__(self) -> None:
        self.few = reconcile.FEW
        reconcile.FEW = 1  # type: ignore[misc]
        super().__init__()

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            reconcile.FEW = self.few  # type: ignore[misc]


TestAnyFactsInBulk = AnyFactsInBulk.TestCase
