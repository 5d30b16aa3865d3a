"""A shard pod's own small Kubernetes client: get, patch, put and watch of single objects by name, on aiohttp.

It exists because a pod shall stay small: the official client costs 20 MB more. It decodes straight into the structs that
the caller names, and keeps no state of objects.

Every request ends within `REQUEST_SECONDS`; a watch is given up after `SILENT_SECONDS` without a byte (the API server
sends bookmarks every minute) and ends by itself after about five minutes. What goes wrong is one of:

* `CoordinatorUnavailable`: no connection, no answer in time, 5xx, 429. After a `Retry-After` nothing is sent until that
  time has passed: calls fail at once.
    * `Refused`: the API server answered 4xx. Whoever asks may know what it means; whoever does not may try again later.
        * `Forbidden` (401 after the token was read again, and 403), `NotFound` (404), `Conflict` (409), `Expired` (410),
          `Invalid` (422).

The token is read from its file every minute, and once more when the API server answers 401. It is in no message.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

import aiohttp
import msgspec

from shardwright_shard.coordination import lenient
from shardwright_shard.errors import ConfigError, CoordinatorUnavailable

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REQUEST_SECONDS: Final = 5.0
SILENT_SECONDS: Final = 70.0
WATCH_SECONDS: Final = (270, 330)
"""Range of the time after which the API server ends a watch, so that pods do not all come back at once."""
TOKEN_SECONDS: Final = 60.0
MAX_RETRY_AFTER: Final = 5.0
"""Seconds: a heartbeat must not be late by more."""
MAX_LINE: Final = 4 << 20
"""Bytes of one watch event: more than any object may have."""

T = TypeVar("T")


class Refused(CoordinatorUnavailable):
    """The API server answered 4xx."""


class Forbidden(Refused):
    """401 or 403: this pod has lost, or never had, the right."""


class NotFound(Refused):
    """404: there is no such object."""


class Conflict(Refused):
    """409: the object is not in the state that the write was meant for."""


class Expired(Refused):
    """410: the watch cannot go on from where it stood."""


class Invalid(Refused):
    """422: the object would not fit its schema, or a JSON patch's test failed."""


_REFUSALS: Final = {401: Forbidden, 403: Forbidden, 404: NotFound, 409: Conflict, 410: Expired, 422: Invalid}


class PatchType(StrEnum):
    """How a patch is written: RFC 7386 or RFC 6902."""

    MERGE = "application/merge-patch+json"
    JSON = "application/json-patch+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where the API server is, and who we are to it: a token file, or a client certificate in `tls`."""

    url: str
    tls: ssl.SSLContext
    token_file: Path | None = None


def in_cluster(environ: Mapping[str, str] = os.environ, directory: Path = SERVICE_ACCOUNT) -> Server:
    """Give the API server as every pod is told of it. Raise `ConfigError` outside a pod."""
    try:
        host, port = environ["KUBERNETES_SERVICE_HOST"], environ["KUBERNETES_SERVICE_PORT"]
        tls = ssl.create_default_context(cafile=directory / "ca.crt")
    except (KeyError, OSError) as error:
        raise ConfigError(f"not in a pod with a service account: {error} is missing") from error
    host = f"[{host}]" if ":" in host else host
    return Server(url=f"https://{host}:{port}", tls=tls, token_file=directory / "token")


class EventType(StrEnum):
    """What a watch event says of its object."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"
    ERROR = "ERROR"


class _WireEvent(msgspec.Struct):
    """A watch event as it stands on its line."""

    type: EventType
    object: msgspec.Raw


class _Status(msgspec.Struct):
    """The API server's reason for a refusal."""

    message: str = ""
    code: int = 0


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[T]):
    """An object after a change, or before its deletion."""

    type: EventType
    object: T


class Token:
    """A bearer token in a file that the kubelet renews."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = clock
        self._value = ""
        self._read_at = float("-inf")

    def header(self) -> str:
        """Give the Authorization header, at most a minute old."""
        if self._clock() - self._read_at >= TOKEN_SECONDS:
            self.refresh()
        return f"Bearer {self._value}"

    def refresh(self) -> None:
        """Read the file again."""
        try:
            self._value = self._path.read_text("ascii").strip()
        except OSError as error:
            raise CoordinatorUnavailable(f"cannot read the service account's token: {error.strerror}") from None
        self._read_at = self._clock()


class Lines:
    """Cuts a stream of bytes into lines. Raise `CoordinatorUnavailable` on one longer than `MAX_LINE`."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Give the lines that are complete now."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise CoordinatorUnavailable(f"a watch event is longer than {MAX_LINE} bytes")
        return [line for line in lines if line]


class ApiClient:
    """Requests to one API server. Connections are kept and shared; each watch has its own."""

    def __init__(self, server: Server) -> None:
        loop = asyncio.get_running_loop()
        self._clock = loop.time
        self._url = server.url
        self._token = Token(server.token_file, self._clock) if server.token_file else None
        self._not_before = 0.0
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=server.tls, limit=0, keepalive_timeout=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
            headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "shardwright-shard"},
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def get(self, path: str, kind: type[T]) -> T:
        """Read an object."""
        return _decode(await self._request("GET", path), kind)

    async def patch(self, path: str, kind: type[T], body: Any, patch_type: PatchType) -> T:
        """Patch an object and give it as stored."""
        return _decode(await self._request("PATCH", path, body=body, content_type=patch_type), kind)

    async def put(self, path: str, kind: type[T], body: Any) -> T:
        """Replace an object, conditional on the `resourceVersion` in it, and give it as stored."""
        return _decode(await self._request("PUT", path, body=body, content_type="application/json"), kind)

    @asynccontextmanager
    async def watch(self, collection: str, name: str, kind: type[T]) -> AsyncIterator[AsyncIterator[WatchEvent[T]]]:
        """Open a watch on one object, and give its events from now on, and once what the API server has in its cache.

        Bookmarks are not handed on. When the watch is open, a read of the object misses no later change.
        """
        query = {
            "watch": "1",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": "0",
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(random.randint(*WATCH_SECONDS)),  # noqa: S311 - spreads load, guards nothing
        }
        timeout = aiohttp.ClientTimeout(total=None, connect=REQUEST_SECONDS, sock_read=SILENT_SECONDS)
        async with self._answer("GET", collection, params=query, timeout=timeout) as response:
            yield _events(response, kind)

    async def _request(self, method: str, path: str, *, body: Any = None, content_type: str = "") -> bytes:
        headers = {"Content-Type": content_type} if content_type else {}
        data = msgspec.json.encode(body) if content_type else None
        async with self._answer(method, path, data=data, headers=headers) as response:
            return await response.read()

    @asynccontextmanager
    async def _answer(self, method: str, path: str, **request: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request and give a good answer; everything else is raised as this package's errors."""
        if (wait := self._not_before - self._clock()) > 0:
            raise CoordinatorUnavailable(f"the API server asked us to wait {wait:.1f} s more")
        try:
            response = await self._authorized(method, path, request)
            async with response:
                await self._check(response, method, path)
                yield response
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise CoordinatorUnavailable(f"{method} {path}: {type(error).__name__} {error}") from error

    async def _authorized(self, method: str, path: str, request: dict[str, Any]) -> aiohttp.ClientResponse:
        """Send with the token; once more with one read anew where it was not accepted."""
        response = await self._send(method, path, request)
        if response.status == 401 and self._token is not None:  # noqa: PLR2004 - HTTP
            response.release()
            self._token.refresh()
            response = await self._send(method, path, request)
        return response

    async def _send(self, method: str, path: str, request: dict[str, Any]) -> aiohttp.ClientResponse:
        headers = dict(request.get("headers", {}))
        if self._token is not None:
            headers["Authorization"] = self._token.header()
        return await self._session.request(method, self._url + path, **request | {"headers": headers})

    async def _check(self, response: aiohttp.ClientResponse, method: str, path: str) -> None:
        """Raise unless the answer is good."""
        if response.ok:
            return
        message = f"{method} {path}: {response.status} {_message(await response.read())}"
        if response.status in (429, 503):
            self._not_before = self._clock() + _retry_after(response.headers.get("Retry-After", ""))
        refused = response.status < 500 and response.status != 429  # noqa: PLR2004 - HTTP
        raise (_REFUSALS.get(response.status, Refused) if refused else CoordinatorUnavailable)(message)


async def _events(response: aiohttp.ClientResponse, kind: type[T]) -> AsyncIterator[WatchEvent[T]]:
    """Decode a watch's answer. Raise what an ERROR event says."""
    lines = Lines()
    async for data in response.content.iter_any():
        for line in lines.feed(data):
            event = _decode(line, _WireEvent)
            if event.type is EventType.ERROR:
                status = _decode(event.object, _Status)
                raise _REFUSALS.get(status.code, CoordinatorUnavailable)(f"watch: {status.code} {status.message}")
            if event.type is not EventType.BOOKMARK:
                yield WatchEvent(event.type, _decode(event.object, kind))


def _decode(raw: bytes | msgspec.Raw, kind: type[T]) -> T:
    try:
        return lenient.decode(raw, kind)
    except msgspec.DecodeError as error:
        raise CoordinatorUnavailable(f"the API server's answer cannot be read: {error}") from error


def _message(body: bytes) -> str:
    """Give what the API server says of a refusal; nothing where it is not its usual form."""
    try:
        return msgspec.json.decode(body, type=_Status).message
    except msgspec.DecodeError:
        return ""


def _retry_after(header: str) -> float:
    """Give the seconds to wait, bounded; 0 where none are named."""
    return min(float(header), MAX_RETRY_AFTER) if header.isascii() and header.isdigit() else 0.0
