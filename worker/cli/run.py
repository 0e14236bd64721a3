"""``cancel-worker run``: the worker."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import click

from worker.cli.loading import load_config


@click.command(
    "run",
    epilog="""\b
Examples:
  cancel-worker --config config/production.toml run
  CANCEL_WORKER__BROKER__URL_FILE=broker-url.secret cancel-worker --config config/sandbox.toml run

\b
Exit status:
  0  stopped by SIGTERM or Ctrl-C, in order
  1  failed at run time, or ended at once by a second signal
  2  the configuration cannot be used, or the topology differs from it
""",
)
@click.pass_context
def command(context: click.Context) -> int:
    """Take commands from RabbitMQ, cancel at the venue, publish what became of each cancel.

    Runs until SIGTERM or Ctrl-C: then it takes no more commands, finishes what is in flight within shutdown.grace
    seconds, hands the rest back to the queue and ends. A second signal ends it at once. No command is lost either way.

    It waits for a broker or a venue that cannot be reached. Logs go to standard output, one line an event; whether it
    works is told by /readyz on ops.host and ops.port.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _not_begun)
    from worker.app import run

    return run(load_config(context))


def _not_begun(number: int, frame: FrameType | None) -> None:
    """A signal while the worker is still being loaded: nothing was taken, so there is nothing to finish."""
    sys.exit(0)
