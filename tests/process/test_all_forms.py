"""Every form in which a publisher may write a command, and the exact form of what comes out (contract 2 and 3)."""

from __future__ import annotations

import re
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest

from tests.process.harness import COMMANDS, KILL, Seen, Stage, cancel_of
from tests.support.timing import SECOND
from worker.simulator import Behaviour, Order, Script

KEYS = [
    "event_id", "command_id", "index", "outcome", "final", "sent", "order_live", "symbol", "cl_ord_id",
    "orig_cl_ord_id", "order_id", "order", "report", "error", "supersedes", "late", "attempt", "lane", "worker",
    "session_id", "user_id", "app_id", "reason", "times",
]  # fmt: skip
TIME = re.compile(r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z")
SYMBOLS = {"BTC-USD": "BTC-USD", "ETH.PERP": "ETH_PERP", "A*B#C": "A_B_C"}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SIZES = (1, 1, 1, 1, 1, 2, 3, 5, 8, 13, 30, 1, 1, 4, 1, 2, 1, 50, 1, 1, 7, 1, 20, 1, 3)


class Wanted:
    """What one command was published with, and so what its events have to say."""

    def __init__(self, number: int, stage: Stage, user: str) -> None:
        self.number = number
        self.lane = "kill" if number % 4 == 3 else "cancel"
        self.msgpack = number % 3 == 1
        self.orders: list[Order] = []
        self.items: list[dict[str, object]] = []
        has_id = number % 7 != 6
        for index in range(SIZES[number % len(SIZES)]):
            order = stage.venue.place(symbol=list(SYMBOLS)[(number + index) % len(SYMBOLS)])
            self.orders.append(order)
            self.items.append(self._item(order, number + index, named=not has_id or (number + index) % 2 == 0))
        self.command_id = f"command-{number}-{uuid.uuid4().hex[:8]}" if has_id else str(self.items[0]["ClOrdID"])
        self.properties: dict[str, Any] = {}
        if has_id:
            self.properties["command_id"] = self.command_id
        else:
            self.properties["command_id"] = ""
        for every, name, value in (
            (2, "correlation_id", f"correlation-{number}"),
            (3, "user_id", user),
            (4, "app_id", "risk-desk"),
            (5, "timestamp_s", int(datetime.now(UTC).timestamp())),
            (6, "reply_to", "answers"),
        ):
            if number % every == 0:
                self.properties[name] = value
        if number % 8 == 0 and not self.msgpack:
            self.properties["content_type"] = None
        self.headers: dict[str, Any] = {}
        soon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
        extra: tuple[tuple[int, str, Any], ...] = (
            (2, "reason", "limit breached"),
            (3, "traceparent", TRACEPARENT),
            (6, "tracestate", "vendor=opaque"),
            (4, "deadline", soon if has_id and number % 8 == 1 else soon.isoformat()),
            (5, "x-own", [1, {"a": None if has_id else 2}]),
        )
        for every, name, value in extra:
            if number % every == 1:
                self.headers[name] = value
        self.properties["headers"] = self.headers or None
        self.envelope = {"reqid": [41, "x", None, 1.5][number % 4], "comment": {"type": 1}} if number % 3 else {}

    @staticmethod
    def _item(order: Order, number: int, *, named: bool) -> dict[str, object]:
        """One item; only the command's own keys vary, the target is always this order."""
        item: dict[str, object] = {"Symbol": order.symbol}
        if named:
            item["ClOrdID"] = str(uuid.uuid4())
        elif number % 3 == 0:
            item["ClOrdID"] = None
        match number % 3:
            case 0:
                item["OrderID"] = order.order_id
            case 1:
                item |= {"OrigClOrdID": order.cl_ord_id, "OrderID": None}
            case _:
                item |= {"OrderID": order.order_id, "OrigClOrdID": order.cl_ord_id}
        match number % 4:
            case 0:
                item["TransactTime"] = "2026-03-09T14:09:12.5Z"
            case 1:
                item["TransactTime"] = "2026-03-09T16:09:12+02:00"
            case 2:
                item["TransactTime"] = None
            case _:
                pass
        if number % 5 == 0:
            item["Timestamp"] = "2026-03-09T14:09:13.000000Z"
        if number % 4 == 0:
            item |= {"Side": "Buy", "note": ["free", {"Symbol": "no"}]}
        return item


@pytest.mark.slow
async def test_300_cancels_of_all_forms_end_once_each_in_the_exact_form(stage: Stage) -> None:
    await stage.open(Script(behaviour=Behaviour(gap=0.01)))
    user = urlsplit(stage.broker.url).username or ""
    answers = await stage.broker.declare_queue("answers", kind="classic")
    commands: list[Wanted] = []
    while sum(len(c.items) for c in commands) < 300:
        commands.append(Wanted(len(commands), stage, user))
    worker = await stage.start()  # after the orders: else the report New of one may come while its cancel is in flight
    began = datetime.now(UTC)
    for command in commands:
        await stage.publish(
            command.items,
            lane=command.lane,
            msgpack=command.msgpack,
            envelope=command.envelope,
            **command.properties,
        )
        assert stage.published[command.command_id] == len(command.items)
    await stage.settled()
    told = {(await worker.status())["worker"]}
    await stage.end_all()
    assert len(stage.published) == len(commands)

    finals = stage.check_finals(once=True)
    assert Counter(e.outcome for e in finals.values()) == {"canceled": sum(len(c.items) for c in commands)}
    assert all(not order.open for order in stage.venue.truth().values())
    stage.check_truth()
    assert max(stage.sends().values()) == 1
    assert len({event.event_id for event in stage.events.seen}) == len(stage.events.seen)
    assert {event.body["worker"] for event in stage.events.seen} == told
    said = {entry.record for entry in stage.venue.book.history}
    for command in commands:
        for index, (order, item) in enumerate(zip(command.orders, command.items, strict=True)):
            events = stage.events.of(command.command_id, index)
            assert [e.outcome for e in events] == ["pending_cancel", "canceled"]
            for event in events:
                _check(event, command, order, item, began)
                assert event.report_bytes in said
            assert events[0].report_bytes != events[1].report_bytes
            _check_send(stage, events[1], item)
    assert await stage.broker.depth(COMMANDS) == await stage.broker.depth(KILL) == 0

    asked = {c.command_id for c in commands if "reply_to" in c.properties}
    wanted = {event.raw for event in finals.values() if event.body["command_id"] in asked}
    replies = await stage.broker.take(answers.name, len(wanted))
    assert {reply.body for reply in replies} == wanted
    assert all(reply.message_id == msgspec.json.decode(reply.body)["event_id"] for reply in replies)
    audited = await stage.audited()
    assert [e.raw for e in audited] != [] and {e.raw for e in audited} == {e.raw for e in stage.events.seen}


def _check(event: Seen, command: Wanted, order: Order, item: dict[str, object], began: datetime) -> None:
    body, message = event.body, event.message
    extra = [name for name in ("deadline", "traceparent", "tracestate") if name in command.headers]
    assert list(body) == KEYS + extra
    report = body["report"]
    final = body["outcome"] == "canceled"
    expected = {
        "command_id": command.command_id,
        "final": final,
        "sent": "yes",
        "order_live": not final,
        "symbol": item["Symbol"],
        "orig_cl_ord_id": item.get("OrigClOrdID"),
        "order_id": order.order_id,
        "error": None,
        "supersedes": None,
        "late": False,
        "attempt": 1,
        "lane": command.lane,
        "user_id": command.properties.get("user_id"),
        "app_id": command.properties.get("app_id"),
        "reason": command.headers.get("reason"),
        "order": {
            "status": "Canceled" if final else "PendingCancel",
            "cum_qty": report["CumQty"],
            "leaves_qty": report["LeavesQty"],
            "avg_px": report["AvgPx"],
            "as_of": report["Timestamp"],
        },
    }
    assert {name: body[name] for name in expected} == expected
    assert uuid.UUID(body["event_id"]).version == 5
    assert report["ClOrdID"] == body["cl_ord_id"]
    if item.get("ClOrdID"):
        assert body["cl_ord_id"] == item["ClOrdID"]
    else:
        assert uuid.UUID(body["cl_ord_id"]).version == 5
    times = body["times"]
    assert list(times) == ["enqueued", "received", "sent", "reported", "published"]
    assert (times["enqueued"] is not None) == ("timestamp_s" in command.properties)
    happened = [at for at in times.values() if at is not None]
    assert all(TIME.match(at) for at in happened) and happened == sorted(happened)
    assert TIME.match(body["order"]["as_of"]) and len(body["session_id"]) == 13

    assert message.exchange == "cancel.results"
    kind = "final" if final else "info"
    assert message.routing_key == f"{kind}.{body['outcome']}.{SYMBOLS[str(item['Symbol'])]}"
    assert message.content_type == "application/json"
    assert message.delivery_mode == 2
    assert message.message_id == body["event_id"]
    assert message.correlation_id == command.properties.get("correlation_id", command.command_id)
    assert message.type == body["outcome"]
    assert message.app_id == "cancel-worker"
    assert message.timestamp is not None and abs(message.timestamp - began) < timedelta(seconds=60 * SECOND)
    assert message.reply_to is None and message.user_id is None and message.expiration is None
    headers = message.headers
    assert headers["command_id"] == command.command_id and headers["final"] is final
    assert headers.get("traceparent") == command.headers.get("traceparent")


def _check_send(stage: Stage, final: Seen, item: dict[str, object]) -> None:
    """What the venue got: our ids, one target, a time with microseconds and Z."""
    (seen,) = [one for one in stage.venue.cancels if one.cl_ord_id == final.body["cl_ord_id"]]
    assert seen.symbol == item["Symbol"]
    assert (seen.order_id, seen.orig_cl_ord_id) == (
        (item["OrderID"], None) if item.get("OrderID") else (None, item["OrigClOrdID"])
    )
    assert seen.transact_time is not None and TIME.match(seen.transact_time)
    given = item.get("TransactTime")
    if given is None:
        assert seen.transact_time == final.body["times"]["sent"]
    else:
        assert datetime.fromisoformat(seen.transact_time) == datetime.fromisoformat(str(given))
    (frame,) = [f for f in stage.venue.received if f.session == seen.session and f.reqid == seen.reqid]
    element = frame.message["data"][seen.index]
    assert element.get("Timestamp") == item.get("Timestamp")
    allowed = {"Symbol", "ClOrdID", "OrderID", "OrigClOrdID", "TransactTime", "Timestamp"}
    assert set(element) <= allowed and None not in element.values()


@pytest.mark.parametrize("lane", ["cancel", "kill"])
async def test_a_command_of_1000_cancels_is_one_delivery_and_1000_finals(stage: Stage, lane: str) -> None:
    await stage.open(Script(behaviour=Behaviour(pending=False)))
    await stage.start()
    orders = stage.place(1000)
    command_id = await stage.publish([cancel_of(order_id) for order_id in orders], lane=lane)
    await stage.settled()
    await stage.end_all()
    finals = stage.check_finals(once=True)
    assert [finals[command_id, i].body["order_id"] for i in range(1000)] == orders
    assert max(seen.batch for seen in stage.venue.cancels) <= 20
    assert max(stage.sends().values()) == 1


async def test_no_frame_mixes_lanes(stage: Stage) -> None:
    await stage.open()
    await stage.declare()
    orders = stage.place(400)
    lanes = {order_id: ("kill" if n % 2 else "cancel") for n, order_id in enumerate(orders)}
    for n in range(0, 400, 20):
        for lane in ("kill", "cancel"):
            of_lane = [cancel_of(o) for o in orders[n : n + 20] if lanes[o] == lane]
            await stage.publish(of_lane, lane=lane)
    await stage.start()
    await stage.settled()
    frames: dict[tuple[int, int], set[str]] = {}
    for seen in stage.venue.cancels:
        frames.setdefault((seen.session, seen.reqid), set()).add(lanes[str(seen.order_id)])
    assert all(len(found) == 1 for found in frames.values())


async def test_a_missing_reply_queue_holds_nothing(stage: Stage) -> None:
    await stage.open()
    worker = await stage.start()
    await stage.publish_each(stage.place(20), reply_to="nobody-listens")
    await stage.settled()
    assert await worker.readiness() == []
    stage.check_finals(once=True)


async def test_replies_can_be_switched_off(stage: Stage) -> None:
    await stage.open()
    await stage.broker.declare_queue("answers", kind="classic")
    await stage.start(results__reply_to=False)
    await stage.publish_each(stage.place(3), reply_to="answers")
    await stage.settled()
    await stage.end_all()
    assert await stage.broker.depth("answers") == 0


async def test_target_both_sends_both_ids(stage: Stage) -> None:
    await stage.open()
    await stage.start(venue__target="both")
    order = stage.venue.place()
    await stage.publish([cancel_of(order.order_id, OrigClOrdID=order.cl_ord_id)])
    await stage.settled()
    (seen,) = stage.venue.cancels
    assert (seen.order_id, seen.orig_cl_ord_id) == (order.order_id, order.cl_ord_id)


async def test_reports_of_others_are_skipped(stage: Stage) -> None:
    await stage.open()
    await stage.start()
    await stage.venue.emit_foreign(2000)
    await stage.publish_each(stage.place(5))
    await stage.settled()
    await stage.venue.emit_foreign(2000)
    assert {event.key[0] for event in stage.events.seen} == set(stage.published)
