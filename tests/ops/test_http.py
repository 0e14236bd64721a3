"""The endpoint over a real socket: statuses, methods, bodies, and a port that is taken (contract 8)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import msgspec
import pytest

from worker.core.stats import Stats
from worker.errors import OpsError
from worker.ops.http import OpsServer
from worker.ops.metrics import Exposition, WorkerCollector


class View:
    """A worker's state, to be set by the test."""

    def __init__(self) -> None:
        self.why_not: list[str] = []
        self.state: Mapping[str, Any] = {"worker": "w"}
        self.bug: Exception | None = None
        self.exposition = Exposition(WorkerCollector(Stats(), "1", "", lambda: 0))

    def reasons(self) -> list[str]:
        return self.why_not

    def status(self) -> Mapping[str, Any]:
        if self.bug is not None:
            raise self.bug
        return self.state

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return self.exposition.text(accept)


@pytest.fixture
def view() -> View:
    return View()


@pytest.fixture
async def server(view: View) -> AsyncIterator[OpsServer]:
    server = OpsServer("127.0.0.1", 0, view)
    await server.start()
    yield server
    await server.close()


@pytest.fixture
async def http(server: OpsServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
        yield session


async def test_alive_while_the_loop_turns(http: aiohttp.ClientSession, view: View) -> None:
    view.why_not = ["nothing works"]
    async with http.get("/livez") as answer:
        assert (answer.status, await answer.text()) == (200, "alive\n")


async def test_ready_when_there_is_no_reason_against_it(http: aiohttp.ClientSession) -> None:
    async with http.get("/readyz") as answer:
        assert (answer.status, answer.content_type) == (200, "application/json")
        assert await answer.json() == {"ready": True, "reasons": []}


async def test_not_ready_gives_503_and_the_reasons(http: aiohttp.ClientSession, view: View) -> None:
    view.why_not = ["queue cancel.kill is missing", "cannot reach amqp://me:hunter2@rabbit/"]
    async with http.get("/readyz") as answer:
        assert (answer.status, answer.content_type) == (503, "application/json")
        assert await answer.json() == {
            "ready": False,
            "reasons": ["queue cancel.kill is missing", "cannot reach amqp://me:***@rabbit/"],
        }


async def test_metrics_are_prometheus_text(http: aiohttp.ClientSession) -> None:
    async with http.get("/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        assert b"cancel_worker_build_info" in await answer.read()
    async with http.get("/metrics", headers={"Accept": "application/openmetrics-text"}) as answer:
        assert answer.content_type == "application/openmetrics-text"


async def test_status_is_json(http: aiohttp.ClientSession, view: View) -> None:
    view.state = {"last_errors": ["amqp://me:hunter2@rabbit/"], "lanes": {"kill": 1}}
    async with http.get("/status") as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        body = msgspec.json.decode(await answer.read())
        assert body == {"last_errors": ["amqp://me:***@rabbit/"], "lanes": {"kill": 1}}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/status"])
async def test_head_is_get_without_the_body(http: aiohttp.ClientSession, path: str) -> None:
    async with http.head(path) as answer:
        assert answer.status == 200
        assert int(answer.headers["Content-Length"]) > 0
        assert await answer.read() == b""


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_nothing_can_be_written(http: aiohttp.ClientSession, method: str) -> None:
    async with http.request(method, "/readyz") as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET,HEAD"


@pytest.mark.parametrize("path", ["/", "/livez/", "/metrics/x", "/..", "/status%00"])
async def test_there_is_nothing_else(http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(path) as answer:
        assert answer.status == 404


async def test_a_view_that_fails_shows_no_traceback(http: aiohttp.ClientSession, view: View) -> None:
    view.bug = RuntimeError("hunter2")
    async with http.get("/status") as answer:
        assert answer.status == 500
        body = await answer.text()
    assert not [word for word in ("Traceback", "RuntimeError", "hunter2", ".py") if word in body]
    async with http.get("/livez") as answer:
        assert answer.status == 200


async def test_bytes_that_are_no_http_do_no_harm(server: OpsServer, http: aiohttp.ClientSession) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"\x00\xff AMQP\r\n\r\n")
    assert b"400" in await reader.readline()
    writer.close()
    await writer.wait_closed()
    async with http.get("/livez") as answer:
        assert answer.status == 200


async def test_a_port_that_is_taken_is_told_in_one_line(server: OpsServer, view: View) -> None:
    other = OpsServer("127.0.0.1", server.port, view)
    with pytest.raises(OpsError) as caught:
        await other.start()
    line = str(caught.value)
    assert line.startswith(f"cannot listen on ops.host 127.0.0.1 ops.port {server.port}: ")
    assert "address already in use" in line
    assert "\n" not in line
    assert caught.value.exit_status == 1
    await other.close()


async def test_a_host_that_is_not_ours_is_told_in_one_line(view: View) -> None:
    with pytest.raises(OpsError, match=r"\Acannot listen on ops\.host 192\.0\.2\.1 ops\.port 0: [^\n]+\Z"):
        await OpsServer("192.0.2.1", 0, view).start()


async def test_closing_twice_or_before_the_start_is_fine(view: View) -> None:
    server = OpsServer("127.0.0.1", 0, view)
    await server.close()
    await server.start()
    port = server.port
    await server.close()
    await server.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
