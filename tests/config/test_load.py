"""Layers of the configuration: files in turn, then the environment (contract 6)."""

from __future__ import annotations

from pathlib import Path

import pytest

from worker.config import Config, Secret, config_paths, load, parse
from worker.config.rules import keys
from worker.errors import ConfigError


def test_without_files_every_key_has_its_default() -> None:
    assert load() == Config()
    assert parse([], {"PATH": "/bin", "CANCEL_WORKER_CONFIG": "x", "CANCEL_WORKERS__X": "1"}) == Config()


def test_later_files_win_over_earlier_ones_key_by_key() -> None:
    config = parse([("a", b"[ops]\nport = 1\nhost = '::1'"), ("b", b"[ops]\nport = 2")], {})
    assert (config.ops.port, config.ops.host) == (2, "::1")


def test_the_environment_wins_over_files() -> None:
    config = parse([("a", b"[ops]\nport = 1")], {"CANCEL_WORKER__OPS__PORT": "3"})
    assert config.ops.port == 3


@pytest.mark.parametrize(
    ("variable", "raw", "value"),
    [
        ("VENUE__SESSIONS", "4", 4),
        ("VENUE__REPORT_TIMEOUT", "4", 4.0),
        ("VENUE__REPORT_TIMEOUT", "0.5", 0.5),
        ("BROKER__DECLARE", "false", False),
        ("BROKER__KILL_QUEUE", "kill", "kill"),
        ("BROKER__KILL_QUEUE", '"kill"', "kill"),
        ("BROKER__KILL_QUEUE", "'kill'", "kill"),
        ("BROKER__KILL_QUEUE", "'kill", "'kill"),
        ("BROKER__KILL_QUEUE", "12345", "12345"),
        ("BROKER__KILL_QUEUE", "true", "true"),
        ("BROKER__KILL_QUEUE", "[a]", "[a]"),
        ("BROKER__KILL_QUEUE", "a # b", "a # b"),
        ("LOG__LEVEL", "debug", "debug"),
        ("VENUE__API_KEY", "12345", Secret("12345")),
        ("VENUE__API_SECRET", "0x10", Secret("0x10")),
        ("AUTHORIZATION__KILL_USERS", '["a","b"]', ("a", "b")),
        ("AUTHORIZATION__KILL_USERS", "[]", ()),
        ("VENUE__REFUSAL_CODES", "[1, 7]", (1, 7)),
        ("VENUE__EXTRA_STREAM_FIELDS", '{User = "x", n = [1, 2]}', {"User": "x", "n": [1, 2]}),
    ],
)
def test_a_variable_is_written_as_in_toml_and_texts_without_quotes_too(variable: str, raw: str, value: object) -> None:
    config = parse([], {f"CANCEL_WORKER__{variable}": raw})
    section, key = variable.lower().split("__")
    found = getattr(getattr(config, section), key)
    assert found == value
    assert type(found) is type(value)


def test_every_key_can_be_set_by_its_variable() -> None:
    for section in keys().values():
        for key in section.values():
            assert key.variable == f"CANCEL_WORKER__{key.section.upper()}__{key.key.upper()}"
            with pytest.raises(ConfigError, match=key.variable):
                parse([], {key.variable: "\x00"})


def test_an_unset_list_is_not_an_empty_one() -> None:
    assert Config().authorization.kill_users is None
    assert parse([("a", b"[authorization]\nkill_users = []")], {}).authorization.kill_users == ()


@pytest.mark.parametrize(
    "text",
    ["doubt_window = 1", "lookback = 30", "order_horizon = 60", "unknown_wait = 0", "overlap = 2000"],
)
def test_one_wait_can_be_shortened_without_touching_the_others(text: str) -> None:
    """Every order of these waits means something: a window shorter than a wait just ends first."""
    key, value = text.split(" = ")
    assert getattr(parse([("c.toml", f"[venue]\n{text}".encode())], {}).venue, key) == float(value)


def test_a_whole_number_will_do_for_a_number() -> None:
    grace = parse([("a", b"[shutdown]\ngrace = 3")], {}).shutdown.grace
    assert (grace, type(grace)) == (3.0, float)


def test_of_a_secret_and_its_file_the_later_layer_wins() -> None:
    files = [("a", b"[broker]\nurl = 'amqp://a/'"), ("b", b"[broker]\nurl_file = '/run/b'")]
    assert (parse(files, {}).broker.url, parse(files, {}).broker.url_file) == (None, "/run/b")
    again = parse(files, {"CANCEL_WORKER__BROKER__URL": "amqp://c/"})
    assert (again.broker.url, again.broker.url_file) == (Secret("amqp://c/"), None)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm() -> None:
    assert parse([("a", b"\xef\xbb\xbf[ops]\r\nport = 7\r\n")], {}).ops.port == 7


def test_the_configuration_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Config().ops.port = 1  # type: ignore[misc]


def test_config_files_come_from_the_command_line_then_the_environment_then_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"CANCEL_WORKER_CONFIG": "x.toml::y.toml"}
    assert config_paths(["a.toml"], environ) == [Path("a.toml")]
    assert config_paths([], environ) == [Path("x.toml"), Path("y.toml")]
    assert config_paths([], {}) == []
    assert config_paths([], {"CANCEL_WORKER_CONFIG": ""}) == []
    (tmp_path / "config").mkdir()
    (tmp_path / "config/default.toml").write_text("")
    assert config_paths([], {}) == [Path("config/default.toml")]


def test_a_file_that_is_not_there_is_told_beside_the_other_problems(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("[ops]\nport = -1")
    with pytest.raises(ConfigError) as caught:
        load([tmp_path / "none.toml", bad, tmp_path])
    assert caught.value.problems == (
        f"{tmp_path}/none.toml: cannot read the file: No such file or directory",
        f"{tmp_path}: cannot read the file: Is a directory",
        f"{bad}: ops.port must be a whole number from 0 to 65535, got -1",
    )
