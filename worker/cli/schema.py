"""``cancel-worker schema``: the shapes of commands and events, for other people's tools."""

from __future__ import annotations

import sys

import click

from worker.cli.loading import load_config


@click.command(
    "schema",
    epilog="""\b
Examples:
  cancel-worker schema commands > commands.json
  cancel-worker schema > asyncapi.json

\b
Exit status:
  0  printed
  1  standard output could not be written
  2  the command line or the configuration is wrong
""",
)
@click.argument(
    "what", metavar="[WHAT]", type=click.Choice(["commands", "events", "asyncapi"]), default="asyncapi", required=False
)
@click.pass_context
def command(context: click.Context, what: str) -> int:
    """Print [WHAT] as JSON: commands or events as a JSON Schema (draft 7), or asyncapi, an AsyncAPI 3 document of both.

    Without one it is asyncapi. The AsyncAPI document has the configured names of AMQP exchanges and queues; the
    schemas are always the same. No broker is asked.
    """
    import json

    from worker import __version__
    from worker.wire import schema

    config = load_config(context)
    if what == "commands":
        found = schema.commands_schema()
    elif what == "events":
        found = schema.events_schema()
    else:
        from worker.cli.asyncapi import asyncapi

        found = asyncapi(config.broker, __version__)
    sys.stdout.write(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return 0
