"""Help texts and usage errors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.cli.conftest import Ended
from tools.cli_docs import page
from worker import __version__
from worker.cli import commands

PROJECT = Path(__file__).resolve().parents[2]
NAMES = ("run", "demo", "simulate", "check", "topology", "cancel", "kill", "tail", "audit", "dead", "schema")


def the_command(name: str) -> click.Command:
    found = commands.get_command(click.Context(commands), name)
    assert found is not None
    return found


def all_commands() -> list[tuple[list[str], click.Command]]:
    """Every command and every subcommand of one, with the words that call it."""
    found = [([name], the_command(name)) for name in NAMES]
    for name in NAMES:
        group = the_command(name)
        if isinstance(group, click.Group):
            found += [([name, part], one) for part, one in group.commands.items()]
    return found


ALL = all_commands()
ALL_NAMES = [" ".join(words) for words, _ in ALL]


def test_the_commands_of_the_contract_that_are_there_are_listed() -> None:
    result = CliRunner().invoke(commands, ["--help"])
    assert result.exit_code == 0
    for name in NAMES:
        assert f"  {name} " in result.output
    assert commands.list_commands(click.Context(commands)) == list(NAMES)


@pytest.mark.parametrize("words", [words for words, _ in ALL], ids=ALL_NAMES)
def test_help_says_what_it_does_gives_examples_and_the_exit_statuses(words: list[str]) -> None:
    for flag in ("--help", "-h"):
        result = CliRunner().invoke(commands, [*words, flag])
        assert result.exit_code == 0
        assert f"cancel-worker {' '.join(words)}" in result.output or "Examples:" in result.output
        for status in ("  0  ", "  1  ", "  2  "):
            assert status in result.output


@pytest.mark.parametrize("one", [one for _, one in ALL], ids=ALL_NAMES)
def test_every_option_is_documented(one: click.Command) -> None:
    for parameter in one.params:
        if isinstance(parameter, click.Argument):
            assert one.help  # where an argument is explained
            assert (parameter.metavar or parameter.name or "").rstrip(".").upper() in one.help
        else:
            assert isinstance(parameter, click.Option)
            assert parameter.help, parameter.name


def test_the_page_in_docs_is_made_of_these_texts() -> None:
    """``python tools/cli_docs.py > docs/cli.md`` writes it anew."""
    assert (PROJECT / "docs" / "cli.md").read_text() == page()


def test_version(here: Callable[..., Ended]) -> None:
    assert here("--version") == (0, f"cancel-worker {__version__}\n", "")


WRONG = {
    "no command": [],
    "no such command": ["rum"],
    "no such option": ["run", "--fast"],
    "an argument too many": ["run", "now"],
    "a value that is missing": ["--config"],
    "a port out of range": ["simulate", "--port", "70000"],
    "a seed that is no number": ["simulate", "--seed", "x"],
    "a script that is not there": ["simulate", "--script", "/nowhere/script.toml"],
    "a format that is not known": ["topology", "--format", "yaml"],
    "no count": ["demo", "--count", "0"],
    "no symbol": ["cancel", "--order-id", "1"],
    "no order": ["cancel", "--symbol", "BTC-USD"],
    "an order id with a blank": ["cancel", "--symbol", "BTC-USD", "--order-id", "a b"],
    "an empty symbol": ["cancel", "--symbol", "", "--order-id", "1"],
    "ClOrdIDs that are too few": ["cancel", "--symbol", "A", "--order-id", "1", "--order-id", "2", "--cl-ord-id", "c"],
    "a ClOrdID that stands twice": [
        "cancel", "--symbol", "A", "--order-id", "1", "--order-id", "2", "--cl-ord-id", "c", "--cl-ord-id", "c",
    ],
    "a ClOrdID that is too long": ["cancel", "--symbol", "A", "--order-id", "1", "--cl-ord-id", "c" * 37],
    "a command id of nothing": ["cancel", "--symbol", "A", "--order-id", "1", "--command-id", ""],
    "a command id that is too long": ["cancel", "--symbol", "A", "--order-id", "1", "--command-id", "c" * 256],
    "a deadline in words": ["cancel", "--symbol", "A", "--order-id", "1", "--deadline", "soon"],
    "a deadline without zone": ["cancel", "--symbol", "A", "--order-id", "1", "--deadline", "2099-01-01T00:00:00"],
    "a deadline that has passed": ["cancel", "--symbol", "A", "--order-id", "1", "--deadline", "2020-01-01T00:00:00Z"],
    "a reason that is no text": ["cancel", "--symbol", "A", "--order-id", "1", "--reason", "\udcff"],
    "a command id that is no text": ["cancel", "--symbol", "A", "--order-id", "1", "--command-id", "\udcff"],
    "a file name that is no text": ["cancel", "--file", "/nowhere/\udcff"],
    "a wait of nothing": ["cancel", "--symbol", "A", "--order-id", "1", "--wait", "0"],
    "a file that is not there": ["cancel", "--file", "/nowhere/command.json"],
    "a file and options": ["cancel", "--file", "/nowhere/command.json", "--symbol", "A"],
    "too many orders": ["cancel", "--symbol", "A", *(f"--order-id={n}" for n in range(1001))],
}  # fmt: skip


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_a_usage_error_is_one_line_and_exit_status_2(arguments: list[str], here: Callable[..., Ended]) -> None:
    status, out, err = here(*arguments)
    assert status == 2
    assert out == ""
    assert err.startswith("cancel-worker: ")
    assert err.count("\n") == 1


def test_nothing_heavy_is_imported_before_a_command_is_chosen() -> None:
    code = "import sys, worker.cli; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"asyncio", "aio_pika", "websockets", "rich", "aiohttp", "structlog", "msgspec"} & set(loaded)
