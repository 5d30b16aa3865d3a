"""The setting that all faults share: a gateway of 16 shards in 4 pods, under load, watched and written down.

`Setting` brings up a namespace with a simulator, an operator that serves this namespace alone, and a NATS server on
this machine (so that it can be killed and come back at will), then starts the load. It stays up between faults.

A fault's window: `open` sets the simulator's mode and marks the journals; the fault strikes; `healed` waits until every
range has one ready pod that holds it and every session a connection; `close` waits until all that was sent up to then is
stored, and gives what was measured. The load never pauses, so windows lie side by side, with nothing between them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

import aiohttp
import nats.errors
import testbed
from road import BOT, OPERATOR_NAMESPACE, Cluster, Road

from chaos import processes
from chaos.api import GATEWAYS, PODS, RANGES, Api, ApiFailed, NotInTime, Object, View, Views
from chaos.book import Book, Window
from chaos.kinds import SHARDS, Planned
from chaos.simulator import Simulator
from chaos.stream import STREAM, Stream

PER_POD: Final = 4
GUILDS_PER_SHARD: Final = 100
RATE: Final = 500
HEARTBEAT_INTERVAL: Final = 5.0
LEDGER_LIMIT: Final = 150_000
"""Entries after which the simulator's records are cleared: its memory stays bounded."""
HEAL_SECONDS: Final = 120.0
DRAIN_SECONDS: Final = 45.0
FIRST_NODE: Final = "node-1"
SHARD_PROGRAM: Final = "shardwright_shard"
OPERATOR_PROGRAM: Final = "shardwright_operator"
_numbers = itertools.count(1)


class NotHealed(Exception):
    """The setting did not come back after a fault; the message says what is missing."""


@dataclass
class Measured:
    """What a window showed."""

    window: Window
    identifies: int = 0
    resumes: int = 0
    violations: list[str] = field(default_factory=list)
    overlaps: list[str] = field(default_factory=list)
    two_holders: list[str] = field(default_factory=list)
    fenced: list[str] = field(default_factory=list)
    silences: list[dict[str, Any]] = field(default_factory=list)
    """The simulator's records: `shard`, `time`, `seconds` in which nobody could get the shard's events."""
    heal: float = 0.0


@dataclass
class _Holding:
    holder: str = ""
    fenced: str = ""


class Setting:
    """A gateway under load, and what faults need to strike it. `async with`: up at the beginning, down in the end."""

    def __init__(self, bed: testbed.Cluster, *, second_node: bool = False, own_operator: bool = True) -> None:
        self.bed = bed
        self.cluster = Cluster(bed.kubeconfig, str(bed.bin / "kubectl"), str(bed.bin / "helm"))
        self.namespace = f"chaos-{os.getpid()}-{next(_numbers)}"
        self.road = Road(self.cluster, self.namespace)
        self.views = Views()
        self.api = Api(bed.kubeconfig)
        self.ranges = View(self.api, RANGES.format(self.namespace), self.views, changed=self._see_range)
        self.pods = View(self.api, PODS.format(self.namespace), self.views, changed=self._see)
        self.operators = View(self.api, PODS.format(OPERATOR_NAMESPACE), self.views)
        self.book = Book()
        self.simulator: Simulator
        self.nats: processes.NatsServer
        self.stream: Stream
        self.traps: list[Callable[[Object], None]] = []
        """Called with each range and shard pod as it changes, at once."""
        self._second_node = second_node
        self._own_operator = own_operator
        self._folder = TemporaryDirectory(prefix="shardwright-chaos-")
        self._tasks: list[asyncio.Task[None]] = []
        self._holdings: dict[str, _Holding] = {}
        self._measured = Measured(Window())
        self._marks: dict[str, int] = {}

    # --- up and down --------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Bring it up."""
        try:
            await self.up()
        except BaseException:
            await self.down()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Remove it."""
        await self.down()

    async def up(self) -> None:
        """Bring it up, and wait until all 16 shards are READY and the load runs."""
        self.nats = processes.NatsServer(self.bed.bin / "nats-server", Path(self._folder.name), self.bed.node_address)
        await self.nats.start()
        self.stream = Stream(self.nats.url)
        await self.stream.make()
        host, port = await asyncio.to_thread(self._set_up)
        self.simulator = Simulator(f"http://{host}:{port}/control")
        self._tasks = [asyncio.create_task(view.run()) for view in (self.ranges, self.pods, self.operators)]
        await self.healed(seconds=180)
        await self.simulator.call("POST", "loads", rate=RATE, twins=0.02)
        self._marks = await self.simulator.marks()
        await asyncio.sleep(1)
        await self.close()

    def _set_up(self) -> tuple[str, int]:
        """Make simulator and operator on the first node, then the gateway; give the simulator's address."""
        bot = {"guilds": SHARDS * GUILDS_PER_SHARD, "max_concurrency": SHARDS, "shards": SHARDS, "guild_bytes": 1000}
        self.road.set_up_simulator(bot=bot, options={"heartbeat_interval": HEARTBEAT_INTERVAL})
        if self._own_operator:
            where = f"nodeSelector.kubernetes\\.io/hostname={FIRST_NODE}"
            self.cluster.install_operator(f"watchNamespaces={{{self.namespace}}}", where)
        if self._second_node:
            self.bed.second_node_up()
        self.road.make_secret()
        sinks = [{"name": "events", "nats": {"url": self.nats.url, "stream": STREAM}}]
        self.road.apply_gateway(shards={"count": SHARDS, "perPod": PER_POD}, sinks=sinks)
        return self.cluster.address(self.namespace, "simulator", 8080)

    async def down(self) -> None:
        """Remove all of it, but the test bed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._tear_down)
        if hasattr(self, "simulator"):
            await self.simulator.close()
        await self.api.session.close()
        self.nats.kill()
        self._folder.cleanup()

    def _tear_down(self) -> None:
        self.cluster.kubectl("uncordon", FIRST_NODE, check=False)
        self.cluster.kubectl("delete", "dgw", "--all", "-n", self.namespace, "--timeout=60s", check=False)
        if self._own_operator:
            self.cluster.uninstall_operator()
            self.cluster.kubectl("delete", "replicasets", "--all", "-n", OPERATOR_NAMESPACE, check=False)
        self.cluster.kubectl("delete", "namespace", self.namespace, "--wait=false", check=False)
        if self._second_node:
            self.bed.second_node_down()

    # --- where things are ---------------------------------------------------------------------------------------

    def range_of(self, shard: int) -> Object:
        """Find the range of a shard."""
        found: Object = next(r for r in self.ranges if r["spec"]["first"] <= shard <= r["spec"]["last"])
        return found

    def shards_with(self, shard: int) -> list[int]:
        """List the shards of a shard's range."""
        spec = self.range_of(shard)["spec"]
        return list(range(spec["first"], spec["last"] + 1))

    def holder(self, shard: int) -> Object:
        """Find the pod that holds a shard's range."""
        uid = self.range_of(shard)["status"]["holder"]
        found: Object = next(pod for pod in self.pods if pod["metadata"]["uid"] == uid)
        return found

    def shard_processes(self, shard: int) -> list[int]:
        """Find the process that holds a shard."""
        return processes.of_pod(self.holder(shard)["metadata"]["uid"], SHARD_PROGRAM)

    def operator_processes(self) -> list[int]:
        """Find the operator's process."""
        return [pid for pod in self.operators for pid in processes.of_pod(pod["metadata"]["uid"], OPERATOR_PROGRAM)]

    def pod_path(self, pod: Object) -> str:
        """Give a pod's path in the API."""
        meta = pod["metadata"]
        return f"{PODS.format(meta['namespace'])}/{meta['name']}"

    async def patch_gateway(self, **spec: Any) -> None:
        """Change the DiscordGateway."""
        await self.api.patch(f"{GATEWAYS.format(self.namespace)}/mybot", spec=spec)

    async def resumed(self, shards: list[int], *, seconds: float = 60) -> None:
        """Wait until each of these shards has resumed since the window was opened."""
        await self.simulator.until("resumes", self._marks["resumes"], "resumed", shards, seconds=seconds)

    async def identified(self, shards: list[int], *, seconds: float = 60) -> None:
        """Wait until each of these shards has identified since the window was opened."""
        await self.simulator.until("identifies", self._marks["identifies"], "ready", shards, seconds=seconds)

    # --- what is seen -------------------------------------------------------------------------------------------

    def _see(self, item: Object) -> None:
        for trap in list(self.traps):
            trap(item)

    def _see_range(self, item: Object) -> None:
        """Note a holder that took over from one that neither let go nor was fenced, and each fencing."""
        name, known = item["metadata"]["name"], self._holdings.setdefault(item["metadata"]["uid"], _Holding())
        holder, fenced = item.get("status", {}).get("holder", ""), item["spec"].get("fencedHolder", "")
        if fenced and fenced != known.fenced:
            self._measured.fenced.append(f"{name}: {fenced}")
        if holder and known.holder and holder != known.holder != fenced:
            self._measured.two_holders.append(f"{name}: {known.holder}, then {holder}")
        known.holder, known.fenced = holder, fenced
        self._see(item)

    def unsettled(self) -> str:
        """Say what is not as it should be in peace; empty when all is well."""
        ranges = list(self.ranges)
        if len(ranges) != SHARDS // PER_POD:
            return f"{len(ranges)} ranges"
        if not any(ready(pod) for pod in self.operators):
            return "the operator is not ready"
        return next((why for item in ranges if (why := self._unsettled_range(item))), "")

    def _unsettled_range(self, item: Object) -> str:
        name, status, uid = item["metadata"]["name"], item.get("status", {}), item["metadata"]["uid"]
        holder = status.get("holder", "")
        staying = [pod for pod in self.pods if _owner(pod) == uid and "deletionTimestamp" not in pod["metadata"]]
        away = [f"{row['id']} {row['state']}" for row in status.get("shards", []) if row["state"] != "ready"]
        if not holder or holder != item["spec"].get("activePod"):
            return f"{name}: holder {holder!r}, active {item['spec'].get('activePod')!r}"
        if [pod["metadata"]["uid"] for pod in staying] != [holder] or not ready(staying[0]):
            return f"{name}: pods {[(pod['metadata']['name'], ready(pod)) for pod in staying]}"
        if away or status.get("spoolBytes"):
            return f"{name}: shards {away}, {status.get('spoolBytes', 0)} bytes in the spool"
        return ""

    async def healed(self, *, seconds: float = HEAL_SECONDS) -> None:
        """Wait until all is as in peace. Raise `NotHealed` with what is not."""
        try:
            await self.views.until("peace", lambda: not self.unsettled(), seconds=seconds)
            async with asyncio.timeout(30):
                while missing := await self._unconnected():
                    await asyncio.sleep(0.1)
        except (NotInTime, TimeoutError) as error:
            raise NotHealed(f"{error} {self.unsettled() or missing}") from error

    async def _unconnected(self) -> list[int]:
        sessions = await self.simulator.call("GET", f"sessions?bot={BOT}")
        connected = {session["shard"] for session in sessions if session["connections"]}
        return [shard for shard in range(SHARDS) if shard not in connected]

    # --- a fault's window ---------------------------------------------------------------------------------------

    async def open(self, planned: Planned) -> None:
        """Set the simulator's mode for a fault."""
        options = {"on_resume": planned.on_resume, "trim_by_heartbeat": planned.trim}
        await self.simulator.call("PATCH", "options", **options)

    async def close(self) -> Measured:
        """Wait until all that was sent up to now is stored; give what the window showed."""
        through = (await self.simulator.call("GET", "state"))["ledger"]["last"]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while await self._missing(through):
                    await asyncio.sleep(0.2)
        done, self._measured = self._measured, Measured(Window())
        done.window = self.book.close(through)
        await self._read_journals(done)
        await self._stay_small()
        return done

    async def _missing(self, through: int) -> int:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            self.book.sent(await self.simulator.read_ledger())
            stored, gaps = await self.stream.read()
            self.book.stored(stored)
            for gap in gaps:
                self.book.gap(gap)
        return self.book.missing(through)

    async def _read_journals(self, done: Measured) -> None:
        found = {name: await self.simulator.records(name, after) for name, after in self._marks.items()}
        self._marks |= {name: records[-1]["n"] for name, records in found.items() if records}
        done.identifies, done.resumes = len(found["identifies"]), len(found["resumes"])
        done.violations = [f"{r['rule']}: shard {r['shard']}: {r['message']}" for r in found["violations"]]
        done.silences = [r for r in found["silences"] if r["seconds"] is not None]
        done.overlaps = [
            f"shard {r['shard']}: {r['seconds']} s, the old one silent for {r['silent_before']:.2f} s, ended by {r['ended_by']}"
            for r in found["overlaps"]
        ]

    async def _stay_small(self) -> None:
        """Forget what has been judged, now and then."""
        await self.stream.forget()
        ledger = (await self.simulator.call("GET", "state"))["ledger"]
        if ledger["entries"] < LEDGER_LIMIT:
            return
        await self.simulator.call("DELETE", "loads")
        through = (await self.simulator.call("GET", "state"))["ledger"]["last"]
        async with asyncio.timeout(DRAIN_SECONDS):
            while await self._missing(through):
                await asyncio.sleep(0.2)
        await self.simulator.call("POST", "reset")
        await self.simulator.call("POST", "loads", rate=RATE, twins=0.02)

    async def evidence(self) -> str:
        """Give what a person would look at first."""
        return f"{self.unsettled()}\n{await asyncio.to_thread(self.road.describe)}"


def _owner(pod: Object) -> str:
    return str(next((owner["uid"] for owner in pod["metadata"].get("ownerReferences", [])), ""))


def ready(pod: Object) -> bool:
    """Say whether a pod is ready and stays."""
    conditions = pod.get("status", {}).get("conditions", [])
    going = "deletionTimestamp" in pod["metadata"]
    return not going and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


async def run(setting: Setting, planned: Planned, strike: Callable[[Setting, Planned], Awaitable[None]]) -> Measured:
    """Let one fault strike; give what was measured, the time to heal among it. Raise `NotHealed`."""
    await setting.open(planned)
    await asyncio.sleep(planned.offset)
    start = time.monotonic()
    try:
        await strike(setting, planned)
        await setting.healed()
        heal = time.monotonic() - start
    except (TimeoutError, NotInTime, ApiFailed, aiohttp.ClientError, StopIteration, KeyError) as error:
        raise NotHealed(f"{type(error).__name__}: {error}") from error
    finally:
        setting.traps.clear()
    measured = await setting.close()
    measured.heal = heal
    return measured


def as_dict(measured: Measured) -> dict[str, Any]:
    """Give what was measured as plain values, long lists shortened."""
    plain = asdict(measured)
    plain["window"]["delay_most"] = max((delay.seconds for delay in measured.window.delays), default=0.0)
    del plain["window"]["delays"]
    for name in ("lost", "twice"):
        plain["window"][f"{name}_count"] = len(plain["window"][name])
        plain["window"][name] = plain["window"][name][:10]
    return plain
