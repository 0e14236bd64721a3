"""``python -m tests.simulation``: run seeds, or replay one and tell its story."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.simulation.run import Simulation, Verdict


def simulate(seed: int, *, keep_story: bool = False) -> Verdict:
    """Run one seed; the story is kept where something is wrong, or on request."""
    verdict = Simulation(seed).run()
    if verdict.holds and not keep_story:
        verdict.story = []
    return verdict


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds (default 200)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--seed", type=int, help="run this one seed")
    parser.add_argument("--story", action="store_true", help="tell what happened")
    parser.add_argument(
        "--about", action="append", default=[], metavar="TEXT", help="tell only of this id (repeatable)"
    )
    parser.add_argument("--until-red", action="store_true", help="stop at the first seed with violations")
    options = parser.parse_args()
    seeds = [options.seed] if options.seed is not None else range(options.first, options.first + options.seeds)
    began = time.monotonic()
    bad = commands = kills = 0
    with ProcessPoolExecutor() as pool:
        for verdict in pool.map(partial(simulate, keep_story=options.story), seeds, chunksize=4):
            commands += verdict.commands
            kills += verdict.kills
            if options.story:
                about = options.about
                print("\n".join(line for line in verdict.story if not about or any(text in line for text in about)))
            if not verdict.holds:
                bad += 1
                print(f"seed {verdict.seed}: {len(verdict.violations)} violations")
                for violation in verdict.violations[:10]:
                    print(f"  {violation}")
                if options.until_red:
                    pool.shutdown(wait=False, cancel_futures=True)
                    break
    spent = time.monotonic() - began
    print(f"{len(seeds)} seeds, {commands} commands, {kills} kills, {bad} seeds with violations, {spent:.1f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
