"""Loading: layers of files and environment, each key checked where it stands, all problems told at once."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple, get_type_hints

from worker.config.checks import checks
from worker.config.rules import Key, keys
from worker.config.secret import mask_url
from worker.config.structs import Config
from worker.errors import ConfigError

PATHS_VARIABLE = "CANCEL_WORKER_CONFIG"
PREFIX = "CANCEL_WORKER__"
DEFAULT_PATH = Path("config/default.toml")
_LONGEST_BYTES = 1024 * 1024


class _Given(NamedTuple):
    """A value and where it was given: a file, or a variable of the environment."""

    value: object
    source: str
    layer: int


def config_paths(given: Sequence[str | Path], environ: Mapping[str, str]) -> list[Path]:
    """Which files to load: those of ``--config``, else of ``CANCEL_WORKER_CONFIG`` (``:`` between), else the default.

    The default file may be missing: every key has a built-in default.
    """
    if given:
        return [Path(path) for path in given]
    listed = [Path(path) for path in environ.get(PATHS_VARIABLE, "").split(":") if path]
    if listed:
        return listed
    return [DEFAULT_PATH] if DEFAULT_PATH.is_file() else []


def load(paths: Iterable[str | Path] = (), environ: Mapping[str, str] | None = None) -> Config:
    """The configuration of these files, later ones first in force, and of ``environ``, which wins over all of them.

    Raises ConfigError with a line for every problem: ``file or variable: section.key and its rule``.
    """
    problems: list[str] = []
    files: list[tuple[str, bytes]] = []
    for path in paths:
        try:
            with Path(path).open("rb") as file:
                files.append((str(path), file.read(_LONGEST_BYTES + 1)))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            problems.append(f"{_one_line(str(path))}: cannot read the file: {reason}")
    try:
        config = parse(files, environ or {})
    except ConfigError as error:
        raise ConfigError(problems + list(error.problems)) from None
    if problems:
        raise ConfigError(problems)
    return config


def parse(files: Sequence[tuple[str, bytes]], environ: Mapping[str, str]) -> Config:
    """As ``load``, from the files' names and contents: a pure function."""
    problems: list[str] = []
    values: dict[str, _Given] = {}
    layers = [_of_file(name, data, problems) for name, data in files]
    layers.append(_of_environment(environ, problems))
    for number, layer in enumerate(layers):
        for key, value, source in layer:
            try:
                accepted = key.accept(value)
            except ValueError as error:
                problems.append(f"{source}: {key.name} {error}")
                values[key.name] = _Given(_INVALID, source, number)
            else:
                values[key.name] = _Given(accepted, source, number)
    _drop_replaced_secrets(values, problems)
    config = _build(values)
    problems += _cross_checked(config, values)
    if problems:
        raise ConfigError(problems)
    return config


_INVALID = object()
_Layer = list[tuple[Key, object, str]]


def _of_file(name: str, data: bytes, problems: list[str]) -> _Layer:
    source = _one_line(name)
    if len(data) > _LONGEST_BYTES:
        problems.append(f"{source}: must be at most {_LONGEST_BYTES} bytes")
        return []
    try:
        document = tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        problems.append(f"{source}: is not UTF-8 text")
        return []
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{source}: is not TOML: {_one_line(str(error))}")
        return []
    except (ValueError, RecursionError):
        problems.append(f"{source}: is not usable TOML: a number too long, or nested too deeply")
        return []
    layer: _Layer = []
    for section, table in document.items():
        known = keys().get(section)
        if not isinstance(table, dict):
            problems.append(f"{source}: {_one_line(section)} is not in a section{_hint(section, _all_names())}")
        elif known is None:
            problems.append(f"{source}: [{_one_line(section)}] is not a known section{_hint(section, keys())}")
        else:
            for key, value in table.items():
                if key in known:
                    layer.append((known[key], value, source))
                else:
                    name = f"{section}.{_one_line(key)}"
                    problems.append(f"{source}: {name} is not a known key{_hint(name, _all_names())}")
    return layer


def _of_environment(environ: Mapping[str, str], problems: list[str]) -> _Layer:
    variables = {key.variable: key for section in keys().values() for key in section.values()}
    layer: _Layer = []
    for variable in sorted(environ):
        if not variable.upper().startswith(PREFIX):
            continue
        key = variables.get(variable)
        if key is None:
            # The prefix that all have in common would make everything alike.
            near = _near(variable[len(PREFIX) :].upper(), [known[len(PREFIX) :] for known in variables])
            hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
            problems.append(f"{_one_line(variable)}: is not a known variable{hint}")
        else:
            layer.append((key, _as_toml(key, environ[variable]), variable))
    return layer


def _as_toml(key: Key, raw: str) -> object:
    """The value of a variable as TOML has it. A text may stand without quotes; what cannot be read stays a text."""
    if key.text and not raw.startswith(('"', "'")):
        return raw
    try:
        document = tomllib.loads(f"value = {raw}")
    except (ValueError, RecursionError):
        return raw
    value = document.get("value")
    # A newline in the variable could add keys of its own; a quoted text must be a text again.
    return raw if len(document) != 1 or (key.text and not isinstance(value, str)) else value


def _drop_replaced_secrets(values: dict[str, _Given], problems: list[str]) -> None:
    """Of a secret and its ``_file`` a later layer's wins; both in one layer is an error."""
    for section in keys().values():
        for key in section.values():
            name, file_name = key.name, f"{key.name}_file"
            if not key.secret or file_name not in values:
                continue
            file = values[file_name]
            direct = values.get(name)
            if direct is not None and direct.layer == file.layer:
                problems.append(f"{direct.source}: {name} and {file_name} must not both be set")
            elif direct is None or direct.layer < file.layer:
                values[name] = _Given(None, file.source, file.layer)
            else:
                del values[file_name]


def _build(values: Mapping[str, _Given]) -> Config:
    sections = {}
    for section, struct in get_type_hints(Config).items():
        given = {}
        for key in keys()[section].values():
            found = values.get(key.name)
            if found is not None and found.value is not _INVALID:
                given[key.key] = found.value
        sections[section] = struct(**given)
    return Config(**sections)


def _cross_checked(config: Config, values: Mapping[str, _Given]) -> Iterable[str]:
    for check in checks():
        given = [values[name] for name in check.keys if name in values]
        if any(found.value is _INVALID for found in given):
            continue  # told already, and what it would be compared with is a guess
        problem = check.problem(config)
        if problem is not None:
            source = max(given, key=lambda found: found.layer).source if given else "built-in defaults"
            yield f"{source}: {check.keys[0]} {problem}"


def _all_names() -> list[str]:
    return [key.name for section in keys().values() for key in section.values()]


def _hint(word: str, known: Iterable[str]) -> str:
    """A guess at what was meant. A key without its section is looked for in all of them."""
    names = list(known)
    ends = [name for name in names if "." not in word and name.endswith(f".{word}")]
    near = ends[:1] or _near(word, names)
    return f"; did you mean {near[0]}?" if near else ""


def _near(word: str, known: list[str]) -> list[str]:
    # The comparison takes time in the square of the length, and no key is that long.
    return get_close_matches(word, known, n=1, cutoff=0.75) if len(word) <= 64 else []


def _one_line(text: str) -> str:
    """A name or message that came from outside, fit for one line of an error."""
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in mask_url(text))
    return safe if len(safe) <= 200 else safe[:197] + "..."
