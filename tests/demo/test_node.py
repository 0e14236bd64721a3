"""A private node: one command's worth of RabbitMQ that leaves nothing behind, however its owner ends."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

import aio_pika
import aiohttp
import pytest

from tests.support.broker import Broker
from tests.support.certificates import Certificates
from tests.support.timing import SECOND, eventually
from worker.demo import guard
from worker.demo.installation import find_rabbitmq
from worker.demo.node import NodeError, NodeMissingError, PrivateNode

pytestmark = pytest.mark.broker


def listening_addresses(pids: list[int]) -> set[str]:
    """Local addresses of the listening TCP sockets of these processes, in the kernel's hexadecimal form."""
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                sockets.add(str(descriptor.readlink()))
            except FileNotFoundError:
                continue
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == "0A" and f"socket:[{columns[9]}]" in sockets:
                found.add(columns[1].rpartition(":")[0])
    return found


async def test_a_started_node_answers_on_every_port_it_names(own_node: PrivateNode) -> None:
    connection = await aio_pika.connect(own_node.url, timeout=10 * SECOND)
    await connection.close()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{own_node.management_url}/api/overview") as answer:
            assert answer.status == 200
            assert (await answer.json())["node"] == own_node.identity.name
        async with session.get(own_node.prometheus_url) as answer:
            assert "rabbitmq_identity_info" in await answer.text()


async def test_every_socket_of_a_node_is_on_loopback(own_node: PrivateNode) -> None:
    assert listening_addresses(guard.processes_of(own_node.directory)) <= {
        "0100007F",
        "00000000000000000000000001000000",
    }  # 127.0.0.1 and ::1


@pytest.mark.slow
async def test_what_was_confirmed_survives_a_kill_and_a_stop(private_node: PrivateNode) -> None:
    async with Broker.on(private_node) as broker:
        await broker.declare_queue("kept")
        await broker.publish("", "kept", b"first")
        await broker.publish("", "kept", b"second")
        await asyncio.sleep(3 * SECOND)  # a queue declared seconds before a kill may stay away for minutes (3.10.8)
    await private_node.kill()
    assert not private_node.running
    with pytest.raises(NodeError, match="does not run"):
        private_node.pause()
    await private_node.start()
    async with Broker.on(private_node) as broker:
        assert [message.body for message in await broker.take("kept", 1, within_s=20 * SECOND)] == [b"first"]
    await private_node.stop()
    assert not private_node.running
    await private_node.start()
    async with Broker.on(private_node) as broker:
        assert [message.body for message in await broker.take("kept", 1, within_s=20 * SECOND)] == [b"second"]


async def test_a_node_speaks_tls_and_leaves_nothing_when_closed(certificates: Certificates) -> None:
    async with PrivateNode(tls=certificates.folder) as node:
        context = certificates.client_context()
        connection = await aio_pika.connect(node.tls_url, ssl_context=context, timeout=10 * SECOND)
        await connection.close()
        assert len(guard.processes_of(node.directory)) >= 2  # Erlang and epmd
    assert guard.processes_of(node.directory) == []
    assert not node.directory.exists()
    await node.close()


async def test_a_paused_node_is_silent_until_it_is_resumed(private_node: PrivateNode) -> None:
    private_node.pause()
    with pytest.raises(TimeoutError):
        await aio_pika.connect(private_node.url, timeout=1 * SECOND)
    private_node.resume()
    connection = await aio_pika.connect(private_node.url, timeout=20 * SECOND)
    await connection.close()


async def test_ctl_returns_what_was_printed_and_names_what_failed(own_node: PrivateNode) -> None:
    assert "worker" in await own_node.ctl("list_users", "--quiet")
    with pytest.raises(NodeError, match="rabbitmqctl delete_user failed"):
        await own_node.ctl("delete_user", "nobody-of-that-name")


@pytest.mark.slow
async def test_nodes_form_one_cluster(private_cluster: tuple[PrivateNode, ...]) -> None:
    async with Broker.on(private_cluster[0]) as first, Broker.on(private_cluster[2]) as third:
        await first.declare_queue("shared")
        await first.publish("", "shared", b"to all")
        await private_cluster[1].kill()
        assert [message.body for message in await third.take("shared", 1, within_s=20 * SECOND)] == [b"to all"]


async def test_a_node_whose_owner_is_killed_ends_too(tmp_path: Path) -> None:
    program = """
import asyncio, sys
from worker.demo.node import PrivateNode
async def main():
    async with PrivateNode() as node:
        print(node.directory, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        assert owner.stdout is not None
        async with asyncio.timeout(60 * SECOND):
            directory = Path((await owner.stdout.readline()).decode().strip())
        assert guard.processes_of(directory) != []
    finally:
        owner.kill()
        await owner.communicate()
    await eventually(lambda: not guard.processes_of(directory) and not directory.exists(), within_s=10 * SECOND)


async def test_a_node_that_cannot_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    node = PrivateNode(tmp_path / "node", settings={"no_such_setting": "1"})
    with pytest.raises(NodeError, match="no_such_setting"):
        await node.start(within_s=40 * SECOND)
    assert guard.processes_of(node.directory) == []
    await node.close()


def test_a_missing_rabbitmq_is_named(tmp_path: Path) -> None:
    with pytest.raises(NodeMissingError, match=str(tmp_path)):
        find_rabbitmq({"CANCEL_WORKER_RABBITMQ": str(tmp_path)})


def test_secrets_of_a_node_are_readable_by_its_owner_alone(tmp_path: Path) -> None:
    node = PrivateNode(tmp_path / "node")
    for name in ("node.json", "rabbitmq.conf", ".erlang.cookie"):
        assert (node.directory / name).stat().st_mode & 0o077 == 0


def test_the_guard_waits_for_a_living_owner_and_only_for_it(tmp_path: Path) -> None:
    owner = subprocess.Popen(["sleep", "60"])
    script = [sys.executable, "-I", "-S", guard.__file__, str(owner.pid), str(tmp_path / "node"), "keep"]
    with owner, subprocess.Popen(script) as guarding:
        bystander = subprocess.Popen(["sleep", "60"], env={"HOME": str(tmp_path / "node")})
        with bystander:
            time.sleep(0.3 * SECOND)
            assert guarding.poll() is None
            assert bystander.poll() is None
            owner.kill()
            assert bystander.wait(10 * SECOND) == -signal.SIGKILL
        assert guarding.wait(10 * SECOND) == 0
