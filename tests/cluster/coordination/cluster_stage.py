"""The contract's `Stage` on a real API server: own namespace, the rights of a shard pod, a proxy before each pod."""

import asyncio
import base64
import json
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import yaml
from coordination.proxy import Proxy

from shardwright_api import names
from shardwright_api.resources import RangeSpec, ShardConfig, ShardRange, decode, to_wire
from shardwright_shard.coordination.api_client import ApiClient, Server
from shardwright_shard.coordination.kubernetes import KubernetesCoordinator

RANGE = "mybot-4-0-3"
BOT = "81384788765712384"
GATEWAY = {
    "apiVersion": "shardwright.dev/v1alpha1",
    "kind": "DiscordGateway",
    "metadata": {"name": "mybot"},
    "spec": {
        "tokenSecretRef": {"name": "mybot-token"},
        "intents": ["GUILDS"],
        "sinks": [{"name": "events", "stdout": {}}],
    },
}


def rules():
    """Give what a shard pod may do, as the design says it."""
    leases = [names.lease_name(BOT, bucket) for bucket in range(2)]
    own = "shardwright.dev"
    return [
        {"apiGroups": [own], "resources": ["discordgateways"], "resourceNames": ["mybot"], "verbs": ["get"]},
        {"apiGroups": [own], "resources": ["shardranges"], "resourceNames": [RANGE], "verbs": ["get", "watch"]},
        {"apiGroups": [own], "resources": ["shardranges/status"], "resourceNames": [RANGE], "verbs": ["patch"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": leases,
            "verbs": ["get", "watch", "update"],
        },
    ]


class Admin:
    """The operator's hands: plain REST with the kubeconfig's own rights."""

    def __init__(self, kubeconfig):
        config = yaml.safe_load(Path(kubeconfig).read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.url = cluster["server"]
        self.tls = _tls(cluster, user)
        headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=self.tls), headers=headers)

    async def __call__(self, method, path, body=None, *, kind="application/json"):
        """Send a request that must succeed, and give the answer's bytes."""
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": kind} if data else {}
        async with self.session.request(method, self.url + path, data=data, headers=headers) as response:
            answer = await response.read()
            assert response.ok, f"{method} {path}: {response.status} {answer.decode()}"
            return answer

    async def merge(self, path, change):
        """Merge-patch an object."""
        return await self("PATCH", path, change, kind="application/merge-patch+json")


class ClusterStage:
    """A namespace with one range, its gateway, and the coordinators that a test made."""

    def __init__(self, admin, namespace, folder):
        self.admin = admin
        self.namespace = namespace
        self.coordinators = []
        self.proxies = {}
        self.ranges = f"/apis/shardwright.dev/v1alpha1/namespaces/{namespace}/shardranges"
        self.gateways = f"/apis/shardwright.dev/v1alpha1/namespaces/{namespace}/discordgateways"
        self.leases = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self.range_path = f"{self.ranges}/{RANGE}"
        self.token_file = folder / "token"

    async def set_up(self):
        """Make the namespace, the pods' rights, the gateway and the range."""
        await self.admin("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        await self._grant_rights()
        await self._add_gateway()
        await self._add_range()

    async def tear_down(self):
        """Delete the namespace, and stop what runs."""
        for coordinator in self.coordinators:
            await coordinator.close()
        for proxy in self.proxies.values():
            await proxy.close()
        await self.admin("DELETE", f"/api/v1/namespaces/{self.namespace}")

    async def coordinator(self, pod, *, start=True):
        client = await self.client(pod)
        coordinator = KubernetesCoordinator(
            client, namespace=self.namespace, range_name=RANGE, pod_name=pod, pod_uid=pod
        )
        self.coordinators.append(coordinator)
        if start:
            await coordinator.start()
        return coordinator

    async def client(self, pod):
        """Give a client with a pod's rights, through the pod's own proxy."""
        if pod not in self.proxies:
            there = urlsplit(self.admin.url)
            self.proxies[pod] = Proxy(there.hostname, there.port)
            await self.proxies[pod].start()
        url = f"https://127.0.0.1:{self.proxies[pod].port}"
        return ApiClient(Server(url=url, tls=self.admin.tls, token_file=self.token_file))

    async def change(self, **fields):
        wire = {_wire(name): value for name, value in fields.items()}
        await self.admin.merge(self.range_path, {"spec": wire})

    async def range(self):
        return decode(ShardRange, await self.admin("GET", self.range_path))

    async def delete(self):
        await self.admin("DELETE", self.range_path)

    async def recreate(self):
        await self.delete()
        await self._add_range()

    async def delete_gateway(self):
        await self.admin("DELETE", f"{self.gateways}/mybot")

    async def recreate_gateway(self):
        await self.delete_gateway()
        await self._add_gateway()

    async def make_lease(self, bucket):
        name = names.lease_name(BOT, bucket)
        body = {"metadata": {"name": name, "labels": {"kept": "yes"}}, "spec": {"leaseDurationSeconds": 5}}
        await self.admin("POST", self.leases, body)

    async def lease(self, bucket):
        """Read a bucket's Lease."""
        return json.loads(await self.admin("GET", f"{self.leases}/{names.lease_name(BOT, bucket)}"))

    async def lease_holder(self, bucket):
        return (await self.lease(bucket))["spec"]["holderIdentity"]

    def cut(self, pod):
        self.proxies[pod].cut()

    def restore(self):
        for proxy in self.proxies.values():
            self._starting = asyncio.ensure_future(proxy.start())

    async def _grant_rights(self):
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}"
        accounts = f"/api/v1/namespaces/{self.namespace}/serviceaccounts"
        await self.admin("POST", accounts, {"metadata": {"name": "pods"}})
        await self.admin("POST", f"{rbac}/roles", {"metadata": {"name": "pods"}, "rules": rules()})
        binding = {
            "metadata": {"name": "pods"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pods"},
            "subjects": [{"kind": "ServiceAccount", "name": "pods", "namespace": self.namespace}],
        }
        await self.admin("POST", f"{rbac}/rolebindings", binding)
        answer = await self.admin("POST", f"{accounts}/pods/token", {"spec": {"expirationSeconds": 3600}})
        self.token_file.write_text(json.loads(answer)["status"]["token"])

    async def _add_gateway(self):
        made = json.loads(await self.admin("POST", self.gateways, GATEWAY))
        self.gateway_uid = made["metadata"]["uid"]

    async def _add_range(self):
        config = ShardConfig(gateway="mybot", gateway_url="wss://gateway.example", intents=1)
        spec = RangeSpec(first=0, last=3, total=4, bot_id=BOT, max_concurrency=2, config=config)
        owner = {
            "apiVersion": "shardwright.dev/v1alpha1",
            "kind": "DiscordGateway",
            "name": "mybot",
            "uid": self.gateway_uid,
            "controller": True,
        }
        body = {
            "apiVersion": "shardwright.dev/v1alpha1",
            "kind": "ShardRange",
            "metadata": {"name": RANGE, "ownerReferences": [owner]},
            "spec": to_wire(spec),
        }
        await self.admin("POST", self.ranges, body)


def _wire(name):
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def _tls(cluster, user):
    """Make the TLS settings of a kubeconfig, with its client certificate where it has one."""
    authority = cluster.get("certificate-authority")
    inline = cluster.get("certificate-authority-data")
    tls = ssl.create_default_context(cafile=authority, cadata=base64.b64decode(inline).decode() if inline else None)
    if "client-certificate" in user:
        tls.load_cert_chain(user["client-certificate"], user["client-key"])
    return tls
