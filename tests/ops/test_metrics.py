"""The exposition as Prometheus reads it: names, help, units, label sets, buckets."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from worker.core.stats import Histogram, Stats
from worker.ops.metrics import COUNTERS, GAUGES, HISTOGRAMS, Exposition, WorkerCollector


def exposition(stats: Stats, dropped: int = 0, accept: str = "") -> bytes:
    body, _ = Exposition(WorkerCollector(stats, "1.2.3", "abc", lambda: dropped)).text(accept)
    return body


def scrape(stats: Stats, dropped: int = 0, accept: str = "") -> dict[str, Metric]:
    body = exposition(stats, dropped, accept)
    return {family.name: family for family in text_string_to_metric_families(body.decode())}


def sample(families: dict[str, Metric], name: str, **labels: str) -> float:
    (value,) = [
        found.value
        for family in families.values()
        for found in family.samples
        if found.name == name and found.labels == labels
    ]
    return value


def test_every_number_of_stats_is_shown_and_nothing_else() -> None:
    shown = [row.field for row in (*COUNTERS, *GAUGES, *HISTOGRAMS)]
    assert sorted(shown) == sorted(Stats.__struct_fields__)
    assert len(set(shown)) == len(shown)


def test_every_number_is_counted_by_something() -> None:
    """A metric that nothing counts would stand at 0 for ever, and nobody would know."""
    package = Path(__file__).resolve().parents[2] / "worker"
    elsewhere = {package / "broker", package / "core/stats.py", package / "ops/metrics.py", package / "ops/status.py"}
    code = [path.read_text() for path in package.rglob("*.py") if elsewhere.isdisjoint([path, *path.parents])]
    counting = re.compile(r"stats\.(\w+)(?:\[[^=\n]+\])?(?: [+-]?= |\.add\(|\.observe\()")
    found = [set(counting.findall(text)) for text in code]
    assert set(Stats.__struct_fields__) - set().union(*found) == set()


def test_promtool_finds_nothing(promtool: str) -> None:
    stats = Stats()
    stats.commands_received["kill"] += 1
    stats.first_report.observe(0.25)
    done = subprocess.run(
        [promtool, "check", "metrics"], input=exposition(stats), capture_output=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_names_help_and_units_are_as_prometheus_wants_them() -> None:
    for family in scrape(Stats()).values():
        assert family.documentation
        assert re.fullmatch(r"(cancel_worker|process)_[a-z][a-z_]*", family.name)
        assert not re.search(r"_(ms|us|milliseconds|kb|mb|count|sum|bucket|counter|gauge)\Z", family.name)
        if family.type == "counter":
            assert all(found.name.endswith("_total") for found in family.samples)
        else:
            assert not family.name.endswith("_total")


def test_all_label_sets_are_there_before_anything_happened() -> None:
    families = scrape(Stats())
    assert sample(families, "cancel_worker_finals_total", outcome="unresolved") == 0
    assert sample(families, "cancel_worker_doubts_total", reason="session_lost") == 0
    assert sample(families, "cancel_worker_link_connected", link="publish_kill") == 0
    assert sample(families, "cancel_worker_final_delay_seconds_count", lane="kill") == 0
    for family in families.values():
        assert family.samples, family.name


def test_what_was_counted_is_shown() -> None:
    stats = Stats()
    stats.commands_received["kill"] += 3
    stats.reports.add("Nonsense")
    stats.clock_offset_s = -0.25
    stats.oldest_command_s["cancel"] = 1.5
    stats.frames_sent += 2**53
    families = scrape(stats, dropped=7)
    assert sample(families, "cancel_worker_commands_received_total", lane="kill") == 3
    assert sample(families, "cancel_worker_reports_total", exec_type="other") == 1
    assert sample(families, "cancel_worker_clock_offset_seconds") == -0.25
    assert sample(families, "cancel_worker_oldest_command_seconds", lane="cancel") == 1.5
    assert sample(families, "cancel_worker_frames_sent_total") == 2**53
    assert sample(families, "cancel_worker_log_lines_dropped_total") == 7
    assert sample(families, "cancel_worker_build_info", version="1.2.3", commit="abc") == 1


def test_buckets_are_cumulative_and_end_in_the_count() -> None:
    stats = Stats()
    stats.first_report = Histogram((0.1, 1.0))
    for value in (0.1, 0.5, 0.5, 9.0):
        stats.first_report.observe(value)
    families = scrape(stats)
    name = "cancel_worker_first_report_seconds"
    assert sample(families, f"{name}_bucket", le="0.1") == 1
    assert sample(families, f"{name}_bucket", le="1.0") == 3
    assert sample(families, f"{name}_bucket", le="+Inf") == 4
    assert sample(families, f"{name}_count") == 4
    assert sample(families, f"{name}_sum") == pytest.approx(10.1)


def test_the_scraper_may_ask_for_openmetrics() -> None:
    exposition = Exposition(WorkerCollector(Stats(), "1", "", lambda: 0))
    body, content_type = exposition.text("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert exposition.text("")[1].startswith("text/plain")


def test_two_workers_of_one_process_have_registries_of_their_own() -> None:
    one, other = Stats(), Stats()
    one.resends += 1
    assert sample(scrape(one), "cancel_worker_resends_total") == 1
    assert sample(scrape(other), "cancel_worker_resends_total") == 0
