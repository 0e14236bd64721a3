"""The project's targets, and what was measured for each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from bench.rows import Spread

if TYPE_CHECKING:
    from bench.report import Rows


class Verdict(NamedTuple):
    """``measured`` None: nothing was."""

    title: str
    must: float
    aim: float | None
    at_least: bool
    measured: Spread | None

    @property
    def word(self) -> str:
        """By the median."""
        if self.measured is None:
            return "not measured"
        if self.aim is not None and self._holds(self.aim):
            return "aim reached"
        return "held" if self._holds(self.must) else "**missed**"

    def _holds(self, bound: float) -> bool:
        assert self.measured is not None
        return self.measured.median >= bound if self.at_least else self.measured.median <= bound


class _Target(NamedTuple):
    title: str
    scenario: str
    case: str
    figure: str
    to: str
    must: float
    aim: float | None = None
    at_least: bool = False


_TARGETS: Final = (
    _Target("throughput of the C worker", "throughput", "", "rate", "c", 0.75, 0.9, True),
    _Target("throughput of Node", "throughput", "", "rate", "node", 1.25, 1.5, True),
    _Target("throughput of naive aio-pika", "throughput", "", "rate", "naive", 5, 6, True),
    _Target("throughput of FastStream", "throughput", "", "rate", "faststream", 10, 12, True),
    _Target("throughput of C with events as large", "throughput", "", "rate", "c-large", 0.75, 0.9, True),
    _Target("throughput of Node with the contract's events", "throughput", "", "rate", "node-events", 1.25, 1.5, True),
    _Target("throughput of naive with the contract's events", "throughput", "", "rate", "naive-events", 5, 6, True),
    _Target("CPU of the worker, µs per cancel", "throughput", "", "cpu_us", "", 50, 25),
    _Target("CPU of naive aio-pika's", "throughput", "", "cpu_us", "naive", 0.16, 0.08),
    _Target("CPU of Node's", "throughput", "", "cpu_us", "node", 0.9, 0.45),
    _Target("CPU of naive's with the contract's events", "throughput", "", "cpu_us", "naive-events", 0.16, 0.08),
    _Target("CPU of Node's with the contract's events", "throughput", "", "cpu_us", "node-events", 0.9, 0.45),
    _Target("p50 to the wire at 500/s, of C", "latency", "500/s", "wire_p50", "c", 1.3, 1.15),
    _Target("p50 to the result at 500/s, of C", "latency", "500/s", "result_p50", "c", 1.3, 1.15),
    _Target("p50 to the wire at 2,000/s, of C", "latency", "2,000/s", "wire_p50", "c", 1.25, 1.15),
    _Target("p50 to the result at 2,000/s, of C", "latency", "2,000/s", "result_p50", "c", 1.25, 1.15),
    _Target("p99 to the result at 2,000/s, of C", "latency", "2,000/s", "result_p99", "c", 2, 1.3),
    _Target("p99 to the result at 2,000/s, of Node", "latency", "2,000/s", "result_p99", "node", 1, 0.8),
    _Target(
        "1,000 cancels of one command, first to last on the wire, ms",
        "large command",
        "1,000 cancels",
        "first_to_last_p50",
        "",
        5,
    ),
    _Target("the same, from the send of the command, ms", "large command", "1,000 cancels", "all_on_wire_p50", "", 5),
    _Target("memory per cancel in flight, bytes", "memory", "50,000 in flight", "bytes_per_cancel", "", 2048),
    _Target("longest garbage collection, 50,000 in flight, CPU ms", "in flight", "50,000", "gc_cpu_ms", "", 20),
    _Target(
        "first sweep of 10,000 orders, to making and writing its frames alone",
        "mass cancel",
        "10,000 orders",
        "of_writing",
        "",
        3,
    ),
    _Target("start-up to ready, s", "start-up", "", "ready_s", "", 1.0),
)


class _Quotient(NamedTuple):
    """What ``figure`` is in ``case``, to what it is in ``to``, of the worker itself."""

    title: str
    scenario: str
    figure: str
    case: str
    to: str
    must: float


_KILL_WAIT: Final = "of a kill cancel to the wire, behind a full normal lane to alone"
_BUSY: Final = "under full normal load"
_QUOTIENTS: Final = (
    _Quotient(
        "cost of a cancel, a batch of 1,000 to single commands",
        "batch",
        "cpu_us",
        "1,000 a command",
        "1 a command",
        1.0,
    ),
    _Quotient("cost of a cancel, 100,000 commands to 10,000", "commands", "cpu_us", "100,000", "10,000", 1.15),
    _Quotient("cost of a cancel, 1,000,000 commands to 10,000", "commands", "cpu_us", "1,000,000", "10,000", 1.15),
    _Quotient("cost of a cancel, 50,000 in flight to 1,000", "in flight", "cpu_us", "50,000", "1,000", 1.15),
    _Quotient(
        "first sweep, an order of 10,000 to one of 2,000",
        "mass cancel",
        "us_per_order",
        "10,000 orders",
        "2,000 orders",
        1.25,
    ),
    _Quotient(f"p50 {_KILL_WAIT}", "kill lane", "wire_p50", _BUSY, "alone", 2.0),
    _Quotient(f"p99 {_KILL_WAIT}", "kill lane", "wire_p99", _BUSY, "alone", 4.0),
)


def verdicts(rows: Rows) -> Iterator[Verdict]:
    """One for each target."""
    for t in _TARGETS:
        measured = rows.spread(t.scenario, t.case, "worker", t.figure, t.to)
        yield Verdict(t.title, t.must, t.aim, t.at_least, measured)
    for q in _QUOTIENTS:
        yield Verdict(q.title, q.must, None, False, _quotient(rows, q))
    for frame in ("20 a frame", "1 a frame"):
        case = f"50,000/s, {frame}"
        yield Verdict(f"CPU per foreign report, {frame}, µs", 3, None, False, _per_foreign_report(rows, case))
        yield Verdict(f"their delay of our p99, {frame}, ms", 5, None, False, _added(rows, case, "result_p99"))


def _by_repetition(rows: Rows, scenario: str, case: str, figure: str) -> dict[int, float]:
    return {row.repetition: row.figures[figure] for row in rows.of(scenario, case) if figure in row.figures}


def _quotient(rows: Rows, q: _Quotient) -> Spread | None:
    one, other = (_by_repetition(rows, q.scenario, case, q.figure) for case in (q.case, q.to))
    return Spread.of(one[r] / other[r] for r in one if r in other)


def _added(rows: Rows, case: str, figure: str) -> Spread | None:
    with_, without = (_by_repetition(rows, "foreign reports", c, figure) for c in (case, "none"))
    return Spread.of(max(0.0, with_[r] - without[r]) for r in with_ if r in without)


def _per_foreign_report(rows: Rows, case: str) -> Spread | None:
    """CPU beyond that of the run without them, per report."""
    spent, plain, reports, cancels = (
        _by_repetition(rows, "foreign reports", c, figure)
        for c, figure in ((case, "cpu_us"), ("none", "cpu_us"), (case, "foreign"), (case, "cancels"))
    )
    return Spread.of((spent[r] - plain[r]) * cancels[r] / reports[r] for r in spent if r in plain)
