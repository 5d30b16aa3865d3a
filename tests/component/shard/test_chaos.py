"""Random harm under load, from a seed: whatever comes together, nothing is lost and nothing is identified for it.

`SHARDWRIGHT_CHAOS=20:70` tries other seeds than the two of every run.
"""

import os
from random import Random

import pytest

from component.shard.stage import now, stays, until
from shardwright_api.resources import Compression
from shardwright_shard import session
from shardwright_simulator import Action, Fault, ResumeMode, Trigger

SECONDS = 2.0
SEEDS = range(*map(int, os.environ.get("SHARDWRIGHT_CHAOS", "0:2").split(":")))
SHARDS = 4
AT_ONCE = [
    Fault(action=action)
    for action in (Action.RECONNECT, Action.ABORT, Action.CUT, Action.SILENT, Action.JUNK_FRAME, Action.RUBBISH)
] + [
    Fault(action=Action.PING),
    Fault(action=Action.HEARTBEAT_REQUEST),
    Fault(action=Action.FRAGMENT),
    Fault(action=Action.INVALID_SESSION, resumable=True),
    *(Fault(action=Action.CLOSE, code=code) for code in (1000, 1001, 1011, 4000, 4001, 4002)),
]
LATER = [
    *(Fault(action=action, at=Trigger.RESUME) for action in (Action.ABORT, Action.CLOSE, Action.RECONNECT)),
    *(Fault(action=action, at=Trigger.CONNECT) for action in (Action.ABORT, Action.RECONNECT)),
    Fault(action=Action.HOLD_ANSWER, at=Trigger.RESUME, delay=0.3),
]


class Chaos:
    """One run: what may happen next is drawn from the seed."""

    def __init__(self, stage, random, *, memory_limit):
        self.stage = stage
        self.random = random
        self.memory_limit = memory_limit
        self.pod = stage.start("pod-0", grant=SHARDS, memory_limit=memory_limit)

    def strike(self):
        self._add(self.random.choice(AT_ONCE))

    def lay_a_trap(self):
        self._add(self.random.choice(LATER))

    def _add(self, fault):
        shards = [self.random.randrange(SHARDS)]
        fields = {name: getattr(fault, name) for name in ("action", "at", "code", "delay", "resumable")}
        self.stage.control.add_fault(Fault(shards=shards, **fields))

    def hold(self):
        self.pod.sink.hold()

    def leave(self):
        self.pod.sink.leave()

    def heal_the_sink(self):
        self.pod.sink.release()
        self.pod.sink.come_back()

    def cut(self):
        self.stage.cluster.cut(self.pod.uid)

    def restore(self):
        self.stage.cluster.restore()

    async def crash(self):
        await self.pod.crash()
        self.restore()
        await self._go_on(self.pod.uid)

    async def hand_over(self):
        self.restore()
        self.heal_the_sink()
        before = self.pod
        await self._go_on(f"pod-{len(self.stage.actors)}")
        await before.stop()

    async def _go_on(self, uid):
        self.pod = self.stage.start(uid, memory_limit=self.memory_limit)
        await until(lambda: self.pod.pod.shards, within=15)

    async def run(self):
        """Do harm for a while, then heal everything."""
        harms = [self.strike] * 10 + [self.lay_a_trap, self.hold, self.heal_the_sink, self.cut, self.restore] * 2
        harms += [self.leave, self.crash, self.hand_over]
        end = now() + SECONDS
        while now() < end:
            done = self.random.choice(harms)()
            if done is not None:
                await done
            await stays(lambda: not self.pod.task.done(), seconds=self.random.random() * 0.2)
        self.stage.control.clear_faults()
        self.restore()
        self.heal_the_sink()


@pytest.mark.usefixtures("no_waits", "short_linger")
@pytest.mark.parametrize("seed", SEEDS)
async def test_nothing_is_lost_whatever_comes_together(open_stage, seed, monkeypatch):
    """Faults, crashes, hand-overs, a cluster and a sink that come and go: every event arrives, on the first sessions."""
    monkeypatch.setattr(session, "HELLO_TIMEOUT", 0.3)
    random = Random(seed)
    stage = await open_stage(
        shards=SHARDS,
        compression=random.choice(list(Compression)),
        on_resume=random.choice(list(ResumeMode)),
        latency=random.choice([(0.0, 0.0), (0.005, 0.03)]),
        trim_by_heartbeat=random.random() < 0.5,
        heartbeat_interval=0.4,
    )
    chaos = Chaos(stage, random, memory_limit=random.choice([64 * 1024 * 1024, 150_000]))
    await chaos.pod.ready()
    await until(lambda: all(row.session for row in stage.rows()))
    stage.load(800, rate=400)
    await chaos.run()
    await chaos.pod.ready(within=15)
    await stage.arrived(twice=True)
    assert len(stage.control.identifies()) == SHARDS
