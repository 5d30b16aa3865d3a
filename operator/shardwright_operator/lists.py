"""Full lists of what kopf watches, and the sweep of Leases that nobody uses any more."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final, Protocol, TypeVar

import msgspec

from shardwright_api import names
from shardwright_api.resources import DiscordGateway
from shardwright_operator.edge import decode
from shardwright_operator.errors import ForbiddenError
from shardwright_operator.kube import GATEWAYS, LEASES, NODES, PODS, Kube, Resource
from shardwright_operator.store import Store
from shardwright_operator.views import GatewayList, Lease, LeaseList, ListMeta, NodeList, PodList

log = logging.getLogger(__name__)

OURS: Final = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"
LEASE_LIFE: Final = dt.timedelta(days=1)


class _Page(Protocol):
    """What all lists have."""

    @property
    def metadata(self) -> ListMeta:
        """Version, and where the next page begins."""
        ...

    @property
    def items(self) -> Sequence[Any]:
        """What is on the page."""
        ...


_P = TypeVar("_P", bound=_Page)


async def read_all(
    kube: Kube, resource: Resource, kind: type[_P], namespace: str, labels: str = ""
) -> tuple[list[Any], str]:
    """Read all pages of a list; give the items and the list's version."""
    found: list[Any] = []
    after = ""
    while True:
        page = msgspec.json.decode(await kube.list(resource, namespace, labels=labels, after=after), type=kind)
        found.extend(page.items)
        after = page.metadata.continue_
        if not after:
            return found, page.metadata.resource_version


class Lists:
    """Keeps the store right where events are missed."""

    def __init__(self, kube: Kube, store: Store, namespaces: Sequence[str]) -> None:
        self._kube = kube
        self._store = store
        self._namespaces = tuple(namespaces) or ("",)

    async def read(self) -> None:
        """Read everything that kopf watches."""
        if self._store.nodes_known:
            await self.read_nodes()
        for namespace in self._namespaces:
            bodies, version = await read_all(self._kube, GATEWAYS, GatewayList, namespace)
            gateways = [decode(DiscordGateway, body) for body in bodies]
            pairs = zip(bodies, gateways, strict=True)
            unreadable = {body["metadata"]["uid"] for body, gateway in pairs if gateway is None}
            self._store.all_gateways(filter(None, gateways), namespace, version, unreadable)
            pods, version = await read_all(self._kube, PODS, PodList, namespace, OURS)
            self._store.all_pods(pods, namespace, version)

    async def read_nodes(self) -> bool:
        """Read the nodes; say whether the operator may."""
        try:
            nodes, version = await read_all(self._kube, NODES, NodeList, "")
        except ForbiddenError as error:
            if error.status == HTTPStatus.UNAUTHORIZED:  # who we are is not known yet: that says nothing of our rights
                raise
            log.info("no right to list Nodes: lost nodes are only seen when their pods are deleted")
            return False
        self._store.all_nodes(nodes, version)
        return True

    async def sweep_leases(self, now: dt.datetime) -> int:
        """Delete the identify buckets of bots without a gateway, a day after they were last used."""
        swept = 0
        for namespace in self._namespaces:
            leases, _ = await read_all(self._kube, LEASES, LeaseList, namespace, OURS)
            for lease in leases:
                if not self._in_use(lease) and outlived(lease, now):
                    meta = lease.metadata
                    await self._kube.delete(LEASES, meta.namespace, meta.name, uid=meta.uid)
                    swept += 1
        return swept

    def _in_use(self, lease: Lease) -> bool:
        gateways = self._store.gateways_of(lease.metadata.labels.get(names.LABEL_BOT, ""))
        return any(gateway.metadata.namespace == lease.metadata.namespace for gateway in gateways)


def outlived(lease: Lease, now: dt.datetime) -> bool:
    """Say whether a Lease was last used more than a day ago, by the API server's clock and the pods'."""
    used = max(filter(None, (lease.metadata.creation_timestamp, lease.spec.renew_time, lease.spec.acquire_time)))
    return now - dt.datetime.fromisoformat(used) > LEASE_LIFE
