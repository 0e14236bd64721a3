"""The Dockerfile, read and linted: what must hold whoever builds it. test_image.py builds it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]


class Instruction(NamedTuple):
    """One instruction, its continuation lines joined."""

    name: str
    rest: str


def instructions() -> list[Instruction]:
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [Instruction(name.upper(), rest) for name, rest in pairs]


def last_stage() -> list[Instruction]:
    """What the image is made of: the instructions after the last FROM."""
    found = instructions()
    last = max(index for index, instruction in enumerate(found) if instruction.name == "FROM")
    return found[last + 1 :]


def only(name: str) -> str:
    """The rest of the one instruction of this name in the last stage."""
    (rest,) = [instruction.rest for instruction in last_stage() if instruction.name == name]
    return rest


def health_command() -> list[str]:
    command: list[str] = json.loads(only("HEALTHCHECK").partition("CMD")[2])
    return command


def test_hadolint_finds_nothing() -> None:
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    hadolint = shutil.which("hadolint", path=places)
    if hadolint is None:
        pytest.skip("hadolint has no binary for this platform")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_it_ends_as_a_numbered_user_that_is_not_root() -> None:
    assert only("USER") == "10001:10001"
    after = [instruction.name for instruction in last_stage()]
    assert not {"RUN", "COPY"} & set(after[after.index("USER") :]), "nothing is made after root was left"


def test_the_worker_is_process_one_and_stops_by_sigterm() -> None:
    assert json.loads(only("ENTRYPOINT")) == ["cancel-worker"]
    assert json.loads(only("CMD")) == ["run"]
    assert only("STOPSIGNAL") == "SIGTERM"


def test_every_stage_is_built_on_the_one_base() -> None:
    bases = [instruction.rest.split()[0] for instruction in instructions() if instruction.name == "FROM"]
    assert bases == ["${PYTHON_IMAGE}"] * 2
    first = instructions()[0]
    assert first == Instruction("ARG", "PYTHON_IMAGE=docker.io/library/python:3.11-slim-bookworm")


def test_every_package_is_checked_by_its_hash() -> None:
    runs = " && ".join(instruction.rest for instruction in instructions() if instruction.name == "RUN")
    installs = [command for command in re.split(r"&&|;", runs) if " install " in command]
    from_index = [command for command in installs if "--no-index" not in command]
    assert [command.split()[-1] for command in from_index] == ["requirements.lock", "requirements-build.lock"]
    assert all("--require-hashes" in command and "--only-binary :all:" in command for command in from_index)
    (own,) = set(installs) - set(from_index)
    assert "--no-deps" in own
    assert not {"ADD"} & {instruction.name for instruction in instructions()}
    assert not re.search(r"\b(curl|wget|apt-get|git)\b", runs)


def test_no_secret_comes_with_it() -> None:
    settings = [instruction.rest for instruction in instructions() if instruction.name in ("ARG", "ENV", "LABEL")]
    names = re.findall(r"([A-Za-z_.]+)=", " ".join(settings))
    assert "CANCEL_WORKER_CONFIG" in names
    assert not [name for name in names if re.search(r"KEY|SECRET|PASS|TOKEN|CREDENTIAL|URL", name.upper())]


def test_it_writes_nothing_while_it_runs() -> None:
    environment = only("ENV")
    assert "PYTHONDONTWRITEBYTECODE=1" in environment
    assert "VOLUME" not in {instruction.name for instruction in last_stage()}


def test_the_configuration_it_names_is_in_it() -> None:
    found = re.search(r"CANCEL_WORKER_CONFIG=(\S+)", only("ENV"))
    assert found is not None
    named = Path(found[1])
    copied = [instruction.rest.split() for instruction in last_stage() if instruction.name == "COPY"]
    mode, *files, folder = copied[-1]
    assert (mode, folder) == ("--chmod=0644", f"{named.parent}/")
    assert f"config/{named.name}" in files
    # Each is named: a pattern would also take what somebody else put there, secrets in it and all.
    assert all((ROOT / file).is_file() for file in files)


def test_the_builder_gets_only_what_is_copied() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    sources = [
        word.removesuffix("*")
        for instruction in instructions()
        if instruction.name == "COPY" and "--from=" not in instruction.rest
        for word in instruction.rest.split()[:-1]
        if not word.startswith("--")
    ]
    assert rules[0] == "*"
    assert allowed == set(sources)


def test_the_build_backend_is_locked_as_everywhere_else() -> None:
    pins = {name: _pins(ROOT / name) for name in ("requirements-build.lock", "requirements-dev.lock")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (backend,) = [re.split(r"[<>=~! ]", wanted)[0] for wanted in project["build-system"]["requires"]]
    assert backend in pins["requirements-build.lock"]
    assert pins["requirements-build.lock"].items() <= pins["requirements-dev.lock"].items()
    assert "://" not in (ROOT / "requirements-build.lock").read_text(), "a lock file names no package index"


def _pins(path: Path) -> dict[str, tuple[str, frozenset[str]]]:
    """Version and hashes by package."""
    text = re.sub(r"\s*\\\n\s*", " ", path.read_text())
    found = re.findall(r"^([a-z0-9-]+)==(\S+)(.*)$", text, flags=re.MULTILINE)
    pins = {name: (version, frozenset(re.findall(r"sha256:[0-9a-f]{64}", rest))) for name, version, rest in found}
    assert pins
    assert all(hashes for _, hashes in pins.values())
    return pins


@contextmanager
def _answering(status: int) -> Iterator[tuple[int, list[str]]]:
    """An HTTP server on this machine that gives every GET this status: its port, and the paths asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port, asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_asks_livez(status: int, healthy: bool) -> None:
    with _answering(status) as (port, asked):
        # A proxy of the machine must not answer for the worker.
        done = _check_health({"CANCEL_WORKER__OPS__PORT": str(port), "http_proxy": "http://127.0.0.1:9"})
    assert asked == ["/livez"]
    assert (done.returncode == 0) is healthy


def test_the_health_check_fails_when_nobody_answers() -> None:
    with _answering(200) as (port, _):
        pass
    assert _check_health({"CANCEL_WORKER__OPS__PORT": str(port)}).returncode != 0


def _check_health(environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    python, *arguments = health_command()
    assert python == "python"
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, timeout=20, check=False)
