"""One process of the worker in the simulation: the real engine and runner, modelled links, and a way to be killed."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import chain
from math import inf
from typing import Final

import msgspec

from tests.simulation.broker import LANES, Broker, ConsumerPort, PublisherPort
from tests.simulation.venue import Session, Venue
from tests.simulation.world import Handle, World
from worker.config import Config
from worker.core.cancel import CancelState
from worker.core.ended import EndedCancel
from worker.core.engine import Engine
from worker.runner import Runner
from worker.wire.command import Lane

LIST_SERVES_S: Final = 20.0
"""With the time that a list takes to be read (worker.core.listing)."""

CL_ORD_IDS: Final = re.compile(rb'"ClOrdID":"([^"]*)"')


class Killed(BaseException):
    """The process died between two effects."""


class Quiet:
    """A log that tells the story."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self._number = number

    def info(self, event: str, /, **fields: object) -> None:
        if event != "cancel_final":
            self._world.tell(f"log {self._number}    {event} {fields}")

    warning = error = debug = info


class Pool:
    """The modelled pool of sessions: two slots, opened again some time after a loss."""

    def __init__(self, process: Process, slots: int) -> None:
        self.process = process
        self.sessions: dict[int, Session] = {}
        self._sent: list[tuple[int, bytes]] = []
        for slot in range(slots):
            self.open_later(slot)

    def open_later(self, slot: int) -> None:
        world = self.process.world
        self.process.after(world.delay(0.05, 2.0), lambda: self.process.venue.open(self.process, slot))

    def send(self, session: int, data: bytes) -> None:
        self.process.check_send(session, data)
        live = self.process.venue.sessions.get(session)
        if live is not None:
            live.receive(data)

    def flush(self) -> None:
        """Frames leave as they are sent."""

    def drop(self, session: int, reason: str) -> None:
        live = self.process.venue.sessions.get(session)
        if live is not None:
            self.process.world.in_order(lambda: live.cut(reason))

    def session_ready(self, session: int) -> None:
        """Nothing waits for it here."""


class Process:
    """A worker from its start to its death. ``kill_at`` counts effects: the process dies before that one."""

    def __init__(self, world: World, broker: Broker, venue: Venue, config: Config, number: int, checks: Checks) -> None:
        self.world, self.broker, self.venue, self.checks = world, broker, venue, checks
        self.number = number
        self.alive = True
        self.stopped_cleanly = False
        self.started = world.seconds
        self.shown_open: dict[str, float] = {}
        self.replay_ended = -1.0
        self.asks_since: dict[str, float] = {}
        self.memory = config.results.memory
        self.engine = Engine(config, f"worker-{number}", world.now())
        self.runner = Runner(self.engine, Quiet(world, number), self, self, world.now)
        self.consumers = {lane: ConsumerPort(broker, self, lane) for lane in LANES}
        self.publishers = {lane: PublisherPort(broker, self, lane) for lane in LANES}
        self.pool = Pool(self, config.venue.sessions)
        self.runner.attach({**self.consumers}, {**self.publishers}, self.pool)
        self.runner.start()
        for lane in LANES:
            self.after(world.delay(0.05, 0.5), self.consumers[lane].come_up)
            self.after(world.delay(0.05, 0.5), self.publishers[lane].come_up)
        self._effects_left: int | None = None

    def kill_after(self, effects: int) -> None:
        """Die before one of the next effects."""
        self._effects_left = effects
        perform = self.runner._carry_out

        def counted(effect: object) -> None:
            if self._effects_left is not None:
                self._effects_left -= 1
                if self._effects_left < 0:
                    raise Killed
            perform(effect)  # type: ignore[arg-type]

        self.runner._carry_out = counted  # type: ignore[method-assign]

    def die(self) -> None:
        """SIGKILL: nothing of it is left; frames and publishes that are under way may still arrive."""
        if not self.alive:
            return
        self.alive = False
        self.world.tell(f"worker {self.number} KILLED")
        for session in list(self.pool.sessions.values()):
            session.cut("the worker was killed")
        for consumer in self.consumers.values():
            consumer.lose("the worker was killed")
        for publisher in self.publishers.values():
            publisher.lose("the worker was killed")

    # -- the loop of the runner

    def time(self) -> float:
        return self.world.now().mono

    def call_soon(self, callback: Callable[[], object]) -> Handle:
        return self.world.in_order(lambda: self.call(callback))

    def call_later(self, delay: float, callback: Callable[[], object]) -> Handle:
        return self.world.after(delay, lambda: self.call(callback))

    def after(self, delay: float, callback: Callable[[], object]) -> Handle:
        return self.world.after(delay, lambda: self.call(callback))

    def call(self, callback: Callable[[], object]) -> None:
        """Run something of this process, if it lives."""
        if not self.alive:
            return
        try:
            callback()
        except Killed:
            self.die()

    # -- the host of the runner

    def trouble(self, source: str, reason: str) -> None:
        """The story has it from the log."""

    def stopped(self) -> None:
        self.stopped_cleanly = True

    def search_audit(self, command_id: str, event_id: str, since_us: int | None) -> None:
        found = None if self.broker.trouble and self.world.chance(0.2) else event_id in self.broker.by_id
        self.after(self.world.delay(0.01, 0.2), lambda: self.runner.audit_searched(command_id, found))

    def failed(self, error: Exception) -> None:
        raise error

    @property
    def is_at_rest(self) -> bool:
        """Nothing is held and nothing waits for a confirm."""
        return self.engine.intake.is_empty and not len(self.engine.outbox)

    # -- checks now and then

    def is_at(self, command_id: str | None) -> bool:
        """Whether it lives and has the command in hand."""
        return self.alive and command_id in self.engine.intake.commands

    def check_left_over(self) -> list[str]:
        """At rest."""
        engine = self.engine
        found = self.check_memory()
        if engine.stats.inflight != {"kill": 0, "cancel": 0}:
            found.append(f"left over: inflight {engine.stats.inflight}")
        if any(s.frames or s.inflight for s in engine.sessions.all()):
            found.append("left over: frames on a session")
        return found

    def check_memory(self) -> list[str]:
        """Nothing is held for what is over, at any time: cancels, streams, frames, notes of refused events."""
        engine = self.engine
        found: list[str] = []
        indices = (engine.desk.inflight._by_request, engine.desk.inflight._by_order, engine.desk.inflight._by_client)
        held: set[CancelState | EndedCancel] = set()
        for index in indices:
            for there in index.values():
                held.update(there if isinstance(there, list) else [there])
        known: set[CancelState | EndedCancel | None] = set(engine.desk.inflight._ended)
        known |= {c for command in engine.intake.commands.values() for c in command.cancels}
        events = [e for lane in LANES for e in engine.outbox._events[lane].values()]
        known |= {e.cancel for e in [*events, *chain.from_iterable(engine.outbox._others.values())]}
        found += [f"memory: cancel {c.cl_ord_id} is in an index" for c in held - known]
        remembered = engine.desk.inflight._ended
        if len(remembered) > self.memory:
            found.append(f"memory: {len(remembered)} ended cancels are remembered")
        asked = {id(q) for inquiry in engine.lookups._running.values() for q in inquiry.open_queries}
        asked |= {id(q) for sweep in engine.sweeps._running.values() for q in (sweep.snapshot, sweep.recovery)}
        asked = (asked | {id(engine.reader.listing)}) - {id(None)}
        for session in engine.sessions.all():
            for sub in session.subscriptions.values():
                if sub is not session.main and id(sub.query) not in asked:
                    found.append(f"memory: stream {sub.reqid} of session {session.number} is nobody's")
            for frame in session.frames.values():
                if not 0 < frame.unanswered == sum(c.frame is frame for c in frame.cancels):
                    found.append(f"memory: frame {frame.reqid} of session {session.number} waits for nobody")
        unconfirmed = {event_id for lane in LANES for event_id in engine.outbox._events[lane]}
        if not unconfirmed >= engine.outbox.refused.keys() | engine.outbox._others.keys():
            found.append("memory: an event that is stored counts as refused, or is waited for")
        return found

    def note_redelivered(self, command_id: str, body: bytes) -> None:
        """A command came again, and this process knows nothing of it: it has to ask before it sends."""
        intake = self.engine.intake
        if command_id not in intake.commands and command_id not in intake._ended:
            for request in CL_ORD_IDS.findall(body):
                self.asks_since[request.decode()] = self.world.seconds

    # -- checks at the effect

    def check_send(self, session: int, data: bytes) -> None:
        frame = msgspec.json.decode(data)
        if frame["type"] == "OrderCancelRequest":
            state = next((s for s in self.engine.sessions.all() if s.number == session), None)
            if state is None or not state.ready:
                self.checks.violations.append(f"I6: cancels sent on session {session}, whose reports are not live")
            self.checks.sent(self, frame["data"])

    def check_session_lost(self, session: int) -> None:
        """Nothing waits for the reports of a session that is gone: its cancels are final or doubtful at once."""
        for command in self.engine.intake.commands.values():
            for cancel in command.cancels if self.alive else ():
                if cancel.frame is not None and cancel.frame.session.number == session:
                    name = f"{command.command_id[:8]}/{cancel.index}"
                    self.checks.violations.append(f"I5: cancel {name} still waits on session {session}, which is lost")

    def check_consumer_lost(self, lane: Lane) -> None:
        """No delivery outlives its channel."""
        for command in self.engine.intake.commands.values():
            if self.alive and any(delivery.lane == lane for delivery in command.deliveries):
                self.checks.violations.append(f"I7: command {command.command_id[:8]} holds a delivery that is void")


class Checks:
    """I4 and I5 at every send: no cancel after its deadline, none again without a look-up that found the order open."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.violations: list[str] = []
        self.deadlines: dict[str, int] = {}
        self.last_sent: dict[str, tuple[float, Process]] = {}
        self.known_by: dict[str, str] = {}
        self.published_twice: set[str] = set()
        self.sweep_of: dict[str, str] = {}

    def sent(self, process: Process, elements: list[dict[str, str]]) -> None:
        for element in elements:
            request = element["ClOrdID"]
            order_id = element.get("OrderID") or self.known_by.get(element["OrigClOrdID"], "")
            self.world.tell(f"worker {process.number} sends {request[:8]} for {order_id[:8]}")
            deadline = self.deadlines.get(request)
            if deadline is not None and self.world.now().utc_us > deadline:
                self.violations.append(f"I4: {request} sent after its deadline")
            order = process.venue.orders.get(order_id)
            closed_at = order.closed_at if order is not None else None
            twice = request in self.published_twice  # its other copy is not marked as redelivered
            if closed_at is not None and not twice and closed_at < process.asks_since.get(request, 0.0):
                self.violations.append(f"I5: {request} sent, though a look-up would have shown {order_id} closed")
            before = self.last_sent.get(request)
            # A publisher's duplicate that reaches another worker may be sent once more (contract 4.3).
            duplicate = request in self.published_twice and before is not None and before[1] is not process
            # So may an order of a mass cancel that two workers are at, of which one has lost its link: they can't know.
            rival = before is not None and before[1] is not process and before[1].is_at(self.sweep_of.get(request))
            if before is not None and not duplicate and not rival:
                since = max(before[0], process.started if before[1] is not process else before[0])
                shown = process.shown_open.get(order_id, -inf)
                # A list of a short while ago serves beside a replay that ends now and would have told of an end since.
                now = self.world.seconds
                listed = process.replay_ended > max(since, now - 0.5) and shown > now - LIST_SERVES_S
                if shown <= since and not listed:
                    self.violations.append(f"I5: {request} sent again without a look-up that found {order_id} open")
            self.last_sent[request] = (self.world.seconds, process)
            for command in process.engine.intake.commands.values():
                if command.sweep is not None and order_id in command.sweep.orders:
                    swept = command.sweep.orders[order_id].cancel
                    if swept is not None and swept.cl_ord_id == request:
                        self.sweep_of[request] = command.command_id
