"""The HTTP endpoint of contract 8: GET and HEAD of ``/livez``, ``/readyz``, ``/metrics`` and ``/status``, nothing else.

It runs in the worker's own loop on purpose: a loop that is stuck cannot answer, so the liveness probe fails as it
should.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from worker.config.secret import mask_url
from worker.errors import OpsError

if TYPE_CHECKING:
    from aiohttp import web

_CLOSE_S: Final = 1.0  # for requests that are under way when the endpoint closes; probes are short


class OpsView(Protocol):
    """What the endpoint shows. Called in the loop; must be quick and must not wait."""

    def reasons(self) -> list[str]:
        """Why the worker is not ready, in words for an operator; empty: it is."""

    def status(self) -> Mapping[str, Any]:
        """The object of ``/status``, of plain values."""

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """``(body, content type)`` of ``/metrics`` for this ``Accept`` header."""


class OpsServer:
    """Serves one view. ``start`` once, then ``close``; closing before the start, or twice, is fine."""

    def __init__(self, host: str, port: int, view: OpsView) -> None:
        """``port`` 0 takes any free one; whether ``ops.port`` 0 means off is for the caller to ask."""
        self._host = host
        self._port = port
        self._view = view
        self._runner: web.AppRunner | None = None

    @property
    def port(self) -> int:
        """The port in use; after ``start`` the real one."""
        return self._port

    async def start(self) -> None:
        """Listen. Raises OpsError if address and port cannot be had."""
        from aiohttp import web  # 0.2 s to import, and off in many runs

        app = web.Application()
        app.router.add_get("/livez", self._answer(self._livez))
        app.router.add_get("/readyz", self._answer(self._readyz))
        app.router.add_get("/metrics", self._answer(self._metrics))
        app.router.add_get("/status", self._answer(self._status))
        runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=_CLOSE_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except (OSError, OverflowError) as error:
            await runner.cleanup()
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise OpsError(f"cannot listen on ops.host {self._host} ops.port {self._port}: {reason}") from error
        self._runner = runner
        self._port = runner.addresses[0][1]

    async def close(self) -> None:
        """Stop listening and end what is open."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def _answer(
        self, answer: Callable[[web.Request], tuple[int, bytes, str]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        from aiohttp import web

        async def respond(request: web.Request) -> web.Response:
            status, body, content_type = answer(request)
            headers = {"Content-Type": content_type, "Cache-Control": "no-store"}
            return web.Response(status=status, body=body, headers=headers)

        return respond

    def _livez(self, request: web.Request) -> tuple[int, bytes, str]:
        return 200, b"alive\n", "text/plain; charset=utf-8"

    def _readyz(self, request: web.Request) -> tuple[int, bytes, str]:
        reasons = self._view.reasons()
        return 503 if reasons else 200, _json({"ready": not reasons, "reasons": reasons}), "application/json"

    def _metrics(self, request: web.Request) -> tuple[int, bytes, str]:
        body, content_type = self._view.metrics(request.headers.get("Accept", ""))
        return 200, body, content_type

    def _status(self, request: web.Request) -> tuple[int, bytes, str]:
        return 200, _json(self._view.status()), "application/json"


def _json(value: Mapping[str, Any]) -> bytes:
    """JSON for people, without any URL's password."""
    text = msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2)
    return mask_url(text.decode()).encode() + b"\n"
