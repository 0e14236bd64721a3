"""Ratios are taken within a repetition, runs that broke a condition count for nothing, and the picture is one."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from bench.picture import chart
from bench.report import Rows, cell, tables
from bench.rows import Row, Spread
from bench.targets import verdicts


def row(candidate: str, repetition: int, rate: float, broken: str = "") -> Row:
    return Row("throughput", "", candidate, repetition, {"rate": rate, "cpu_us": 1e6 / rate}, broken)


def test_a_ratio_compares_runs_of_the_same_repetition() -> None:
    rows = Rows([row("c", 1, 1000), row("worker", 1, 900), row("c", 2, 500), row("worker", 2, 400)])
    found = rows.spread("throughput", "", "worker", "rate", "c")
    assert found is not None
    assert (found.median, found.low, found.high) == pytest.approx((0.85, 0.8, 0.9))


def test_a_run_that_lost_something_counts_for_nothing_and_is_named() -> None:
    given = [row("c", 1, 1000), row("worker", 1, 5000, "1999 results, expected 2000"), row("worker", 1, 900)]
    assert Rows(given).spread("throughput", "", "worker", "rate") == Spread(900, 900, 900, 1)
    assert "kept out: throughput worker, repetition 1: 1999 results, expected 2000" in tables(given)


def test_targets_are_judged_by_the_median() -> None:
    rows = Rows([row("c", 1, 1000), row("worker", 1, 760)])
    judged = {verdict.title: verdict.word for verdict in verdicts(rows)}
    assert judged["throughput of the C worker"] == "held"
    assert judged["throughput of Node"] == "not measured"
    rows = Rows([row("c", 1, 1000), row("worker", 1, 740)])
    assert next(iter(verdicts(rows))).word == "**missed**"


def test_a_table_row_has_a_cell_for_every_column() -> None:
    lines = tables([row("c", 1, 1000), row("worker", 1, 760)]).splitlines()
    head = next(number for number, line in enumerate(lines) if "worker µs/cancel" in line)
    assert len({line.count("|") for line in lines[head : head + 4]}) == 1


def test_spreads_show_median_and_range() -> None:
    assert cell(Spread.of([1.0, 2.0, 12345.0])) == "2 (1–12,345)"
    assert cell(Spread.of([])) == ""


def test_the_picture_is_well_formed_and_has_a_bar_for_each_candidate() -> None:
    bars = [("cancel-worker", Spread(2.0, 1.0, 3.0, 3)), ("a < b", Spread(1.0, 1.0, 1.0, 1)), ("nobody", None)]
    picture = ET.fromstring(chart([("cancels per second", bars)]))
    boxes = picture.findall("{http://www.w3.org/2000/svg}rect")
    assert len(boxes) == 1 + 2  # the paper and two bars
    assert float(boxes[1].attrib["width"]) == pytest.approx(2 * float(boxes[2].attrib["width"]), abs=0.2)
