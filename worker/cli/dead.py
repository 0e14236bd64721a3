"""``cancel-worker dead``: the commands that could not be carried out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from worker.cli.loading import load_config
from worker.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from worker.cli.dead_shell import Choice
    from worker.wire.command import Lane

_STATUSES = """\b
Exit status:
  0  done, for every letter that was meant
  1  a letter was not found or could not be dealt with, or the broker failed
  2  the command line, the configuration or the topology is wrong
"""


@click.group(
    "dead",
    epilog=f"""\b
Examples:
  cancel-worker dead list
  cancel-worker dead unresolved --all
  cancel-worker dead requeue 5e1f7a3c-0c7e-4b5f-9d0e-2f6c1a8b9d10

{_STATUSES}""",
    no_args_is_help=False,
    subcommand_metavar="COMMAND [OPTIONS]",
)
def command() -> None:
    """Look at dead letters and deal with them: commands that were invalid, not allowed, unresolved, or given up.

    A letter is called by its command id; one without is called sha256: and the beginning of its body's hash. Looking
    takes nothing away and changes no order.
    """


@command.command(
    "list",
    short_help="List the dead letters, oldest first.",
    epilog=f"""\b
Examples:
  cancel-worker dead list
  cancel-worker dead list --json | jq .id

{_STATUSES}""",
)
@click.option(
    "--limit", type=click.IntRange(1), default=1000, show_default=True, metavar="N", help="Show the oldest N at most."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.pass_context
def list_letters(context: click.Context, limit: int, as_json: bool) -> int:
    """List the dead letters, oldest first.

    The column died says why: rejected is a worker's doing, and its final event says more (cancel-worker tail --since
    ... --command-id ID). Anything else, such as delivery_limit, is the broker's: those may have no final, see dead
    unresolved.
    """
    from worker.cli.dead_shell import show_list

    return _run(show_list(load_config(context), limit, as_json))


@command.command(
    "show",
    short_help="Show all that is known of one.",
    epilog=f"""\b
Examples:
  cancel-worker dead show 5e1f7a3c-0c7e-4b5f-9d0e-2f6c1a8b9d10
  cancel-worker dead show sha256:9f86d081884c7d65 --body > body.bin

{_STATUSES}""",
)
@click.argument("letter_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a letter.")
@click.option("--body", "as_body", is_flag=True, help="Print nothing but the body, every byte as it was published.")
@click.pass_context
def show(context: click.Context, letter_id: str, as_json: bool, as_body: bool) -> int:
    """Show all that is known of the dead letters called ID: properties, headers, deaths, body."""
    from worker.cli.dead_shell import show_letter

    if as_json and as_body:
        raise UsageError("--json or --body, not both")
    return _run(show_letter(load_config(context), letter_id, as_json, as_body))


@command.command(
    "requeue",
    short_help="Publish them once more to the lanes they came from.",
    epilog=f"""\b
Examples:
  cancel-worker dead requeue 5e1f7a3c-0c7e-4b5f-9d0e-2f6c1a8b9d10
  cancel-worker dead requeue --all

{_STATUSES}""",
)
@click.argument("letter_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All that may be requeued.")
@click.option(
    "--lane",
    type=click.Choice(["cancel", "kill"]),
    help="The lane to use for letters that do not say where they came from.",
)
@click.pass_context
def requeue(context: click.Context, letter_ids: tuple[str, ...], everything: bool, lane: str | None) -> int:
    """Publish the bodies of the dead letters [ID]... once more, untouched, to the lanes they came from.

    It is done under your own broker user, the one of broker.url, which authorization.requeue_users must allow; the
    headers requeue_of and original_user say what it was and whose. The worker looks every cancel up at the venue
    before it sends anything. A letter leaves the dead letters only once the broker has confirmed the command.

    A mass cancel is never requeued, and what is invalid would be invalid again.
    """
    from worker.cli.dead_shell import requeue_letters

    choice = _choice(letter_ids, everything)
    fallback: Lane | None = None if lane is None else "kill" if lane == "kill" else "cancel"
    return _run(requeue_letters(load_config(context), choice, fallback))


@command.command(
    "purge",
    short_help="Delete them for good.",
    epilog=f"""\b
Examples:
  cancel-worker dead purge 5e1f7a3c-0c7e-4b5f-9d0e-2f6c1a8b9d10
  cancel-worker dead unresolved --all && cancel-worker dead purge --all --yes

{_STATUSES}""",
)
@click.argument("letter_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def purge(context: click.Context, letter_ids: tuple[str, ...], everything: bool, yes: bool) -> int:
    """Delete the dead letters [ID]... for good. Their final events stay in the audit stream.

    Run dead unresolved first: a letter without a final that is purged leaves no trace of its end.
    """
    from worker.cli.dead_shell import purge_letters

    choice = _choice(letter_ids, everything)
    config = load_config(context)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError("nobody can be asked here: give --yes if you mean it")
        meant = "all dead letters" if everything else f"the dead letters {', '.join(letter_ids)}"
        if not click.confirm(f"Delete {meant} for good?", err=True):
            print("cancel-worker: nothing was deleted", file=sys.stderr)
            return 1
    return _run(purge_letters(config, choice))


@command.command(
    "unresolved",
    short_help="Give those without a final event their final.",
    epilog=f"""\b
Examples:
  cancel-worker dead unresolved --all
  cancel-worker dead unresolved --all --within 600

{_STATUSES}""",
)
@click.argument("letter_ids", metavar="[ID]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="All of them.")
@click.option(
    "--within",
    type=click.FloatRange(1, 86_400),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the audit stream may be searched for finals.",
)
@click.pass_context
def unresolved(context: click.Context, letter_ids: tuple[str, ...], everything: bool, within: float) -> int:
    """Give every cancel of the dead letters [ID]... that has no final event its final: unresolved.

    A command that the broker itself moved to the dead letters (delivery limit) was ended by no worker, so its
    publisher still waits. The audit stream is searched for finals of each cancel first; the letters stay where they
    are, and may be requeued: a final found then supersedes the unresolved. It may be repeated.
    """
    from worker.cli.dead_shell import give_unresolved

    return _run(give_unresolved(load_config(context), _choice(letter_ids, everything), within))


def _choice(letter_ids: tuple[str, ...], everything: bool) -> Choice:
    """Which letters are meant. Raises UsageError unless it is one way or the other."""
    from worker.cli.dead_shell import Choice

    if everything == bool(letter_ids):
        raise UsageError("which letters? give their ids, or --all")
    return Choice(None if everything else frozenset(letter_ids))


def _run(work: Coroutine[None, None, int]) -> int:
    import asyncio

    return asyncio.run(work)
