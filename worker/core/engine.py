"""The engine: facts in, effects out. It joins the parts of the core and holds all state of the worker.

``step`` is told what happened and appends what is to be done to ``effects``; so are ``command_delivered``,
``frames_received`` and ``event_confirmed``, for what every cancel brings. ``flush`` fills frames with the cancels that
wait, and is called once per turn of the loop; ``tick`` acts on times that have come. None of them ever waits, so a
step is atomic. Effects are to be carried out in order and in the same turn: a frame that ``flush`` made was checked
against its deadline at ``now`` (faults I4).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any, Final, Literal

from worker.config import Config
from worker.core.batch import MakingWay, RateBudget, elements, is_past_deadline
from worker.core.book import BookReader, OpenOrders
from worker.core.cancel import CancelState
from worker.core.clock import Now
from worker.core.desk import Desk
from worker.core.effects import Consume, Effect, Note, OutEvent, SendText, Stopped
from worker.core.events import Events
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
from worker.core.intake import Intake
from worker.core.lookups import Lookups
from worker.core.outbox import LANES, Outbox
from worker.core.session import SentFrame, SessionState
from worker.core.sessions import Sessions
from worker.core.stats import Stats
from worker.core.sweeps import Sweeps
from worker.wire import venue
from worker.wire.command import Lane, Properties
from worker.wire.event import CodeError

Intent = Literal["down", "idle", "consuming", "stopping"]
"""A lane's consumer: no channel; a channel that takes nothing; taking commands; asked to stop."""

FRAMES_IN_A_ROW: Final = 50
"""So many frames go to one session before the next has its turn: those of the largest command leave in one write."""

RELEASE_EVERY_S: Final = 5.0
"""How often, at the least, deliveries are looked over for those held too long."""


class Engine:
    """The whole state of one worker. ``worker`` is its name in events, unique per process."""

    def __init__(self, config: Config, worker: str, now: Now) -> None:
        self._config = config
        self.effects: list[Effect] = []
        self.stats = Stats()
        self.outbox = Outbox(self.effects, config.results.retry_min, config.results.retry_max, worker)
        self.events = Events(worker, config.results.reply_to, self.outbox, self.effects, self.stats)
        self.book = OpenOrders()
        self.reader = BookReader(config, self.book, self.effects)
        self.desk = Desk(config, self.events, self.stats, worker)
        self.lookups = Lookups(config.venue, self.desk, self.stats, worker)
        self.sweeps = Sweeps(config, self.desk, self.events, self.book, self.effects, self.stats)
        self.sessions = Sessions(
            config.venue, self.desk, self.lookups, self.sweeps, self.book, self.reader, self.effects, self.stats
        )
        self.intake = Intake(config, self.desk, self.events, self.sweeps, self.outbox, self.effects, self.stats)
        self.consumers: dict[Lane, Intent] = {"kill": "down", "cancel": "down"}
        self.stopping = False
        self._stopped = False
        self._grace_used = False
        self._unready_since: float | None = now.mono
        self._announced_unavailable = False
        self._rates: Final = {"kill": RateBudget(config.kill.rate_limit), "cancel": RateBudget(config.venue.rate_limit)}
        self._frame_rate = RateBudget(config.venue.frames_per_second)
        self._making_way = MakingWay(config.kill.normal_batch)
        self._bounds: Final = {"kill": config.kill.max_inflight, "cancel": config.broker.max_inflight}
        self._flush_due: float | None = None
        self._release_every = min(RELEASE_EVERY_S, config.broker.hold_limit / 4)
        self._release_due = now.mono + self._release_every
        self._reactions: dict[type[Fact], Callable[[Any, Now], None]] = {
            EventNacked: self._event_nacked,
            EventReturned: self._event_returned,
            PublisherUp: self._publisher_up,
            PublisherLost: self._publisher_lost,
            ConsumerUp: self._consumer_up,
            ConsumerStopped: self._consumer_stopped,
            ConsumerLost: self._consumer_lost,
            SessionOpened: self.sessions.opened,
            SessionLost: self._session_lost,
            AuditSearched: self._audit_searched,
            StopAsked: self._stop_asked,
            GraceOver: self._grace_over,
        }

    # -- facts

    def step(self, fact: Fact, now: Now) -> None:
        """Take in one fact; what is to be done is appended to ``effects``."""
        self._reactions[type(fact)](fact, now)

    def frames_received(self, session: int, messages: list[bytes], now: Now) -> None:
        """Whole text messages of the venue came on ``session``, in this order."""
        if self.sessions.received(session, messages, now):
            self._readiness_changed(now)

    def command_delivered(
        self, delivery: Delivery, redelivered: bool, properties: Properties, body: bytes, now: Now
    ) -> None:
        """A message came from a lane's queue. ``body`` and ``properties`` are untrusted and not yet read."""
        self.intake.taken(delivery, redelivered, properties, body, now)

    def event_confirmed(self, event: OutEvent, now: Now) -> None:
        """The broker stored the event in at least one queue: ``Basic.Ack`` without an earlier ``Basic.Return``."""
        self.stats.events_confirmed[event.lane] += 1
        self.stats.confirm_delay.observe(now.mono - event.made_mono)
        self.intake.confirmed(event, now)
        if self.stopping:
            self._stop_if_done(now)

    def _event_nacked(self, fact: EventNacked, now: Now) -> None:
        self.stats.events_nacked[fact.event.lane] += 1
        self._refused(fact.event, "nack: refused by a queue bound to the results exchange", now)

    def _event_returned(self, fact: EventReturned, now: Now) -> None:
        self.stats.events_returned[fact.event.lane] += 1
        self._refused(fact.event, f"no queue takes it: {fact.code} {fact.text}", now)

    def _publisher_up(self, fact: PublisherUp, now: Now) -> None:
        self.outbox.publisher_up(fact.lane)

    def _publisher_lost(self, fact: PublisherLost, now: Now) -> None:
        self.outbox.publisher_lost(fact.lane)

    def _consumer_up(self, fact: ConsumerUp, now: Now) -> None:
        self.consumers[fact.lane] = "idle"
        self._steer()

    def _consumer_lost(self, fact: ConsumerLost, now: Now) -> None:
        self.consumers[fact.lane] = "down"
        self.intake.deliveries_lost(fact.lane, now)
        self._stop_if_done(now)

    def _session_lost(self, fact: SessionLost, now: Now) -> None:
        self.sessions.lost(fact, now)
        self._readiness_changed(now)

    def _audit_searched(self, fact: AuditSearched, now: Now) -> None:
        command = self.sweeps.searched(fact, now)
        if command is not None:
            self.intake.settle_if_done(command)

    def _refused(self, event: OutEvent, reason: str, now: Now) -> None:
        wait = self.outbox.refused_by_broker(event, reason, now)
        fields: dict[str, object] = {
            "event_id": event.event_id,
            "command_id": event.command_id,
            "outcome": event.outcome,
            "routing_key": event.routing_key,
            "reason": reason,
            "retry_in_s": round(wait, 3),
        }
        self.effects.append(Note("event_refused", "warning", fields))

    # -- taking commands

    def _readiness_changed(self, now: Now) -> None:
        if self.sessions.ready:
            self._unready_since = None
        elif self._unready_since is None:
            self._unready_since = now.mono
        self._steer()

    def _steer(self) -> None:
        """Take commands exactly while a session is ready and nobody asked to stop (contract 4.6, 4.7)."""
        wanted = self.sessions.ready and not self.stopping
        for lane in LANES:
            intent = self.consumers[lane]
            if wanted and intent == "idle":
                self.consumers[lane] = "consuming"
                self.effects.append(Consume(lane, True))
            elif not wanted and intent == "consuming":
                self.consumers[lane] = "stopping"
                self.effects.append(Consume(lane, False))

    def _consumer_stopped(self, fact: ConsumerStopped, now: Now) -> None:
        """No delivery is on its way any more: now is the one moment to hand back what was not sent."""
        self.consumers[fact.lane] = "idle"
        if self.stopping or not self.sessions.ready:
            self.intake.hand_back_unsent(fact.lane, now)
        self._steer()
        self._stop_if_done(now)

    # -- stopping

    def _stop_asked(self, fact: StopAsked, now: Now) -> None:
        self.stopping = True
        self._steer()
        for lane in LANES:
            if self.consumers[lane] in ("idle", "down"):
                self.intake.hand_back_unsent(lane, now)
        self._stop_if_done(now)

    def _grace_over(self, fact: GraceOver, now: Now) -> None:
        self._grace_used = True
        self.intake.hand_back_all(now)
        self._stop_if_done(now)

    def _stop_if_done(self, now: Now) -> None:
        if not self.stopping or self._stopped:
            return
        self.intake.drop_parked(now)
        quiet = not len(self.outbox) and "stopping" not in self.consumers.values()
        if self.intake.is_empty and (quiet or self._grace_used):
            self._stop()

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            self.effects.append(Stopped())

    # -- sending

    def flush(self, now: Now) -> bool:
        """Send what waits, kill lane first, and begin look-ups that are due; once per turn of the loop.

        True: a mass cancel has more orders to take up. The effects are to be carried out, and ``flush`` called again in
        the same turn: so the first cancels of many are on the wire while the others are made.
        """
        self._flush_due = None
        if self.lookups.wanted():
            session = self.sessions.pick()
            if session is not None:
                self.lookups.start(session, now)
        if len(self.desk.queues["kill"]):
            self._making_way.kill_cancels_wait(now.mono)
        sweeping = len(self.sweeps) > 0
        for lane in LANES:
            if len(self.desk.queues[lane]):
                self._flush_lane(lane, now)
            if sweeping and self.sweeps.take_up(lane, now):
                return True  # what it takes up is served before the lane behind
        if sweeping:  # after their cancels, so that no list that they ask for is in the way
            self.sweeps.advance(self.sessions.pick(), now)
        return False

    def _flush_lane(self, lane: Lane, now: Now) -> None:
        queue, most = self.desk.queues[lane], self._config.venue.max_batch
        session, frames = self.sessions.pick(), 0
        while (head := queue.head()) is not None:
            if is_past_deadline(head, now):
                queue.skip()
                self.desk.deadline_passed(head, now)
                continue
            if frames == FRAMES_IN_A_ROW:
                session, frames = self.sessions.pick(), 0
            if session is None:
                return
            allowed = self._allowed(lane, 1 if head.alone else most, now)
            if not allowed:
                return
            batch = queue.take(allowed, now)
            self._rates[lane].spend(len(batch))
            if lane == "cancel":
                self._making_way.spend(now.mono)
            self._send(session, lane, batch, now)
            frames += 1

    def _allowed(self, lane: Lane, wanted: int, now: Now) -> int:
        """How many cancels the lane's next frame may have; where it is none, ``_flush_due`` says when to ask again."""
        mono, rate, frame_rate, making_way = now.mono, self._rates[lane], self._frame_rate, self._making_way
        inflight = self.stats.inflight[lane]
        allowed = min(self._bounds[lane] - inflight, rate.available(mono, wanted))
        due = rate.next_due(mono)
        if lane == "cancel":
            allowed = making_way.available(mono, allowed, inflight + self.outbox.unconfirmed(lane))
            if not frame_rate.available(mono, 1):
                allowed = 0
            due = due or frame_rate.next_due(mono) or making_way.next_due(mono)
        if allowed <= 0 and due is not None and (self._flush_due is None or due < self._flush_due):
            self._flush_due = due  # the other lane may have asked for an earlier one
        return max(0, allowed)

    def _send(self, session: SessionState, lane: Lane, batch: list[CancelState], now: Now) -> None:
        """Register the cancels, then hand their frame to the session: no report can overtake its cancel.

        Those that make a frame longer than ``venue.max_frame_bytes`` go in two.
        """
        settings, stats, sent_at = self._config.venue, self.stats, self.events.at(now)
        reqid = session.take_reqid()
        data = venue.cancel_request(reqid, elements(batch, settings.target, sent_at))
        if len(data) > settings.max_frame_bytes and len(batch) > 1:
            half = len(batch) // 2
            self._send(session, lane, batch[:half], now)
            self._send(session, lane, batch[half:], now)
            return
        self._frame_rate.spend(1)
        frame = SentFrame(session, reqid, lane, batch)
        session.frames[reqid] = frame
        session.inflight += len(batch)
        due = self.desk.were_sent(batch, now)
        sent_mono, session_id = now.mono, session.session_id
        for cancel in batch:
            if cancel.transact_time is None:
                cancel.transact_time = sent_at
            cancel.attempt += 1
            cancel.sent = "yes"
            cancel.sent_at = sent_at
            cancel.sent_mono = sent_mono
            cancel.session_id = session_id
            cancel.frame = frame
            cancel.due = due
        for received_us, same in groupby([cancel.command.received_us for cancel in batch]):
            stats.send_delay[lane].observe((now.utc_us - received_us) / 1e6, len(list(same)))
        stats.inflight[lane] += len(batch)
        stats.cancels_sent[lane] += len(batch)
        stats.frames_sent += 1
        self.effects.append(SendText(session.number, data))

    # -- time

    def tick(self, now: Now) -> None:
        """Act on every time that has come: Pings, time-outs, look-ups, retries, announcements."""
        self.sessions.tick(now)
        self._steer()  # a snapshot may have ended by its timer
        self.desk.tick(now)
        self.lookups.tick(now)
        self.reader.tick(self.sessions.pick(), now)
        self.outbox.tick(now)
        self._announce(now)
        if now.mono >= self._release_due:
            self._release_due = now.mono + self._release_every
            self.intake.release_overdue(now, self._release_due)
        self.intake.drop_parked(now)
        self._stop_if_done(now)

    def next_due(self) -> float | None:
        """Monotonic seconds by which ``tick`` and ``flush`` want to be called; None: only a fact can bring news."""
        parts = (self.sessions, self.desk, self.outbox, self.sweeps, self.reader)
        dues = [*(part.next_due() for part in parts), self._flush_due]
        if self.sessions.ready:
            dues.append(self.lookups.next_due())
        if self._unready_since is not None and not self._announced_unavailable and not self.stopping:
            dues.append(self._unready_since + self._config.venue.unavailable_after)
        return min((d for d in dues if d is not None), default=None)

    def _announce(self, now: Now) -> None:
        """Say that no session has become ready for some time though commands may wait, and that it is over (3)."""
        if self.sessions.ready:
            self._unready_since = None
            if self._announced_unavailable:
                self._announced_unavailable = False
                self.events.availability("worker_available", None, now)
            return
        if self._unready_since is None:
            self._unready_since = now.mono
        waited = now.mono - self._unready_since
        if not self._announced_unavailable and not self.stopping and waited >= self._config.venue.unavailable_after:
            self._announced_unavailable = True
            why = self.sessions.last_loss or "no session became ready"
            error = CodeError("no_session", None, f"no venue session is ready: {why}")
            self.events.availability("worker_unavailable", error, now)
