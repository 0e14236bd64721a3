"""What the import contracts of pyproject.toml cannot see: whether core and wire ask for the time or for chance."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPURE = {"asyncio", "time", "random", "secrets", "logging", "structlog", "aio_pika", "websockets", "socket", "os"}
PURE = sorted((ROOT / "worker" / "core").glob("**/*.py")) + sorted((ROOT / "worker" / "wire").glob("**/*.py"))


@pytest.mark.parametrize("path", PURE, ids=lambda path: str(path.relative_to(ROOT / "worker")))
def test_core_and_wire_take_time_and_chance_as_arguments(path: Path) -> None:
    tree = ast.parse(path.read_text())
    called = {
        node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    assert called & {"now", "utcnow", "today", "uuid1", "uuid4"} == set()
    imported = {alias.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    imported |= {(n.module or "").split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert imported & IMPURE == set()
