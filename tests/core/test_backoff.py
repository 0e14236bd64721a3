"""The series of waits between attempts to log in."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.backoff import Backoff, Failure, retry_wait


def series(jitter: float, failures: list[Failure], least: float = 0.1, most: float = 30.0) -> list[float]:
    backoff = Backoff(least, most, refused_after=3, refused_least=30.0)
    return [backoff.next_delay(failure, jitter) for failure in failures]


@pytest.mark.parametrize(
    ("jitter", "failures", "waits"),
    [
        (1.0, ["failed"] * 9, [0.5, 1, 2, 4, 8, 16, 30, 30, 30]),
        (0.0, ["failed"] * 9, [0.1] * 9),
        (0.5, ["failed"] * 3, [0.3, 0.55, 1.05]),
        (0.0, ["refused"] * 5, [0.1, 0.1, 30, 30, 30]),
        (1.0, ["refused"] * 5, [0.5, 1, 60, 60, 60]),
        (0.0, ["refused", "refused", "failed", "refused", "refused", "refused"], [0.1, 0.1, 0.1, 0.1, 0.1, 30]),
    ],
)
def test_waits_grow_with_full_jitter_and_are_long_from_the_third_refusal_on(
    jitter: float, failures: list[Failure], waits: list[float]
) -> None:
    assert series(jitter, failures) == pytest.approx(waits)


def test_reset_begins_anew_and_accepted_only_forgets_refusals() -> None:
    backoff = Backoff(0.1, 30.0, 3, 30.0)
    for _ in range(4):
        backoff.next_delay("refused", 1.0)
    backoff.accepted()
    assert backoff.refusals == 0
    assert backoff.next_delay("failed", 1.0) == pytest.approx(8.0)
    backoff.reset()
    assert backoff.next_delay("failed", 1.0) == pytest.approx(0.5)


def test_what_the_venue_asks_for_is_added_to_the_wait() -> None:
    assert Backoff(0.1, 30.0, 3, 30.0).next_delay("failed", 0.5, retry_after=12.0) == pytest.approx(12.3)


def test_a_longest_wait_below_the_shortest_is_the_shortest() -> None:
    assert series(1.0, ["failed"] * 3, least=2.0, most=1.0) == [2.0, 2.0, 2.0]


@given(
    least=st.floats(0.001, 10.0),
    span=st.floats(1.0, 1000.0),
    steps=st.lists(
        st.tuples(st.sampled_from(["failed", "refused", "accepted", "reset"]), st.floats(0.0, 1.0)), max_size=40
    ),
    refused_least=st.floats(0.1, 600.0),
)
def test_no_wait_is_shorter_than_the_least_or_longer_than_the_most(
    least: float, span: float, steps: list[tuple[str, float]], refused_least: float
) -> None:
    most = least * span
    backoff = Backoff(least, most, 3, refused_least)
    refusals = 0
    for step, jitter in steps:
        if step in ("accepted", "reset"):
            refusals = 0
            backoff.accepted() if step == "accepted" else backoff.reset()
            continue
        refusals = refusals + 1 if step == "refused" else 0
        wait = backoff.next_delay("refused" if step == "refused" else "failed", jitter)
        slow = refusals >= 3
        assert (max(least, refused_least) if slow else least) <= wait
        assert wait <= (max(most, 2 * max(least, refused_least)) if slow else most)


def test_fifty_workers_that_lose_the_venue_together_come_back_spread_out() -> None:
    rng = Random(20260309)
    attempts: list[float] = []
    for _ in range(50):
        backoff, at = Backoff(0.1, 30.0, 3, 30.0), 0.0
        while at < 60.0:
            at += backoff.next_delay("failed", rng.random())
            attempts.append(at)
    for width, start, most in ((0.1, 0.0, 25), (0.1, 5.0, 8), (1.0, 30.0, 15)):
        edges = [start + width * step for step in range(int(20 / width))]
        busiest = max(sum(edge <= at < edge + width for at in attempts) for edge in edges)
        assert busiest <= most, (width, start)


# -- retries


@given(
    least=st.floats(0.001, 10.0), span=st.floats(0.5, 1000.0), failures=st.integers(1, 2000), worker=st.text(max_size=9)
)
def test_a_retry_waits_between_the_least_and_a_ceiling_that_doubles(
    least: float, span: float, failures: int, worker: str
) -> None:
    most = least * span
    wait = retry_wait(least, most, failures, worker)
    assert min(least, most) <= wait <= most
    assert wait <= least * 2.0**failures if failures < 40 else True
    assert wait == retry_wait(least, most, failures, worker), "told again, it is the same"


def test_the_ceiling_is_used_to_the_full() -> None:
    waits = sorted(retry_wait(1.0, 64.0, 6, f"worker-{n}") for n in range(1000))
    assert waits[0] < 2.0
    assert waits[-1] > 63.0
    assert 30.0 < waits[500] < 35.0


def test_fifty_workers_that_ask_together_do_not_ask_together_again() -> None:
    attempts: list[float] = []
    for n in range(50):
        at = 0.0
        for failures in range(1, 20):
            at += retry_wait(0.25, 5.0, failures, f"host-{n % 3}-{4000 + n}-0a1b2c{n:02x}")
            attempts.append(at)
    for width, start, most in ((0.05, 0.25, 20), (0.1, 5.0, 10), (1.0, 20.0, 35)):
        edges = [start + width * step for step in range(int(10 / width))]
        busiest = max(sum(edge <= at < edge + width for at in attempts) for edge in edges)
        assert busiest <= most, (width, start, busiest)


def test_events_refused_together_do_not_come_back_together() -> None:
    waits = [retry_wait(0.1, 30.0, 5, "worker-1", f"event-{n}") for n in range(200)]
    assert max(sum(at <= wait < at + 0.1 for wait in waits) for at in waits) < 25
