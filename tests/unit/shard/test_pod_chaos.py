"""Two pods of one range under faults in any order: nothing is lost, and nothing is identified twice.

Discord here keeps every event for a replay and drops no session, no process dies: then there is no excuse. Faults come
from a seeded generator, so that a run that fails can be told again.
"""

import asyncio
import json
import random

import pytest

from shardwright_shard.journal import Journal
from unit.shard.messages import RECONNECT, invalid
from unit.shard.stage import RANGE, PodStage, config

SHARDS = range(4)


class Chaos:
    """Plays the operator, Discord and the sinks, badly."""

    def __init__(self, stage, seed):
        self.stage, self.random = stage, random.Random(seed)
        self.told = []

    async def strike(self):
        action = self.random.choice(self._actions())
        self.told.append(action.__name__)
        action()
        await self.stage.settle(self.random.choice([0, 0.01, 0.3, 2, 12, 50]))

    def _actions(self):
        discord = [self.emit, self.emit, self.emit, self.drop, self.op_7, self.op_9, self.rubbish, self.refuse]
        cluster = [self.flip, self.fence, self.cut, self.restore, self.stop_identifies]
        return [*discord, *cluster, self.hold, self.release, self.leave, self.come_back, self.wait]

    # --- Discord ----------------------------------------------------------------------------------------------

    def _connection(self):
        return self.stage.discord.open(self.random.choice(SHARDS))

    def emit(self):
        content = "x" * self.random.choice([0, 10, 3000])
        self.stage.discord.emit(self.random.choice(SHARDS), count=self.random.randint(1, 20), data={"content": content})

    def drop(self):
        if (connection := self._connection()) is not None:
            connection.drop(self.random.choice([None, 1000, 1001, 1006, 4000, 4001, 4008]))

    def op_7(self):
        if (connection := self._connection()) is not None:
            connection.push(RECONNECT)

    def op_9(self):
        if (connection := self._connection()) is not None:
            connection.push(invalid(resumable=True))

    def rubbish(self):
        """One message cannot be read; the replay brings what was meant."""
        if (connection := self._connection()) is not None:
            connection.push(b'{"t":')

    def refuse(self):
        self.stage.discord.refusals = [OSError("refused")] * self.random.randint(1, 6)

    # --- the operator and the cluster ---------------------------------------------------------------------------

    def flip(self):
        self.stage.cluster.fence(RANGE, "")
        self.stage.cluster.activate(RANGE, self.random.choice("ab"))

    def fence(self):
        """As the operator: only a holder that is silent, and with the other pod active."""
        holder = self.stage.status.holder
        if holder in self.stage.cluster._cut:
            self.stage.cluster.activate(RANGE, "b" if holder == "a" else "a")
            self.stage.cluster.fence(RANGE, holder)

    def cut(self):
        self.stage.cluster.cut(self.random.choice("ab"))

    def restore(self):
        self.stage.cluster.restore()

    def stop_identifies(self):
        self.stage.cluster.hold(RANGE, on=self.random.random() < 0.5)

    # --- the sinks ------------------------------------------------------------------------------------------------

    def _sink(self):
        return self.stage.sinks[self.random.choice("ab")]

    def hold(self):
        self._sink().hold()

    def release(self):
        self._sink().release()

    def leave(self):
        self._sink().leave("no broker")

    def come_back(self):
        self._sink().come_back()

    def wait(self):
        pass

    async def end(self):
        """Let every fault go, and one pod hold the range."""
        stage = self.stage
        stage.discord.refusals = []
        stage.cluster.hold(RANGE, on=False)
        stage.cluster.restore()
        for sink in stage.sinks.values():
            sink.come_back()
            sink.release()
        stage.cluster.fence(RANGE, "")
        stage.cluster.activate(RANGE, "b")
        await stage.until(lambda: stage.pods["b"].ready, within=300)
        await stage.settle(10)


def stored(stage):
    """What reached the sinks: payloads by session."""
    found = {}
    for sink in stage.sinks.values():
        for source, event in sink.events:
            found.setdefault(source.session, set()).add(event.payload)
    return found


@pytest.mark.parametrize("shares", [False, True], ids=["cut", "share"])
@pytest.mark.parametrize("seed", range(12))
async def test_no_order_of_faults_loses_an_event_or_costs_an_identify(monkeypatch, seed, shares):
    stage = PodStage(monkeypatch)
    stage.discord.shares = shares
    await stage.cold_start("a", memory_limit=60_000)
    stage.run("b", active=False, memory_limit=60_000)
    await stage.settle(1)
    chaos = Chaos(stage, seed)
    for _ in range(40):
        await chaos.strike()
        for each in stage.status.shards:
            behind = {text for seq, text in stage.discord.sessions[each.session].events if seq <= each.seq}
            assert behind <= stored(stage)[each.session], "the checkpoint is past an event that no sink has"
    await chaos.end()
    found = stored(stage)
    for name, session in stage.discord.sessions.items():
        assert {text for _, text in session.events} <= found[name], chaos.told
    assert len(stage.discord.identifies) == stage.status.identifies_spent == 4, chaos.told
    assert [each.seq for each in stage.status.shards] == [
        stage.discord.sessions[each.session].events[-1][0] for each in stage.status.shards
    ]
    await stage.end()


class Renewing(Chaos):
    """Discord ends sessions too, and the gateway wants another identity now and then; grants come one by one."""

    wanted = 0

    def _actions(self):
        return [*super()._actions(), self.end_session, self.end_session, self.grant, self.grant, self.want]

    def end_session(self):
        if (connection := self._connection()) is not None:
            connection.push(invalid(resumable=False))

    def grant(self):
        self.stage.cluster.grant(RANGE, 1)

    def want(self):
        """Another configuration comes by a hand-over."""
        self.wanted += 1
        self.stage.cluster.change(RANGE, config=config(identity=f"identity-{self.wanted}", intents=self.wanted))
        self.flip()

    async def end(self):
        """End with a pod that took the range after the last change of the configuration."""
        self.stage.cluster.grant(RANGE, 8)
        await super().end()
        self.stage.cluster.activate(RANGE, "a")
        await self.stage.ready("a")


def untold(stage):
    """Events that no sink has and that lie in no gap. Sessions have the order of their making."""
    found, order = stored(stage), list(stage.discord.sessions)
    told = [
        (order.index(gap["session"]), gap["seq"], order.index(gap["next_session"]), gap["shard"])
        for sink in stage.sinks.values()
        for gap in (json.loads(event.payload) for _, event in sink.events if event.name == "shardwright.gap")
    ]
    lost = [
        (order.index(name), seq, session.shard)
        for name, session in stage.discord.sessions.items()
        for seq, text in session.events
        if text not in found.get(name, set())
    ]
    return [
        (where, seq, shard)
        for where, seq, shard in lost
        if not any((first, last) < (where, seq) < (until, 0) and shard == of for first, last, until, of in told)
    ]


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_lost_when_sessions_end_or_are_renewed_lies_inside_a_gap(monkeypatch, seed):
    stage = PodStage(monkeypatch)
    await stage.cold_start("a", memory_limit=60_000)
    stage.run("b", active=False, memory_limit=60_000)
    await stage.settle(1)
    chaos = Renewing(stage, seed)
    for _ in range(60):
        await chaos.strike()
        assert stage.status.identifies_spent <= stage.range.spec.identify_grant
    await chaos.end()
    assert untold(stage) == [], chaos.told
    assert len(stage.discord.identifies) <= stage.status.identifies_spent
    assert {each.gap for each in stage.status.shards} == {None}
    await stage.until(lambda: {each.intents for each in stage.status.shards} == {chaos.wanted or 513}, within=300)
    assert untold(stage) == [], chaos.told
    await stage.end()


class Dying:
    """Containers die, too, and come back on their own disks."""

    disks: dict

    def _actions(self):
        return [*super()._actions(), self.die, self.die]

    def die(self):
        name = self.random.choice("ab")
        run = self.stage.runs[name]
        if run.done():
            return
        run.cancel()
        for shard in self.stage.pods[name].shards:
            if shard.connection is not None:
                shard.connection.abandon()
        self.stage.sinks[name].attach(Journal(limit=1).reader(lambda: None))
        self.stage.start(self._again(name, run))

    async def _again(self, name, run):
        await asyncio.wait([run])
        fields = {"memory_limit": 60_000, "state_dir": self.disks[name]}
        self.stage.run(name, active=False, sinks=[self.stage.sinks[name]], **fields)


class DyingHolders(Dying, Chaos):
    """No session ends."""


class DyingAndRenewing(Dying, Renewing):
    """Sessions end, and are renewed."""

    def want(self):
        self.wanted += 1
        about = config(identity=f"identity-{self.wanted}", intents=self.wanted, buffer_disk=2_000_000)
        self.stage.cluster.change(RANGE, config=about)
        self.flip()


async def with_disks(monkeypatch, tmp_path, kind, seed):
    stage = PodStage(monkeypatch, config=config(buffer_disk=2_000_000))
    chaos = kind(stage, seed)
    chaos.disks = {name: tmp_path / name for name in "ab"}
    for disk in chaos.disks.values():
        disk.mkdir()
    await stage.cold_start("a", memory_limit=60_000, state_dir=chaos.disks["a"])
    stage.run("b", active=False, memory_limit=60_000, state_dir=chaos.disks["b"])
    await stage.settle(1)
    for _ in range(60):
        await chaos.strike()
    await chaos.end()
    return stage, chaos


@pytest.mark.parametrize("seed", range(12))
async def test_containers_that_die_as_well_lose_nothing_and_cost_no_identify(monkeypatch, tmp_path, seed):
    stage, chaos = await with_disks(monkeypatch, tmp_path, DyingHolders, seed)
    found = stored(stage)
    for name, session in stage.discord.sessions.items():
        assert {text for _, text in session.events} <= found[name], chaos.told
    assert len(stage.discord.identifies) == stage.status.identifies_spent == 4, chaos.told
    await stage.end()


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_lost_when_containers_die_while_sessions_end_lies_inside_a_gap(monkeypatch, tmp_path, seed):
    stage, chaos = await with_disks(monkeypatch, tmp_path, DyingAndRenewing, seed)
    assert untold(stage) == [], chaos.told
    assert len(stage.discord.identifies) <= stage.status.identifies_spent
    await stage.end()
