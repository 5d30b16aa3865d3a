"""A gateway's status: conditions at once, gauges rarely.

Gauges are numbers that move all the time without anything happening: guilds, latency, the budget that is left, shards by
state. They are written with whatever else changes, else at most once a minute, or when one moved by more than a tenth.
"""

from __future__ import annotations

from typing import Final

import msgspec

from shardwright_api.resources import GatewayStatus, PlanStatus, PodTotals, SessionStarts, ShardTotals
from shardwright_operator import conditions
from shardwright_operator.conditions import Said
from shardwright_operator.observed import GatewayObserved

GAUGE_SECONDS: Final = 60.0
_MOVED: Final = 0.1


def moved(before: float | None, now: float | None) -> bool:
    """Say whether a gauge changed by more than a tenth."""
    if before is None or now is None:
        return before is not now
    return abs(now - before) > _MOVED * max(abs(before), 1)


def latency(seen: GatewayObserved) -> int | None:
    """Give the mean heartbeat latency in milliseconds."""
    totals = seen.totals
    return round(totals.latency_sum / totals.latencies) if totals.latencies else None


def _shards(seen: GatewayObserved) -> ShardTotals | None:
    totals = seen.totals
    if not totals.members:
        return None
    states = {state.value: count for state, count in sorted(totals.states.items()) if count}
    return ShardTotals(total=totals.shards, ready=totals.ready_shards, by_state=states)


def _session_starts(seen: GatewayObserved) -> SessionStarts | None:
    budget = seen.budget
    return SessionStarts(budget.total, budget.remaining, budget.reset_time) if budget is not None else None


def _gauges_moved(before: GatewayStatus, now: GatewayStatus) -> bool:
    if moved(before.guilds, now.guilds) or moved(before.latency, now.latency):
        return True
    if moved(_ready(before), _ready(now)):
        return True
    old, new = before.session_starts, now.session_starts
    if old is None or new is None:
        return old is not new
    return moved(old.remaining, new.remaining) or moved(old.total, new.total)


def _ready(status: GatewayStatus) -> int | None:
    return status.shards.ready if status.shards is not None else None


def _keep_gauges(before: GatewayStatus, now: GatewayStatus) -> GatewayStatus:
    return msgspec.structs.replace(
        now,
        guilds=before.guilds,
        latency=before.latency,
        session_starts=before.session_starts,
        shards=before.shards,
        pods=before.pods,
    )


def next_status(seen: GatewayObserved, said: tuple[Said, ...], *, plan: PlanStatus | None, image: str) -> GatewayStatus:
    """Give the status that the gateway should have; equal to the present one when nothing is to be written."""
    before, generation, spec = seen.gateway.status, seen.gateway.metadata.generation, seen.any_spec
    now = GatewayStatus(
        observed_generation=generation,
        conditions=conditions.merge(before.conditions, said, generation=generation, now=seen.now),
        bot_id=(spec.bot_id if spec is not None else seen.token.bot_id) or before.bot_id,
        plan=plan or before.plan,
        shards=_shards(seen),
        pods=PodTotals(total=seen.pods, ready=seen.totals.ready_ranges),
        session_starts=_session_starts(seen) or before.session_starts,
        image=image,
        guilds=seen.totals.guilds,
        latency=latency(seen),
        phase=str(said[0].reason),
    )
    quiet = _keep_gauges(before, now)
    return now if quiet != before or seen.gauges_due or _gauges_moved(before, now) else quiet
