"""Fixtures that every part may use, and how the tests run: uvloop as in production, one time unit, one shared broker.

broker            a part of a real RabbitMQ for this test alone (tests/support/broker.py)
own_node          the node behind it, to be looked at only
private_node      a RabbitMQ node for this test alone, to be killed, paused or starved
private_cluster   three of them as one cluster
certificates      a throw-away authority with files for servers and clients
promtool          the path of Prometheus's own checker of rules and metrics

A server that is there already may be used instead of a node of our own (private nodes are always our own):
CANCEL_WORKER_TEST_BROKER             its amqp:// or amqps:// URL, with user, password and vhost
CANCEL_WORKER_TEST_BROKER_MANAGEMENT  its management API with user and password, http://...; a vhost per test then, else
                                      all tests share the URL's vhost and tell their objects apart by a prefix
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NoReturn

import hypothesis
import pytest
import uvloop

from tests.support.broker import Broker
from tests.support.certificates import Certificates
from tests.support.shared_node import end_shared_node, in_ci, shared_node
from tests.support.timing import SECOND
from worker.demo import cluster
from worker.demo.installation import NodeMissingError
from worker.demo.node import PrivateNode

TEST_TIMEOUT_S = 60
_RUN = pytest.StashKey[tuple[Path, int]]()

hypothesis.settings.register_profile("default", deadline=None, print_blob=True)
hypothesis.settings.register_profile("thorough", deadline=None, print_blob=True, max_examples=5000)
hypothesis.settings.load_profile(os.environ.get("CANCEL_WORKER_TEST_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    """Settle where the run's shared node would live, and which process owns it: the one that starts the others."""
    given: dict[str, object] | None = getattr(config, "workerinput", None)
    if given is None:
        config.stash[_RUN] = Path(tempfile.gettempdir(), f"cancel-worker-tests.{uuid.uuid4().hex[:12]}"), os.getpid()
    else:
        config.stash[_RUN] = Path(str(given["run_directory"])), int(str(given["run_pid"]))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    directory, pid = node.config.stash[_RUN]  # type: ignore[attr-defined]
    node.workerinput |= {"run_directory": str(directory), "run_pid": pid}  # type: ignore[attr-defined]


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput") and _RUN in config.stash:
        end_shared_node(config.stash[_RUN][0])


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"broker", "own_node", "private_node", "private_cluster"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.broker)
        if SECOND != 1 and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S * SECOND))


@pytest.fixture(scope="session")
def own_node(request: pytest.FixtureRequest) -> PrivateNode:
    """The node behind ``broker``, shared by all tests: look at it, do nothing to it."""
    directory, owner_pid = request.config.stash[_RUN]
    try:
        return shared_node(directory, owner_pid)
    except NodeMissingError as error:
        _without_rabbitmq(error)


@pytest.fixture
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    """A vhost of the shared node for this test alone; of the given server's if CANCEL_WORKER_TEST_BROKER is set."""
    given = os.environ.get("CANCEL_WORKER_TEST_BROKER")
    management = os.environ.get("CANCEL_WORKER_TEST_BROKER_MANAGEMENT")
    if given is None:
        node: PrivateNode = request.getfixturevalue("own_node")
        made = await Broker.with_own_vhost(node.url, node.management_url, node)
    elif management:
        made = await Broker.with_own_vhost(given, management.rstrip("/"), None)
    else:
        made = Broker.with_prefix(given)
    async with made:
        yield made


@pytest.fixture
async def private_node() -> AsyncIterator[PrivateNode]:
    """A running node that this test may kill (some five seconds). ``Broker.on(node)`` gives the helpers."""
    try:
        node = PrivateNode()
    except NodeMissingError as error:
        _without_rabbitmq(error)
    async with node:
        yield node


@pytest.fixture
async def private_cluster() -> AsyncIterator[tuple[PrivateNode, ...]]:
    """Three running nodes of one cluster (some ten seconds); mark the test slow."""
    try:
        running = cluster.private_cluster()
        async with running as nodes:
            yield nodes
    except NodeMissingError as error:
        _without_rabbitmq(error)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def promtool() -> str:
    """The path of promtool, where tools/get_promtool.sh finds or puts it."""
    fetched = Path(__file__).resolve().parents[1] / ".cache" / "promtool"
    found = shutil.which("promtool") or shutil.which("promtool", path=str(fetched))
    if found is None:
        pytest.skip("no promtool: neither on PATH nor fetched by tools/get_promtool.sh")
    return found


def _without_rabbitmq(error: NodeMissingError) -> NoReturn:
    if in_ci():
        pytest.fail(str(error), pytrace=False)
    pytest.skip(str(error))
