"""Holds the branch coverage of the packages that decide things above a floor.

coverage_gate.py REPORT.json --at-least PERCENT PACKAGE...

REPORT.json is what `coverage json` wrote. Prints a line per package; exit 1 if one is below the floor or was not
measured. coverage's own --fail-under mixes lines into its figure, which hides branches behind straight-line code.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def branches_of(report: dict[str, dict[str, dict[str, dict[str, int]]]], package: str) -> tuple[int, int]:
    """Covered and existing branches of all files under PACKAGE (a folder, as in the report's file names)."""
    covered = existing = 0
    for name, file in report["files"].items():
        if name.startswith(package.rstrip("/") + "/"):
            covered += file["summary"]["covered_branches"]
            existing += file["summary"]["num_branches"]
    return covered, existing


def main() -> int:
    parser = argparse.ArgumentParser(description="hold branch coverage above a floor")
    parser.add_argument("report", type=Path)
    parser.add_argument("--at-least", type=float, required=True, metavar="PERCENT")
    parser.add_argument("packages", nargs="+", metavar="PACKAGE")
    arguments = parser.parse_args()
    report = json.loads(arguments.report.read_text())
    failed = False
    for package in arguments.packages:
        covered, existing = branches_of(report, package)
        percent = 100 * covered / existing if existing else 0.0
        enough = percent >= arguments.at_least
        failed |= not enough
        verdict = "" if enough else f", below the floor of {arguments.at_least:g} %"
        print(f"branch coverage of {package}: {percent:.1f} % ({covered} of {existing}){verdict}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
