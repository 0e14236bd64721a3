"""``cancel-worker simulate``: the venue simulator alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.cli.console import Console
from worker.errors import CancelWorkerError

if TYPE_CHECKING:
    from worker.simulator import Script, Simulator


@click.command(
    "simulate",
    epilog="""\b
Examples:
  cancel-worker simulate
  cancel-worker simulate --port 8765 --script config/simulator.toml

\b
Exit status:
  0  ended by SIGTERM or Ctrl-C
  1  the port is taken, or the simulator failed
  2  the script or an option is wrong
""",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="Address to listen on.")
@click.option(
    "--port", default=0, type=click.IntRange(0, 65535), metavar="PORT", help="Port to listen on; 0 or unset: any free."
)
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Seed of all chance; it wins over the script's.")
@click.option(
    "--script",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A TOML file that says how the venue behaves; config/simulator.toml has every key. Unset: every cancel of "
    "an order is carried out, and an order that is not known is made up.",
)
def command(host: str, port: int, seed: int | None, script: Path | None) -> int:
    """A model of the venue on real WebSockets: log-in, streams, reports, cancels answered one by one.

    Prints the URL and the test credentials as the worker's environment variables. Nothing real is behind it: its key
    and secret open nothing but this simulator.
    """
    import asyncio

    return asyncio.run(_serve(host, port, _script(seed, script)))


def _script(seed: int | None, path: Path | None) -> Script:
    import msgspec

    from worker.simulator import Cancels, Script, load_script

    script = load_script(path) if path is not None else Script(cancels=Cancels(auto_orders=True))
    return script if seed is None else msgspec.structs.replace(script, seed=seed)


async def _serve(host: str, port: int, script: Script) -> int:
    import asyncio
    import os
    import signal

    from worker.simulator import serve

    console, stop = Console(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    listening = False

    def ready(venue: Simulator) -> None:
        nonlocal listening
        listening = True
        login = venue.script.login
        console.line(f"CANCEL_WORKER__VENUE__URL={venue.url}")
        console.line(f"CANCEL_WORKER__VENUE__API_KEY={login.key}")
        console.line(f"CANCEL_WORKER__VENUE__API_SECRET={login.secret}")
        console.line("The simulated venue listens; Ctrl-C ends it.", "quiet")

    try:
        await serve(host, port, script, ready=ready, stop=stop)
    except OSError as error:
        if listening:
            raise
        # asyncio adds words of its own to what the system says; a name that is not found has no errno above 0.
        text = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
        raise CancelWorkerError(f"cannot listen on {host}:{port}: {text.lower()}") from error
    return 0
