"""The cost of a cancel stays within its bounds; see bench/guard.py for why this cannot flake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(180)
def test_a_cancel_costs_no_more_than_it_may() -> None:
    # In a process of its own: coverage would trace our code and not the reference's.
    run = [sys.executable, "-m", "bench.guard"]
    done = subprocess.run(run, cwd=PROJECT, capture_output=True, text=True, env={"PATH": ""}, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
