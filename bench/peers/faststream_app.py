"""FastStream as its documentation shows it: a subscriber with a pydantic model; websockets for the venue."""

# mypy: disable-error-code="misc, untyped-decorator, import-not-found"
# FastStream and pydantic are not in the environment that is checked, only in the peers' own.

import asyncio
import json
import os
from typing import Any

import uvloop
import websockets
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitMessage, RabbitQueue
from pydantic import BaseModel
from websockets.asyncio.client import ClientConnection

PREFETCH = 100

broker = RabbitBroker(os.environ["AMQP_URL"], default_channel=Channel(prefetch_count=PREFETCH), logger=None)
app = FastStream(broker, logger=None)
results = RabbitExchange("cancel.results", type=ExchangeType.TOPIC, durable=True, declare=False)
commands = RabbitQueue("cancel.commands", durable=True, declare=False)
waiting: dict[str, "asyncio.Queue[dict[str, Any]]"] = {}


class Venue:
    """The session with the venue."""

    connection: ClientConnection
    reader: asyncio.Task[None]
    reqid = 1


class Cancel(BaseModel):
    Symbol: str
    ClOrdID: str
    OrderID: str
    TransactTime: str


class Command(BaseModel):
    type: str
    data: list[Cancel]


async def read(connection: ClientConnection) -> None:
    async for text in connection:
        frame = json.loads(text)
        if frame["type"] == "ExecutionReport":
            for report in frame["data"]:
                if reports := waiting.get(report["ClOrdID"]):
                    reports.put_nowait(report)


@app.on_startup
async def log_in() -> None:
    connection = Venue.connection = await websockets.connect(os.environ["VENUE_URL"])
    assert json.loads(await connection.recv())["type"] == "hello"
    await connection.send(json.dumps({"reqid": 1, "type": "subscribe", "streams": [{"name": "ExecutionReport"}]}))
    assert json.loads(await connection.recv())["initial"]
    Venue.reader = asyncio.create_task(read(connection))


async def publish_until_canceled(cl_ord_id: str) -> None:
    while True:
        report = await waiting[cl_ord_id].get()
        canceled = report["ExecType"] == "Canceled"
        key = f"{'final.canceled' if canceled else 'info.pending_cancel'}.{report['Symbol']}"
        await broker.publish(report, exchange=results, persist=True, routing_key=key)
        if canceled:
            del waiting[cl_ord_id]
            return


@broker.subscriber(commands, ack_policy=AckPolicy.MANUAL)
async def handle(command: Command, message: RabbitMessage) -> None:
    for cancel in command.data:
        waiting[cancel.ClOrdID] = asyncio.Queue()
    Venue.reqid += 1
    request = {"reqid": Venue.reqid, "type": "OrderCancelRequest", "data": [c.model_dump() for c in command.data]}
    await Venue.connection.send(json.dumps(request))
    await asyncio.gather(*(publish_until_canceled(cancel.ClOrdID) for cancel in command.data))
    await message.ack()


if __name__ == "__main__":
    uvloop.run(app.run())
