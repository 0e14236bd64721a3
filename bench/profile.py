"""Where the worker's time goes: py-spy beside one throughput run, its samples scaled to CPU microseconds per cancel."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench.machine import PLACE

SAMPLES_PER_S = 250


class Profiler:
    """Samples a process until it ends; only samples on the CPU count."""

    def __init__(self, pid: int, file: Path = PLACE / "profile.raw") -> None:
        self._file = file
        spy = str(PLACE / "python" / "bin" / "py-spy")
        options = f"record --format raw --rate {SAMPLES_PER_S} --duration 600 --pid {pid} --output".split()
        self._process = subprocess.Popen(
            [spy, *options, str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def lines(self, us_per_cancel: float, most: int = 30) -> Iterator[str]:
        """Wait for the process that is sampled to end; self time and time with callees, by function."""
        self._process.wait(60.0)
        own: Counter[str] = Counter()
        with_callees: Counter[str] = Counter()
        total = 0
        for line in self._file.read_text().splitlines():
            stack, _, count = line.rpartition(" ")
            functions = [_short(frame) for frame in stack.split(";")]
            own[functions[-1]] += int(count)
            for function in set(functions):
                with_callees[function] += int(count)
            total += int(count)
        yield f"{us_per_cancel:.1f} us of CPU per cancel, {total} samples"
        for title, counter in (("self", own), ("with callees", with_callees)):
            yield f"-- {title}"
            for function, samples in counter.most_common(most):
                yield f"{us_per_cancel * samples / total:8.2f} us {100 * samples / total:5.1f} %  {function}"


def _short(frame: str) -> str:
    """``function (file.py:12)`` with the last two parts of the path, and without the line."""
    function, _, where = frame.partition(" (")
    path = where.rstrip(")").rpartition(":")[0]
    return f"{function} ({'/'.join(path.split('/')[-2:])})"
