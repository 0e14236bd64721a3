"""Rows to tables in Markdown, to the verdict on each target, and into docs/performance.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from bench.candidates import CANDIDATES
from bench.machine import PROJECT
from bench.picture import chart
from bench.rows import Row, Spread
from bench.targets import verdicts

DOCUMENT: Final = PROJECT / "docs" / "performance.md"
PICTURE: Final = PROJECT / "docs" / "performance.svg"

Figure = Callable[[Row, "Rows"], float | None]


class Rows:
    """The runs that met their conditions."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.all = [row for row in rows if not row.broken]
        self._by_run = {(row.scenario, row.case, row.candidate, row.repetition): row for row in self.all}

    def of(self, scenario: str, case: str = "", candidate: str = "worker") -> list[Row]:
        """All repetitions."""
        return [r for r in self.all if (r.scenario, r.case, r.candidate) == (scenario, case, candidate)]

    def ratio(self, row: Row, figure: str, to: str) -> float | None:
        """A figure to the same one of another candidate in the same repetition."""
        other = self._by_run.get((row.scenario, row.case, to, row.repetition))
        if other is None or not other.figures.get(figure) or figure not in row.figures:
            return None
        return row.figures[figure] / other.figures[figure]

    def spread(self, scenario: str, case: str, candidate: str, figure: str, to: str = "") -> Spread | None:
        """Median and range of a figure, or of its ratio to candidate ``to``."""
        found = self.of(scenario, case, candidate)
        values = [self.ratio(row, figure, to) if to else row.figures.get(figure) for row in found]
        return Spread.of(value for value in values if value is not None)


class Column(NamedTuple):
    """``to``: show the ratio to this candidate."""

    title: str
    figure: str
    to: str = ""


class Table(NamedTuple):
    title: str
    scenario: str
    columns: tuple[Column, ...]


_LATENCY: Final = (
    Column("wire p50 ms", "wire_p50"),
    Column("wire p99", "wire_p99"),
    Column("result p50 ms", "result_p50"),
    Column("result p99", "result_p99"),
)
_COST: Final = (Column("worker µs/cancel", "cpu_us"), Column("broker µs/cancel", "broker_us"))
_GROWTH: Final = (
    Column("worker µs/cancel", "cpu_us"),
    Column("cancels/s", "rate"),
    Column("longest collection, CPU ms", "gc_cpu_ms"),
    Column("by the wall clock", "gc_longest_ms"),
    Column("memory at the end MiB", "rss_mib"),
)

TABLES: Final = (
    Table(
        "Throughput",
        "throughput",
        (Column("cancels/s", "rate"), Column("of C", "rate", "c"), Column("of Node", "rate", "node"), *_COST),
    ),
    Table(
        "Latency",
        "latency",
        (*_LATENCY, Column("result p50 of C", "result_p50", "c"), Column("worker µs/cancel", "cpu_us")),
    ),
    Table("Commands of many cancels", "batch", (Column("cancels/s", "rate"), Column("of C", "rate", "c"), *_COST)),
    Table(
        "1,000 cancels in one command",
        "large command",
        (
            Column("all on the wire p50 ms", "all_on_wire_p50"),
            Column("p99", "all_on_wire_p99"),
            Column("first to last p50 ms", "first_to_last_p50"),
            Column("all finals p50 ms", "all_final_p50"),
        ),
    ),
    Table("Ever more commands", "commands", _GROWTH),
    Table("Ever more cancels in flight", "in flight", _GROWTH),
    Table("Memory", "memory", (Column("bytes per cancel in flight", "bytes_per_cancel"), Column("all MiB", "rss_mib"))),
    Table("Other users' reports", "foreign reports", (*_LATENCY, Column("worker µs/cancel", "cpu_us"))),
    Table("Kill lane", "kill lane", (*_LATENCY, Column("normal lane cancels/s", "normal_rate"))),
    Table(
        "Mass cancel, a venue of 2 ms",
        "mass cancel",
        (
            Column("last cancel of the first sweep ms", "first_sweep_ms"),
            Column("µs/order", "us_per_order"),
            Column("making and writing its frames alone ms", "writing_ms"),
            Column("verified flat ms", "flat_ms"),
            Column("frames", "frames"),
            Column("sweeps", "sweeps"),
        ),
    ),
    Table(
        "Faults under load",
        "fault",
        (*_LATENCY, Column("worst ms", "result_max"), Column("slower than 100 ms", "slow")),
    ),
    Table(
        "Start-up",
        "start-up",
        (Column("ready s", "ready_s"), Column("CPU s", "ready_cpu_s"), Column("import s", "import_s")),
    ),
)


def number(value: float) -> str:
    """Three digits that mean something."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value else "0"


def cell(spread: Spread | None) -> str:
    """``median (lowest-highest)``."""
    if spread is None:
        return ""
    if spread.runs == 1:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.low)}–{number(spread.high)})"


def _lines(table: Table, rows: Rows) -> list[str]:
    found: dict[tuple[str, str], int] = {}
    for row in rows.all:
        if row.scenario == table.scenario:
            found[row.case, row.candidate] = found.get((row.case, row.candidate), 0) + 1
    if not found:
        return []
    cased = any(case for case, _ in found)
    head = ["", *(["case"] if cased else []), "runs", *(column.title for column in table.columns)]
    lines = [f"### {table.title}", "", f"| {' | '.join(head)} |", "| --- " + "| ---: " * (len(head) - 1) + "|"]
    for (case, candidate), runs in found.items():
        cells = [cell(rows.spread(table.scenario, case, candidate, c.figure, c.to)) for c in table.columns]
        line = [CANDIDATES[candidate].title, *([case] if cased else []), str(runs), *cells]
        lines.append(f"| {' | '.join(line)} |")
    return [*lines, ""]


def tables(given: Sequence[Row]) -> str:
    """All tables for which there are rows, the targets first."""
    rows = Rows(given)
    lines = ["### Targets", "", "| | must | aim | measured | |", "| --- | ---: | ---: | ---: | --- |"]
    for verdict in verdicts(rows):
        must, aim = number(verdict.must), number(verdict.aim) if verdict.aim is not None else ""
        sign = "≥" if verdict.at_least else "≤"
        measured = cell(verdict.measured)
        lines.append(
            f"| {verdict.title} | {sign} {must} | {sign + ' ' + aim if aim else ''} | {measured} | {verdict.word} |"
        )
    lines.append("")
    for table in TABLES:
        lines += _lines(table, rows)
    kept_out = [row for row in given if row.broken]
    loads = sorted(row.load for row in given)
    if loads:
        lines.append(f"{len(given)} runs on {given[0].machine}; load average {loads[0]:.1f} to {loads[-1]:.1f}.")
    for row in kept_out:
        what = " ".join(filter(None, (row.scenario, row.case, row.candidate)))
        lines.append(f"- kept out: {what}, repetition {row.repetition}: {row.broken}")
    return "\n".join(lines)


def document(given: Sequence[Row]) -> None:
    """Put tables and picture in their places in docs/."""
    text = DOCUMENT.read_text()
    new = re.sub(
        r"(<!-- tables: begin -->\n).*?(<!-- tables: end -->)",
        lambda found: f"{found[1]}\n{tables(given)}\n{found[2]}",
        text,
        flags=re.DOTALL,
    )
    DOCUMENT.write_text(new)
    rows = Rows(given)
    names = [name for name in CANDIDATES if rows.of("throughput", "", name)]
    PICTURE.write_text(
        chart(
            [
                (
                    "cancels per second",
                    [(CANDIDATES[n].title, rows.spread("throughput", "", n, "rate")) for n in names],
                ),
                (
                    "CPU µs per cancel",
                    [(CANDIDATES[n].title, rows.spread("throughput", "", n, "cpu_us")) for n in names],
                ),
            ]
        )
    )
