"""Guard against regressions: the cost of a cancel in the engine, against a reference in the same run. For CI.

Two measures that another load on the machine can't spoil: the number of Python bytecodes, which is the same at every
run, and CPU time, as the shortest of many short rounds that alternate with rounds of the reference.

    python -m bench.guard           prints both, and exits with 1 if one is beyond its bound
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from bench.scenario import READ_AT_ONCE, Worker, make_cancels, naive

CPU_BOUND: Final = 1.6
"""Ours to the reference's. It is about half of that."""

BYTECODE_BOUND: Final = 6_500
"""Per cancel; generous, since Python's versions differ."""

ROUNDS: Final = 40
CANCELS: Final = 10 * READ_AT_ONCE


def cpu_us(work: Callable[[], object]) -> float:
    """CPU microseconds per cancel of one round."""
    began = time.process_time_ns()
    work()
    return (time.process_time_ns() - began) / 1e3 / CANCELS


def bytecodes(work: Callable[[], object]) -> float:
    """Bytecodes per cancel of one round."""
    count = 0
    if sys.version_info >= (3, 12):  # tracing of opcodes is broken there, and monitoring is made for it
        monitoring = sys.monitoring

        def counted(code: object, offset: int) -> None:
            nonlocal count
            count += 1

        monitoring.use_tool_id(monitoring.PROFILER_ID, "bench.guard")
        monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION, counted)
        monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION)
        work()
        monitoring.set_events(monitoring.PROFILER_ID, 0)
        monitoring.free_tool_id(monitoring.PROFILER_ID)
    else:

        def trace(frame: FrameType, event: str, _: Any) -> Any:
            nonlocal count
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            count += event == "opcode"
            return trace

        sys.settrace(trace)
        work()
        sys.settrace(None)
    assert count, "nothing was counted"
    return count / CANCELS


def main() -> int:
    """Measure, print, judge."""
    every = make_cancels((ROUNDS + 2) * CANCELS)
    rounds = [every[start : start + CANCELS] for start in range(0, len(every), CANCELS)]
    worker = Worker()
    worker.work(rounds.pop())  # everything is there once, caches too
    traced = rounds.pop()
    code = bytecodes(lambda: worker.work(traced))
    ours, reference = [], []
    for cancels in rounds:
        ours.append(cpu_us(lambda: worker.work(cancels)))  # noqa: B023 - called at once
        reference.append(cpu_us(lambda: naive(cancels)))  # noqa: B023
    finals = worker.runner.engine.stats.finals["canceled"]
    assert worker.shells.acked == finals == len(every), "not all was done"
    ratio = min(ours) / min(reference)
    print(f"CPU per cancel: {min(ours):.1f} us, reference {min(reference):.1f} us: {ratio:.2f}, bound {CPU_BOUND}")
    print(f"bytecodes per cancel: {code:.0f}, bound {BYTECODE_BOUND}")
    return int(ratio > CPU_BOUND or code > BYTECODE_BOUND)


if __name__ == "__main__":
    sys.exit(main())
