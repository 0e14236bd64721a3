"""Keeps one consumer or publisher up: attempt, wait, attempt again, until it is closed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from worker.broker.dial import Dial
from worker.broker.link import CLOSE_WITHIN_S
from worker.errors import BrokerError


class Upkeep:
    """``attempt`` connects and serves until the link is gone; it always ends by BrokerError, with the reason.

    It calls ``came_up`` once it is up; if it ended before, ``failed`` is told why. It closes its link when cancelled.
    """

    def __init__(self, dial: Dial, attempt: Callable[[], Awaitable[None]], failed: Callable[[str], None]) -> None:
        self.close_within_s = CLOSE_WITHIN_S
        self._dial = dial
        self._attempt = attempt
        self._failed = failed
        self._up_at: float | None = None
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    def came_up(self) -> None:
        """The attempt in progress is up: if it stays so for some seconds, the waits start over."""
        self._up_at = asyncio.get_running_loop().time()

    async def run(self) -> None:
        """Until ``close``. Raises whatever is no BrokerError: a bug, ours or the port's."""
        if self._closing:
            return
        self._task = asyncio.create_task(self._keep_up())
        try:
            await self._task
        except asyncio.CancelledError:
            if not self._ended_by_close():
                raise

    async def close(self, within: float) -> None:
        """End ``run`` after an orderly close of the connection, which may take ``within`` seconds. Never raises."""
        self._closing = True
        self.close_within_s = within
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=within + 1.0)

    async def _keep_up(self) -> None:
        retry = self._dial.retry()
        while True:
            self._up_at = None
            try:
                await self._attempt()
                raise AssertionError("an attempt ends by BrokerError only")
            except BrokerError as error:
                delay = retry.delay_after(error, self._after(error))
            await asyncio.sleep(delay)

    def _after(self, error: BrokerError) -> float:
        """Seconds that the attempt was up; one that never was is told."""
        if self._up_at is None:
            self._failed(str(error))
            return 0.0
        return asyncio.get_running_loop().time() - self._up_at

    def _ended_by_close(self) -> bool:
        current = asyncio.current_task()
        return self._closing and current is not None and not current.cancelling()
