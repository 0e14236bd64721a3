"""One simulation: a seed in, what was violated and the story out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import msgspec

from tests.simulation.broker import LANES, Broker, Message, Stored
from tests.simulation.process import Checks, Process
from tests.simulation.venue import Order, Venue
from tests.simulation.world import World
from worker.config import Config
from worker.config.structs import Broker as BrokerConfig
from worker.config.structs import Kill, Results, Shutdown
from worker.config.structs import Venue as VenueConfig
from worker.wire.command import Lane, Properties, derive_cl_ord_id
from worker.wire.timestamp import format_utc

TROUBLE_S = 30.0
"""Faults happen up to here; afterwards everything has to come to rest (I11)."""

REST_S = 600.0

PLAYS = ("cancel", "quick", "filled", "refuse", "late", "other", "running", "ignore")

CONFIG = Config(
    broker=BrokerConfig(),
    venue=VenueConfig(
        report_timeout=1.0,
        pending_timeout=3.0,
        unknown_wait=2.0,
        doubt_window=120.0,
        snapshot_timeout=0.5,
        ping_interval=0.5,
        ping_timeout=0.5,
        lookup_max=2.0,
        max_batch=5,
    ),
    results=Results(retry_min=0.05, retry_max=1.0, memory=400),
    shutdown=Shutdown(grace=5.0),
)


LIMITED = msgspec.structs.replace(
    CONFIG,
    kill=Kill(rate_limit=30.0),
    venue=msgspec.structs.replace(CONFIG.venue, rate_limit=2.0, frames_per_second=20.0),
)
"""Every fifth seed, with bursts of commands: cancels wait, past deadlines and through losses."""

BURST_S = 6.0
"""From one burst to the next."""

CROWD_S = 4.0
"""Every fourteenth seed has several prefetches of commands within so short a time, and a worker that is killed then."""


@dataclass
class Verdict:
    """What one seed led to."""

    seed: int
    violations: list[str]
    story: list[str]
    commands: int
    kills: int

    @property
    def holds(self) -> bool:
        return not self.violations


class Simulation:
    """Builds a world from a seed and lets it run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.config: Config = LIMITED if seed % 5 == 4 else CONFIG
        self.crowded = seed % 14 == 3
        self.world = World(seed)
        self.broker = Broker(self.world)
        self.venue = Venue(self.world)
        self.venue.own_only = seed % 4 == 2
        self.broker.dropped = self.venue.dropped
        self.checks = Checks(self.world)
        self.messages: list[Message] = []
        self.targets: dict[tuple[str, int], tuple[str, str | None]] = {}
        self.kills = 0
        self.processes = 0
        self.workers = [self._start() for _ in range(2 if seed % 3 == 1 else 1)]

    def _start(self) -> Process:
        self.processes += 1
        self.world.tell(f"worker {self.processes} starts")
        return Process(self.world, self.broker, self.venue, self.config, self.processes, self.checks)

    # -- what is published

    def _publish_commands(self) -> None:
        rng = self.world.rng
        for number in range(rng.randint(90, 130) if self.crowded else rng.randint(10, 40)):
            at = rng.uniform(0.0, CROWD_S if self.crowded else TROUBLE_S * 0.8)
            if self.config is LIMITED:
                at = at // BURST_S * BURST_S + at % BURST_S / 60
            self.world.after(at, lambda n=number: self._publish(n))  # type: ignore[misc]
        if rng.random() < 0.5:
            self.world.after(rng.uniform(0.0, TROUBLE_S * 0.8), self._publish_mass)

    def _uuid(self) -> str:
        return str(UUID(int=self.world.rng.getrandbits(128), version=4))

    def _publish_mass(self) -> None:
        """A mass cancel over everything, with orders of its own that nobody else cancels."""
        rng, now = self.world.rng, self.world.now()
        for _ in range(rng.randint(0, 12)):
            self._order(new=True)
        if rng.random() < 0.2:
            self._mute()
        symbol = rng.choice(["BTC-USD", None])
        item = {"MassCancelRequestType": "Security" if symbol else "AllOrders", "ClOrdID": self._uuid()}
        if symbol:
            item["Symbol"] = symbol
        body = msgspec.json.encode({"type": "OrderMassCancelRequest", "data": [item]})
        properties = Properties(message_id=self._uuid(), timestamp_s=now.utc_us // 1_000_000)
        message = Message(len(self.messages), "kill", body, properties, 1, mass_us=now.utc_us)
        self.messages.append(message)
        self.broker.publish(message)

    def _publish(self, number: int) -> None:
        rng, now = self.world.rng, self.world.now()
        command_id = self._uuid()
        items: list[dict[str, Any]] = [
            self._item(command_id, index) for index in range(rng.choice([1, 1, 1, 2, 3, 12]))
        ]
        headers: dict[str, object] = {}
        if rng.random() < 0.1:
            deadline_us = now.utc_us + round(rng.choice([-0.5, 0.001, 0.02, 1.0, 30.0]) * 1e6)
            headers["deadline"] = format_utc(deadline_us)
            for item in items:
                self.checks.deadlines[item["ClOrdID"]] = deadline_us
        body = msgspec.json.encode({"type": "OrderCancelRequest", "data": items})
        count = len(items)
        if rng.random() < 0.04:
            body, count = body[:-3], 0
        lane: Lane = rng.choice(LANES)
        properties = Properties(message_id=command_id, timestamp_s=now.utc_us // 1_000_000, headers=headers)
        copies = 2 if rng.random() < 0.1 else 1
        if copies == 2:
            self.checks.published_twice.update(item["ClOrdID"] for item in items)
            fresh = [derive_cl_ord_id(command_id, index, n) for index in range(len(items)) for n in range(2, 9)]
            self.checks.published_twice.update(fresh)  # what they are sent under after a reason 3
        for copy in range(copies):
            on = lane if copy == 0 else rng.choice(LANES)
            message = Message(number, on, body, properties, count)
            self.messages.append(message)
            self.world.after(copy * rng.uniform(0.0, 5.0), lambda m=message: self.broker.publish(m))  # type: ignore[misc]

    def _item(self, command_id: str, index: int) -> dict[str, Any]:
        rng = self.world.rng
        request = self._uuid()
        item: dict[str, Any] = {"Symbol": "BTC-USD", "ClOrdID": request}
        self.targets[command_id, index] = (request, None)
        if rng.random() < 0.03:
            item["Symbol"] = ""
            item["OrderID"] = self._uuid()
        elif rng.random() < 0.06:
            item["OrderID"] = self._uuid()
        else:
            order = self._order()
            self.targets[command_id, index] = (request, order.order_id)
            if rng.random() < 0.15:
                item["OrigClOrdID"] = order.client_id
                self.checks.known_by[order.client_id] = order.order_id
            else:
                item["OrderID"] = order.order_id
        return item

    def _order(self, *, new: bool = False) -> Order:
        rng = self.world.rng
        existing = list(self.venue.orders.values())
        if existing and not new and rng.random() < 0.1:
            return rng.choice(existing)
        plays = [rng.choice(PLAYS) for _ in range(rng.randint(0, 2))] if rng.random() < 0.6 else []
        return self.venue.place(self._uuid(), "BTC-USD", plays)

    # -- what breaks

    def _break_things(self) -> None:
        rng = self.world.rng
        faults = [
            self._kill, self._cut, self._cut, self._lose_consumer, self._lose_publisher, self._stall, self._mute,
            self._refuse, self._outage,
        ]  # fmt: skip
        if self.crowded:
            self.world.after(rng.uniform(0.5, CROWD_S), self._kill)
        for _ in range(rng.randint(0, 14)):
            fault = rng.choice(faults)
            self.world.after(rng.uniform(0.5, TROUBLE_S), fault)

    def _one(self) -> Process:
        return self.world.rng.choice(self.workers)

    def _kill(self) -> None:
        worker = self._one()
        if worker.alive:
            self.kills += 1
            worker.kill_after(self.world.rng.randint(0, 15))

    def _watch(self) -> None:
        """The supervisor starts a new process some time after the old one died; memory is looked at now and then."""
        self.workers = [worker if worker.alive else self._start() for worker in self.workers]
        for worker in self.workers:
            self.checks.violations += worker.check_memory()
        self.world.after(0.5, self._watch)

    def _cut(self) -> None:
        live = list(self.venue.sessions.values())
        if live:
            chosen = live if self.world.chance(0.3) else [self.world.rng.choice(live)]
            for session in chosen:
                session.process.call(lambda s=session: s.cut("cut"))  # type: ignore[misc]

    def _stall(self) -> None:
        for session in self.venue.sessions.values():
            session.stalled_until = self.world.seconds + self.world.rng.uniform(0.2, 3.0)

    def _mute(self) -> None:
        """The venue goes on reporting, but answers nobody who asks."""
        self.broker.muted = True
        self.venue.mute_until = self.world.seconds + self.world.rng.uniform(1.0, 8.0)
        self.world.tell("venue    answers no subscription for a while")

    def _outage(self) -> None:
        """The venue is gone for a while: every session is lost, and no log-in succeeds."""
        self.venue.down_until = self.world.seconds + self.world.rng.uniform(0.5, 6.0)
        self.world.tell("venue    is down")
        for session in list(self.venue.sessions.values()):
            session.process.call(lambda s=session: s.cut("the venue is down"))  # type: ignore[misc]

    def _refuse(self) -> None:
        """A queue that somebody bound to the results exchange is full: every event is nacked (faults A23)."""
        self.broker.refuse_until = self.world.seconds + self.world.rng.uniform(0.5, 4.0)
        self.world.tell("broker   a bound queue is full")
        if self.world.chance(0.5):
            self.world.after(self.world.delay(0.2, 2.0), self._lose_publisher)

    def _lose_consumer(self) -> None:
        lane = self.world.rng.choice(LANES)
        worker = self._one()
        worker.call(lambda: worker.consumers[lane].lose("connection reset"))

    def _lose_publisher(self) -> None:
        lane = self.world.rng.choice(LANES)
        worker = self._one()
        worker.call(lambda: worker.publishers[lane].lose("connection reset"))

    # -- the run

    def run(self) -> Verdict:
        self._publish_commands()
        self._break_things()
        self._watch()
        self.world.run(lambda: False, TROUBLE_S)
        self.venue.trouble = self.broker.trouble = False
        for worker in self.workers:
            worker._effects_left = None
        self.world.tell("world    no more trouble")
        rests = self.world.run(self._is_at_rest, REST_S)
        violations = [*self.broker.violations, *self.checks.violations]
        if not rests:
            violations.append(f"I11: not at rest after {REST_S:g} s: {self._unrest()}")
        else:
            violations += self._audit()
        return Verdict(self.seed, violations, self.world.story, len(self.messages), self.kills)

    def _is_at_rest(self) -> bool:
        return (
            all(worker.alive and worker.is_at_rest for worker in self.workers)
            and self.broker.is_empty
            and len(self.broker.done) + len(self.broker.dead) == len(self.messages)
        )

    def _unrest(self) -> str:
        held = [
            f"{c.command_id[:8]}:{[x.phase.value for x in c.cancels]}"
            for worker in self.workers
            for c in worker.engine.intake.commands.values()
        ]
        return f"queues {[len(q) for q in self.broker.ready.values()]}, unacked {len(self.broker.unacked)}, held {held}"

    # -- the audit

    def _audit(self) -> list[str]:
        """Compare the three books: what was published, what the venue did, what the results exchange holds."""
        found: list[str] = []
        for message in self.messages:
            found += self._audit_command(message)
        for worker in self.workers:
            found += worker.check_left_over()
        for stored in self.broker.stored:
            report = stored.event["report"]
            if report is not None and not any(made in stored.body for made in self._reports_like(report)):
                found.append(f"I3: event {stored.event_id} holds a report that the venue did not make")
        return found

    def _reports_like(self, report: Any) -> list[bytes]:
        made = msgspec.json.encode(report)
        return [made] if made in self.venue.reports_made else []

    def _audit_command(self, message: Message) -> list[str]:
        found: list[str] = []
        if message.mass_us is not None:
            return self._audit_mass(message)
        if not message.items:
            if not self.broker.finals.get((message.command_id, None)):
                found.append(f"lost: command {message.number} has no final")
            return found
        for index in range(message.items):
            ids = self.broker.finals.get((message.command_id, index), set())
            outcomes = {self.broker.by_id[i].event["outcome"] for i in ids}
            if len(ids) != 1 and outcomes != {"invalid"}:
                found.append(f"I2: cancel {message.number}/{index} has {len(ids)} finals: {outcomes}")
                continue
            found += self._audit_cancel(message, index, self.broker.by_id[next(iter(ids))].event)
        return found

    def _audit_mass(self, message: Message) -> list[str]:
        """One report whose counts add up and agree with the orders' finals; flat only if the venue was flat (5)."""
        name = f"mass cancel {message.number}"
        ids = self.broker.finals.get((message.command_id, 0), set())
        if len(ids) != 1:
            return [f"I2: {name} has {len(ids)} reports"]
        report = self.broker.by_id[next(iter(ids))]
        mass: Any = report.event["mass"]
        kinds = ("canceled", "already_closed", "rejected", "unknown", "unsent")
        found = []
        if mass["matched"] != sum(mass[kind] for kind in kinds):
            found.append(f"I3: {name}: the ledger does not add up: {mass}")
        if report.event["outcome"] == "mass_canceled":
            if mass["remaining"]:
                found.append(f"I3: {name} is flat with survivors")
            for order in self.venue.orders.values():
                was_open = order.closed_at is None or order.closed_at > report.at
                if order.submitted_us <= (message.mass_us or 0) and was_open:
                    found.append(f"I3: {name} is flat, but order {order.order_id} was open")
        elif any(order_id not in self.venue.orders for order_id in mass["remaining"]):
            found.append(f"I3: {name} names a survivor that does not exist")
        told = {stored.event["order_id"] for stored in self._finals_of(message.command_id)}
        answered = self._answered_to(message.command_id)
        # Where two processes were at work on it, the report of one is the end of it for both (contract section 5).
        lost = [] if message.shared else sorted(answered - told)
        found += [f"lost: {name} sent a cancel for order {order_id}, which has no final" for order_id in lost]
        # After a restart an order that an earlier process matched, but sent nothing for, is told and not counted.
        most = len(told) if mass["restarted"] else mass["matched"]
        # Of two processes at work on it, each counts what it matched itself, and the first report stands.
        counted = (
            mass["matched"] <= len(told) if message.shared else len(answered) <= mass["matched"] <= most == len(told)
        )
        if not counted:
            found.append(f"I3: {name} matched {mass['matched']}, {len(told)} have a final, {len(answered)} an answer")
        return found

    def _finals_of(self, command_id: str) -> list[Stored]:
        """The finals of a mass cancel's orders."""
        ids = {i for (command, _), found in self.broker.finals.items() if command == command_id for i in found}
        finals = [self.broker.by_id[event_id] for event_id in ids]
        return [stored for stored in finals if stored.event["order_id"] is not None]

    def _answered_to(self, command_id: str) -> set[str]:
        """The orders of which the venue reported an answer to a cancel of the mass cancel."""
        return {
            str(record["OrderID"])
            for _, record, _ in self.venue.history
            if self.checks.sweep_of.get(str(record["ClOrdID"])) == command_id
        }

    def _audit_cancel(self, message: Message, index: int, event: dict[str, object]) -> list[str]:
        """I3: the outcome is what the venue's own book says."""
        request, order_id = self.targets[message.command_id, index]
        order = self.venue.orders.get(order_id or "")
        outcome = event["outcome"]
        name = f"cancel {message.number}/{index} ({outcome})"
        wrong: str | None = None
        if outcome == "canceled":
            ours = event["cl_ord_id"]
            if order is None or order.status != "Canceled" or order.closed_by not in (request, ours):
                wrong = f"the order is {order and order.status} by {order and order.closed_by}"
        elif outcome == "already_closed":
            if order is None or order.is_open or order.closed_by == request:
                wrong = f"the order is {order and order.status} by {order and order.closed_by}"
        elif outcome == "unknown_order":
            wrong = "the order exists" if order is not None else None
        elif outcome == "cancel_rejected":
            wrong = None if event["cl_ord_id"] in self.venue.rejected else "the venue rejected nothing"
        elif outcome == "deadline_passed":
            wrong = "it has no deadline" if request not in self.checks.deadlines else None
            twice = request in self.checks.published_twice
            if event["sent"] == "never" and request in self.checks.last_sent and not twice:
                wrong = "it was sent"
        elif outcome == "unresolved":
            wrong = "the venue would have told"
        return [f"I3: {name}: {wrong}"] if wrong else []
