"""Counting: closed label sets, buckets as Prometheus reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.stats import LATENCY_BOUNDS_S, Counts, Histogram, Stats


def test_a_label_of_ours_that_is_not_in_the_set_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Stats().finals["cancelled"] += 1


def test_a_word_of_the_venue_that_is_not_in_the_set_counts_as_other() -> None:
    reports = Stats().reports
    reports.add("Canceled")
    reports.add("Vaporised", 2)
    assert (reports["Canceled"], reports["other"], "Vaporised" in reports) == (1, 2, False)


def test_every_outcome_of_the_contract_is_counted_once() -> None:
    stats = Stats()
    assert stats.finals.keys().isdisjoint(stats.infos)
    assert len(stats.finals) == 11
    assert set(stats.infos) == {
        "pending_cancel", "report", "doubtful", "mass_progress", "worker_unavailable", "worker_available",
    }  # fmt: skip


def test_processes_do_not_share_their_numbers() -> None:
    one, other = Stats(), Stats()
    one.inflight["kill"] += 1
    one.final_delay["kill"].observe(1.0)
    assert other.inflight["kill"] == 0
    assert other.final_delay["kill"].count == 0


def test_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (1.0, 1.5, 2.0, 2.1):
        histogram.observe(value)
    assert histogram.counts == [1, 2, 1]


def test_a_clock_that_steps_back_counts_as_no_delay() -> None:
    histogram = Histogram((1.0,))
    histogram.observe(-5.0)
    assert (histogram.counts, histogram.sum) == ([1, 0], 0.0)


@given(st.lists(st.floats(min_value=0, max_value=1000)))
def test_each_observation_is_in_one_bucket_and_in_the_sum(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(sum(values))
    below = 0
    for bound, count in zip(LATENCY_BOUNDS_S, histogram.counts, strict=False):
        below += count
        assert below == sum(value <= bound for value in values)


def test_counts_start_at_zero() -> None:
    assert Counts(["a", "b"]) == {"a": 0, "b": 0}
