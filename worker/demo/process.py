"""The worker as a process of its own, as ``cancel-worker run`` starts it, which never outlives the demo."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from worker.errors import CancelWorkerError

_KEPT_LINES: Final = 40
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_libc: Final = ctypes.CDLL(None)


class WorkerEndedError(CancelWorkerError):
    """The worker's process ended although nobody told it to."""


class WorkerProcess:
    """``async with``: started by the entry, ended by the exit. Nothing of it goes to disk."""

    def __init__(self, files: Sequence[Path], settings: Mapping[str, str]) -> None:
        self._arguments = [word for file in files for word in ("--config", str(file))]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("CANCEL_WORKER")}
        self._environment = inherited | dict(settings)
        self._process: asyncio.subprocess.Process | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._reading: asyncio.Task[None] | None = None

    @property
    def exit_status(self) -> int | None:
        """None while it runs."""
        return None if self._process is None else self._process.returncode

    @property
    def last_words(self) -> list[str]:
        """The last lines that it logged."""
        return list(self._lines)

    def check(self) -> None:
        """Raises WorkerEndedError if it does not run any more."""
        if self.exit_status is not None:
            said = self._lines[-1] if self._lines else "it said nothing"
            raise WorkerEndedError(f"the worker ended with exit status {self.exit_status}: {said}")

    async def stop(self, within_s: float) -> int | None:
        """SIGTERM, as an operator would; its exit status, None if it had to be killed."""
        process = self._process
        if process is None:
            return None
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(within_s):
                return await process.wait()
        except TimeoutError:
            return None

    async def __aenter__(self) -> Self:
        # A session of its own: Ctrl-C is the demo's to obey, which then stops the worker in order.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "worker",
            *self._arguments,
            "run",
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._reading is not None
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async for line in self._process.stdout:
                self._lines.append(line.decode(errors="replace").rstrip())
        except ValueError:  # a line beyond the reader's limit: it is not worth keeping, nor is what follows
            await self._process.stdout.read()


def _end_with_parent() -> None:
    """Runs in the child: the kernel ends it when the demo is gone, however it went."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
