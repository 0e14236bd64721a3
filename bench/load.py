"""The load generator as a process of its own (c/load.c), and the times it noted."""

from __future__ import annotations

import asyncio
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

from bench.machine import PLACE
from bench.venue import MAX_SEQ

_HEAD: Final = 4
_GENERATOR: Final = str(PLACE / "load")


class Load(NamedTuple):
    """``commands`` of so many ``cancels`` each, numbered from ``first`` on; ``key``: the lane."""

    commands: int
    cancels: int = 1
    first: int = 1
    key: str = "cancel"

    @property
    def total(self) -> int:
        return self.commands * self.cancels

    def arguments(self) -> list[str]:
        return [self.key, str(self.commands), str(self.cancels), str(self.first)]


class Timed(NamedTuple):
    """When each cancel was meant to be sent and when its final came, in monotonic nanoseconds; 0: never."""

    received: int
    sent_ns: tuple[int, ...]
    final_ns: tuple[int, ...]


async def preload(url: str, load: Load) -> None:
    """Publish all commands at once, and wait until the broker has them."""
    await _run(url, "preload", *load.arguments())


async def open_loop(url: str, load: Load, rate: float, events: int, file: Path = PLACE / "load.times") -> Timed:
    """Publish ``rate`` commands a second whatever happens, until ``events`` came back or nothing more does."""
    await _run(url, "open", *load.arguments(), str(rate), str(file), str(events))
    with file.open("rb") as times:
        (received,) = struct.unpack("<Q", times.read(8))

        def read(start: int) -> tuple[int, ...]:
            times.seek(8 * (start + load.first))
            return struct.unpack(f"<{load.total}Q", times.read(8 * load.total))

        return Timed(received, read(_HEAD), read(_HEAD + MAX_SEQ))


async def _run(url: str, *arguments: str) -> None:
    environment = {**os.environ, "AMQP_URL": url}
    process = await asyncio.create_subprocess_exec(
        _GENERATOR, *arguments, env=environment, stdout=asyncio.subprocess.DEVNULL
    )
    if await process.wait():
        raise RuntimeError("the load generator failed")
