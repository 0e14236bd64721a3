"""Plain lines into a pipe; no text from outside can command a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from worker.cli.console import Console, printable

CODE = """
from worker.cli.console import Console
Console().line("canceled \\x1b[2J", "good")
Console().table(["a", "b"], [["1", "x\\n2"]], ["bad"])
"""


def test_what_does_not_print_is_written_out() -> None:
    assert printable("a\x1b[31m\r\nb\u202e ü") == "a\\x1b[31m\\r\\nb\\u202e ü"


def test_without_a_terminal_there_are_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.line("one", "bad")
    console.table(["kind", "n"], [["short", "1"], ["a longer one", "22"]], ["good", "bad"])
    assert capsys.readouterr().out == "one\nkind          n\nshort         1\na longer one  22\n"


@pytest.mark.parametrize("no_color", [True, False])
def test_on_a_terminal_colours_are_ours_alone_and_may_be_switched_off(no_color: bool) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    env |= {"TERM": "xterm-256color", "COLUMNS": "80"} | ({"NO_COLOR": "1"} if no_color else {})
    ours, theirs = pty.openpty()
    try:
        subprocess.run([sys.executable, "-c", CODE], stdout=theirs, env=env, check=True)
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(theirs)
        os.close(ours)
    assert "canceled \\x1b[2J" in shown
    assert "\x1b[2J" not in shown
    assert ("\x1b[32m" in shown) is not no_color
    assert "x\\n2" in shown
