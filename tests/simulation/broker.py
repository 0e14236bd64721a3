"""A modelled RabbitMQ: two lanes, a results exchange, dead letters; it redelivers, nacks, returns and loses links."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from tests.simulation.world import World
from worker.core.effects import OutEvent, Settlement
from worker.core.facts import Delivery
from worker.wire.command import Lane, Properties

if TYPE_CHECKING:
    from tests.simulation.process import Process

PREFETCH = 40
FINAL_EQUAL = ("outcome", "order_live", "order", "report")
"""What is equal in all finals under one id, whichever processes publish them (contract section 3, Ids)."""

FOUND_OUT_ANEW = {"refused", "deadline_passed", "unresolved"}
"""Outcomes that leave no report at the venue."""

LANES: tuple[Lane, Lane] = ("kill", "cancel")


@dataclass(eq=False)
class Message:
    """One command as the broker keeps it. ``items`` is how many cancels it has, 0 for a body spoilt as a whole.

    ``mass_us`` is when a mass cancel was published, in UTC microseconds; None for any other command. ``shared``: it was
    taken back from a process that lives on, which may be at work on it beside the next one.
    """

    number: int
    lane: Lane
    body: bytes
    properties: Properties
    items: int
    redelivered: bool = False
    count: int = 0
    mass_us: int | None = None
    shared: bool = False
    settled: Settlement | None = None

    @property
    def command_id(self) -> str:
        return self.properties.message_id or ""


@dataclass
class Stored:
    """One event that the results exchange routed."""

    at: float
    event_id: str
    body: bytes
    event: dict[str, Any] = field(default_factory=dict)


class Broker:
    """The broker's own books; they outlive every process of the worker."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ready: dict[Lane, deque[Message]] = {"kill": deque(), "cancel": deque()}
        self.unacked: list[Message] = []
        self.dead: list[Message] = []
        self.done: list[Message] = []
        self.stored: list[Stored] = []
        self.finals: dict[tuple[str, int | None], set[str]] = {}
        self.by_id: dict[str, Stored] = {}
        self.trouble = True
        self.refuse_until = 0.0
        self._consumers: dict[Lane, list[ConsumerPort]] = {"kill": [], "cancel": []}
        self.violations: list[str] = []
        self.dropped: set[str] = set()  # ExecIDs of reports that the venue told nobody live
        self.muted = False  # whether the venue has answered no subscription for a while
        self.mass_ids: set[str] = set()  # there the index only counts (contract 5)
        self.published: Counter[str] = Counter()  # how often each command was

    def publish(self, message: Message) -> None:
        self.published[message.command_id] += 1
        if message.mass_us is not None:
            self.mass_ids.add(message.command_id)
        self.ready[message.lane].append(message)
        self.world.tell(f"broker   command {message.number} {message.command_id[:8]} waits on {message.lane}")
        self.serve(message.lane)

    def attach(self, port: ConsumerPort) -> None:
        self._consumers[port.lane].append(port)

    def detach(self, port: ConsumerPort) -> None:
        self._consumers[port.lane].remove(port)

    def serve(self, lane: Lane) -> None:
        """Hand out what waits, to each consumer in turn what it has room for, beginning with another one each time."""
        ports = self._consumers[lane]
        ports.append(ports.pop(0)) if ports else None
        for port in list(ports):
            port.pull()

    def store(self, event: OutEvent) -> None:
        """The event is in its queues from now on."""
        shown = msgspec.json.decode(event.body)
        stored = Stored(self.world.seconds, event.event_id, event.body, shown)
        self.stored.append(stored)
        before = self.by_id.setdefault(event.event_id, stored)
        always = ("command_id", "final") if shown["command_id"] in self.mass_ids else ("command_id", "index", "final")
        equal = self.must_agree(before.event, shown) if shown["final"] else ()
        for key in (*always, *equal):
            if before.event[key] != shown[key]:
                was, now = before.event[key], shown[key]
                who = f"{str(shown['command_id'])[:8]}/{shown['index']}"
                self.violations.append(f"I2: event {event.event_id} of {who} has two values of {key}: {was}, {now}")
        if shown["final"]:
            self.finals.setdefault((shown["command_id"], shown["index"]), set()).add(event.event_id)

    def must_agree(self, one: dict[str, Any], other: dict[str, Any]) -> tuple[str, ...]:
        """In which fields two finals under one id have to be equal: all, but for what docs/events.md names."""
        if self._may_differ(one, other):
            return ()
        if any((event["report"] or {}).get("ExecType") == "CancelRejected" for event in (one, other)):
            return ("outcome", "order_live")  # of what closed the order one worker heard only by the reject
        return FINAL_EQUAL

    def _may_differ(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        outcomes = {one["outcome"], other["outcome"]}
        if self.muted or outcomes & FOUND_OUT_ANEW:
            return True
        if outcomes == {"unknown_order"} and None in (one["report"], other["report"]):
            return True  # of two copies of a command one was looked up before the other was sent
        if self.published[one["command_id"]] > 1 and one["attempt"] and other["attempt"]:
            return True  # both copies were sent, and the venue answered each
        rejects = [event["report"] for event in (one, other) if event["outcome"] == "cancel_rejected"]
        return len(rejects) == 1 and (str(rejects[0]["CxlRejReason"]) == "0" or rejects[0]["ExecID"] in self.dropped)

    def has_finals(self, message: Message) -> bool:
        """Whether every cancel of a command has a final stored, or the command as a whole has one (I1)."""
        if self.finals.get((message.command_id, None)):
            return True
        return bool(message.items) and all(
            self.finals.get((message.command_id, index)) for index in range(message.items)
        )

    def settle(self, message: Message, how: Settlement) -> None:
        self.unacked.remove(message)
        if how == "requeue":
            message.redelivered = True
            message.count += 1
            self.ready[message.lane].append(message)
        else:
            message.settled = how
            (self.done if how == "ack" else self.dead).append(message)
        self.serve(message.lane)  # there is room for one more

    def take_back(self, messages: list[Message]) -> None:
        """A channel died: its messages come again, first in the queue."""
        for message in reversed(messages):
            self.unacked.remove(message)
            message.redelivered = True
            message.count += 1
            self.ready[message.lane].appendleft(message)
        for lane in {m.lane for m in messages}:
            self.world.after(0.0, lambda on=lane: self.serve(on))  # type: ignore[misc]

    @property
    def is_empty(self) -> bool:
        return not self.unacked and not any(self.ready.values())


class ConsumerPort:
    """One lane's consumer of one process."""

    def __init__(self, broker: Broker, process: Process, lane: Lane) -> None:
        self.broker = broker
        self.process = process
        self.lane: Lane = lane
        self.epoch = 0
        self.up = False
        self.on = False
        self.out: dict[int, Message] = {}
        self.tag = 0

    def come_up(self) -> None:
        if self.process.alive and not self.up:
            self.up = True
            self.on = False
            self.epoch += 1
            self.out = {}
            self.broker.attach(self)
            self.process.runner.consumer_up(self.lane)

    def lose(self, reason: str) -> None:
        """The link dies: deliveries are void, and acks that were under way may not have arrived."""
        if not self.up:
            return
        self.up = self.on = False
        for message in self.out.values():
            message.shared = message.shared or self.process.alive
        self.broker.detach(self)
        self.broker.take_back([m for m in self.out.values() if m in self.broker.unacked])
        self.out = {}
        self.broker.world.tell(f"broker   {self.lane} consumer of worker {self.process.number} lost: {reason}")
        if self.process.alive:
            self.process.call(lambda: self.process.runner.consumer_lost(self.lane, reason))
            self.process.check_consumer_lost(self.lane)
            self.process.after(self.broker.world.delay(0.05, 1.0), self.come_up)

    def consume(self, on: bool) -> None:
        epoch = self.epoch
        self.process.after(self.broker.world.delay(0.0, 0.02), lambda: self._switch(on, epoch))

    def _switch(self, on: bool, epoch: int) -> None:
        if not self.up or epoch != self.epoch:
            return
        self.on = on
        if on:
            self.pull()
        else:
            self.process.after(0.0, lambda: self._stopped(epoch))

    def _stopped(self, epoch: int) -> None:
        if self.up and epoch == self.epoch and not self.on:
            self.process.runner.consumer_stopped(self.lane)

    def pull(self) -> None:
        """Hand out what waits, in batches as one read would bring them."""
        queue = self.broker.ready[self.lane]
        brought = False
        while self.up and self.on and queue and len(self.out) < PREFETCH and self.process.alive:
            message = queue.popleft()
            self.tag += 1
            self.out[self.tag] = message
            self.broker.unacked.append(message)
            headers = dict(message.properties.headers)
            if message.count:
                headers["x-delivery-count"] = message.count
            properties = msgspec.structs.replace(message.properties, headers=headers)
            delivery = Delivery(self.lane, self.epoch, self.tag)
            self.broker.world.tell(
                f"broker   command {message.number} {message.command_id[:8]} delivered"
                f"{' again' if message.redelivered else ''} on {self.lane} to worker {self.process.number}"
            )
            redelivered, body = message.redelivered, message.body
            self.process.call(
                lambda d=delivery, r=redelivered, p=properties, b=body: self._hand_over(d, r, p, b)  # type: ignore[misc]
            )
            brought = True
        if brought:
            self.process.call(self.process.runner.batch_ended)

    def _hand_over(self, delivery: Delivery, redelivered: bool, properties: Properties, body: bytes) -> None:
        if self.up and delivery.epoch == self.epoch:
            if redelivered:
                self.process.note_redelivered(properties.message_id or "", body)
            self.process.runner.command_delivered(delivery, redelivered, properties, body)

    def flush(self) -> None:
        """Settlements leave as they are made."""

    def settle(self, delivery: Delivery, how: Settlement) -> None:
        """Checked when it is asked for (I1), carried out a little later unless the link dies first."""
        broker = self.broker
        if delivery.epoch != self.epoch or not self.up:
            return
        message = self.out.pop(delivery.tag, None)
        if message is None:
            broker.violations.append(f"a second settlement of delivery {delivery}")
            return
        broker.world.tell(f"worker {self.process.number} command {message.number} {message.command_id[:8]} {how}")
        if how != "requeue" and not broker.has_finals(message):
            broker.violations.append(f"I1: command {message.number} {how} without a confirmed final for every cancel")
        epoch = self.epoch

        def arrive() -> None:
            if message in broker.unacked:
                if self.up and epoch == self.epoch:
                    broker.settle(message, how)
                else:
                    broker.take_back([message])

        broker.world.after(broker.world.delay(0.0, 0.05), arrive)


class PublisherPort:
    """One lane's publisher of one process."""

    def __init__(self, broker: Broker, process: Process, lane: Lane) -> None:
        self.broker = broker
        self.process = process
        self.lane: Lane = lane
        self.up = False
        self.epoch = 0
        self.in_flight: set[str] = set()

    def come_up(self) -> None:
        if self.process.alive and not self.up:
            self.up = True
            self.epoch += 1
            self.in_flight = set()
            self.process.runner.publisher_up(self.lane)

    def lose(self, reason: str) -> None:
        if not self.up:
            return
        self.up = False
        self.broker.world.tell(f"broker   {self.lane} publisher of worker {self.process.number} lost: {reason}")
        if self.process.alive:
            self.process.call(lambda: self.process.runner.publisher_lost(self.lane, reason))
            self.process.after(self.broker.world.delay(0.05, 1.0), self.come_up)

    def publish(self, event: OutEvent) -> None:
        broker, world, epoch = self.broker, self.broker.world, self.epoch
        if not self.up:
            return
        if event.event_id in self.in_flight:
            broker.violations.append(f"A2: event {event.event_id} published twice at a time")
        self.in_flight.add(event.event_id)
        world.tell(
            f"worker {self.process.number} publishes {event.outcome} of {(event.command_id or '')[:8]}/{event.index}"
        )
        full = broker.trouble and world.seconds < broker.refuse_until
        refused = full or (broker.trouble and world.chance(0.02))
        stored = not refused or full or world.chance(0.5)

        def arrive() -> None:
            lost = epoch != self.epoch or not self.up
            if stored and not (lost and world.chance(0.5)):
                broker.store(event)
            if not lost:
                self.process.after(world.delay(0.0, 0.02), answer)

        def answer() -> None:
            if epoch != self.epoch or not self.up:
                return
            self.in_flight.discard(event.event_id)
            if not refused:
                self.process.runner.event_confirmed(event)
            elif stored:
                self.process.runner.event_nacked(event)
            else:
                self.process.runner.event_returned(event, 312, "NO_ROUTE")
            self.process.runner.batch_ended()

        world.after(world.delay(0.0, 0.02), arrive)

    def flush(self) -> None:
        """Events leave as they are published."""

    def reply(self, event: OutEvent, queue: str) -> None:
        """Best effort; nothing depends on it."""
