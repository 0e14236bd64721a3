"""Every error becomes a line and an exit status; nothing else reaches a user."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ended, clean_environment, finish, start
from tests.support.timing import SECOND
from worker.cli import topology
from worker.errors import BrokerError, ConfigError, TopologyError, VenueError

CASES: list[tuple[Exception, int, list[str]]] = [
    (BrokerError("gone"), 1, ["gone"]),
    (ConfigError(["a: one", "b: two"]), 2, ["a: one", "b: two"]),
    (TopologyError("queue q"), 2, ["queue q is missing"]),
    (
        ExceptionGroup("both", [VenueError("no"), ExceptionGroup("in", [TopologyError("queue q")])]),
        2,
        ["no", "queue q is missing"],
    ),
    (VenueError("said \x1b[31mred\nand more"), 1, ["said \\x1b[31mred\\nand more"]),
]


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def load_config(context: object) -> None:
        raise error

    monkeypatch.setattr(topology, "load_config", load_config)


@pytest.mark.parametrize(("error", "status", "lines"), CASES)
def test_our_errors_are_their_lines_and_their_exit_status(
    error: Exception, status: int, lines: list[str], here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, error)
    assert here("topology") == (status, "", "".join(f"cancel-worker: {line}\n" for line in lines))


def test_a_bug_is_one_line_without_what_the_exception_says(
    here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_with(monkeypatch, KeyError("amqp://user:hunter2@host"))
    status, out, err = here("topology")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("cancel-worker: this is a bug: KeyError in topology.py:")
    assert "hunter2" not in err


def test_a_bug_is_told_in_full_at_debug_with_the_secrets_masked() -> None:
    settings = {"CANCEL_WORKER__LOG__LEVEL": "debug"}
    code = (
        "import sys; from worker.cli import main, topology\n"
        "def load_config(context): raise KeyError('amqp://user:hunter2@host/')\n"
        "topology.load_config = load_config; sys.exit(main(['topology']))"
    )
    command, env = [sys.executable, "-c", code], clean_environment(settings)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "KeyError" in done.stderr.splitlines()[1]
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_is_a_failure_at_run_time(here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    status, out, err = here("topology")
    assert (status, out) == (1, "")
    assert err.strip() == "cancel-worker: interrupted"  # on a line of its own, below the ^C of the terminal


def as_process_1(*arguments: str) -> subprocess.Popen[bytes]:
    """A command that is the first process of its namespace, as in a container."""
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork"]
    try:
        subprocess.run([*apart, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this machine makes no namespace of processes for us")
    return subprocess.Popen([*apart, sys.executable, "-m", "worker", *arguments], env=clean_environment({}))


@pytest.mark.process
def test_sigterm_ends_process_1_before_it_has_come_to_anything(tmp_path: Path) -> None:
    """The kernel gives the first process no default action: a signal without a handler would be lost there."""
    config = tmp_path / "c.toml"
    os.mkfifo(config)
    apart = as_process_1("--config", str(config), "check")
    try:
        with config.open("wb"):  # it reads its configuration now, and waits for more
            [child] = Path(f"/proc/{apart.pid}/task/{apart.pid}/children").read_text().split()
            os.kill(int(child), signal.SIGTERM)
            status = apart.wait(10 * SECOND)
    finally:
        apart.kill()
    assert status == 128 + signal.SIGTERM


@pytest.mark.parametrize("module", ["worker.cli", "click", "worker.cli.topology", "msgspec"])
def test_ctrl_c_while_modules_are_imported_is_one_line(module: str) -> None:
    code = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from worker.__main__ import main\n"
        "sys.exit(main(['topology']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment({}), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == "cancel-worker: interrupted"


@pytest.mark.parametrize("arguments", [["--help"], ["topology"], ["schema", "events"], ["simulate"]])
def test_an_output_that_takes_no_more_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "worker", *arguments],
            env=clean_environment({}),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=20 * SECOND,
        )
    assert (done.returncode, done.stderr) == (1, "cancel-worker: cannot write the output: No space left on device\n")


@pytest.mark.parametrize(
    ("arguments", "status", "err"),
    [("topology", 0, ""), ("schema events", 0, ""), ("nope", 2, "cancel-worker: No such command 'nope'.")],
)
def test_standard_streams_that_are_closed_are_no_error(arguments: str, status: int, err: str) -> None:
    closed = f"exec {sys.executable} -m worker {arguments} <&- >&-"
    done = subprocess.run(
        ["/bin/sh", "-c", closed], env=clean_environment({}), stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == status
    assert done.stderr.startswith(err) and done.stderr.count("\n") == bool(err)


def test_what_is_opened_next_does_not_take_the_place_of_a_closed_stream() -> None:
    code = (
        "import os, sys; from worker.__main__ import main\n"
        "main(['--version']); opened = os.open('/dev/null', os.O_RDONLY)\n"
        "print(opened, file=sys.stderr)"
    )
    closed = ["/bin/sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-c", code]
    done = subprocess.run(closed, env=clean_environment({}), stderr=subprocess.PIPE, text=True, check=False)
    assert int(done.stderr) > 2


def test_the_way_to_give_a_file_is_told(here: Callable[..., Ended]) -> None:
    told = "cancel-worker: --config goes before the command: cancel-worker --config FILE COMMAND\n"
    assert here("topology", "--config", "a.toml") == (2, "", told)


def test_a_reader_that_goes_away_is_no_error_to_tell() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "worker", "topology"],
            env=clean_environment({}),
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_simulator_ends_in_order(number: signal.Signals) -> None:
    process = await start(["simulate", "--seed", "3"], {})
    assert process.stdout is not None
    async with asyncio.timeout(20):
        url = await process.stdout.readline()
    assert url.startswith(b"CANCEL_WORKER__VENUE__URL=ws://127.0.0.1:")
    process.send_signal(number)
    ended = await finish(process)
    assert (ended.status, ended.err) == (0, "")


async def test_a_port_that_is_taken_is_one_line() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        ended = await finish(await start(["simulate", "--port", str(port)], {}))
    assert ended.status == 1
    assert ended.out == ""
    assert ended.err == f"cancel-worker: cannot listen on 127.0.0.1:{port}: address already in use\n"
