"""What the operations endpoint shows of one worker: readiness with its reasons, status, gauges (contract 8)."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic, time_ns
from typing import Any, Final, Protocol

from worker.core.cancel import Phase
from worker.core.engine import Engine
from worker.core.outbox import LANES
from worker.ops.metrics import Exposition
from worker.ops.status import LastErrors, SessionStatus, status
from worker.wire.command import Lane

CONFIRM_OVERDUE_S: Final = 5.0
"""An event that waits longer for its confirm makes the worker not ready (faults A24): publishing is what counts."""


class LinkCounts(Protocol):
    """How often a link came up, was lost, and failed to come up."""

    ups: int
    losses: int
    failures: int


class ConsumerCounts(LinkCounts, Protocol):
    """What a lane's consumer counts, as far as it is shown."""

    stale_settlements: int


class PublisherCounts(LinkCounts, Protocol):
    """What a lane's publisher counts, as far as it is shown."""

    replies: int
    replies_returned: int


class ConsumerState(Protocol):
    """A lane's consumer, as far as it is shown."""

    @property
    def state(self) -> str: ...
    @property
    def last_error(self) -> str | None: ...
    @property
    def stats(self) -> ConsumerCounts: ...


class PublisherState(Protocol):
    """A lane's publisher, as far as it is shown."""

    @property
    def state(self) -> str: ...
    @property
    def last_error(self) -> str | None: ...
    @property
    def blocked_reason(self) -> str | None: ...
    @property
    def stats(self) -> PublisherCounts: ...


class PoolState(Protocol):
    """The pool of sessions, as far as it is shown."""

    attempts: int
    refusals: int

    @property
    def last_errors(self) -> Mapping[int, str]: ...


class WorkerView:
    """The view of a running worker. ``topology_problem`` is set while the topology could not be seen."""

    def __init__(
        self,
        engine: Engine,
        worker: str,
        version: str,
        errors: LastErrors,
        exposition: Exposition,
        consumers: Mapping[Lane, ConsumerState],
        publishers: Mapping[Lane, PublisherState],
        pool: PoolState,
        sessions_wanted: int,
    ) -> None:
        self._engine = engine
        self._worker = worker
        self._version = version
        self._errors = errors
        self._exposition = exposition
        self._consumers = consumers
        self._publishers = publishers
        self._pool = pool
        self._started_us = time_ns() // 1000
        engine.stats.sessions_wanted = sessions_wanted
        self.topology_problem: str | None = "the topology has not been checked yet"

    def reasons(self) -> list[str]:
        """Why the worker is not ready; empty: it is."""
        engine = self._engine
        reasons = []
        if engine.stopping:
            reasons.append("stopping: SIGTERM was received")
        if self.topology_problem is not None:
            reasons.append(f"topology: {self.topology_problem}")
        if not engine.sessions.ready:
            why = "; ".join(dict.fromkeys(self._pool.last_errors.values())) or engine.sessions.last_loss
            reasons.append(f"no venue session is ready{f': {why}' if why else ''}")
        for lane in LANES:
            consumer, publisher = self._consumers[lane], self._publishers[lane]
            if consumer.state != "consuming":
                down = consumer.state == "down"
                why = _because(consumer.last_error, "down") if down else " (paused)"
                reasons.append(f"the {lane} lane is not consumed{why}")
            if publisher.state != "up":
                reasons.append(f"the {lane} lane cannot publish{_because(publisher.last_error, publisher.state)}")
            elif publisher.blocked_reason is not None:
                reasons.append(f"the broker blocks publishing of the {lane} lane: {publisher.blocked_reason}")
            overdue = engine.outbox.oldest_wait(lane, monotonic())
            if overdue > CONFIRM_OVERDUE_S:
                reasons.append(f"an event of the {lane} lane waits {overdue:.0f} s for its confirm")
        refused = engine.outbox.refused
        if refused:
            reasons.append(f"{len(refused)} events are refused by the broker: {next(iter(refused.values()))}")
        return reasons

    def status(self) -> dict[str, Any]:
        """The object of ``/status``."""
        self.refresh()
        now_us, now_mono = time_ns() // 1000, monotonic()
        sessions = [
            SessionStatus(s.slot, "ready", s.session_id, now_us - int((now_mono - s.ready_since) * 1e6))
            if s.ready
            else SessionStatus(s.slot, "opening", s.session_id)
            for s in self._engine.sessions.all()
        ]
        return status(
            worker=self._worker,
            version=self._version,
            started_us=self._started_us,
            now_us=now_us,
            stats=self._engine.stats,
            reasons=self.reasons(),
            sessions=sessions,
            errors=self._errors,
        )

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The body and content type of ``/metrics``."""
        self.refresh()
        return self._exposition.text(accept)

    def refresh(self) -> None:
        """Bring up to date what is read, not kept: the gauges, and what the shells count themselves."""
        engine, now_us = self._engine, time_ns() // 1000
        stats = engine.stats
        held = engine.intake.counts()
        oldest = engine.intake.oldest_received_us()
        waiting, doubtful = engine.intake.in_phase(Phase.QUEUED), engine.intake.in_phase(Phase.DOUBT)
        for lane in LANES:
            stats.waiting[lane] = waiting[lane]
            stats.doubtful[lane] = doubtful[lane]
            stats.unconfirmed[lane] = engine.outbox.unconfirmed(lane)
            stats.unsettled[lane] = held[lane]
            received_us = oldest[lane]
            stats.oldest_command_s[lane] = 0.0 if received_us is None else max(0.0, (now_us - received_us) / 1e6)
            consumer, publisher = self._consumers[lane], self._publishers[lane]
            stats.link_connected[f"consume_{lane}"] = int(consumer.state != "down")
            stats.link_connected[f"publish_{lane}"] = int(publisher.state != "down")
            stats.link_blocked[f"publish_{lane}"] = int(publisher.blocked_reason is not None)
            self._count_link(f"consume_{lane}", consumer.stats)
            self._count_link(f"publish_{lane}", publisher.stats)
        stats.stale_settlements = sum(consumer.stats.stale_settlements for consumer in self._consumers.values())
        stats.replies = sum(publisher.stats.replies for publisher in self._publishers.values())
        stats.replies_returned = sum(publisher.stats.replies_returned for publisher in self._publishers.values())
        stats.session_attempts = self._pool.attempts
        stats.session_refusals = self._pool.refusals

    def _count_link(self, link: str, counted: LinkCounts) -> None:
        stats = self._engine.stats
        stats.link_attempts[link] = counted.ups + counted.failures
        stats.link_losses[link] = counted.losses


def _because(error: str | None, state: str) -> str:
    return f": {error}" if error is not None else f" ({state})"
