"""What the pages show as commands, events, configuration and code is read by what reads the real thing."""

from __future__ import annotations

import subprocess
import sys
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.docs.pages import PAGES, REPOSITORY, Block, blocks, shown
from worker.config import load
from worker.simulator import Script
from worker.wire import event as wire
from worker.wire.command import InvalidCommand, InvalidItem, MassCancelCommand, read_command
from worker.wire.event import Event, ScopeAsked
from worker.wire.properties import Properties
from worker.wire.seen import read_event

DOCS = REPOSITORY / "docs"
COMMAND_ID = "5f0c7c1e-6a5b-4a83-9a53-0b9f0f6c2d11"
MAX_BODY = 1 << 20

JSON_BLOCKS = [block for page in PAGES for block in blocks(page, "json")]


def name_of(block: Block) -> str:
    return f"{shown(block.page)}: {block.text[:30].strip()}"


@pytest.mark.parametrize("block", JSON_BLOCKS, ids=name_of)
def test_json_is_a_command_an_event_or_a_ledger(block: Block) -> None:
    shown_object: dict[str, Any] = msgspec.json.decode(block.text)
    if "type" in shown_object:
        assert_command(block.text.encode(), "application/json")
    elif "event_id" in shown_object:
        assert_event(shown_object)
    else:
        ledger = read_event(
            msgspec.json.encode({"event_id": "e", "outcome": "mass_progress", "final": False, **shown_object})
        ).mass
        assert ledger is not None
        assert ledger.adds_up
        assert set(shown_object) == {"mass", "scope"}
        scope = ScopeAsked("AllOrders", None, None, None, None)
        assert list(shown_object["scope"]) == list(msgspec.to_builtins(scope))


def assert_command(body: bytes, content_type: str) -> None:
    command = read_command(body, Properties(content_type=content_type, message_id=COMMAND_ID), MAX_BODY)
    assert not isinstance(command, InvalidCommand), command
    if not isinstance(command, MassCancelCommand):
        assert not [item for item in command.items if isinstance(item, InvalidItem)]


def assert_event(shown_object: dict[str, Any]) -> None:
    fields = [f for f in Event.__struct_fields__ if f not in ("deadline", "traceparent", "tracestate", "mass", "scope")]
    assert list(shown_object) == fields
    event = read_event(msgspec.json.encode(shown_object))
    assert event.command_id is not None
    assert event.index is not None
    assert event.event_id == wire.final_id(event.command_id, event.index)
    assert (event.outcome in wire.FINAL_OUTCOMES) == event.final
    assert set(shown_object["times"]) == set(wire.Times.__struct_fields__)
    assert set(shown_object["order"]) == set(wire.OrderState.__struct_fields__)


def test_there_are_examples() -> None:
    pages = {shown(block.page) for block in JSON_BLOCKS}
    assert {"docs/upstream.md", "docs/events.md", "docs/kill-switch.md"} <= pages


def test_the_messagepack_example_is_a_command() -> None:
    (block,) = blocks(DOCS / "upstream.md", "python")
    scope: dict[str, Any] = {}
    exec(block.text, scope)
    assert_command(scope["body"], "application/msgpack")


def test_the_recipe_of_an_id_gives_the_worker_s_id() -> None:
    (block,) = blocks(DOCS / "events.md", "python")
    done = subprocess.run([sys.executable, "-c", block.text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == wire.final_id(COMMAND_ID, 0)


def test_the_lines_of_the_id_recipe_are_those_of_the_code() -> None:
    table = (DOCS / "events.md").read_text().split("## Ids")[1].split("## Replaying")[0]
    assert str(wire.NAMESPACE) in table
    assert wire.unresolved_id(COMMAND_ID, 0) in table

    def made(*lines: str) -> str:
        return str(uuid.uuid5(wire.NAMESPACE, "\n".join(lines)))

    assert wire.final_id("c", 0) == made("c", "0", "final")
    assert wire.unresolved_id("c", 0) == made("c", "0", "unresolved")
    assert wire.report_id("c", 0, "e") == made("c", "0", "report", "e")
    assert wire.attempt_id("c", 0, "doubtful", 2) == made("c", "0", "doubtful", "2")
    assert wire.command_event_id("c", "sha", "invalid") == made("c", "sha", "invalid")
    assert wire.command_event_id(None, "sha", "invalid") == made("sha", "sha", "invalid")
    assert wire.final_id("c", "order o") == made("c", "order o", "final")
    assert wire.worker_event_id("w", "worker_available", 1) == made("w", "worker_available", "1")


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_configuration_that_is_shown_loads(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "toml"):
        file = tmp_path / "site.toml"
        file.write_text(block.text)
        load([REPOSITORY / "config/default.toml", REPOSITORY / "config/sandbox.toml", file], {})


def test_promql_of_the_alerts_parses() -> None:
    import promql_parser

    (block,) = blocks(DOCS / "operations.md", "promql")
    for line in block.text.strip().splitlines():
        promql_parser.parse(line)


def test_the_readme_leads_a_worker_to_the_simulator() -> None:
    text = (REPOSITORY / "README.md").read_text()
    login = Script().login
    assert f"CANCEL_WORKER__VENUE__API_KEY={login.key}\n" in text
    assert f"CANCEL_WORKER__VENUE__API_SECRET={login.secret}\n" in text


def test_pictures_are_well_formed() -> None:
    for picture in (REPOSITORY / "docs").glob("*.svg"):
        root = ET.parse(picture).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not [e for e in root.iter() if e.tag.endswith(("script", "foreignObject", "image"))]
