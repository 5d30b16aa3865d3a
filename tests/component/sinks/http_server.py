"""An HTTP endpoint as a process: keeps what it gets in files, and fails as a file tells it to.

Run as a program it serves; `HttpServer` starts it. Its orders stand in `orders.json`, read for each request:
`{"status": 429, "headers": {...}, "authorization": "Bearer ...", "limit": bytes}`.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
from pathlib import Path

from aiohttp import web

from component.sinks.server import Server

HERE = Path(__file__).resolve()


class HttpServer(Server):
    """The endpoint, seen from a test."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/events"

    def prepare(self, **orders):
        if orders:
            self.order(**orders)
        program = f"import sys; sys.path.insert(0, {str(HERE.parents[2])!r}); "
        program += "from component.sinks.http_server import main; main()"
        return [sys.executable, "-c", program, str(self._folder), str(self.port)], {**os.environ}

    def order(self, **orders):
        """Have it answer otherwise from now on."""
        (self._folder / "orders.new").write_text(json.dumps(orders))
        (self._folder / "orders.new").rename(self._folder / "orders.json")

    async def stored(self):
        """Give `(headers, body)` of all requests that were accepted, in order."""
        lines = (self._folder / "accepted").read_text().splitlines() if (self._folder / "accepted").exists() else []
        return [(found["headers"], bytes.fromhex(found["body"])) for found in map(json.loads, lines)]

    def seen(self):
        """Count all requests, whatever their answer."""
        return len((self._folder / "seen").read_text()) if (self._folder / "seen").exists() else 0


async def accept(request):
    folder = request.app["folder"]
    orders = json.loads((folder / "orders.json").read_text()) if (folder / "orders.json").exists() else {}
    body = await request.read()
    with (folder / "seen").open("a") as seen:
        seen.write(".")
    if "authorization" in orders and request.headers.get("authorization") != orders["authorization"]:
        return web.Response(status=401, text=f"not with {request.headers.get('authorization')}")
    if len(body) > orders.get("limit", 2**30):
        return web.Response(status=413)
    if "status" in orders:
        return web.Response(status=orders["status"], headers=orders.get("headers"), text="come back later")
    with (folder / "accepted").open("a") as accepted:
        accepted.write(json.dumps({"headers": dict(request.headers), "body": body.hex()}) + "\n")
    return web.Response(status=202)


def main():
    """Serve until killed."""
    app = web.Application(client_max_size=2**30)
    app["folder"] = Path(sys.argv[1])
    app.router.add_post("/events", accept)
    orders = app["folder"] / "orders.json"
    found = json.loads(orders.read_text()).get("certificates") if orders.exists() else None
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[2]), print=None, access_log=None, ssl_context=context(found))


def context(folder):
    """Give the TLS context that asks for certificates, where there is a folder with ours."""
    if folder is None:
        return None
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=f"{folder}/ca.crt")
    made.load_cert_chain(f"{folder}/tls.crt", f"{folder}/tls.key")
    made.verify_mode = ssl.CERT_REQUIRED
    return made
