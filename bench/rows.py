"""What was measured: one row per run, kept as JSON lines."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import median

import msgspec

from bench.machine import description, load_average


class Row(msgspec.Struct, omit_defaults=True):
    """One run. ``case``: what was varied, such as ``500/s``. ``broken``: the condition that the run did not meet."""

    scenario: str
    case: str
    candidate: str
    repetition: int
    figures: dict[str, float]
    broken: str = ""
    load: float = msgspec.field(default_factory=load_average)
    at: float = msgspec.field(default_factory=time.time)
    machine: str = msgspec.field(default_factory=description)

    def line(self) -> str:
        """For people who wait."""
        figures = "  ".join(f"{name} {value:,.4g}" for name, value in self.figures.items())
        what = f"{self.scenario} {self.case} {self.candidate} #{self.repetition}"
        return f"{what}: {figures}  load {self.load:.1f}  {self.broken}"


class Spread(msgspec.Struct, frozen=True):
    """Median, lowest and highest of some runs."""

    median: float
    low: float
    high: float
    runs: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread | None:
        found = sorted(values)
        return cls(median(found), found[0], found[-1], len(found)) if found else None


def append(file: Path, row: Row) -> None:
    """Add a row to a file of JSON lines."""
    with file.open("ab") as lines:
        lines.write(msgspec.json.encode(row) + b"\n")


def read(file: Path) -> Iterator[Row]:
    """All rows of a file."""
    for line in file.read_bytes().splitlines():
        yield msgspec.json.decode(line, type=Row)
