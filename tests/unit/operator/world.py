"""A small world for the planner: an API server that swaps by version, and pods that follow the hand-over protocol.

The operator is the real `plan_range`; everything else is a page of Python. Time is a number. What the world asserts on
every step is the pods' side of the promise: nobody takes a range that another living pod still holds, unless that one was
fenced; and nobody is fenced who still reports.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec

from shardwright_api import names
from shardwright_api.resources import ShardRange, ShardState, ShardStatus, StandbyStatus
from shardwright_operator.actions import Announce, Create, DeletePod, PatchRange
from shardwright_operator.kube import PODS
from shardwright_operator.memory import Paces
from shardwright_operator.observed import RangeObserved, Wanted
from shardwright_operator.plan_range import ALL_IS_WELL, launch_pace, on_trial, plan_range, tried
from shardwright_operator.silence import Freshness, Since
from shardwright_operator.sums import summarise
from shardwright_operator.views import Pod, range_key
from unit.operator import builders


@dataclass
class Actor:
    """What runs inside a pod.

    `broken`: it never comes up. `shy`: it stands by, and never takes the range. `cut`: it neither hears nor speaks.
    `slow`: told to end, it serves on until another pod is active, for twenty seconds at most. `told`: when it was.
    """

    broken: bool = False
    shy: bool = False
    cut: bool = False
    slow: bool = False
    told: float = 0.0


@dataclass
class World:
    range: ShardRange
    wanted: Wanted
    pods: dict[str, Pod] = field(default_factory=dict)
    actors: dict[str, Actor] = field(default_factory=dict)
    broken_revisions: set[str] = field(default_factory=set)
    shy_revisions: set[str] = field(default_factory=set)
    cordoned: set[str] = field(default_factory=set)
    """Nodes that take no new pods; pods that are made come to another one."""
    lost: set[str] = field(default_factory=set)
    """Nodes that do not report."""
    full: bool = False
    """No node has room: pods that are made wait for one."""
    now: float = 1000.0
    heard_at: float = 1000.0
    made: int = 0
    rows_seen: list[str] = field(default_factory=list)
    since: Since = field(default_factory=Since)
    launches: Paces = field(default_factory=lambda: Paces(launch_pace))
    replacements: Paces = field(default_factory=lambda: Paces(launch_pace))

    # --- the API server

    def write(self, changed: ShardRange) -> None:
        version = str(int(self.range.metadata.resource_version) + 1)
        meta = msgspec.structs.replace(changed.metadata, resource_version=version)
        self.range = msgspec.structs.replace(changed, metadata=meta)

    def write_status(self, **changes: object) -> None:
        self.write(builders.with_status(self.range, **changes))

    def add(self, pod: Pod, actor: Actor | None = None) -> None:
        self.pods[pod.uid] = pod
        self.actors[pod.uid] = actor or Actor(pod.revision in self.broken_revisions, pod.revision in self.shy_revisions)

    def replace_pod(self, pod: Pod, *, deletion=None, phase=None, ready=None) -> None:
        meta, status = pod.metadata, pod.status
        if deletion is not None:
            meta = msgspec.structs.replace(meta, deletion_timestamp=deletion)
        if phase is not None:
            status = msgspec.structs.replace(status, phase=phase)
        self.pods[pod.uid] = msgspec.structs.replace(pod, metadata=meta, status=status)

    def vanish(self, uid: str) -> None:
        self.pods.pop(uid, None)
        self.actors.pop(uid, None)

    # --- the operator

    @property
    def silent(self) -> bool:
        return self.now - self.heard_at >= 15

    def observe(self) -> RangeObserved:
        key = range_key(self.range)
        active = self.pods.get(self.range.spec.active_pod)
        freshness = Freshness.SILENT if self.silent else Freshness.FRESH
        summary = summarise(self.range, active, freshness)
        looping = active.uid if active is not None and active.crash_looping else None
        if summary.ready and active is not None and active.usable:
            self.launches.reset(key)
        seen = RangeObserved(
            shard_range=self.range,
            summary=summary,
            pods=tuple(self.pods.values()),
            wanted=self.wanted,
            silent=self.silent,
            lost=frozenset(pod.uid for pod in self.pods.values() if pod.spec.node_name in self.lost),
            cordoned=frozenset(pod.uid for pod in self.pods.values() if pod.spec.node_name in self.cordoned),
            launch_in=self.launches.wait(key, self.now),
            replace_in=self.replacements.wait(key, self.now),
            launched=self.replacements.count(key) > 0,
            crashed_for=self.since.held(key, "crash loop", looping, self.now),
        )
        released_for = self.since.held(key, "trial", on_trial(seen), self.now)
        return replace(seen, released_for=released_for, tried_for=self.since.held(key, "tried", tried(seen), self.now))

    def operate(self) -> bool:
        """Let the operator look once; say whether it did anything."""
        seen = self.observe()
        plan = plan_range(seen)
        self.rows_seen.append(plan.row)
        if plan.row == ALL_IS_WELL and seen.summary.ready:
            self.replacements.reset(range_key(self.range))
        for action in plan.actions:
            match action:
                case PatchRange():
                    self.swap(action)
                case Create(resource, body):
                    assert resource is PODS
                    self.create(body)
                case DeletePod(pod):
                    assert pod.uid != self.range.spec.active_pod, "the active pod is never deleted"
                    self.replace_pod(self.pods[pod.uid], deletion=builders.NOW)
                case Announce():
                    continue
                case _:
                    raise AssertionError(action)
        return any(not isinstance(action, Announce) for action in plan.actions)

    def swap(self, patch: PatchRange) -> None:
        assert patch.base.metadata.resource_version == self.range.metadata.resource_version
        before, after = self.range.spec, patch.spec
        assert after.epoch >= before.epoch
        assert after.incarnation >= before.incarnation
        assert after.identify_grant == before.identify_grant, "a range's key never grants"
        if after.active_pod != before.active_pod:
            assert after.epoch == before.epoch + 1, "each change of the active pod is a new epoch"
            assert after.active_pod in self.pods
        if after.active_pod != before.active_pod and after.active_pod in self.actors:
            assert after.fenced_holder != after.active_pod, "who is fenced is not waited for"
        if patch.fences:
            actor = self.actors.get(after.fenced_holder)
            assert self.silent, "only the silent are fenced"
            assert actor is None or actor.cut or self.pods[after.fenced_holder].dead, "the living are not fenced"
        annotations = {**self.range.metadata.annotations, **patch.annotations}
        kept = {name: value for name, value in annotations.items() if value is not None}
        meta = msgspec.structs.replace(self.range.metadata, annotations=kept)
        self.write(msgspec.structs.replace(self.range, metadata=meta, spec=after))

    def create(self, body) -> None:
        self.made += 1
        incarnation = int(body["metadata"]["annotations"][names.ANNOTATION_INCARNATION])
        assert incarnation == self.range.spec.incarnation, "the incarnation is raised before its pod is made"
        assert body["metadata"]["name"] not in {pod.metadata.name for pod in self.pods.values()}
        self.launches.note(range_key(self.range), self.now)
        self.replacements.note(range_key(self.range), self.now)
        pod = builders.pod(
            f"made-{self.made}",
            of=self.range,
            incarnation=incarnation,
            revision=body["metadata"]["annotations"][names.ANNOTATION_REVISION],
            secret=self.wanted.secret_version,
            node="" if self.full else "node-2",
            phase="Pending" if self.full else "Running",
        )
        self.add(pod, Actor(broken=True) if self.full else None)

    # --- the pods

    def act(self, uid: str) -> None:
        """Let a pod do its next step."""
        pod, actor = self.pods[uid], self.actors[uid]
        holds = self.range.status.holder == uid
        if actor.cut or pod.dead or (actor.broken and not pod.terminating):
            return
        if pod.terminating:
            actor.told = actor.told or self.now
        serves_on = actor.slow and holds and self.range.spec.active_pod == uid and self.now - actor.told < 20
        if pod.terminating and not serves_on:
            if holds:
                self.release()
            self.vanish(uid)
        elif holds:
            self.hold(uid)
        else:
            self.wait(uid)

    def hold(self, uid: str) -> None:
        if self.range.spec.active_pod == uid:
            self.serve()
        else:
            self.release()

    def wait(self, uid: str) -> None:
        status = self.range.status
        if self.range.spec.active_pod == uid:
            if not self.actors[uid].shy:
                self.take(uid)
        elif uid not in status.standby:
            self.write_status(standby={**status.standby, uid: StandbyStatus(builders.NOW, sinks_available=True)})

    def release(self) -> None:
        closed = tuple(
            msgspec.structs.replace(row, state=ShardState.CLOSED) if row.session else row
            for row in self.range.status.shards
        )
        self.write_status(holder="", shards=closed)

    def take(self, uid: str) -> None:
        holder = self.range.status.holder
        if holder not in {"", self.range.spec.fenced_holder}:
            return
        self.write_status(holder=uid, epoch=self.range.spec.epoch, standby={})
        self.heard_at = self.now

    def serve(self) -> None:
        """Resume every session; identify for the rest as far as grants go; report."""
        spec, spent = self.range.spec, self.range.status.identifies_spent
        known = {row.id: row for row in self.range.status.shards}
        new: list[ShardStatus] = []
        for shard in range(spec.first, spec.last + 1):
            row = known.get(shard)
            if row is not None and row.session is not None:
                new.append(msgspec.structs.replace(row, state=ShardState.READY))
            elif spent < spec.identify_grant:
                spent += 1
                new.append(builders.row(shard))
            else:
                new.append(builders.row(shard, ShardState.WAITING, session=None))
        self.heard_at = self.now
        self.write_status(shards=tuple(new), identifies_spent=spent, spool_bytes=0)

    # --- all together

    def round(self, seconds: float = 2.0) -> bool:
        """Let the operator look until it is content, then every pod act once; say whether anything happened."""
        before = (self.range.spec, self.range.metadata.annotations, sorted(self.pods))
        for _ in range(30):
            if not self.operate():
                break
        else:
            raise AssertionError(f"the operator does not come to rest: {self.rows_seen[-8:]}")
        for uid in list(self.pods):
            if uid in self.pods:
                self.act(uid)
        self.now += seconds
        return before != (self.range.spec, self.range.metadata.annotations, sorted(self.pods))

    def settle(self, rounds: int = 60) -> None:
        """Go on until nothing has happened for a while and all is well."""
        quiet = 0
        for _ in range(rounds):
            quiet = 0 if self.round() or self.rows_seen[-1] != "all is well" else quiet + 1
            if quiet > 10:
                return

    @property
    def usable(self) -> list[str]:
        return [uid for uid, pod in self.pods.items() if pod.usable]
