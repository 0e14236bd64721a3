"""Where things lie, and what the kernel tells about a process."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[1]
PLACE: Final = PROJECT / ".cache" / "bench"
"""What setup.sh built, and what runs leave behind."""

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system seconds of a process and of its children that ended, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def description() -> str:
    """The machine in a line."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} CPUs {model}, {memory:.0f} GiB, {platform.system()}, Python {platform.python_version()}"


def load_average() -> float:
    """Processes that ran or wanted to, over the last minute."""
    return os.getloadavg()[0]
