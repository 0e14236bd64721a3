"""What a competent user writes in an hour: aio-pika and websockets, a task per command. LOOP=asyncio or uvloop.

It forwards the bare reports; with EVENTS=contract it publishes events as the contract wants them.
"""

import asyncio
import json
import os
import uuid
from datetime import UTC, datetime
from typing import Any

import aio_pika
import uvloop
import websockets
from aio_pika.abc import AbstractIncomingMessage
from websockets.asyncio.client import ClientConnection

PREFETCH = 100
WRAPPED = os.environ.get("EVENTS") == "contract"
NAMESPACE = uuid.UUID("6f0d1c2e-98a4-5b1d-8d5c-0c5b1f7a3e21")
WORKER = f"naive-{os.getpid()}"


def utc(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%S.%f}Z"


def wrap(
    message: AbstractIncomingMessage, index: int, report: dict[str, Any], final: bool, received: datetime
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The event of one report, and its AMQP properties."""
    command_id, now = message.message_id, datetime.now(UTC)
    outcome = "canceled" if final else "pending_cancel"
    kind = "final" if final else f"report\n{report['ExecID']}"
    event_id = str(uuid.uuid5(NAMESPACE, f"{command_id}\n{index}\n{kind}"))
    event = {
        "event_id": event_id,
        "command_id": command_id,
        "index": index,
        "outcome": outcome,
        "final": final,
        "sent": "yes",
        "order_live": not final,
        "symbol": report["Symbol"],
        "cl_ord_id": report["ClOrdID"],
        "orig_cl_ord_id": report.get("OrigClOrdID"),
        "order_id": report["OrderID"],
        "order": {
            "status": report["OrdStatus"],
            "cum_qty": report.get("CumQty"),
            "leaves_qty": report.get("LeavesQty"),
            "avg_px": report.get("AvgPx"),
            "as_of": report["Timestamp"],
        },
        "report": report,
        "error": None,
        "supersedes": None,
        "late": False,
        "attempt": 1,
        "lane": "cancel",
        "worker": WORKER,
        "session_id": None,
        "user_id": message.user_id,
        "app_id": message.app_id,
        "reason": None,
        "times": {
            "enqueued": utc(message.timestamp) if message.timestamp else None,
            "received": utc(received),
            "sent": utc(received),
            "reported": utc(now),
            "published": utc(now),
        },
    }
    properties = {
        "message_id": event_id,
        "correlation_id": message.correlation_id or command_id,
        "type": outcome,
        "app_id": "cancel-worker",
        "timestamp": now,
        "headers": {"command_id": command_id, "final": final},
    }
    return event, properties


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

    async def publish_until_canceled(message: AbstractIncomingMessage, index: int, cl_ord_id: str) -> None:
        received = datetime.now(UTC)
        while True:
            report = await waiting[cl_ord_id].get()
            canceled = report["ExecType"] == "Canceled"
            body, properties = wrap(message, index, report, canceled, received) if WRAPPED else (report, {})
            await results.publish(
                aio_pika.Message(
                    json.dumps(body).encode(),
                    content_type="application/json",
                    delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
                    **properties,
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
            await publish_until_canceled(message, 0, cancels[0]["ClOrdID"])
        else:
            each = (publish_until_canceled(message, index, cancel["ClOrdID"]) for index, cancel in enumerate(cancels))
            await asyncio.gather(*each)
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
