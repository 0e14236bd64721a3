"""How tests run the command line: as a process of its own, or in this one."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import pytest

from tests.support.broker import Broker
from tests.support.timing import SECOND
from worker.__main__ import main
from worker.simulator import Simulator

NAMES = (
    "commands_exchange",
    "commands_queue",
    "kill_queue",
    "dead_exchange",
    "dead_queue",
    "results_exchange",
    "audit_queue",
)
DEFAULTS = {
    "commands_exchange": "cancel.commands",
    "commands_queue": "cancel.commands",
    "kill_queue": "cancel.kill",
    "dead_exchange": "cancel.dead",
    "dead_queue": "cancel.dead",
    "results_exchange": "cancel.results",
    "audit_queue": "cancel.audit",
}


class Ended(NamedTuple):
    """What a command left behind: exit status, standard output and standard error."""

    status: int
    out: str
    err: str


def clean_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without any setting of a worker, and these. Where RabbitMQ lies stays known."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CANCEL_WORKER") or name == "CANCEL_WORKER_RABBITMQ"
    }
    return kept | dict(settings)


async def start(arguments: Iterable[str], settings: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "worker",
        *arguments,
        env=clean_environment(settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def finish(process: asyncio.subprocess.Process, given: bytes = b"", within_s: float = 30 * SECOND) -> Ended:
    """Wait for its end; at the latest it is ended by force."""
    try:
        async with asyncio.timeout(within_s):
            if not given and process.stdin is not None:
                process.stdin.close()  # uvloop refuses to write even nothing to a process that has ended
            out, err = await process.communicate(given or None)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(), err.decode())


async def cli(
    *arguments: str, settings: Mapping[str, str] | None = None, given: bytes = b"", within_s: float = 30 * SECOND
) -> Ended:
    """``cancel-worker`` with these arguments and nothing else of a worker's settings in its environment."""
    return await finish(await start(arguments, settings or {}), given, within_s)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """``main`` in this process: for what ends before anything is started."""
    for name in list(os.environ):
        if name.startswith("CANCEL_WORKER"):
            monkeypatch.delenv(name)

    def run(*arguments: str, settings: Mapping[str, str] | None = None) -> Ended:
        for name, value in (settings or {}).items():
            monkeypatch.setenv(name, value)
        status = main(arguments)
        captured = capsys.readouterr()
        return Ended(status, captured.out, captured.err)

    return run


def broker_settings(broker: Broker) -> dict[str, str]:
    """Settings that lead a worker to this test's part of the broker."""
    settings = {f"CANCEL_WORKER__BROKER__{name.upper()}": broker.name(DEFAULTS[name]) for name in NAMES}
    return settings | {"CANCEL_WORKER__BROKER__URL": broker.url}


def venue_settings(venue: Simulator) -> dict[str, str]:
    """Settings that lead a worker to this simulator, with short waits."""
    login = venue.script.login
    return {
        "CANCEL_WORKER__VENUE__URL": venue.url,
        "CANCEL_WORKER__VENUE__API_KEY": login.key,
        "CANCEL_WORKER__VENUE__API_SECRET": login.secret,
        "CANCEL_WORKER__VENUE__REPORT_TIMEOUT": "1",
        "CANCEL_WORKER__VENUE__UNKNOWN_WAIT": "0.5",
        "CANCEL_WORKER__OPS__PORT": "0",
    }
