"""The API server as the chaos suite sees it: a few verbs, and views of objects that are kept up to date by watches.

`View` lists and watches one kind in one namespace. Where the server is away it tries again for ever; what it knew stays.
`until` waits for a condition over the objects that is asked after every change: no polling, no sleeping.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import yaml

Object = dict[str, Any]
RANGES = "/apis/shardwright.dev/v1alpha1/namespaces/{}/shardranges"
GATEWAYS = "/apis/shardwright.dev/v1alpha1/namespaces/{}/discordgateways"
PODS = "/api/v1/namespaces/{}/pods"
_RETRY = 0.25


class NotInTime(Exception):
    """What was waited for did not come; the message says what was there instead."""


class ApiFailed(Exception):
    """The API server refused; `status` is its HTTP status."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text[:300]}")
        self.status = status


class Api:
    """A client of the API server, as an administrator."""

    def __init__(self, kubeconfig: Path) -> None:
        loaded = yaml.safe_load(kubeconfig.read_text())
        cluster, user = loaded["clusters"][0]["cluster"], loaded["users"][0]["user"]
        self._server = cluster["server"]
        tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
        headers = {"Authorization": f"Bearer {user['token']}"}
        self.session = aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=tls))

    async def __call__(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """Make one call; give its JSON. Raise `ApiFailed`."""
        data = json.dumps(body) if body is not None else None
        timeout = aiohttp.ClientTimeout(total=15)
        async with self.session.request(
            method, self._server + path, data=data, headers={"Content-Type": kind}, timeout=timeout
        ) as answer:
            text = await answer.text()
            if answer.status >= 300:
                raise ApiFailed(answer.status, text)
            return json.loads(text)

    async def patch(self, path: str, **change: Any) -> Any:
        """Merge a change into an object."""
        return await self("PATCH", path, change, "application/merge-patch+json")

    def stream(self, path: str) -> Any:
        """Open a watch."""
        return self.session.get(self._server + path, timeout=aiohttp.ClientTimeout(total=None, sock_connect=5))


class Views:
    """Several views, and the one place where waits for any of them are woken."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Say that something has changed."""
        self._woken.set()

    async def until(self, what: str, probe: Callable[[], Any], *, seconds: float) -> Any:
        """Wait until `probe` gives something true, and return it. Raise `NotInTime` with what it gave last."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not (found := probe()):
            left = end - loop.time()
            if left <= 0:
                raise NotInTime(f"{what}: not within {seconds:g} s; last seen: {found!r}")
            self._woken.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), min(left, 1.0))
        return found


class View:
    """The objects of one kind in a namespace, by name."""

    def __init__(self, api: Api, path: str, views: Views, *, changed: Callable[[Object], None] | None = None) -> None:
        self.objects: dict[str, Object] = {}
        self._api = api
        self._path = path
        self._views = views
        self._changed = changed

    def __iter__(self) -> Any:
        """Give the objects."""
        return iter(list(self.objects.values()))

    async def run(self) -> None:
        """Keep up to date until cancelled."""
        while True:
            with contextlib.suppress(ApiFailed, aiohttp.ClientError, TimeoutError, OSError, ValueError):
                await self._follow()
            await asyncio.sleep(_RETRY)

    async def _follow(self) -> None:
        listed = await self._api("GET", self._path)
        self.objects = {item["metadata"]["name"]: item for item in listed["items"]}
        for item in self:
            self._tell(item)
        version = listed["metadata"]["resourceVersion"]
        async with self._api.stream(f"{self._path}?watch=1&resourceVersion={version}") as answer:
            async for line in answer.content:
                event = json.loads(line)
                self._apply(event["type"], event["object"])

    def _apply(self, kind: str, item: Object) -> None:
        if kind == "ERROR":
            raise ValueError(item)
        if kind == "DELETED":
            self.objects.pop(item["metadata"]["name"], None)
        else:
            self.objects[item["metadata"]["name"]] = item
        self._tell(item)

    def _tell(self, item: Object) -> None:
        if self._changed is not None:
            self._changed(item)
        self._views.wake()
