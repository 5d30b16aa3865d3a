"""What a gateway needs: its children, its conditions, and which range changes next.

Children. Service account, Role, RoleBinding and PodDisruptionBudget are applied (server-side) every half minute, so that
one deleted by hand comes back. Leases and ShardRanges are created where they are missing. What pods need stands before
the ShardRanges that make pods. Nothing is made before the Secret exists, Discord takes the token and the bot is ours.

Layout. What the existing ShardRanges say is in force; only a gateway without any gets the layout that its spec asks for.

Live fields (hold, max_concurrency, heartbeat, gateway URL) are written into every range that differs, at once.

Rollout. A range changes when its `spec.revision` is written; its own key does the rest (`plan_range`). Algorithm:

1. Ranges without any session have nothing to lose: all of them change at once. (A refused bot, a wrong sink.)
2. Otherwise one range at a time, and a range that is not up first.
3. The next one only while no range is in a hand-over, every range that already changed is up, and none failed.
4. A range whose sessions were identified with other intents, presence or large threshold keeps those: what it would
   take to change them is a new identify. A range without a session takes the new ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import msgspec

from shardwright_api import names
from shardwright_api.discord import CloseCode
from shardwright_api.resources import ConditionType, RangeSpec, ShardConfig
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
from shardwright_operator.observed import GatewayObserved, Wanted
from shardwright_operator.revision import revision
from shardwright_operator.status import next_status
from shardwright_operator.sums import ANNOTATION_FAILED_REVISION, LiveSpec, identity, live_spec, range_of

PARALLEL_HAND_OVERS: Final = 1
_INTENT_CODES: Final = frozenset({CloseCode.INVALID_INTENTS, CloseCode.DISALLOWED_INTENTS})
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
        """The shard image: the user's, else the one pinned at first sight, else the operator's default."""
        gateway = self.seen.gateway
        return gateway.spec.pod.image or gateway.status.image or self.seen.default_image

    @property
    def revision(self) -> str:
        """The revision that the spec asks for."""
        return revision(self.seen.gateway.spec)

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

        It changes while nobody is about to identify: two pods must not see different buckets.
        """
        spec, answer = self.seen.any_spec, self.seen.answer.gateway_bot
        present = spec.max_concurrency if spec is not None else 1
        quiet = spec is None or self.seen.totals.need == 0
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

    def live(self, ranges: int) -> LiveSpec:
        """Give the live fields that every range should have."""
        return LiveSpec(self.hold, self.max_concurrency, render.heartbeat_seconds(ranges), self.gateway_url)

    def config(self, ranges: int) -> ShardConfig:
        """Render the configuration that the spec asks for."""
        return render.shard_config(self.seen.gateway, gateway_url=self.gateway_url, ranges=ranges)

    def live_differs(self, ranges: int) -> bool:
        """Say whether some range has not got the live fields yet."""
        wanted = self.live(ranges)
        return any(count for live, count in self.seen.totals.live.items() if live != wanted)

    @property
    def outdated(self) -> int:
        """Count the ranges that do not have the wanted revision."""
        return sum(count for (one, _), count in self.seen.totals.runs.items() if one != self.revision)

    @property
    def old_identity(self) -> int:
        """Count the ranges that have the wanted revision, but keep what their sessions identified with."""
        wanted, runs = identity(self.config(0)), self.seen.totals.runs
        return sum(count for (one, kept), count in runs.items() if one == self.revision and kept != wanted)


def plan_gateway(seen: GatewayObserved) -> GatewayPlan:
    """Decide what to do for a gateway now."""
    draft = Draft(seen)
    found = draft.layout
    facts = Facts(
        expected=len(found.ranges()) if found is not None else 0,
        reshard=draft.reshard,
        outdated=draft.outdated,
        old_identity=draft.old_identity,
        failed=frozenset(key for key in seen.totals.failed if seen.summaries[key].revision == draft.revision),
    )
    said = conditions.judge(seen, facts)
    actions = [*_status(draft, said, found), *_announcements(seen, said)]
    children: list[Action] = []
    if found is not None and seen.gateway.metadata.deletion_timestamp is None:
        live, children = _live(draft, facts), _children(draft, found)
        first = [*live, *children] if draft.hold else [*children, *live]  # nothing may stand before an emergency stop
        actions += [*first, *_missing(draft, found), *_rollout(draft, facts)]
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
    )


# --- status -------------------------------------------------------------------------------------------------------


def _status(draft: Draft, said: tuple[Said, ...], found: Layout | None) -> list[Action]:
    seen = draft.seen
    plan = layout.plan_status(found, draft.max_concurrency) if found is not None else None
    status = next_status(seen, said, plan=plan, image=draft.image)
    return [WriteStatus(seen.gateway, status)] if status != seen.gateway.status else []


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


# --- children -----------------------------------------------------------------------------------------------------


def _children(draft: Draft, found: Layout) -> list[Action]:
    """Apply what the pods need. A gateway whose bot is another's gets none."""
    seen = draft.seen
    if seen.rival is not None or not (seen.children_due or draft.live_differs(len(found.ranges()))):
        return []
    gateway = seen.gateway
    ranges = [names.range_name(gateway.metadata.name, one) for one in found.ranges()]
    leases = [names.lease_name(draft.bot_id, bucket) for bucket in range(draft.max_concurrency)]
    parked = len(seen.totals.parked)
    available = max(0, len(ranges) - parked - PARALLEL_HAND_OVERS)
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
    bodies = [_new_range(draft, one, len(wanted)) for one in missing]
    if not bodies:
        return []
    note = f"{len(bodies)} of {len(wanted)} ShardRanges were made for {found.total} shards"
    event = Announcement(GATEWAYS.kind, seen.gateway.metadata, EventReason.LAYOUT_CREATED, note)
    return [Batch(tuple(Create(RANGES, body) for body in bodies)), Announce(event)]


def _key(draft: Draft, shards: Range) -> RangeKey:
    meta = draft.seen.gateway.metadata
    return RangeKey(meta.namespace, names.range_name(meta.name, shards))


def _new_range(draft: Draft, shards: Range, ranges: int) -> dict[str, Any]:
    return render.shard_range(
        draft.seen.gateway,
        shards,
        bot_id=draft.bot_id,
        max_concurrency=draft.max_concurrency,
        config=draft.config(ranges),
        revision=draft.revision,
        hold=draft.hold,
    )


# --- changes of ranges that exist ---------------------------------------------------------------------------------


def _live(draft: Draft, facts: Facts) -> list[Action]:
    """Bring the live fields of all ranges up to date."""
    if not draft.live_differs(facts.expected):
        return []
    wanted = draft.live(facts.expected)
    ranges = (draft.seen.ranges[key] for key in draft.seen.owned)
    differing = [one for one in ranges if live_spec(one.spec) != wanted]
    return [Batch(tuple(PatchRange(one, _with_live(one.spec, wanted)) for one in differing))]


def _with_live(spec: RangeSpec, live: LiveSpec) -> RangeSpec:
    config = msgspec.structs.replace(
        spec.config, heartbeat_seconds=live.heartbeat_seconds, gateway_url=live.gateway_url
    )
    return msgspec.structs.replace(spec, hold=live.hold, max_concurrency=live.max_concurrency, config=config)


def _rollout(draft: Draft, facts: Facts) -> list[Action]:
    """Give the next ranges the wanted revision."""
    if not facts.outdated or not draft.allowed or draft.live_differs(facts.expected):
        return []
    chosen = _next_ranges(draft.seen, draft.revision)
    return [Batch(tuple(_update(draft, key, facts.expected) for key in chosen))] if chosen else []


def _next_ranges(seen: GatewayObserved, wanted: str) -> list[RangeKey]:
    """Choose the ranges that change now: see the algorithm above."""
    totals, summaries = seen.totals, seen.summaries
    outdated = [key for key in seen.owned if summaries[key].revision != wanted]
    idle = [key for key in outdated if _nothing_to_lose(seen, key)]
    on_the_way = [key for key in outdated if key in totals.moving or key in totals.failed]
    if idle or on_the_way:
        return idle or on_the_way[:PARALLEL_HAND_OVERS]
    troubled = totals.moving | totals.failed | (totals.not_up - set(outdated))
    down_first = sorted(outdated, key=lambda key: key not in totals.not_up)
    return [] if troubled else down_first[:PARALLEL_HAND_OVERS]


def _nothing_to_lose(seen: GatewayObserved, key: RangeKey) -> bool:
    summary = seen.summaries[key]
    return summary.parked is not None or not summary.sessions


def _update(draft: Draft, key: RangeKey, ranges: int) -> PatchRange:
    """Write the wanted revision and its configuration into a range, less what its sessions must keep."""
    shard_range, summary = draft.seen.ranges[key], draft.seen.summaries[key]
    config = draft.config(ranges)
    refused = summary.parked is not None and summary.parked.code in _INTENT_CODES
    if summary.sessions and not refused:
        config = _keep_identity(shard_range.spec.config, config)
    spec = msgspec.structs.replace(shard_range.spec, config=config, revision=draft.revision)
    return PatchRange(shard_range, spec, {ANNOTATION_FAILED_REVISION: None})


def _keep_identity(old: ShardConfig, new: ShardConfig) -> ShardConfig:
    return msgspec.structs.replace(new, intents=old.intents, presence=old.presence, large_threshold=old.large_threshold)
