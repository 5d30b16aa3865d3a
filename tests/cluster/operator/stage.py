"""A stage for the operator: a stub of Discord's HTTP API, pods played by a double, the operator as a real process.

The pods exist (their image never comes), and their part of the protocol is played here: they take and release their
range, spend grants, report rows and heartbeats, as the shard image would. Each test has namespaces of its own.
"""

import asyncio
import contextlib
import datetime as dt
import json
import os
import secrets
import signal
import socket
import ssl
import sys
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

API = "/apis/shardwright.dev/v1alpha1"
BOT = "1000000000000000001"
TOKEN = "MTAwMDAwMDAwMDAwMDAwMDAwMQ.abc.good"
OTHER_TOKEN = "MTAwMDAwMDAwMDAwMDAwMDAwMQ.abc.other"
PATHS = {
    "dgw": f"{API}/namespaces/{{}}/discordgateways",
    "sr": f"{API}/namespaces/{{}}/shardranges",
    "pods": "/api/v1/namespaces/{}/pods",
    "secrets": "/api/v1/namespaces/{}/secrets",
    "sa": "/api/v1/namespaces/{}/serviceaccounts",
    "leases": "/apis/coordination.k8s.io/v1/namespaces/{}/leases",
    "claims": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "pdb": "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
    "roles": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "events": "/apis/events.k8s.io/v1/namespaces/{}/events",
}


def now():
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class ApiFailed(Exception):
    def __init__(self, status, text):
        super().__init__(f"{status}: {text}")
        self.status = status


class Api:
    """The API server, as an administrator sees it."""

    def __init__(self, kubeconfig):
        loaded = yaml.safe_load(Path(kubeconfig).read_text())
        cluster, user = loaded["clusters"][0]["cluster"], loaded["users"][0]["user"]
        self.server = cluster["server"]
        tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
        headers = {"Authorization": f"Bearer {user['token']}"}
        self.session = aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(ssl=tls))

    async def __call__(self, method, path, body=None, kind="application/json"):
        headers = {"Content-Type": kind}
        async with self.session.request(
            method, self.server + path, data=json.dumps(body) if body is not None else None, headers=headers
        ) as response:
            text = await response.text()
            if response.status == 429:  # an API server that comes up
                await asyncio.sleep(1)
                return await self(method, path, body, kind)
            if response.status >= 300:
                raise ApiFailed(response.status, text)
            return json.loads(text)


class Discord:
    """`/gateway/bot`: its answer can be set, its questions are counted."""

    def __init__(self):
        self.total = self.remaining = 1000
        self.shards = 4
        self.max_concurrency = 1
        self.tokens = {TOKEN, OTHER_TOKEN}
        self.status = 200
        self.retry_after = None
        self.questions = []
        self.asked_at = []
        self.url = ""

    async def start(self):
        app = web.Application()
        app.router.add_get("/api/v10/gateway/bot", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/api/v10"

    async def stop(self):
        await self._runner.cleanup()

    async def _answer(self, request):
        token = request.headers.get("Authorization", "").removeprefix("Bot ")
        self.asked_at.append(asyncio.get_running_loop().time())
        self.questions.append((token, request.headers.get("User-Agent")))
        if self.status != 200:
            headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
            return web.json_response({"retry_after": self.retry_after or 0.0}, status=self.status, headers=headers)
        if token not in self.tokens:
            return web.json_response({"message": "401: Unauthorized", "code": 0}, status=401)
        limit = {
            "total": self.total,
            "remaining": self.remaining,
            "reset_after": 3_600_000,
            "max_concurrency": self.max_concurrency,
        }
        body = {"url": "wss://gateway.example", "shards": self.shards, "session_start_limit": limit}
        return web.json_response(body)


class Pods:
    """Plays all shard pods of a namespace. `refuse`: a close code with which Discord answers an identify of a pod."""

    def __init__(self, api, namespace, discord):
        self.api, self.namespace, self.discord = api, namespace, discord
        self.identifies = []
        self._paid = []
        self.refuse = lambda pod, shard_range: None
        self.hold_back = lambda pod, shard_range: False
        self.mute = set()
        self.drop = {}
        self.sink_trouble = ""
        self.identify_seconds = 0.0
        self._written = {}
        self._holder_seen = {}
        self.takes = []

    async def run(self):
        while True:
            with contextlib.suppress(ApiFailed, aiohttp.ClientError):
                await self._look()
            await asyncio.sleep(0.15)

    async def _look(self):
        pods = (await self.api("GET", PATHS["pods"].format(self.namespace)))["items"]
        ranges = (await self.api("GET", PATHS["sr"].format(self.namespace)))["items"]
        for shard_range in ranges:
            uid = shard_range["metadata"]["uid"]
            for pod in pods:
                if pod["metadata"]["ownerReferences"][0]["uid"] == uid and pod["metadata"]["uid"] not in self.mute:
                    with contextlib.suppress(ApiFailed):
                        await self._act(pod, shard_range)

    async def _act(self, pod, shard_range):
        uid, status = pod["metadata"]["uid"], shard_range.get("status", {})
        active, holder = shard_range["spec"].get("activePod", ""), status.get("holder", "")
        going = "deletionTimestamp" in pod["metadata"]
        if holder == uid:
            await (self._release if going or active != uid else self._serve)(pod, shard_range)
        elif going:
            return
        elif active == uid and holder in {"", shard_range["spec"].get("fencedHolder", "-")}:
            self.takes.append((shard_range["metadata"]["name"], uid))
            await self._write(shard_range, holder=uid, epoch=shard_range["spec"]["epoch"], standby=None)
        elif uid not in status.get("standby", {}):
            await self._write(shard_range, standby={uid: {"since": now(), "sinksAvailable": not self.sink_trouble}})

    async def _release(self, pod, shard_range):
        rows = [dict(row, state="closed") for row in shard_range["status"].get("shards", [])]
        await self._write(shard_range, holder="", shards=rows)

    async def _serve(self, pod, shard_range):
        spec, status = shard_range["spec"], shard_range["status"]
        rows, spent = {row["id"]: row for row in status.get("shards", [])}, status.get("identifiesSpent", 0)
        name = shard_range["metadata"]["name"]
        new, self._paid = [], []
        for shard in range(spec["first"], spec["last"] + 1):
            row, spent = self._shard(pod, shard_range, shard, rows.get(shard), spent)
            new.append(row)
        if any(row["state"] == "parked" for row in new):
            spent = spec.get("identifyGrant", 0)
        sinks = [
            {"name": sink["name"], "available": not self.sink_trouble, "message": self.sink_trouble}
            for sink in spec["config"]["sinks"]
        ]
        told = json.dumps([new, spent, sinks])
        due = asyncio.get_running_loop().time() - self._written.get(name, ("", 0.0))[1] > 1.0
        if told != self._written.get(name, ("", 0.0))[0] or due:
            await self._write(shard_range, shards=new, identifiesSpent=spent, sinks=sinks, heartbeatTime=now())
            self.identifies += self._paid  # a write that lost its race is done anew, and so is what it paid for
            self.discord.remaining -= len(self._paid)
            self._written[name] = (told, asyncio.get_running_loop().time())

    def _shard(self, pod, shard_range, shard, row, spent):
        spec = shard_range["spec"]
        open_grants = spec.get("identifyGrant", 0) - spent
        key = (shard_range["metadata"]["name"], shard)
        if key in self.drop and self.drop.pop(key):
            row = None
        if row and row.get("session"):
            return self._renewed(pod, shard_range, dict(row, state="ready", guilds=10, latency=40), spent)
        if row and row["state"] == "parked" and open_grants <= 0:
            return row, spent
        if open_grants <= 0 or spec.get("hold") or self.sink_trouble or self.hold_back(pod, shard_range):
            return {"id": shard, "state": "waiting", "message": "waits"}, spent
        code, session = self._identify(pod, shard_range, shard)
        if code:
            return {"id": shard, "state": "parked", "close": code, "message": f"closed with {code}"}, spent + 1
        return session, spent + 1

    def _renewed(self, pod, shard_range, row, spent):
        """Replace a session whose identity is another than the range's, if that is granted and was not refused."""
        spec = shard_range["spec"]
        if row.get("identity") == spec["config"].get("identity"):
            return row, spent
        if row.get("refused"):
            return row, spec.get("identifyGrant", 0)
        if spec.get("identifyGrant", 0) <= spent or spec.get("hold") or self.hold_back(pod, shard_range):
            return row, spent
        code, session = self._identify(pod, shard_range, row["id"])
        return (dict(row, refused=code) if code else session), spent + 1

    def _identify(self, pod, shard_range, shard):
        """Give the close code with which Discord answers, or the row of a new session."""
        config = shard_range["spec"]["config"]
        self._paid.append((asyncio.get_running_loop().time(), shard_range["metadata"]["name"], shard))
        session = {"session": secrets.token_hex(4), "url": "wss://resume", "seq": 1, "compression": "zstd-stream"}
        rest = {"intents": config["intents"], "identity": config["identity"], "guilds": 10, "latency": 40}
        return self.refuse(pod, shard_range), {"id": shard, "state": "ready", **session, **rest}

    async def _write(self, shard_range, **status):
        meta = shard_range["metadata"]
        body = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": status}
        path = f"{PATHS['sr'].format(self.namespace)}/{meta['name']}/status"
        await self.api("PATCH", path, body, "application/merge-patch+json")


class Operator:
    """The operator as a process."""

    def __init__(self, kubeconfig, namespaces, log):
        self.kubeconfig, self.namespaces, self.log = kubeconfig, namespaces, Path(log)
        self.process = None
        self.port = 0

    async def start(self, *more):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        arguments = ["--kubeconfig", str(self.kubeconfig), "--namespaces", ",".join(self.namespaces)]
        http = ["--http-host", "127.0.0.1", "--http-port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "shardwright_operator", *arguments, *http, *more, stderr=log, stdout=log
            )

    async def end(self, number=signal.SIGTERM):
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)
            await asyncio.wait_for(self.process.wait(), 15)

    async def get(self, path):
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}{path}") as response:
            return response.status, await response.text()


class Stage:
    """Everything a test needs, in one namespace or more."""

    def __init__(self, kubeconfig, folder):
        self.kubeconfig, self.folder = Path(kubeconfig), Path(folder)
        self.api = Api(kubeconfig)
        self.discord = Discord()
        mark = f"{os.getpid()}-{secrets.token_hex(2)}"
        self.namespaces = [f"operator-{mark}-a", f"operator-{mark}-b"]
        self.namespace = self.namespaces[0]
        self.pods = Pods(self.api, self.namespace, self.discord)
        self.operator = Operator(kubeconfig, self.namespaces, self.folder / "operator.log")
        self._tasks = []

    async def set_up(self):
        await self.discord.start()
        for namespace in self.namespaces:
            await self.api("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        self._tasks = [asyncio.create_task(self.pods.run())]

    async def tear_down(self):
        await self.operator.end(signal.SIGKILL)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for namespace in self.namespaces:
            await self.api("DELETE", f"/api/v1/namespaces/{namespace}")
        await self.discord.stop()
        await self.api.session.close()

    # --- objects

    async def list(self, kind, namespace=None):
        return (await self.api("GET", PATHS[kind].format(namespace or self.namespace)))["items"]

    async def get(self, kind, name, namespace=None):
        return await self.api("GET", f"{PATHS[kind].format(namespace or self.namespace)}/{name}")

    async def delete(self, kind, name, namespace=None, **options):
        body = {"kind": "DeleteOptions", "apiVersion": "v1", **options}
        await self.api("DELETE", f"{PATHS[kind].format(namespace or self.namespace)}/{name}", body)

    async def patch(self, kind, name, body, namespace=None):
        path = f"{PATHS[kind].format(namespace or self.namespace)}/{name}"
        return await self.api("PATCH", path, body, "application/merge-patch+json")

    async def put_secret(self, token=TOKEN, *, name="mybot-token", key="token", namespace=None):
        """Create the Secret, or give it other content."""
        body = {"metadata": {"name": name}, "stringData": {key: token}}
        try:
            await self.api("POST", PATHS["secrets"].format(namespace or self.namespace), body)
        except ApiFailed as failed:
            if failed.status != 409:
                raise
            await self.patch("secrets", name, body, namespace)

    async def apply(self, name="mybot", *, namespace=None, **spec):
        given = {
            "tokenSecretRef": {"name": "mybot-token"},
            "intents": ["GUILDS", "GUILD_MESSAGES"],
            "shards": {"count": 4, "perPod": 2},
            "sinks": [{"name": "out", "stdout": {}}],
            "transport": {"apiURL": self.discord.url},
            "pod": {"image": "none.example/none:1", "imagePullPolicy": "Never"},
        }
        body = {"apiVersion": "shardwright.dev/v1alpha1", "kind": "DiscordGateway", "metadata": {"name": name}}
        return await self.api("POST", PATHS["dgw"].format(namespace or self.namespace), body | {"spec": given | spec})

    async def annotate(self, name="mybot", **annotations):
        """Set annotations of a gateway, in the project's domain."""
        given = {f"shardwright.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
        await self.patch("dgw", name, {"metadata": {"annotations": given}})

    async def condition(self, kind, name="mybot", namespace=None):
        """Give (status, reason, message) of a condition."""
        found = await self.get("dgw", name, namespace)
        for one in found.get("status", {}).get("conditions", []):
            if one["type"] == kind:
                return one["status"], one["reason"], one["message"]
        return "", "", ""

    # --- waiting

    async def until(self, what, probe, seconds=30.0):
        """Wait until `probe` gives something true, and give it."""
        end = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                found = await probe()
            except (ApiFailed, aiohttp.ClientError):
                found = None
            if found:
                return found
            if asyncio.get_running_loop().time() > end:
                raise AssertionError(f"{what}: not within {seconds:g} s\n{await self.report()}")
            await asyncio.sleep(0.15)

    async def until_condition(self, kind, status, reason=None, *, name="mybot", namespace=None, seconds=30.0):
        async def probe():
            found = await self.condition(kind, name, namespace)
            return found if found[0] == status and reason in {None, found[1]} else None

        return await self.until(f"{kind}={status} {reason or ''}", probe, seconds)

    async def ready(self, name="mybot", seconds=40.0):
        return await self.until_condition("Ready", "True", name=name, seconds=seconds)

    async def report(self):
        """Describe the stage for a failure."""
        lines = []
        for namespace in self.namespaces:
            for gateway in await self.list("dgw", namespace):
                conditions = gateway.get("status", {}).get("conditions", [])
                lines += [
                    f"{namespace} {one['type']}={one['status']} {one['reason']}: {one['message']}" for one in conditions
                ]
            for one in await self.list("sr", namespace):
                spec, status = one["spec"], one.get("status", {})
                short = {
                    key: spec.get(key)
                    for key in ("incarnation", "epoch", "activePod", "identifyGrant", "hold", "revision")
                }
                rows = [(row["id"], row["state"], row.get("session")) for row in status.get("shards", [])]
                lines.append(
                    f"{one['metadata']['name']} {short} holder={status.get('holder')} spent={status.get('identifiesSpent')} {rows} {one['metadata'].get('annotations')}"
                )
            lines += [
                f"pod {pod['metadata']['name']} {pod['status']['phase']} {pod['metadata'].get('deletionTimestamp', '')}"
                for pod in await self.list("pods", namespace)
            ]
        log = self.operator.log.read_text()[-3000:] if self.operator.log.exists() else ""
        return "\n".join([*lines, log])
