"""``cancel-worker kill``: the kill switch."""

from __future__ import annotations

import sys
import time
import uuid

import click

from worker.cli.loading import load_config
from worker.errors import UsageError


@click.command(
    "kill",
    epilog="""\b
Examples:
  cancel-worker kill --all --reason "runaway strategy"
  cancel-worker kill --symbol BTC-USD --side Buy --reason "stuck quotes" --yes
  cancel-worker kill --all --customer-user desk@example.com --reason "desk closed" --deadline 20s --yes --json

\b
Exit status:
  0  verified flat: the venue's own list shows no open order in scope (also if nothing matched)
  1  anything else: orders survive, flat could not be proven, no final came in time, the answer was no,
     or the broker failed
  2  the command line or the configuration is wrong, or --yes is missing where nobody can be asked:
     nothing was published
""",
)
@click.option("--all", "everything", is_flag=True, help="Every order that the worker's API key sees, other users' too.")
@click.option("--symbol", metavar="SYMBOL", help="Only the orders of this symbol.")
@click.option("--side", type=click.Choice(["Buy", "Sell"]), help="Only this side.")
@click.option("--customer-user", metavar="USER", help="Only the orders of this CustomerUser.")
@click.option("--reason", metavar="TEXT", help="Why; it is copied into every event.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--deadline",
    metavar="TIME",
    help="Nothing is sent after it, and only orders submitted before are canceled: a duration such as 60s, or an "
    "ISO-8601 time with zone. Default: what the worker's kill.max_age says, 60 s as a rule.",
)
@click.option(
    "--command-id",
    metavar="ID",
    help="Id of the command, 1 to 255 bytes; one that was carried out before is not carried out again. "
    "Default: a new UUID.",
)
@click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 86_400),
    help="How long to wait for the final event. Default: until 30 s after the deadline.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each event as it was published, one JSON object a line.")
@click.pass_context
def command(
    context: click.Context,
    everything: bool,
    symbol: str | None,
    side: str | None,
    customer_user: str | None,
    reason: str | None,
    yes: bool,
    deadline: str | None,
    command_id: str | None,
    wait: float | None,
    as_json: bool,
) -> int:
    """Cancel every open order in scope, again and again, until the venue's own list shows none; show how far it is.

    Before it asks it shows what is open now, by the venue's own list, if the configuration has a key for it. One mass
    cancel is published to the kill lane, which is served before everything else; the worker carries it out. It ends
    with VERIFIED FLAT, with NOTHING MATCHED, or with a list of the orders that are not proven closed. Ending this
    command early (Ctrl-C, --wait) takes nothing back.

    Not covered: RFQs, orders of other API keys, and orders older than venue.order_horizon (30 days).
    """
    import asyncio

    from worker.cli.request import deadline_of, reason_of
    from worker.cli.sweep import mass_request
    from worker.cli.sweep_shell import Order, kill, show_open
    from worker.wire.timestamp import parse_utc

    config = load_config(context)
    why = reason_of(reason) if reason is not None else None
    asked = mass_request(
        command_id if command_id is not None else str(uuid.uuid4()),
        str(uuid.uuid4()),
        everything,
        symbol,
        side,
        customer_user,
        config.broker.max_body,
    )
    header = deadline_of(deadline) if deadline is not None else None
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nobody can be asked here: give --yes if you mean it")
        asyncio.run(show_open(config, asked))
        if not click.confirm(f"Cancel {asked.scope}?", err=True):
            print("cancel-worker: nothing was published", file=sys.stderr)
            return 1
        header = deadline_of(deadline) if deadline is not None else None  # a duration counts from the answer
    left = config.kill.max_age if header is None else parse_utc(header) / 1e6 - time.time()
    return asyncio.run(kill(config, Order(asked, why, header, wait if wait is not None else left + 30.0, as_json)))
