"""Fixture: a stage with the broker of this test; every test here starts the worker as a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.process.harness import Stage
from tests.support.broker import Broker
from tests.support.timing import SECOND

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.process)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(120 * SECOND))


@pytest.fixture
async def stage(broker: Broker, tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage that is not open yet: ``await stage.open(script)``."""
    if broker.prefix:
        pytest.skip("a worker needs a vhost of its own: give the broker's management API as well")
    async with Stage(broker, tmp_path) as made:
        yield made
