"""A bare client of the venue: signs by its own few lines, speaks JSON, keeps what comes."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect

from worker.simulator import Simulator

KEY, SECRET = "TESTKEY00001", "0examp1esecret7not8for9trading3x"
START = "2020-01-01T00:00:00.000000Z"


def utc_now() -> str:
    micros = time.time_ns() // 1000
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(micros // 1_000_000)) + f".{micros % 1_000_000:06d}Z"


def signed(host: str, *, key: str = KEY, secret: str = SECRET, timestamp: str | None = None) -> dict[str, str]:
    at = timestamp or utc_now()
    raw = hmac.new(secret.encode(), f"GET\n{at}\n{host}\n/ws/v1".encode(), hashlib.sha256).digest()
    return {"ApiKey": key, "ApiSign": base64.urlsafe_b64encode(raw).decode(), "ApiTimestamp": at}


class Client:
    """One session; every `want_*` waits at most a second or so for the frame it names."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.seen: list[dict[str, Any]] = []
        self._reqids = itertools.count(1)

    async def frame(self, within: float = 2.0) -> dict[str, Any]:
        async with asyncio.timeout(within):
            raw = await self.connection.recv()
        found = json.loads(raw)
        assert isinstance(found, dict)
        self.seen.append(found)
        return found

    async def until(self, wanted: Callable[[dict[str, Any]], bool], within: float = 2.0) -> dict[str, Any]:
        async with asyncio.timeout(within):
            while True:
                found = await self.frame(within)
                if wanted(found):
                    return found

    async def quiet(self, for_s: float = 0.1) -> None:
        """Nothing comes for a while."""
        try:
            found = await self.frame(for_s)
        except TimeoutError:
            return
        raise AssertionError(f"unexpected frame {found}")

    async def send(self, kind: str, **fields: object) -> int:
        reqid = next(self._reqids)
        await self.connection.send(json.dumps({"reqid": reqid, "type": kind, **fields}))
        return reqid

    async def raw(self, message: object) -> None:
        await self.connection.send(message if isinstance(message, str) else json.dumps(message))

    async def subscribe(self, name: str = "ExecutionReport", **filters: object) -> int:
        return await self.send("subscribe", streams=[{"name": name, "StartDate": START, **filters}])

    async def following(self, name: str = "ExecutionReport", **filters: object) -> int:
        """Subscribes and reads the first answer to its end."""
        reqid = await self.subscribe(name, **filters)
        await self.until(lambda frame: frame.get("reqid") == reqid and "next" not in frame)
        return reqid

    async def cancel(self, *items: dict[str, str]) -> int:
        return await self.send("OrderCancelRequest", data=list(items))

    async def reports(self, count: int, within: float = 2.0) -> list[dict[str, Any]]:
        """The next so many live ExecutionReports."""
        found: list[dict[str, Any]] = []
        while len(found) < count:
            frame = await self.until(
                lambda frame: frame["type"] == "ExecutionReport" and not frame.get("initial"), within
            )
            found += frame["data"]
        return found


def item(own: str, order_id: str | None = None, *, symbol: str = "BTC-USD", orig: str | None = None) -> dict[str, str]:
    """One element of an OrderCancelRequest."""
    found = {"Symbol": symbol, "ClOrdID": own, "TransactTime": utc_now()}
    if order_id is not None:
        found["OrderID"] = order_id
    if orig is not None:
        found["OrigClOrdID"] = orig
    return found


@asynccontextmanager
async def dial(venue: Simulator, **headers: str) -> AsyncIterator[Client]:
    """A session as far as the open WebSocket; hello is still to be read."""
    host = urlsplit(venue.url).hostname or ""
    async with connect(
        venue.url, additional_headers=headers or signed(host), compression=None, proxy=None, close_timeout=0.2
    ) as connection:
        yield Client(connection)


@asynccontextmanager
async def ready(venue: Simulator) -> AsyncIterator[Client]:
    """A session whose hello has been read."""
    async with dial(venue) as client:
        assert (await client.frame())["type"] == "hello"
        yield client
