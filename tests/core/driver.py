"""Drives one engine by hand: virtual time, a broker and a venue that do only what the test says.

Nothing happens behind a test's back but three things: every fact is followed by a ``flush``, as in the runner; the
venue answers each *question*, that is a ``subscribe`` of a look-up, at once, from the lists ``history`` (reports) and
``orders`` (Order records), unless ``answering`` is off; it answers a ``Ping``, unless ``alive`` is off. The list for
the worker's own book is no question, and answered whenever ``listing`` is on. Reports on cancels, confirms, losses, the
passing of time are always the test's own lines.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import structs

from tests.core.payloads import START_US, Fields, cancel_body, report
from worker.config import Config
from worker.core.book import Listing
from worker.core.clock import Now
from worker.core.effects import (
    Consume,
    DropSession,
    Effect,
    Note,
    OutEvent,
    Reply,
    SearchAudit,
    SendText,
    SessionIsReady,
    Settle,
    Stopped,
)
from worker.core.engine import Engine
from worker.core.facts import (
    AuditSearched,
    ConsumerLost,
    ConsumerStopped,
    ConsumerUp,
    Delivery,
    EventNacked,
    EventReturned,
    Fact,
    GraceOver,
    PublisherLost,
    PublisherUp,
    SessionLost,
    SessionOpened,
    StopAsked,
)
from worker.wire.command import Lane, Properties
from worker.wire.timestamp import format_utc

LANES: tuple[Lane, Lane] = ("kill", "cancel")


def config(**sections: dict[str, Any]) -> Config:
    """The built-in configuration with some keys changed: ``config(venue={"max_batch": 2})``."""
    base = Config()
    changed = {name: structs.replace(getattr(base, name), **keys) for name, keys in sections.items()}
    return structs.replace(base, **changed)


Told = Callable[[Engine, Now], None]
"""A fact that the engine is told by a method of its own."""


def delivered(delivery: Delivery, body: bytes, properties: Properties, redelivered: bool = False) -> Told:
    """A command came."""
    return lambda engine, now: engine.command_delivered(delivery, redelivered, properties, body, now)


def received(session: int, message: bytes) -> Told:
    """A message of the venue came."""
    return lambda engine, now: engine.frames_received(session, [message], now)


def confirmed(event: OutEvent) -> Told:
    """The broker stored an event."""
    return lambda engine, now: engine.event_confirmed(event, now)


class Sent(NamedTuple):
    """One text message to the venue, read again."""

    session: int
    frame: Fields


class Driver:
    """An engine, and what has come out of it so far."""

    def __init__(self, *, sessions: int = 1, connected: bool = True, **sections: dict[str, Any]) -> None:
        self.mono = 1000.0
        self.utc_us = START_US
        self.engine = Engine(config(**sections), "worker-1", self.now)
        self.sent: list[Sent] = []
        self.published: list[OutEvent] = []
        self.unconfirmed: list[OutEvent] = []
        self.settled: list[Settle] = []
        self.replies: list[Reply] = []
        self.consuming: dict[Lane, bool] = {"kill": False, "cancel": False}
        self.dropped: list[DropSession] = []
        self.ready_told: list[int] = []
        self.notes: list[Note] = []
        self.searches: list[SearchAudit] = []
        self.stopped = 0
        self.history: list[Fields] = []
        self.orders: list[Fields] = []
        self.answering = True
        self.listing = True
        self.alive = True
        self._unanswered: list[Sent] = []
        self._tag = 0
        self._session = 0
        self.frame_numbers: dict[tuple[int, int], int] = {}
        self._mains: list[tuple[int, int]] = []
        self._listings: list[tuple[int, int]] = []
        if connected:
            for lane in LANES:
                self.step(PublisherUp(lane))
                self.step(ConsumerUp(lane))
        for slot in range(sessions):
            self.connect(slot)

    # -- time and facts

    @property
    def now(self) -> Now:
        return Now(self.mono, self.utc_us)

    def step(self, *facts: Fact | Told) -> None:
        """Tell facts within one turn of the loop."""
        for fact in facts:
            if callable(fact):
                fact(self.engine, self.now)
            else:
                self.engine.step(fact, self.now)
            self._collect()
        self._turn()

    def _turn(self) -> None:
        """The end of a turn of the loop: fill frames, and let the venue answer until it has nothing more to say."""
        while self.engine.flush(self.now):
            self._collect()
        self._collect()
        while (sent := next(filter(self._may_be_answered, self._unanswered), None)) is not None:
            self._unanswered.remove(sent)
            self._answer(sent)

    def advance(self, seconds: float) -> None:
        """Let time pass, waking the engine whenever it asked to be woken."""
        target = self.mono + seconds
        while (due := self.engine.next_due()) is not None and due <= target:
            self.let_pass(max(due, self.mono + 0.0005))  # the runner never wakes more often than that
            self.engine.tick(self.now)
            self._collect()
            self._turn()
        self.let_pass(max(target, self.mono))
        self._turn()

    def advance_until(self, happened: Callable[[], bool], step: float, most: float = 60.0) -> float:
        """Let time pass until something happened, at most ``most`` seconds. Returns how many it took, to one step."""
        began = self.mono
        while not happened():
            assert self.mono - began < most, "it did not happen"
            self.advance(step)
        return self.mono - began

    def let_pass(self, mono: float) -> None:
        """Both clocks go on to ``mono``; nobody is woken."""
        self.utc_us += round((mono - self.mono) * 1e6)
        self.mono = mono

    def _collect(self) -> None:
        effects, self.engine.effects[:] = list(self.engine.effects), []
        for state in self.engine.sessions.all():
            if state.main is not None and (state.number, state.main.reqid) not in self._mains:
                self._mains.append((state.number, state.main.reqid))
            for sub in state.subscriptions.values():
                if isinstance(sub.query, Listing) and (state.number, sub.reqid) not in self._listings:
                    self._listings.append((state.number, sub.reqid))
        for effect in effects:
            self._take(effect)

    def _take(self, effect: Effect) -> None:
        match effect:
            case SendText():
                self.sent.append(Sent(effect.session, json.loads(effect.data)))
                self._unanswered.append(self.sent[-1])
            case OutEvent():
                assert effect not in self.unconfirmed, "two publishes of one event in flight"
                self.published.append(effect)
                self.unconfirmed.append(effect)
            case Settle():
                assert effect.delivery not in [each.delivery for each in self.settled], "settled twice"
                self.settled.append(effect)
            case Reply():
                self.replies.append(effect)
            case Consume():
                assert self.consuming[effect.lane] != effect.on
                self.consuming[effect.lane] = effect.on
            case DropSession():
                self.dropped.append(effect)
            case SessionIsReady():
                self.ready_told.append(effect.session)
            case Note():
                self.notes.append(effect)
            case SearchAudit():
                self.searches.append(effect)
            case Stopped():
                self.stopped += 1

    # -- sessions

    def connect(self, slot: int = 0, *, replay: Sequence[Fields] | None = ()) -> int:
        """A session of the pool, greeted and with its replay ended: ready. ``replay`` None leaves the replay open."""
        session = self.open(slot)
        self.greet(session)
        if replay is not None and any(number == session for number, _ in self._mains):
            self.frame(session, data=list(replay), initial=True)
        return session

    def open(self, slot: int = 0) -> int:
        """The upgrade succeeded; nothing more."""
        self._session += 1
        self.step(SessionOpened(self._session, slot))
        return self._session

    def greet(self, session: int, ts: str | None = None) -> None:
        """The venue's ``hello``."""
        stamp = ts if ts is not None else format_utc(self.utc_us)
        self.raw(session, {"type": "hello", "ts": stamp, "session_id": f"2Q7DKM41VXR{session:02d}"})

    def lose(self, session: int, reason: str = "connection reset") -> None:
        """The session ended."""
        self.step(SessionLost(session, reason))

    def raw(self, session: int, frame: Fields | bytes) -> None:
        """One text message of the venue, as it is."""
        self.step(received(session, frame if isinstance(frame, bytes) else json.dumps(frame).encode()))

    def main(self, session: int) -> int:
        """The reqid under which the engine follows the session's own report stream now."""
        return next(reqid for number, reqid in reversed(self._mains) if number == session)

    def frame(self, session: int, reqid: int | None = None, type: str = "ExecutionReport", **fields: Any) -> None:
        """A stream frame with the right sequence number, on the session's own report stream if no reqid is given."""
        if reqid is None:
            reqid = self.main(session)
        seq = self.frame_numbers[session, reqid] = self.frame_numbers.get((session, reqid), 0) + 1
        self.raw(session, {"reqid": reqid, "type": type, "ts": format_utc(self.utc_us), "seqNum": seq, **fields})

    def report(self, exec_type: str, session: int | None = None, **fields: Any) -> Fields:
        """A live report, on the newest session unless another is named. Returns the record."""
        record = report(exec_type, **{"Timestamp": format_utc(self.utc_us), **fields})
        self.frame(self._session if session is None else session, data=[record])
        return record

    def error(self, reqid: int | None, code: int | str = 7, session: int | None = None, msg: str = "no") -> None:
        """An error frame (protocol 3.7)."""
        frame: Fields = {"type": "error", "seq": 1, "ts": format_utc(self.utc_us), "error": {"code": code, "msg": msg}}
        if reqid is not None:
            frame["reqid"] = reqid
        self.raw(self._session if session is None else session, frame)

    # -- the venue's answers to questions

    def _may_be_answered(self, sent: Sent) -> bool:
        if (sent.session, sent.frame["reqid"]) in self._listings:
            return self.listing
        return self.alive if sent.frame["type"] == "Ping" else self.answering

    def _answer(self, sent: Sent) -> None:
        frame = sent.frame
        if frame["type"] == "Ping":
            self.raw(sent.session, {**frame, "type": "Pong"})
        if frame["type"] != "subscribe" or (sent.session, frame["reqid"]) in self._mains:
            return
        stream = frame["streams"][0]
        known = self.history if stream["name"] == "ExecutionReport" else self.orders
        wanted = {key: stream[key] for key in ("OrderID", "Symbol") if key in stream}
        data = [each for each in known if wanted.items() <= each.items()]
        self.frame(sent.session, frame["reqid"], stream["name"], initial=True, data=data)

    def questions(self) -> list[Fields]:
        """The streams that look-ups asked for so far, in order."""
        return [s.frame["streams"][0] for s in self.subscribes() if (s.session, s.frame["reqid"]) not in self._mains]

    def listings(self) -> list[Fields]:
        """The lists that were asked for the worker's own book, in order."""
        return [
            s.frame["streams"][0]
            for s in self.sent
            if (s.session, s.frame.get("reqid")) in self._listings and s.frame["type"] == "subscribe"
        ]

    def subscribes(self, session: int | None = None) -> list[Sent]:
        """Every ``subscribe`` so far, but for the lists for the worker's own book."""
        asked = [s for s in self.sent if s.frame["type"] == "subscribe" and session in (None, s.session)]
        return [s for s in asked if (s.session, s.frame["reqid"]) not in self._listings]

    def cancel_frames(self, session: int | None = None) -> list[Fields]:
        """Every ``OrderCancelRequest`` so far."""
        return [s.frame for s in self.sent if s.frame["type"] == "OrderCancelRequest" and session in (None, s.session)]

    def cancels_sent(self) -> list[str]:
        """The ClOrdIDs that went out, in order, resends included."""
        return [each["ClOrdID"] for frame in self.cancel_frames() for each in frame["data"]]

    # -- the broker

    def deliver(
        self,
        *items: Fields,
        id: str | None = "cmd-1",
        lane: Lane = "cancel",
        redelivered: bool = False,
        headers: dict[str, object] | None = None,
        body: bytes | None = None,
        epoch: int = 1,
        **properties: Any,
    ) -> Delivery:
        """One command. Returns its delivery, to ask ``settlement`` about."""
        self._tag += 1
        delivery = Delivery(lane, epoch, self._tag)
        text = cancel_body(*items) if body is None else body
        made = Properties(message_id=id, headers=headers or {}, **properties)
        self.step(delivered(delivery, text, made, redelivered))
        return delivery

    def settlement(self, delivery: Delivery) -> Literal["ack", "dead_letter", "requeue"] | None:
        """How a delivery was settled; None: not yet."""
        return next((s.how for s in self.settled if s.delivery == delivery), None)

    def confirm(self) -> None:
        """The broker confirms all that was published, and what is published upon that, until nothing is left."""
        while self.unconfirmed:
            self.step(confirmed(self.unconfirmed.pop(0)))

    def nack(self, event: OutEvent) -> None:
        """A queue bound to the results exchange refused the event."""
        self.unconfirmed.remove(event)
        self.step(EventNacked(event))

    def give_back(self, event: OutEvent) -> None:
        """No queue is bound for the event."""
        self.unconfirmed.remove(event)
        self.step(EventReturned(event, 312, "NO_ROUTE"))

    def lose_publisher(self, lane: Lane) -> None:
        """The lane's publishing connection is gone, and its confirms with it."""
        self.unconfirmed = [event for event in self.unconfirmed if event.lane != lane]
        self.step(PublisherLost(lane, "connection reset"))

    def lose_consumer(self, lane: Lane) -> None:
        """The lane's channel is gone, and its deliveries with it."""
        self.consuming[lane] = False
        self.step(ConsumerLost(lane, "connection reset"))

    def stop_consumers(self) -> None:
        """The broker confirms every ``basic.cancel`` that is out."""
        for lane in LANES:
            if self.engine.consumers[lane] == "stopping":
                self.step(ConsumerStopped(lane))

    def ask_to_stop(self) -> None:
        """SIGTERM."""
        self.step(StopAsked())

    def end_grace(self) -> None:
        """``shutdown.grace`` is used up."""
        self.step(GraceOver())

    def audit_says(self, found: bool | None, id: str = "cmd-1") -> None:
        """The audit stream was searched for a mass cancel's own final; None: it could not be read."""
        self.step(AuditSearched(id, found))

    # -- events

    def events(self, outcome: str | None = None, id: str | None = None) -> list[Fields]:
        """Every event in the order of its first publish, as a consumer reads it."""
        firsts = {event.event_id: event for event in reversed(self.published)}
        read = [json.loads(firsts[event_id].body) for event_id in dict.fromkeys(e.event_id for e in self.published)]
        return [e for e in read if outcome in (None, e["outcome"]) and id in (None, e["command_id"])]

    def finals(self, id: str | None = None) -> list[Fields]:
        """Every final event."""
        return [e for e in self.events(id=id) if e["final"]]

    def final(self, id: str = "cmd-1", index: int | None = 0) -> Fields:
        """The one final of a cancel."""
        (event,) = [e for e in self.finals(id) if e["index"] == index]
        return event

    def outcomes(self, id: str | None = None) -> list[str]:
        """The outcomes of all events, in order."""
        return [e["outcome"] for e in self.events(id=id)]

    def outcome(self, id: str = "cmd-1", index: int | None = 0) -> str | None:
        """The outcome of a cancel; None while it has none."""
        found = [e["outcome"] for e in self.finals(id) if e["index"] == index]
        assert len(found) <= 1, found
        return found[0] if found else None

    # -- the end

    def left_over(self) -> Iterator[str]:
        """What is still held though every command was settled; nothing, if all is well."""
        engine = self.engine
        if not engine.intake.is_empty:
            yield f"commands {list(engine.intake.commands)}"
        if len(engine.outbox):
            yield f"{len(engine.outbox)} events"
        for lane in LANES:
            if engine.stats.inflight[lane]:
                yield f"{engine.stats.inflight[lane]} in flight in {lane}"
        for session in engine.sessions.all():
            if session.frames or session.inflight:
                yield f"session {session.number}: {len(session.frames)} frames, {session.inflight} cancels"
            if len(session.subscriptions) > 1:
                yield f"session {session.number}: {len(session.subscriptions)} subscriptions"
