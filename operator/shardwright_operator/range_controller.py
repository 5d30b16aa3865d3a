"""Looks at a range: reads the store, asks the planner, has it done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from shardwright_api.discord import CloseCode
from shardwright_api.resources import ShardRange
from shardwright_operator.actions import Action, Create, PatchRange
from shardwright_operator.errors import ForbiddenError, InvalidError
from shardwright_operator.executor import Executor
from shardwright_operator.keys import GatewayKey, Key, RangeKey
from shardwright_operator.kube import PODS
from shardwright_operator.memory import Memory, Paces, note
from shardwright_operator.observed import RangeObserved, Wanted
from shardwright_operator.plan_range import (
    ALL_IS_WELL,
    STANDBY_PATIENCE,
    awaited,
    held_back,
    launch_pace,
    leaves_node,
    lost_session,
    on_trial,
    plan_range,
    tried,
)
from shardwright_operator.render import leaves
from shardwright_operator.secret_reader import SecretReader
from shardwright_operator.silence import Freshness
from shardwright_operator.store import Store
from shardwright_operator.sums import ANNOTATION_PARKED_CODE
from shardwright_operator.views import gateway_key, gateway_key_of, owner_uid

_RESYNC: Final = 300.0


class RangeController:
    """Work on a range does not depend on how many there are."""

    def __init__(
        self,
        *,
        store: Store,
        memory: Memory,
        secrets: SecretReader,
        executor: Executor,
        enqueue: Callable[[Key], None],
    ) -> None:
        self._store = store
        self._memory = memory
        self._secrets = secrets
        self._executor = executor
        self._enqueue = enqueue
        self._launches = Paces(launch_pace)
        self._replacements = Paces(launch_pace)
        self._gaps: dict[RangeKey, frozenset[tuple[int, str]]] = {}

    async def look_at(self, key: RangeKey) -> float | None:
        """Bring a range closer to what it should be; give the seconds until the next look."""
        shard_range = self._store.ranges.get(key)
        if shard_range is None:
            self._forget(key)
            return None
        gateway = gateway_key_of(shard_range)
        wanted = self._memory.wanted.get(gateway)
        if wanted is None or wanted.gateway.metadata.uid != owner_uid(shard_range.metadata):
            return None
        seen = self._observe(key, shard_range, wanted)
        waits = self._watch_hand_over(key, gateway, seen)
        plan = plan_range(self._with_trial(key, seen))
        if plan.row == ALL_IS_WELL and seen.summary.ready:
            self._replacements.reset(key)
        self._note(key, gateway, plan.actions)
        await self._executor.run(self._lost_sessions(key, seen))
        await self._run(key, gateway, seen, plan.actions)
        return min(wait for wait in (plan.again_after, waits, _RESYNC) if wait is not None)

    def _lost_sessions(self, key: RangeKey, seen: RangeObserved) -> list[Action]:
        """Announce each gap once."""
        gaps = {(row.id, row.gap.session): row.gap for row in seen.shard_range.status.shards if row.gap is not None}
        told = self._gaps.pop(key, frozenset())
        if gaps:
            self._gaps[key] = frozenset(gaps)
        return [
            lost_session(seen, shard, gap) for (shard, session), gap in gaps.items() if (shard, session) not in told
        ]

    async def _run(self, key: RangeKey, gateway: GatewayKey, seen: RangeObserved, actions: tuple[Action, ...]) -> None:
        """Do it, and let the gateway say so where the API server refuses it for good: a quota, an admission rule.

        What was refused stands until it is done, or no longer wanted; not while it only waits to be tried again.
        """
        trouble = ""
        try:
            await self._executor.run(actions)
        except (InvalidError, ForbiddenError) as error:
            trouble = error.message
            raise
        finally:
            settled = actions or trouble or max(seen.launch_in, seen.replace_in) <= 0
            if settled and note(self._memory.troubles, key, trouble):
                self._enqueue(gateway)

    def _forget(self, key: RangeKey) -> None:
        self._launches.reset(key)
        self._replacements.reset(key)
        self._gaps.pop(key, None)
        self._memory.forget_range(key)

    def _observe(self, key: RangeKey, shard_range: ShardRange, wanted: Wanted) -> RangeObserved:
        store, now = self._store, self._memory.clock()
        pods = tuple(pod for pod in store.pods(key) if pod.owner_uid == shard_range.metadata.uid)
        summary, silence = store.summaries[key], store.silence(key.namespace)
        active = next((pod for pod in pods if pod.uid == shard_range.spec.active_pod), None)
        looping = active.uid if active is not None and active.crash_looping else None
        if summary.ready and active is not None and active.usable:
            self._launches.reset(key)
        return RangeObserved(
            shard_range=shard_range,
            summary=summary,
            pods=pods,
            wanted=wanted,
            silent=silence.live and silence.freshness(key) is Freshness.SILENT,
            lost=frozenset(pod.uid for pod in pods if store.node_lost(pod)),
            cordoned=frozenset(pod.uid for pod in pods if store.node_cordoned(pod)) if leaves(wanted) else frozenset(),
            may_move=self._may_move(key, wanted),
            may_fence=self._memory.fences.allows(now, len(store.ranges)),
            launch_in=self._launches.wait(key, now),
            replace_in=self._replacements.wait(key, now),
            launched=self._replacements.count(key) > 0,
            crashed_for=store.since.held(key, "crash loop", looping, now),
        )

    def _may_move(self, key: RangeKey, wanted: Wanted) -> bool:
        """Say whether a range may leave a cordoned node now: `rollout.maxParallel` at a time, the others being up."""
        gateway, memory = wanted.gateway, self._memory
        totals = self._store.totals(gateway.metadata.uid)
        not_up = totals.not_up - set(totals.stuck)
        others = (totals.moving | not_up | memory.handed_over_of(gateway_key(gateway))) - {key}
        return len(others) < gateway.spec.rollout.max_parallel

    def _with_trial(self, key: RangeKey, seen: RangeObserved) -> RangeObserved:
        """Add for how long the active pod has had its chance to come up, and how long ago the last one missed it."""
        since, now = self._store.since, self._memory.clock()
        released_for = since.held(key, "trial", on_trial(seen), now)
        return replace(seen, released_for=released_for, tried_for=since.held(key, "tried", tried(seen), now))

    def _watch_hand_over(self, key: RangeKey, gateway: GatewayKey, seen: RangeObserved) -> float | None:
        """Note what a hand-over waits for, if it does; give the seconds until that is to be judged again."""
        revision = awaited(seen)
        held = self._store.since.held(key, "awaited", revision, self._memory.clock())
        stalled = bool(revision) and held >= STANDBY_PATIENCE
        memory = self._memory
        if stalled != (key in memory.stalled):
            self._enqueue(gateway)
            if stalled:
                memory.stalled[key] = gateway
            else:
                del memory.stalled[key]
        if leaves_node(seen):
            memory.handed_over[key] = gateway
        elif memory.handed_over.pop(key, None) is not None:
            self._enqueue(gateway)
        if note(memory.waiting, key, held_back(seen)):
            self._enqueue(gateway)
        return max(1.0, STANDBY_PATIENCE - held) if revision and not stalled else None

    def _note(self, key: RangeKey, gateway: GatewayKey, actions: tuple[Action, ...]) -> None:
        """Note what the limits on repetition are about, before it is done: a failure must count too."""
        now = self._memory.clock()
        for action in actions:
            match action:
                case Create(resource) if resource is PODS:
                    self._launches.note(key, now)
                    self._replacements.note(key, now)
                case PatchRange(fences=True):
                    self._memory.fences.note(now)
                case PatchRange(annotations=annotations):
                    if annotations.get(ANNOTATION_PARKED_CODE) == str(int(CloseCode.AUTHENTICATION_FAILED)):
                        self._blame(gateway)
                case _:
                    pass

    def _blame(self, gateway: GatewayKey) -> None:
        token = self._secrets.blamed(gateway).token
        if token is not None:
            self._memory.refused_tokens.add(token.fingerprint)
