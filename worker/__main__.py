"""``python -m worker`` and ``cancel-worker``: from the first line on, Ctrl-C ends in one line (contract section 7)."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; the exit status. What takes time to import is imported where Ctrl-C is caught."""
    _open_standard_streams()
    try:
        from worker.cli import main as run

        return run(arguments)
    except KeyboardInterrupt:
        print("cancel-worker: interrupted", file=sys.stderr)
        return 1


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
