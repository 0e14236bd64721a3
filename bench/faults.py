"""Faults under load: an open loop goes on while links are cut or the broker has an alarm."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import quote

import aiohttp

from bench.broker import COMMANDS, Place, new_place
from bench.candidates import CANDIDATES, Running
from bench.latency import percentiles
from bench.load import Load, open_loop
from bench.rows import Row
from bench.throughput import LINGER_S, Run
from bench.venue import Venue
from worker.demo.node import PrivateNode

FAULT_AFTER_S: Final = 3.0
ALARM_S: Final = 2.0
ALL_THAT_COME: Final = 1 << 40
"""Events may come twice, so their number says nothing: the load ends when no more come."""

SLOW_NS: Final = 100_000_000

Fault = Callable[[Place, Venue, Running], Awaitable[None]]


async def cut_broker(place: Place, _: Venue, running: Running) -> None:
    """The broker closes all connections of the worker, and of nobody else."""
    async with aiohttp.ClientSession(f"{place.node.management_url}/api/", raise_for_status=True) as http:
        connections: list[dict[str, object]] = await (await http.get("connections")).json()
        for connection in connections:
            if f"-{running.pid}-" in str(connection.get("user_provided_name")):
                await http.delete(f"connections/{quote(str(connection['name']), safe='')}")


async def cut_venue(_: Place, venue: Venue, __: Running) -> None:
    """The venue drops all sessions."""
    os.kill(venue.pid, signal.SIGUSR1)


async def alarm(place: Place, _: Venue, __: Running) -> None:
    """The broker blocks all publishers for some time."""
    await place.node.ctl("set_vm_memory_high_watermark", "0")
    await asyncio.sleep(ALARM_S)
    await place.node.ctl("set_vm_memory_high_watermark", "0.4")


FAULTS: Final[dict[str, Fault]] = {
    "broker connections closed": cut_broker,
    "venue sessions dropped": cut_venue,
    f"memory alarm of {ALARM_S:g} s": alarm,
}


async def under_load(node: PrivateNode, run: Run, fault: Fault, rate: float, seconds: float) -> Row:
    """Latency over the whole of it, and how many finals took longer than 100 ms.

    Its conditions: every cancel has a final, no command is left over, no cancel was sent twice. Events may be published
    twice, under the same id.
    """
    load = Load(int(rate * seconds))
    async with new_place(node) as place:
        with Venue() as venue:
            with Running(CANDIDATES[run.candidate], place.url, venue.url) as running:
                await place.until_consumed(COMMANDS)
                await asyncio.sleep(6.0)  # the management API knows connections after some seconds

                async def happen() -> None:
                    await asyncio.sleep(FAULT_AFTER_S)
                    await fault(place, venue, running)

                happening = asyncio.create_task(happen())
                timed = await open_loop(place.url, load, rate, ALL_THAT_COME)
                await happening
            await asyncio.sleep(LINGER_S)
            left, seen, arrivals = await place.messages(COMMANDS), venue.seen(), venue.arrivals(1, load.total)
    waits = [final - sent for final, sent in zip(timed.final_ns, timed.sent_ns, strict=True) if final]
    figures = {
        **percentiles("wire", arrivals, timed.sent_ns),
        **percentiles("result", timed.final_ns, timed.sent_ns),
        "slow": float(sum(wait > SLOW_NS for wait in waits)),
        "events": float(timed.received),
    }
    wrong = f"{load.total - len(waits)} cancels without a final" if len(waits) < load.total else ""
    wrong = wrong or (f"{left} commands left over" if left else "")
    return run.row(figures, wrong or (f"{seen.duplicates} cancels sent twice" if seen.duplicates else ""))
