"""Reads a script from a TOML file; every fault names the file, the key and the rule."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec

from worker.errors import ConfigError
from worker.simulator.script import Script

_PLACE = re.compile(r"\A(?P<rule>.*?)(?: - at `\$(?P<path>.*?)`)?\Z", re.DOTALL)
_FIELD = re.compile(r"Object contains unknown field `(?P<name>.*)`")


class ScriptError(ConfigError):
    """A script that cannot be used: `file`, `key`, `rule` say where and why."""

    def __init__(self, file: str, key: str, rule: str) -> None:
        super().__init__(f"{file}: {key}: {rule}" if key else f"{file}: {rule}")
        self.file, self.key, self.rule = file, key, rule


def load_script(path: str | Path) -> Script:
    """The script in this file. ScriptError if it cannot be read, is no TOML, or breaks a rule."""
    file = str(path)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ScriptError(file, "", f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ScriptError(file, "", "is not UTF-8") from error
    return read_script(text, file)


def read_script(text: str, file: str = "script") -> Script:
    """The script in this text; `file` is its name in errors."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScriptError(file, "", f"is not TOML: {error}") from error
    try:
        return msgspec.convert(table, Script)
    except msgspec.ValidationError as error:
        raise ScriptError(file, *_where(str(error))) from error


def _where(message: str) -> tuple[str, str]:
    found = _PLACE.match(message)
    rule, path = (found["rule"], found["path"] or "") if found else (message, "")
    key = path.lstrip(".")
    unknown = _FIELD.match(rule)
    if unknown:
        return f"{key}.{unknown['name']}".lstrip("."), "unknown key"
    return key, rule
