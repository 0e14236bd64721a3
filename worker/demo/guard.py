"""Ends a private node when the process that wanted it is gone, however it went (SIGKILL included).

    guard.py OWNER-PID DIRECTORY keep|remove

Started beside the node, standard library only, so that it costs little while it waits. What belongs to a node is known
by one thing alone: its environment has HOME=DIRECTORY, which no other process on the machine has.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path


def is_alive(pid: int) -> bool:
    """False too for a zombie: it holds no port and no file."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state != "Z"


def processes_of(directory: Path) -> list[int]:
    """Process ids of the node that lives in ``directory`` (Erlang, its helpers, epmd), living ones only."""
    mark = b"HOME=" + os.fsencode(directory)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue  # gone meanwhile, or another user's
        if mark in environment.split(b"\0") and is_alive(int(entry.name)):
            found.append(int(entry.name))
    return found


def kill_all(directory: Path, within_s: float = 10.0) -> list[int]:
    """SIGKILL everything of that node until nothing is left; returns what did not go within ``within_s`` seconds."""
    end = time.monotonic() + within_s
    while (left := processes_of(directory)) and time.monotonic() < end:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.02)
    return left


def wait_for_end(pid: int) -> None:
    """Return once process ``pid`` has ended."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError:  # a kernel or sandbox without pidfd
        while is_alive(pid):
            time.sleep(0.5)
        return
    with os.fdopen(descriptor, "rb", buffering=0):
        select.select([descriptor], [], [])


def main() -> None:
    owner, directory, afterwards = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    wait_for_end(owner)
    kill_all(directory)
    if afterwards == "remove":
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
