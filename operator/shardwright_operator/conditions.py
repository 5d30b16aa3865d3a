"""What a gateway's conditions say: pure functions from what was observed to verdicts.

Each condition has its own function and its own enum of reasons. `Ready` is judged last, from the others: the first
obstacle in `_OBSTACLES` gives its reason, which is also the word in the Status column.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from shardwright_api.discord import PRIVILEGED_INTENTS, CloseCode, Intent, intent_names
from shardwright_api.resources import Condition, ConditionType, GatewayStatus
from shardwright_operator.asker import Verdict
from shardwright_operator.keys import RangeKey
from shardwright_operator.observed import GatewayObserved
from shardwright_operator.render import bits
from shardwright_operator.sums import Parked

TRUE: Final = "True"
FALSE: Final = "False"
UNKNOWN: Final = "Unknown"
_MESSAGE_LENGTH: Final = 4096


class Reason(StrEnum):
    """Reasons of conditions."""

    # Ready
    READY = "Ready"
    STARTING = "Starting"
    WAITING_FOR_BUDGET = "WaitingForBudget"
    ON_HOLD = "OnHold"
    TOKEN_INVALID = "TokenInvalid"  # noqa: S105 - a reason
    INTENTS_DISALLOWED = "IntentsDisallowed"
    INTENTS_INVALID = "IntentsInvalid"
    INVALID_SHARD = "InvalidShard"
    SHARDING_REQUIRED = "ShardingRequired"
    REFUSED = "RefusedByDiscord"
    SINK_UNAVAILABLE = "SinkUnavailable"
    BOT_IN_USE = "BotInUse"
    DISCORD_UNREACHABLE = "DiscordUnreachable"
    DEGRADED = "Degraded"
    # TokenValid
    ACCEPTED = "Accepted"
    NOT_ASKED_YET = "NotAskedYet"
    TOKEN_REJECTED = "TokenRejected"  # noqa: S105 - a reason
    AUTHENTICATION_FAILED = "AuthenticationFailed"
    BOT_CHANGED = "BotChanged"
    # IntentsAllowed, SinksAvailable, IdentifyBudget
    NOT_TRIED_YET = "NotTriedYet"
    AVAILABLE = "Available"
    EXHAUSTED = "BudgetExhausted"
    OVERDRAWN = "BudgetOverdrawn"
    # Progressing
    COMPLETE = "Complete"
    ROLLING_OUT = "RollingOut"
    POD_REFUSED = "PodRefused"
    HAND_OVER_FAILED = "HandOverFailed"
    HAND_OVER_STALLED = "HandOverStalled"
    HAND_OVER_WAITS = "HandOverWaits"
    RENEWAL_REFUSED = "RenewalRefused"
    PAUSED = "Paused"
    # Degraded
    AS_EXPECTED = "AsExpected"
    RESHARDING_NOT_SUPPORTED = "ReshardingNotSupported"
    SHARDS_NOT_READY = "ShardsNotReady"
    CHILD_REFUSED = "ChildRefused"
    GAPS_UNTOLD = "GapsUntold"


@dataclass(frozen=True, slots=True)
class Said:
    """What a condition is to say."""

    type: ConditionType
    status: str
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the gateway's planner found out beyond what was observed.

    `expected`: how many ranges the layout has; 0 before it is known. `reshard`: what is asked of the layout and refused.
    `outdated`: ranges that run an older revision. `shortfall`: by how much a re-identify rollout exceeds the budget.
    `failed`: ranges that went back from the wanted revision.
    """

    expected: int = 0
    reshard: str = ""
    outdated: int = 0
    shortfall: str = ""
    failed: frozenset[RangeKey] = frozenset()


# --- TokenValid ---------------------------------------------------------------------------------------------------


def _where_to(seen: GatewayObserved) -> str:
    """Say which key of which Secret wants a valid token."""
    reference = seen.gateway.spec.token_secret_ref
    return f"put a valid token under key {reference.key!r} of Secret {reference.name!r}"


def token_valid(seen: GatewayObserved) -> Said:
    """Judge the token: the Secret, Discord's HTTP API, and its gateway."""
    kind = ConditionType.TOKEN_VALID
    if seen.token.problem is not None:
        return Said(kind, FALSE, seen.token.problem.value, seen.token.message)
    spec = seen.any_spec
    if spec is not None and spec.bot_id != seen.token.bot_id:
        message = f"the token is of bot {seen.token.bot_id}, the running shards are of bot {spec.bot_id}"
        return Said(kind, FALSE, Reason.BOT_CHANGED, f"{message}; make another DiscordGateway for another bot")
    if seen.answer.verdict is Verdict.REJECTED:
        return Said(kind, FALSE, Reason.TOKEN_REJECTED, f"{seen.answer.trouble}; {_where_to(seen)}")
    if seen.refused:
        return Said(kind, FALSE, Reason.AUTHENTICATION_FAILED, f"{seen.refused}; {_where_to(seen)}")
    if seen.answer.verdict is Verdict.ACCEPTED:
        return Said(kind, TRUE, Reason.ACCEPTED, f"Discord takes the token of bot {seen.token.bot_id}")
    trouble = seen.answer.trouble
    reason = Reason.DISCORD_UNREACHABLE if trouble else Reason.NOT_ASKED_YET
    return Said(kind, UNKNOWN, reason, trouble or "Discord has not been asked yet")


# --- IntentsAllowed -----------------------------------------------------------------------------------------------


def _parked_with(seen: GatewayObserved, *codes: CloseCode) -> tuple[RangeKey, Parked] | None:
    """Find a range that Discord refused with one of these codes."""
    return next(((key, one) for key, one in sorted(seen.totals.parked.items()) if one.code in codes), None)


def _disallowed(seen: GatewayObserved) -> str:
    names = ", ".join(intent_names(bits(seen.gateway.spec) & PRIVILEGED_INTENTS)) or "one of the intents"
    return (
        f"Discord refuses {names} (4014): switch the privileged intents on in the Developer Portal"
        " (Bot > Privileged Gateway Intents), or take them out of spec.intents; then change the spec"
    )


def _undefined(seen: GatewayObserved) -> str:
    known = sum(Intent)
    unknown = bits(seen.gateway.spec) & ~known
    named = [str(bit) for bit in range(unknown.bit_length()) if unknown >> bit & 1]
    what = f"bits {', '.join(named)} of spec.intentBits" if named else "the intents"
    return f"Discord does not know {what} (4013): correct spec.intents and spec.intentBits"


def intents_allowed(seen: GatewayObserved) -> Said:
    """Judge the intents by what Discord's gateway said."""
    kind = ConditionType.INTENTS_ALLOWED
    if _parked_with(seen, CloseCode.DISALLOWED_INTENTS):
        return Said(kind, FALSE, Reason.INTENTS_DISALLOWED, _disallowed(seen))
    if _parked_with(seen, CloseCode.INVALID_INTENTS):
        return Said(kind, FALSE, Reason.INTENTS_INVALID, _undefined(seen))
    if seen.totals.proven:
        return Said(kind, TRUE, Reason.ACCEPTED, "Discord has taken the intents")
    return Said(kind, UNKNOWN, Reason.NOT_TRIED_YET, "no shard has identified with these intents yet")


# --- SinksAvailable, IdentifyBudget -------------------------------------------------------------------------------


def sinks_available(seen: GatewayObserved) -> Said:
    """Judge the sinks by what the pods say."""
    kind, troubles = ConditionType.SINKS_AVAILABLE, seen.totals.sink_troubles
    if troubles:
        key = min(troubles)
        message = f"{troubles[key]} (ShardRange {key.name}; {len(troubles)} of {len(seen.totals.members)} ranges)"
        return Said(kind, FALSE, Reason.SINK_UNAVAILABLE, message)
    if not seen.totals.sinks_known:
        return Said(kind, UNKNOWN, Reason.NOT_TRIED_YET, "no pod has reported its sinks yet")
    return Said(kind, TRUE, Reason.AVAILABLE, "all sinks take events")


def identify_budget(seen: GatewayObserved, facts: Facts) -> Said:
    """Judge whether there are identifies for all shards that need one."""
    kind, budget = ConditionType.IDENTIFY_BUDGET, seen.budget
    if budget is None:
        return Said(kind, UNKNOWN, Reason.NOT_ASKED_YET, "Discord has not been asked yet")
    left = f"{budget.reserve} of {budget.total} are held in reserve; the budget is full again at {budget.reset_time}"
    if budget.held:
        ranges = f"{len(budget.held)} ranges are on hold"
        message = f"{ranges}: identifies were spent elsewhere, and {budget.remaining} are left; {left}"
        return Said(kind, FALSE, Reason.OVERDRAWN, message)
    if facts.shortfall:
        return Said(kind, FALSE, Reason.EXHAUSTED, facts.shortfall)
    if budget.short:
        message = f"{budget.short} more identifies are needed than may be granted today: {left}"
        return Said(kind, FALSE, Reason.EXHAUSTED, message)
    return Said(kind, TRUE, Reason.AVAILABLE, left)


# --- Progressing, Degraded ----------------------------------------------------------------------------------------


def progressing(seen: GatewayObserved, facts: Facts) -> Said:
    """Judge whether what is under way gets on. False only means stuck."""
    kind, totals = ConditionType.PROGRESSING, seen.totals
    stuck = _stuck(seen, facts)
    if stuck is not None:
        return Said(kind, FALSE, *stuck)
    if seen.waiting:
        key, why = min(seen.waiting.items())
        return Said(kind, TRUE, Reason.HAND_OVER_WAITS, f"the hand-over of ShardRange {key.name} waits: {why}")
    if facts.outdated or totals.renewing:
        sessions = f"; {totals.renewals} sessions are to be renewed" if totals.renewals else ""
        message = f"{facts.outdated} of {facts.expected} ranges are still to change{sessions}"
        return Said(kind, TRUE, Reason.ROLLING_OUT, message)
    if totals.moving or len(totals.members) < facts.expected or not facts.expected:
        return Said(kind, TRUE, Reason.STARTING, f"{totals.ready_ranges} of {facts.expected} ranges are ready")
    return Said(kind, TRUE, Reason.COMPLETE, f"{len(totals.members)} ranges run the wanted revision")


def _stuck(seen: GatewayObserved, facts: Facts) -> tuple[str, str] | None:
    """Say why what is under way does not get on, if it does not."""
    if seen.gateway.spec.paused:
        return Reason.PAUSED, "spec.paused keeps the operator from doing anything but report"
    refused = _refused_pod(seen)
    if refused is not None:
        return refused
    if facts.failed:
        where = f"the new revision did not come up on {_names(facts.failed)}, which went back to the old one"
        return Reason.HAND_OVER_FAILED, f"{where}; correct the spec"
    if seen.stalled:
        return Reason.HAND_OVER_STALLED, f"the new pods of {_names(seen.stalled)} do not get ready to take over"
    renewal = _refused_renewal(seen)
    if renewal:
        return Reason.RENEWAL_REFUSED, renewal
    return (Reason.WAITING_FOR_BUDGET, facts.shortfall) if facts.shortfall else None


def _refused_renewal(seen: GatewayObserved) -> str:
    """Say where Discord refuses to renew a session, if it does."""
    found = next(((key, one) for key, one in sorted(seen.totals.parked.items()) if one.renewal), None)
    if found is None:
        return ""
    key, parked = found
    where = f"shard {parked.shard} of ShardRange {key.name}"
    return f"Discord refuses ({parked.code}) to renew {where}; the old sessions go on until the spec changes"


def _names(keys: frozenset[RangeKey]) -> str:
    return ", ".join(sorted(key.name for key in keys)[:3])


def degraded(seen: GatewayObserved, facts: Facts) -> Said:
    """Judge whether something that was asked for is not done, or something that worked does not."""
    kind, totals = ConditionType.DEGRADED, seen.totals
    if facts.reshard:
        message = f"{facts.reshard}; resharding is not supported yet, the running layout stays"
        return Said(kind, TRUE, Reason.RESHARDING_NOT_SUPPORTED, message)
    refused = _refused_by_discord(seen) or _refused_by_cluster(seen)
    if refused is not None:
        return Said(kind, TRUE, *refused)
    if seen.down and was_ready(seen.gateway.status):
        return Said(kind, TRUE, Reason.SHARDS_NOT_READY, not_ready_message(seen))
    if totals.gaps:
        message = f"{totals.gaps} shards lost a session with events still to come, and the sinks are not told yet"
        return Said(kind, TRUE, Reason.GAPS_UNTOLD, message)
    return Said(kind, FALSE, Reason.AS_EXPECTED, "nothing is wrong")


def _refused_by_discord(seen: GatewayObserved) -> tuple[str, str] | None:
    stuck = seen.totals.stuck
    if stuck:
        key, parked = min(stuck.items())
        return Reason.REFUSED, f"Discord refuses shard {parked.shard} ({parked.code}) of ShardRange {key.name}"
    renewal = _refused_renewal(seen)
    return (Reason.RENEWAL_REFUSED, renewal) if renewal else None


def _refused_by_cluster(seen: GatewayObserved) -> tuple[str, str] | None:
    if seen.trouble:
        return Reason.CHILD_REFUSED, f"what the pods need cannot be made: {seen.trouble}"
    return _refused_pod(seen)


def _refused_pod(seen: GatewayObserved) -> tuple[str, str] | None:
    if not seen.troubles:
        return None
    key, trouble = min(seen.troubles.items())
    return Reason.POD_REFUSED, f"the pod of ShardRange {key.name} cannot be made: {trouble}"


def was_ready(status: GatewayStatus) -> bool:
    """Say whether the gateway was ready before, and lost it."""
    ready = find(status.conditions, ConditionType.READY)
    return ready is not None and (ready.status == TRUE or ready.reason == Reason.DEGRADED)


def find(conditions: tuple[Condition, ...], kind: ConditionType) -> Condition | None:
    """Find a condition by its type."""
    return next((one for one in conditions if one.type == kind), None)


def not_ready_message(seen: GatewayObserved) -> str:
    """Say how many shards are not ready, and where one of them is."""
    totals = seen.totals
    where = f"; ShardRange {min(seen.down).name}" if seen.down else ""
    return f"{totals.ready_shards} of {totals.shards} shards are ready{where}"


# --- Ready --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Judged:
    """All that `Ready` is judged from."""

    seen: GatewayObserved
    facts: Facts
    token: Said
    intents: Said
    sinks: Said
    budget: Said


_Obstacle = Callable[[_Judged], tuple[str, str] | None]


def _bot_in_use(judged: _Judged) -> tuple[str, str] | None:
    rival = judged.seen.rival
    if rival is None:
        return None
    message = f"bot {judged.seen.token.bot_id} belongs to DiscordGateway {rival.name} in namespace {rival.namespace}"
    return Reason.BOT_IN_USE, f"{message}; a bot belongs to one namespace"


def _token(judged: _Judged) -> tuple[str, str] | None:
    return (Reason.TOKEN_INVALID, judged.token.message) if judged.token.status == FALSE else None


def _intents(judged: _Judged) -> tuple[str, str] | None:
    refused = judged.intents.status == FALSE and judged.seen.totals.stuck
    return (judged.intents.reason, judged.intents.message) if refused else None


_APPLY_ANEW: Final = " delete the DiscordGateway and apply it with spec.shards.count {}"
_REFUSALS: Final = {
    CloseCode.INVALID_SHARD: (
        Reason.INVALID_SHARD,
        "Discord refuses the shard count {total} (4010): a very large bot needs a multiple of its own number;"
        + _APPLY_ANEW.format("left out"),
    ),
    CloseCode.SHARDING_REQUIRED: (
        Reason.SHARDING_REQUIRED,
        "Discord asks for more shards than {total} (4011), at most 2,500 guilds each;"
        + _APPLY_ANEW.format("larger, or left out"),
    ),
}


def _refused(judged: _Judged) -> tuple[str, str] | None:
    stuck = judged.seen.totals.stuck
    if not stuck:
        return None
    key, parked = min(stuck.items())
    total = judged.seen.ranges[key].spec.total
    fallback = (Reason.REFUSED, f"Discord refuses shard {parked.shard} ({parked.code}): {parked.message}")
    known = {int(code): text for code, text in _REFUSALS.items()}
    reason, message = known.get(parked.code, fallback)
    return reason, message.replace("{total}", str(total))


def _asking(judged: _Judged) -> tuple[str, str] | None:
    unknown = judged.token.status == UNKNOWN and not judged.facts.expected
    reason = Reason.DISCORD_UNREACHABLE if judged.seen.answer.trouble else Reason.STARTING
    return (reason, judged.token.message) if unknown else None


def _sinks(judged: _Judged) -> tuple[str, str] | None:
    return (Reason.SINK_UNAVAILABLE, judged.sinks.message) if judged.sinks.status == FALSE else None


def _on_hold(judged: _Judged) -> tuple[str, str] | None:
    held = judged.seen.gateway.spec.identify.hold and judged.seen.totals.need > 0
    return (Reason.ON_HOLD, "spec.identify.hold keeps shards from identifying") if held else None


def _budget(judged: _Judged) -> tuple[str, str] | None:
    lacking = judged.budget.status == FALSE and judged.seen.totals.need > 0
    return (Reason.WAITING_FOR_BUDGET, judged.budget.message) if lacking else None


def _shards(judged: _Judged) -> tuple[str, str] | None:
    seen, facts = judged.seen, judged.facts
    complete = bool(facts.expected) and len(seen.totals.members) >= facts.expected and not seen.down
    if complete:
        return None
    lost = was_ready(seen.gateway.status) and bool(facts.expected)
    return (Reason.DEGRADED if lost else Reason.STARTING), not_ready_message(seen)


_OBSTACLES: Final[tuple[_Obstacle, ...]] = (
    _bot_in_use,
    _token,
    _intents,
    _refused,
    _asking,
    _sinks,
    _on_hold,
    _budget,
    _shards,
)


def ready(judged: _Judged) -> Said:
    """Judge whether all shards do their work, and name the first obstacle if not."""
    kind, seen = ConditionType.READY, judged.seen
    for obstacle in _OBSTACLES:
        found = obstacle(judged)
        if found is not None:
            return Said(kind, FALSE, *found)
    before = find(seen.gateway.status.conditions, kind)
    if seen.totals.unheard and before is not None:
        # The operator came up a moment ago and has not heard every holder: what stood there stands.
        return Said(kind, before.status, before.reason, before.message)
    if seen.totals.unheard:
        return Said(kind, FALSE, Reason.STARTING, "waiting for the first heartbeats")
    return Said(kind, TRUE, Reason.READY, f"all {seen.totals.shards} shards are ready")


def judge(seen: GatewayObserved, facts: Facts) -> tuple[Said, ...]:
    """Give all conditions."""
    token, budget = _stands(seen, token_valid(seen)), _stands(seen, identify_budget(seen, facts))
    intents, sinks = intents_allowed(seen), sinks_available(seen)
    verdict = ready(_Judged(seen, facts, token, intents, sinks, budget))
    return (verdict, progressing(seen, facts), degraded(seen, facts), token, intents, sinks, budget)


def _stands(seen: GatewayObserved, said: Said) -> Said:
    """Keep what stood there while Discord cannot be asked: that the operator came up anew changes nothing."""
    before = find(seen.gateway.status.conditions, said.type)
    asked = said.status != UNKNOWN or said.reason not in {Reason.NOT_ASKED_YET, Reason.DISCORD_UNREACHABLE}
    return said if asked or before is None else Said(said.type, before.status, before.reason, before.message)


def merge(before: tuple[Condition, ...], said: tuple[Said, ...], *, generation: int, now: str) -> tuple[Condition, ...]:
    """Lay verdicts over the conditions that stand there: the time of a transition stays while the status does."""
    known = {one.type: one for one in before}
    return tuple(_condition(known.get(one.type), one, generation, now) for one in said)


def _condition(before: Condition | None, said: Said, generation: int, now: str) -> Condition:
    same = before is not None and before.status == said.status
    since = before.last_transition_time if before is not None and same else now
    message = said.message[:_MESSAGE_LENGTH]
    return Condition(said.type.value, said.status, str(said.reason), message, generation, since)
