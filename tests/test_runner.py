"""What the runner hands to the sockets and to the log, and in what order, within one turn of the loop."""

from __future__ import annotations

import json

from bench.scenario import Shells, Worker, make_cancels
from tests.core.payloads import report
from worker.core.effects import OutEvent
from worker.core.facts import Delivery
from worker.core.sweeps import TAKEN_UP_AT_ONCE
from worker.wire.command import Properties


class Sockets(Shells):
    """Counts cancels: those sent since the last flush, and those flushed, flush by flush."""

    def __init__(self) -> None:
        super().__init__()
        self.unflushed = 0
        self.flushed: list[int] = []

    def send(self, session: int, data: bytes) -> None:
        frame = json.loads(data)
        if frame["type"] == "OrderCancelRequest":
            self.unflushed += len(frame["data"])

    def flush(self) -> None:
        if self.unflushed:
            self.flushed.append(self.unflushed)
            self.unflushed = 0


def test_a_part_of_a_sweep_is_with_the_sockets_before_the_next_is_made() -> None:
    worker, shells, sockets = Worker(), Shells(), Sockets()
    runner = worker.runner
    runner.attach({"kill": shells, "cancel": shells}, {"kill": shells, "cancel": shells}, sockets)
    orders = [report("New", OrderID=f"order-{n}", ClOrdID=f"x-{n}") for n in range(2 * TAKEN_UP_AT_ONCE + 1)]
    frame = {"reqid": 1, "type": "ExecutionReport", "ts": "2026-03-09T14:09:11.000000Z", "data": orders}
    runner.frames_received(1, [json.dumps(frame).encode()])
    runner.batch_ended()
    body = json.dumps({"type": "OrderMassCancelRequest", "data": [{"MassCancelRequestType": "AllOrders"}]}).encode()
    runner.command_delivered(Delivery("kill", 1, 1), False, Properties(message_id="mass"), body)
    runner.batch_ended()
    assert sockets.flushed == [TAKEN_UP_AT_ONCE, TAKEN_UP_AT_ONCE, 1]


class Told(Shells):
    """Notes in one list what is published, when it is handed on, and the lines for finals."""

    def __init__(self) -> None:
        super().__init__()
        self.story: list[object] = []

    def publish(self, event: OutEvent) -> None:
        super().publish(event)
        self.story.append(event.outcome)

    def flush(self) -> None:
        if self.story and self.story[-1] != "flush":
            self.story.append("flush")

    def trouble(self, source: str, reason: str) -> None: ...

    def info(self, event: str, /, **fields: object) -> None:
        if event == "cancel_final":
            self.story.append({**fields})


def test_a_final_has_one_line_in_the_log_after_it_is_on_its_way() -> None:
    shells = Told()
    runner = Worker(shells).runner
    (cancel,) = make_cancels(1)
    runner.command_delivered(Delivery("cancel", 1, 1), False, Properties(message_id="one"), cancel.body)
    runner.batch_ended()
    shells.story.clear()
    runner.frames_received(1, [*cancel.frames])
    runner.batch_ended()
    *before, line = shells.story
    assert before == ["pending_cancel", "canceled", "flush"]
    final = shells.published[-1]
    assert isinstance(line, dict)
    assert line.items() >= {"outcome": "canceled", "command_id": "one", "index": 0, "symbol": "BTC-USD"}.items()
    assert line["event_id"] == final.event_id
    runner.publisher_lost("cancel", "gone")
    runner.publisher_up("cancel")
    runner.batch_ended()
    assert shells.published[-1] is final, "published again"
    assert [each for each in shells.story if isinstance(each, dict)] == [line]
