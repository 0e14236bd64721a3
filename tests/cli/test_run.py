"""``cancel-worker run`` before there is a worker: what comes later is in tests/process."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.cli.conftest import Ended, clean_environment, finish

SETTINGS = {"CANCEL_WORKER__VENUE__API_KEY": "k", "CANCEL_WORKER__VENUE__API_SECRET": "s"}

SIGNALLED_WHILE_LOADING = """
import importlib.abc, os, sys

class Signal(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "worker.app":
            os.kill(os.getpid(), int(sys.argv[2]))

sys.meta_path.insert(0, Signal())
from worker.cli import main
sys.exit(main(["run"]))
"""


@pytest.mark.parametrize("number", [2, 15])
async def test_a_signal_while_it_is_still_being_loaded_is_a_stop_in_order(number: int) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SIGNALLED_WHILE_LOADING,
        "run",
        str(number),
        env=clean_environment(SETTINGS),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert await finish(process) == Ended(0, "", "")
