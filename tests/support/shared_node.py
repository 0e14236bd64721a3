"""One RabbitMQ node for all test processes of a run: the first that needs it starts it, the run's end ends it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.support.timing import SECOND
from worker.demo import guard
from worker.demo.installation import NodeError
from worker.demo.node import PrivateNode


def shared_node(directory: Path, owner_pid: int) -> PrivateNode:
    """The node in ``directory``, started if no other test process has done so. ``owner_pid``: the process of the run.

    Raises NodeMissingError if there is no RabbitMQ, NodeError if it did not start here or in another test process.
    """
    directory.mkdir(mode=0o700, exist_ok=True)
    failure = directory / "failure"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if failure.exists():
            raise NodeError(failure.read_text())
        node = PrivateNode(directory / "node", owner_pid=owner_pid, temporary=True)
        try:
            run_apart(node.start(within_s=60 * SECOND))
        except NodeError as error:
            failure.write_text(str(error))
            raise
    return node


def end_shared_node(directory: Path) -> None:
    """End what runs in ``directory`` and remove it; nothing happens if the node was never needed."""
    left = guard.kill_all(directory / "node")
    shutil.rmtree(directory, ignore_errors=True)
    assert not left, f"processes {left} of the shared RabbitMQ node cannot be ended"


def run_apart(coroutine: Coroutine[None, None, None]) -> None:
    """Run a coroutine to its end on a loop of its own, wherever the caller is."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, coroutine).result()


def in_ci() -> bool:
    """True if CI is set: there a missing tool is a failure, on a laptop a reason to skip."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")
