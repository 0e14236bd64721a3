"""What the pages name exists: files, headings, settings, metrics, outcomes, tests, log events, make targets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, get_args

import pytest

from tests.docs.pages import PAGES, REPOSITORY, anchors, blocks, links, names, prose, shown
from tests.simulation.plant import BUGS
from tools.life_of_a_cancel import diagram
from worker.config import Config
from worker.core.stats import Stats
from worker.ops.metrics import Exposition, WorkerCollector
from worker.wire.event import DEAD_LETTERED, FINAL_OUTCOMES, Event, Outcome

each_page = pytest.mark.parametrize("page", PAGES, ids=shown)
DOCS: Final = REPOSITORY / "docs"

TREES: Final = ("worker/", "config/", "docs/", "tests/", "tools/", "helm/", "bench/", ".ci/")
_SETTING: Final = re.compile(r"(broker|kill|venue|results|authorization|shutdown|ops|log)\.([a-z_]+)")
_QUEUES: Final = {"cancel.commands", "cancel.kill", "cancel.dead", "cancel.results", "cancel.audit"}
_MADE: Final = (".cache/", ".venv/")


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        if target.startswith("https://"):
            continue
        path, _, fragment = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target}: no such file"
        assert not fragment or fragment in anchors(there), f"{target}: no such heading"


@each_page
def test_files_that_are_named_are_there(page: Path) -> None:
    for name in names(page):
        path = name.split("::")[0]
        if path.startswith(TREES) and " " not in path and "*" not in path:
            assert (REPOSITORY / path).exists(), f"{name}: no such file"


@each_page
def test_settings_that_are_named_exist(page: Path) -> None:
    config = Config()
    for name in names(page):
        match = _SETTING.fullmatch(name)
        if match is not None and not hasattr(Stats, name):
            section = getattr(config, match[1])
            assert match[2] in section.__struct_fields__, f"{name}: no such setting"


@each_page
def test_variables_of_settings_name_settings(page: Path) -> None:
    config = Config()
    for section, key in re.findall(r"CANCEL_WORKER__([A-Z]+)__([A-Z_]+)", page.read_text()):
        if (section, key) != ("SECTION", "KEY"):
            assert key.lower() in getattr(config, section.lower()).__struct_fields__, f"{section}.{key}"


@each_page
def test_metrics_that_are_named_exist(page: Path) -> None:
    text, _ = Exposition(WorkerCollector(Stats(), "0", "", lambda: 0)).text()
    exposed = set(re.findall(r"^# TYPE (\S+)", text.decode(), re.MULTILINE))
    exposed |= {f"{name.removesuffix('_total')}_total" for name in exposed}
    for metric in re.findall(r"\bcancel_worker_[a-z_]+", page.read_text()):
        assert metric == "cancel_worker_" or metric in exposed, f"{metric}: no such metric"


@each_page
def test_tests_that_are_named_exist(page: Path) -> None:
    for path, test in re.findall(r"`(tests/[a-z_/]+\.py)::(test_\w+)`", page.read_text()):
        assert re.search(rf"^(async )?def {test}\(", (REPOSITORY / path).read_text(), re.MULTILINE), f"{path}::{test}"


def test_every_fault_row_has_a_test_or_says_that_it_has_none() -> None:
    rows = [line for line in (DOCS / "reliability.md").read_text().splitlines() if line.startswith("| ")]
    faults = [row for row in rows if row.count(" | ") == 2 and not row.startswith(("| ---", "| fault", "| | "))]
    assert len(faults) > 60
    for row in faults:
        shown_by = row.rsplit(" | ", 1)[1]
        says_none = ("not yet shown", "does not concern the worker")
        assert "::test_" in shown_by or any(words in shown_by for words in says_none), row


def test_every_behaviour_of_the_libraries_has_a_row() -> None:
    text = (DOCS / "reliability.md").read_text()
    kept = " ".join(re.findall(r"^\| ([AWM]\d+(?:, [AWM]\d+)*) \|.*\|.*\|$", text, re.MULTILINE))
    for letter, last in (("A", 30), ("W", 13), ("M", 4)):
        for number in range(1, last + 1):
            assert re.search(rf"\b{letter}{number}\b", kept), f"{letter}{number}"


def test_the_outcomes_are_all_there_and_told_right() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \|.*\| (.+?) \|$", (DOCS / "events.md").read_text(), re.MULTILINE)
    assert {outcome for outcome, _, _ in rows} == set(get_args(Outcome))
    for outcome, final, then in rows:
        assert (final == "yes") == (outcome in FINAL_OUTCOMES), outcome
        assert (then == "dead-lettered") == (outcome in DEAD_LETTERED), outcome


def test_every_field_of_an_event_is_explained() -> None:
    explained = set(names(DOCS / "events.md"))
    assert set(Event.__struct_fields__) <= explained


def test_every_final_outcome_has_advice() -> None:
    advice = (DOCS / "events.md").read_text().split("What to do with a final")[1].split("## Ids")[0]
    for outcome in FINAL_OUTCOMES - {"mass_canceled", "mass_incomplete"}:
        assert f"`{outcome}`" in advice, outcome


def test_log_events_that_are_named_are_logged() -> None:
    sources = "".join(path.read_text() for path in (REPOSITORY / "worker").rglob("*.py"))
    paragraph = prose(DOCS / "operations.md").split("## Logs")[1].split("##")[0]
    named = re.findall(r"`([a-z]+_[a-z_]+)`", paragraph)
    events = [name for name in named if name not in Event.__struct_fields__]
    assert len(events) > 10
    for name in events:
        assert f'"{name}"' in sources, f"{name} is logged nowhere"


def test_readiness_reasons_are_explained() -> None:
    view = (REPOSITORY / "worker/ops/view.py").read_text()
    page = (DOCS / "operations.md").read_text()
    reasons = re.findall(r'reasons\.append\(f?"(?:\{[^}]*\} )?([a-z ]+)', view)
    assert len(reasons) >= 8
    for reason in reasons:
        words = re.sub(r"^the $", "the kill lane", reason).strip()
        assert words in page, f"{reason!r} is explained nowhere"


def test_the_life_of_a_cancel_is_drawn_from_its_table() -> None:
    assert [block.text.strip() for block in blocks(DOCS / "architecture.md", "mermaid")] == [diagram()]


def test_the_planted_bugs_are_listed() -> None:
    page = (DOCS / "simulation.md").read_text()
    for bug in BUGS:
        assert f"| `{bug.name}` | {bug.what} | `{bug.found_by}` |" in page


def test_every_decision_is_listed() -> None:
    folder = DOCS / "decisions"
    listed = links(folder / "README.md")
    assert sorted(listed) == sorted(path.name for path in folder.glob("0*.md"))
    for name in listed:
        assert {"**Status**", "**Context.**", "**Decision.**", "**Consequences.**"} <= set(
            re.findall(r"\*\*\w+\.?\*\*", (folder / name).read_text())
        )


def test_the_queues_are_called_as_the_default_topology_calls_them() -> None:
    broker = Config().broker
    configured = {
        broker.commands_queue, broker.kill_queue, broker.dead_queue, broker.results_exchange, broker.audit_queue,
    }  # fmt: skip
    assert configured == _QUEUES
