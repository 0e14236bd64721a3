"""``cancel-worker`` with a wall clock that a test may step: ``python -m tests.process.stepping FILE run``.

FILE holds eight bytes, the nanoseconds by which the clock is wrong at the moment; the monotonic clock is left alone.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path

NANOSECONDS = struct.Struct("<q")


def step(file: Path, seconds: float) -> None:
    """Make the clock wrong by so many seconds, from now on."""
    with file.open("r+b" if file.exists() else "w+b") as out:
        out.write(NANOSECONDS.pack(round(seconds * 1e9)))


def _main() -> int:
    true_ns = time.time_ns
    with Path(sys.argv.pop(1)).open("rb") as file:
        wrong = mmap.mmap(file.fileno(), NANOSECONDS.size, access=mmap.ACCESS_READ)
    time.time_ns = lambda: true_ns() + NANOSECONDS.unpack_from(wrong)[0]
    from worker.cli import main  # reads the clock by what it finds under this name now

    return main()


if __name__ == "__main__":
    sys.exit(_main())
