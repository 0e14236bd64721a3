"""The project's own pages, and what stands in them: code blocks, links, and names in backticks."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final, NamedTuple

REPOSITORY: Final = Path(__file__).parents[2]

PAGES: Final = (
    REPOSITORY / "README.md",
    REPOSITORY / "CHANGELOG.md",
    REPOSITORY / "CONTRIBUTING.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
)

_FENCE: Final = re.compile(r"^[ ]*```(?P<language>\w*)\n(?P<text>.*?)^[ ]*```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
_NAME: Final = re.compile(r"`([^`\n]+)`")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """A fenced code block."""

    page: Path
    language: str
    text: str


def shown(page: Path) -> str:
    """The page's name from the repository's root, for messages and test ids."""
    return str(page.relative_to(REPOSITORY))


def blocks(page: Path, language: str) -> list[Block]:
    """The page's code blocks of one language."""
    return [
        Block(page, m["language"], m["text"]) for m in _FENCE.finditer(page.read_text()) if m["language"] == language
    ]


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """Targets of the page's links and pictures."""
    return [m["target"] for m in _LINK.finditer(prose(page))]


def names(page: Path) -> list[str]:
    """What stands in backticks outside code blocks, table escapes undone."""
    return [name.replace("\\|", "|") for name in _NAME.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """The fragments by which the page's headings are linked."""
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(prose(page)))
    return {heading.strip().replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[list[str]]:
    """The lines of the page's shell blocks as words: assignments in front and redirections behind are dropped."""
    found: list[list[str]] = []
    for block in blocks(page, "sh"):
        for line in block.text.splitlines():
            parts = re.split(r"&&|\|", re.sub(r"\s>.*$", "", line))
            found.extend(_words(part) for part in parts)
    return [words for words in found if words]


def _words(part: str) -> list[str]:
    words = shlex.split(part, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words
