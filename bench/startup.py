"""Start-up: from `cancel-worker run` to ready on a running broker, and what importing it takes."""

from __future__ import annotations

import asyncio
import http.client
import subprocess
import sys
import time

from bench.broker import new_place, until
from bench.candidates import CANDIDATES, Running
from bench.machine import cpu_s
from bench.rows import Row
from bench.throughput import Run
from bench.venue import Venue
from worker.demo.node import PrivateNode

IMPORTS = 5


def is_ready(port: int) -> bool:
    """What /readyz says."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


async def start_up(node: PrivateNode, run: Run) -> Row:
    """Seconds until ready, on a vhost that has the topology, and CPU seconds used for it; seconds of the imports."""
    async with new_place(node) as place:
        with Venue() as venue:
            await asyncio.sleep(0.5)
            began = time.monotonic()
            with Running(CANDIDATES[run.candidate], place.url, venue.url) as running:
                ready = await until(lambda: is_ready(running.ops_port), 20.0)
                took, used = time.monotonic() - began, cpu_s(running.pid)
    figures = {"ready_s": took, "ready_cpu_s": used, "import_s": import_seconds("worker.app")}
    return run.row(figures, "" if ready else "not ready within 20 s")


def import_seconds(module: str) -> float:
    """Shortest of some imports in fresh processes, less what an empty process takes."""

    def shortest(code: str) -> float:
        times = []
        for _ in range(IMPORTS):
            began = time.monotonic()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.monotonic() - began)
        return min(times)

    return shortest(f"import {module}") - shortest("pass")
