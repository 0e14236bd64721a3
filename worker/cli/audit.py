"""``cancel-worker audit``: is the audit stream whole, and what is in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.cli.loading import load_config
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.audit import Verdict
    from worker.config import Config

_SINCE_HELP = "an ISO-8601 time with zone, or how long ago, such as 15m, 2h or 7d."


@click.group(
    "audit",
    epilog="""\b
Examples:
  cancel-worker audit verify --since 24h --until 10m
  cancel-worker audit export --format csv --since 7d --out week.csv

\b
Exit status:
  0  done; for verify: nothing is wrong
  1  something is wrong, or the stream could not be read to its end
  2  the command line, the configuration or the topology is wrong
""",
    no_args_is_help=False,
    subcommand_metavar="COMMAND [OPTIONS]",
)
def command() -> None:
    """Check or export the audit stream: every event, as long as the broker keeps it (30 days by default).

    Reading takes nothing out of the stream and disturbs nobody.
    """


@command.command(
    "verify",
    short_help="Check that every cancel has its one final.",
    epilog="""\b
Examples:
  cancel-worker audit verify
  cancel-worker audit verify --since 24h --until 10m

\b
Exit status:
  0  clean
  1  something is wrong, or the stream could not be read to its end
  2  the command line, the configuration or the topology is wrong
""",
)
@click.option("--since", metavar="TIME", help=f"Read events from then on: {_SINCE_HELP} Default: all that are kept.")
@click.option(
    "--until",
    metavar="TIME",
    help="Judge only commands begun before; their finals are looked for up to the end. Commands that are in flight "
    "just now have no final yet: 10m leaves them out. Default: now, all of them.",
)
@click.option(
    "--show", type=click.IntRange(0, 1000), default=50, show_default=True, metavar="N", help="Problems to print."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: counts, and the problems.")
@click.pass_context
def verify(context: click.Context, since: str | None, until: str | None, show: int, as_json: bool) -> int:
    """Check that every command has exactly one final event per cancel, or unresolved and one final that supersedes it.

    Told are: cancels and mass cancels without a final, gaps between the cancels of a command, second finals, events
    that were published twice under one id and do not say the same, ids that are not what command and index make,
    ledgers of mass cancels that do not agree with the finals of their orders, and messages that are no events.
    """
    import asyncio

    from worker.cli.moment import moment

    config = load_config(context)
    since_us = moment(since, "--since") if since is not None else None
    until_us = moment(until, "--until") if until is not None else None
    if since_us is not None and until_us is not None and until_us < since_us:
        raise UsageError("--until is before --since")
    verdict = asyncio.run(_judged(config, since_us, until_us))
    if as_json:
        _print_json(verdict, show)
    else:
        _print(verdict, show)
    return 0 if verdict.is_clean else 1


async def _judged(config: Config, since_us: int | None, until_us: int | None) -> Verdict:
    from contextlib import aclosing

    from worker.app import make_dial
    from worker.audit import Audit
    from worker.broker.audit_stream import Start, opened
    from worker.cli.selection import published_us
    from worker.wire.seen import SeenEventError, read_event

    audit: Audit | None = None
    async with opened(make_dial(config, "cancel-worker audit"), config.broker) as stream:
        start: Start = since_us if since_us is not None else "first"
        async with aclosing(stream.to_end(start)) as batches:
            async for batch in batches:
                for message in batch:
                    try:
                        event = read_event(message.body)
                    except SeenEventError as error:
                        audit = audit or Audit(since_us, until_us)
                        audit.unreadable(message.offset, str(error))
                        continue
                    if audit is None:
                        if since_us is None and message.offset > 0:
                            since_us = published_us(event)  # what stood before it is no longer kept
                        audit = Audit(since_us, until_us)
                    audit.take(event)
    return (audit or Audit()).verdict()


def _print(verdict: Verdict, show: int) -> None:
    from worker.cli.console import Console

    console = Console()
    for problem in verdict.problems[:show]:
        console.line(str(problem), "bad")
    wrong = sum(verdict.counts.values())
    if wrong > show:
        console.line(f"and {wrong - min(show, len(verdict.problems))} more")
    console.line(
        f"{verdict.events} events, {verdict.repeated} of them finals published again; {verdict.commands} commands, "
        f"{verdict.mass_cancels} of them mass cancels; {verdict.cancels} finals"
    )
    if verdict.outcomes:
        outcomes = sorted(verdict.outcomes.items(), key=lambda item: (-item[1], item[0]))
        console.line("outcomes: " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes))
    if verdict.open:
        console.line(f"{verdict.open} unresolved that nothing supersedes: a person has to look at them", "doubt")
    if verdict.partial:
        console.line(f"{verdict.partial} commands were begun before: of them nothing is missed here", "quiet")
    if verdict.later:
        console.line(f"{verdict.later} commands were begun after --until: they are not judged", "quiet")
    if verdict.is_clean:
        console.line("CLEAN: every cancel has its one final.", "good")
    else:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(verdict.counts.items()))
        console.line(f"NOT CLEAN: {kinds}.", "bad")


def _print_json(verdict: Verdict, show: int) -> None:
    import sys

    import msgspec

    from worker.audit import Verdict

    shown = msgspec.structs.replace(verdict, problems=verdict.problems[:show])
    assert isinstance(shown, Verdict)
    fields = {"clean": verdict.is_clean} | {name: getattr(shown, name) for name in shown.__struct_fields__}
    sys.stdout.write(msgspec.json.encode(fields).decode() + "\n")


@command.command(
    "export",
    short_help="Write the events as JSON Lines or CSV.",
    epilog="""\b
Examples:
  cancel-worker audit export --since 1h > events.jsonl
  cancel-worker audit export --format csv --since 2030-01-31T00:00:00Z --until 2030-02-01T00:00:00Z --out day.csv

\b
Exit status:
  0  all of it was written
  1  the stream could not be read to its end, or the file not written: what is there is not whole
  2  the command line, the configuration or the topology is wrong
""",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
    help="JSON Lines: each event as it was published. CSV: a row each, without the venue's report.",
)
@click.option("--since", metavar="TIME", help=f"Events published since then: {_SINCE_HELP} Default: all that are kept.")
@click.option("--until", metavar="TIME", help="Events published up to then. Default: now.")
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file; it is there once it is whole. Default: standard output.",
)
@click.pass_context
def export(context: click.Context, form: str, since: str | None, until: str | None, out: Path | None) -> int:
    """Write the events of the audit stream, in its order, each as often as it was published."""
    import asyncio

    from worker.cli.export import export_events
    from worker.cli.moment import moment
    from worker.cli.selection import Selection

    config = load_config(context)
    since_us = moment(since, "--since") if since is not None else None
    until_us = moment(until, "--until") if until is not None else None
    if since_us is not None and until_us is not None and until_us < since_us:
        raise UsageError("--until is before --since")
    selection = Selection(since_us=since_us, until_us=until_us)
    asyncio.run(export_events(config, selection, form, out))
    return 0
