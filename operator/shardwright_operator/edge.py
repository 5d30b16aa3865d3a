"""kopf at the edge: DiscordGateways, Pods and Nodes, as raw events, into the store. Nothing else of kopf is used.

kopf runs in a thread of its own, with its own event loop: it cancels every task of its loop when it stops, and takes the
process's signals, both of which are ours to decide. Its handlers decode the object into a struct and hand it to our loop;
they write nothing, so kopf never touches an object: no finalizers, no annotations.

kopf does not tell of objects that vanished while it was not watching (it only lists what is there). The store therefore
also takes full lists, at start and at every resync, and forgets what is missing there.

If kopf fails, it is started anew with backoff; meanwhile the resync keeps the store right, only later.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

import kopf
import msgspec

from shardwright_api import names
from shardwright_api.resources import DiscordGateway, Model
from shardwright_operator.keys import GatewayKey
from shardwright_operator.kube import GATEWAYS, NODES, PODS, expiry, load_configuration
from shardwright_operator.settings import Settings
from shardwright_operator.views import Node, Pod, gateway_key
from shardwright_operator.workqueue import backoff

log = logging.getLogger(__name__)

_M = TypeVar("_M", bound=Model)
_DOMAIN: Final = "shardwright.dev"
_DELETED: Final = "DELETED"
_SERVER_SECONDS: Final = (270, 300)
_HEALTHY_SECONDS: Final = 60.0
_FAILING: Final = 3
"""So many failures in a row are no mishap any more."""
_STOP_SECONDS: Final = 8.0


class Sink(Protocol):
    """Who takes what kopf sees. Called on the loop that `Edge` was made on."""

    def put_gateway(self, gateway: DiscordGateway) -> None:
        """Take a gateway that appeared or changed."""

    def drop_gateway(self, key: GatewayKey, uid: str) -> None:
        """Take note of a gateway that was deleted."""

    def put_pod(self, pod: Pod) -> None:
        """Take a pod that appeared or changed."""

    def drop_pod(self, pod: Pod) -> None:
        """Take note of a pod that was deleted."""

    def put_node(self, node: Node) -> None:
        """Take a node that appeared or changed."""

    def drop_node(self, name: str) -> None:
        """Take note of a node that was deleted."""


def decode(kind: type[_M], body: Any) -> _M | None:
    """Turn an object into a struct. One that does not fit is logged, and not seen."""
    try:
        return msgspec.convert(body, type=kind)
    except msgspec.ValidationError as error:
        meta = body.get("metadata", {})
        log.error("%s %s/%s: %s", kind.__name__, meta.get("namespace"), meta.get("name"), error)  # noqa: TRY400 - the message says it all
        return None


class Edge:
    """Runs kopf beside our loop. `with_nodes`: the operator has the rights to watch Nodes."""

    def __init__(self, settings: Settings, sink: Sink, *, with_nodes: bool) -> None:
        self._settings = settings
        self._sink = sink
        self._with_nodes = with_nodes
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)
        self._started = time.monotonic()
        self._failing = False
        self.restarts = 0

    def start(self) -> None:
        """Start kopf."""
        self._thread.start()

    def alive(self) -> bool:
        """Say whether the thread runs."""
        return self._thread.is_alive()

    def failing(self) -> bool:
        """Say whether kopf has failed again and again, and has not run for a while since."""
        return self._failing and time.monotonic() - self._started < _HEALTHY_SECONDS

    async def stop(self) -> None:
        """Stop kopf, and wait for it some seconds."""
        self._stop.set()
        await asyncio.to_thread(self._thread.join, _STOP_SECONDS)

    # --- in kopf's thread

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            self._started = time.monotonic()
            failure: object = "it returned"
            try:
                asyncio.run(self._operator())
            except Exception as error:  # noqa: BLE001 - whatever kopf raises, it is started anew
                failure = error
            if self._stop.is_set():
                return
            self.restarts += 1
            failures = 1 if time.monotonic() - self._started > _HEALTHY_SECONDS else failures + 1
            self._failing = failures > _FAILING
            delay = backoff(failures)
            log.warning("kopf failed, again in %.1f s: %s", delay, failure)
            self._stop.wait(delay)

    def _operator(self) -> Coroutine[None, None, None]:
        namespaces = self._settings.namespaces
        # kopf warns that it is not in the main thread and leaves the signals alone, as it should.
        logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)
        return kopf.operator(
            registry=self._registry(),
            settings=kopf_settings(),
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
            stop_flag=self._stop,
        )

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        kopf.on.event(GATEWAYS.group, GATEWAYS.version, GATEWAYS.plural, registry=registry)(self._gateway)
        kopf.on.event(PODS.version, PODS.plural, registry=registry)(self._pod)
        if self._with_nodes:
            kopf.on.event(NODES.version, NODES.plural, registry=registry)(self._node)
        return registry

    async def _login(self, **_: Any) -> kopf.ConnectionInfo:
        """Give kopf our credentials; it asks again before they expire."""
        loaded = await load_configuration(self._settings.kubeconfig)
        scheme, _space, token = str(loaded.api_key.get("BearerToken", "")).partition(" ")
        return kopf.ConnectionInfo(
            server=loaded.host,
            ca_path=loaded.ssl_ca_cert,
            insecure=not loaded.verify_ssl,
            certificate_path=loaded.cert_file,
            private_key_path=loaded.key_file,
            scheme=scheme.capitalize() if token else None,
            token=token.strip() or None,
            expiration=expiry(),
        )

    async def _gateway(self, event: Any, **_: Any) -> None:
        gateway = decode(DiscordGateway, event["object"])
        if gateway is None:
            return
        if event["type"] == _DELETED:
            self._call(self._sink.drop_gateway, gateway_key(gateway), gateway.metadata.uid)
        else:
            self._call(self._sink.put_gateway, gateway)

    async def _pod(self, event: Any, **_: Any) -> None:
        pod = decode(Pod, event["object"])
        if pod is not None:
            self._call(self._sink.drop_pod if event["type"] == _DELETED else self._sink.put_pod, pod)

    async def _node(self, event: Any, **_: Any) -> None:
        node = decode(Node, event["object"])
        if node is None:
            return
        if event["type"] == _DELETED:
            self._call(self._sink.drop_node, node.metadata.name)
        else:
            self._call(self._sink.put_node, node)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Hand over to our loop; after its end nobody listens any more."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)


def kopf_settings() -> kopf.OperatorSettings:
    """Set everything whose default is not for production, or could write to objects."""
    settings = kopf.OperatorSettings()
    settings.persistence.finalizer = f"{_DOMAIN}/unused"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=_DOMAIN, v1=False)
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=_DOMAIN, v1=False)
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None
    settings.execution.max_workers = 1
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.watching.server_timeout = random.randint(*_SERVER_SECONDS)  # noqa: S311 - spreads load
    settings.watching.client_timeout = settings.watching.server_timeout + 10
    settings.watching.connect_timeout = 10
    settings.watching.reconnect_backoff = 1.0
    settings.watching.chunk_size = 500
    settings.watching.label_selectors[PODS.version, PODS.plural] = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
    return settings
