"""Whatever stands in the files and the environment, loading gives a Config or a ConfigError of single lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from worker.config import Config, parse
from worker.config.rules import Key, keys
from worker.errors import ConfigError

KEYS = [key for section in keys().values() for key in section.values()]


def problems_of(load: Callable[[], Config]) -> tuple[str, ...] | None:
    """None if it loads; any error but ConfigError is a failure of the test."""
    try:
        load()
    except ConfigError as error:
        return error.problems
    return None


def must_hold(load: Callable[[], Config]) -> None:
    problems = problems_of(load)
    assert problems is None or problems
    for line in problems or ():
        assert line.isprintable()
        assert len(line) < 1000


@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    must_hold(lambda: parse([("c.toml", data)], {}))


def toml(value: object) -> str:
    """TOML text of a value made by ``values``."""
    match value:
        case bool():
            return str(value).lower()
        case datetime():
            return value.isoformat()
        case str():
            return json.dumps(value.encode("utf-8", "replace").decode()).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return f"{{{', '.join(f'{toml(name)} = {toml(item)}' for name, item in value.items())}}}"
        case _:
            return str(value)


names = st.sampled_from([key.key for key in KEYS] + list(keys()) + ["User"]) | st.text(max_size=5)
plain = st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes()
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=3
)


@given(st.dictionaries(names, st.dictionaries(names, values, max_size=3) | values, max_size=3))
def test_any_document(document: dict[str, object]) -> None:
    text = "".join(f"{toml(name)} = {toml(value)}\n" for name, value in document.items())
    must_hold(lambda: parse([("c.toml", text.encode())], {}))


@given(st.sampled_from(KEYS), values)
def test_any_value_of_any_key(key: Key, value: object) -> None:
    must_hold(lambda: parse([("c.toml", f"[{key.section}]\n{key.key} = {toml(value)}\n".encode())], {}))


@given(st.sampled_from(KEYS), st.text(alphabet=st.characters()) | values.map(toml))
def test_any_variable(key: Key, raw: str) -> None:
    must_hold(lambda: parse([], {key.variable: raw}))


@given(st.sampled_from([key for key in KEYS if key.secret]), st.text(alphabet="#@:/ \n\t'\"é\\", min_size=1))
def test_no_error_shows_a_secret(key: Key, raw: str) -> None:
    marked = f"S3CR{raw}T"
    assert "S3CR" not in " ".join(problems_of(lambda: parse([], {key.variable: marked})) or ())
