"""The stage of these tests: a strict simulator, the cluster in memory, pods with a memory sink, and what must always hold.

A test opens a `Stage`, starts pods, does harm and looks. What holds for every test is checked when the stage closes:
no task died or was left behind, nothing was logged as an error, no rule of Discord's was broken, nothing was identified
that was not paid for, and the token stands nowhere.

Times are scaled down: an identify window of 20 ms, to which the cluster adds a margin of 100 ms. `random` is 0, so that
every wait is the shortest that is allowed.
"""

import asyncio
import gc
import logging
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client.exposition import generate_latest

from shardwright_api.logs import JsonFormatter
from shardwright_api.resources import Compression, RangeSpec, RangeStatus, ShardConfig, ShardStatus
from shardwright_shard.coordination.local import LocalCluster
from shardwright_shard.journal import Event, Source
from shardwright_shard.metrics import make_registry
from shardwright_shard.pod import Pod
from shardwright_shard.sinks.memory import MemorySink
from shardwright_simulator import BotConfig, LoadSpec, Options, Simulator
from shardwright_simulator.connection import Connection, Phase
from shardwright_simulator.ledger import Entry

MARGIN = 0.1
"""Seconds that the cluster's identify window is longer than Discord's: between a won slot and its IDENTIFY's arrival."""
IDENTIFY_WINDOW = 0.02
INTENTS = 53608447
GATEWAY = "mybot"
UNREADABLE = "shardwright.unreadable"
GAP = "shardwright.gap"
Key = tuple[str, int]
"""A session's id and a sequence: what an event is known by."""


async def until(predicate: Callable[[], Any], *, within: float = 5.0) -> Any:
    """Wait until something outside the simulator is true, and give it."""
    async with asyncio.timeout(within):
        while not (value := predicate()):  # noqa: ASYNC110 - nothing tells of every change in a pod
            await asyncio.sleep(0.002)
        return value


async def stays(predicate: Callable[[], Any], *, seconds: float) -> None:
    """Watch that something stays true for so many seconds."""
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        assert predicate()
        await asyncio.sleep(0.005)


def now() -> float:
    """Give the event loop's time."""
    return asyncio.get_running_loop().time()


@dataclass(frozen=True)
class Actor:
    """A pod that runs, its sink, and its task."""

    uid: str
    range: str
    pod: Pod
    sink: MemorySink
    task: asyncio.Task[None]

    async def ready(self, *, within: float = 8.0) -> None:
        """Wait until the pod says that it is ready."""
        await until(lambda: self.pod.ready or self.task.done(), within=within)
        assert not self.task.done(), self.task

    async def stop(self) -> None:
        """End the pod as SIGTERM does."""
        self.pod.stop()
        async with asyncio.timeout(15):
            await self.task

    async def crash(self) -> None:
        """Kill the container: nothing is released, no close frame is sent."""
        for shard in self.pod.shards:
            if shard.connection is not None:
                shard.connection._handler = None
                shard.connection.abort()
        self.task.cancel()
        await asyncio.wait([self.task])

    def message(self, shard: int = 0) -> str:
        """Give what the shard's row says to people."""
        return self.pod.shards[shard].status().message or ""

    def count(self, counter: str) -> int:
        """Sum one of the sessions' counters."""
        return sum(getattr(shard.session.counters, counter) for shard in self.pod.shards)

    def metrics(self) -> str:
        """Scrape the pod, without HTTP."""
        return generate_latest(make_registry(self.pod)).decode()


class LogBook(logging.Handler):
    """Every log line of everyone, as the program would print it; those of level ERROR and above once more."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(JsonFormatter())
        self.lines: list[str] = []
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        if record.levelno >= logging.ERROR:
            self.errors.append(self.lines[-1])


class Stage:
    """One bot at a simulator, one gateway at a cluster, and pods."""

    def __init__(
        self, sim: Simulator, cluster: LocalCluster, book: LogBook, *, shards: int, config: ShardConfig
    ) -> None:
        self.sim = sim
        self.control = sim.control
        self.cluster = cluster
        self.book = book
        self.shards = shards
        self.config = config
        self.ranges: list[str] = []
        self.actors: list[Actor] = []
        self.secrets = {sim.token}
        """Tokens; their last part is looked for, since a cut one would be bad enough."""
        self.given_up: set[str] = set()
        """Sessions that the pods gave up while Discord still has them: their later events reach nobody."""
        self.allowed: set[str] = set()
        """Rules that the test breaks on purpose, and notes that it does not mind."""
        self.closes: list[int] = []
        """The close codes that pods sent of their own accord: only 4000 keeps a session alive."""
        self.allowed_closes = {4000}
        self._count_closes()
        self.failures: list[str] = []
        """What the event loop was told of exceptions that nobody awaited."""
        asyncio.get_running_loop().set_exception_handler(self._note_failure)

    # --- the operator -------------------------------------------------------------------------------------------

    def add_range(self, first: int, last: int) -> str:
        """Add a range of the bot's shards; give its name."""
        bot = self.control.bot().config
        name = f"{GATEWAY}-{self.shards}-{first}-{last}"
        spec = RangeSpec(
            first=first,
            last=last,
            total=self.shards,
            bot_id=bot.id,
            max_concurrency=bot.max_concurrency,
            config=self.config,
        )
        self.cluster.add_range(name, spec)
        self.ranges.append(name)
        return name

    def change_config(self, **fields: Any) -> None:
        """Change the gateway's configuration in all of its ranges."""
        self.config = msgspec.structs.replace(self.config, **fields)
        for name in self.ranges:
            self.cluster.change(name, config=self.config)

    def status(self, name: str | None = None) -> RangeStatus:
        """Read what pods wrote about a range (the first, when none is named)."""
        return self.cluster.range(name or self.ranges[0]).status

    def rows(self) -> tuple[ShardStatus, ...]:
        """Read the checkpoint of the first range."""
        return self.status().shards

    def sessions(self) -> dict[int, str]:
        """Give the id of each shard's session at Discord."""
        return {session.shard: session.id for session in self.control.sessions()}

    # --- pods ---------------------------------------------------------------------------------------------------

    def start(
        self,
        uid: str = "p1",
        *,
        name: str = "",
        active: bool = True,
        grant: int = 0,
        sink: MemorySink | None = None,
        read_token: Callable[[], str] | None = None,
        random: Callable[[], float] = lambda: 0.0,
        tls: ssl.SSLContext | None = None,
        memory_limit: int | None = None,
        state_dir: Path | None = None,
    ) -> Actor:
        """Start a pod; without a range's name for one of all shards. `grant` so many identifies to the range."""
        name = name or next(iter(self.ranges), "") or self.add_range(0, self.shards - 1)
        sink = sink or MemorySink()
        if memory_limit is not None:
            self.change_config(buffer_memory=memory_limit)
        pod = Pod(
            self.cluster.coordinator(name, pod=uid),
            make_sinks=lambda _: [sink],
            read_token=read_token or (lambda: self.sim.token),
            random=random,
            tls=tls or ssl.create_default_context(),
            state_dir=state_dir,
        )
        if active:
            self.cluster.activate(name, uid)
        self.cluster.grant(name, grant)
        actor = Actor(uid, name, pod, sink, asyncio.create_task(pod.run(), name=f"pod {uid}"))
        self.actors.append(actor)
        return actor

    async def started(self, uid: str = "p1", **settings: Any) -> Actor:
        """Start a pod with a grant for every shard, and wait until it is ready."""
        actor = self.start(uid, **{"grant": self.shards} | settings)
        await actor.ready()
        return actor

    # --- load and what became of it -----------------------------------------------------------------------------

    def load(self, count: int = 200, *, rate: float = 2000.0, **settings: Any) -> None:
        """Begin to send so many events."""
        self.control.start_load(LoadSpec(count=count, rate=rate, **settings))

    async def arrived(self, *, within: float = 10.0, twice: bool = False) -> None:
        """Wait until all that was sent has reached a sink, and compare it with the ledger.

        With `twice` an event may be there more than once, if it is the same each time.
        """
        await self.sim.wait_for(self._all_sent, within=within)
        try:
            await until(lambda: not self._missing(), within=within)
        except TimeoutError:
            missing = sorted(self._missing())
            raise AssertionError(f"{len(missing)} events never came, among them {missing[:5]}") from None
        self.compare(twice=twice)

    async def checkpointed(self) -> None:
        """Wait until all that was sent has arrived, and the first range's checkpoint says so."""
        await self.arrived()
        last = {key[0]: key[1] for key in sorted(self.times_received())}
        await until(lambda: {row.session: row.seq for row in self.rows()} == last)

    def compare(self, *, twice: bool = False) -> None:
        """Compare what reached the sinks with the ledger: every event known, as sent, in order and once."""
        sent, resumed = self._sent(), {e.digest for e in self.control.ledger() if e.t == "RESUMED"}
        for actor in self.actors:
            for source, event in actor.sink.events:
                if event.name == GAP:
                    assert (event.seq, event.last) == (None, "gap")
                elif event.seq is None:
                    assert (event.name, sha256(event.payload).digest() in resumed) == ("RESUMED", True)
                else:
                    _same(sent[source.session, event.seq], source, event)
            if not twice:
                _ascending(actor.sink.events)
        times = self.times_received()
        assert twice or max(times.values(), default=1) == 1, [key for key, count in times.items() if count > 1][:5]

    def times_received(self) -> Counter[Key]:
        """Count how often each event reached a sink."""
        return Counter(
            (source.session, event.seq)
            for actor in self.actors
            for source, event in actor.sink.events
            if event.seq is not None
        )

    def _sent(self) -> dict[Key, Entry]:
        return {(e.session, e.seq): e for e in self.control.ledger() if e.t != "RESUMED"}

    def _missing(self) -> set[Key]:
        missing = self._sent().keys() - self.times_received().keys()
        return {key for key in missing if key[0] not in self.given_up}

    def _all_sent(self) -> bool:
        backfilling = any(session.backfilling for session in self.control.sessions())
        return not backfilling and not any(load.running for load in self.control.loads())

    # --- what always holds --------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Stop all pods, and check what must hold after every test."""
        for actor in self.actors:
            if not actor.task.done():
                await actor.stop()
        gc.collect()
        violations = [v for v in self.control.violations(severity=None) if v.rule not in self.allowed]
        assert not self.failures, self.failures
        assert not self.book.errors, self.book.errors
        assert not violations, violations
        assert set(self.closes) <= self.allowed_closes, self.closes
        self._check_identifies()
        self._check_secrets()

    def _count_closes(self) -> None:
        """Write down what the pods close with, where the simulator has not closed before."""
        lost = self.sim.gateway.lost

        def note(connection: Connection, code: int | None) -> None:
            if code is not None and connection.phase is not Phase.CLOSED:
                self.closes.append(code)
            lost(connection, code)

        self.sim.gateway.lost = note  # type: ignore[method-assign]

    def _note_failure(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Keep what the event loop has caught, unless it is the simulator's own."""
        if "shardwright_simulator" not in str(context):
            self.failures.append(str(context))

    def _check_identifies(self) -> None:
        """Nothing was identified that was not paid for, and nothing paid for that was not granted."""
        statuses = [(self.cluster.range(n).status, self.cluster.range(n).spec) for n in self.ranges if self._exists(n)]
        assert all(status.identifies_spent <= spec.identify_grant for status, spec in statuses)
        if len(statuses) == len(self.ranges):
            assert len(self.control.identifies()) <= sum(status.identifies_spent for status, _ in statuses)

    def _exists(self, name: str) -> bool:
        return name in self.cluster._ranges

    def _check_secrets(self) -> None:
        """No token stands in a log line, a row, a metric or the exception that ended a pod."""
        ends = [repr(a.task.exception()) for a in self.actors if a.task.done() and not a.task.cancelled()]
        rows = [repr(found) for found in self.cluster._ranges.values()]
        shown = [*self.book.lines, *self.failures, *rows, *ends, *(actor.metrics() for actor in self.actors)]
        found = [text for text in shown for secret in self.secrets if secret.rpartition(".")[2] in text]
        assert not found, found


def _same(entry: Entry, source: Source, event: Event) -> None:
    """Check that an event is the ledger's, byte for byte, and named for its session."""
    assert (source.bot, source.shard, source.total) == (entry.bot, entry.shard, entry.total)
    if entry.flags == "unreadable":
        assert event.name == UNREADABLE
    else:
        assert (event.name, event.backfill) == (entry.t, entry.flags == "backfill")
        assert sha256(event.payload).digest() == entry.digest


def _ascending(events: list[tuple[Source, Event]]) -> None:
    sequences: dict[str, list[int]] = {}
    for source, event in events:
        if event.seq is not None:
            sequences.setdefault(source.session, []).append(event.seq)
    assert all(before < after for seqs in sequences.values() for before, after in pairwise(seqs))


def make_config(gateway_url: str, compression: Compression = Compression.ZSTD, **fields: Any) -> ShardConfig:
    """Render the shard configuration of the test's gateway; reports are written every 300 ms."""
    given = {"gateway": GATEWAY, "intents": INTENTS, "heartbeat_seconds": 0.3} | fields
    return ShardConfig(gateway_url=gateway_url, compression=compression, **given)


def make_simulator(
    *, shards: int, max_concurrency: int, bot: dict[str, Any], options: dict[str, Any], tls: ssl.SSLContext | None
) -> Simulator:
    """Make a simulator with one bot: two small guilds a shard, a replay buffer for a whole test, a heartbeat in five seconds."""
    size = {"guilds": 2 * shards, "guild_bytes": 300, "shards": shards, "replay_limit": 20_000}
    config = BotConfig(**size | {"max_concurrency": max_concurrency} | bot)
    times = {"heartbeat_interval": 5.0, "identify_window": IDENTIFY_WINDOW} | options
    return Simulator(bots=[config], options=Options(**times), tls=tls, seed=7)
