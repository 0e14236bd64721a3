"""A configuration that cannot be used stops ``run`` with exit status 2 and lines that say which key and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.conftest import Ended, cli

SECRET = "Xk42verysecretXk42"


def variable(name: str, value: str) -> dict[str, str]:
    return {f"CANCEL_WORKER__{name}": value}


KEYS = variable("VENUE__API_KEY", "key") | variable("VENUE__API_SECRET", SECRET)


class Bad(NamedTuple):
    """``toml`` in a file, ``settings`` in the environment; ``told`` must be in the one line, or in one of ``lines``."""

    told: str
    toml: str = ""
    settings: Mapping[str, str] = KEYS
    lines: int = 1


BAD = {
    "not TOML": Bad("is not TOML", "[broker\n"),
    "not TOML where a secret is": Bad("is not TOML", f'[venue]\napi_secret = "{SECRET}\n', {}),
    "unknown section": Bad("[brokers]", "[brokers]\nurl = 1\n"),
    "unknown key": Bad("broker.prefetsh", "[broker]\nprefetsh = 5\n"),
    "a key outside its section": Bad("sessions is not in a section", "sessions = 2\n"),
    "wrong type": Bad("broker.prefetch", '[broker]\nprefetch = "many"\n'),
    "a float for a whole number": Bad("venue.sessions", "[venue]\nsessions = 1.5\n"),
    "out of range": Bad("broker.prefetch", "[broker]\nprefetch = 70000\n"),
    "below range": Bad("venue.sessions", "[venue]\nsessions = 0\n"),
    "not a choice": Bad("log.level", '[log]\nlevel = "loud"\n'),
    "NaN": Bad("venue.report_timeout", "[venue]\nreport_timeout = nan\n"),
    "two keys that do not fit": Bad("broker.reconnect_min", "[broker]\nreconnect_min = 9\nreconnect_max = 1\n"),
    "two queues of one name": Bad("broker.commands_queue", '[broker]\nkill_queue = "cancel.commands"\n'),
    "venue url without TLS": Bad("venue.url", '[venue]\nurl = "ws://venue.example.com/ws/v1"\n'),
    "venue url with a password": Bad("venue.url", f'[venue]\nurl = "wss://u:{SECRET}@venue.example.com/ws/v1"\n'),
    "broker url of another scheme": Bad("broker.url", "", KEYS | variable("BROKER__URL", f"http://u:{SECRET}@host/")),
    "a broker url that is torn": Bad("broker.url", "", KEYS | variable("BROKER__URL", f"amqp://u:{SECRET}@host:port/")),
    "an api key of the wrong type": Bad("venue.api_key", "[venue]\napi_key = 5\n", {}),
    "a secret with a blank": Bad("venue.api_secret", f'[venue]\napi_secret = "{SECRET} {SECRET}"\n', {}),
    "a secret and its file": Bad("venue.api_secret", f'[venue]\napi_secret = "{SECRET}"\napi_secret_file = "x"\n', {}),
    "a secret's file that is not there": Bad(
        "venue.api_secret_file",
        "",
        variable("VENUE__API_KEY", "key") | variable("VENUE__API_SECRET_FILE", "/nowhere/secret"),
    ),
    "a broker url file that is not there": Bad(
        "broker.url_file", "", KEYS | variable("BROKER__URL_FILE", "/nowhere/url")
    ),
    "no key for the venue": Bad("venue.api_key must be set", "", {}, 2),
    "unknown variable": Bad("CANCEL_WORKER__BROKER__URI", "", variable("BROKER__URI", SECRET)),
    "a variable out of range": Bad("ops.port", "", variable("OPS__PORT", "70000")),
    "a variable of the wrong type": Bad("broker.declare", "", variable("BROKER__DECLARE", "maybe")),
    "users that are no list": Bad("authorization.kill_users", '[authorization]\nkill_users = "risk"\n'),
    "a reserved stream field": Bad("venue.extra_stream_fields", "[venue.extra_stream_fields]\nStatuses = 1\n"),
    "three faults at once": Bad("venue.sessions", "[venue]\nsessions = 0\nmax_batch = 0\n[log]\nlevel = 1\n", KEYS, 3),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_is_wrong_is_told_and_no_secret(bad: Bad, tmp_path: Path, here: Callable[..., Ended]) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(bad.toml)
    status, out, err = here("--config", str(file), "run", settings=bad.settings)
    assert status == 2
    assert out == ""
    assert err.count("\n") == bad.lines
    assert all(line.startswith("cancel-worker: ") for line in err.splitlines())
    assert bad.told in err
    assert "Traceback" not in err
    assert SECRET not in err
    if bad.toml:
        assert str(file) in err


def test_a_file_that_is_not_there_is_told(here: Callable[..., Ended]) -> None:
    status, out, err = here("--config", "/nowhere/worker.toml", "run", settings=KEYS)
    assert (status, out) == (2, "")
    assert err == "cancel-worker: /nowhere/worker.toml: cannot read the file: No such file or directory\n"


def test_a_password_given_as_an_argument_is_not_repeated(here: Callable[..., Ended]) -> None:
    status, _, err = here("run", f"amqp://user:{SECRET}@host/")
    assert status == 2
    assert SECRET not in err


@pytest.mark.process
async def test_the_process_itself_ends_so(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(f'[venue]\napi_secret = "{SECRET} {SECRET}"\n[broker]\nurl = "amqp://u:{SECRET}@h:x/"\n')
    ended = await cli("--config", str(file), "run")
    assert (ended.status, ended.out) == (2, "")
    assert [line.split()[2] for line in ended.err.splitlines()] == ["broker.url", "venue.api_secret"]
    assert SECRET not in ended.err
