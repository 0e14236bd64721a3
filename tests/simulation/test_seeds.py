"""Every invariant holds under seeded faults; a failing seed prints its story."""

from __future__ import annotations

import os

import pytest

from tests.simulation.run import Simulation

SEEDS = int(os.environ.get("CANCEL_WORKER_SEEDS", "2000"))
CHUNK = 20


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_invariant_holds_under_seeded_faults(first: int) -> None:
    for seed in range(first, min(first + CHUNK, SEEDS)):
        verdict = Simulation(seed).run()
        assert verdict.holds, "\n".join([f"seed {seed}:", *verdict.violations, "its story:", *verdict.story[-400:]])


def test_a_seed_replays_exactly() -> None:
    once, again = Simulation(7).run(), Simulation(7).run()
    assert once.story == again.story


def test_seeds_meet_what_they_are_made_for() -> None:
    missing = {
        "KILLED",
        "delivered again",
        "doubtful",
        "event_refused",
        "unknown_order",
        "already_closed",
        "requeue",
        "mass_canceled",
        "to worker 2",
    }
    for seed in range(200):
        story = "\n".join(Simulation(seed).run().story)
        missing = {sight for sight in missing if sight not in story}
        if not missing:
            return
    raise AssertionError(f"no seed of the first 200 shows {missing}")
