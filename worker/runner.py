"""The runner: tells the engine what happened, carries out what it asks for, and wakes it when a time has come.

It is the user's side of every port. A call from a link tells the engine at once; what the engine asks for is carried
out when the read that brought it ends, and then frames are filled with all commands that it brought. All of that is
one turn of the loop. Nothing here awaits, queues or decides.

An exception out of the engine is a bug, after which nothing that it holds can be trusted: the host is told, which ends
the process, and nothing more is carried out. The loop would take no notice of it, but for the loss of whatever
connection happened to bring the read.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final, Protocol

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
    Settlement,
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
from worker.core.outbox import LANES
from worker.wire.command import Lane, Properties

TICK_S: Final = 0.05
"""Longest time between two looks at what is due; also how the lag of the loop is measured."""

SHORTEST_TICK_S: Final = 0.001

TROUBLES: Final = {
    "event_refused": "broker",
    "venue_error_frame": "venue",
    "bad_frame": "venue",
    "bad_record": "venue",
    "stream_gap": "venue",
}
"""Notes that the status page keeps among its last errors, and where each comes from."""


def trouble_text(note: Note) -> str:
    """What the status page says of one of ``TROUBLES``."""
    reason, code, msg = (note.fields.get(field) for field in ("reason", "code", "msg"))
    parts = (note.name, reason, None if code is None else f"code {code}", msg)
    return ": ".join(str(part) for part in parts if part is not None)


class ConsumerLike(Protocol):
    """What the runner needs of a lane's consumer."""

    def consume(self, on: bool) -> None: ...
    def settle(self, delivery: Delivery, how: Settlement) -> None: ...
    def flush(self) -> None: ...


class PublisherLike(Protocol):
    """What the runner needs of a lane's publisher."""

    def publish(self, event: OutEvent) -> None: ...
    def reply(self, event: OutEvent, queue: str) -> None: ...
    def flush(self) -> None: ...


class PoolLike(Protocol):
    """What the runner needs of the pool of sessions."""

    def send(self, session: int, data: bytes) -> None: ...
    def flush(self) -> None: ...
    def drop(self, session: int, reason: str) -> None: ...
    def session_ready(self, session: int) -> None: ...


class Timer(Protocol):
    """What ``call_later`` gives."""

    def cancel(self) -> None: ...


class Loop(Protocol):
    """What the runner needs of the event loop: turns and seconds. The deterministic simulation has one of its own."""

    def time(self) -> float: ...
    def call_soon(self, callback: Callable[[], object], /) -> object: ...
    def call_later(self, delay: float, callback: Callable[[], object], /) -> Timer: ...


class LogLike(Protocol):
    """What the runner needs of a logger."""

    def info(self, event: str, /, **fields: object) -> None: ...
    def warning(self, event: str, /, **fields: object) -> None: ...


class Host(Protocol):
    """Who runs the runner: told of what is not the engine's business."""

    def trouble(self, source: str, reason: str) -> None:
        """Something went wrong with ``broker`` or ``venue``; for the status page."""

    def stopped(self) -> None:
        """After ``stop``: nothing is left that could still be finished."""

    def search_audit(self, command_id: str, event_id: str, since_us: int | None) -> None:
        """Look for an event in the audit stream; ``audit_searched`` tells what was found."""

    def failed(self, error: Exception) -> None:
        """The engine raised: a bug, which ends the process."""


def system_clock() -> Now:
    """The machine's clocks."""
    return Now(time.monotonic(), time.time_ns() // 1000)


def _drop(effect: Effect) -> None:
    """Where effects go once the engine has failed."""


class Runner:
    """Steps one engine. ``attach`` the shells, then ``start``."""

    def __init__(
        self, engine: Engine, log: LogLike, loop: Loop, host: Host, clock: Callable[[], Now] = system_clock
    ) -> None:
        self.engine = engine
        self._host = host
        self._now = clock
        self._log = log
        self._loop = loop
        self._consumers: dict[Lane, ConsumerLike] = {}
        self._publishers: dict[Lane, PublisherLike] = {}
        self._links: list[PublisherLike | ConsumerLike] = []  # kill lane first
        self._pool: PoolLike
        self._timer: Timer | None = None
        self._tick_due = 0.0
        self._flush_scheduled = False
        self._read_at: Now | None = None
        self._to_log: list[OutEvent] = []  # finals that were handed to a publisher
        self._outlets: dict[type[Effect], Callable[[Any], None]] = {
            OutEvent: self._publish,
            SendText: self._send_text,
            Settle: self._settle,
            Reply: self._reply,
            Consume: self._consume,
            DropSession: self._drop_session,
            SessionIsReady: self._session_is_ready,
            SearchAudit: self._search_audit,
            Note: self._note,
            Stopped: self._stopped,
        }

    def attach(
        self, consumers: dict[Lane, ConsumerLike], publishers: dict[Lane, PublisherLike], pool: PoolLike
    ) -> None:
        """The shells that carry out effects."""
        self._consumers, self._publishers, self._pool = consumers, publishers, pool
        self._links = [part[lane] for lane in LANES for part in (publishers, consumers) if lane in part]

    def start(self) -> None:
        """Begin to look at the clock."""
        self._arm(TICK_S)

    def close(self) -> None:
        """Stop looking at the clock."""
        if self._timer is not None:
            self._timer.cancel()

    def stop(self) -> None:
        """SIGTERM came: take no more commands, finish what is in flight (contract 4.7)."""
        self._step(StopAsked())

    def audit_searched(self, command_id: str, found: bool | None) -> None:
        """The audit stream was read; None: it could not be."""
        self._step(AuditSearched(command_id, found))

    def grace_over(self) -> None:
        """``shutdown.grace`` is used up: hand the rest back."""
        self._step(GraceOver())

    # -- the engine's turn

    def _instant(self) -> Now:
        """All that one read of a socket brings happens at one instant; frames are filled at one of their own."""
        now = self._read_at
        if now is None:
            now = self._read_at = self._now()
        return now

    def _step(self, fact: Fact) -> None:
        """A fact that may come outside of any read: what follows is carried out now, frames are filled soon."""
        try:
            self.engine.step(fact, self._instant())
            self._perform()
        except Exception as e:  # noqa: BLE001 - whatever it is, it ends the process
            self._fail(e)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._flush_scheduled = False
        self.batch_ended()

    def batch_ended(self) -> None:
        """All that one read had to tell was told: fill frames, and carry everything out."""
        self._read_at = None
        try:
            while self.engine.flush(self._now()):
                self._perform()
                self._pool.flush()
            self._perform()
        except Exception as e:  # noqa: BLE001 - whatever it is, it ends the process
            self._fail(e)
        self._pool.flush()
        for link in self._links:
            link.flush()
        if self._to_log:
            self._log_finals()

    def _fail(self, error: Exception) -> None:
        self._outlets = dict.fromkeys(self._outlets, _drop)
        self._host.failed(error)

    def _perform(self) -> None:
        effects, carry_out = self.engine.effects, self._carry_out
        while effects:
            batch = effects.copy()
            effects.clear()
            for effect in batch:
                carry_out(effect)

    def _carry_out(self, effect: Effect) -> None:
        self._outlets[type(effect)](effect)

    def _publish(self, event: OutEvent) -> None:
        self.engine.stats.events_published[event.lane] += 1
        self._publishers[event.lane].publish(event)
        if event.final and not event.logged:
            event.logged = True
            self._to_log.append(event)

    def _send_text(self, effect: SendText) -> None:
        self._pool.send(effect.session, effect.data)

    def _settle(self, effect: Settle) -> None:
        self._consumers[effect.delivery.lane].settle(effect.delivery, effect.how)

    def _reply(self, effect: Reply) -> None:
        self._publishers[effect.event.lane].reply(effect.event, effect.reply_to)

    def _consume(self, effect: Consume) -> None:
        self._consumers[effect.lane].consume(effect.on)

    def _drop_session(self, effect: DropSession) -> None:
        self._pool.drop(effect.session, effect.reason)

    def _session_is_ready(self, effect: SessionIsReady) -> None:
        self._pool.session_ready(effect.session)

    def _search_audit(self, effect: SearchAudit) -> None:
        self._host.search_audit(effect.command_id, effect.event_id, effect.since_us)

    def _note(self, effect: Note) -> None:
        getattr(self._log, effect.level)(effect.name, **effect.fields)
        source = TROUBLES.get(effect.name)
        if source is not None:
            self._host.trouble(source, trouble_text(effect))

    def _stopped(self, effect: Stopped) -> None:
        self._host.stopped()

    def _log_finals(self) -> None:
        """Once they are on their way, so that no event waits for a line of text."""
        finals, self._to_log = self._to_log, []
        for event in finals:
            self._log_final(event)

    def _log_final(self, event: OutEvent) -> None:
        cancel = event.cancel
        if cancel is None:
            self._log.info(
                "cancel_final",
                outcome=event.outcome,
                command_id=event.command_id,
                index=event.index,
                lane=event.lane,
                event_id=event.event_id,
            )
            return
        self._log.info(
            "cancel_final",
            outcome=event.outcome,
            command_id=event.command_id,
            index=event.index,
            lane=event.lane,
            event_id=event.event_id,
            symbol=cancel.item.symbol,
            cl_ord_id=cancel.cl_ord_id,
            order_id=cancel.order_id,
            attempt=cancel.attempt,
        )

    # -- time

    def _arm(self, delay: float) -> None:
        self._tick_due = self._loop.time() + delay
        self._timer = self._loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        stats = self.engine.stats
        stats.loop_lag_s = max(0.0, self._loop.time() - self._tick_due)
        stats.loop_lag_max_s = max(stats.loop_lag_max_s, stats.loop_lag_s)
        try:
            now = self._now()
            self.engine.tick(now)
            self.batch_ended()
            due = self.engine.next_due()
        except Exception as e:  # noqa: BLE001 - whatever it is, it ends the process
            self._fail(e)
            return
        delay = TICK_S if due is None else min(TICK_S, max(SHORTEST_TICK_S, due - now.mono))
        self._arm(delay)

    def _trouble(self, name: str, source: str, reason: str, **fields: object) -> None:
        self._host.trouble(source, reason)
        self._log.warning(name, reason=reason, **fields)

    # -- told by the consumers

    def command_delivered(self, delivery: Delivery, redelivered: bool, properties: Properties, body: bytes) -> None:
        """A command came."""
        self.engine.command_delivered(delivery, redelivered, properties, body, self._read_at or self._instant())

    def consumer_up(self, lane: Lane) -> None:
        """A lane's channel is open."""
        self._log.info("consumer_up", lane=lane)
        self._step(ConsumerUp(lane))

    def consumer_stopped(self, lane: Lane) -> None:
        """No more deliveries of a lane."""
        self._log.info("consumer_stopped", lane=lane)
        self._step(ConsumerStopped(lane))

    def consumer_lost(self, lane: Lane, reason: str) -> None:
        """A lane's deliveries are void."""
        self._trouble("consumer_lost", "broker", reason, lane=lane)
        self._step(ConsumerLost(lane, reason))

    def consumer_failed(self, lane: Lane, reason: str) -> None:
        """A lane's consumer could not get up; it tries again."""
        self._trouble("consumer_failed", "broker", reason, lane=lane)

    # -- told by the publishers

    def publisher_up(self, lane: Lane) -> None:
        """A lane can publish."""
        self._log.info("publisher_up", lane=lane)
        self._step(PublisherUp(lane))

    def publisher_lost(self, lane: Lane, reason: str) -> None:
        """A lane's confirms will not come."""
        self._trouble("publisher_lost", "broker", reason, lane=lane)
        self._step(PublisherLost(lane, reason))

    def publisher_failed(self, lane: Lane, reason: str) -> None:
        """A lane's publisher could not get up; it tries again."""
        self._trouble("publisher_failed", "broker", reason, lane=lane)

    def publisher_blocked(self, lane: Lane, reason: str | None) -> None:
        """The broker has an alarm, or it is over."""
        if reason is None:
            self._log.info("publisher_unblocked", lane=lane)
        else:
            self._trouble("publisher_blocked", "broker", reason, lane=lane)

    def event_confirmed(self, event: OutEvent) -> None:
        """The broker stored an event."""
        self.engine.event_confirmed(event, self._read_at or self._instant())

    def event_nacked(self, event: OutEvent) -> None:
        """A queue refused an event."""
        self._step(EventNacked(event))

    def event_returned(self, event: OutEvent, code: int, text: str) -> None:
        """No queue takes an event."""
        self._step(EventReturned(event, code, text))

    # -- told by the pool

    def session_opened(self, session: int, slot: int) -> None:
        """The venue accepted a log-in."""
        self._step(SessionOpened(session, slot))

    def frames_received(self, session: int, messages: list[bytes]) -> None:
        """Text messages of the venue."""
        try:
            self.engine.frames_received(session, messages, self._read_at or self._instant())
        except Exception as e:  # noqa: BLE001 - whatever it is, it ends the process
            self._fail(e)

    def session_lost(self, session: int, reason: str) -> None:
        """A session ended."""
        self._host.trouble("venue", reason)
        self._step(SessionLost(session, reason))

    def attempt_failed(self, slot: int, reason: str) -> None:
        """A log-in came to nothing; the pool tries again."""
        self.engine.sessions.last_loss = reason
        self._trouble("log_in_failed", "venue", reason, slot=slot)
