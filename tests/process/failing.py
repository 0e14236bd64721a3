"""``cancel-worker`` with a part that fails at SIGUSR1: ``python -m tests.process.failing PART run``.

PART is ``ends`` (the pool's task returns), ``raises`` (the engine does, in its next step), ``ticks`` (on its clock) or
``reads`` (once, at the next frames of the venue).
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Any

from worker.cli import main
from worker.core.engine import Engine
from worker.venue.pool import Pool

asked = False


def _ask(*_: object) -> None:
    global asked
    asked = True


def _raising(method: Callable[..., Any], *, once: bool = False) -> Callable[..., Any]:
    def failing(self: Engine, *arguments: Any) -> Any:
        global asked
        if asked:
            asked = not once
            raise ZeroDivisionError("a bug that a test planted")
        return method(self, *arguments)

    return failing


async def _ending(pool: Pool) -> None:
    while not asked:
        slot = await pool._next_slot()
        if slot is not None:
            await pool._try(slot)


if __name__ == "__main__":
    part = sys.argv.pop(1)
    signal.signal(signal.SIGUSR1, _ask)
    if part == "ends":
        Pool.run = _ending  # type: ignore[method-assign,assignment]
    elif part == "raises":
        Engine.flush = _raising(Engine.flush)  # type: ignore[method-assign]
    elif part == "reads":
        Engine.frames_received = _raising(Engine.frames_received, once=True)  # type: ignore[method-assign]
    else:
        Engine.tick = _raising(Engine.tick)  # type: ignore[method-assign]
    sys.exit(main())
