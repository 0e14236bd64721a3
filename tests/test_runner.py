"""The runner hands a large sweep to the sockets in parts, in one turn of the loop."""

from __future__ import annotations

import json

from bench.scenario import Shells, Worker
from tests.core.payloads import report
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
