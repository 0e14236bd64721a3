"""``cancel-worker cancel``: one command, and what became of it."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.cli.loading import load_config
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.cli.request import Request


@click.command(
    "cancel",
    epilog="""\b
Examples:
  cancel-worker cancel --symbol BTC-USD --order-id 16a55364-4248-4575-aa0b-dddd3f694ca3
  cancel-worker cancel --kill --symbol ETH-USD --orig-cl-ord-id A-1 --orig-cl-ord-id A-2 --reason "desk closed"
  cancel-worker cancel --file command.json --deadline 30s --json

\b
Exit status:
  0  every order works no more: each final is canceled or already_closed
  1  an order may still work, a final did not come in time, or the broker failed
  2  the command line, the file or the configuration is wrong: nothing was published
""",
)
@click.option("--symbol", metavar="SYMBOL", help="Symbol of the orders, such as BTC-USD.")
@click.option("--order-id", "order_ids", metavar="ID", multiple=True, help="OrderID of an order; may be repeated.")
@click.option(
    "--orig-cl-ord-id",
    "orig_cl_ord_ids",
    metavar="ID",
    multiple=True,
    help="ClOrdID under which an order was placed; may be repeated. Each id of either kind is a cancel of its own.",
)
@click.option(
    "--cl-ord-id",
    "cl_ord_ids",
    metavar="ID",
    multiple=True,
    help="ClOrdID of the cancel itself: none, or one for each cancel, OrderIDs first. Default: made by the worker.",
)
@click.option(
    "--file",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="A JSON command (OrderCancelRequest) instead of the options above; - reads standard input.",
)
@click.option("--kill", is_flag=True, help="Use the kill lane, which is served before the normal one.")
@click.option("--reason", metavar="TEXT", help="Why; it is copied into every event.")
@click.option(
    "--deadline", metavar="TIME", help="Not sent after it: a duration such as 30s, or an ISO-8601 time with zone."
)
@click.option(
    "--command-id",
    metavar="ID",
    help="Id of the command, 1 to 255 bytes; giving that of an earlier one asks for the same again and never for "
    "more. Default: a new UUID.",
)
@click.option(
    "--wait",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 86_400),
    default=60.0,
    show_default=True,
    help="How long to wait for the final events.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each event as it was published, one JSON object a line.")
@click.pass_context
def command(
    context: click.Context,
    symbol: str | None,
    order_ids: tuple[str, ...],
    orig_cl_ord_ids: tuple[str, ...],
    cl_ord_ids: tuple[str, ...],
    path: Path | None,
    kill: bool,
    reason: str | None,
    deadline: str | None,
    command_id: str | None,
    wait: float,
    as_json: bool,
) -> int:
    """Publish one command of one or more cancels, show each event about it, end when every cancel has its final.

    The worker carries it out: this only publishes to RabbitMQ, as the broker's user of broker.url, and listens to
    cancel.results. Ending it early (Ctrl-C, --wait) takes nothing back: a published command stays in force.
    """
    import asyncio

    from worker.cli.publish import Order, publish_and_wait
    from worker.cli.request import body_of_options, deadline_of, reason_of, request

    config = load_config(context)
    if path is not None:
        if symbol or order_ids or orig_cl_ord_ids or cl_ord_ids:
            raise UsageError("--file holds the whole command: give no --symbol and no ids with it")
        body = _read(path, config.broker.max_body)
    elif symbol is None:
        raise UsageError("--symbol is missing")
    else:
        body = body_of_options(symbol, order_ids, orig_cl_ord_ids, cl_ord_ids)
    asked: Request = request(command_id if command_id is not None else str(uuid.uuid4()), body, config.broker.max_body)
    header = deadline_of(deadline) if deadline is not None else None
    why = reason_of(reason) if reason is not None else None
    order = Order(asked, "kill" if kill else "cancel", why, header, wait, as_json)
    return asyncio.run(publish_and_wait(config, order))


def _read(path: Path, most: int) -> bytes:
    """The file, or standard input, one byte more than may be at most, so that too long is seen."""
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(most + 1)
        with path.open("rb") as file:
            return file.read(most + 1)
    except OSError as error:
        raise UsageError(f"--file {path}: {error.strerror or 'cannot be read'}") from None
