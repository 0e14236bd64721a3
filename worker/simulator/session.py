"""One authenticated session: reads requests, keeps subscriptions, sends frames. Knows no socket: see server.py."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from worker.simulator.book import Book, Entry, Order
from worker.simulator.ledger import Ledger, Received
from worker.simulator.script import Connect, How, Script
from worker.simulator.streams import BadRequest, Subscription, read_filter
from worker.simulator.wire import (
    DUPLICATE_REQID,
    INVALID_REQUEST,
    error_frame,
    hello_frame,
    parse_stamp,
    pong_frame,
    stamp,
)

_decode = msgspec.json.Decoder().decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Line(Protocol):
    """The socket under a session."""

    def write(self, frame: bytes) -> None: ...
    def end(self, how: How) -> None: ...


class SessionPort(Protocol):
    """What a session needs of the venue."""

    script: Script
    book: Book
    ledger: Ledger
    rng: random.Random

    def now_us(self) -> int: ...
    def later(self, delay_s: float, call: Callable[[], None]) -> None: ...
    def soon(self, call: Callable[[], None]) -> None: ...
    def cancel_frame(self, session: Session, reqid: int, elements: list[object]) -> None: ...
    def look_up(self, order_id: str, symbol: str | None) -> None: ...


class Session:
    """Numbered from 1 over the life of the venue; `ended` once its line was cut or lost."""

    def __init__(self, number: int, session_id: str, key: str, rule: Connect, floor: SessionPort, line: Line) -> None:
        self.number, self.session_id, self.key, self.rule = number, session_id, key, rule
        self.subscriptions: dict[int, Subscription] = {}
        self.ended = False
        self.frames_sent = 0
        self._floor, self._line = floor, line
        self._used: set[int] = set()
        self._used_up_to = 0
        self._greeted = False
        self._flushing = False

    # -- out -----------------------------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Sends one text frame; drops it if the session has ended. Cuts after the n-th frame, if scripted."""
        if self.ended:
            return
        self.frames_sent += 1
        self._line.write(frame)
        if self.rule.cut_after_frames and self.frames_sent >= self.rule.cut_after_frames:
            self.end(self.rule.cut_how)

    def end(self, how: How) -> None:
        """Cuts the session; nothing more is sent or read."""
        if not self.ended:
            self.ended = True
            self._line.end(how)

    def greet(self) -> None:
        """The first frame: hello, another one, or none."""
        ts = stamp(self._floor.now_us())
        if self.rule.hello == "sent":
            self.send(hello_frame(ts, self.session_id))
        elif self.rule.hello == "wrong":
            self.send(msgspec.json.encode({"type": "welcome", "ts": ts}))
        self._greeted = True

    def error(self, reqid: int | None, code: int, msg: str, form: str | None = None) -> None:
        """An error frame; `form` (given, absent, zero) says which reqid it carries."""
        form = form or self._floor.script.frames.error_reqid
        shown = {"absent": None, "zero": 0}.get(form, reqid)
        self._floor.ledger.count("error_frames")
        self.send(error_frame(stamp(self._floor.now_us()), shown, 1, code, msg))
        if self._floor.script.frames.close_after_error:
            self.end(1008)

    # -- in ------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """One text frame of the client."""
        if self.ended:
            return
        try:
            message = _decode(data)
        except _UNREADABLE:
            message = None
        readable = message if isinstance(message, dict) else {}
        reqid, kind = readable.get("reqid"), readable.get("type")
        reqid = reqid if isinstance(reqid, int) and not isinstance(reqid, bool) else None
        kind = kind if isinstance(kind, str) else ""
        self._floor.ledger.frames.append(
            Received(time.monotonic(), self._floor.now_us(), self.number, self.session_id, reqid, kind, data)
        )
        self._floor.ledger.count("frames")
        if not self._greeted and self.rule.hello == "sent":
            self.error(reqid, INVALID_REQUEST, "request before hello")
            return
        if reqid is None or not 0 < reqid < 2**53:
            self.error(reqid, INVALID_REQUEST, "reqid must be an integer from 1 on")
            return
        try:
            self._dispatch(reqid, kind, readable)
        except BadRequest as refusal:
            self.error(reqid, INVALID_REQUEST, str(refusal))

    def _dispatch(self, reqid: int, kind: str, message: dict[str, Any]) -> None:
        if kind == "page":
            self._page(reqid, message)
            return
        if kind == "cancel":
            if self.subscriptions.pop(reqid, None) is None and self._floor.script.streams.unknown_cancel_error:
                raise BadRequest("no such subscription")
            return
        if reqid in self.subscriptions or (self._floor.script.frames.any_used_reqid and self._was_used(reqid)):
            self.error(reqid, DUPLICATE_REQID, "duplicate reqid")
            return
        self._use(reqid)
        match kind:
            case "OrderCancelRequest":
                elements = message.get("data")
                if not isinstance(elements, list) or not elements:
                    raise BadRequest("data must hold at least one cancel")
                self._floor.cancel_frame(self, reqid, elements)
            case "Ping":
                self._ping(reqid, message)
            case "subscribe":
                self._subscribe(reqid, message)
            case _:
                raise BadRequest(f"unknown type {kind[:40]!r}")

    def _was_used(self, reqid: int) -> bool:
        return reqid <= self._used_up_to or reqid in self._used

    def _use(self, reqid: int) -> None:
        """Clients count up from 1: the unbroken run is kept as one number."""
        self._used.add(reqid)
        while self._used_up_to + 1 in self._used:
            self._used_up_to += 1
            self._used.discard(self._used_up_to)

    def _ping(self, reqid: int, message: dict[str, Any]) -> None:
        data = message.get("data")
        if not isinstance(data, list) or not data or not all(isinstance(item, dict) for item in data):
            raise BadRequest("missing Ping data")
        if parse_stamp(message.get("ts")) is None:
            raise BadRequest("missing Ping ts")
        self.send(pong_frame(stamp(self._floor.now_us()), reqid, data, seq=self._floor.script.frames.pong_seq))

    def _subscribe(self, reqid: int, message: dict[str, Any]) -> None:
        floor, tag, streams = self._floor, message.get("tag"), message.get("streams")
        if tag is not None and not isinstance(tag, str):
            raise BadRequest("tag must be a string")
        if not isinstance(streams, list) or not streams:
            raise BadRequest("streams must hold at least one stream")
        settings = floor.script.streams
        filters = [read_filter(stream, settings) for stream in streams]
        for wanted in filters:
            if wanted.name == "Order" and wanted.order_id is not None:
                floor.look_up(wanted.order_id, wanted.symbol)
        subscription = Subscription(
            reqid, tag, filters, settings, floor.script.frames.seq_name, self.send, lambda: stamp(floor.now_us())
        )
        self.subscriptions[reqid] = subscription

        def start() -> None:
            if self.subscriptions.get(reqid) is subscription and not self.ended:
                subscription.start(floor.book, floor.rng)

        floor.later(settings.snapshot_delay, start)

    def _page(self, reqid: int, message: dict[str, Any]) -> None:
        subscription = self.subscriptions.get(reqid)
        if subscription is None:
            raise BadRequest("no such subscription")
        form = self._floor.script.streams.page_form
        wanted = message.get("streams") if form in ("streams", "both") else None
        if wanted is None and form in ("data", "both"):
            wanted = message.get("data")
        if not isinstance(wanted, list) or not wanted:
            raise BadRequest("page names no stream")
        for element in wanted:
            name, after = (element.get("name"), element.get("after")) if isinstance(element, dict) else (None, None)
            if not isinstance(name, str) or not isinstance(after, str):
                raise BadRequest("page needs name and after")
            subscription.page(name, after, self._floor.book)

    # -- live ----------------------------------------------------------------------------------------------------

    def live_report(self, entry: Entry) -> None:
        for subscription in self.subscriptions.values():
            subscription.report(entry)
        self._flush_soon()

    def live_order(self, order: Order, record: bytes) -> None:
        for subscription in self.subscriptions.values():
            subscription.order(order, record)
        self._flush_soon()

    def wants(self, name: str) -> bool:
        return any(subscription.wants(name) for subscription in self.subscriptions.values())

    def _flush_soon(self) -> None:
        if not self._flushing and any(subscription.waiting for subscription in self.subscriptions.values()):
            self._flushing = True
            self._floor.soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        for subscription in list(self.subscriptions.values()):
            subscription.flush()
