"""A broker that follows a script: what a real one can't be made to say, in milliseconds. It speaks through pamqp."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pamqp.frame
from pamqp import base, commands, header

from tests.support.timing import SECOND

Frame = base.Frame | header.ContentHeader | Any


class Peer:
    """One accepted connection: ``expect`` reads frames, ``say`` writes them, ``received`` keeps what came."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.received: list[tuple[int, Frame]] = []

    async def frame(self) -> tuple[int, Frame]:
        head = await self.reader.readexactly(7)
        size = int.from_bytes(head[3:7], "big")
        data = head + await self.reader.readexactly(size + 1)
        _, channel, frame = pamqp.frame.unmarshal(data)
        self.received.append((channel, frame))
        return channel, frame

    async def expect(self, kind: type[Any]) -> Any:
        """The next frame of that kind; others are passed over."""
        async with asyncio.timeout(10 * SECOND):
            while True:
                _, frame = await self.frame()
                if isinstance(frame, kind):
                    return frame

    def say(self, *frames: base.Frame, channel: int = 0) -> None:
        self.write(b"".join(bytes(pamqp.frame.marshal(frame, channel)) for frame in frames))

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def start(self, mechanisms: str = "PLAIN EXTERNAL") -> commands.Connection.StartOk:
        """To start-ok."""
        assert await self.reader.readexactly(8) == b"AMQP\x00\x00\x09\x01"
        self.say(commands.Connection.Start(0, 9, {"product": "scripted"}, mechanisms, "en_US"))
        start_ok: commands.Connection.StartOk = await self.expect(commands.Connection.StartOk)
        return start_ok

    async def open(self, tune: commands.Connection.Tune | None = None) -> commands.Connection.TuneOk:
        """The whole hand-shake."""
        await self.start()
        self.say(tune or commands.Connection.Tune(2047, 131_072, 60))
        tune_ok: commands.Connection.TuneOk = await self.expect(commands.Connection.TuneOk)
        await self.expect(commands.Connection.Open)
        self.say(commands.Connection.OpenOk())
        return tune_ok

    async def open_channel(self, channel: int = 1) -> None:
        await self.expect(commands.Channel.Open)
        self.say(commands.Channel.OpenOk(), channel=channel)

    async def closed(self) -> None:
        """Wait until the other side is gone."""
        try:
            async with asyncio.timeout(10 * SECOND):
                while await self.reader.read(65_536):
                    pass
        except ConnectionError:
            pass


@asynccontextmanager
async def scripted(script: Callable[[Peer], Awaitable[None]], tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve each connection by ``script``; gives the URL. What a script raises is raised at the end."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(peer: Peer) -> None:
        try:
            await script(peer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away
        finally:
            peer.writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(serve(Peer(reader, writer))))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{'amqps' if tls else 'amqp'}://user:secret@127.0.0.1:{port}/"
    finally:
        server.close()
        for task in tasks:
            if not task.done():
                task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
