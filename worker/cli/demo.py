"""``cancel-worker demo``: everything at once on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from worker.cli.console import Console
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.demo.verdict import Row, Verdict
    from worker.wire.seen import SeenEvent

_PROBLEMS: Final = 20
_FILE: Final = Path("config/demo.toml")


@click.command(
    "demo",
    epilog="""\b
Examples:
  cancel-worker demo
  cancel-worker demo --count 20 --seed 7

\b
Exit status:
  0  everything adds up
  1  something does not, or a part did not start
  2  there is no RabbitMQ on this machine (make setup fetches one), or an option is wrong
""",
)
@click.option(
    "--count",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    metavar="N",
    help="How many commands of each kind.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=1, show_default=True, metavar="N", help="Seed of ids and order."
)
@click.pass_context
def command(context: click.Context, count: int, seed: int) -> int:
    """Start a private RabbitMQ node, the venue simulator and a worker, send a stream of cancels of every kind.

    Prints each event that the worker publishes, then a summary: for every kind what was due, what came, and whether
    the venue's own book bears it out. Takes less than half a minute. Nothing is left running or on disk, and nothing
    outside this machine is spoken to.

    The worker's settings come from config/demo.toml, or from the files given with --config. If
    CANCEL_WORKER_TEST_BROKER holds an AMQP URL, that server is used instead of a private node, under names of the
    demo's own, which are deleted at the end.
    """
    import asyncio

    return asyncio.run(_demo(_files(context.obj), count, seed))


def _files(given: tuple[Path, ...]) -> tuple[Path, ...]:
    if given:
        return given
    for folder in (Path(), Path(__file__).resolve().parents[2]):
        if (folder / _FILE).is_file():
            return ((folder / _FILE).resolve(),)
    raise UsageError(f"{_FILE} is not here: name the demo's configuration with --config")


async def _demo(files: tuple[Path, ...], count: int, seed: int) -> int:
    import asyncio
    import os
    import signal
    import time

    from worker.demo.demo import demo

    begun = time.monotonic()
    terminated = False
    task = asyncio.current_task()
    assert task is not None

    def end() -> None:
        nonlocal terminated
        terminated = True
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, end)
    show = _Lines()
    try:
        found = await demo(show, files, count, seed, os.environ)
    except asyncio.CancelledError:
        if terminated:
            return 1
        raise
    show.summary(found, time.monotonic() - begun)
    return 0 if found.adds_up else 1


class _Lines:
    """Tells the demo line by line."""

    def __init__(self) -> None:
        self._console = Console()

    def step(self, text: str) -> None:
        self._console.line(text, "head")

    def event(self, event: SeenEvent, kind: str) -> None:
        from worker.cli.answers import LIVE, told_of, tone_of

        at = (event.times.published or "")[11:23]
        order = (event.order_id or "")[:8]
        live = "" if not kind else f"live {LIVE[event.order_live]}"
        mark = "=" if event.final else "."
        text = (
            f"{at} {mark} {kind:<19} {event.symbol or '':<7} {order:<8} {event.outcome:<15} {live:<14} {told_of(event)}"
        )
        self._console.line(text.rstrip(), tone_of(event))

    def summary(self, found: Verdict, took_s: float) -> None:
        """The table, the books, and the one line that counts."""
        console, total = self._console, found.total
        console.line()
        head = ("kind", "commands", "finals due", "came", "as expected", "venue agrees", "")
        rows = [_cells(row) for row in (*found.rows, total)]
        console.table(head, rows, ["" if row.adds_up else "bad" for row in (*found.rows, total)])
        console.line()
        console.line(
            f"{found.events} events, {found.repeated} of them published again under the same id; "
            f"{total.commands} commands, {total.due} cancels, {total.seen} finals; "
            f"{found.dead} dead letters; {found.left} messages left in the queues; {took_s:.1f} s"
        )
        for problem in found.problems[:_PROBLEMS]:
            console.line(f"  {problem}", "bad")
        if len(found.problems) > _PROBLEMS:
            console.line(f"  and {len(found.problems) - _PROBLEMS} more", "bad")
        if found.adds_up:
            console.line("Everything adds up.", "good")
        else:
            console.line(f"It does not add up: {len(found.problems)} problems.", "bad")


def _cells(row: Row) -> list[str]:
    numbers = (row.commands, row.due, row.seen, row.right, row.borne_out)
    return [row.kind, *map(str, numbers), "ok" if row.adds_up else "WRONG"]
