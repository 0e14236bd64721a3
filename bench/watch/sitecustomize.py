"""Notes the pauses of Python's garbage collector; active in a process that has this folder on PYTHONPATH.

BENCH_GC_FILE gets three little-endian 8-byte numbers: collections, nanoseconds of all, nanoseconds of the longest.
Whoever reads it may set them back to 0.
"""

import gc
import mmap
import os
import struct
import time
from pathlib import Path

_NUMBERS = struct.Struct("<3Q")


def watch(file: Path) -> None:
    """Keep the file's numbers up to date."""
    file.write_bytes(bytes(_NUMBERS.size))
    with file.open("r+b") as opened:
        numbers = mmap.mmap(opened.fileno(), 0)
    began = 0

    def note(phase: str, _: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter_ns()
            return
        took = time.perf_counter_ns() - began
        collections, total, longest = _NUMBERS.unpack_from(numbers)
        _NUMBERS.pack_into(numbers, 0, collections + 1, total + took, max(longest, took))

    gc.callbacks.append(note)


if "BENCH_GC_FILE" in os.environ:
    watch(Path(os.environ["BENCH_GC_FILE"]))
