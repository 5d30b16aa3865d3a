"""What the conditions say, and when the status is written."""

from dataclasses import replace

import msgspec
import pytest

from shardwright_api.resources import (
    Condition,
    ConditionType,
    Gap,
    GatewayStatus,
    Identify,
    Shards,
    ShardState,
    ShardTotals,
    SinkStatus,
)
from shardwright_operator.actions import Announce, WriteStatus
from shardwright_operator.asker import NOT_ASKED, Answer
from shardwright_operator.conditions import Facts, Said, judge, merge
from shardwright_operator.events import EventReason
from shardwright_operator.keys import GatewayKey
from shardwright_operator.observed import BudgetVerdict
from shardwright_operator.plan_gateway import plan_gateway
from shardwright_operator.render import shard_config
from shardwright_operator.silence import Freshness
from shardwright_operator.status import moved
from shardwright_operator.sums import ANNOTATION_FAILED_REVISION
from shardwright_operator.tokens import TokenProblem, TokenState
from unit.operator import builders

BUDGET = BudgetVerdict(total=1000, remaining=900, reserve=100, short=0, reset_time=builders.NOW)


def served():
    ranges, pods = [], []
    for first in (0, 2):
        of = builders.with_spec(builders.serving(first, first + 1), active_pod=f"pod-{first}")
        ranges.append(builders.with_status(of, holder=f"pod-{first}", sinks=(SinkStatus("events", available=True),)))
        pods.append(builders.pod(f"pod-{first}", of=of))
    return ranges, pods


def said(of=None, ranges=None, pods=None, **changes):
    """Give the conditions that the planner writes, by type."""
    given_ranges, given_pods = served()
    ranges = given_ranges if ranges is None else ranges
    changes.setdefault("budget", BUDGET)
    not_up = frozenset(builders.gateway_seen(of, ranges, given_pods).totals.not_up)
    changes.setdefault("down", not_up)
    seen = builders.gateway_seen(of, ranges, given_pods if pods is None else pods, **changes)
    return {one.type.value: (one.status, one.reason, one.message) for one in plan_gateway(seen).said}


def with_ready(status="True", reason="Ready"):
    condition = Condition(ConditionType.READY.value, status, reason, "", 1, builders.NOW)
    return builders.gateway(status=GatewayStatus(conditions=(condition,)))


def test_when_all_is_well_everything_says_so():
    found = {kind: (status, reason) for kind, (status, reason, _) in said().items()}
    assert found == {
        "Ready": ("True", "Ready"),
        "Progressing": ("True", "Complete"),
        "Degraded": ("False", "AsExpected"),
        "TokenValid": ("True", "Accepted"),
        "IntentsAllowed": ("True", "Accepted"),
        "SinksAvailable": ("True", "Available"),
        "IdentifyBudget": ("True", "Available"),
    }


def changed(number, **status):
    ranges, _ = served()
    ranges[number] = builders.with_status(ranges[number], **status)
    return ranges


def parked(code, intents=("GUILDS", "GUILD_MEMBERS"), **spec):
    row = builders.row(0, ShardState.PARKED, session=None, close=code, message="closed")
    return {"of": builders.gateway(intents=intents, **spec), "ranges": changed(0, shards=(row,))}


READY = [
    ({"rival": GatewayKey("elsewhere", "its")}, "BotInUse", "belongs to DiscordGateway its in namespace elsewhere"),
    ({"token": TokenState(problem=TokenProblem.SECRET_NOT_FOUND, message="no Secret")}, "TokenInvalid", "no Secret"),
    ({"refused": "Discord's gateway refuses the token (4004) on shard 0"}, "TokenInvalid", "4004"),
    (parked(4014), "IntentsDisallowed", "GUILD_MEMBERS"),
    (parked(4013, intent_bits=1 << 40), "IntentsInvalid", "bits 40"),
    (parked(4010), "InvalidShard", "Discord refuses the shard count 4 (4010)"),
    (parked(4011), "ShardingRequired", "larger, or left out"),
    (parked(4012), "RefusedByDiscord", "closed"),
    (
        {"ranges": changed(0, sinks=(SinkStatus("events", available=False, message="no stream"),))},
        "SinkUnavailable",
        "events: no stream",
    ),
    (
        {"of": builders.gateway(identify=Identify(hold=True)), "ranges": changed(0, shards=())},
        "OnHold",
        "spec.identify.hold",
    ),
    (
        {"budget": replace(BUDGET, remaining=100, short=3), "ranges": changed(0, shards=())},
        "WaitingForBudget",
        "full again at",
    ),
    ({"ranges": changed(0, shards=())}, "Starting", "2 of 4 shards are ready; ShardRange mybot-4-0-1"),
    ({"of": with_ready(), "ranges": changed(0, shards=())}, "Degraded", "2 of 4 shards are ready"),
    ({"of": with_ready("False", "Degraded"), "ranges": changed(0, shards=())}, "Degraded", "2 of 4"),
    ({"ranges": [], "answer": NOT_ASKED}, "Starting", "not been asked"),
    ({"ranges": [], "answer": Answer(trouble="no answer")}, "DiscordUnreachable", "no answer"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "reason", "words"), READY)
def test_the_first_obstacle_is_the_reason_of_not_being_ready(changes, reason, words):
    status, found, message = said(**changes)["Ready"]
    assert (status, found) == ("False", reason)
    assert words in message


@pytest.mark.parametrize(
    "change",
    [
        {"holder": "pod-b"},
        {"holder": ""},
        {"shards": (builders.row(0),)},
        {"shards": (builders.row(0), builders.row(1, ShardState.RESUMING))},
    ],
)
def test_ready_needs_every_shard_of_every_range_held_by_its_active_pod(change):
    assert said(ranges=changed(0, **change))["Ready"][0] == "False"


def test_ready_needs_the_holders_to_be_heard():
    ranges, pods = served()
    down = frozenset(builders.gateway_seen(None, ranges, pods, freshness=Freshness.SILENT).totals.not_up)
    assert said(ranges=ranges, pods=pods, freshness=Freshness.SILENT, down=down)["Ready"][0] == "False"


def test_a_pod_whose_container_is_not_ready_is_not_ready():
    ranges, pods = served()
    pods[0] = builders.pod("pod-0", of=ranges[0], ready=False)
    down = frozenset(builders.gateway_seen(None, ranges, pods).totals.not_up)
    assert down == {builders.key()}


def test_an_operator_that_came_up_anew_lets_stand_what_it_has_not_heard_about():
    for before in (with_ready(), with_ready("False", "Starting")):
        status, reason, _ = said(before, freshness=Freshness.UNHEARD)["Ready"]
        assert (status, reason) == (before.status.conditions[0].status, before.status.conditions[0].reason)
    assert said(freshness=Freshness.UNHEARD)["Ready"][:2] == ("False", "Starting")


def test_a_token_that_was_good_stays_so_while_discord_cannot_be_asked():
    condition = Condition(ConditionType.TOKEN_VALID.value, "True", "Accepted", "", 1, builders.NOW)
    of = builders.gateway(status=GatewayStatus(conditions=(condition,)))
    assert said(of, answer=NOT_ASKED)["TokenValid"][0] == "True"
    assert said(of, answer=Answer(trouble="no answer"))["TokenValid"][0] == "True"


def test_a_moments_reconnect_does_not_end_readiness():
    assert said(with_ready(), changed(0, shards=()), down=frozenset())["Ready"][0] == "True"


def test_a_refused_layout_is_degraded_and_still_ready():
    found = said(builders.gateway(shards=Shards(count=8)))
    assert found["Degraded"][:2] == ("True", "ReshardingNotSupported")
    assert found["Ready"][0] == "True"
    assert said(builders.gateway(shards=Shards(count=None, per_pod=2)))["Degraded"][0] == "False"
    assert "perPod is 3" in said(builders.gateway(shards=Shards(count=4, per_pod=3)))["Degraded"][2]


def test_progress_that_is_stuck_is_said():
    ranges, _ = served()
    meta = msgspec.structs.replace(ranges[0].metadata, annotations={ANNOTATION_FAILED_REVISION: builders.REVISION})
    failed = [msgspec.structs.replace(ranges[0], metadata=meta), ranges[1]]
    assert said(ranges=failed)["Progressing"][:2] == ("False", "HandOverFailed")
    assert said(stalled=frozenset({builders.key()}))["Progressing"][:2] == ("False", "HandOverStalled")
    assert said(troubles={builders.key(): "quota"})["Progressing"][:2] == ("False", "PodRefused")


def renewing(refused=None, code=4014):
    """Ranges that run the wanted revision; the first shard's session still has the old intents."""
    of = builders.gateway(intents=("GUILDS", "GUILD_MEMBERS"))
    config = shard_config(of, gateway_url=builders.config().gateway_url, ranges=2)
    ranges = [builders.with_spec(one, revision=builders.revision(of.spec), config=config) for one in served()[0]]
    rows = [tuple(builders.row(row.id, intents=config.intents) for row in one.status.shards) for one in ranges]
    rows[0] = (builders.row(0, refused=refused), builders.row(1, intents=config.intents))
    ranges = [builders.with_status(one, shards=each) for one, each in zip(ranges, rows, strict=True)]
    pods = [builders.pod(one.spec.active_pod, of=one, revision=one.spec.revision) for one in ranges]
    return {"of": of, "ranges": ranges, "pods": pods}


def test_sessions_that_are_to_be_renewed_are_progress():
    found = said(**renewing())
    assert found["Progressing"][:2] == ("True", "RollingOut")
    assert "1 sessions are to be renewed" in found["Progressing"][2]
    assert found["Ready"][0] == "True"


def test_a_refused_renewal_names_the_intents_and_the_gateway_stays_ready():
    found = said(**renewing(refused=4014))
    assert found["IntentsAllowed"][:2] == ("False", "IntentsDisallowed")
    assert "GUILD_MEMBERS" in found["IntentsAllowed"][2]
    assert found["Progressing"][:2] == ("False", "RenewalRefused")
    assert found["Degraded"][:2] == ("True", "RenewalRefused")
    assert found["Ready"][0] == "True"


def test_a_renewal_that_waits_for_the_budget_does_not_end_readiness():
    found = said(**renewing(), budget=replace(BUDGET, remaining=100, short=1))
    assert found["IdentifyBudget"][0] == "False"
    assert found["Ready"][0] == "True"


def test_a_pause_is_said_and_everything_else_goes_on_being_judged():
    found = said(builders.gateway(paused=True), changed(0, shards=()))
    assert found["Progressing"][:2] == ("False", "Paused")
    assert found["Ready"][:2] == ("False", "Starting")


def test_what_a_hand_over_waits_for_is_said():
    found = said(waiting={builders.key(): "sink 'events' is away"})
    assert found["Progressing"][1:] == (
        "HandOverWaits", "the hand-over of ShardRange mybot-4-0-1 waits: sink 'events' is away",
    )  # fmt: skip


def test_children_and_pods_that_the_api_server_refuses_degrade():
    assert said(trouble="403 Forbidden: quota")["Degraded"] == (
        "True", "ChildRefused", "what the pods need cannot be made: 403 Forbidden: quota",
    )  # fmt: skip
    assert said(troubles={builders.key(): "no claims here"})["Degraded"][:2] == ("True", "PodRefused")


def test_a_gap_that_is_not_told_degrades():
    gap = Gap("lost", 7, builders.NOW)
    assert said(ranges=changed(0, shards=(builders.row(0, gap=gap), builders.row(1))))["Degraded"][:2] == (
        "True", "GapsUntold",
    )  # fmt: skip


def test_a_budget_that_was_spent_elsewhere_is_said():
    _, reason, message = said(budget=replace(BUDGET, remaining=50, held=frozenset({builders.key()})))["IdentifyBudget"]
    assert reason == "BudgetOverdrawn"
    assert "1 ranges are on hold" in message


def test_a_transition_keeps_its_time_while_the_status_stays():
    before = (Condition("Ready", "False", "Starting", "", 1, "then"),)
    same = merge(before, (Said(ConditionType.READY, "False", "Degraded", "x"),), generation=2, now="now")
    assert same == (Condition("Ready", "False", "Degraded", "x", 2, "then"),)
    turned = merge(before, (Said(ConditionType.READY, "True", "Ready"),), generation=2, now="now")
    assert turned[0].last_transition_time == "now"


def written(of=None, ranges=None, **changes):
    given_ranges, pods = served()
    changes.setdefault("budget", BUDGET)
    seen = builders.gateway_seen(of, given_ranges if ranges is None else ranges, pods, children_due=False, **changes)
    return [action.status for action in plan_gateway(seen).actions if isinstance(action, WriteStatus)]


def test_gauges_are_written_when_due_or_when_they_moved_by_a_tenth():
    (status,) = written()
    assert status.shards == ShardTotals(total=4, ready=4, by_state={"ready": 4})
    of = builders.gateway(status=status)
    assert written(of, gauges_due=False) == []

    def guilds(number):
        return changed(0, shards=tuple(builders.row(shard, guilds=number) for shard in (0, 1)))

    (grown,) = written(of, guilds(50), gauges_due=False)
    assert grown.guilds == 100
    of = builders.gateway(status=grown)
    assert written(of, guilds(54), gauges_due=False) == []
    assert written(of, guilds(54), gauges_due=True)[0].guilds == 108
    assert written(of, guilds(56), gauges_due=False)[0].guilds == 112


def test_conditions_are_written_at_once_with_all_gauges():
    (status,) = written()
    (now,) = written(
        builders.gateway(status=status), changed(0, shards=()), down=frozenset({builders.key()}), gauges_due=False
    )
    assert now.phase == "Degraded"
    assert now.shards.ready == 2


def test_moved_means_more_than_a_tenth():
    assert not moved(100, 110)
    assert moved(100, 111)
    assert moved(None, 1)
    assert not moved(None, None)
    assert moved(0, 1)


def test_a_condition_that_turns_is_announced_once():
    seen = builders.gateway_seen(None, *served(), budget=BUDGET)
    plan = plan_gateway(seen)
    reasons = [action.announcement.reason for action in plan.actions if isinstance(action, Announce)]
    assert reasons == [EventReason.READY, EventReason.TOKEN_VALID]
    (status,) = written()
    again = builders.gateway_seen(builders.gateway(status=status), *served(), budget=BUDGET)
    assert [action for action in plan_gateway(again).actions if isinstance(action, Announce)] == []


def test_every_condition_carries_the_generation():
    (status,) = written(builders.gateway(generation=7))
    assert status.observed_generation == 7
    assert {one.observed_generation for one in status.conditions} == {7}
    assert {one.type for one in status.conditions} == {kind.value for kind in ConditionType}


def test_the_order_of_judging_begins_with_ready():
    assert judge(builders.gateway_seen(), Facts())[0].type is ConditionType.READY
