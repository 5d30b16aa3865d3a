"""Which pod serves a range: the hand-over, and what to do when something breaks in the middle of it.

`plan_range` looks at a range and its pods and gives the first row of `TABLE` that applies. Each row does one thing; what
it writes comes back as a change of the range, which is then planned anew, until a row says that nothing is to be done.
So every step is taken from the objects alone, and an operator that died in between goes on where the objects stand.

A hand-over, step by step (pod A runs an old revision, or its node is cordoned, or its Discord refusal can be healed by a
new pod):

1. *launch*: the incarnation is raised by compare-and-swap, then pod B is made. B connects its sinks, reports `standby`.
2. *activate*: `activePod: B` and `epoch` + 1, by compare-and-swap.
3. A lets go: closes its websockets with 4000, empties `holder`. (The pods' part.)
4. B takes `holder`, and resumes. (The pods' part.)
5. *retire*: B holds, and is up: A is deleted.

Neither 1 nor 2 is done while the spool of A is not empty or one of its sinks is away: what waits there would have to be
fetched from Discord again. Only a change of sinks or buffer itself does not wait for that. A pod that ends (a drain) has its
successor at once; as long as it holds on, the successor is made active when it stands by.

Where B does not come up, A takes the range back; half a minute later it is tried once more, since a node or Discord may have
been away, unless B crashed. So A is not deleted before B holds and is up, whatever else changes.

While the gateway is paused no pod is made, and none is replaced that holds the range. Where nobody holds it, what is left of
a hand-over goes on among the pods that there are.

What holds at any time: one pod is named active; the active pod is the only one that takes the range; no row raises an
identify grant. A range never has more than two pods that could work: the active one, and one that waits or lets go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import msgspec

from shardwright_api.discord import CloseCode
from shardwright_api.resources import Gap, RangeSpec, ShardRange, ShardState
from shardwright_operator import render
from shardwright_operator.actions import Action, Announce, Create, DeletePod, PatchRange, Plan
from shardwright_operator.events import Announcement, EventReason
from shardwright_operator.kube import CLAIMS, GATEWAYS, PODS, RANGES
from shardwright_operator.observed import RangeObserved, Wanted
from shardwright_operator.sums import (
    ANNOTATION_FAILED_REVISION,
    ANNOTATION_PARKED_CODE,
    ANNOTATION_PARKED_GENERATION,
    ANNOTATION_PARKED_REVISION,
    ANNOTATION_PARKED_SECRET,
    ANNOTATION_STAYS,
    ANNOTATION_TRIED_REVISION,
    PARKED_ANNOTATIONS,
    Parked,
    needs_identify,
    parked_row,
    refused_row,
)
from shardwright_operator.views import Pod

CRASH_PATIENCE: Final = 3.0
"""Seconds in CrashLoopBackOff after which a pod is replaced."""
TAKE_OVER_PATIENCE: Final = 10.0
"""Seconds that a new pod has to come up once its predecessor let go."""
RETRY_AFTER: Final = 30.0
"""Seconds after which a hand-over that was taken back once begins again."""
STANDBY_PATIENCE: Final = 120.0
"""Seconds after which a new pod that does not stand by is reported."""
ALL_IS_WELL: Final = "all is well"
"""The last row: nothing is to be done."""
_LAUNCH_STEP: Final = 5.0
_LAUNCH_LIMIT: Final = 300.0
_FREE_LAUNCHES: Final = 2


def launch_pace(launches: int) -> float:
    """Give the seconds between pods of a range that does not come up: two at once, then doubling to five minutes."""
    if launches < _FREE_LAUNCHES:
        return 0.0
    return min(_LAUNCH_LIMIT, _LAUNCH_STEP * 2.0 ** (launches - _FREE_LAUNCHES))


# --- the situation ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Situation:
    """What follows from what was observed."""

    seen: RangeObserved

    @property
    def range(self) -> ShardRange:
        """The range."""
        return self.seen.shard_range

    @property
    def spec(self) -> RangeSpec:
        """The range's spec."""
        return self.range.spec

    @property
    def wanted(self) -> Wanted:
        """What the gateway wants."""
        return self.seen.wanted

    @property
    def paused(self) -> bool:
        """Whether the user wants nothing to be done. What is needed for some pod to hold the range is done all the same."""
        return self.wanted.paused

    @property
    def may_make(self) -> bool:
        """Whether pods may be made."""
        return self.wanted.create_pods and not self.paused

    @property
    def holder(self) -> str:
        """The UID of the pod that holds the sessions, or an empty string."""
        return self.range.status.holder

    def pod(self, uid: str) -> Pod | None:
        """Find a pod by its UID."""
        return next((pod for pod in self.seen.pods if pod.uid == uid), None)

    @cached_property
    def active(self) -> Pod | None:
        """The pod that is to hold the range, if it exists."""
        return self.pod(self.spec.active_pod)

    @property
    def refused(self) -> Parked | None:
        """A shard that Discord refused, be it only for the renewal of its session."""
        return self.seen.summary.parked

    @property
    def parked(self) -> Parked | None:
        """A shard that Discord refused, and that has no session."""
        return self.refused if self.seen.summary.stuck else None

    def lost(self, pod: Pod) -> bool:
        """Say whether a pod went down with its node: the node does not report, and neither does the pod as the holder."""
        return pod.uid in self.seen.lost and (self.seen.silent or pod.uid != self.holder)

    @property
    def crashed(self) -> bool:
        """Whether the active pod crash-loops. A parked one waits for people, however often its container restarts."""
        active = self.active
        patience_is_over = self.seen.crashed_for >= CRASH_PATIENCE
        return active is not None and active.crash_looping and patience_is_over and self.parked is None

    @property
    def works(self) -> bool:
        """Whether the active pod can hold the range at all."""
        active = self.active
        return active is not None and active.usable and not self.lost(active) and not self.crashed

    @cached_property
    def others(self) -> list[Pod]:
        """The pods beside the active one that could hold the range: best first."""
        usable = [pod for pod in self.seen.pods if pod.usable and pod is not self.active and not self.lost(pod)]
        return sorted(usable, key=lambda pod: (pod.revision == self.spec.revision, pod.incarnation), reverse=True)

    @property
    def successor(self) -> Pod | None:
        """The pod that takes over when the active one cannot."""
        return next((pod for pod in self.others if not pod.crash_looping), None)

    @property
    def holds(self) -> bool:
        """Whether the active pod holds the range."""
        return bool(self.holder) and self.holder == self.spec.active_pod

    @property
    def serves(self) -> bool:
        """Whether the active pod holds the range, and each shard is READY or must identify for reasons of its own."""
        rows = self.range.status.shards
        fine = all(row.state in {ShardState.READY, ShardState.IDENTIFYING} or needs_identify(row) for row in rows)
        return self.holds and bool(rows) and fine

    @property
    def settled(self) -> bool:
        """Whether the hand-over to the active pod is over."""
        return self.serves or (self.holds and self.parked is not None)

    @property
    def idle(self) -> bool:
        """Whether no shard of the range has a session: there is nothing to interrupt."""
        return all(row.session is None for row in self.range.status.shards)

    @property
    def failed(self) -> bool:
        """Whether the wanted revision was tried, and did not come up."""
        return self.range.metadata.annotations.get(ANNOTATION_FAILED_REVISION) == self.spec.revision

    @property
    def tried_before(self) -> str:
        """The revision to which a hand-over was taken back once."""
        return self.range.metadata.annotations.get(ANNOTATION_TRIED_REVISION, "")

    @property
    def outdated(self) -> bool:
        """Whether the active pod must be replaced though it works."""
        return self.active is not None and self._must_go(self.active)

    def _must_go(self, pod: Pod) -> bool:
        return self._old_revision(pod) or self._old_secret(pod) or self._on_cordon(pod)

    def _on_cordon(self, pod: Pod) -> bool:
        """Say whether a pod is to leave its node before it is evicted."""
        stays = self.range.metadata.annotations.get(ANNOTATION_STAYS) == pod.uid
        return pod.uid in self.seen.cordoned and not stays and not self.failed and self.parked is None

    @property
    def leaves_node(self) -> bool:
        """Whether the active pod is outdated for no other reason than its node."""
        pod = self.active
        return pod is not None and self._on_cordon(pod) and not self._old_revision(pod) and not self._old_secret(pod)

    @property
    def held_back(self) -> str:
        """What a hand-over waits for while the active pod holds the range; an empty string: nothing."""
        pod, status = self.active, self.range.status
        mends = pod is not None and pod.buffer_version not in {"", render.buffer_version(self.spec.config)}
        if not self.outdated or not self.holds or mends:
            return ""
        away = next((sink.name for sink in status.sinks if not sink.available), "")
        if status.spool_bytes > 0:
            return f"{status.spool_bytes} bytes are in its spool" + (f", and sink {away!r} is away" if away else "")
        return f"sink {away!r} is away" if away and not self.idle else ""

    def _old_revision(self, pod: Pod) -> bool:
        return pod.revision != self.spec.revision and not self.failed

    def _old_secret(self, pod: Pod) -> bool:
        """Say whether a new pod would read another token than this one, and has no session to lose.

        The kubelet brings a changed Secret to a running pod after a minute or two; a new pod has it at once.
        """
        refused = self.refused is not None and self.refused.code == CloseCode.AUTHENTICATION_FAILED
        new = self.wanted.healed and pod.secret_version != self.wanted.secret_version
        return new and (refused or self.seen.summary.sessions == 0)

    @property
    def replacement(self) -> Pod | None:
        """The pod that is to take over from an outdated one."""
        fresh = (pod for pod in self.others if not self._must_go(pod))
        return next(fresh, None) if self.outdated else None

    def stands_by(self, pod: Pod | None) -> bool:
        """Say whether a pod may take over: it reports its sinks, or there is nothing to lose."""
        report = self.range.status.standby.get(pod.uid) if pod is not None else None
        return report is not None and (report.sinks_available or self.idle)

    @property
    def gets_ready(self) -> bool:
        """Whether there is a replacement that cannot take over yet."""
        return self.replacement is not None and not self.stands_by(self.replacement)

    @property
    def ends_in_order(self) -> bool:
        """Whether the active pod is on its way out, and holds on until its successor stands by."""
        active = self.active
        alive = active is not None and active.terminating and not active.dead and not self.seen.silent
        return alive and self.holds

    @property
    def predecessor(self) -> Pod | None:
        """The pod that the active one replaced, and that could take the range back."""
        active = self.active
        older = (pod for pod in self.others if active is not None and pod.incarnation < active.incarnation)
        fits = (pod for pod in older if not pod.crash_looping and not self._old_secret(pod))
        return max(fits, key=lambda pod: (pod.running, pod.incarnation), default=None)

    @property
    def companion(self) -> Pod | None:
        """The one pod beside the active one that is needed: it lets go, could take the range back, or is to take over."""
        holder = self.pod(self.holder) if self.letting_go else None
        if holder in self.others or (self.settled and not self.outdated):
            return holder
        if not self.settled and self.predecessor is not None:
            return self.predecessor
        return self.replacement if self.outdated else next(iter(self.others), None)

    @property
    def letting_go(self) -> bool:
        """Whether another pod holds the range, and is not known to be dead."""
        return self.holder not in {"", self.spec.active_pod, self.spec.fenced_holder}


# --- what the rows do ---------------------------------------------------------------------------------------------


def _announce(situation: Situation, reason: EventReason, note: str, *, warning: bool = False) -> Announce:
    return Announce(Announcement(RANGES.kind, situation.range.metadata, reason, note, warning))


def _patch(situation: Situation, annotations: dict[str, str | None] | None = None, **changes: object) -> PatchRange:
    spec = msgspec.structs.replace(situation.spec, **changes)
    fences = spec.fenced_holder not in {"", situation.spec.fenced_holder}
    return PatchRange(situation.range, spec, annotations or {}, fences)


def _name_active(situation: Situation, pod: Pod, annotations: dict[str, str | None] | None = None) -> PatchRange:
    """Name another pod active. If it was fenced once, it is no longer: its successor must wait for it again."""
    fenced = situation.spec.fenced_holder
    kept = "" if fenced == pod.uid else fenced
    epoch = situation.spec.epoch + 1
    return _patch(situation, annotations, active_pod=pod.uid, epoch=epoch, fenced_holder=kept)


def _activate(situation: Situation, pod: Pod) -> list[Action]:
    note = f"Pod {pod.metadata.name} is to take the range over"
    return [
        _name_active(situation, pod),
        _announce(situation, EventReason.POD_ACTIVATED, note),
    ]


def _launch(situation: Situation) -> list[Action]:
    incarnation = situation.spec.incarnation + 1
    body = render.pod(situation.wanted, situation.range, incarnation)
    claim = render.claim(situation.wanted, situation.range)
    return [
        *([Create(CLAIMS, claim)] if claim is not None else []),
        _patch(situation, incarnation=incarnation),
        Create(PODS, body),
        _announce(situation, EventReason.POD_CREATED, f"Pod {body['metadata']['name']} was made"),
    ]


def _succeed(situation: Situation) -> list[Action]:
    assert situation.successor is not None
    if situation.crashed and situation.successor is situation.predecessor:
        return _take_back(situation)
    return _activate(situation, situation.successor)


def _note_parking(situation: Situation) -> list[Action]:
    refused = situation.refused
    assert refused is not None
    holder, wanted = situation.pod(situation.holder), situation.wanted
    revision = holder.revision if holder is not None else situation.spec.revision
    note = f"Shard {refused.shard}: Discord answered {refused.code}: {refused.message}"
    annotations: dict[str, str | None] = {
        ANNOTATION_PARKED_CODE: str(refused.code),
        ANNOTATION_PARKED_SECRET: wanted.blamed_version,
        ANNOTATION_PARKED_REVISION: revision,
        ANNOTATION_PARKED_GENERATION: str(wanted.gateway.metadata.generation),
    }
    return [
        _patch(situation, annotations),
        _announce(situation, EventReason.SHARD_PARKED, note, warning=True),
    ]


def _forget_parking(situation: Situation) -> list[Action]:
    return [_patch(situation, dict.fromkeys(PARKED_ANNOTATIONS))]


def _fence(situation: Situation) -> list[Action]:
    holder = situation.pod(situation.holder)
    where = "its pod is gone" if holder is None else f"its pod {holder.metadata.name} ends, or its node does not report"
    note = f"The holder {situation.holder} is silent, and {where}: its successor need not wait for it"
    return [
        _patch(situation, fenced_holder=situation.holder),
        _announce(situation, EventReason.HOLDER_FENCED, note, warning=True),
    ]


def _take_back(situation: Situation) -> list[Action]:
    pod, failed = situation.predecessor, situation.active
    assert pod is not None
    assert failed is not None
    old, new, revision = pod.metadata.name, failed.metadata.name, failed.revision
    note = f"{new} did not come up with revision {revision}: {old} takes the range back"
    annotations: dict[str, str | None] = {}
    if revision != pod.revision:
        final = situation.crashed or situation.tried_before == revision
        annotations[ANNOTATION_FAILED_REVISION if final else ANNOTATION_TRIED_REVISION] = revision
    elif pod.uid in situation.seen.cordoned:
        annotations[ANNOTATION_STAYS] = pod.uid
    return [
        _name_active(situation, pod, annotations),
        _announce(situation, EventReason.HAND_OVER_FAILED, note, warning=True),
    ]


def _delete(situation: Situation, pods: list[Pod]) -> list[Action]:
    announce = (f"Pod {pod.metadata.name} is no longer needed" for pod in pods)
    return [
        *(DeletePod(pod) for pod in pods),
        *(_announce(situation, EventReason.POD_RETIRED, note) for note in announce),
    ]


def _superfluous(situation: Situation) -> list[Pod]:
    """List the pods that may go: ended ones, and all beside the active one but its companion."""
    ended = [pod for pod in situation.seen.pods if pod.dead and not pod.terminating and pod is not situation.active]
    return ended + [pod for pod in situation.others if pod is not situation.companion]


# --- the table ----------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """When this is so, do that. `wait`: seconds until it may be otherwise without any change of an object."""

    name: str
    when: Callable[[Situation], bool]
    do: Callable[[Situation], list[Action]]
    wait: Callable[[Situation], float | None] = lambda _: None


def _nothing(_: Situation) -> list[Action]:
    return []


def _going(s: Situation) -> bool:
    return s.range.metadata.deletion_timestamp is not None or s.wanted.gateway.metadata.deletion_timestamp is not None


def _newly_parked(s: Situation) -> bool:
    refused = parked_row(s.range.status.shards) is not None or refused_row(s.range) is not None
    return refused and s.seen.summary.open == 0 and ANNOTATION_PARKED_CODE not in s.range.metadata.annotations


def _no_longer_parked(s: Situation) -> bool:
    rows = s.range.status.shards
    works = parked_row(rows) is None and any(row.state is ShardState.READY for row in rows)
    return works and s.seen.summary.renewals == 0 and ANNOTATION_PARKED_CODE in s.range.metadata.annotations


def _fence_due(s: Situation) -> bool:
    pod = s.pod(s.holder)
    return s.letting_go and s.seen.silent and (pod is None or not pod.usable or s.lost(pod))


def _take_back_due(s: Situation) -> bool:
    return s.works and not s.letting_go and not s.settled and s.predecessor is not None


def _crash_wait(s: Situation) -> float | None:
    looping = s.active is not None and s.active.crash_looping and s.parked is None
    return max(0.1, CRASH_PATIENCE - s.seen.crashed_for) if looping and not s.crashed else None


TABLE: Final[tuple[Row, ...]] = (
    Row("the range or its gateway is being deleted", _going, _nothing),
    Row("the gateway is paused, and its pod holds the range", lambda s: s.paused and s.works and s.holds, _nothing),
    Row("Discord refused a shard: note with which token and revision", _newly_parked, _note_parking),
    Row("Discord no longer refuses: forget it", _no_longer_parked, _forget_parking),
    Row(
        "the active pod ends, and holds on until another stands by",
        lambda s: s.ends_in_order and s.successor is not None and not s.stands_by(s.successor),
        _nothing,
    ),
    Row("the active pod is lost, another could work", lambda s: not s.works and s.successor is not None, _succeed),
    Row("the active pod is lost, none may be made", lambda s: not s.works and not s.may_make, _nothing),
    Row(
        "the active pod is lost, and the last ones did not come up either: wait",
        lambda s: not s.works and s.seen.launch_in > 0,
        _nothing,
        lambda s: s.seen.launch_in,
    ),
    Row("the active pod is lost, or there was none yet", lambda s: not s.works, _launch),
    Row(
        "the old holder is dead: wait for our turn to fence",
        lambda s: _fence_due(s) and not s.seen.may_fence,
        _nothing,
        lambda _: 5.0,
    ),
    Row("the old holder is dead", _fence_due, _fence),
    Row("pods are left over", lambda s: bool(_superfluous(s)), lambda s: _delete(s, _superfluous(s))),
    Row(
        "the new pod has its chance to come up",
        lambda s: _take_back_due(s) and s.seen.released_for < TAKE_OVER_PATIENCE,
        _nothing,
        lambda s: TAKE_OVER_PATIENCE - s.seen.released_for,
    ),
    Row("the new pod did not come up: its predecessor takes the range back", _take_back_due, _take_back),
    Row("the hand-over is not over", lambda s: s.letting_go, _nothing),
    Row(
        "the hand-over was taken back: it is tried once more",
        lambda s: s.outdated and s.tried_before == s.spec.revision and s.seen.tried_for < RETRY_AFTER,
        _nothing,
        lambda s: RETRY_AFTER - s.seen.tried_for,
    ),
    Row("the replacement gets ready", lambda s: s.gets_ready, _nothing, lambda _: STANDBY_PATIENCE),
    Row("the active pod is outdated, and events wait in it", lambda s: bool(s.held_back), _nothing),
    Row(
        "the replacement stands by",
        lambda s: s.replacement is not None,
        lambda s: _activate(s, s.replacement or s.seen.pods[0]),
    ),
    Row("the active pod is outdated, none may be made", lambda s: s.outdated and not s.may_make, _nothing),
    Row(
        "the active pod is outdated, and must wait for its turn",
        lambda s: s.outdated and (s.seen.replace_in > 0 or (s.leaves_node and not s.seen.may_move)),
        _nothing,
        lambda s: max(1.0, s.seen.replace_in),
    ),
    Row("the active pod is outdated", lambda s: s.outdated, _launch),
    Row(ALL_IS_WELL, lambda _: True, _nothing),
)


def plan_range(seen: RangeObserved) -> Plan:
    """Decide what to do for a range now."""
    situation = Situation(seen)
    row = next(row for row in TABLE if row.when(situation))
    waits = [wait for wait in (row.wait(situation), _crash_wait(situation)) if wait is not None]
    return Plan(tuple(row.do(situation)), min(waits, default=None), row.name)


def held_back(seen: RangeObserved) -> str:
    """Say what a hand-over waits for before it begins; an empty string where none is wanted, or it is under way."""
    situation = Situation(seen)
    idle = situation.paused or not situation.works or situation.gets_ready
    return "" if idle else situation.held_back


def leaves_node(seen: RangeObserved) -> bool:
    """Say whether the active pod leaves a cordoned node: it has a replacement, or it is its turn to get one."""
    situation = Situation(seen)
    begins = situation.replacement is not None or (seen.may_move and not situation.held_back)
    return situation.works and not situation.paused and situation.leaves_node and begins


def lost_session(seen: RangeObserved, shard: int, gap: Gap) -> Announce:
    """Announce a gap on the gateway."""
    note = (
        f"Shard {shard}: session {gap.session} ended after sequence {gap.seq} ({gap.time or 'at an unknown time'});"
        " what Discord sent from there to the next READY is lost, and the sinks are told so"
    )
    gateway = seen.wanted.gateway.metadata
    return Announce(Announcement(GATEWAYS.kind, gateway, EventReason.SESSION_LOST, note, warning=True))


def on_trial(seen: RangeObserved) -> str:
    """Name the active pod while it has its chance to come up after its predecessor let go; else an empty string."""
    situation = Situation(seen)
    return situation.spec.active_pod if _take_back_due(situation) else ""


def tried(seen: RangeObserved) -> str:
    """Name the revision to which a hand-over was taken back once; else an empty string."""
    return Situation(seen).tried_before


def awaited(seen: RangeObserved) -> str:
    """Name the revision whose pods, one after the other, are to get ready to take over; else an empty string."""
    situation = Situation(seen)
    made_anew = situation.outdated and situation.replacement is None and seen.launched and not situation.held_back
    return situation.spec.revision if situation.gets_ready or made_anew else ""
