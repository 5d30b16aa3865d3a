"""A pod's parts on the cluster in memory and a Discord in memory, for tests on a loop whose time jumps."""

import asyncio
import gc

import msgspec

from shardwright_api.resources import Compression, RangeSpec, ShardConfig, ShardState, ShardStatus
from shardwright_shard import shard as shard_module
from shardwright_shard.coordination.local import LocalCluster
from shardwright_shard.identify_gate import IdentifyGate
from shardwright_shard.journal import Journal
from shardwright_shard.pod import Pod, _resumable
from shardwright_shard.session import Session, SessionConfig
from shardwright_shard.shard import Shard, Surroundings
from shardwright_shard.sinks.memory import MemorySink
from unit.shard.fake_discord import FakeDiscord
from unit.shard.messages import BOT

RANGE = "mybot-4-0-3"
GATEWAY_URL = "wss://gateway.example"
TOKEN = "MTk4NjIyNDgzNDcxOTI1MjQ4.the-secret-token"


def config(**fields):
    given = {"gateway": "mybot", "gateway_url": GATEWAY_URL, "intents": 513, "compression": Compression.ZSTD}
    return ShardConfig(**given | fields)


def spec(**fields):
    given = {"first": 0, "last": 3, "total": 4, "bot_id": BOT, "max_concurrency": 1, "config": config()}
    return RangeSpec(**given | fields)


def row(shard, *, session=None, seq=10, **fields):
    """A shard's row of a checkpoint."""
    given = {"state": ShardState.CLOSED, "session": session or f"old-{shard}", "url": "wss://resume.example"}
    return ShardStatus(id=shard, seq=seq, **{**given, "intents": 513, "compression": Compression.ZSTD, **fields})


async def at_once(function, *args):
    """Stand for a thread, on a loop whose time would jump meanwhile."""
    return function(*args)


class Flaky:
    """A coordinator whose calls fail as told: `errors["slot"] = [CoordinatorUnavailable("...")]`, one per call.

    `calls` counts. An item that is no exception is given back instead of asking.
    """

    def __init__(self, coordinator):
        self.inner = coordinator
        self.errors = {}
        self.calls = {}
        self.started = False

    @property
    def view(self):
        return self.inner.view

    def watch_bucket(self, bucket):
        self.inner.watch_bucket(bucket)

    def identified(self, bucket, *, too_early):
        self.inner.identified(bucket, too_early=too_early)

    def __getattr__(self, name):
        async def call(*args, **kwargs):
            self.calls[name] = self.calls.get(name, 0) + 1
            waiting = self.errors.get(name)
            if not waiting:
                answer = await getattr(self.inner, name)(*args, **kwargs)
                self.started = self.started or name == "start"
                return answer
            answer = waiting.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            return await answer() if callable(answer) else answer

        return call


class Stage:
    """The world around pods and shards. `patch` is pytest's monkeypatch."""

    def __init__(self, patch, **fields):
        self.discord = FakeDiscord()
        patch.setattr(shard_module, "connect", self.discord.connect)
        self.cluster = LocalCluster()
        self.cluster.add_range(RANGE, spec(**fields))
        self.token = TOKEN
        self.tasks = []
        self.coordinators = []
        self.unheard = []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: self.unheard.append(context))

    @property
    def range(self):
        return self.cluster.range(RANGE)

    @property
    def status(self):
        return self.range.status

    def read_token(self):
        if isinstance(self.token, Exception):
            raise self.token
        return self.token

    def start(self, coroutine):
        task = asyncio.ensure_future(coroutine)
        self.tasks.append(task)
        return task

    def flaky(self, pod):
        coordinator = Flaky(self.cluster.coordinator(RANGE, pod=pod))
        self.coordinators.append(coordinator)
        return coordinator

    def pod(self, name="a", *, sinks=None, memory_limit=None, state_dir=None, hold_on=0.0):
        if memory_limit is not None:
            about = self.range.spec.config
            self.cluster.change(RANGE, config=msgspec.structs.replace(about, buffer_memory=memory_limit))
        coordinator = self.flaky(name)
        made = [MemorySink()] if sinks is None else sinks
        return Pod(
            coordinator,
            make_sinks=lambda _view: made,
            read_token=self.read_token,
            random=lambda: 0.5,
            tls=None,
            state_dir=state_dir,
            hold_on=hold_on,
            in_thread=at_once,
        )

    async def until(self, predicate, within=120.0):
        """Let time go on until the predicate holds."""
        async with asyncio.timeout(within):
            while not predicate():  # noqa: ASYNC110 - time jumps, and predicates look at anything
                await asyncio.sleep(0.01)

    async def settle(self, seconds=0.0):
        """Let everything happen that happens within so many seconds."""
        await asyncio.sleep(seconds)
        for _ in range(50):
            await asyncio.sleep(0)

    async def end(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for coordinator in self.coordinators:
            if coordinator.started:
                await coordinator.inner.close()
        gc.collect()
        assert self.unheard == [], f"an exception that nobody took: {self.unheard}"


class ShardStage(Stage):
    """Shards without a pod: everything that `Surroundings` name is in the test's hands."""

    async def hold(self, *shards, rows=(), limit=10_000_000):
        """Become the holder and make these shards."""
        self.coordinator = self.flaky("a")
        self.cluster.activate(RANGE, "a")
        await self.coordinator.start()
        assert await self.coordinator.take()
        self.sinks_away = None
        self.fatal = 0
        self.gate = IdentifyGate(self.coordinator)
        self.journal = Journal(
            limit=limit,
            on_full=lambda: [each.pause() for each in self.shards.values()],
            on_room=lambda: [each.resume() for each in self.shards.values()],
        )
        self.sink = MemorySink()
        self.sink.attach(self.journal.reader(self.sink.wake))
        self.shards = {}
        self.runs = {}
        kept = {each.id: each for each in rows}
        for shard in shards:
            self._make(shard, kept.get(shard))
        return self

    def _make(self, shard, kept):
        seen = self.coordinator.view.spec
        about = SessionConfig(
            bot=BOT,
            shard=shard,
            total=seen.total,
            intents=seen.config.intents,
            compression=seen.config.compression,
            identity=seen.config.identity,
        )
        session = Session(about, random=lambda: 0.5, wall=self.wall, resumable=_resumable(about, kept))
        around = Surroundings(
            coordinator=self.coordinator,
            journal=self.journal,
            gate=self.gate,
            gateway_url=GATEWAY_URL,
            tls=None,
            read_token=self.read_token,
            sinks_obstacle=lambda: self.sinks_away,
            changed=lambda: None,
            fatal=self._fatal,
            renewed=self._renewed,
        )
        self.shards[shard] = Shard(session, around)

    def run(self):
        for shard in self.shards.values():
            self.runs[shard.id] = self.start(shard.run())
        return self

    def nudge(self):
        for shard in self.shards.values():
            shard.nudge()

    def grant(self, count):
        self.cluster.grant(RANGE, count)
        self.nudge()

    def state(self, shard=0):
        return self.shards[shard].session.state.name

    def wall(self):
        return 1735689600.0 + asyncio.get_running_loop().time()

    def _renewed(self, old, new):
        self.shards[old.id] = new

    def _fatal(self):
        self.fatal += 1


class PodStage(Stage):
    """Pods "a" and "b" of one range, each with a sink of its own."""

    def __init__(self, patch, **fields):
        super().__init__(patch, **fields)
        self.pods, self.sinks, self.runs = {}, {}, {}

    def run(self, name="a", *, active=True, sinks=None, **fields):
        self.sinks[name] = MemorySink() if sinks is None else sinks[0]
        pod = self.pods[name] = self.pod(name, sinks=sinks or [self.sinks[name]], **fields)
        self.runs[name] = self.start(pod.run())
        if active:
            self.cluster.activate(RANGE, name)
        return pod

    async def ready(self, name="a"):
        await self.until(lambda: self.pods[name].ready)
        return self.pods[name]

    async def cold_start(self, name="a", **fields):
        self.run(name, **fields)
        spec = self.range.spec
        self.cluster.grant(RANGE, spec.last - spec.first + 1)
        return await self.ready(name)

    async def stopped(self, name="a"):
        self.pods[name].stop()
        async with asyncio.timeout(60):
            await asyncio.gather(self.runs[name], return_exceptions=True)
        return self.runs[name]

    def give_checkpoint(self, *rows):
        self.cluster.write(RANGE, shards=rows)

    def states(self):
        return [str(each.state) for each in self.status.shards]
