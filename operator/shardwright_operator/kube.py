"""The Kubernetes API: the only module that talks to it.

`Kube` is what the rest of the operator knows: eight verbs that take dicts and give the raw JSON back, so that each
caller decodes exactly what it needs. `ApiServer` is its implementation on `kubernetes.aio`, of which only the
configuration and the connection pool are used.

Every failure is an `ApiError` (the server answered) or an `ApiUnreachableError` (it did not). Nothing is retried here:
the work queue does that, with backoff. A write whose answer is lost may have happened; all callers read again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from shardwright_api.discord import USER_AGENT
from shardwright_api.resources import GROUP, VERSION
from shardwright_operator.errors import ApiUnreachableError, api_error

FIELD_MANAGER: Final = "shardwright-operator"

_TIMEOUT: Final = aiohttp.ClientTimeout(total=30, sock_connect=10)
Query = Mapping[str, str | int]

_OK: Final = range(200, 300)
_MERGE_PATCH: Final = "application/merge-patch+json"
_APPLY_PATCH: Final = "application/apply-patch+yaml"
_NAMESPACE_GOES: Final = "NamespaceTerminating"
_GOING_SECONDS: Final = 60.0
"""Seconds until something is tried again in a namespace that is being deleted."""
_WATCH_SECONDS: Final = 290
_WATCH_SILENCE: Final = 75.0
"""Bookmarks come every minute: a watch that is silent for longer is dead."""


class Resource(NamedTuple):
    """A kind of object, as the API's paths spell it."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """The `apiVersion` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Give the path of a collection, an object or a subresource; without a namespace, of the whole cluster."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root, *(("namespaces", namespace) if namespace else ()), self.plural, name, subresource]
        return "/".join(part if part is root else quote(part, safe="") for part in parts if part)


GATEWAYS: Final = Resource(GROUP, VERSION, "discordgateways", "DiscordGateway")
RANGES: Final = Resource(GROUP, VERSION, "shardranges", "ShardRange")
PODS: Final = Resource("", "v1", "pods", "Pod")
CLAIMS: Final = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
NODES: Final = Resource("", "v1", "nodes", "Node")
SECRETS: Final = Resource("", "v1", "secrets", "Secret")
SERVICE_ACCOUNTS: Final = Resource("", "v1", "serviceaccounts", "ServiceAccount")
LEASES: Final = Resource("coordination.k8s.io", "v1", "leases", "Lease")
BUDGETS: Final = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
ROLES: Final = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS: Final = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
EVENTS: Final = Resource("events.k8s.io", "v1", "events", "Event")


class Kube(Protocol):
    """What the operator asks of the Kubernetes API. All answers are raw JSON."""

    async def get(self, resource: Resource, namespace: str, name: str) -> bytes:
        """Read an object."""
        ...

    async def list(
        self, resource: Resource, namespace: str = "", *, labels: str = "", limit: int = 500, after: str = ""
    ) -> bytes:
        """Read a page of objects; `after` is the last page's `continue`."""
        ...

    async def create(self, resource: Resource, namespace: str, body: Mapping[str, Any]) -> bytes:
        """Create an object; `ConflictError` when it exists."""
        ...

    async def patch(
        self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any], *, subresource: str = ""
    ) -> bytes:
        """Merge-patch an object; `ConflictError` when `metadata.resourceVersion` in `body` is not the present one."""
        ...

    async def apply(self, resource: Resource, namespace: str, body: Mapping[str, Any]) -> bytes:
        """Server-side apply an object, taking fields over from other managers."""
        ...

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Delete the object with this UID."""
        ...

    def watch(self, resource: Resource, namespace: str, version: str) -> AsyncIterator[bytes]:
        """Stream the lines of a watch that starts behind `version`."""
        ...


class _Cause(msgspec.Struct, frozen=True):
    """One of the causes of a failure."""

    reason: str = ""


class _Details(msgspec.Struct, frozen=True):
    """What a failure is about."""

    causes: tuple[_Cause, ...] = ()


class _Status(msgspec.Struct, frozen=True):
    """Kubernetes' `Status`, as far as errors need it."""

    message: str = ""
    reason: str = ""
    details: _Details = _Details()


async def load_configuration(kubeconfig: str) -> Configuration:
    """Read a kubeconfig file or, without one, what the kubelet mounted into the pod."""
    configuration = Configuration()
    if kubeconfig:
        await config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)  # type: ignore[no-untyped-call]
    else:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    return configuration


def expiry() -> dt.datetime:
    """Say until when credentials that were read now are trusted: the kubelet rotates tokens under our feet."""
    return dt.datetime.now(dt.UTC) + dt.timedelta(minutes=10)


class ApiServer:
    """`Kube` over the network."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._client = ApiClient(configuration)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, resource: Resource, namespace: str, name: str) -> bytes:
        """Read an object."""
        return await self._call("GET", resource.path(namespace, name))

    async def list(
        self, resource: Resource, namespace: str = "", *, labels: str = "", limit: int = 500, after: str = ""
    ) -> bytes:
        """Read a page of objects; `after` is the last page's `continue`."""
        query: Query = {"labelSelector": labels, "limit": limit, "continue": after}
        return await self._call("GET", resource.path(namespace), query=query)

    async def create(self, resource: Resource, namespace: str, body: Mapping[str, Any]) -> bytes:
        """Create an object; `ConflictError` when it exists."""
        return await self._call("POST", resource.path(namespace), body=body, query={"fieldManager": FIELD_MANAGER})

    async def patch(
        self, resource: Resource, namespace: str, name: str, body: Mapping[str, Any], *, subresource: str = ""
    ) -> bytes:
        """Merge-patch an object; `ConflictError` when `metadata.resourceVersion` in `body` is not the present one."""
        path = resource.path(namespace, name, subresource)
        return await self._call("PATCH", path, body=body, kind=_MERGE_PATCH, query={"fieldManager": FIELD_MANAGER})

    async def apply(self, resource: Resource, namespace: str, body: Mapping[str, Any]) -> bytes:
        """Server-side apply an object, taking fields over from other managers."""
        path = resource.path(namespace, body["metadata"]["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._call("PATCH", path, body=body, kind=_APPLY_PATCH, query=query)

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        """Delete the object with this UID."""
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
        await self._call("DELETE", resource.path(namespace, name), body=body)

    async def watch(self, resource: Resource, namespace: str, version: str) -> AsyncIterator[bytes]:
        """Stream the lines of a watch that starts behind `version`; an empty line says that it stands."""
        query: Query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": _WATCH_SECONDS,
        }
        timeout = aiohttp.ClientTimeout(total=_WATCH_SECONDS + 10, sock_connect=10, sock_read=_WATCH_SILENCE)
        with _reachable():
            response = await self._send("GET", resource.path(namespace), query=query, timeout=timeout)
            try:
                yield b""
                while line := await response.content.readline():
                    yield line
            finally:
                response.close()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        kind: str = "application/json",
        query: Query | None = None,
    ) -> bytes:
        with _reachable():
            response = await self._send(method, path, body=body, kind=kind, query=query or {}, timeout=_TIMEOUT)
            return await response.read()

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        kind: str = "",
        query: Query,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - handed to the client, which keeps it
    ) -> aiohttp.ClientResponse:
        text = urlencode({name: value for name, value in query.items() if value})
        url = f"{self._configuration.host}{path}" + (f"?{text}" if text else "")
        headers = await self._headers(kind)
        answer = await self._client.call_api(method, url, headers, body, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        if response.status not in _OK:
            raise _failure(response, await response.read())
        return response

    async def _headers(self, kind: str) -> dict[str, str]:
        key = await self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        headers = {"Accept": "application/json", "User-Agent": USER_AGENT}
        if kind:
            headers["Content-Type"] = kind
        if key:
            headers["Authorization"] = key
        return headers


@contextlib.contextmanager
def _reachable() -> Any:
    """Turn the HTTP client's many exceptions into one."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ApiUnreachableError(f"{type(error).__name__}: {error}") from error


def _failure(response: aiohttp.ClientResponse, raw: bytes) -> Exception:
    """Read Kubernetes' `Status` out of a failure."""
    try:
        status = msgspec.json.decode(raw, type=_Status)
    except msgspec.DecodeError:
        status = _Status(message=raw[:200].decode(errors="replace"))
    header = response.headers.get("Retry-After", "")
    retry_after = float(header) if header.isdecimal() else None
    if any(cause.reason == _NAMESPACE_GOES for cause in status.details.causes):
        retry_after = _GOING_SECONDS
    return api_error(response.status, status.reason or response.reason or "", status.message, retry_after)
