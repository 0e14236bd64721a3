"""Every planted bug turns the simulation red, by the invariant that guards against it."""

from __future__ import annotations

import pytest

from tests.simulation.plant import BUGS, SEEDS, Bug, find
from tests.support.timing import SECOND


@pytest.mark.slow
@pytest.mark.timeout(180 * SECOND)
@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_planted_bug_is_found(bug: Bug) -> None:
    finding = find(bug)
    assert finding.seed is not None, f"{SEEDS} seeds do not find that {bug.what}:\n{finding.output[-4000:]}"
    assert finding.is_by(bug), f"seed {finding.seed} found it by {finding.violations[:5]}, not by {bug.found_by}"
