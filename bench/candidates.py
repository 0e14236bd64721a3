"""Who is measured: our worker as users run it, the peers, and the limit. Each runs as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from bench.machine import PLACE, PROJECT

_WORKER: Final = str(Path(sys.executable).with_name("cancel-worker"))
_PEERS: Final = PROJECT / "bench" / "peers"
_PYTHON: Final = str(PLACE / "python" / "bin" / "python")
_LIMIT: Final = str(PLACE / "worker")


class Candidate(NamedTuple):
    """``commands``: how many a throughput run takes, so that it lasts some seconds. ``needs``: what setup.sh builds."""

    title: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    commands: int
    needs: Path

    @property
    def log(self) -> Path:
        """What the last run wrote."""
        return PLACE / f"{Path(self.command[0]).name}.log"

    @property
    def is_there(self) -> bool:
        """Whether setup.sh could build it."""
        return self.needs.exists()


CANDIDATES: Final = {
    "worker": Candidate("cancel-worker", (_WORKER, "run"), {}, 40_000, PROJECT),
    "c": Candidate("C, the hot path alone (limit)", (_LIMIT, "500"), {}, 40_000, PLACE / "worker"),
    "c-large": Candidate("C, events as large as ours", (_LIMIT, "500", "1000"), {}, 40_000, PLACE / "worker"),
    "node": Candidate("Node, amqplib + ws", ("node", str(PLACE / "node/worker.js")), {}, 20_000, PLACE / "node/.done"),
    "go": Candidate("Go, amqp091 + gorilla", (str(PLACE / "go-worker"),), {}, 20_000, PLACE / "go-worker"),
    "node-events": Candidate(
        "Node, the contract's events",
        ("node", str(PLACE / "node/worker.js")),
        {"EVENTS": "contract"},
        20_000,
        PLACE / "node/.done",
    ),
    "naive": Candidate(
        "naive aio-pika on uvloop",
        (_PYTHON, str(_PEERS / "naive.py")),
        {"LOOP": "uvloop"},
        5_000,
        PLACE / "python/.done",
    ),
    "naive-events": Candidate(
        "naive, the contract's events",
        (_PYTHON, str(_PEERS / "naive.py")),
        {"LOOP": "uvloop", "EVENTS": "contract"},
        5_000,
        PLACE / "python/.done",
    ),
    "naive-asyncio": Candidate(
        "naive aio-pika on asyncio", (_PYTHON, str(_PEERS / "naive.py")), {}, 4_000, PLACE / "python/.done"
    ),
    "faststream": Candidate(
        "FastStream on uvloop", (_PYTHON, str(_PEERS / "faststream_app.py")), {}, 3_000, PLACE / "python/.done"
    ),
}


class Running:
    """A candidate's process, from ``with`` to the end of its block. ``ops_port`` answers only for our worker."""

    def __init__(
        self, candidate: Candidate, amqp_url: str, venue_url: str, settings: Mapping[str, str] | None = None
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.ops_port: int = probe.getsockname()[1]
        environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("CANCEL_WORKER")},
            "AMQP_URL": amqp_url,
            "VENUE_URL": venue_url,
            "CANCEL_WORKER__BROKER__URL": amqp_url,
            "CANCEL_WORKER__VENUE__URL": venue_url,
            "CANCEL_WORKER__VENUE__API_KEY": "BENCHMARKKEY",
            "CANCEL_WORKER__VENUE__API_SECRET": "only4benchmarks",
            "CANCEL_WORKER__OPS__PORT": str(self.ops_port),
            **candidate.environment,
            **(settings or {}),
        }
        with candidate.log.open("wb") as output:
            self._process = subprocess.Popen(
                candidate.command, env=environment, cwd=PLACE, stdout=output, stderr=output
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
