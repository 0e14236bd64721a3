"""The worker's engine and runner, fed by hand: deliveries, frames and confirms in, the rest out; no sockets, no loop.

The scenario never changes: commands of one cancel, read 20 at a time; two sessions, each of which gets PendingCancel
and Canceled of every cancel; every event is confirmed, every command acked. It serves the guard against regressions.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from worker.config import Config
from worker.core.clock import Now
from worker.core.effects import OutEvent, Settlement
from worker.core.engine import Engine
from worker.core.facts import Delivery
from worker.runner import Runner
from worker.wire.command import Properties

READ_AT_ONCE: Final = 20
SESSIONS: Final = (1, 2)
_AT: Final = "2026-11-22T10:00:00.000000Z"


class Cancel(NamedTuple):
    """One command of one cancel, and what the venue will say to it."""

    message_id: str
    body: bytes
    frames: tuple[bytes, bytes]


def make_cancels(count: int) -> list[Cancel]:
    """The same ones at every call."""
    return [_make_cancel(number) for number in range(1, count + 1)]


def _make_cancel(number: int) -> Cancel:
    cl_ord_id, order_id = f"c0be17e0-15da-11ec-b5e7-{number:012}", f"16a55364-4248-4575-aa0b-{number:012}"
    item = {"Symbol": "BTC-USD", "ClOrdID": cl_ord_id, "OrderID": order_id, "TransactTime": _AT}
    return Cancel(
        str(uuid.UUID(int=number)),
        _json({"type": "OrderCancelRequest", "data": [item]}),
        (_report(item, "PendingCancel", 2 * number), _report(item, "Canceled", 2 * number + 1)),
    )


def _report(item: dict[str, str], exec_type: str, exec_id: int) -> bytes:
    record = {
        "Timestamp": _AT,
        **item,
        "OrigClOrdID": "ord-000417",
        "SubmitTime": _AT,
        "ExecID": str(uuid.UUID(int=exec_id)),
        "Side": "Buy",
        "ExecType": exec_type,
        "OrdStatus": exec_type,
        "OrderQty": "1.25000000",
        "OrdType": "Limit",
        "Price": "64250.50",
        "Currency": "BTC",
        "AmountCurrency": "USD",
        "LeavesQty": "0" if exec_type == "Canceled" else "1.25000000",
        "CumQty": "0",
        "AvgPx": "0",
        "TimeInForce": "GoodTillCancel",
        "DecisionStatus": "Active",
        "CustomerUser": "desk@example.com",
    }
    return _json({"reqid": 1, "type": "ExecutionReport", "ts": _AT, "seqNum": exec_id, "data": [record]})


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Shells:
    """Stand in for loop, log, host, consumers, publishers and pool: they keep what they are given, and do nothing."""

    def __init__(self) -> None:
        self.published: list[OutEvent] = []
        self.acked = self.frames = 0
        self.soon: list[Callable[[], object]] = []

    def time(self) -> float:
        return 0.0

    def call_soon(self, callback: Callable[[], object], /) -> object:
        self.soon.append(callback)
        return None

    def call_later(self, delay: float, callback: Callable[[], object], /) -> Shells:
        return self

    def cancel(self) -> None: ...

    def info(self, event: str, /, **fields: object) -> None: ...

    def warning(self, event: str, /, **fields: object) -> None: ...

    def trouble(self, source: str, reason: str) -> None:
        raise AssertionError(reason)

    def stopped(self) -> None: ...

    def failed(self, error: Exception) -> None:
        raise error

    def search_audit(self, command_id: str, event_id: str, since_us: int | None) -> None:
        raise AssertionError("no mass cancel here")

    def consume(self, on: bool) -> None: ...

    def settle(self, delivery: Delivery, how: Settlement) -> None:
        assert how == "ack"
        self.acked += 1

    def publish(self, event: OutEvent) -> None:
        self.published.append(event)

    def reply(self, event: OutEvent, queue: str) -> None: ...

    def send(self, session: int, data: bytes) -> None:
        self.frames += 1

    def flush(self) -> None: ...

    def drop(self, session: int, reason: str) -> None:
        raise AssertionError(reason)

    def session_ready(self, session: int) -> None: ...

    def turn(self) -> None:
        """The end of a turn of the loop."""
        due, self.soon = self.soon, []
        for callback in due:
            callback()


class Worker:
    """A worker that is ready for commands."""

    def __init__(self, shells: Shells | None = None) -> None:
        self.shells = shells = shells or Shells()
        self.runner = Runner(Engine(Config(), "bench", _now()), shells, shells, shells, _now)
        self.runner.attach({"kill": shells, "cancel": shells}, {"kill": shells, "cancel": shells}, shells)
        self._tag = 0
        self.runner.publisher_up("kill")
        self.runner.publisher_up("cancel")
        self.runner.consumer_up("kill")
        self.runner.consumer_up("cancel")
        for session in SESSIONS:
            self.runner.session_opened(session, session - 1)
            hello = {"type": "hello", "ts": _AT, "session_id": f"BENCH{session}"}
            self.runner.frames_received(session, [_json(hello)])
            empty = {"reqid": 1, "type": "ExecutionReport", "ts": _AT, "initial": True, "data": []}
            self.runner.frames_received(session, [_json(empty)])
            self.runner.batch_ended()
        shells.turn()
        assert self.runner.engine.sessions.ready
        shells.frames = 0

    def work(self, cancels: Sequence[Cancel]) -> None:
        """From the deliveries to the acks."""
        runner, shells = self.runner, self.shells
        for start in range(0, len(cancels), READ_AT_ONCE):
            part = cancels[start : start + READ_AT_ONCE]
            for cancel in part:
                self._tag += 1
                properties = Properties(content_type="application/json", message_id=cancel.message_id, timestamp_s=1)
                runner.command_delivered(Delivery("cancel", 1, self._tag), False, properties, cancel.body)
            runner.batch_ended()
            frames = [frame for cancel in part for frame in cancel.frames]
            for session in SESSIONS:
                runner.frames_received(session, frames)
                runner.batch_ended()
            published, shells.published = shells.published, []
            for event in published:
                runner.event_confirmed(event)
            runner.batch_ended()
        runner.engine.tick(_now())


def _now() -> Now:
    return Now(time.monotonic(), time.time_ns() // 1000)


def naive(cancels: Sequence[Cancel]) -> int:
    """The reference: what the same cancels cost a worker that does no more than json and dictionaries; bytes made."""
    waiting: dict[str, str] = {}
    made = 0
    for cancel in cancels:
        command = json.loads(cancel.body)
        for item in command["data"]:
            waiting[item["ClOrdID"]] = cancel.message_id
        made += len(json.dumps({"reqid": 1, **command}).encode())
        for _ in SESSIONS:
            for frame in cancel.frames:
                for report in json.loads(frame)["data"]:
                    command_id = waiting.get(report["ClOrdID"])
                    if command_id is None:
                        continue
                    event_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{command_id}:0:{report['ExecID']}"))
                    made += len(json.dumps({"event_id": event_id, "command_id": command_id, "report": report}).encode())
        for item in command["data"]:
            del waiting[item["ClOrdID"]]
    return made
