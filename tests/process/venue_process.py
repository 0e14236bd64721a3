"""The simulated venue as a process of its own, which can be stopped and continued like any other (SIGSTOP).

    python -m tests.process.venue_process < script.json

prints its URL, and at SIGTERM its books: one JSON line each.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import uvloop

from worker.simulator import CancelSeen, Received, Script, Simulator, Truth


class Books(msgspec.Struct):
    """What the venue did and received; read like the simulator itself by the checks of ``Stage``."""

    orders: dict[str, Truth]
    cancels: list[CancelSeen]
    received: list[Received]
    ended: dict[str, int | None]

    def truth(self) -> dict[str, Truth]:
        return self.orders

    def ended_us(self, order_id: str) -> int | None:
        return self.ended.get(order_id)

    def sends_of(self, order_id: str) -> list[CancelSeen]:
        return [seen for seen in self.cancels if seen.order_id == order_id]


class VenueProcess:
    """An ``async with`` block around the process."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def _spawn(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.process.venue_process"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def stop(self) -> None:
        """SIGSTOP: connections stay open, nothing is read and nothing answers."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    async def books(self) -> Books:
        """End the venue; its books."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = await asyncio.to_thread(self.process.communicate, None, 30)
        return msgspec.json.decode(out, type=Books)

    async def __aenter__(self) -> Self:
        self._spawn()
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(msgspec.json.encode(self._script) + b"\n")
        self.process.stdin.flush()
        self.url = (await asyncio.to_thread(self.process.stdout.readline)).decode().strip()
        assert self.url, "the venue did not start"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await asyncio.to_thread(self.process.communicate)


async def _serve(script: Script) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Simulator(script) as venue:
        print(venue.url, flush=True)
        await stop.wait()
        truth = venue.truth()
        ended = {order_id: venue.ended_us(order_id) for order_id in truth}
        subscribes = [frame for frame in venue.received if frame.type == "subscribe"]
        sys.stdout.buffer.write(msgspec.json.encode(Books(truth, venue.cancels, subscribes, ended)))


if __name__ == "__main__":
    uvloop.run(_serve(msgspec.json.decode(sys.stdin.buffer.readline(), type=Script)))
