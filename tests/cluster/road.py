"""The whole road on a cluster, as tests and the demo walk it: operator, simulator, NATS, a DiscordGateway, a comparison.

`Cluster` knows how to reach a cluster: the test bed (services by their cluster addresses) or the current kubectl
context (by port-forward). `Road` is one namespace with a simulator and a NATS server in it. `compare` holds the
simulator's ledger against the stream: every event that was sent must stand there once, byte for byte, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import yaml

REPOSITORY = Path(__file__).parents[2]
OPERATOR_NAMESPACE = "shardwright"
IMAGES = "localhost/shardwright"
BOT = "1000000000000000001"
STREAM = "DISCORD"
SUBJECTS = "discord.>"

_LOCKED_DOWN = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}


class NotInTime(Exception):
    """What was waited for did not come; the message says what was there instead."""


def wait_for(what: str, probe: Callable[[], Any], *, seconds: float, every: float = 0.2) -> Any:
    """Wait until `probe` gives something true, and return it. Raise `NotInTime` with what it gave last."""
    end = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > end:
            raise NotInTime(f"{what}: not within {seconds:g} s; last seen: {found!r}")
        time.sleep(every)


@dataclass(frozen=True)
class Cluster:
    """A cluster and the tools to talk to it. `forward`: reach services by port-forward."""

    kubeconfig: Path | None
    kubectl_path: str = "kubectl"
    helm_path: str = "helm"
    forward: bool = False
    images: str = IMAGES

    def environment(self) -> dict[str, str]:
        """Give the environment for kubectl and helm."""
        extra = {"KUBECONFIG": str(self.kubeconfig)} if self.kubeconfig else {}
        return {**os.environ, **extra}

    def run(self, *command: str, stdin: str | None = None, check: bool = True) -> str:
        """Run a command and give what it printed. Raise with its error text where it fails."""
        done = subprocess.run(
            command, input=stdin, env=self.environment(), capture_output=True, text=True, check=False, timeout=180
        )
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout if done.returncode == 0 else done.stderr

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """Run kubectl."""
        return self.run(self.kubectl_path, *arguments, stdin=stdin, check=check)

    def get(self, *arguments: str) -> dict[str, Any] | None:
        """Get an object or a list; None where it does not exist."""
        text = self.kubectl("get", *arguments, "-o", "json", "--ignore-not-found")
        return json.loads(text) if text.strip() else None

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """Get a list's items."""
        return list((self.get(*arguments) or {}).get("items", []))

    def apply(self, *objects: dict[str, Any], namespace: str) -> str:
        """Apply objects."""
        return self.kubectl("apply", "-n", namespace, "-f", "-", stdin=yaml.safe_dump_all(objects))

    def install_operator(self, *settings: str) -> None:
        """Install or upgrade the chart, and wait for the operator."""
        values = [
            f"image.repository={self.images}/operator",
            "image.tag=dev",
            f"shard.image={self.images}/shard:dev",
            "logging.format=json",
            *settings,
        ]
        flags = [part for value in values for part in ("--set", value)]
        chart = str(REPOSITORY / "charts" / "shardwright")
        where = ["--namespace", OPERATOR_NAMESPACE, "--create-namespace"]
        self.run(
            self.helm_path,
            "upgrade",
            "--install",
            "shardwright",
            chart,
            *where,
            *flags,
            "--wait",
            "--timeout",
            "120s",
            "--force-conflicts",
        )

    def uninstall_operator(self) -> None:
        """Uninstall the chart where it is installed; the CRDs stay."""
        where = ["--namespace", OPERATOR_NAMESPACE]
        self.run(self.helm_path, "uninstall", "shardwright", *where, "--ignore-not-found", "--wait", check=False)

    def address(self, namespace: str, service: str, port: int) -> tuple[str, int]:
        """Give an address of this machine's own that leads to a service."""
        if self.forward:
            return self._forward(namespace, service, port)
        found = self.get("-n", namespace, "service", service)
        assert found is not None, f"no service {namespace}/{service}"
        host: str = found["spec"]["clusterIP"]
        wait_for(f"service {service}", lambda: _answers(host, port), seconds=30)
        return host, port

    def _forward(self, namespace: str, service: str, port: int) -> tuple[str, int]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            local: int = probe.getsockname()[1]
        subprocess.Popen(
            [self.kubectl_path, "port-forward", "-n", namespace, f"service/{service}", f"{local}:{port}"],
            env=self.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for("port-forward", lambda: _answers("127.0.0.1", local), seconds=30)
        return "127.0.0.1", local


def _answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


class Simulator:
    """The simulator's control API, from outside."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._base = f"http://{address[0]}:{address[1]}/control"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make one call; give its JSON."""
        return json.loads(self._open(method, path, body) or b"null")

    def lines(self, path: str) -> Iterator[dict[str, Any]]:
        """Read JSON lines."""
        return (json.loads(line) for line in self._open("GET", path, None).splitlines() if line)

    def _open(self, method: str, path: str, body: Any) -> bytes:
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(f"{self._base}/{path}", data=data, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            text: bytes = answer.read()
            return text

    def violations(self) -> list[dict[str, Any]]:
        """List the rules that were broken."""
        found: list[dict[str, Any]] = self.call("GET", "violations")
        return found

    def identifies(self, bot: str = "") -> list[dict[str, Any]]:
        """List the IDENTIFYs in their order."""
        found: list[dict[str, Any]] = self.call("GET", f"identifies?bot={bot}")
        return found

    def load(self, **spec: Any) -> dict[str, Any]:
        """Start a load and wait for its end."""
        started = self.call("POST", "loads", spec)
        path = f"loads/{started['id']}"
        budget = spec.get("seconds", 0) or spec.get("count", 0) / spec.get("rate", 100)
        wait_for("the end of the load", lambda: not self.call("GET", path)["running"], seconds=budget * 3 + 30)
        status: dict[str, Any] = self.call("GET", path)
        return status


@dataclass
class Comparison:
    """What the ledger and the stream have in common, and what not. Counts of events."""

    sent: int = 0
    received: int = 0
    missing: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    oversize: int = 0

    def faults(self) -> dict[str, list[str]]:
        """Give the lists that are not empty, shortened."""
        names = ("missing", "different", "unknown", "twice", "out_of_order")
        return {name: getattr(self, name)[:5] for name in names if getattr(self, name)}


@dataclass(frozen=True)
class Stored:
    """One message of the stream."""

    id: str
    type: str
    digest: str
    content: bytes


class Road:
    """A namespace with a simulator and a NATS server, and a DiscordGateway between them."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.simulator: Simulator
        self.nats_url = ""

    # --- what stands around the gateway -------------------------------------------------------------------------

    def set_up(self, *, bot: dict[str, Any], options: dict[str, Any] | None = None, stream: bool = True) -> None:
        """Make the namespace with simulator and NATS, both answering, and the stream."""
        self.set_up_simulator(bot=bot, options=options)
        self._serve("nats", f"{self.cluster.images}/nats:2.15", ["-js", "-sd", "/data"], 4222)
        host, port = self.cluster.address(self.namespace, "nats", 4222)
        self.nats_url = f"nats://{host}:{port}"
        if stream:
            self.make_stream()

    def set_up_simulator(self, *, bot: dict[str, Any], options: dict[str, Any] | None = None) -> None:
        """Make the namespace with a simulator that answers, and nothing else."""
        self.cluster.kubectl("create", "namespace", self.namespace)
        simulator = ["--host", "0.0.0.0", "--port", "8080"]
        self._serve("simulator", f"{self.cluster.images}/simulator:dev", simulator, 8080)
        self.simulator = Simulator(self.cluster.address(self.namespace, "simulator", 8080))
        self.simulator.call("PATCH", f"bots/{BOT}", bot)
        if options:
            self.simulator.call("PATCH", "options", options)

    def _serve(self, name: str, image: str, arguments: list[str], port: int) -> None:
        container = {
            "name": name,
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "args": arguments,
            "ports": [{"containerPort": port}],
            "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "securityContext": _LOCKED_DOWN,
        }
        labels = {"app": name}
        spec = {
            "containers": [container],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "securityContext": {"fsGroup": 65532},
            "terminationGracePeriodSeconds": 1,
        }
        self.cluster.apply(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec},
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name},
                "spec": {"selector": labels, "ports": [{"port": port}]},
            },
            namespace=self.namespace,
        )
        where = ["-n", self.namespace, f"pod/{name}", "--timeout=120s"]
        self.cluster.kubectl("wait", "--for=condition=Ready", *where)

    def make_stream(self) -> None:
        """Make the stream, with a wide window for duplicates."""
        asyncio.run(_make_stream(self.nats_url))

    def token(self, bot: str = BOT) -> str:
        """Give the bot's token, as the simulator knows it."""
        token: str = self.simulator.call("GET", f"bots/{bot}")["config"]["token"]
        return token

    def make_secret(self, name: str = "mybot-token", *, token: str | None = None) -> None:
        """Put the bot's token (or another) into a Secret."""
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name},
            "stringData": {"token": token or self.token()},
        }
        self.cluster.apply(secret, namespace=self.namespace)

    def gateway(self, name: str = "mybot", **spec: Any) -> dict[str, Any]:
        """Give a DiscordGateway that uses this namespace's simulator and NATS."""
        base: dict[str, Any] = {
            "tokenSecretRef": {"name": "mybot-token"},
            "intents": ["GUILDS", "GUILD_MEMBERS", "GUILD_PRESENCES", "GUILD_MESSAGES", "MESSAGE_CONTENT",
                        "GUILD_MESSAGE_REACTIONS", "GUILD_MESSAGE_TYPING", "GUILD_VOICE_STATES", "DIRECT_MESSAGES"],
            "sinks": [{"name": "events", "nats": {"url": f"nats://nats.{self.namespace}:4222", "stream": STREAM}}],
            "transport": {
                "apiURL": f"http://simulator.{self.namespace}:8080/api/v10",
            },
        }  # fmt: skip
        base["transport"] |= spec.pop("transport", {})
        return {
            "apiVersion": "shardwright.dev/v1alpha1",
            "kind": "DiscordGateway",
            "metadata": {"name": name},
            "spec": base | spec,
        }

    def apply_gateway(self, name: str = "mybot", **spec: Any) -> None:
        """Apply a DiscordGateway."""
        self.cluster.apply(self.gateway(name, **spec), namespace=self.namespace)

    # --- what is seen -------------------------------------------------------------------------------------------

    def dgw(self, name: str = "mybot") -> dict[str, Any]:
        """Get the DiscordGateway; empty where there is none."""
        return self.cluster.get("-n", self.namespace, "discordgateway", name) or {}

    def condition(self, kind: str, name: str = "mybot") -> dict[str, Any]:
        """Get one condition; empty where there is none."""
        conditions = self.dgw(name).get("status", {}).get("conditions", [])
        return next((condition for condition in conditions if condition["type"] == kind), {})

    def wait_condition(self, kind: str, status: str, *, name: str = "mybot", seconds: float = 60) -> dict[str, Any]:
        """Wait until a condition has a status."""

        def probe() -> dict[str, Any] | None:
            found = self.condition(kind, name)
            return found if found.get("status") == status else None

        try:
            found: dict[str, Any] = wait_for(f"{kind}={status}", probe, seconds=seconds)
        except NotInTime as error:
            raise NotInTime(f"{error}\n{self.describe()}") from None
        return found

    def pods(self) -> list[dict[str, Any]]:
        """List the shard pods."""
        return self.cluster.items("-n", self.namespace, "pods", "-l", "app.kubernetes.io/managed-by=shardwright")

    def ranges(self) -> list[dict[str, Any]]:
        """List the ShardRanges."""
        return self.cluster.items("-n", self.namespace, "shardranges")

    def describe(self) -> str:
        """Give what a person would look at first, for a failure's message."""
        parts = [
            self.cluster.kubectl("get", "dgw,sr,pods,lease", "-n", self.namespace, "-o", "wide", check=False),
            json.dumps(self.dgw().get("status", {}), indent=1),
            json.dumps([r.get("status", {}) for r in self.ranges()])[:4000],
            self.logs(30),
        ]
        return "\n".join(parts)

    def logs(self, tail: int = -1) -> str:
        """Give the logs of operator and shard pods."""
        shard = ["-n", self.namespace, "-l", "app.kubernetes.io/managed-by=shardwright"]
        operator = ["-n", OPERATOR_NAMESPACE, "-l", "app.kubernetes.io/name=shardwright"]
        flags = [f"--tail={tail}", "--prefix", "--max-log-requests=20"]
        return "\n".join(self.cluster.kubectl("logs", *where, *flags, check=False) for where in (operator, shard))

    # --- sent = received ----------------------------------------------------------------------------------------

    def compare(self, *, seconds: float = 60, oversize: int = 1 << 20) -> Comparison:
        """Hold the ledger against the stream, waiting until as much has arrived as was sent."""
        sent = list(self.simulator.lines(f"ledger?bot={BOT}"))
        wanted = len({(entry["session"], entry["seq"]) for entry in sent if entry["t"] != "RESUMED"})
        with contextlib.suppress(NotInTime):
            wait_for("the stream", lambda: asyncio.run(_count(self.nats_url)) >= wanted, seconds=seconds, every=0.5)
        return compare(sent, self.stored(), oversize=oversize)

    def stored(self) -> list[Stored]:
        """Read the whole stream."""
        return asyncio.run(_read_stream(self.nats_url))


def compare(sent: list[dict[str, Any]], stored: list[Stored], *, oversize: int) -> Comparison:
    """Compare a ledger with a stream: by id, by bytes, by order within a session."""
    result = Comparison(sent=len(sent), received=len(stored))
    wanted = {f"{e['bot']}:{e['session']}:{e['seq']}": e for e in sent if e["t"] != "RESUMED"}
    resumed = {e["sha256"] for e in sent if e["t"] == "RESUMED"}
    last: dict[str, int] = {}
    seen: set[str] = set()
    for message in stored:
        if not message.id:
            _check_resumed(result, message, resumed)
            continue
        _check(result, message, wanted, oversize)
        session, _, seq = message.id.rpartition(":")
        if message.id in seen:
            result.twice.append(message.id)
        elif int(seq) < last.get(session, 0):
            result.out_of_order.append(message.id)
        seen.add(message.id)
        last[session] = max(int(seq), last.get(session, 0))
    result.missing = [key for key in wanted if key not in seen]
    return result


def _check(result: Comparison, message: Stored, wanted: dict[str, dict[str, Any]], oversize: int) -> None:
    entry = wanted.get(message.id)
    if entry is None:
        result.unknown.append(message.id)
    elif message.type == "shardwright.oversize":
        result.oversize += 1
        if entry["size"] < oversize - 2048:
            result.different.append(f"{message.id}: told as oversize at {entry['size']} bytes")
    elif message.digest != entry["sha256"] or message.type != f"discord.gateway.{entry['t']}":
        result.different.append(message.id)


def _check_resumed(result: Comparison, message: Stored, resumed: set[str]) -> None:
    if message.type != "discord.gateway.RESUMED" or message.digest not in resumed:
        result.unknown.append(f"{message.type} without an id")


async def _make_stream(url: str) -> None:
    client = await nats.connect(url)
    try:
        await client.jetstream().add_stream(name=STREAM, subjects=[SUBJECTS], duplicate_window=600)
    finally:
        await client.close()


async def _count(url: str) -> int:
    client = await nats.connect(url)
    try:
        return (await client.jetstream().stream_info(STREAM)).state.messages
    finally:
        await client.close()


async def _read_stream(url: str) -> list[Stored]:
    client = await nats.connect(url)
    try:
        stream = client.jetstream()
        total = (await stream.stream_info(STREAM)).state.messages
        subscription = await stream.subscribe(SUBJECTS, stream=STREAM, ordered_consumer=True)
        return [_stored(await subscription.next_msg(timeout=20)) for _ in range(total)]
    finally:
        await client.close()


def _stored(message: Any) -> Stored:
    headers = message.headers or {}
    digest = hashlib.sha256(message.data).hexdigest()
    content = message.data if len(message.data) < 4096 else b""
    return Stored(headers.get("Nats-Msg-Id", ""), headers.get("ce-type", ""), digest, content)
