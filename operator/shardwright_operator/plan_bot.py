"""Who may identify: the daily budget of a bot, handed out as grants over all gateways that share the bot.

Arithmetic. `remaining` is Discord's answer less what the ranges' counters spent since; *open* grants are those that
were given and not spent; those *under way* are spent, but may still wait for their bucket, so that Discord's answer need
not count them yet; the *reserve* is a share of the daily total. At any time a grant is given only while

    open + under way + given + reserve <= remaining

so that whatever the pods do on their own, crash loops included, the reserve stays. Grants are given in ascending order
of shards, gateways in order of age. A range gets as many as it has shards without a session.

Canary. For each gateway and each set of intents and shard count, the first range gets one grant, and nobody a second
one before a shard is READY: a wrong token or intent costs one identify.

Pace. The first identify of each shard is free of it. What a range gets beyond that comes at a pace that doubles while
the sessions do not last, and at last one at a time: sessions that are lost as fast as they are made cannot eat the day.

Renewals. A range whose identity changed needs one identify for each session that has the old one, under the same rules,
but free of the pace as long as each one's outcome is seen. Its rows show nothing of an identify that is paid for and waits
for its bucket, so as many as were spent without an outcome count as under way, for as long as the buckets may take.

Overdrawn. When the budget is spent elsewhere, open grants reach into the reserve. Ranges are then put on hold, the last
ones first, until what the others may still spend fits again.

Standing grants. When nobody needs anything and there is plenty left, each range keeps one grant open, so that a session
which Discord drops is replaced even while the operator is away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from shardwright_operator.asker import Verdict
from shardwright_operator.keys import GatewayKey, RangeKey
from shardwright_operator.observed import BotObserved, BudgetVerdict, GatewayBudget, RangeBudget
from shardwright_operator.views import range_key

QUIET: Final = 30.0
"""Seconds after a spent identify in which its outcome may still come: it may wait for its bucket."""
BEFORE_GRANTS: Final = 30.0
"""An answer older than this many seconds is asked for anew before anything is granted."""
SLOT: Final = 6.0
"""Seconds that an identify may take in its bucket, for each one before it: `max_concurrency` taken for 1."""
STALE: Final = 300.0
"""An answer older than this is asked for anew anyway; and where that fails, nothing is granted on it."""
COMFORT_SHARE: Final = 0.1
"""Standing grants are given while more than this share of the daily total is left above all that is needed."""
_FREE_OCCASIONS: Final = 3
_SHORT_PACE: Final = 2.0
_FIRST_PACE: Final = 30.0
_LAST_PACE: Final = 3600.0


def grant_pace(occasions: int) -> float:
    """Give the seconds between grants of a range beyond the first identify of each shard."""
    if occasions < _FREE_OCCASIONS:
        return _SHORT_PACE if occasions else 0.0
    return min(_LAST_PACE, _FIRST_PACE * 2.0 ** (occasions - _FREE_OCCASIONS))


def one_at_a_time(occasions: int) -> bool:
    """Say whether a range that needs grants again and again gets single ones only."""
    return occasions > _FREE_OCCASIONS


@dataclass(frozen=True, slots=True)
class Grant:
    """So many more identifies for a range."""

    budget: RangeBudget
    number: int
    paced: bool


@dataclass(frozen=True, slots=True)
class BotPlan:
    """What to grant, what to tell the gateways, and whether Discord must be asked first."""

    grants: tuple[Grant, ...] = ()
    verdicts: dict[GatewayKey, BudgetVerdict] = field(default_factory=dict)
    ask: bool = False
    again_after: float | None = None


class Demand(NamedTuple):
    """What a range would take now. `waits`: seconds until it may take more."""

    budget: RangeBudget
    number: int
    paced: bool = False
    waits: float = 0.0


def reserve_of(total: int, percent: int) -> int:
    """Give the identifies that grants never touch; at least one of the day's total can always be granted."""
    return max(0, min(math.ceil(total * percent / 100), total - 1))


# --- what each range would take -----------------------------------------------------------------------------------


def _lacking(budget: RangeBudget) -> int:
    """Count the identifies that a range needs and has no open grant for."""
    summary = budget.summary
    if budget.blocked or (summary.parked is not None and not budget.retry):
        return 0
    need = summary.need + max(0, summary.renewals - renewals_under_way(budget))
    return max(0, (max(1, need) if budget.retry else need) - summary.open)


def renewals_under_way(budget: RangeBudget) -> int:
    """Count the renewals that are paid for, and may still wait for their bucket."""
    summary = budget.summary
    unsettled = max(0, budget.unsettled - summary.under_way)
    waiting = budget.quiet_for < QUIET + SLOT * max(budget.unsettled, budget.queue)
    return min(unsettled, summary.renewals) if waiting else 0


def _renews_freely(budget: RangeBudget) -> bool:
    """Say whether what a range needs is asked for by a change of the spec alone, and all that it spent bore fruit."""
    return budget.summary.need == 0 and budget.summary.renewals > 0 and budget.quiet_for == math.inf


def _paced(budget: RangeBudget, number: int) -> Demand:
    """Hold back what is more than the range's share: until the last identifies have shown their effect, and its pace."""
    waits = max(QUIET - budget.quiet_for, budget.paced_for)
    if waits > 0:
        return Demand(budget, 0, waits=waits)
    return Demand(budget, 1 if budget.one_at_a_time else number, paced=True)


def _shared_out(budget: RangeBudget, lacking: int) -> Demand:
    """Give a range the first identify of each shard freely, and more at its pace."""
    first = budget.summary.shards - budget.shard_range.spec.identify_grant
    if first > 0 or budget.retry:
        return Demand(budget, min(lacking, first) if first > 0 else lacking)
    if budget.summary.open > 0:
        return Demand(budget, 0)
    return Demand(budget, lacking) if _renews_freely(budget) else _paced(budget, lacking)


def _canary(budget: RangeBudget) -> Demand:
    """Give one, and another only when the last one has shown no effect for a while."""
    if budget.summary.open > 0 or budget.summary.under_way > 0 or renewals_under_way(budget) > 0:
        return Demand(budget, 0, waits=QUIET)
    untried = budget.summary.spent == 0 or budget.retry or _renews_freely(budget)
    return Demand(budget, 1) if untried else _paced(budget, 1)


def _group(budget: RangeBudget) -> tuple[str, int]:
    return budget.summary.identity, budget.shard_range.spec.total


def canaries(gateway: GatewayBudget) -> set[tuple[str, int]]:
    """List the (identity, shard count) of a gateway that no READY shard has proven yet."""
    groups = {_group(budget) for budget in gateway.ranges}
    return groups - {_group(budget) for budget in gateway.ranges if budget.summary.proof}


def demands(gateway: GatewayBudget) -> Iterator[Demand]:
    """Give what each range of a gateway would take now, ascending by shard: while unproven, the first one only."""
    unproven, tried = canaries(gateway), set[tuple[str, int]]()
    for budget in gateway.ranges:
        group, lacking = _group(budget), _lacking(budget)
        summary = budget.summary
        under_way = summary.under_way + renewals_under_way(budget)
        concerned = lacking or budget.blocked or summary.open or under_way or summary.parked
        if group not in unproven:
            if lacking:
                yield _shared_out(budget, lacking)
        elif concerned and group not in tried:
            tried.add(group)
            if lacking or under_way:
                yield _canary(budget)


def _standing(gateway: GatewayBudget) -> Iterator[Demand]:
    """Give the ranges that should keep a grant open for bad times."""
    unproven = canaries(gateway)
    for budget in gateway.ranges:
        summary = budget.summary
        content = summary.up and summary.open == 0 and summary.renewals == 0
        if content and _group(budget) not in unproven:
            yield _paced(budget, 1)


# --- handing out --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Purse:
    """What may still be given."""

    headroom: int
    grants: list[Grant] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def serve(self, demand: Demand, *, keep: int = 0) -> int:
        """Give as much as there is above `keep`; say how much was lacking."""
        if demand.waits > 0:
            self.waits.append(demand.waits)
        number = max(0, min(demand.number, self.headroom - keep))
        if number:
            self.headroom -= number
            self.grants.append(Grant(demand.budget, number, demand.paced))
        return demand.number - number


def remaining(seen: BotObserved) -> int:
    """Give what Discord allows today, less what was spent since it said so."""
    assert seen.answer.gateway_bot is not None
    return max(0, seen.answer.gateway_bot.session_start_limit.remaining - seen.spent)


def plan_bot(seen: BotObserved) -> BotPlan:
    """Decide what to grant."""
    if seen.answer.verdict is not Verdict.ACCEPTED or seen.answer.gateway_bot is None:
        return BotPlan()
    if seen.age > STALE:
        return BotPlan(ask=True)
    purse = _Purse(_headroom(seen))
    short = {gateway.key: _serve(gateway, purse) for gateway in seen.gateways if gateway.eligible}
    for gateway in seen.gateways:
        if gateway.eligible and not any(short.values()):
            _serve_standing(seen, gateway, purse)
    ask_first = bool(purse.grants) and seen.age > BEFORE_GRANTS
    return BotPlan(
        grants=() if ask_first else tuple(purse.grants),
        verdicts=_verdicts(seen, short),
        ask=ask_first,
        again_after=min([*purse.waits, STALE - seen.age + 1.0, _until_reset(seen, short)]),
    )


def _headroom(seen: BotObserved) -> int:
    ranges = [budget for gateway in seen.gateways for budget in gateway.ranges]
    return remaining(seen) - _reserve(seen) - sum(one.summary.open + _under_way(one) for one in ranges)


def _under_way(budget: RangeBudget) -> int:
    return budget.summary.under_way + renewals_under_way(budget)


def overdrawn(seen: BotObserved) -> frozenset[RangeKey]:
    """Choose the ranges to put on hold: the last first, until the grants of the others fit into the budget."""
    ranges = [budget for gateway in seen.gateways for budget in gateway.ranges]
    missing, held = -_headroom(seen), set[RangeKey]()
    for budget in reversed(ranges):
        if missing <= 0:
            break
        if budget.summary.open > 0:
            held.add(range_key(budget.shard_range))
            missing -= budget.summary.open
    return frozenset(held)


def _reserve(seen: BotObserved) -> int:
    assert seen.answer.gateway_bot is not None
    percent = max((gateway.reserve_percent for gateway in seen.gateways), default=0)
    return reserve_of(seen.answer.gateway_bot.session_start_limit.total, percent)


def _serve(gateway: GatewayBudget, purse: _Purse) -> int:
    """Serve the needs of a gateway; say how much was lacking."""
    return sum(purse.serve(demand) for demand in demands(gateway))


def _serve_standing(seen: BotObserved, gateway: GatewayBudget, purse: _Purse) -> None:
    assert seen.answer.gateway_bot is not None
    comfort = math.ceil(seen.answer.gateway_bot.session_start_limit.total * COMFORT_SHARE)
    for demand in _standing(gateway):
        purse.serve(demand, keep=comfort)


def _until_reset(seen: BotObserved, short: dict[GatewayKey, int]) -> float:
    """Say when it is worth asking because the budget is full again."""
    if not any(short.values()):
        return STALE
    return min(STALE, max(1.0, seen.until_reset + 1.0))


def _verdicts(seen: BotObserved, short: dict[GatewayKey, int]) -> dict[GatewayKey, BudgetVerdict]:
    assert seen.answer.gateway_bot is not None
    total, held = seen.answer.gateway_bot.session_start_limit.total, overdrawn(seen)
    return {
        gateway.key: BudgetVerdict(
            total=total,
            remaining=remaining(seen),
            reserve=_reserve(seen),
            short=short.get(gateway.key, 0),
            reset_time=seen.answer.reset_time,
            held=held & {range_key(budget.shard_range) for budget in gateway.ranges},
        )
        for gateway in seen.gateways
    }
