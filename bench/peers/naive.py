"""What a competent user writes in an hour: aio-pika and websockets, a task per command. LOOP=asyncio or uvloop."""

import asyncio
import json
import os
from typing import Any

import aio_pika
import uvloop
import websockets
from aio_pika.abc import AbstractIncomingMessage
from websockets.asyncio.client import ClientConnection

PREFETCH = 100


async def log_in() -> ClientConnection:
    venue = await websockets.connect(os.environ["VENUE_URL"])
    assert json.loads(await venue.recv())["type"] == "hello"
    await venue.send(json.dumps({"reqid": 1, "type": "subscribe", "streams": [{"name": "ExecutionReport"}]}))
    assert json.loads(await venue.recv())["initial"]
    return venue


async def main() -> None:
    connection = await aio_pika.connect_robust(os.environ["AMQP_URL"])
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=PREFETCH)
    queue = await channel.get_queue("cancel.commands")
    results = await channel.get_exchange("cancel.results")
    venue = await log_in()
    waiting: dict[str, asyncio.Queue[dict[str, Any]]] = {}
    reqid = 1

    async def read() -> None:
        async for text in venue:
            frame = json.loads(text)
            if frame["type"] == "ExecutionReport":
                for report in frame["data"]:
                    if reports := waiting.get(report["ClOrdID"]):
                        reports.put_nowait(report)

    async def publish_until_canceled(cl_ord_id: str) -> None:
        while True:
            report = await waiting[cl_ord_id].get()
            canceled = report["ExecType"] == "Canceled"
            await results.publish(
                aio_pika.Message(
                    json.dumps(report).encode(),
                    content_type="application/json",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                ),
                routing_key=f"{'final.canceled' if canceled else 'info.pending_cancel'}.{report['Symbol']}",
            )
            if canceled:
                del waiting[cl_ord_id]
                return

    async def handle(message: AbstractIncomingMessage) -> None:
        nonlocal reqid
        cancels = json.loads(message.body)["data"]
        for cancel in cancels:
            waiting[cancel["ClOrdID"]] = asyncio.Queue()
        reqid += 1
        await venue.send(json.dumps({"reqid": reqid, "type": "OrderCancelRequest", "data": cancels}))
        if len(cancels) == 1:
            await publish_until_canceled(cancels[0]["ClOrdID"])
        else:
            await asyncio.gather(*(publish_until_canceled(cancel["ClOrdID"]) for cancel in cancels))
        await message.ack()

    reader = asyncio.create_task(read())
    tasks = set()
    async with queue.iterator() as messages:
        async for message in messages:
            task = asyncio.create_task(handle(message))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    await reader


if __name__ == "__main__":
    if os.environ.get("LOOP") == "uvloop":
        uvloop.run(main())
    else:
        asyncio.run(main())
