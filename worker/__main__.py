"""``python -m worker`` and ``cancel-worker``: from the first line on, Ctrl-C ends in one line (contract section 7)."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit status. What takes time to import is imported where Ctrl-C is caught."""
    _end_on_sigterm()
    _open_standard_streams()
    try:
        from worker.cli import main as run

        return run(arguments)
    except KeyboardInterrupt:
        print("cancel-worker: interrupted", file=sys.stderr)
        return 1


def _end_on_sigterm() -> None:
    """As the first process of a container: the kernel gives that one no default action, and SIGTERM would be lost."""
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))


def _open_standard_streams() -> None:
    """Give a standard stream that is closed to nobody: the next file or socket would take its place, and our output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", closefd=False))


if __name__ == "__main__":
    sys.exit(main())
