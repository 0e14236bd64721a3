"""A modelled venue: orders, reports, streams with pages, sessions that break. Written from protocol sections 2 to 8."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from tests.simulation.world import World
from worker.wire.timestamp import format_utc, parse_utc

if TYPE_CHECKING:
    from tests.simulation.process import Process

PAGE = 7
TIE_S = 1e-7
"""Keeps two frames of one session in their order."""

OPEN = ("New", "PartiallyFilled", "PendingCancel")
encode = msgspec.json.encode


@dataclass
class Order:
    """One order and, of every cancel of it, what the venue did."""

    order_id: str
    client_id: str
    symbol: str
    submitted_us: int
    status: str = "New"
    last_request: str = ""
    closed_by: str | None = None
    plays: list[str] = field(default_factory=list)
    timestamp: str = ""
    closed_at: float | None = None

    @property
    def is_open(self) -> bool:
        return self.status in OPEN


@dataclass
class Stream:
    reqid: int
    name: str
    wanted: list[tuple[str, Any]]
    seq: int = 0
    rest: list[bytes] = field(default_factory=list)


class Session:
    """One session of one process. Frames keep their order; those under way when it breaks may or may not arrive."""

    def __init__(self, venue: Venue, process: Process, number: int, slot: int) -> None:
        self.venue, self.process, self.number, self.slot = venue, process, number, slot
        self.open = True
        self.streams: dict[int, Stream] = {}
        self.used: set[int] = set()
        self.stalled_until = 0.0
        self._to_venue = self._to_worker = 0.0

    def receive(self, data: bytes) -> None:
        """The worker sends a frame: it arrives later, unless the session breaks first, and then perhaps."""
        world = self.venue.world
        arrives = max(self._to_venue + TIE_S, world.seconds + world.delay(0.0005, 0.02), self.stalled_until)
        self._to_venue = arrives

        def arrive() -> None:
            if self.open or world.chance(0.5):
                self.venue.take(self, data)

        world.after(arrives - world.seconds, arrive)

    def send(self, frame: dict[str, Any], records: list[bytes] | None = None) -> None:
        """The venue sends a frame."""
        world = self.venue.world
        body = encode(frame)
        if records is not None:
            body = body[:-1] + b',"data":[' + b",".join(records) + b"]}"
        arrives = max(self._to_worker + TIE_S, world.seconds + world.delay(0.0005, 0.02), self.stalled_until)
        self._to_worker = arrives
        world.after(arrives - world.seconds, lambda: self._deliver(body))

    def _deliver(self, body: bytes) -> None:
        if self.open and self.process.alive:
            self.venue.seen_by(self.process, body)
            self.process.call(lambda: self._hand_over(body))

    def _hand_over(self, body: bytes) -> None:
        if self.open:
            self.process.runner.frames_received(self.number, [body])
            self.process.runner.batch_ended()

    def cut(self, reason: str) -> None:
        if self.open:
            self.open = False
            self.venue.sessions.pop(self.number, None)
            self.venue.world.tell(f"venue    session {self.number} lost: {reason}")
            if self.process.alive:
                self.process.call(lambda: self.process.runner.session_lost(self.number, reason))
                self.process.check_session_lost(self.number)
                self.process.pool.open_later(self.slot)


class Venue:
    """The venue's own books: the only truth about orders."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.orders: dict[str, Order] = {}
        self.history: list[tuple[int, dict[str, Any], bytes]] = []
        self.sessions: dict[int, Session] = {}
        self.trouble = True
        self.cl_ord_ids: dict[str, str] = {}
        self.arrivals: dict[str, int] = {}
        self.reports_made: set[bytes] = set()
        self.shown_open: dict[str, float] = {}
        self.rejected: set[str] = set()
        self.dropped: set[str] = set()
        self.own_only = False  # whether reports on a request go live to the session that sent it, and to no other
        self.senders: dict[str, int] = {}
        self.mute_until = 0.0
        self.down_until = 0.0
        self._sessions_opened = 0

    # -- orders

    def place(self, client_id: str, symbol: str, plays: list[str]) -> Order:
        order = Order(self._uuid(), client_id, symbol, self.world.now().utc_us, plays=plays)
        order.last_request = client_id
        self.orders[order.order_id] = order
        self.report(order, "New", "New", client_id)
        return order

    def _uuid(self) -> str:
        return str(UUID(int=self.world.rng.getrandbits(128), version=4))

    def report(self, order: Order | None, exec_type: str, status: str, cl_ord_id: str, **more: Any) -> None:
        """Make a report, keep it for replays and send it to the sessions; some are lost live, some come twice."""
        at = self.world.utc()
        record = {
            "Timestamp": at,
            "Symbol": order.symbol if order else "BTC-USD",
            "Side": "Buy",
            "OrderID": order.order_id if order else more.pop("order_id", "NONE"),
            "ClOrdID": cl_ord_id,
            "ExecID": self._uuid(),
            "ExecType": exec_type,
            "OrdStatus": status,
            "LeavesQty": "0" if status in ("Filled", "Canceled") else "1",
            "CumQty": "1" if status == "Filled" else "0",
            "AvgPx": "0",
            **more,
        }
        if order is not None:
            order.timestamp = at
            if exec_type in ("CancelRejected", "Rejected"):
                self.rejected.add(cl_ord_id)
        else:
            self.rejected.add(cl_ord_id)
        body = encode(record)
        self.reports_made.add(body)
        self.history.append((self.world.now().utc_us, record, body))
        self.world.tell(f"venue    {exec_type} {status} of {str(record['OrderID'])[:8]} for {cl_ord_id[:8]}")
        if self.trouble and self.world.chance(0.05):
            self.dropped.add(record["ExecID"])
            return
        sender = self.senders.get(cl_ord_id) if self.own_only else None
        for session in list(self.sessions.values()):
            if sender is not None and session.number != sender:
                continue
            for stream in list(session.streams.values()):
                if stream.name == "ExecutionReport" and _matches(record, stream.wanted):
                    for _ in range(2 if self.trouble and self.world.chance(0.05) else 1):
                        self._push(session, stream, [body], initial=False)

    # -- frames

    def take(self, session: Session, data: bytes) -> None:
        frame = msgspec.json.decode(data)
        reqid, kind = frame["reqid"], frame["type"]
        if kind not in ("page", "cancel"):
            assert reqid not in session.used, "reqid used twice"
            session.used.add(reqid)
        if kind == "OrderCancelRequest":
            self._cancels(session, reqid, frame["data"])
        elif kind == "subscribe" and session.open:
            self._subscribe(session, reqid, frame["streams"][0])
        elif kind == "page" and session.open:
            stream = session.streams.get(reqid)
            if stream is not None:
                self._page(session, stream)
        elif kind == "cancel":
            session.streams.pop(reqid, None)
        elif kind == "Ping" and session.open:
            session.send({"reqid": reqid, "type": "Pong", "ts": self.world.utc(), "data": frame["data"]})

    def open(self, process: Process, slot: int) -> None:
        if self.trouble and self.world.seconds < self.down_until:
            process.pool.open_later(slot)
            return
        self._sessions_opened += 1
        session = Session(self, process, self._sessions_opened, slot)
        self.sessions[session.number] = session
        process.pool.sessions[slot] = session
        process.runner.session_opened(session.number, slot)
        if not (self.trouble and self.world.chance(0.03)):
            session.send({"type": "hello", "ts": self.world.utc(), "session_id": f"S{session.number:05d}"})

    def _subscribe(self, session: Session, reqid: int, filters: dict[str, Any]) -> None:
        stream = Stream(reqid, filters["name"], _wanted(filters))
        session.streams[reqid] = stream
        since, wanted = parse_utc(filters["StartDate"]), stream.wanted
        if stream.name == "ExecutionReport":
            rows = [b for at, r, b in self.history if at >= since and _matches(r, wanted)]
            self.world.rng.shuffle(rows)  # the order inside a replay is not known (3.3)
        else:
            orders = [o for o in self.orders.values() if o.submitted_us >= since]
            rows = [encode(r) for r in map(_order_record, orders) if _matches(r, wanted)]
        stream.rest = rows
        self._page(session, stream)

    def _page(self, session: Session, stream: Stream) -> None:
        if self.trouble and (self.world.seconds < self.mute_until or self.world.chance(0.01)):
            return  # the answer never comes: a timer has to end the wait
        rows, stream.rest = stream.rest[:PAGE], stream.rest[PAGE:]
        self._push(session, stream, rows, initial=True)

    def _push(self, session: Session, stream: Stream, rows: list[bytes], *, initial: bool) -> None:
        stream.seq += 1
        frame: dict[str, Any] = {
            "reqid": stream.reqid, "type": stream.name, "ts": self.world.utc(), "seqNum": stream.seq,
        }  # fmt: skip
        if initial:
            frame["initial"] = True
            if stream.rest:
                frame["next"] = f"cursor-{stream.seq}"
        session.send(frame, rows)

    def seen_by(self, process: Process, body: bytes) -> None:
        """Note when a replay ended, and which orders an Order record showed open to this process, and when (for I5)."""
        if b'"type":"ExecutionReport"' in body and b'"initial":true' in body and b'"next":' not in body:
            process.replay_ended = self.world.seconds
        if b'"type":"Order"' in body:
            for record in msgspec.json.decode(body)["data"]:
                if record["OrdStatus"] in OPEN:
                    process.shown_open[record["OrderID"]] = self.world.seconds

    # -- cancels

    def _cancels(self, session: Session, reqid: int, elements: list[dict[str, Any]]) -> None:
        if self.trouble and self.world.chance(0.02):
            code = self.world.rng.choice([1, 9])
            self.world.tell(f"venue    refuses frame {reqid} of session {session.number} with code {code}")
            fault = {"code": code, "msg": "no"}
            session.send({"reqid": reqid, "type": "error", "ts": self.world.utc(), "error": fault})
            return
        for element in elements:
            self.senders[element["ClOrdID"]] = session.number
            self.world.after(self.world.delay(0.0, 0.05), lambda e=element: self._cancel(e))  # type: ignore[misc]

    def _cancel(self, element: dict[str, Any]) -> None:
        request = element["ClOrdID"]
        self.arrivals[request] = self.arrivals.get(request, 0) + 1
        order = self.orders.get(element["OrderID"]) if "OrderID" in element else self._by_client(element["OrigClOrdID"])
        self.world.tell(
            f"venue    takes cancel {request[:8]} for {str(element.get('OrderID') or element['OrigClOrdID'])[:8]}"
        )
        if order is None:
            self.report(None, "CancelRejected", "Rejected", request, CxlRejReason=1)
            return
        if request in self.cl_ord_ids:
            self.report(order, "CancelRejected", order.status, request, CxlRejReason=6)
            return
        if not order.is_open:
            self.cl_ord_ids[request] = order.order_id
            self.report(order, "CancelRejected", order.status, request, CxlRejReason="TooLateToCancel")
            return
        play = order.plays.pop(0) if order.plays and self.trouble else "cancel"
        if play == "ignore":
            return
        self.cl_ord_ids[request] = order.order_id
        getattr(self, f"_play_{play}")(order, request)

    def _by_client(self, client_id: str) -> Order | None:
        return next((o for o in self.orders.values() if o.client_id == client_id), None)

    def _later(self, call: Any) -> None:
        self.world.after(self.world.delay(0.0, 0.3), call)

    def _close(self, order: Order, status: str, request: str) -> None:
        if order.is_open:
            order.status, order.closed_by = status, request
            order.closed_at = self.world.seconds

    def _play_cancel(self, order: Order, request: str, *, pending: bool = True) -> None:
        if pending:
            order.status, order.last_request = "PendingCancel", request
            self.report(order, "PendingCancel", "PendingCancel", request)

        def done() -> None:
            if order.is_open:
                order.last_request = request
                self._close(order, "Canceled", request)
                self.report(order, "Canceled", "Canceled", request)
            else:
                self.report(order, "CancelRejected", order.status, request, CxlRejReason=0)

        self._later(done)

    def _play_quick(self, order: Order, request: str) -> None:
        self._play_cancel(order, request, pending=False)

    def _play_filled(self, order: Order, request: str) -> None:
        def done() -> None:
            if order.is_open:
                self._close(order, "Filled", "market")
                self.report(order, "Trade", "Filled", self.world.rng.choice([request, order.client_id]))
            if self.world.chance(0.5):
                self._later(lambda: self.report(order, "CancelRejected", order.status, request, CxlRejReason="0"))

        self._later(done)

    def _play_refuse(self, order: Order, request: str) -> None:
        self.report(order, "CancelRejected", order.status, request, CxlRejReason=2, Text="not now")

    def _play_late(self, order: Order, request: str) -> None:
        self.report(order, "CancelRejected", "New", request, CxlRejReason=0)

    def _play_other(self, order: Order, request: str) -> None:
        self._close(order, "Canceled", "somebody")
        order.last_request = "somebody"
        self.report(order, "Canceled", "Canceled", "somebody")
        self.report(order, "CancelRejected", "Canceled", request, CxlRejReason=0)

    def _play_running(self, order: Order, request: str) -> None:
        self.report(order, "CancelRejected", "PendingReplace", request, CxlRejReason=3)
        self._later(lambda: self.report(order, "ReplaceRejected", order.status, "somebody"))


def _order_record(order: Order) -> dict[str, Any]:
    return {
        "Timestamp": order.timestamp,
        "Symbol": order.symbol,
        "OrderID": order.order_id,
        "ClOrdID": order.last_request,
        "OrigClOrdID": order.client_id,
        "Side": "Buy",
        "SubmitTime": format_utc(order.submitted_us),
        "ExecType": order.status,
        "OrdStatus": order.status,
        "OrderQty": "1",
        "OrdType": "Limit",
        "Currency": "BTC",
    }


def _wanted(filters: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(key, filters[key]) for key in ("OrderID", "Symbol") if key in filters]


def _matches(record: dict[str, Any], wanted: list[tuple[str, Any]]) -> bool:
    return not wanted or all(record[key] == value for key, value in wanted)
