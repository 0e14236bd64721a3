"""The image, built and run as a cluster would: not root, nothing writable, no capabilities.

Runs only where the base image was made once by tools/build_image.sh, since that takes root, buildah and a minute.
.ci/run does it where it may.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cli.conftest import broker_settings, cli, venue_settings
from tests.support.broker import Broker
from tests.support.timing import SECOND
from worker.simulator import Simulator

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / ".cache" / "containers"
TAG = "localhost/cancel-worker:test"
STORAGE = ["--root", str(STORE / "root"), "--runroot", str(STORE / "run"), "--storage-driver", "overlay"]
LOCKED = [
    "--network", "host", "--no-healthcheck", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096",
    "--memory", "256m", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "ALL",
    "--security-opt", "no-new-privileges",
]  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def call(*command: str, within: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=within, check=False)


@pytest.fixture(scope="module")
def image() -> str:
    """The tag of the image, built from the working tree."""
    if os.geteuid() != 0 or not shutil.which("buildah") or not shutil.which("mmdebstrap"):
        pytest.skip("needs root, buildah and mmdebstrap")
    base = re.search(r"^ARG PYTHON_IMAGE=(\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert base is not None
    if call("buildah", *STORAGE, "inspect", "--type", "image", base[1]).returncode:
        pytest.skip("no base image: run tools/build_image.sh once")
    built = call(str(ROOT / "tools" / "build_image.sh"), TAG, within=500)
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    return TAG


def run(image: str, *arguments: str, options: tuple[str, ...] = ("--rm",)) -> subprocess.CompletedProcess[str]:
    if not shutil.which("podman") or not shutil.which("runc"):
        pytest.skip("needs podman and runc")
    return call("podman", *STORAGE, "--runtime", "runc", "run", *LOCKED, *options, image, *arguments)


def test_the_image_says_what_the_dockerfile_says(image: str) -> None:
    told = call("buildah", *STORAGE, "inspect", "--type", "image", image)
    config: dict[str, Any] = json.loads(told.stdout)["Docker"]["config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["cancel-worker"]
    assert config["Cmd"] == ["run"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Healthcheck"]["Test"][:2] == ["CMD", "python"]


LOOK = """
import json, os, pathlib, worker
def refused(path):
    try:
        open(path, "w").close()
    except OSError:
        return True
    return False
print(json.dumps({
    "ids": [os.getuid(), os.getgid()],
    "refused": [refused(path) for path in ("/x", "/tmp/x", "/etc/cancel-worker/x", "/opt/cancel-worker/x")],
    "capabilities": [line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")],
    "config": sorted(path.name for path in pathlib.Path("/etc/cancel-worker").iterdir()),
    "compiled": bool(list(pathlib.Path(worker.__file__).parent.glob("__pycache__/*.pyc"))),
    "pip": pathlib.Path("/opt/cancel-worker/bin/pip").exists(),
    "as_another": [str(path) for folder in ("/usr", "/opt") for path in pathlib.Path(folder).rglob("*")
                   if path.is_file() and path.stat().st_mode & 0o6000],
}))
"""


def test_it_runs_with_nothing_but_its_own_files(image: str) -> None:
    done = run(image, "-c", LOOK, options=("--rm", "--entrypoint", "python"))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["ids"] == [10001, 10001]
    assert seen["refused"] == [True] * 4
    assert set(seen["capabilities"]) == {"0" * 16}
    assert seen["config"] == ["default.toml", "demo.toml", "production.toml", "sandbox.toml", "simulator.toml"]
    assert seen["compiled"] is True
    assert seen["pip"] is False
    assert seen["as_another"] == [], "set-uid and set-gid programs"


def test_the_worker_starts_in_it(image: str) -> None:
    done = run(image, "--help")
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout


def test_a_wrong_setting_ends_it_with_status_2(image: str) -> None:
    done = run(image, options=("--rm", "--env", "CANCEL_WORKER__OPS__PORT=high"))
    assert done.returncode == 2
    assert "CANCEL_WORKER__OPS__PORT" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_it_is_alive_without_a_broker_and_stops_by_sigterm(image: str) -> None:
    nobody = {"BROKER__URL": "amqp://guest:guest@127.0.0.1:9/", "VENUE__URL": "ws://127.0.0.1:9/ws/v1"}
    given = {"VENUE__API_KEY": "key", "VENUE__API_SECRET": "c2VjcmV0", **nobody}
    with working(image, {f"CANCEL_WORKER__{name}": value for name, value in given.items()}) as worker:
        told = get(worker.port, "/metrics") or ""
        assert 'cancel_worker_build_info{commit="unknown"' in told, "the Dockerfile's default for REVISION"
        assert stopped(worker.name) == "0"


async def test_it_carries_a_cancel_out(image: str, broker: Broker) -> None:
    if broker.prefix:
        pytest.skip("a worker needs a vhost of its own: give the broker's management API as well")
    async with Simulator() as venue:
        order = venue.place()
        settings = broker_settings(broker) | venue_settings(venue)

        def work() -> tuple[tuple[int, str], str]:
            with working(image, settings, "/readyz") as worker:
                arguments = ("--symbol", "BTC-USD", "--order-id", order.order_id)
                ended = asyncio.run(cli("cancel", *arguments, settings=settings))
                return (ended.status, ended.err), stopped(worker.name)

        assert await asyncio.to_thread(work) == ((0, ""), "0")
        assert venue.truth()[order.order_id].status == "Canceled"


class Container(NamedTuple):
    """One that runs; ``port``: the worker's HTTP."""

    name: str
    port: int


@contextmanager
def working(image: str, settings: Mapping[str, str], until: str = "/livez") -> Iterator[Container]:
    """A container with a worker whose probe says yes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    given = {**settings, "CANCEL_WORKER__OPS__PORT": str(port)}
    name = f"cancel-worker-test-{port}"
    words = [word for key, value in given.items() for word in ("--env", f"{key}={value}")]
    started = run(image, options=("--detach", "--name", name, *words))
    try:
        assert started.returncode == 0, started.stderr
        end = time.monotonic() + 20 * SECOND
        while get(port, until) is None:
            assert time.monotonic() < end, call("podman", *STORAGE, "logs", name)
            time.sleep(0.1)
        yield Container(name, port)
    finally:
        call("podman", *STORAGE, "rm", "--force", "--time", "0", name)


def stopped(name: str) -> str:
    """Ask the worker in this container to stop; its exit status."""
    asked = call("podman", *STORAGE, "kill", "--signal", "TERM", name)
    assert asked.returncode == 0, asked.stderr
    return call("podman", *STORAGE, "wait", name, within=30 * SECOND).stdout.strip()


def get(port: int, path: str) -> str | None:
    """What the worker answers; None while nobody does, or with another status than 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2) as answer:
            body: bytes = answer.read()
    except OSError:
        return None
    return body.decode()
