"""The operator as a whole: its parts, and the order in which they start and stop.

Start: HTTP first (a probe must not wait for the API server), then full lists of gateways, pods and nodes, then the watch
of ShardRanges until its first list is in, and only then kopf and the workers: nothing is decided on half a picture. The
CRDs may come later than the operator: it waits for them.

Stop, on SIGTERM: workers and watches are cancelled where they stand; every step is replanned from the objects by whoever
comes next, so nothing needs to be finished.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import aiohttp
import msgspec

from shardwright_operator import metrics
from shardwright_operator.asker import Asker, utc_now
from shardwright_operator.bot_controller import BotController
from shardwright_operator.discord_rest import DiscordRest
from shardwright_operator.edge import Edge
from shardwright_operator.errors import OperatorError
from shardwright_operator.events import EventWriter
from shardwright_operator.executor import Executor
from shardwright_operator.gateway_controller import GatewayController
from shardwright_operator.http_server import HttpServer
from shardwright_operator.keys import BotKey, GatewayKey, Key, RangeKey
from shardwright_operator.kube import ApiServer, Kube, load_configuration
from shardwright_operator.lists import Lists
from shardwright_operator.memory import Memory
from shardwright_operator.range_controller import RangeController
from shardwright_operator.secret_reader import SecretReader
from shardwright_operator.settings import Settings
from shardwright_operator.store import Store
from shardwright_operator.watch import RangeWatch
from shardwright_operator.workqueue import WorkQueue, backoff

log = logging.getLogger(__name__)

_T = TypeVar("_T")

WORKERS: Final = 16
_GATEWAY_PACE: Final = 1.0
_BOT_PACE: Final = 0.5
_TICK: Final = 0.5
_RESYNC: Final = 60.0
"""Seconds between two full lists: what kopf missed is seen after that at the latest."""
_SWEEP: Final = 3600.0
_LOOP_PATIENCE: Final = 30.0
_WATCH_PATIENCE: Final = 300.0


def pace(key: Key) -> float:
    """Give the seconds between two looks at a key, at the least."""
    match key:
        case RangeKey():
            return 0.0
        case GatewayKey():
            return _GATEWAY_PACE
        case BotKey():
            return _BOT_PACE


class Operator:
    """All parts, wired."""

    def __init__(self, settings: Settings, kube: Kube, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._queue = WorkQueue(self._look_at, pace=pace)
        self._store = Store(clock=time.monotonic, enqueue=self._queue.add, namespaces=settings.namespaces)
        self._events = EventWriter(kube, instance=os.environ.get("HOSTNAME") or socket.gethostname())
        self._executor = Executor(kube, self._store, self._events)
        self._asker = Asker(DiscordRest(session))
        self._memory = Memory()
        self._lists = Lists(kube, self._store, settings.namespaces)
        self._watches = [RangeWatch(kube, one, self._store) for one in settings.namespaces or ("",)]
        self._edge: Edge | None = None
        self._ticked_at = time.monotonic()
        self._synced = False
        secrets = SecretReader(kube)
        store, memory, executor, enqueue = self._store, self._memory, self._executor, self._queue.add
        self._ranges = RangeController(store=store, memory=memory, secrets=secrets, executor=executor, enqueue=enqueue)
        self._gateways = GatewayController(
            kube=kube,
            store=store,
            memory=memory,
            secrets=secrets,
            asker=self._asker,
            executor=executor,
            settings=settings,
            enqueue=enqueue,
        )
        self._bots = BotController(
            store=store, memory=memory, secrets=secrets, asker=self._asker, executor=executor, enqueue=enqueue
        )

    async def run(self) -> None:
        """Run until cancelled."""
        made = metrics.registry(self._store, gauges=self._levels, counters=self._counts, actions=self._actions)
        server = HttpServer(
            health=self._trouble,
            readiness=self._not_ready,
            metrics=lambda: metrics.render(made),
            content_type=metrics.CONTENT_TYPE,
        )
        await server.start(self._settings.http_host, self._settings.http_port)
        try:
            await self._run_parts()
        finally:
            if self._edge is not None:
                await self._edge.stop()
            await server.stop()

    async def _run_parts(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(), name="tick")
            with_nodes = await _insist(self._lists.read_nodes)
            await _insist(self._lists.read)
            for watch in self._watches:
                group.create_task(watch.run(), name="watch")
            for watch in self._watches:
                await watch.synced.wait()
            self._edge = Edge(self._settings, self._store, with_nodes=with_nodes)
            self._edge.start()
            self._synced = True
            log.info("in sync", extra={"gateways": len(self._store.gateways), "ranges": len(self._store.ranges)})
            group.create_task(self._events.run(), name="events")
            group.create_task(self._every(_RESYNC, self._lists.read), name="resync")
            group.create_task(self._every(_SWEEP, self._sweep), name="sweep")
            group.create_task(self._queue.run(WORKERS), name="workers")

    async def _look_at(self, key: Key) -> float | None:
        match key:
            case RangeKey():
                again_after = await self._ranges.look_at(key)
            case GatewayKey():
                again_after = await self._gateways.look_at(key)
            case BotKey():
                again_after = await self._bots.look_at(key)
        if again_after is None:
            self._queue.forget(key)
        return again_after

    # --- what runs beside the workers

    async def _tick(self) -> None:
        """Measure silence, and that the loop turns."""
        while True:
            await asyncio.sleep(_TICK)
            self._ticked_at = time.monotonic()
            self._store.expire()

    async def _every(self, seconds: float, job: Callable[[], Awaitable[object]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            with contextlib.suppress(
                OperatorError, msgspec.MsgspecError
            ):  # the next round may read what this could not
                await job()

    async def _sweep(self) -> None:
        swept = await self._lists.sweep_leases(utc_now())
        log.info("swept %d Leases that nobody uses any more", swept)

    # --- what others ask

    def _trouble(self) -> str:
        """Say what only a restart could mend. The API server's absence is nothing of the kind."""
        now = time.monotonic()
        if now - self._ticked_at > _LOOP_PATIENCE:
            return "the event loop does not turn"
        if self._edge is not None and not self._edge.alive():
            return "kopf's thread has ended"
        if self._synced and any(now - watch.last_try > _WATCH_PATIENCE for watch in self._watches):
            return "a watch neither hears anything nor reconnects"
        return ""

    def _not_ready(self) -> str:
        """Say why the operator does not do its work, or only late."""
        if self._edge is not None and self._edge.failing():
            return "kopf fails again and again: changes are seen by full lists alone"
        return "" if self._synced else "the caches are not filled yet"

    def _levels(self) -> dict[str, float]:
        return {
            "queue_depth": self._queue.statistics()["depth"],
            "gateways": len(self._store.gateways),
            "ranges": len(self._store.ranges),
            "ranges_silent": self._store.silent(),
            "watch_live": float(self._store.live()),
            "synced": float(self._synced),
        }

    def _counts(self) -> dict[str, float]:
        statistics = self._queue.statistics()
        return {
            "turns": statistics["turns"],
            "failures": statistics["failures"],
            "discord_questions": self._asker.questions,
            "events_dropped": self._events.dropped,
            "watch_restarts": sum(watch.restarts for watch in self._watches),
            "kopf_restarts": self._edge.restarts if self._edge is not None else 0,
        }

    def _actions(self) -> dict[str, float]:
        return dict(self._executor.done)


async def _insist(job: Callable[[], Awaitable[_T]]) -> _T:
    """Do something that must succeed before anything else makes sense."""
    failures = 0
    while True:
        try:
            return await job()
        except (OperatorError, msgspec.MsgspecError) as error:
            failures += 1
            delay = min(5.0, backoff(failures))
            log.warning("not in sync yet, again in %.1f s (are the CRDs installed?): %s", delay, error)
            await asyncio.sleep(delay)


async def serve(settings: Settings) -> None:
    """Run the operator on the cluster that the settings name, until cancelled."""
    kube = ApiServer(await load_configuration(settings.kubeconfig))
    timeout = aiohttp.ClientTimeout(total=10, sock_connect=5)
    async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
        try:
            await Operator(settings, kube, session).run()
        finally:
            await kube.close()
