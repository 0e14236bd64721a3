"""``cancel-worker demo`` as its user runs it: it adds up, and leaves nothing behind however it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Ended, cli, finish, start
from tests.support.broker import Broker
from tests.support.timing import SECOND, eventually
from worker.demo.guard import is_alive
from worker.demo.installation import NodeMissingError, find_rabbitmq

SETTINGS = Path(__file__).resolve().parents[2] / "config" / "demo.toml"

WITHIN_S = 90 * SECOND

pytestmark = [pytest.mark.process, pytest.mark.broker, pytest.mark.timeout(3 * WITHIN_S)]


def processes_with(mark: str, folder: Path) -> list[str]:
    """Processes that inherited ``mark`` from the demo, or were started for a folder of it (its guard)."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or not is_alive(int(entry.name)):
            continue
        try:
            told = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in told or os.fsencode(folder) in told:
            found.append((entry / "comm").read_text().strip())
    return found


class Trace:
    """A folder for everything temporary and a mark for every process of one demo."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.settings = {"TMPDIR": str(folder), "DEMO_UNDER_TEST": self.mark}

    async def is_gone(self) -> None:
        await eventually(lambda: not processes_with(self.mark, self.folder), 15 * SECOND)
        await eventually(lambda: not list(self.folder.iterdir()), 15 * SECOND)


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    try:
        find_rabbitmq()
    except NodeMissingError as error:
        pytest.skip(str(error))
    return Trace(tmp_path)


@pytest.mark.slow
async def test_it_adds_up_and_leaves_nothing(trace: Trace) -> None:
    ended = await cli("demo", settings=trace.settings, within_s=WITHIN_S)
    assert (ended.status, ended.err) == (0, ""), ended.out
    lines = ended.out.splitlines()
    assert lines[-1] == "Everything adds up."
    total = next(line.split() for line in lines if line.startswith("total"))
    assert total == ["total", "17", "18", "18", "18", "18", "ok"]
    for outcome in (
        "canceled", "already_closed", "cancel_rejected", "unknown_order", "refused", "deadline_passed", "invalid",
        "pending_cancel", "doubtful", "report",
    ):  # fmt: skip
        assert any(f" {outcome} " in line for line in lines), outcome
    assert re.search(r"2 dead letters; 0 messages left in the queues; [0-9.]+ s$", lines[-2])
    await trace.is_gone()


@asynccontextmanager
async def demo_until(line: bytes, settings: dict[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A demo that has printed a line that begins so."""
    process = await start(["demo"], settings)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(WITHIN_S):
            while not (read := await process.stdout.readline()).startswith(line):
                assert read, "the demo ended too early"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "line", "status"),
    [
        (signal.SIGINT, b"broker: starting", 1),
        (signal.SIGINT, b"commands: ", 1),
        (signal.SIGTERM, b"commands: ", 1),
        (signal.SIGKILL, b"commands: ", -9),
    ],
)
async def test_broken_off_it_leaves_nothing(number: signal.Signals, line: bytes, status: int, trace: Trace) -> None:
    async with demo_until(line, trace.settings) as process:
        process.send_signal(number)
        ended: Ended = await finish(process)
    assert ended.status == status
    assert "Traceback" not in ended.err
    assert "Traceback" not in ended.out
    await trace.is_gone()


@pytest.mark.slow
async def test_a_given_server_is_left_as_it_was(broker: Broker, trace: Trace) -> None:
    ended = await cli("demo", settings=trace.settings | {"CANCEL_WORKER_TEST_BROKER": broker.url}, within_s=WITHIN_S)
    assert (ended.status, ended.err) == (0, ""), ended.out
    password = broker.url.split(":")[2].split("@")[0]
    assert password not in ended.out
    found = re.search(r"names that begin with (demo-[0-9a-f]+\.) ", ended.out)
    assert found is not None
    for queue in ("cancel.commands", "cancel.kill", "cancel.dead", "cancel.audit"):
        assert not await broker.exists(found[1] + queue)
        assert broker.prefix or not await broker.exists(queue)
    if broker.management is not None:
        exchanges = await broker.api("GET", f"exchanges/{broker.vhost}")
        assert isinstance(exchanges, list)
        assert not [one["name"] for one in exchanges if not one["name"].startswith("amq.") and one["name"]]
    await trace.is_gone()


async def test_a_server_that_is_not_there_is_one_line(trace: Trace) -> None:
    settings = trace.settings | {"CANCEL_WORKER_TEST_BROKER": "amqp://user:hunter2@127.0.0.1:1/"}
    ended = await cli("demo", settings=settings)
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert ended.err.startswith("cancel-worker: 127.0.0.1:1: ")
    assert "hunter2" not in ended.out + ended.err
    await trace.is_gone()


async def test_no_rabbitmq_is_exit_status_2(trace: Trace) -> None:
    ended = await cli("demo", settings=trace.settings | {"CANCEL_WORKER_RABBITMQ": "/nowhere"})
    assert ended.status == 2
    assert ended.err.startswith("cancel-worker: CANCEL_WORKER_RABBITMQ is /nowhere, but there is no ")
    assert ended.err.count("\n") == 1
    await trace.is_gone()


async def test_a_worker_that_cannot_start_is_told_in_its_own_words(broker: Broker, trace: Trace) -> None:
    bad = trace.folder.parent / f"{trace.mark}.toml"
    bad.write_text(SETTINGS.read_text().replace("port = 0", "port = 1\nhost = '192.0.2.1'"))
    try:
        settings = trace.settings | {"CANCEL_WORKER_TEST_BROKER": broker.url}
        ended = await cli("--config", str(bad), "demo", settings=settings)
    finally:
        bad.unlink()
    assert (ended.status, ended.err.count("\n")) == (1, 1)
    assert "the worker ended with exit status 1: cancel-worker: " in ended.err
    await trace.is_gone()
