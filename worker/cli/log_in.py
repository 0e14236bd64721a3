"""One log-in at the venue: the upgrade, the venue's ``hello``, and an orderly close (protocol 1 and 3.1)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final, Generic, TypeVar

import msgspec

from worker.config import Config, venue_credentials
from worker.errors import VenueError
from worker.venue.pool import Pool
from worker.venue.port import VenuePort
from worker.wire.timestamp import parse_utc
from worker.wire.venue import FrameError, UnreadFrame, read_unread_frame

_CLOSE_S: Final = 2.0

_Answer = TypeVar("_Answer")


class Listener(Generic[_Answer]):
    """Waits for what one session is asked: ``answer`` gives it, or raises VenueError with why it can't be had."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[_Answer] = asyncio.get_running_loop().create_future()

    def session_opened(self, session: int, slot: int) -> None:
        """The venue let us in; it has to say hello yet."""

    def session_lost(self, session: int, reason: str) -> None:
        """The session ended before the answer came."""
        self.fail(reason)

    def attempt_failed(self, slot: int, reason: str) -> None:
        """The upgrade failed."""
        self.fail(reason)

    def batch_ended(self) -> None:
        """Nothing is collected."""

    def fail(self, reason: str) -> None:
        """There will be no answer."""
        if not self.answer.done():
            self.answer.set_exception(VenueError(reason))


class _FirstWord(Listener[UnreadFrame]):
    """Waits for the first frame of the first session."""

    def frames_received(self, session: int, messages: list[bytes]) -> None:
        """The first frame has to be the hello."""
        if self.answer.done():
            return
        try:
            frame = read_unread_frame(messages[0])
        except FrameError as error:
            self.fail(f"the first frame is unreadable: {error}")
            return
        if frame.type != "hello":
            self.fail(f"the first frame is {frame.type!a:.40}, not hello")
            return
        self.answer.set_result(frame)


@asynccontextmanager
async def one_session(config: Config, host: VenuePort) -> AsyncIterator[Pool]:
    """A pool of one session, which tells ``host`` of it; closed in order, or cut off if the venue does not answer."""
    venue = msgspec.structs.replace(config.venue, sessions=1, report_sessions=0)
    pool = Pool(venue, lambda: venue_credentials(config), host, random.Random())
    running = asyncio.create_task(pool.run())
    try:
        yield pool
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await pool.close()
        running.cancel()
        await asyncio.wait([running])


async def log_in(config: Config) -> str:
    """What the venue said to one session. Raises VenueError with the reason if it could not log in."""
    word = _FirstWord()
    within = config.venue.connect_timeout + config.venue.hello_timeout
    async with one_session(config, word):
        try:
            async with asyncio.timeout(within):
                hello = await word.answer
        except TimeoutError:
            raise VenueError(f"no hello within {within:g} s") from None
    return f"logged in at {config.venue.url}, session {hello.session_id or 'without id'}{_clock(hello.ts)}"


def _clock(ts: str | None) -> str:
    """How far the venue's clock is from ours: a signature is refused if it is too far (protocol 1.3)."""
    try:
        off_s = (parse_utc(ts or "") - time.time_ns() // 1000) / 1e6
    except ValueError:
        return ""
    return f", its clock {'ahead' if off_s > 0 else 'behind'} by {abs(off_s):.2f} s"
