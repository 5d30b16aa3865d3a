"""The program as a process of its own before a sink that does not take its events: killed, started again, flooded."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from hashlib import sha256
from pathlib import Path

import aiohttp
import msgspec
import pytest

from component.ports import free_port
from component.shard import pod_process
from component.shard.pod_process import Settings
from component.shard.stage import INTENTS, make_simulator, until
from shardwright_api.resources import ShardRange
from shardwright_simulator import LoadSpec

WITHIN = 60.0
"""Generous: what is awaited takes some seconds."""


class Process:
    """One container: the program on a state directory, its standard output read by a test that may leave."""

    def __init__(self, settings, log):
        self.settings = settings
        self._log = log
        self._reading = asyncio.Event()
        self.lines = []
        """Whole lines: what a reader of standard output has."""

    async def start(self):
        file = Path(self.settings.folder) / "settings.json"
        file.write_bytes(msgspec.json.encode(self.settings))
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, pod_process.__file__, file, stdout=asyncio.subprocess.PIPE, stderr=log, limit=2**17
            )
        self._reader = asyncio.create_task(self._read(), name="reader")
        return self

    def look(self, *, away):
        """Read, or leave: then the pipe fills up, as before a sink that is away."""
        if away:
            self._reading.clear()
        else:
            self._reading.set()

    async def end(self, number):
        """Send a signal; give the exit code when all that was written is read."""
        if self._process.returncode is None:
            self._process.send_signal(number)
        self.look(away=False)
        async with asyncio.timeout(WITHIN):
            code = await self._process.wait()
            await self._reader
        return code

    def peak(self):
        """Give the most memory the process ever had, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    async def ask(self, path):
        url = f"http://127.0.0.1:{self.settings.port}/{path}"
        async with aiohttp.ClientSession() as client, client.get(url) as answer:
            return await answer.text()

    async def gauge(self, name):
        text = await self.ask("metrics")
        return float(text.split(f"\ndiscord_gateway_{name} ")[1].split()[0])

    async def _read(self):
        rest = b""
        while True:
            await self._reading.wait()
            data = await self._process.stdout.read(2**16)
            if not data:
                return
            *lines, rest = (rest + data).split(b"\n")
            self.lines += [_line(line) for line in lines]


def _line(line):
    """Take the id of an event and the digest of its payload."""
    head, _, data = line.partition(b',"data":')
    return json.loads(head + b"}")["id"], sha256(data[:-1]).digest()


class Town:
    """A simulator, and one pod's containers one after the other."""

    def __init__(self, sim, folder):
        self.sim, self.control, self.folder = sim, sim.control, folder
        self.processes = []

    async def container(self, *, away=False, **settings):
        given = {"folder": str(self.folder), "gateway_url": self.sim.gateway_url, "port": free_port()}
        bot = self.control.bot().config
        given |= {"bot": bot.id, "shards": bot.shards, "intents": INTENTS}
        process = await Process(Settings(**given | settings), self.folder / "log").start()
        process.look(away=away)
        self.processes.append(process)
        return process

    def range(self):
        return msgspec.json.decode((self.folder / "range.json").read_bytes(), type=ShardRange)

    def missing(self):
        """Compare what was read with the ledger: nothing that was not sent; give what has not come."""
        sent = {f"{e.bot}:{e.session}:{e.seq}": e.digest for e in self.control.ledger() if e.t != "RESUMED"}
        read = {
            id_: digest
            for process in self.processes
            for id_, digest in process.lines
            if id_.rpartition(":")[2].isdigit()
        }
        assert all(sent[id_] == digest for id_, digest in read.items())
        return sent.keys() - read.keys()

    async def complete(self, *, within=WITHIN):
        """Wait until everything has come."""
        async with asyncio.timeout(within):
            while self.missing():  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.3)

    def twice(self):
        read = [id_ for process in self.processes for id_, _ in process.lines]
        return len(read) - len(set(read))

    def live(self):
        connected = {connection.session for connection in self.control.connections()}
        return len(connected) == len(self.control.sessions()) == self.control.bot().config.shards

    async def loaded(self, count, **settings):
        self.control.start_load(LoadSpec(count=count, **settings))
        await self.sim.wait_for(lambda: not any(load.running for load in self.control.loads()), within=WITHIN)


@pytest.fixture
async def open_town(tmp_path):
    async with contextlib.AsyncExitStack() as stack:

        async def open_town(*, shards, bot, **options):
            sim = make_simulator(shards=shards, max_concurrency=shards, bot=bot, options=options, tls=None)
            await stack.enter_async_context(sim)
            (tmp_path / "state").mkdir()
            (tmp_path / "token").write_text(sim.token)
            town = Town(sim, tmp_path)
            stack.push_async_callback(close, town)
            return town

        yield open_town


async def close(town):
    for process in town.processes:
        await process.end(signal.SIGKILL)
    log = (town.folder / "log").read_text()
    assert '"level":"critical"' not in log.lower().replace(" ", ""), log
    assert town.sim.token.rpartition(".")[2] not in log
    assert not town.control.violations(), town.control.violations()


async def test_a_container_that_is_killed_while_its_sink_is_away_loses_nothing(open_town):
    """Discord's buffer holds 300 events a shard, the outage 1,500: only the spool has the rest. No IDENTIFY is spent."""
    town = await open_town(shards=2, bot={"replay_limit": 300})
    first = await town.container()
    await town.sim.wait_for(town.live, within=WITHIN)
    await town.loaded(500, rate=1000)
    first.look(away=True)
    await town.loaded(3000, rate=1500)
    await until(lambda: town.range().status.spool_bytes > 2_000_000, within=WITHIN)
    assert "sinks not available" in await first.ask("readyz")
    while await first.gauge("buffered_events"):  # noqa: ASYNC110 - likewise
        await asyncio.sleep(0.05)
    assert await first.end(signal.SIGKILL) == -signal.SIGKILL
    second = await town.container(away=True)
    await town.sim.wait_for(lambda: len(town.control.resumes()) == 2 and town.live(), within=WITHIN)
    assert all(resume.replayed < 300 for resume in town.control.resumes())
    await town.loaded(1000, rate=1500)
    second.look(away=False)
    await town.complete()
    await until(lambda: town.range().status.spool_bytes == 0, within=WITHIN)
    assert await second.end(signal.SIGTERM) == 0
    assert len(town.control.identifies()) == 2
    print(f"lost 0, sent again with the same id {town.twice()} of {town.control.state().ledger.last}")


async def test_a_container_that_dies_in_the_moment_of_its_first_ready_keeps_its_session(open_town):
    """The session is on disk or in the ShardRange at once: its successor resumes, and nothing is identified twice."""
    town = await open_town(shards=1, bot={})
    first = await town.container(heartbeat_seconds=60.0)
    await town.sim.wait_for(town.control.sessions, within=WITHIN)
    await until(lambda: _knows(town), within=WITHIN)
    await first.end(signal.SIGKILL)
    second = await town.container()
    await town.sim.wait_for(lambda: len(town.control.resumes()) == 1 and town.live(), within=WITHIN)
    await town.complete()
    assert await second.end(signal.SIGTERM) == 0
    assert len(town.control.identifies()) == 1


def _knows(town):
    (session,) = (session.id for session in town.control.sessions())
    kept = town.folder / "state" / "checkpoint.json"
    return session in (kept.read_text() if kept.exists() else "") or session in repr(town.range())


@pytest.mark.parametrize("away", [False, True], ids=["read", "left"])
async def test_a_burst_at_the_start_of_a_big_bot_stays_within_its_memory(open_town, away):
    """16 shards get all their guilds at once: the pod stays under 200 MB, its heartbeats are on time, nothing is lost.

    SHARDWRIGHT_BURST_BYTES=1000000000 runs it at full size.
    """
    total = int(os.environ.get("SHARDWRIGHT_BURST_BYTES", "200_000_000"))
    guild = 30_000
    bot = {"guilds": total // guild, "guild_bytes": guild}
    town = await open_town(shards=16, bot=bot, heartbeat_interval=4.0, backfill_rate=100.0)
    process = await town.container()
    if away:
        await town.sim.wait_for(town.control.sessions, within=WITHIN)
        process.look(away=True)
    begun = asyncio.get_running_loop().time()
    await town.sim.wait_for(lambda: _backfilled(town, bot["guilds"]), within=10 * WITHIN)
    spooled = await process.gauge("spool_events")
    assert away <= (spooled > 0)
    process.look(away=False)
    await town.complete(within=10 * WITHIN)
    took = asyncio.get_running_loop().time() - begun
    sent, peak = town.control.state().ledger.bytes, process.peak()
    print(f"{sent / 1e6:.0f} MB in {took:.1f} s, {spooled:.0f} events on disk, at most {peak / 1e6:.0f} MB of memory")
    late = [v for v in town.control.violations(severity=None) if "heartbeat" in v.rule]
    assert late == []
    assert peak < 200_000_000
    assert await process.end(signal.SIGTERM) == 0


def _backfilled(town, guilds):
    return town.control.state().ledger.last >= guilds and not any(s.backfilling for s in town.control.sessions())
