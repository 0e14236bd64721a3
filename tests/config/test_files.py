"""The files kept in ``config/``."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from worker.config import Config, load
from worker.config.rules import keys

CONFIG = Path(__file__).parents[2] / "config"
NAMES = ("default", "sandbox", "production", "demo")


def test_default_toml_says_what_is_built_in() -> None:
    assert load([CONFIG / "default.toml"]) == Config()


def test_default_toml_has_every_key_once_in_the_order_of_the_structs() -> None:
    found: dict[str, list[str]] = {}
    section = ""
    for line in (CONFIG / "default.toml").read_text().splitlines():
        if head := re.match(r"\[([a-z]+)\]\Z", line):
            section = head[1]
            found[section] = []
        elif key := re.match(r"(?:# )?([a-z_]+) = .", line):
            found[section].append(key[1])
    assert found == {name: list(table) for name, table in keys().items()}


def test_what_default_toml_leaves_unset_is_given_in_a_form_that_loads(tmp_path: Path) -> None:
    text = (CONFIG / "default.toml").read_text()
    given = re.sub(r"(?m)^# ([a-z_]+ = )", r"\1", text)
    # A secret and its file exclude one another.
    given = re.sub(r"(?m)^(url = \"amqp|api_key = |api_secret = ).*$", "", given)
    path = tmp_path / "all.toml"
    path.write_text(given)
    load([path])


def test_every_key_of_default_toml_is_explained() -> None:
    section = re.split(r"(?m)^\[[a-z]+\]$", (CONFIG / "default.toml").read_text())
    for part in section[1:]:
        assert part.lstrip("\n").startswith("#")


@pytest.mark.parametrize("name", NAMES)
def test_each_file_loads_alone_and_after_the_defaults(name: str) -> None:
    path = CONFIG / f"{name}.toml"
    assert load([path]) == load([CONFIG / "default.toml", path])


def test_production_checks_the_topology_and_reads_its_secrets_from_files() -> None:
    config = load([CONFIG / "production.toml"])
    assert not config.broker.declare
    assert config.venue.url == "wss://wss.prime.kraken.com/ws/v1"
    assert (config.broker.url, config.venue.api_key, config.venue.api_secret) == (None, None, None)
    for path in (config.broker.url_file, config.venue.api_key_file, config.venue.api_secret_file):
        assert path is not None
        assert path.startswith("/run/secrets/")


def test_no_file_but_production_names_the_real_venue() -> None:
    for name in set(NAMES) - {"production"}:
        assert load([CONFIG / f"{name}.toml"]).venue.url != "wss://wss.prime.kraken.com/ws/v1"


def test_only_the_demo_carries_a_key_and_it_opens_nothing() -> None:
    for name in NAMES:
        venue = tomllib.loads((CONFIG / f"{name}.toml").read_text()).get("venue", {})
        if "api_key" in venue or "api_secret" in venue:
            assert venue["url"].startswith("ws://127.0.0.1")
