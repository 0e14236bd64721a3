"""``cancel-worker schema``: what it prints, the copies that are kept of it, and what a real worker publishes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from tests.cli.conftest import Ended, cli
from tests.cli.test_cancel import working
from tests.support.broker import Broker
from worker import __version__
from worker.cli.asyncapi import asyncapi
from worker.config import Broker as Settings
from worker.simulator import Simulator
from worker.wire.schema import events_schema

KEPT = Path(__file__).resolve().parents[2] / "docs" / "schema"
DOCUMENT = asyncapi(Settings(), __version__)


@pytest.mark.parametrize("what", ["commands", "events", "asyncapi"])
def test_the_copy_in_docs_is_what_it_prints(what: str, here: Callable[..., Ended]) -> None:
    """``cancel-worker schema WHAT > docs/schema/WHAT.json`` writes it anew."""
    status, out, err = here("schema", what)
    assert (status, err) == (0, "")
    assert (KEPT / f"{what}.json").read_text() == out


def test_without_a_word_it_is_the_document_of_both(here: Callable[..., Ended]) -> None:
    assert here("schema") == here("schema", "asyncapi")
    assert here("schema").status == 0


def test_the_document_has_the_configured_names(here: Callable[..., Ended]) -> None:
    settings = {"CANCEL_WORKER__BROKER__KILL_KEY": "now", "CANCEL_WORKER__BROKER__RESULTS_EXCHANGE": "desk.results"}
    found = json.loads(here("schema", "asyncapi", settings=settings).out)
    assert found["asyncapi"].startswith("3.")
    assert found["info"]["version"] == __version__
    assert found["channels"]["killLane"]["address"] == "now"
    assert found["channels"]["results"]["bindings"]["amqp"]["exchange"]["name"] == "desk.results"


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        here = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return here + [found for each in value.values() for found in references(each)]
    return [found for each in value for found in references(each)] if isinstance(value, list) else []


def at(pointer: str) -> Any:
    value: Any = DOCUMENT
    assert pointer.startswith("#/")
    for key in pointer[2:].split("/"):
        value = value[key]
    return value


def test_every_reference_leads_somewhere_and_every_part_is_used() -> None:
    found = set(references(DOCUMENT))
    assert all(at(pointer) for pointer in found)
    for kind in ("messages", "schemas"):
        assert {f"#/components/{kind}/{name}" for name in DOCUMENT["components"][kind]} <= found
    assert {f"#/channels/{name}" for name in DOCUMENT["channels"]} <= found


EXAMPLES = [
    (name, example) for name, message in DOCUMENT["components"]["messages"].items() for example in message["examples"]
]


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=[example["name"] for _, example in EXAMPLES])
def test_every_example_is_valid(name: str, example: dict[str, Any]) -> None:
    message = DOCUMENT["components"]["messages"][name]
    Draft7Validator(at(message["payload"]["$ref"])).validate(example["payload"])
    Draft7Validator(message["headers"]).validate(example.get("headers", {}))


@pytest.mark.parametrize("arguments", [["everything"], ["commands", "events"]])
def test_what_makes_no_sense_is_a_usage_error(arguments: list[str], here: Callable[..., Ended]) -> None:
    status, out, err = here("schema", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("cancel-worker: ")


@pytest.mark.process
async def test_what_a_worker_publishes_is_valid(broker: Broker) -> None:
    validator = Draft7Validator(events_schema())
    async with Simulator() as venue:
        orders = [venue.place() for _ in range(3)]
        async with working(broker, venue) as settings:
            first = orders[0].order_id
            await cli("cancel", "--symbol", "BTC-USD", "--order-id", first, "--order-id", "none", settings=settings)
            await cli("kill", "--all", "--yes", "--reason", "drill", settings=settings)
            await broker.publish(broker.name("cancel.commands"), "cancel", b"[]", message_id="bad")
            arguments = ("--since", "5m", "--outcome", "invalid", "--count", "1")
            assert (await cli("tail", *arguments, settings=settings)).status == 0
            ended = await cli("audit", "export", settings=settings)
    events = [json.loads(line) for line in ended.out.splitlines()]
    for event in events:
        validator.validate(event)
    assert {"canceled", "unknown_order", "pending_cancel", "mass_canceled", "invalid"} <= {e["outcome"] for e in events}
