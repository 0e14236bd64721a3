"""One process of the worker in the simulation: the real engine and runner, modelled links, and a way to be killed."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tests.simulation.broker import LANES, Broker, ConsumerPort, PublisherPort
from tests.simulation.venue import Session, Venue
from tests.simulation.world import Handle, World
from worker.config import Config
from worker.core.engine import Engine
from worker.runner import Runner
from worker.wire.command import Lane


class Killed(BaseException):
    """The process died between two effects."""


class Quiet:
    """A log that tells the story."""

    def __init__(self, world: World) -> None:
        self._world = world

    def info(self, event: str, /, **fields: object) -> None:
        if event != "cancel_final":
            self._world.tell(f"log      {event} {fields}")

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
        self.process.check_send(data)
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
        self.alive = True
        self.stopped_cleanly = False
        self.started = world.seconds
        self.shown_open: dict[str, float] = {}
        self.engine = Engine(config, f"worker-{number}", world.now())
        self.runner = Runner(self.engine, Quiet(world), self, self, world.now)
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
        self.world.tell("worker   KILLED")
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

    # -- checks at the effect

    def check_send(self, data: bytes) -> None:
        frame = msgspec.json.decode(data)
        if frame["type"] == "OrderCancelRequest":
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
            self.world.tell(f"worker   sends {request[:8]} for {order_id[:8]}")
            deadline = self.deadlines.get(request)
            if deadline is not None and self.world.now().utc_us > deadline:
                self.violations.append(f"I4: {request} sent after its deadline")
            before = self.last_sent.get(request)
            # A publisher's duplicate that reaches another worker may be sent once more (contract 4.3).
            duplicate = request in self.published_twice and before is not None and before[1] is not process
            if before is not None and not duplicate:
                since = max(before[0], process.started if before[1] is not process else before[0])
                if process.shown_open.get(order_id, -1.0) <= since:
                    self.violations.append(f"I5: {request} sent again without a look-up that found {order_id} open")
            self.last_sent[request] = (self.world.seconds, process)
            for command in process.engine.intake.commands.values():
                if command.sweep is not None and order_id in command.sweep.orders:
                    swept = command.sweep.orders[order_id].cancel
                    if swept is not None and swept.cl_ord_id == request:
                        self.sweep_of[request] = command.command_id
