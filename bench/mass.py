"""Mass cancels: from the command to the last cancel of the first sweep, and to flat; and what the frames alone take."""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from pathlib import Path
from typing import Any, Final

import aio_pika
import msgspec

from bench.broker import KILL, Place, new_place, until
from bench.candidates import CANDIDATES, Running
from bench.rows import Row
from bench.throughput import Run
from bench.venue import Manner, Venue
from worker.config import Secret
from worker.config import Venue as VenueSettings
from worker.demo.node import PrivateNode
from worker.venue.pool import Pool
from worker.wire.command import derive_sweep_cl_ord_id
from worker.wire.venue import CancelElement, cancel_request

BATCH: Final = VenueSettings().max_batch
LISTED_WITHIN_S: Final = 20.0
FLAT_WITHIN_S: Final = 55.0
OUTCOMES: Final = ("mass_canceled", "mass_incomplete")
AT: Final = "2026-11-22T10:00:00.000000Z"


async def mass_cancel(node: PrivateNode, run: Run, orders: int, delay_ms: int = 2) -> Row:
    """So many open orders, and a venue that answers each cancel after ``delay_ms``.

    Its conditions: verified flat, every order matched and canceled, none sent twice.
    """
    async with new_place(node) as place:
        with Venue(Manner(delay_ms=delay_ms, open_orders=orders)) as venue:
            with Running(CANDIDATES[run.candidate], place.url, venue.url) as running:
                await place.until_consumed(KILL)
                await _until_listed(running, CANDIDATES[run.candidate].log)
                published_ns, flat_ns, report = await _fire(place)
            seen, arrivals = venue.seen(), venue.arrivals(1, orders)
        writing_ns = await _write_alone(orders)
    first_sweep_ns = max(arrivals) - published_ns
    figures = {
        "first_sweep_ms": first_sweep_ns / 1e6,
        "first_cancel_ms": (min((a for a in arrivals if a), default=published_ns) - published_ns) / 1e6,
        "us_per_order": first_sweep_ns / 1e3 / orders,
        "writing_ms": writing_ns / 1e6,
        "of_writing": first_sweep_ns / writing_ns,
        "flat_ms": (flat_ns - published_ns) / 1e6,
        "frames": float(seen.frames),
        "sweeps": float(report["mass"]["sweeps"]),
    }
    return run.row(figures, _wrong(report, orders, seen.duplicates, min(arrivals)))


def _wrong(report: dict[str, Any], orders: int, duplicates: int, first_ns: int) -> str:
    mass = report["mass"]
    if (report["outcome"], mass["matched"], mass["canceled"]) != ("mass_canceled", orders, orders):
        return f"{report['outcome']}: {mass['canceled']} of {mass['matched']} canceled, {orders} were open"
    if not first_ns:
        return "an order was never sent for"
    return f"{duplicates} cancels sent twice" if duplicates else ""


async def _until_listed(running: Running, log: Path) -> None:
    """Wait until the worker has read its own book of open orders, as its log tells."""
    read = await until(lambda: not running.is_alive or b'"open_orders_read"' in log.read_bytes(), LISTED_WITHIN_S)
    if not read or not running.is_alive:
        raise RuntimeError(f"the worker did not read the list of open orders; see {log}")


async def _fire(place: Place) -> tuple[int, int, dict[str, Any]]:
    """When the command was published and its report came, in nanoseconds of the monotonic clock; and the report."""
    async with await aio_pika.connect(place.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue(exclusive=True)
        for outcome in OUTCOMES:
            await queue.bind("cancel.results", f"final.{outcome}.#")
        came: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

        async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            if not came.done():
                came.set_result((time.monotonic_ns(), message.body))

        await queue.consume(take, no_ack=True)
        item = {"MassCancelRequestType": "AllOrders", "ClOrdID": str(uuid.uuid4())}
        body = json.dumps({"type": "OrderMassCancelRequest", "data": [item]}).encode()
        exchange = await channel.get_exchange("cancel.commands", ensure=False)
        message = aio_pika.Message(body, message_id=str(uuid.uuid4()), timestamp=int(time.time()))
        published_ns = time.monotonic_ns()
        await exchange.publish(message, "kill")
        async with asyncio.timeout(FLAT_WITHIN_S):
            flat_ns, report = await came
        return published_ns, flat_ns, msgspec.json.decode(report)


class Hello:
    """Waits for the hello; ``session`` raises RuntimeError if there is no log-in."""

    def __init__(self) -> None:
        self.session: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def session_opened(self, session: int, slot: int) -> None: ...

    def frames_received(self, session: int, messages: list[bytes]) -> None:
        if not self.session.done():
            self.session.set_result(session)

    def session_lost(self, session: int, reason: str) -> None:
        self._fail(reason)

    def attempt_failed(self, slot: int, reason: str) -> None:
        self._fail(reason)

    def batch_ended(self) -> None: ...

    def _fail(self, reason: str) -> None:
        if not self.session.done():
            self.session.set_exception(RuntimeError(reason))


async def _write_alone(orders: int) -> int:
    """Nanoseconds to make and write the same frames and do nothing else, over the worker's own kind of socket."""
    with Venue(Manner(delay_ms=60_000, open_orders=orders)) as venue:
        host = Hello()
        settings = msgspec.structs.replace(VenueSettings(), url=venue.url, sessions=1)
        pool = Pool(settings, lambda: (Secret("BENCHMARKKEY"), Secret("only4benchmarks")), host, random.Random())
        running = asyncio.create_task(pool.run())
        try:
            session = await host.session
            order_ids = [f"16a55364-4248-4575-aa0b-{seq:012}" for seq in range(1, orders + 1)]
            command_id = str(uuid.uuid4())
            began_ns = time.monotonic_ns()
            for number, start in enumerate(range(0, orders, BATCH), 1):
                of_frame = order_ids[start : start + BATCH]
                pool.send(session, cancel_request(number, [_element(command_id, order_id) for order_id in of_frame]))
            pool.flush()
            if not await until(lambda: venue.seen().cancels >= orders, 30.0):
                raise RuntimeError("the venue did not get all frames")
            return venue.seen().last_ns - began_ns
        finally:
            running.cancel()
            await asyncio.wait([running])
            await pool.close()


def _element(command_id: str, order_id: str) -> CancelElement:
    """What is given is the OrderID; the ClOrdID is made, as in a sweep."""
    return CancelElement("BTC-USD", derive_sweep_cl_ord_id(command_id, order_id, 0), AT, order_id)
