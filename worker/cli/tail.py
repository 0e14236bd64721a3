"""``cancel-worker tail``: events as they come, or from a time on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from worker.cli.loading import load_config
from worker.errors import BrokerError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from worker.cli.selection import Selection
    from worker.config import Config

_KEPT: Final = 50_000
"""Events that our queue keeps if we read too slowly; beyond it the oldest go, and never the publishers wait."""


@click.command(
    "tail",
    epilog="""\b
Examples:
  cancel-worker tail
  cancel-worker tail --final --outcome cancel_rejected --outcome unresolved
  cancel-worker tail --since 15m --symbol BTC-USD
  cancel-worker tail --since 2030-01-31T08:00:00Z --until 2030-01-31T09:00:00Z --json > hour.jsonl

\b
Exit status:
  0  ended by Ctrl-C or SIGTERM, by --count, or by --until
  1  the broker cannot be reached, or the connection was lost
  2  the command line, the configuration or the topology is wrong
""",
)
@click.option(
    "--since",
    metavar="TIME",
    help="Begin with the events published since then, from the audit stream, and go on: an ISO-8601 time with zone, "
    "or how long ago, such as 15m, 2h or 7d. Default: only what comes from now on.",
)
@click.option(
    "--until",
    metavar="TIME",
    help="End there; now ends once everything that is there was shown.",
)
@click.option("--outcome", "outcomes", metavar="OUTCOME", multiple=True, help="Only this outcome; may be repeated.")
@click.option("--symbol", "symbols", metavar="SYMBOL", multiple=True, help="Only this symbol; may be repeated.")
@click.option("--order-id", "order_ids", metavar="ID", multiple=True, help="Only this OrderID; may be repeated.")
@click.option("--command-id", "command_ids", metavar="ID", multiple=True, help="Only this command; may be repeated.")
@click.option("--final", "finals_only", is_flag=True, help="Only final events: what became of each cancel.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many events.")
@click.option("--json", "as_json", is_flag=True, help="Print each event as it was published, one JSON object a line.")
@click.pass_context
def command(
    context: click.Context,
    since: str | None,
    until: str | None,
    outcomes: tuple[str, ...],
    symbols: tuple[str, ...],
    order_ids: tuple[str, ...],
    command_ids: tuple[str, ...],
    finals_only: bool,
    count: int | None,
    as_json: bool,
) -> int:
    """Follow the events that workers publish, one line each, until Ctrl-C.

    Every filter that is given must hold. An event that is published again under its id is shown once. Without --since
    this listens on a queue of its own, which goes with it; it never takes an event away from anybody.
    """
    import asyncio
    import time
    from typing import get_args

    from worker.cli.following import until_told
    from worker.cli.moment import moment
    from worker.cli.selection import Selection
    from worker.wire.event import Outcome

    for outcome in outcomes:
        if outcome not in get_args(Outcome):
            raise UsageError(f"--outcome {outcome} is none; there are {', '.join(get_args(Outcome))}")
    config = load_config(context)
    since_us = moment(since, "--since") if since is not None else None
    until_us = moment(until, "--until") if until is not None else None
    if until_us is not None and since_us is None and until_us <= time.time_ns() // 1000:
        raise UsageError("--until has passed: without --since only what comes from now on is shown")
    if until_us is not None and since_us is not None and until_us < since_us:
        raise UsageError("--until is before --since")
    selection = Selection(
        frozenset(outcomes),
        frozenset(symbols),
        frozenset(order_ids),
        frozenset(command_ids),
        finals_only,
        since_us,
        until_us,
    )
    asyncio.run(until_told(_tail(config, selection, count, as_json)))
    return 0


async def _tail(config: Config, selection: Selection, count: int | None, as_json: bool) -> None:
    from contextlib import aclosing

    from worker.cli.answers import tone_of
    from worker.cli.console import Console
    from worker.cli.following import write_json
    from worker.cli.selection import Repeats
    from worker.wire.seen import SeenEventError, read_event

    console, repeats, shown = Console(), Repeats(), 0
    bodies = _live(config, selection) if selection.since_us is None else _stored(config, selection)
    async with aclosing(bodies):
        async for body in bodies:
            try:
                event = read_event(body)
            except SeenEventError:
                continue  # somebody else's message on the results exchange
            if not selection.wants(event) or not repeats.is_new(event.event_id):
                continue
            if as_json:
                write_json(body)
            else:
                console.line(line_of_any(event), tone_of(event))
            shown += 1
            if shown == count:
                return


def _left_s(selection: Selection) -> float | None:
    """Seconds to ``--until``, 0 if it has come; None: there is none."""
    import time

    return None if selection.until_us is None else max(0.0, selection.until_us / 1e6 - time.time())


def line_of_any(event: object) -> str:
    """An event of any command on one line, with its day and its command."""
    from worker.cli.answers import line_of
    from worker.cli.ledger import counts_of
    from worker.wire.seen import SeenEvent

    assert isinstance(event, SeenEvent)
    day = (event.times.published or "")[:10]
    parts = [f"{day} {line_of(event)}"]
    if event.mass is not None:
        parts.append(counts_of(event.mass))
    if event.command_id is not None:
        parts.append(f"command {event.command_id}" + (f" by {event.user_id}" if event.user_id else ""))
    return "  ".join(parts)


async def _stored(config: Config, selection: Selection) -> AsyncGenerator[bytes, None]:
    """From the audit stream, on and on; if there is an ``until_us``, all that is stored once it has come."""
    import asyncio
    from contextlib import aclosing

    from worker.app import make_dial
    from worker.broker.audit_stream import opened

    assert selection.since_us is not None
    dial, shown = make_dial(config, "cancel-worker tail"), -1
    if _left_s(selection) != 0.0:
        async with opened(dial, config.broker) as stream, aclosing(stream.follow(selection.since_us)) as batches:
            while True:
                try:
                    async with asyncio.timeout(_left_s(selection)):
                        batch = await anext(batches)
                except TimeoutError:
                    break
                for message in batch:
                    shown = message.offset
                    yield message.body
    # A clock that strikes while there is more to read must not cut it off.
    async with opened(dial, config.broker) as stream, aclosing(stream.to_end(selection.since_us)) as batches:
        async for batch in batches:
            for message in batch:
                if message.offset > shown:
                    yield message.body


async def _live(config: Config, selection: Selection) -> AsyncGenerator[bytes, None]:
    """From an exclusive queue of our own, bound to what is wanted."""
    import asyncio

    from aio_pika.abc import AbstractIncomingMessage

    from worker.app import make_dial
    from worker.broker.confirmed import existing
    from worker.broker.driver import connection, limited

    dial = make_dial(config, "cancel-worker tail")
    within = dial.rpc_timeout_s
    came: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def received(message: AbstractIncomingMessage) -> None:
        came.put_nowait(message.body)

    async with connection(dial, "events") as link:
        async with limited("channel.open", within):
            channel = await link.channel()
        arguments: dict[str, object] = {"x-max-length": _KEPT, "x-overflow": "drop-head"}
        async with limited("queue for the events", within):
            queue = await channel.declare_queue(exclusive=True, auto_delete=True, arguments=arguments)  # type: ignore[arg-type]
        for key in selection.routing_keys():
            async with existing(f"exchange {config.broker.results_exchange}", within):
                await queue.bind(config.broker.results_exchange, key)
        async with limited("basic.consume", within):
            await queue.consume(received, no_ack=True, exclusive=True)
        link.close_callbacks.add(lambda *_: came.put_nowait(None))
        while True:
            try:
                async with asyncio.timeout(_left_s(selection)):
                    body = await came.get()
            except TimeoutError:
                return
            if body is None:
                raise BrokerError("the connection to the broker was lost")
            yield body
