"""The way to the venue's host: name look-up, TCP, TLS settings. No proxy is ever used (faults W9)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker.errors import VenueError
from worker.venue.reasons import network_error

Address = tuple[Any, ...]  # as socket.getaddrinfo gives it: (family, type, proto, canonical name, socket address)


class Resolver:
    """Look-ups of one name, in a daemon thread, one under way at most.

    getaddrinfo has no time limit: hanging in a thread of the loop's pool it would keep others from their look-ups and
    the process from ending. Whoever asks while one hangs waits for the same one.
    """

    def __init__(self, host: str, port: int, lookup: Callable[..., list[Address]] = socket.getaddrinfo) -> None:
        self._host = host
        self._port = port
        self._lookup = lookup
        self._pending: asyncio.Future[list[Address]] | None = None

    async def resolve(self) -> list[Address]:
        """The addresses of the host; raises OSError (``socket.gaierror``). The caller sets the time limit."""
        with contextlib.suppress(OSError):
            return self._ask(socket.AI_NUMERICHOST)
        if self._pending is None:
            loop = asyncio.get_running_loop()
            self._pending = loop.create_future()
            threading.Thread(target=self._run, args=(loop,), name="venue-look-up", daemon=True).start()
        return await asyncio.shield(self._pending)

    def _ask(self, flags: int = 0) -> list[Address]:
        return self._lookup(self._host, self._port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=flags)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        found: list[Address] | OSError
        try:
            found = self._ask()
        except OSError as error:
            found = error
        except UnicodeError:  # a label of the name that the IDNA codec refuses
            found = OSError("not a valid host name")
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(self._tell, found)

    def _tell(self, found: list[Address] | OSError) -> None:
        pending, self._pending = self._pending, None
        assert pending is not None, "one look-up, one answer"
        if isinstance(found, OSError):
            pending.set_exception(found)
            pending.exception()  # seen, even if nobody waits any more
        else:
            pending.set_result(found)


async def connect(addresses: list[Address], seconds: float) -> socket.socket:
    """A connected socket to the first address that answers; the last refusal is raised as OSError.

    Each address gets an equal share of what is left of ``seconds``, so that one that swallows packets doesn't use up
    all of it.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    failure = OSError("the name has no address")
    for tried, (family, kind, proto, _, address) in enumerate(addresses):
        try:
            sock = socket.socket(family, kind, proto)
        except OSError as error:  # an address family this machine does not have; out of descriptors
            failure = error
            continue
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout_at(loop.time() + (until - loop.time()) / (len(addresses) - tried)):
                await loop.sock_connect(sock, address)
        except OSError as error:  # TimeoutError is one
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


class Tls:
    """The TLS settings towards the venue: certificate and host name are always verified.

    The context is made again when the file of authorities has changed; reading the system's takes milliseconds, so not
    each time.
    """

    def __init__(self, ca_file: Path | None) -> None:
        self._ca_file = ca_file
        self._seen: tuple[int, int] | None = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Raises VenueError if the file cannot be used."""
        try:
            seen = self._stamp()
            if self._context is None or seen != self._seen:
                context = ssl.create_default_context(cafile=self._ca_file)
                context.set_alpn_protocols(["http/1.1"])
                self._context, self._seen = context, seen
        except OSError as error:  # ssl.SSLError is one
            raise VenueError(f"venue.ca_file {self._ca_file} can't be used: {network_error(error)}") from error
        return self._context

    def _stamp(self) -> tuple[int, int] | None:
        if self._ca_file is None:
            return None
        stat = self._ca_file.stat()
        return stat.st_mtime_ns, stat.st_size
