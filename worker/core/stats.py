"""What the worker has done, as plain numbers: written by the engine and the shells, read by ``/metrics`` and
``/status``.

Counting costs an addition: ``stats.frames_sent += 1``, ``stats.finals[outcome] += 1``. Label sets are closed and start
at 0, so that rates and alerts see them from the first scrape; a label that is not ours to choose (the venue's words,
reasons) goes through ``Counts.add``, which books an unknown one as ``other``. A plain ``+=`` with an unknown label is a
bug and raises KeyError. Nothing here is ever reset: counters only grow, gauges hold the last value set.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, get_args

from msgspec import Struct, field

from worker.wire.command import Lane
from worker.wire.event import FINAL_OUTCOMES, Outcome
from worker.wire.venue import ExecType

LANES: Final[tuple[Lane, ...]] = get_args(Lane)

FINALS: Final = tuple(outcome for outcome in get_args(Outcome) if outcome in FINAL_OUTCOMES)
"""The outcomes that end a cancel, a mass cancel or a command."""

INFOS: Final = tuple(outcome for outcome in get_args(Outcome) if outcome not in FINAL_OUTCOMES)
"""The outcomes that end nothing."""

EXEC_TYPES: Final = (*get_args(ExecType), "other")
"""Protocol 5.1; any other word of the venue counts as ``other``."""

DOUBT_REASONS: Final = (
    "redelivered",
    "no_report",
    "pending",
    "session_lost",
    "error_frame",
    "unclear_report",
    "running_request",
    "duplicate_id",
    "unknown_order",
    "other",
)
"""Why a cancel became doubtful. ``pending``: PendingCancel and then silence; ``running_request`` and ``duplicate_id``:
reject reasons 3 and 6; ``unclear_report``: one that does not tell, or not for certain, what became of the order."""

LOOKUP_KINDS: Final = ("order", "replay")
"""One order asked for on the Order stream; a replay of ExecutionReports."""

LINKS: Final = ("consume_kill", "consume_cancel", "publish_kill", "publish_cancel")
"""The AMQP connections, one per role and lane."""

LATENCY_BOUNDS_S: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
"""Upper bounds of the latency buckets: from below the broker's own half millisecond to the default doubt window."""


class Counts(dict[str, int]):
    """Numbers by label, all labels there from the start."""

    __slots__ = ()

    def __init__(self, labels: Iterable[str]) -> None:
        super().__init__(dict.fromkeys(labels, 0))

    def add(self, label: str, n: int = 1) -> None:
        """Count ``n`` under ``label``, or under ``other`` where the label is not one of the set."""
        if label not in self:
            label = "other"
        self[label] += n


class Histogram:
    """Observations in seconds, counted by bucket. ``observe`` is one bisect and two additions."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = LATENCY_BOUNDS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # not cumulative; the last is everything above the highest bound
        self.sum = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Count an observation. A bound is in its bucket (Prometheus ``le``); a negative delay counts as 0."""
        if seconds < 0.0:
            seconds = 0.0
        self.counts[bisect_left(self.bounds, seconds)] += times
        self.sum += seconds * times

    @property
    def count(self) -> int:
        """Observations so far."""
        return sum(self.counts)


def _by_lane() -> Counts:
    return Counts(LANES)


def _delay_by_lane() -> dict[str, Histogram]:
    return {lane: Histogram() for lane in LANES}


class Stats(Struct):
    """All counters, gauges and histograms of one process; ``{x}`` below names the label of a ``Counts``."""

    # Commands
    commands_received: Counts = field(default_factory=_by_lane)  # {lane} deliveries taken, redeliveries included
    commands_redelivered: Counts = field(default_factory=_by_lane)  # {lane} those the broker marked so
    commands_joined: Counts = field(default_factory=_by_lane)  # {lane} joined an attempt running under the same id
    commands_invalid: Counts = field(default_factory=_by_lane)  # {lane} ended as a whole by one ``invalid``
    commands_promoted: int = 0  # moved from the normal lane to the kill lane
    commands_acked: Counts = field(default_factory=_by_lane)  # {lane}
    commands_dead_lettered: Counts = field(default_factory=_by_lane)  # {lane}
    commands_handed_back: Counts = field(default_factory=_by_lane)  # {lane} nacked with requeue
    stale_settlements: int = 0  # dropped, since the channel of their delivery was gone

    # Cancels
    cancels_received: Counts = field(default_factory=_by_lane)  # {lane} items of the commands taken
    cancels_sent: Counts = field(default_factory=_by_lane)  # {lane} written in frames, resends included
    resends: int = 0  # sent again after a look-up showed the order open
    finals: Counts = field(default_factory=lambda: Counts(FINALS))  # {outcome} counted once per cancel, when decided
    infos: Counts = field(default_factory=lambda: Counts(INFOS))  # {outcome} events that end nothing
    doubts: Counts = field(default_factory=lambda: Counts(DOUBT_REASONS))  # {reason} cancels that became doubtful
    lookups: Counts = field(default_factory=lambda: Counts(LOOKUP_KINDS))  # {kind} questions asked to the venue
    late_reports: int = 0  # reports on a cancel after its final
    sweeps: int = 0  # rounds of mass cancels
    mass_running: int = 0  # gauge: mass cancels not ended

    # Venue
    frames_sent: int = 0
    frames_received: int = 0
    reports: Counts = field(default_factory=lambda: Counts(EXEC_TYPES))  # {exec_type} ExecutionReports read
    foreign_reports: int = 0  # on orders and cancels that are not ours
    duplicate_reports: int = 0  # of an ExecID seen before
    conflicting_reports: int = 0  # of an ExecID seen before, with other content
    error_frames: int = 0
    bad_frames: int = 0  # messages that could not be read
    bad_records: int = 0  # records that could not, in a frame that could
    session_attempts: int = 0  # log-ins tried
    session_refusals: int = 0  # upgrades answered with another status than 101
    session_losses: int = 0  # sessions that ended
    sessions_wanted: int = 0  # gauge
    sessions_ready: int = 0  # gauge
    clock_offset_s: float = 0.0  # gauge: the venue's clock minus ours, at the last hello

    # Broker
    events_published: Counts = field(default_factory=_by_lane)  # {lane} to the results exchange, retries included
    events_confirmed: Counts = field(default_factory=_by_lane)  # {lane}
    events_nacked: Counts = field(default_factory=_by_lane)  # {lane}
    events_returned: Counts = field(default_factory=_by_lane)  # {lane} no queue was bound for it
    replies: int = 0  # copies of finals sent to ``reply_to``
    replies_returned: int = 0  # those that found no queue
    link_attempts: Counts = field(default_factory=lambda: Counts(LINKS))  # {link} connects that came up or failed
    link_losses: Counts = field(default_factory=lambda: Counts(LINKS))  # {link} connections lost
    link_connected: Counts = field(default_factory=lambda: Counts(LINKS))  # {link} gauge, 0 or 1
    link_blocked: Counts = field(default_factory=lambda: Counts(LINKS))  # {link} gauge, 0 or 1: Connection.Blocked

    # Load: gauges
    inflight: Counts = field(default_factory=_by_lane)  # {lane} cancels sent and not final
    waiting: Counts = field(default_factory=_by_lane)  # {lane} cancels taken and not sent
    doubtful: Counts = field(default_factory=_by_lane)  # {lane} cancels in doubt now
    unconfirmed: Counts = field(default_factory=_by_lane)  # {lane} events published and not confirmed
    unsettled: Counts = field(default_factory=_by_lane)  # {lane} commands taken and not settled
    oldest_command_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(LANES, 0.0))  # {lane} age of those
    loop_lag_s: float = 0.0  # how late the last timer of the loop ran
    loop_lag_max_s: float = 0.0  # the latest so far

    # Latencies
    send_delay: dict[str, Histogram] = field(default_factory=_delay_by_lane)  # {lane} command received to frame written
    first_report: Histogram = field(default_factory=Histogram)  # frame written to the cancel's first report
    final_delay: dict[str, Histogram] = field(default_factory=_delay_by_lane)  # {lane} received to final decided
    confirm_delay: Histogram = field(default_factory=Histogram)  # event made to confirmed
