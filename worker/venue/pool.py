"""Keeps ``venue.sessions`` sessions up: a size, not a rate (faults W5).

One attempt at a time in the process. Each slot waits by its own backoff; what speaks of the key or of the load (three
refusals in a row, a Retry-After) holds back all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from worker.config.addresses import parse_venue_url
from worker.config.structs import Venue
from worker.core.backoff import Backoff, Failure
from worker.errors import VenueError, VenueRefusedError
from worker.venue.dial import Resolver, Tls, connect
from worker.venue.login import Credentials, LogIn
from worker.venue.port import VenuePort
from worker.venue.reasons import network_error
from worker.venue.socket import CLOSED_BY_US, Limits, VenueSocket

RETRY_AFTER_MOST: Final = 300.0  # seconds; more than this is not believed
_CLOCK_STEP: Final = 0.01  # seconds between two looks at a clock that shows a used timestamp


class SlotStatus(NamedTuple):
    """One place of the pool, for people.

    ``last_error`` is None once a session is ready; ``next_attempt`` seconds from now.
    """

    slot: int
    session: int | None
    ready: bool
    last_error: str | None
    next_attempt: float | None


class _Slot:
    __slots__ = ("backoff", "due", "number", "ready_since", "socket")

    def __init__(self, number: int, backoff: Backoff) -> None:
        self.number = number
        self.backoff = backoff
        self.socket: VenueSocket | None = None
        self.ready_since: float | None = None
        self.due = 0.0  # loop time of the next attempt


class Pool:
    """The sessions with the venue. ``run`` for ever in a task; everything else is called from the same loop.

    ``rng`` gives the jitter, ``utc_us`` UTC microseconds for the signature; waits go by the loop's clock.
    """

    def __init__(
        self,
        venue: Venue,
        credentials: Credentials,
        port: VenuePort,
        rng: Random,
        *,
        utc_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        limits: Limits | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._venue = venue
        self._address = parse_venue_url(venue.url)
        self._log_in = LogIn(venue, self._address, credentials, utc_us)
        self._port = port
        self._rng = rng
        self._limits = limits or Limits(max_message=venue.max_message_bytes)
        self._resolver = resolver or Resolver(self._address.host, self._address.port)
        self._tls = Tls(Path(venue.ca_file) if venue.ca_file else None) if self._address.tls else None
        self._slots = [_Slot(number, self._new_backoff()) for number in range(venue.sessions)]
        self._sockets: dict[int, VenueSocket] = {}
        self._by_session: dict[int, _Slot] = {}
        self._begun = 0  # the number of the last session begun
        self._refusals = 0  # in a row, of all slots
        self._refused_until = 0.0  # loop time before which the key is not shown again
        self._asked_until = 0.0  # loop time of a Retry-After
        self._wake = asyncio.Event()
        self._closing = False
        self._attempt: asyncio.Task[None] | None = None
        self.last_errors: dict[int, str] = {}
        """Per slot, why it has no ready session; for the status page."""
        self.attempts = 0
        """Log-ins tried, for the metrics; of them ``refusals`` were answered with another status than 101."""
        self.refusals = 0

    # ---- what the runner asks for ----------------------------------------------------------------------------------

    def send(self, session: int, data: bytes) -> None:
        """One text message, to leave at ``flush``, or else at the end of the loop's turn; ignored if the session has
        ended.
        """
        socket = self._sockets.get(session)
        if socket is not None:
            socket.send(data)

    def flush(self) -> None:
        """Hand all that was sent to the transports, one write a session: called in the step that decides to send."""
        for socket in self._sockets.values():
            socket.flush()

    def drop(self, session: int, reason: str) -> None:
        """End a session at once; ``session_lost`` follows with this reason."""
        socket = self._sockets.get(session)
        if socket is not None:
            socket.abort(reason)

    def session_ready(self, session: int) -> None:
        """The engine uses the session: after ``stable_after`` seconds of it the slot's waits start over."""
        slot = self._by_session.get(session)
        if slot is not None and slot.ready_since is None:
            slot.ready_since = asyncio.get_running_loop().time()
            self.last_errors.pop(slot.number, None)

    def status(self) -> list[SlotStatus]:
        """The slots in order."""
        now = asyncio.get_running_loop().time()
        return [
            SlotStatus(
                slot.number,
                slot.socket.session if slot.socket else None,
                slot.ready_since is not None,
                self.last_errors.get(slot.number),
                None if slot.socket else max(0.0, self._due(slot) - now),
            )
            for slot in self._slots
        ]

    async def close(self) -> None:
        """Make no more attempts and close every session in order, within ``close_timeout``; ``run`` then returns."""
        self._closing = True
        self._wake.set()
        if self._attempt is not None:
            self._attempt.cancel()
        await asyncio.gather(*(socket.close() for socket in list(self._sockets.values())))

    async def run(self) -> None:
        """Keep the sessions up until ``close``. Cancelled, it drops them all."""
        try:
            while not self._closing:
                slot = await self._next_slot()
                if slot is not None:
                    await self._try(slot)
        finally:
            if not self._closing:
                for socket in list(self._sockets.values()):
                    socket.abort(CLOSED_BY_US)

    # ---- attempts --------------------------------------------------------------------------------------------------

    def _due(self, slot: _Slot) -> float:
        return max(slot.due, self._refused_until, self._asked_until)

    async def _next_slot(self) -> _Slot | None:
        """The slot whose turn it is; None if something changed while waiting for it."""
        empty = [slot for slot in self._slots if slot.socket is None]
        slot = min(empty, key=lambda one: one.due, default=None)
        now = asyncio.get_running_loop().time()
        if slot is not None and self._due(slot) <= now:
            return slot
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if slot is None else self._due(slot) - now):
                await self._wake.wait()
        return None

    async def _try(self, slot: _Slot) -> None:
        self.attempts += 1
        self._attempt = asyncio.create_task(self._make(slot), name=f"venue-attempt-{slot.number}")
        try:
            await self._attempt
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._closing or (task is not None and task.cancelling()):
                raise
        except VenueError as error:
            self._failed(slot, error)
        finally:
            self._attempt = None

    async def _make(self, slot: _Slot) -> None:
        """One attempt, from the look-up to the 101, within ``connect_timeout``. Raises VenueError."""
        step, socket = "name look-up", None
        loop = asyncio.get_running_loop()
        until = loop.time() + self._venue.connect_timeout
        try:
            async with asyncio.timeout_at(until):
                tls = self._tls.context() if self._tls else None
                addresses = await self._resolver.resolve()
                step = "TCP"
                sock = await connect(addresses, until - loop.time())
                step = "TLS" if tls else "TCP"
                socket = self._new_socket(slot)
                # From here on the transport closes the connection: closing it here too could close a later one of its
                # number.
                await loop.create_connection(
                    partial(_same, socket), sock=sock, ssl=tls, server_hostname=self._address.host if tls else None
                )
                step = "upgrade"
                headers = await self._sign()
                await socket.upgrade(headers)
        except (VenueError, OSError, asyncio.CancelledError) as error:
            if socket is not None and socket.opened:
                if isinstance(error, asyncio.CancelledError):
                    raise
                return  # the time limit and the 101 came together
            if socket is not None:
                socket.abort(CLOSED_BY_US)
            if isinstance(error, OSError):
                raise VenueError(f"{step}: {self._where(error)}") from error
            raise

    async def _sign(self) -> dict[str, str]:
        while (headers := self._log_in.headers()) is None:
            await asyncio.sleep(_CLOCK_STEP)
        return headers

    def _where(self, error: OSError) -> str:
        if isinstance(error, TimeoutError) and error.errno is None:
            return f"no answer from {self._address.host}:{self._address.port} in {self._venue.connect_timeout:g} s"
        return f"{self._address.host}:{self._address.port}: {network_error(error)}"

    def _failed(self, slot: _Slot, error: VenueError) -> None:
        now = asyncio.get_running_loop().time()
        failure: Failure = "failed"
        retry_after = 0.0
        if isinstance(error, VenueRefusedError):
            self.refusals += 1
            if error.status in (429, 503):
                retry_after = min(error.retry_after_s or 0.0, RETRY_AFTER_MOST)
            elif 300 <= error.status < 500 or error.status in self._venue.fatal_statuses:
                failure = "refused"
        self._refusals = self._refusals + 1 if failure == "refused" else 0
        if self._refusals >= self._venue.auth_attempts:
            self._refused_until = now + self._venue.auth_retry_min
        self._asked_until = max(self._asked_until, now + retry_after)
        slot.due = now + slot.backoff.next_delay(failure, self._rng.random(), retry_after)
        self.last_errors[slot.number] = str(error)
        self._port.attempt_failed(slot.number, str(error))
        self._port.batch_ended()

    def _new_socket(self, slot: _Slot) -> VenueSocket:
        self._begun += 1
        opened, ended = partial(self._opened, slot), partial(self._ended, slot)
        return VenueSocket(self._begun, self._address, self._port, self._limits, opened, ended)

    def _new_backoff(self) -> Backoff:
        venue = self._venue
        return Backoff(venue.reconnect_min, venue.reconnect_max, venue.auth_attempts, venue.auth_retry_min)

    # ---- what the sockets tell -------------------------------------------------------------------------------------

    def _opened(self, slot: _Slot, socket: VenueSocket) -> None:
        slot.socket = socket
        slot.ready_since = None
        slot.backoff.accepted()
        self._refusals = 0
        self._sockets[socket.session] = socket
        self._by_session[socket.session] = slot
        self._port.session_opened(socket.session, slot.number)

    def _ended(self, slot: _Slot, socket: VenueSocket, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        del self._sockets[socket.session], self._by_session[socket.session]
        if slot.ready_since is not None and now - slot.ready_since >= self._venue.stable_after:
            # The key has proven good: refusals of another slot (a cap on sessions, say) don't hold this one back.
            slot.backoff.reset()
            self._refusals, self._refused_until = 0, 0.0
        slot.socket, slot.ready_since = None, None
        slot.due = now + slot.backoff.next_delay("failed", self._rng.random())
        self.last_errors[slot.number] = reason
        self._wake.set()
        self._port.session_lost(socket.session, reason)


def _same(socket: VenueSocket) -> VenueSocket:
    return socket
