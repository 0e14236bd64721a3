"""A TCP proxy that stops handing on what clients say, while they hear everything."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Stands before the server of ``url``; an ``async with`` block. ``url`` of the proxy differs in host and port."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)
        self._server: asyncio.Server | None = None
        self._lines: list[_Line] = []
        self.url = ""

    def lose_what_is_said(self, mark: bytes) -> int:
        """From now on drop what the clients say that said ``mark`` before; how many they are."""
        chosen = [line for line in self._lines if line.open and mark in line.said]
        for line in chosen:
            line.deaf = True
        return len(chosen)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        credentials = self._parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(self._parts._replace(netloc=f"{credentials}@127.0.0.1:{port}"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for line in self._lines:
            line.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, server = await asyncio.open_connection(self._parts.hostname, self._parts.port)
        line = _Line(writer, server)
        self._lines.append(line)
        with suppress(OSError):
            await asyncio.gather(self._pass(reader, server, line), self._pass(there, writer, None))

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, line: _Line | None) -> None:
        """Hand on until the end; ``line`` is given for what the client says."""
        try:
            while data := await source.read(65536):
                if line is not None:
                    line.said += data[: max(0, 4096 - len(line.said))]
                    if line.deaf:
                        continue
                target.write(data)
                await target.drain()
        finally:
            target.close()


class _Line:
    """One client and the beginning of what it said."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._ends = (client, server)
        self.said = b""
        self.deaf = False

    @property
    def open(self) -> bool:
        return not any(end.is_closing() for end in self._ends)

    def close(self) -> None:
        for end in self._ends:
            end.close()
