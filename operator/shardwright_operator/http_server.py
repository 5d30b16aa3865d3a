"""The operator's own HTTP: `/healthz` (it works), `/readyz` (its caches are filled), `/metrics`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Check = Callable[[], str]
"""Gives why the answer is no; an empty string is yes."""

_OK = 200
_UNAVAILABLE = 503


class HttpServer:
    """Serves probes and metrics."""

    def __init__(self, *, health: Check, readiness: Check, metrics: Callable[[], bytes], content_type: str) -> None:
        app = web.Application()
        app.router.add_get("/healthz", _probe(health))
        app.router.add_get("/readyz", _probe(readiness))
        app.router.add_get("/metrics", _scrape(metrics, content_type))
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self, host: str, port: int) -> None:
        """Listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()

    async def stop(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()


def _probe(check: Check) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        trouble = check()
        return web.Response(text=trouble or "ok", status=_UNAVAILABLE if trouble else _OK)

    return answer


def _scrape(metrics: Callable[[], bytes], content_type: str) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=metrics(), headers={"Content-Type": content_type})

    return answer
