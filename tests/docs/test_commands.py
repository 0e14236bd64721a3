"""Every command in a shell block is one that this project has, with options that it knows."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from tests.docs.pages import PAGES, REPOSITORY, commands, names, shown
from worker.cli import commands as program

FOREIGN = {"sudo", "export", "curl", "rabbitmqctl"}
"""Programs that are not ours."""

TOOLS = {".venv/bin/python", ".venv/bin/pytest", "python"}


def parse(words: list[str]) -> None:
    """Let click read a command line as it would before running it. Raises click's own errors."""
    command: click.Command = program
    context = command.make_context("cancel-worker", list(words), resilient_parsing=False)
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None, name
        command = found
        context = command.make_context(name, rest, parent=context)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_commands_of_shell_blocks_are_known(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    for words in commands(page):
        name, rest = words[0], words[1:]
        if name.removeprefix(".venv/bin/") == "cancel-worker":
            try:
                parse(rest)
            except click.ClickException as error:
                pytest.fail(f"{shown(page)}: {' '.join(words)}: {error.format_message()}")
        elif name == "make":
            assert set(rest) <= targets(), f"{shown(page)}: {' '.join(words)}"
        elif name in TOOLS:
            module = rest[rest.index("-m") + 1].replace(".", "/") if "-m" in rest else rest[0]
            there = [REPOSITORY / module, REPOSITORY / f"{module}.py", REPOSITORY / module / "__main__.py"]
            assert any(path.exists() for path in there), f"{shown(page)}: {' '.join(words)}"
        else:
            assert name in FOREIGN, f"{shown(page)}: {' '.join(words)}: whose program is that?"


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_subcommands_and_targets_in_the_text_exist(page: Path) -> None:
    for name in names(page):
        words = re.match(r"[\w-]+(?: [a-z]+)*", name)
        parts = words[0].split() if words else []
        if parts[:1] == ["make"] and len(parts) == 2 and name != "make git":  # two packages of Debian
            assert parts[1] in targets(), name
        if parts[:1] == ["cancel-worker"]:
            group: click.Command | None = program
            for part in parts[1:]:
                if isinstance(group, click.Group):
                    group = group.get_command(click.Context(group), part)
                    assert group is not None, name
