"""What a person sees: colours and a drawn table on a terminal, plain lines anywhere else (contract section 7).

Text that came from outside (a venue's words, a publisher's reason) is made printable first: an escape sequence in it
would be the terminal's to obey.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TextIO

if TYPE_CHECKING:
    from rich.console import Console as RichConsole

Tone = Literal["", "good", "bad", "doubt", "quiet", "head"]

_STYLES: dict[Tone, str] = {
    "": "",
    "good": "green",
    "bad": "bold red",
    "doubt": "yellow",
    "quiet": "dim",
    "head": "bold",
}


def printable(text: str) -> str:
    """``text`` on one line, with everything that does not print written out."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class Console:
    """Writes to standard output, or to ``file``. Colours only if that is a terminal and NO_COLOR is not set (rich looks
    at both).
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = sys.stdout if file is None else file
        self._rich: RichConsole | None = None
        if self._file.isatty():
            from rich.console import Console as RichConsole

            self._rich = RichConsole(file=self._file, highlight=False, markup=False, emoji=False)

    def line(self, text: str = "", tone: Tone = "") -> None:
        """One line; it reaches whoever reads at once."""
        safe = printable(text)
        if self._rich is None:
            print(safe, file=self._file, flush=True)
        else:
            self._rich.print(safe, style=_STYLES[tone], soft_wrap=True)

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], tones: Sequence[Tone] = ()) -> None:
        """Rows of texts under a head; ``tones`` gives each row's, if any."""
        cells = [[printable(cell) for cell in row] for row in rows]
        if self._rich is None:
            widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
            for row in (list(head), *cells):
                line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                print(line.rstrip(), file=self._file)
            self._file.flush()
            return
        from rich import box
        from rich.table import Table

        table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
        for number, row in enumerate(cells):
            table.add_row(*row, style=_STYLES[tones[number]] if tones else "")
        self._rich.print(table)
