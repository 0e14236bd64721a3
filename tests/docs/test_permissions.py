"""The broker permissions that docs/operations.md asks for are enough, and no more than it says."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from tests.docs.pages import REPOSITORY
from tests.process.harness import Stage
from tests.support.broker import Broker

pytestmark = [pytest.mark.broker, pytest.mark.process]

_ROW = re.compile(r"^\| (true|false) \| `(.+?)` \| `(.+?)` \| `(.+?)` \|$", re.MULTILINE)


def documented(declare: str) -> dict[str, str]:
    """The three patterns of the page's table for this value of broker.declare."""
    page = (REPOSITORY / "docs/operations.md").read_text().replace("\\|", "\x00")
    rows = {row[1]: row for row in _ROW.finditer(page)}
    return {name: rows[declare][n].replace("\x00", "|") for n, name in enumerate(("configure", "write", "read"), 2)}


@pytest.fixture
async def restricted(broker: Broker) -> AsyncIterator[str]:
    """The name and password of a user who may do nothing yet."""
    if broker.management is None:
        pytest.skip("users are made through the broker's management API")
    name = f"worker-{uuid.uuid4().hex[:12]}"
    await broker.api("PUT", f"users/{name}", {"password": name, "tags": ""})
    yield name
    await broker.api("DELETE", f"users/{name}")


@pytest.mark.parametrize("declare", ["true", "false"])
async def test_the_documented_permissions_let_the_worker_work(
    declare: str, broker: Broker, restricted: str, tmp_path: Path
) -> None:
    await broker.api("PUT", f"permissions/{broker.vhost}/{restricted}", documented(declare))
    parts = urlsplit(broker.url)
    url = urlunsplit(parts._replace(netloc=f"{restricted}:{restricted}@{parts.hostname}:{parts.port}"))
    async with Stage(broker, tmp_path) as stage:
        await stage.open()
        await stage.declare()
        await broker.declare_queue("answers", kind="classic")
        worker = stage.worker(broker__url=url, broker__declare=declare == "true")
        worker.spawn()
        await worker.until_ready()
        (order_id,) = stage.place(1)
        await broker.publish(
            "cancel.commands",
            "kill",
            b'{"data":[{"Symbol":"BTC-USD","OrderID":"%s"}],"type":"OrderCancelRequest"}' % order_id.encode(),
            message_id=str(uuid.uuid4()),
            reply_to="answers",
        )
        (answer,) = await broker.take("answers", 1)
        assert answer.type == "canceled"
        mass = b'{"data":[{"MassCancelRequestType":"AllOrders"}],"type":"OrderMassCancelRequest"}'
        await broker.publish(
            "cancel.commands",
            "kill",
            mass,
            message_id=str(uuid.uuid4()),
            reply_to="answers",
            headers={"x-death": "once"},
        )
        (answer,) = await broker.take("answers", 1)
        assert answer.type == "mass_canceled"
        assert worker.log_events("audit_search_failed") == []
        assert await worker.terminate() == 0
