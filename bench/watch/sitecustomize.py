"""Notes the pauses of Python's garbage collector; active in a process that has this folder on PYTHONPATH.

BENCH_GC_FILE gets three little-endian 8-byte numbers: collections, nanoseconds of the longest by the wall clock, and of
CPU: where cores are short a collection waits for one like anything else. Whoever reads it may set them back to 0.
"""

import atexit
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
    began = cpu_began = 0

    def note(phase: str, _: dict[str, int]) -> None:
        nonlocal began, cpu_began
        if phase == "start":
            began, cpu_began = time.perf_counter_ns(), time.thread_time_ns()
            return
        took, cpu_took = time.perf_counter_ns() - began, time.thread_time_ns() - cpu_began
        collections, longest, cpu_longest = _NUMBERS.unpack_from(numbers)
        _NUMBERS.pack_into(numbers, 0, collections + 1, max(longest, took), max(cpu_longest, cpu_took))

    gc.callbacks.append(note)
    atexit.register(gc.callbacks.remove, note)  # the interpreter's own, at the very end, holds up nobody


if "BENCH_GC_FILE" in os.environ:
    watch(Path(os.environ["BENCH_GC_FILE"]))
