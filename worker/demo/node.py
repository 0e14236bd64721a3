"""A RabbitMQ node of one's own, for the demo, the tests and the benchmarks.

Everything of a node lives in one directory: data, log, Erlang cookie, process ids. It listens on loopback alone, on
ports that were free when it was made; it has an epmd of its own; it reads nothing from /etc and needs no root. It ends
with ``close()``, at the latest when the process that owns it does (see guard.py).

    async with PrivateNode() as node:
        connection = await aio_pika.connect(node.url)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from worker.demo import guard
from worker.demo.identity import Identity, environment_of, load_or_make
from worker.demo.installation import NodeError, NodeMissingError, find_rabbitmq

__all__ = ["NodeError", "NodeMissingError", "PrivateNode"]

_PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"
_POLL_S: Final = 0.05
_ERROR_LINE: Final = re.compile(r"\[(?:error|critical)\] <[\d.]+> *(\S.*)")


class PrivateNode:
    """One node, not yet started when constructed; ``start`` after ``stop`` or ``kill`` goes on with the old data."""

    def __init__(
        self,
        directory: Path | None = None,
        *,
        name: str = "r1",
        peer: PrivateNode | None = None,
        tls: Path | None = None,
        settings: Mapping[str, str] | None = None,
        owner_pid: int | None = None,
        temporary: bool = False,
    ) -> None:
        """Choose ports and write the configuration.

        ``directory``: where to live; None makes one that ``close`` removes. ``peer``: a running node whose cluster this
        one joins at its first start. ``tls``: a folder with ca.pem, server.pem and server.key. ``settings``: lines for
        rabbitmq.conf that win over ours. ``owner_pid``: the process whose end ends the node, None for this one.
        ``temporary``: a given directory too is removed when the node is closed or its owner gone.
        Raises NodeMissingError if there is no RabbitMQ on this machine.
        """
        self._rabbitmq = find_rabbitmq()
        self._removed_on_close = temporary or directory is None
        self._owner_pid = owner_pid or os.getpid()
        self._children: set[int] = set()
        self.directory = Path(directory or tempfile.mkdtemp(prefix="cancel-worker-node.")).resolve()
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.identity: Identity = load_or_make(
            self.directory, name, peer.identity if peer else None, tls, settings or {}
        )

    @property
    def url(self) -> str:
        """AMQP URL of the default vhost, with user and password."""
        return f"amqp://{self._credentials}@127.0.0.1:{self.identity.ports.amqp}/"

    @property
    def tls_url(self) -> str:
        """The same over TLS; the certificate has to name ``localhost``."""
        return f"amqps://{self._credentials}@localhost:{self.identity.ports.amqps}/"

    @property
    def management_url(self) -> str:
        """HTTP API of the management plugin, with user and password, without a slash at its end."""
        return f"http://{self._credentials}@127.0.0.1:{self.identity.ports.management}"

    @property
    def prometheus_url(self) -> str:
        return f"http://127.0.0.1:{self.identity.ports.prometheus}/metrics"

    @property
    def pid(self) -> int | None:
        """Process id of the Erlang machine, None while it does not run."""
        try:
            pid = int((self.directory / "pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if pid in guard.processes_of(self.directory) else None

    @property
    def running(self) -> bool:
        return self.pid is not None

    async def start(self, within_s: float = 60.0) -> None:
        """Start the node and return once AMQP, management and streams answer.

        Raises NodeError if it ends, or does not answer within ``within_s`` seconds; nothing runs then.
        """
        if self.running:
            return
        try:
            async with asyncio.timeout(within_s):
                self._start_guard()
                await self._start_epmd()
                (self.directory / "pid").unlink(missing_ok=True)
                launcher = self._spawn(str(self._rabbitmq.scripts / "rabbitmq-server"), log="start.out")
                while not await self._answers():
                    if not guard.is_alive(launcher):
                        raise NodeError(f"RabbitMQ ended while it started: {self._last_words()}")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            await self._end_everything()
            raise NodeError(f"RabbitMQ did not answer within {within_s:g} s: {self._last_words()}") from None
        except BaseException:
            await self._end_everything()
            raise

    async def stop(self, within_s: float = 30.0) -> None:
        """Shut the node down in good order; some six seconds, since the HTTP plugins drain. The data stay."""
        await self._end_node(signal.SIGTERM, within_s)

    async def kill(self) -> None:
        """SIGKILL: what a crash of the broker looks like. The data stay as they were on disk."""
        await self._end_node(signal.SIGKILL, 10.0)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, nothing answers."""
        os.kill(self._running_pid(), signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self._running_pid(), signal.SIGCONT)

    async def ctl(self, *arguments: str, tool: str = "rabbitmqctl", within_s: float = 60.0) -> str:
        """Run rabbitmqctl (or another tool of RabbitMQ's) on this node, return what it prints; about half a second.

        Raises NodeError with its complaint if it fails.
        """
        command = [str(self._rabbitmq.scripts / tool), *arguments]
        try:
            # In a thread, not as a subprocess of the loop: a loop that ends early would leave its pipes open.
            done = await asyncio.to_thread(
                subprocess.run,
                command,
                env=self._environment(),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=within_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NodeError(f"{tool} {arguments[0] if arguments else ''} took more than {within_s:g} s") from None
        if done.returncode:
            reason = " ".join((done.stderr or done.stdout).split())
            raise NodeError(f"{tool} {arguments[0] if arguments else ''} failed: {reason[:300]}")
        return done.stdout

    async def close(self) -> None:
        """End the node, its epmd and its guard at once, and remove the directory if we made it; may be repeated."""
        await self._end_everything()
        if self._removed_on_close:
            await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def _credentials(self) -> str:
        return f"{self.identity.user}:{self.identity.password}"

    def _running_pid(self) -> int:
        pid = self.pid
        if pid is None:
            raise NodeError("the node does not run")
        return pid

    def _environment(self) -> dict[str, str]:
        return environment_of(self.directory, self.identity, self._rabbitmq.search_path)

    def _spawn(self, *command: str, log: str, environment: dict[str, str] | None = None) -> int:
        """Start a process that is bound to nothing of ours: a session of its own, no terminal, no event loop."""
        writing = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        pid = os.posix_spawnp(
            "env",
            ["env", "-C", str(self.directory), *command],
            environment or self._environment(),
            setsid=True,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.directory / "log" / log), writing, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
        )
        self._children.add(pid)
        return pid

    def _start_guard(self) -> None:
        if self._guard_pid() is not None:
            return
        afterwards = "remove" if self._removed_on_close else "keep"
        script = (sys.executable, "-I", "-S", guard.__file__)
        arguments = (str(self._owner_pid), str(self.directory), afterwards)
        pid = self._spawn(*script, *arguments, log="guard.out", environment={"PATH": os.defpath})
        (self.directory / "guard.pid").write_text(str(pid))

    def _guard_pid(self) -> int | None:
        try:
            pid = int((self.directory / "guard.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if os.fsencode(self.directory) in command else None

    async def _start_epmd(self) -> None:
        """Our own epmd: left to itself Erlang starts a daemon that outlives the node."""
        port = self.identity.ports.epmd
        if not await _accepts(port):
            self._spawn("epmd", "-address", "127.0.0.1", "-port", str(port), log="epmd.out")
            while not await _accepts(port):
                await asyncio.sleep(_POLL_S)

    async def _answers(self) -> bool:
        ports = self.identity.ports
        if not await _accepts(ports.amqp, _PROTOCOL_HEADER, b"\x01"):  # a method frame: Connection.Start
            return False
        return await _accepts(ports.management) and await _accepts(ports.stream)

    async def _end_node(self, how: signal.Signals, within_s: float) -> None:
        pid = self.pid
        if pid is None:
            return
        os.kill(pid, how)
        if not await _until(lambda: not guard.is_alive(pid), within_s):
            os.kill(pid, signal.SIGKILL)
            await _until(lambda: not guard.is_alive(pid), 10.0)
        self._reap()

    async def _end_everything(self) -> None:
        guardian = self._guard_pid()
        left = await asyncio.to_thread(guard.kill_all, self.directory)
        if guardian is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(guardian, signal.SIGKILL)
            await _until(lambda: not guard.is_alive(guardian), 5.0)
        self._reap()
        if left:
            raise NodeError(f"processes {left} of the node in {self.directory} cannot be ended")

    def _reap(self) -> None:
        """Take the exit status of our children that have ended, so that none of them stays a zombie."""
        for pid in tuple(self._children):
            if not guard.is_alive(pid):
                self._children.discard(pid)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _last_words(self) -> str:
        """Why the node did not start, as far as it said so: its first error, else the last thing it said."""
        logs = (self.directory / "log" / "start.out", *sorted((self.directory / "log").glob("*.log")))
        text = "\n".join(log.read_text(errors="replace") for log in logs if log.exists())
        errors = _ERROR_LINE.findall(text) or [line for line in text.splitlines() if line.strip()][-1:]
        return errors[0].strip()[:400] if errors else "it said nothing"


async def _accepts(port: int, said: bytes = b"", expected: bytes = b"") -> bool:
    """True if something listens there and, where ``said`` is not empty, answers it with ``expected`` first."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        writer.write(said)
        async with asyncio.timeout(2.0):
            return not expected or await reader.read(len(expected)) == expected
    except (OSError, TimeoutError):
        return False
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _until(condition: Callable[[], bool], within_s: float) -> bool:
    end = time.monotonic() + within_s
    while not (holds := condition()) and time.monotonic() < end:
        await asyncio.sleep(_POLL_S)
    return holds
