"""``cancel-worker check``: can a worker start here? A line each for configuration, broker, topology and venue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from worker.cli.console import Console
from worker.cli.loading import load_config
from worker.errors import CancelWorkerError

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from worker.broker.dial import Dial
    from worker.config import Config


@click.command(
    "check",
    epilog="""\b
Examples:
  cancel-worker --config config/production.toml check
  cancel-worker --config config/sandbox.toml check && cancel-worker --config config/sandbox.toml run

\b
Exit status:
  0  all of it is well
  1  the broker, the topology or the venue log-in failed
  2  the configuration is wrong
""",
)
@click.pass_context
def command(context: click.Context) -> int:
    """Try everything that a worker needs, change nothing, and print a line each: ok, or FAILED and why.

    Broker: a connection and a log-in. Topology: every exchange and queue is there (by passive declare, which shows
    no arguments). Venue: a real log-in of one session, closed again once the venue's hello has come. Each step is
    limited by the configured time-outs.
    """
    import asyncio

    config = load_config(context)
    return asyncio.run(_check(config))


async def _check(config: Config) -> int:
    from worker.app import make_dial
    from worker.config import venue_credentials

    console = Console()
    venue_credentials(config)  # a key that is not set is a fault of the configuration, and so is a URL
    dial = make_dial(config, "cancel-worker check")
    console.line("configuration  ok", "good")
    broker = await _told(console, "broker", _broker(dial))
    topology = broker and await _told(console, "topology", _topology(dial, config))
    if not broker:
        console.line("topology       not checked", "doubt")
    venue = await _told(console, "venue", _venue(config))
    return 0 if broker and topology and venue else 1


async def _told(console: Console, part: str, trial: Awaitable[str]) -> bool:
    """Print the line of one part; False if it failed."""
    try:
        found = await trial
    except CancelWorkerError as error:
        console.line(f"{part:<14} FAILED: {error}", "bad")
        return False
    console.line(f"{part:<14} ok: {found}", "good")
    return True


async def _broker(dial: Dial) -> str:
    import aio_pika

    from worker.broker.driver import connection, limited

    async with connection(dial, "check") as link:
        async with limited("channel.open", dial.rpc_timeout_s):
            _ = await link.channel()
        assert isinstance(link, aio_pika.Connection)
        url = link.url
        return f"{url.user} at {url.host}:{url.port}, virtual host {url.path.removeprefix('/') or '/'}"


async def _topology(dial: Dial, config: Config) -> str:
    from worker.broker.topology import check, topology_of

    await check(dial, config.broker)
    topology = topology_of(config.broker)
    return f"{len(topology.exchanges)} exchanges and {len(topology.queues)} queues are there"


async def _venue(config: Config) -> str:
    from worker.cli.log_in import log_in

    return await log_in(config)
