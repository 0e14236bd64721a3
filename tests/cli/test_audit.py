"""``cancel-worker audit`` on a real broker."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import Ended, cli
from tests.cli.test_tail import declared
from tests.support.broker import Broker
from tests.support.events import ledger, make_event, publish_event
from worker.wire.event import CodeError, OrderState

pytestmark = pytest.mark.process
HOUR = 3_600_000_000


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_a_whole_stream_is_clean_and_a_broken_one_is_not(broker: Broker) -> None:
    async with declared(broker) as settings:
        ended = await cli("audit", "verify", settings=settings)
        assert (ended.status, ended.err) == (0, "")
        assert ended.out.splitlines()[-1].startswith("CLEAN")
        await publish_event(broker, make_event("c-1", 0, "pending_cancel"))
        await publish_event(broker, make_event("c-1", 0, "canceled"))
        await publish_event(broker, make_event("c-1", 0, "canceled"))
        await publish_event(broker, make_event("m-1", 1, "canceled", order_id="o-1", of_sweep=True))
        await publish_event(broker, make_event("m-1", 0, "mass_canceled", mass=ledger(matched=1, canceled=1)))
        ended = await cli("audit", "verify", settings=settings)
        assert (ended.status, ended.err) == (0, "")
        assert ended.out.splitlines() == [
            "5 events, 1 of them finals published again; 2 commands, 1 of them mass cancels; 2 finals",
            "outcomes: 2 canceled",
            "CLEAN: every cancel has its one final.",
        ]
        await publish_event(broker, make_event("c-1", 0, "already_closed"))
        await publish_event(broker, make_event("c-2", 2, "doubtful"))
        ended = await cli("audit", "verify", "--show", "2", settings=settings)
        assert (ended.status, ended.err) == (1, "")
        assert "and 2 more" in ended.out
        assert "NOT CLEAN: 1 contradiction, 2 gap, 1 no final.\n" in ended.out
        ended = await cli("audit", "verify", "--json", settings=settings)
        found = json.loads(ended.out)
        assert (ended.status, found["clean"], found["commands"]) == (1, False, 3)
        assert found["counts"] == {"contradiction": 1, "gap": 2, "no final": 1}
        assert {problem["command_id"] for problem in found["problems"]} == {"c-1", "c-2"}


async def test_a_message_that_is_no_event_is_a_problem(broker: Broker) -> None:
    async with declared(broker) as settings:
        await broker.publish(broker.name("cancel.results"), "final.x.y", b"\xff")
        ended = await cli("audit", "verify", settings=settings)
        assert ended.status == 1
        assert "NOT CLEAN: 1 not an event." in ended.out
        ended = await cli("audit", "export", settings=settings)
        assert (ended.status, ended.out) == (0, "")
        assert "left out, offset 0: not an event" in ended.err


async def test_the_window_leaves_out_what_is_begun_outside(broker: Broker) -> None:
    async with declared(broker) as settings:
        now_us = time.time_ns() // 1000
        await publish_event(broker, make_event("old", 4, "canceled", at_us=now_us - HOUR))
        await publish_event(broker, make_event("c-1", 0, "canceled", at_us=now_us - 60_000_000))
        await publish_event(broker, make_event("new", 0, "doubtful", at_us=now_us))
        ended = await cli("audit", "verify", "--since", "30m", "--until", "30s", settings=settings)
        assert (ended.status, ended.err) == (0, ""), ended.out
        assert "1 commands were begun before" in ended.out
        assert "1 commands were begun after" in ended.out
        assert (await cli("audit", "verify", "--since", "30m", settings=settings)).status == 1
        assert (await cli("audit", "verify", "--until", "30s", settings=settings)).status == 1


async def test_export_gives_every_byte_back(broker: Broker, tmp_path: Path) -> None:
    async with declared(broker) as settings:
        raw = msgspec.Raw(b'{"ExecID":"x\\u00e4",  "AvgPx": 61250.00}')
        order = OrderState("Canceled", "0.1", "0", "-1.50", None)
        event = make_event("c-1", 0, "canceled", report=raw, order=order, order_live=False, reason="=1+1")
        error = CodeError("survivors", None, 'they "live", on')
        remaining = ledger(matched=2, unknown=2, remaining=["o-1", "o-2"])
        mass = make_event("m-1", 0, "mass_incomplete", error=error, mass=remaining)
        old = make_event("old", 0, "canceled", at_us=time.time_ns() // 1000 - HOUR)
        for one in (old, event, mass):
            await publish_event(broker, one)
        file = tmp_path / "events.jsonl"
        ended = await cli("audit", "export", "--since", "10m", "--out", str(file), settings=settings)
        assert (ended.status, ended.out) == (0, "")
        assert ended.err == f"cancel-worker: 2 events in {file}\n"
        lines = file.read_bytes().splitlines()
        assert [json.loads(line)["command_id"] for line in lines] == ["c-1", "m-1"]
        assert bytes(raw) in lines[0]
        assert names_in(tmp_path) == ["events.jsonl"]
        ended = await cli("audit", "export", "--format", "csv", settings=settings)
        assert ended.status == 0
        rows = list(csv.DictReader(io.StringIO(ended.out)))
        assert [row["command_id"] for row in rows] == ["old", "c-1", "m-1"]
        assert [row["offset"] for row in rows] == ["0", "1", "2"]
        assert (rows[1]["final"], rows[1]["order_live"], rows[1]["order.avg_px"]) == ("true", "false", "-1.50")
        assert rows[1]["reason"] == "'=1+1"
        assert (rows[2]["error.message"], rows[2]["mass.remaining"]) == ('they "live", on', "o-1 o-2")
        assert rows[2]["order_live"] == ""


async def test_a_file_that_cannot_be_written_is_one_line(broker: Broker, tmp_path: Path) -> None:
    async with declared(broker) as settings:
        out = tmp_path / "nowhere" / "events.csv"
        ended = await cli("audit", "export", "--out", str(out), settings=settings)
        assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)
        assert f"--out {out}: No such file or directory" in ended.err


@pytest.mark.parametrize("name", ["verify", "export"])
def test_a_window_that_ends_before_it_begins_is_a_usage_error(name: str, here: Callable[..., Ended]) -> None:
    status, out, err = here("audit", name, "--since", "1h", "--until", "2h")
    assert (status, out, err) == (2, "", "cancel-worker: --until is before --since\n")


def test_audit_alone_is_a_usage_error(here: Callable[..., Ended]) -> None:
    status, out, err = here("audit")
    assert (status, out, err.count("\n")) == (2, "", 1)
