"""Two pods of one range under faults in any order: nothing is lost, and nothing is identified twice.

Discord here keeps every event for a replay and drops no session, no process dies: then there is no excuse. Faults come
from a seeded generator, so that a run that fails can be told again.
"""

import random

import pytest

from unit.shard.messages import RECONNECT, invalid
from unit.shard.stage import RANGE, PodStage

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
