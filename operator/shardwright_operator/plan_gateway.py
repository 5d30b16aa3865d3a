"""What a gateway needs: its children, its conditions, and which range changes next.

Children. Service account, Role, RoleBinding and PodDisruptionBudget are applied (server-side) every half minute, so that
one deleted by hand comes back. Leases and ShardRanges are created where they are missing. What pods need stands before
the ShardRanges that make pods. Nothing is made before the Secret exists, Discord takes the token and the bot is ours.

Layout. What the existing ShardRanges say is in force; only a gateway without any gets the layout that its spec asks for.

Live fields (hold, max_concurrency, heartbeat, gateway URL) are written into every range that differs, at once.

Rollout. A range changes when its `spec.revision` is written; its own key does the rest (`plan_range`). Algorithm:

1. Ranges without any session have nothing to lose: all of them change at once. (A refused bot, a wrong sink.)
2. Otherwise `rollout.maxParallel` ranges at a time: first those that are on their way to an older revision (the new one may
   be their cure), then those that are not up. A range has changed when it is held by its new pod and up.
3. None while a range with the wanted revision failed, or its new pod does not get ready, or its sessions are not renewed.
4. Other intents, presence or large threshold (another *identity*) come by the same hand-over, in which every session is
   resumed. The new pod then renews session after session as it is granted identifies, each old one going on until its
   successor is READY. So one range at a time, the next when all sessions of the last are renewed; and no range at all
   begins while the identifies for all that are left exceed what may be granted today.

While `spec.paused` is set, nothing of all this is done: the status goes on, and so does the emergency stop, which keeps
open grants from being spent. (And a range that nobody holds is still given to a pod that is there: see `plan_range`.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import msgspec

from shardwright_api import names
from shardwright_api.discord import EVENT_NAMES
from shardwright_api.resources import ConditionType, DiscordGateway, RangeSpec, ShardConfig
from shardwright_api.sharding import Range
from shardwright_operator import conditions, layout, render
from shardwright_operator.actions import Action, Announce, Apply, Batch, Create, PatchRange, WriteStatus
from shardwright_operator.asker import Verdict
from shardwright_operator.conditions import FALSE, TRUE, Facts, Said
from shardwright_operator.events import Announcement, EventReason
from shardwright_operator.keys import RangeKey
from shardwright_operator.kube import (
    BUDGETS,
    GATEWAYS,
    LEASES,
    RANGES,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
)
from shardwright_operator.layout import Layout
from shardwright_operator.observed import BudgetVerdict, GatewayObserved, Wanted
from shardwright_operator.revision import revision
from shardwright_operator.status import next_status
from shardwright_operator.sums import (
    ANNOTATION_FAILED_REVISION,
    ANNOTATION_RESTART_AT,
    ANNOTATION_TEMPLATE,
    ANNOTATION_TRIED_REVISION,
    UNDER_WAY,
    LiveSpec,
    live_spec,
    needs_renewal,
    range_of,
)

_VISIT: Final = 30.0
"""Seconds between two looks at a gateway on which nothing happens: Secret and children."""
_HURRY: Final = 3.0
"""Seconds between two looks at a Secret that is missing or wrong."""


@dataclass(frozen=True, slots=True)
class GatewayPlan:
    """What to do, what the ranges are to know, and when to look again at the latest."""

    actions: tuple[Action, ...]
    wanted: Wanted
    again_after: float
    said: tuple[Said, ...]
    made_children: bool = False


@dataclass(frozen=True)
class Draft:
    """What follows from what was observed, in one place."""

    seen: GatewayObserved

    @property
    def image(self) -> str:
        """The shard image: the user's, else the one pinned at first sight or the last restart, else the default."""
        gateway, ranges = self.seen.gateway, self.seen.totals.restarts
        restarts = any(count for text, count in ranges.items() if text != self.restart_at)
        pinned = None if restarts else gateway.status.image
        return gateway.spec.pod.image or pinned or self.seen.default_image

    @property
    def restart_at(self) -> str:
        """The text that asks for a restart when it changes."""
        return self.seen.gateway.metadata.annotations.get(ANNOTATION_RESTART_AT, "")

    @cached_property
    def revision(self) -> str:
        """The revision that the spec asks for."""
        return revision(self.seen.gateway.spec, self.restart_at)

    @property
    def token(self) -> Said:
        """The verdict on the token."""
        return conditions.token_valid(self.seen)

    @property
    def bot_id(self) -> str:
        """The bot that the ranges are of."""
        spec = self.seen.any_spec
        return spec.bot_id if spec is not None else self.seen.token.bot_id

    @property
    def allowed(self) -> bool:
        """Whether pods may be made: the Secret is there, nobody refuses its token, and the bot is ours."""
        seen = self.seen
        refused = seen.answer.verdict is Verdict.REJECTED or self.token.reason == conditions.Reason.BOT_CHANGED
        return seen.rival is None and seen.token.problem is None and not refused

    @cached_property
    def layout(self) -> Layout | None:
        """The layout in force, or the one to begin with; None before Discord has been asked."""
        seen = self.seen
        status, wanted = seen.gateway.status, seen.gateway.spec.shards
        standing = layout.in_force((range_of(seen.ranges[key].spec) for key in seen.totals.members), status, wanted)
        if standing is not None:
            return standing
        answer = seen.answer.gateway_bot
        fresh = answer is not None and self.token.status == TRUE and seen.rival is None
        return layout.fresh(wanted, answer.shards) if fresh and answer is not None else None

    @property
    def max_concurrency(self) -> int:
        """How many identifies Discord takes at a time.

        It changes while nobody identifies or is about to: two pods must not see different buckets.
        """
        spec, answer, totals = self.seen.any_spec, self.seen.answer.gateway_bot, self.seen.totals
        present = spec.max_concurrency if spec is not None else 1
        busy = totals.need or totals.renewals or sum(totals.states[state] for state in UNDER_WAY)
        quiet = spec is None or not busy
        return answer.session_start_limit.max_concurrency if answer is not None and quiet else present

    @property
    def gateway_url(self) -> str:
        """Where to identify: the user's word, else Discord's, else what the ranges have."""
        spec, answer = self.seen.any_spec, self.seen.answer.gateway_bot
        named = self.seen.gateway.spec.transport.gateway_url
        return named or (answer.url if answer is not None else spec.config.gateway_url if spec is not None else "")

    @property
    def hold(self) -> bool:
        """Whether no shard may identify."""
        return self.seen.gateway.spec.identify.hold or self.token.status == FALSE or self.seen.rival is not None

    @property
    def reshard(self) -> str:
        """What is asked of a running layout, and refused."""
        standing = self.layout if self.seen.totals.members else None
        return layout.differs(self.seen.gateway.spec.shards, standing) if standing is not None else ""

    @cached_property
    def expected(self) -> int:
        """How many ranges the layout has; 0 before it is known."""
        return len(self.layout.ranges()) if self.layout is not None else 0

    @cached_property
    def live(self) -> LiveSpec:
        """The live fields that every range should have."""
        return LiveSpec(self.hold, self.max_concurrency, render.heartbeat_seconds(self.expected), self.gateway_url)

    def live_of(self, key: RangeKey) -> LiveSpec:
        """Give the live fields that a range should have: it may be on hold alone, because the budget is overdrawn."""
        budget = self.seen.budget
        held = key in budget.held if budget is not None else self.seen.ranges[key].spec.hold
        return replace(self.live, hold=self.live.hold or held)

    @cached_property
    def differing(self) -> list[RangeKey]:
        """The ranges that have not got their live fields yet."""
        seen = self.seen
        same = all(live == self.live for live, count in seen.totals.live.items() if count)
        if same and not (seen.budget is not None and seen.budget.held):
            return []
        return [key for key in seen.owned if live_spec(seen.ranges[key].spec) != self.live_of(key)]

    @cached_property
    def config(self) -> ShardConfig:
        """The configuration that the spec asks for."""
        return render.shard_config(self.seen.gateway, gateway_url=self.gateway_url, ranges=self.expected)

    @property
    def template(self) -> str:
        """The pod template that the spec asks for, as JSON."""
        return msgspec.json.encode(render.template_of(self.seen.gateway, self.image)).decode()

    @property
    def outdated(self) -> int:
        """Count the ranges that do not have the wanted revision."""
        return sum(count for one, count in self.seen.totals.revisions.items() if one != self.revision)


def plan_gateway(seen: GatewayObserved) -> GatewayPlan:
    """Decide what to do for a gateway now."""
    draft = Draft(seen)
    found, paused = draft.layout, seen.gateway.spec.paused
    acts = found is not None and seen.gateway.metadata.deletion_timestamp is None and not paused
    step = _next_step(draft) if acts and draft.outdated and draft.allowed else Step()
    facts = Facts(
        expected=draft.expected,
        reshard=draft.reshard,
        outdated=draft.outdated,
        shortfall=step.shortfall,
        failed=frozenset(key for key in seen.totals.failed if seen.summaries[key].revision == draft.revision),
    )
    said = conditions.judge(seen, facts)
    actions = [*_status(draft, said, found), *_announcements(seen, said)]
    children: list[Action] = []
    if found is not None and acts:
        live, children = _live(draft), _children(draft, found)
        first = [*live, *children] if draft.hold else [*children, *live]  # nothing may stand before an emergency stop
        actions += [*first, *_missing(draft, found), *_rollout(draft, step)]
    elif paused:
        actions += _stops(draft)
    return GatewayPlan(tuple(actions), _wanted(draft), _again_after(draft), said, bool(children))


def _again_after(draft: Draft) -> float:
    return _HURRY if draft.token.status == FALSE else _VISIT


def _wanted(draft: Draft) -> Wanted:
    seen = draft.seen
    return Wanted(
        gateway=seen.gateway,
        revision=draft.revision,
        image=draft.image,
        pull_policy=seen.pull_policy,
        create_pods=draft.allowed,
        secret_version=seen.token.version,
        blamed_version=seen.blamed_version,
        healed=draft.token.status == TRUE,
        paused=seen.gateway.spec.paused,
    )


# --- status -------------------------------------------------------------------------------------------------------


def _status(draft: Draft, said: tuple[Said, ...], found: Layout | None) -> list[Action]:
    seen = draft.seen
    plan = layout.plan_status(found, draft.max_concurrency) if found is not None else None
    status = next_status(seen, said, plan=plan, image=draft.image)
    return [WriteStatus(seen.gateway, status)] if status != seen.gateway.status else []


_EVENT_WORDS: Final = frozenset({"backfill", "*"})
"""What filters and `maxAge` take besides names of events."""

_ANNOUNCED: Final = {
    (ConditionType.READY, TRUE): (EventReason.READY, False),
    (ConditionType.READY, FALSE): (EventReason.NOT_READY, True),
    (ConditionType.TOKEN_VALID, TRUE): (EventReason.TOKEN_VALID, False),
    (ConditionType.TOKEN_VALID, FALSE): (EventReason.TOKEN_INVALID, True),
    (ConditionType.DEGRADED, TRUE): (EventReason.DEGRADED, True),
    (ConditionType.PROGRESSING, FALSE): (EventReason.ROLLOUT_STUCK, True),
}


def _announcements(seen: GatewayObserved, said: tuple[Said, ...]) -> Iterator[Action]:
    """Write an Event when a condition turns, or is so for another reason."""
    for one in said:
        before = conditions.find(seen.gateway.status.conditions, one.type)
        turned = before is None or (before.status, before.reason) != (one.status, one.reason)
        event = _ANNOUNCED.get((one.type, one.status))
        if turned and event is not None:
            reason, warning = event
            note = f"{one.reason}: {one.message}"
            yield Announce(Announcement(GATEWAYS.kind, seen.gateway.metadata, reason, note, warning))
    if seen.gateway.status.observed_generation != seen.gateway.metadata.generation:
        yield from _unknown_events(seen.gateway)


def _unknown_events(gateway: DiscordGateway) -> Iterator[Action]:
    """Warn of event names that Discord did not have when this was built: misspelt, or newer."""
    for sink in gateway.spec.sinks:
        named = {*sink.events.include, *sink.events.exclude, *sink.max_age}
        unknown = sorted(named - EVENT_NAMES - _EVENT_WORDS)
        if unknown:
            note = (
                f"sinks[{sink.name}] names events that are not known: {', '.join(unknown)}. They are matched as written; "
                "correct them in its events or maxAge if Discord did not add them lately"
            )
            yield Announce(Announcement(GATEWAYS.kind, gateway.metadata, EventReason.UNKNOWN_EVENT, note, warning=True))


# --- children -----------------------------------------------------------------------------------------------------


def _children(draft: Draft, found: Layout) -> list[Action]:
    """Apply what the pods need. A gateway whose bot is another's gets none."""
    seen = draft.seen
    if seen.rival is not None or not (seen.children_due or draft.differing):
        return []
    gateway = seen.gateway
    ranges = [names.range_name(gateway.metadata.name, one) for one in found.ranges()]
    leases = [names.lease_name(draft.bot_id, bucket) for bucket in range(draft.max_concurrency)]
    available = max(0, len(ranges) - len(seen.totals.stuck) - gateway.spec.rollout.max_parallel)
    return [
        Apply(SERVICE_ACCOUNTS, render.service_account(gateway)),
        Apply(ROLES, render.role(gateway, ranges=ranges, leases=leases)),
        Apply(ROLE_BINDINGS, render.role_binding(gateway)),
        Apply(BUDGETS, render.disruption_budget(gateway, min_available=available)),
        *_leases(draft),
    ]


def _leases(draft: Draft) -> list[Action]:
    namespace = draft.seen.gateway.metadata.namespace
    missing = (bucket for bucket in range(draft.max_concurrency) if bucket not in draft.seen.buckets)
    bodies = (render.lease(namespace, draft.bot_id, bucket) for bucket in missing)
    return [Batch(tuple(Create(LEASES, body) for body in bodies))]


def _missing(draft: Draft, found: Layout) -> list[Action]:
    """Create the ShardRanges that are not there. A name that another still has is waited for."""
    seen = draft.seen
    wanted = found.ranges()
    if len(seen.totals.members) >= len(wanted) or not draft.allowed or not draft.gateway_url:
        return []
    missing = [one for one in wanted if _key(draft, one) not in seen.ranges]
    bodies = [_new_range(draft, one) for one in missing]
    if not bodies:
        return []
    note = f"{len(bodies)} of {len(wanted)} ShardRanges were made for {found.total} shards"
    event = Announcement(GATEWAYS.kind, seen.gateway.metadata, EventReason.LAYOUT_CREATED, note)
    return [Batch(tuple(Create(RANGES, body) for body in bodies)), Announce(event)]


def _key(draft: Draft, shards: Range) -> RangeKey:
    meta = draft.seen.gateway.metadata
    return RangeKey(meta.namespace, names.range_name(meta.name, shards))


def _new_range(draft: Draft, shards: Range) -> dict[str, Any]:
    return render.shard_range(
        draft.seen.gateway,
        shards,
        bot_id=draft.bot_id,
        max_concurrency=draft.max_concurrency,
        config=draft.config,
        revision=draft.revision,
        template=draft.template,
        restart_at=draft.restart_at,
        hold=draft.hold,
    )


# --- changes of ranges that exist ---------------------------------------------------------------------------------


def _live(draft: Draft) -> list[Action]:
    """Bring the live fields of all ranges up to date."""
    ranges = [(draft.seen.ranges[key], draft.live_of(key)) for key in draft.differing]
    patches = tuple(PatchRange(one, _with_live(one.spec, live)) for one, live in ranges)
    return [Batch(patches)] if patches else []


def _stops(draft: Draft) -> list[Action]:
    """Raise `hold` where it must be, and nothing else."""
    ranges = [draft.seen.ranges[key] for key in draft.differing if draft.live_of(key).hold]
    patches = tuple(
        PatchRange(one, msgspec.structs.replace(one.spec, hold=True)) for one in ranges if not one.spec.hold
    )
    return [Batch(patches)] if patches else []


def _with_live(spec: RangeSpec, live: LiveSpec) -> RangeSpec:
    config = msgspec.structs.replace(
        spec.config, heartbeat_seconds=live.heartbeat_seconds, gateway_url=live.gateway_url
    )
    return msgspec.structs.replace(spec, hold=live.hold, max_concurrency=live.max_concurrency, config=config)


@dataclass(frozen=True, slots=True)
class Step:
    """Which ranges change now; `shortfall`: why none may, where that is the budget."""

    keys: tuple[RangeKey, ...] = ()
    shortfall: str = ""


def _next_step(draft: Draft) -> Step:
    """Choose the ranges that change now: see the algorithm above."""
    seen, totals = draft.seen, draft.seen.totals
    outdated = [key for key in seen.owned if seen.summaries[key].revision != draft.revision]
    idle = [key for key in outdated if seen.summaries[key].stuck or not seen.summaries[key].sessions]
    if idle:
        return Step(tuple(idle))
    if (totals.failed | totals.renewing | seen.stalled) - set(outdated):
        return Step()
    renewals = sum(_renewals(draft, key) for key in outdated)
    parallel = 1 if renewals else seen.gateway.spec.rollout.max_parallel
    changing = (totals.moving | totals.not_up | seen.handed_over) - set(outdated)
    chosen = sorted(outdated, key=_urgency(seen))[: max(0, parallel - len(changing))]
    if not chosen or not renewals:
        return Step(tuple(chosen))
    if seen.budget is None:  # Discord has not been asked yet
        return Step()
    shortfall = _shortfall(seen.budget, renewals, needed=seen.totals.need)
    return Step(() if shortfall else tuple(chosen), shortfall)


def _urgency(seen: GatewayObserved) -> Callable[[RangeKey], tuple[bool, bool]]:
    """Put first the ranges on their way to an older revision, or off their node; then those that are not up."""
    totals = seen.totals
    on_the_way = totals.moving | totals.failed | totals.renewing | seen.stalled | seen.handed_over
    return lambda key: (key not in on_the_way, key not in totals.not_up)


def _renewals(draft: Draft, key: RangeKey) -> int:
    """Count the sessions of a range that the wanted identity would renew."""
    summary = draft.seen.summaries[key]
    if summary.identity == draft.config.identity and not summary.renewals:
        return 0
    return sum(needs_renewal(row, draft.config) for row in draft.seen.ranges[key].status.shards)


def _shortfall(budget: BudgetVerdict, renewals: int, *, needed: int) -> str:
    """Say by how much the identifies of a re-identify rollout exceed what may be granted today, if they do."""
    what = f"the new intents, presence or large threshold take {renewals} identifies"
    left = max(0, budget.remaining - budget.reserve - needed)
    if renewals <= left:
        return ""
    told = (
        f"{what}, and {left} may be granted: {budget.remaining} of {budget.total} are left, {budget.reserve} in reserve"
    )
    if renewals > budget.total - budget.reserve:
        return f"{told}. That is more than a whole day's: lower spec.identify.reservePercent"
    return f"{told}; the budget is full again at {budget.reset_time}"


def _rollout(draft: Draft, step: Step) -> list[Action]:
    """Give the next ranges the wanted revision."""
    patches = () if draft.differing else tuple(_update(draft, key) for key in step.keys)
    return [Batch(patches)] if patches else []


def _update(draft: Draft, key: RangeKey) -> PatchRange:
    """Write the wanted revision and its configuration into a range."""
    shard_range = draft.seen.ranges[key]
    spec = msgspec.structs.replace(shard_range.spec, config=draft.config, revision=draft.revision)
    forgotten = dict.fromkeys((ANNOTATION_FAILED_REVISION, ANNOTATION_TRIED_REVISION))
    noted = {ANNOTATION_RESTART_AT: draft.restart_at or None, ANNOTATION_TEMPLATE: draft.template}
    return PatchRange(shard_range, spec, {**forgotten, **noted})
