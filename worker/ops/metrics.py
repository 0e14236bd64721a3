"""``/metrics``: reads ``Stats`` at scrape time. Between scrapes a metric costs nothing but its addition.

Names begin with ``cancel_worker_`` and end in their base unit; every label set is there from the first scrape, so that
rates and alerts see it. The process's own numbers (``process_...``) keep the names that dashboards know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from worker.core.stats import Histogram, Stats

PREFIX: Final = "cancel_worker_"


class _Row(NamedTuple):
    """A field of ``Stats`` and how it is shown; ``label`` where it holds numbers by label."""

    field: str
    name: str
    help: str
    label: str | None = None


COUNTERS: Final = (
    _Row("commands_received", "commands_received", "Commands taken from the lane, redeliveries included.", "lane"),
    _Row("commands_redelivered", "commands_redelivered", "Commands that the broker marked as redelivered.", "lane"),
    _Row("commands_joined", "commands_joined", "Deliveries that joined a running attempt of the same command.", "lane"),
    _Row("commands_invalid", "commands_invalid", "Commands that were invalid as a whole.", "lane"),
    _Row("commands_promoted", "commands_promoted", "Commands moved from the normal lane to the kill lane."),
    _Row("commands_acked", "commands_acked", "Commands acknowledged after all their finals were confirmed.", "lane"),
    _Row("commands_dead_lettered", "commands_dead_lettered", "Commands sent to the dead-letter queue.", "lane"),
    _Row("commands_handed_back", "commands_handed_back", "Commands returned to their queue.", "lane"),
    _Row("stale_settlements", "stale_settlements", "Settlements dropped because their channel was gone."),
    _Row("cancels_received", "cancels_received", "Cancels in the commands taken.", "lane"),
    _Row("cancels_sent", "cancels_sent", "Cancels written to the venue, resends included.", "lane"),
    _Row("resends", "resends", "Cancels sent again after a look-up showed the order open."),
    _Row("finals", "finals", "Cancels ended, by outcome.", "outcome"),
    _Row("infos", "infos", "Events that end nothing, by outcome.", "outcome"),
    _Row("doubts", "doubts", "Cancels that became doubtful, by reason.", "reason"),
    _Row("lookups", "lookups", "Questions asked to the venue after doubt.", "kind"),
    _Row("late_reports", "late_reports", "Reports on a cancel that came after its final."),
    _Row("sweeps", "sweeps", "Rounds of mass cancels."),
    _Row("frames_sent", "frames_sent", "Messages sent to the venue."),
    _Row("frames_received", "frames_received", "Messages received from the venue."),
    _Row("reports", "reports", "Execution reports read, by ExecType.", "exec_type"),
    _Row("foreign_reports", "foreign_reports", "Reports on orders and cancels that are not ours."),
    _Row("duplicate_reports", "duplicate_reports", "Reports with an ExecID seen before."),
    _Row("conflicting_reports", "conflicting_reports", "Reports with an ExecID seen before and other content."),
    _Row("error_frames", "error_frames", "Error frames of the venue."),
    _Row("bad_frames", "bad_frames", "Messages of the venue that could not be read."),
    _Row("bad_records", "bad_records", "Records that could not be read, in messages that could."),
    _Row("session_attempts", "session_attempts", "Log-ins to the venue tried."),
    _Row("session_refusals", "session_refusals", "Log-ins that the venue answered with another status than 101."),
    _Row("session_losses", "session_losses", "Sessions with the venue that ended."),
    _Row("events_published", "events_published", "Events published, retries included.", "lane"),
    _Row("events_confirmed", "events_confirmed", "Events confirmed by the broker.", "lane"),
    _Row("events_nacked", "events_nacked", "Events that the broker refused.", "lane"),
    _Row("events_returned", "events_returned", "Events for which no queue was bound.", "lane"),
    _Row("replies", "replies", "Finals also sent to a reply queue."),
    _Row("replies_returned", "replies_returned", "Finals whose reply queue was missing."),
    _Row("link_attempts", "link_attempts", "Connects to the broker that came up or failed.", "link"),
    _Row("link_losses", "link_losses", "Connections to the broker lost.", "link"),
)

GAUGES: Final = (
    _Row("mass_running", "mass_cancels_running", "Mass cancels that have not ended."),
    _Row("sessions_wanted", "sessions_wanted", "Sessions with the venue to be kept up."),
    _Row("sessions_ready", "sessions_ready", "Sessions with the venue that are ready."),
    _Row("clock_offset_s", "clock_offset_seconds", "The venue's clock minus ours, at the last hello."),
    _Row("link_connected", "link_connected", "1 while the connection to the broker is up.", "link"),
    _Row("link_blocked", "link_blocked", "1 while the broker blocks the connection.", "link"),
    _Row("inflight", "inflight_cancels", "Cancels sent and not final.", "lane"),
    _Row("waiting", "waiting_cancels", "Cancels taken and not sent.", "lane"),
    _Row("doubtful", "doubtful_cancels", "Cancels in doubt.", "lane"),
    _Row("unconfirmed", "unconfirmed_events", "Events published and not confirmed.", "lane"),
    _Row("unsettled", "unsettled_commands", "Commands taken and not settled.", "lane"),
    _Row("oldest_command_s", "oldest_command_seconds", "Age of the oldest command not settled.", "lane"),
    _Row("loop_lag_s", "loop_lag_seconds", "How late the last timer of the event loop ran."),
    _Row("loop_lag_max_s", "loop_lag_max_seconds", "How late a timer of the event loop ran at worst."),
)

HISTOGRAMS: Final = (
    _Row("send_delay", "send_delay_seconds", "From a command received to its cancel written to the venue.", "lane"),
    _Row("first_report", "first_report_seconds", "From a cancel written to its first report."),
    _Row("final_delay", "final_delay_seconds", "From a command received to the final of a cancel decided.", "lane"),
    _Row("confirm_delay", "confirm_delay_seconds", "From an event made to confirmed, retries included."),
)


class WorkerCollector(Collector):
    """Shows one worker's ``Stats``. ``log_dropped`` gives the log lines lost so far."""

    def __init__(self, stats: Stats, version: str, commit: str, log_dropped: Callable[[], int]) -> None:
        self._stats = stats
        self._build = (version, commit)
        self._log_dropped = log_dropped

    def collect(self) -> Iterator[Metric]:
        """All families, in a fixed order."""
        build = GaugeMetricFamily(PREFIX + "build_info", "What is running.", labels=("version", "commit"))
        build.add_metric(self._build, 1)
        yield build
        for row in COUNTERS:
            counter = CounterMetricFamily(PREFIX + row.name, row.help, labels=_labels(row))
            for labels, value in self._numbers(row):
                counter.add_metric(labels, value)
            yield counter
        yield CounterMetricFamily(PREFIX + "log_lines_dropped", "Log lines that were lost.", value=self._log_dropped())
        for row in GAUGES:
            gauge = GaugeMetricFamily(PREFIX + row.name, row.help, labels=_labels(row))
            for labels, value in self._numbers(row):
                gauge.add_metric(labels, value)
            yield gauge
        for row in HISTOGRAMS:
            family = HistogramMetricFamily(PREFIX + row.name, row.help, labels=_labels(row))
            for labels, histogram in self._histograms(row):
                family.add_metric(labels, _cumulative(histogram), histogram.sum)
            yield family

    def _numbers(self, row: _Row) -> Iterator[tuple[tuple[str, ...], float]]:
        value: float | Mapping[str, float] = getattr(self._stats, row.field)
        if isinstance(value, Mapping):
            for label, number in value.items():
                yield (label,), number
        else:
            yield (), value

    def _histograms(self, row: _Row) -> Iterator[tuple[tuple[str, ...], Histogram]]:
        value: Histogram | Mapping[str, Histogram] = getattr(self._stats, row.field)
        if isinstance(value, Mapping):
            for label, histogram in value.items():
                yield (label,), histogram
        else:
            yield (), value


class Exposition:
    """The registry of one worker, and its text. No global registry: tests and processes keep theirs apart."""

    def __init__(self, collector: WorkerCollector) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(collector)
        ProcessCollector(registry=self.registry)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """``(body, content type)`` in the format that the scraper's ``Accept`` asks for."""
        encoder, content_type = choose_encoder(accept)
        return encoder(self.registry), content_type


def _labels(row: _Row) -> tuple[str, ...]:
    return () if row.label is None else (row.label,)


def _cumulative(histogram: Histogram) -> list[tuple[str, float]]:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, histogram.bounds), "+Inf"), histogram.counts, strict=True):
        total += count
        buckets.append((bound, total))
    return buckets
