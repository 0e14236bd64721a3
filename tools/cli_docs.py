"""Write docs/cli.md from the help texts: python tools/cli_docs.py > docs/cli.md"""

from __future__ import annotations

import click

from worker.cli import commands

WIDTH = 100
HEAD = """# Command line

`cancel-worker` and `python -m worker` are the same. This page is made of the help texts by `tools/cli_docs.py`, and a
test compares the two.

Options of the program stand before the command, those of the command after it:

    cancel-worker --config config/production.toml --config site.toml run

Errors are one line each on standard error, beginning with `cancel-worker:`. Colours and drawn tables appear on a
terminal only, and never if `NO_COLOR` is set; into a pipe or a file go plain lines. Ctrl-C ends every command; where it
is not the ordinary end (`run`, `simulate`) the exit status is 1.
"""


def page() -> str:
    """The whole page."""
    context = _context(commands, None, "cancel-worker")
    parts = [HEAD, _help(context)]
    for name in commands.list_commands(context):
        command = commands.get_command(context, name)
        assert command is not None
        under = _context(command, context, name)
        parts.append(f"## {name}\n\n{_help(under)}")
        if isinstance(command, click.Group):
            parts += [
                f"### {name} {part}\n\n{_help(_context(one, under, part))}"
                for part, one in sorted(command.commands.items())
            ]
    return "\n".join(parts)


def _context(command: click.Command, parent: click.Context | None, name: str) -> click.Context:
    names = command.context_settings.get("help_option_names")
    return click.Context(command, parent, name, terminal_width=WIDTH, help_option_names=names)


def _help(context: click.Context) -> str:
    return f"```text\n{context.command.get_help(context).rstrip()}\n```\n"


if __name__ == "__main__":
    print(page(), end="")
