"""What a gateway's key does: children, layout, live fields, and one range after the other."""

import msgspec
import pytest

from shardwright_api.discord import CloseCode
from shardwright_api.resources import (
    Compression,
    EventFilter,
    GatewaySpec,
    GatewayStatus,
    Identify,
    PodTemplate,
    Rollout,
    Shards,
    ShardState,
    Sink,
    StdoutSink,
    Transport,
    to_wire,
)
from shardwright_operator.actions import Announce, Apply, Batch, Create, PatchRange, WriteStatus
from shardwright_operator.asker import NOT_ASKED, Verdict
from shardwright_operator.events import EventReason
from shardwright_operator.keys import GatewayKey
from shardwright_operator.kube import BUDGETS, LEASES, RANGES
from shardwright_operator.observed import BudgetVerdict
from shardwright_operator.plan_gateway import plan_gateway
from shardwright_operator.render import shard_config
from shardwright_operator.revision import revision
from shardwright_operator.sums import (
    ANNOTATION_FAILED_REVISION,
    ANNOTATION_RESTART_AT,
    ANNOTATION_TEMPLATE,
    ANNOTATION_TRIED_REVISION,
)
from shardwright_operator.tokens import TokenProblem, TokenState
from unit.operator import builders

NEW = builders.gateway(pod=PodTemplate(labels={"team": "x"}))


def flat(plan):
    for action in plan.actions:
        yield from action.actions if isinstance(action, Batch) else (action,)


def patches(plan):
    return [action for action in flat(plan) if isinstance(action, PatchRange)]


def created(plan, resource):
    return [action.body for action in flat(plan) if isinstance(action, Create) and action.resource is resource]


def announced(plan):
    return [action.announcement for action in flat(plan) if isinstance(action, Announce)]


def settled(first=0, **changes):
    """A range that is up and has all live fields."""
    return builders.serving(first, first + 1, **changes)


def pods(*ranges):
    return [builders.pod(f"pod-{of.spec.first}", of=of) for of in ranges]


def layout(count=2, **changes):
    made = []
    for number in range(count):
        of = settled(2 * number, **changes)
        uid = f"pod-{of.spec.first}"
        made.append(builders.with_status(builders.with_spec(of, active_pod=uid), holder=uid))
    return made


def plan(of=None, ranges=(), its_pods=None, **changes):
    return plan_gateway(builders.gateway_seen(of, ranges, pods(*ranges) if its_pods is None else its_pods, **changes))


def test_a_new_gateway_gets_children_leases_and_ranges_in_that_order():
    made = plan()
    kinds = [action.resource.kind for action in flat(made) if isinstance(action, Apply | Create)]
    assert kinds == [
        "ServiceAccount", "Role", "RoleBinding", "PodDisruptionBudget", "Lease", "ShardRange", "ShardRange",
    ]  # fmt: skip
    assert [body["metadata"]["name"] for body in created(made, RANGES)] == ["mybot-4-0-1", "mybot-4-2-3"]
    assert made.wanted.create_pods


def test_before_discord_has_answered_nothing_is_made():
    assert created(plan(answer=NOT_ASKED), RANGES) == []


def test_without_a_secret_nothing_is_made_and_it_is_looked_for_soon():
    missing = TokenState(problem=TokenProblem.SECRET_NOT_FOUND, message="gone")
    made = plan(token=missing, answer=NOT_ASKED)
    assert not [action for action in flat(made) if not isinstance(action, WriteStatus) and hasattr(action, "resource")]
    assert not made.wanted.create_pods
    assert made.again_after <= 5


@pytest.mark.parametrize(
    "changes",
    [
        {"answer": builders.answer(verdict=Verdict.REJECTED)},
        {"rival": GatewayKey("elsewhere", "mybot")},
    ],
)
def test_a_rejected_token_and_a_bot_of_others_make_nothing(changes):
    made = plan(**changes)
    assert [action for action in flat(made) if isinstance(action, Create | Apply)] == []
    assert not made.wanted.create_pods


def test_missing_ranges_come_back_in_the_running_layout():
    of = builders.gateway(shards=Shards(count=99, per_pod=7))
    first, _ = layout()
    made = plan(of, [first])
    assert [body["metadata"]["name"] for body in created(made, RANGES)] == ["mybot-4-2-3"]


def test_a_name_that_another_gateways_range_still_has_is_waited_for():
    old = builders.shard_range(gateway_uid="before")
    made = plan(ranges=[old], its_pods=[], totals=type(builders.gateway_seen().totals)())
    assert [body["metadata"]["name"] for body in created(made, RANGES)] == ["mybot-4-2-3"]


def test_leases_that_exist_are_not_made_again():
    made = plan(answer=builders.answer(max_concurrency=3), buckets=frozenset({1}))
    assert [body["metadata"]["name"][-1] for body in created(made, LEASES)] == ["0", "2"]
    assert all("ownerReferences" not in body["metadata"] for body in created(made, LEASES))


def test_children_are_not_applied_more_often_than_due():
    ranges = layout()
    made = plan(ranges=ranges, children_due=False)
    assert [action for action in flat(made) if isinstance(action, Apply)] == []


def test_a_settled_gateway_writes_its_status_once():
    ranges = layout()
    seen = builders.gateway_seen(None, ranges, pods(*ranges), children_due=False)
    (write,) = [action for action in flat(plan_gateway(seen)) if isinstance(action, WriteStatus)]
    of = msgspec.structs.replace(builders.GATEWAY_OBJECT, status=write.status)
    again = builders.gateway_seen(of, ranges, pods(*ranges), children_due=False, gauges_due=False)
    assert plan_gateway(again).actions == ()


def test_event_names_that_are_not_known_are_warned_of_once_a_generation():
    filtered = Sink(
        name="events",
        stdout=StdoutSink(),
        events=EventFilter(include=("MESSAGE_CREATE", "MESAGE_UPDATE", "backfill"), exclude=("TYPING_START",)),
        max_age={"*": "1m", "SOON_ADDED": "3s"},
    )
    of = builders.gateway(sinks=(filtered,))
    found = plan(of)
    (said,) = [one for one in announced(found) if one.reason is EventReason.UNKNOWN_EVENT]
    assert said.warning
    assert "sinks[events]" in said.note
    assert "not known: MESAGE_UPDATE, SOON_ADDED." in said.note
    (write,) = [action for action in flat(found) if isinstance(action, WriteStatus)]
    again = plan(msgspec.structs.replace(of, status=write.status))
    assert not [one for one in announced(again) if one.reason is EventReason.UNKNOWN_EVENT]


def test_a_hold_reaches_every_range():
    held = builders.gateway(identify=Identify(hold=True))
    assert [patch.spec.hold for patch in patches(plan(held, layout()))] == [True, True]


def test_a_refused_token_holds_every_range():
    assert [patch.spec.hold for patch in patches(plan(ranges=layout(), refused="4004"))] == [True, True]


def test_max_concurrency_changes_only_while_nobody_is_about_to_identify():
    more = builders.answer(max_concurrency=16)
    assert [patch.spec.max_concurrency for patch in patches(plan(ranges=layout(), answer=more))] == [16, 16]
    needy = builders.with_status(layout()[0], shards=())
    assert patches(plan(ranges=[needy, layout()[1]], answer=more)) == []
    queued = builders.rows(layout()[0], ShardState.IDENTIFYING, session=None)
    assert patches(plan(ranges=[builders.with_status(layout()[0], shards=queued), layout()[1]], answer=more)) == []
    renewing = builders.rows(layout()[0], identity="old")
    assert patches(plan(ranges=[builders.with_status(layout()[0], shards=renewing), layout()[1]], answer=more)) == []


def test_a_new_revision_goes_to_one_range_at_a_time():
    (patch,) = patches(plan(NEW, layout()))
    assert patch.base.spec.first == 0
    assert patch.spec.revision == revision(NEW.spec)
    assert patch.annotations == {
        ANNOTATION_FAILED_REVISION: None,
        ANNOTATION_TRIED_REVISION: None,
        ANNOTATION_RESTART_AT: None,
        ANNOTATION_TEMPLATE: '{"image":"shard:1","labels":{"team":"x"}}',
    }


def test_the_next_range_waits_while_one_is_in_a_hand_over_or_not_up():
    first, second = layout()
    changed = builders.with_spec(first, revision=revision(NEW.spec))
    assert patches(plan(NEW, [changed, second])) == []
    new_pods = [builders.pod("pod-0", of=changed, revision=revision(NEW.spec)), builders.pod("pod-2", of=second)]
    (patch,) = patches(plan(NEW, [changed, second], new_pods))
    assert patch.base.spec.first == 2
    down = builders.with_status(changed, shards=(builders.row(0), builders.row(1, ShardState.RESUMING)))
    assert patches(plan(NEW, [down, second], new_pods)) == []


def test_a_failed_revision_stops_the_rollout_and_the_next_one_begins_where_it_failed():
    first, second = layout()
    annotations = {ANNOTATION_FAILED_REVISION: revision(NEW.spec)}
    meta = msgspec.structs.replace(first.metadata, annotations=annotations)
    failed = msgspec.structs.replace(builders.with_spec(first, revision=revision(NEW.spec)), metadata=meta)
    assert patches(plan(NEW, [failed, second])) == []
    newer = builders.gateway(pod=PodTemplate(labels={"team": "y"}))
    (patch,) = patches(plan(newer, [failed, second]))
    assert patch.base.spec.first == 0


def test_ranges_without_a_ready_shard_change_all_at_once():
    waiting = [builders.with_status(of, shards=()) for of in layout()]
    assert len(patches(plan(NEW, waiting))) == 2


def test_a_range_that_is_down_changes_before_those_that_are_up():
    first, second = layout()
    down = builders.with_status(second, shards=(builders.row(2), builders.row(3, ShardState.RESUMING)))
    (patch,) = patches(plan(NEW, [first, down]))
    assert patch.base.spec.first == 2


INTENTS = builders.gateway(intents=("GUILDS",), sinks=(builders.Sink("out", stdout=StdoutSink()),))


def budget(remaining=900, **changes):
    given = {"total": 1000, "remaining": remaining, "reserve": 100, "short": 0, "reset_time": builders.NOW}
    return BudgetVerdict(**(given | changes))


def test_other_intents_come_to_one_range_at_a_time_by_a_hand_over():
    (patch,) = patches(plan(INTENTS, layout(), budget=budget()))
    assert patch.base.spec.first == 0
    assert patch.spec.config.intents == 1
    assert patch.spec.config.identity != builders.config().identity
    assert patch.spec.config.sinks == INTENTS.spec.sinks
    many = builders.gateway(intents=("GUILDS",), rollout=Rollout(max_parallel=9))
    assert len(patches(plan(many, layout(), budget=budget()))) == 1


def progressing(made):
    one = next(one for one in made.said if one.type == "Progressing")
    return one.status, one.reason, one.message


def test_a_rollout_of_other_intents_does_not_begin_where_the_budget_does_not_reach():
    made = plan(INTENTS, layout(), budget=budget(103))
    assert patches(made) == []
    status, reason, message = progressing(made)
    assert (status, reason) == ("False", "WaitingForBudget")
    assert "take 4 identifies, and 3 may be granted: 103 of 1000 are left, 100 in reserve" in message
    assert f"full again at {builders.NOW}" in message
    said = {one.type.value: one for one in made.said}
    assert said["IdentifyBudget"].status == "False"
    assert said["Ready"].status == "True"
    assert len(patches(plan(INTENTS, layout(), budget=budget(104)))) == 1


def test_a_rollout_that_never_fits_says_what_to_do():
    made = plan(INTENTS, layout(), budget=budget(100, total=103))
    assert "lower spec.identify.reservePercent" in progressing(made)[2]


def test_a_rollout_of_other_intents_waits_for_discords_first_word():
    assert patches(plan(INTENTS, layout(), budget=None)) == []


def test_what_takes_no_identify_does_not_wait_for_the_budget():
    assert len(patches(plan(NEW, layout(), budget=budget(100)))) == 1


def reidentifying(of, first, *rows):
    """A range that runs what `of` asks for; its sessions are given."""
    config = shard_config(of, gateway_url=builders.config().gateway_url, ranges=2)
    ranged = builders.with_spec(layout()[first // 2], revision=revision(of.spec), config=config)
    return builders.with_status(ranged, shards=rows)


def test_the_next_range_waits_until_the_last_ones_sessions_are_renewed():
    second = layout()[1]
    renewing = reidentifying(INTENTS, 0, builders.row(0, intents=1), builders.row(1))
    new = builders.pod("pod-0", of=renewing, revision=revision(INTENTS.spec))
    its_pods = [new, builders.pod("pod-2", of=second)]
    assert patches(plan(INTENTS, [renewing, second], its_pods, budget=budget())) == []
    done = reidentifying(INTENTS, 0, builders.row(0, intents=1), builders.row(1, intents=1))
    (patch,) = patches(plan(INTENTS, [done, second], its_pods, budget=budget(102)))
    assert patch.base.spec.first == 2


def test_a_refused_renewal_stops_the_rollout_and_the_next_revision_begins_there():
    second = layout()[1]
    refused = reidentifying(INTENTS, 0, builders.row(0, refused=4014), builders.row(1))
    its_pods = [builders.pod("pod-0", of=refused, revision=revision(INTENTS.spec)), builders.pod("pod-2", of=second)]
    assert patches(plan(INTENTS, [refused, second], its_pods, budget=budget())) == []
    (back,) = patches(plan(builders.GATEWAY_OBJECT, [refused, second], its_pods, budget=budget(0)))
    assert back.base.spec.first == 0
    assert back.spec.config.intents == builders.INTENTS


def test_ranges_of_an_older_operator_are_told_apart_by_what_they_were_rendered_with():
    assert builders.config().identity == ""
    presence = builders.gateway(presence={"status": "idle"})
    (patch,) = patches(plan(presence, layout(), budget=budget()))
    assert patch.spec.config.identity


# --- pausing, restarting, in parallel


def test_a_paused_gateway_is_only_reported():
    paused = builders.gateway(paused=True, intents=("GUILDS",))
    made = plan(paused, [layout()[0]])
    assert {type(action).__name__ for action in flat(made)} <= {"WriteStatus", "Announce"}
    assert made.wanted.paused
    assert progressing(made)[:2] == ("False", "Paused")


def test_the_emergency_stop_works_while_paused():
    ranges, answer = layout(), builders.answer(max_concurrency=16)
    stopped = patches(plan(builders.gateway(paused=True, identify=Identify(hold=True)), ranges, answer=answer))
    assert [patch.spec for patch in stopped] == [msgspec.structs.replace(one.spec, hold=True) for one in ranges]
    paused = builders.gateway(paused=True)
    assert len(patches(plan(paused, ranges, refused="4004"))) == 2
    held = budget(50, held=frozenset({builders.key(2, 3)}))
    assert [patch.base.spec.first for patch in patches(plan(paused, ranges, budget=held))] == [2]
    assert patches(plan(paused, layout(hold=True), budget=budget())) == [], "nothing is released"


def restarted(text):
    of = builders.gateway(status=GatewayStatus(image="shard:0"))
    meta = msgspec.structs.replace(of.metadata, annotations={"shardwright.dev/restart-at": text, "other": "x"})
    return msgspec.structs.replace(of, metadata=meta)


def test_a_restart_rolls_every_range_to_the_operators_present_image():
    of = restarted("now")
    made = plan(of, layout())
    (patch,) = patches(made)
    assert patch.spec.revision == made.wanted.revision == revision(of.spec, "now") != revision(of.spec)
    assert patch.annotations[ANNOTATION_RESTART_AT] == "now"
    assert made.wanted.image == "shard:1"


def test_once_rolled_the_image_is_pinned_again():
    of = restarted("now")
    marked = layout(annotations={"shardwright.dev/restart-at": "now"})
    rolled = [builders.with_spec(one, revision=revision(of.spec, "now")) for one in marked]
    its_pods = [builders.pod(f"pod-{one.spec.first}", of=one, revision=one.spec.revision) for one in rolled]
    made = plan(of, rolled, its_pods)
    assert patches(made) == []
    assert made.wanted.image == "shard:0"


def test_an_image_that_the_user_names_wins_over_a_restart():
    of = restarted("now")
    named = msgspec.structs.replace(of, spec=msgspec.structs.replace(of.spec, pod=PodTemplate(image="mine")))
    assert plan(named, layout()).wanted.image == "mine"


def test_other_annotations_change_nothing():
    of = builders.gateway()
    meta = msgspec.structs.replace(of.metadata, annotations={"kubectl.kubernetes.io/restartedAt": "now"})
    assert plan(msgspec.structs.replace(of, metadata=meta)).wanted.revision == revision(of.spec)


def parallel(number, **spec):
    return builders.gateway(pod=PodTemplate(labels={"team": "x"}), rollout=Rollout(max_parallel=number), **spec)


def test_as_many_ranges_change_at_once_as_the_rollout_says():
    of = parallel(2, shards=Shards(count=8, per_pod=2))
    ranges = layout(4, total=8)
    assert [one.base.spec.first for one in patches(plan(of, ranges))] == [0, 2]
    moving = [builders.with_spec(ranges[0], revision=revision(of.spec)), *ranges[1:]]
    assert [one.base.spec.first for one in patches(plan(of, moving))] == [2]
    node = frozenset({builders.key(6, 7, 8)})
    leaving = patches(plan(of, moving, handed_over=node))
    assert [one.base.spec.first for one in leaving] == [6], "one that leaves its node takes the revision along"


def test_a_pod_that_does_not_get_ready_stops_the_rollout():
    of = parallel(3, shards=Shards(count=8, per_pod=2))
    ranges = layout(4, total=8)
    moving = [builders.with_spec(ranges[0], revision=revision(of.spec)), *ranges[1:]]
    assert len(patches(plan(of, moving))) == 2
    assert patches(plan(of, moving, stalled=frozenset({builders.key(0, 1, 8)}))) == []


def blips(of):
    """Nobody holds this range for a moment."""
    return builders.with_status(of, holder="")


def test_a_range_that_blips_does_not_get_a_revision_that_is_not_proven_elsewhere():
    (first, second), rev = layout(), revision(NEW.spec)
    rolled = builders.with_spec(first, revision=rev)
    annotated = msgspec.structs.replace(rolled.metadata, annotations={ANNOTATION_FAILED_REVISION: rev})
    failed = msgspec.structs.replace(rolled, metadata=annotated)
    old, new = pods(first, second), [builders.pod("pod-0", of=rolled, revision=rev), *pods(second)]
    assert patches(plan(NEW, [failed, blips(second)], old)) == []
    down = builders.with_status(rolled, shards=(builders.row(0), builders.row(1, ShardState.RESUMING)))
    assert patches(plan(NEW, [down, blips(second)], new)) == []
    assert patches(plan(NEW, [rolled, blips(second)], new, stalled=frozenset({builders.key()}))) == []


@pytest.mark.parametrize("refused", [None, 4014])
def test_a_range_that_blips_does_not_get_an_identity_that_is_not_proven_elsewhere(refused):
    second = layout()[1]
    renewing = reidentifying(INTENTS, 0, builders.row(0, refused=refused), builders.row(1))
    its_pods = [builders.pod("pod-0", of=renewing, revision=revision(INTENTS.spec)), *pods(second)]
    assert patches(plan(INTENTS, [renewing, blips(second)], its_pods, budget=budget())) == []


def test_an_identity_that_comes_in_mid_rollout_goes_to_one_range_alone():
    of = parallel(3, shards=Shards(count=8, per_pod=2), intents=("GUILDS",))
    ranges, changed = layout(4, total=8), []
    its_pods = pods(*ranges)
    ranges = [builders.with_spec(one, revision="mid") if one.spec.first < 6 else one for one in ranges]
    for _ in range(4):
        specs = {patch.base.spec.first: patch.spec for patch in patches(plan(of, ranges, its_pods, budget=budget()))}
        changed += specs
        ranges = [msgspec.structs.replace(one, spec=specs.get(one.spec.first, one.spec)) for one in ranges]
    assert changed == [0]


def test_a_hand_over_off_a_node_that_stalls_takes_the_next_revision_as_its_cure():
    stalled = frozenset({builders.key(2, 3)})
    (patch,) = patches(plan(NEW, layout(), stalled=stalled, handed_over=stalled))
    assert patch.base.spec.first == 2


@pytest.mark.parametrize(("number", "available"), [(1, 3), (2, 2), (4, 0), (9, 0)])
def test_the_disruption_budget_leaves_room_for_parallel_hand_overs(number, available):
    made = plan(parallel(number, shards=Shards(count=8, per_pod=2)), layout(4, total=8))
    (body,) = [one.body for one in flat(made) if isinstance(one, Apply) and one.resource is BUDGETS]
    assert body["spec"]["minAvailable"] == available


def test_ranges_that_the_budget_no_longer_covers_are_on_hold_alone():
    second = builders.key(2, 3)
    (patch,) = patches(plan(ranges=layout(), budget=budget(50, held=frozenset({second}))))
    assert (patch.base.spec.first, patch.spec.hold) == (2, True)
    held = [layout()[0], builders.with_spec(layout()[1], hold=True)]
    assert patches(plan(ranges=held, budget=budget(50, held=frozenset({second})))) == []
    (lifted,) = patches(plan(ranges=held, budget=budget()))
    assert (lifted.base.spec.first, lifted.spec.hold) == (2, False)
    assert patches(plan(ranges=held, budget=None)) == [], "what stands there stands until the budget is known"


def test_a_range_that_discord_refused_for_its_intents_takes_the_new_ones():
    row = builders.row(0, ShardState.PARKED, session=None, close=int(CloseCode.DISALLOWED_INTENTS))
    refused = builders.with_status(layout(1)[0], shards=(row, builders.row(1)))
    (patch,) = patches(plan(INTENTS, [refused, layout()[1]]))
    assert patch.spec.config.intents == 1


def test_live_changes_leave_the_revision_alone():
    base = revision(builders.GATEWAY_OBJECT.spec)
    for live in (
        {"identify": Identify(reserve_percent=50)},
        {"shards": Shards(count=8)},
        {"transport": Transport(api_url="http://elsewhere")},
    ):
        assert revision(builders.gateway(**live).spec) == base
    for moving in (
        {"transport": Transport(compression=Compression.NONE)},
        {"pod": PodTemplate(image="other")},
        {"intents": ("GUILDS",)},
        {"large_threshold": 100},
        {"presence": {"status": "idle"}},
    ):
        assert revision(builders.gateway(**moving).spec) != base


@pytest.mark.parametrize("defaults", [{}, {"memory": "64Mi"}, {"memory": "64Mi", "disk": "1Gi"}])
def test_defaults_that_the_api_server_adds_leave_the_revision_alone(defaults):
    stored = to_wire(builders.GATEWAY_OBJECT.spec)
    upgraded = stored | {"buffer": defaults, "rollout": {"maxParallel": 1}, "paused": False}
    read = [msgspec.json.decode(msgspec.json.encode(one), type=GatewaySpec) for one in (stored, upgraded)]
    assert revision(read[0]) == revision(read[1])
    other = msgspec.json.decode(msgspec.json.encode(stored | {"buffer": {"disk": "2Gi"}}), type=GatewaySpec)
    assert revision(other) != revision(read[0])


def test_the_image_is_pinned_at_first_sight():
    assert plan().wanted.image == "shard:1"
    pinned = builders.gateway(status=GatewayStatus(image="shard:0"))
    assert plan(pinned).wanted.image == "shard:0"
    named = builders.gateway(status=GatewayStatus(image="shard:0"), pod=PodTemplate(image="mine"))
    assert plan(named).wanted.image == "mine"


def test_the_token_of_another_bot_holds_everything():
    other = TokenState(builders.token_state().token, "42", "200")
    made = plan(ranges=layout(), token=other)
    assert [patch.spec.hold for patch in patches(made)] == [True, True]
    assert not made.wanted.create_pods
