"""Each row of the hand-over table, by an example; and what the pods of a parked range go through."""

import msgspec
import pytest

from shardwright_api.resources import Buffer, Gap, ShardState, SinkStatus, StandbyStatus, VolumeClaim
from shardwright_operator.actions import Announce, Create, DeletePod, PatchRange
from shardwright_operator.kube import CLAIMS, PODS
from shardwright_operator.plan_range import TABLE, held_back, launch_pace, lost_session, plan_range
from shardwright_operator.sums import (
    ANNOTATION_FAILED_REVISION,
    ANNOTATION_PARKED_CODE,
    ANNOTATION_PARKED_GENERATION,
    ANNOTATION_PARKED_REVISION,
    ANNOTATION_PARKED_SECRET,
    ANNOTATION_TRIED_REVISION,
    PARKED_ANNOTATIONS,
)
from unit.operator import builders
from unit.operator.world import World

A, B = "pod-a", "pod-b"
STANDS_BY = {B: StandbyStatus(builders.NOW, sinks_available=True)}


def rolling(**status):
    """A range that pod A serves with an old revision."""
    return builders.with_status(builders.serving(revision="new"), **status)


def pods(*, new=True, **of_b):
    old = builders.pod(A)
    return [old, builders.pod(B, incarnation=2, revision="new", **of_b)] if new else [old]


def parked(code=4014, annotations=None, **spec):
    row = builders.row(0, ShardState.PARKED, session=None, close=code, message="no")
    of = builders.shard_range(active_pod=A, incarnation=1, identify_grant=1, annotations=annotations, **spec)
    return builders.with_status(of, holder=A, identifies_spent=1, shards=(row,))


noted = dict.fromkeys(PARKED_ANNOTATIONS, "1") | {ANNOTATION_PARKED_CODE: "4004"}
deleted = msgspec.structs.replace(builders.serving().metadata, deletion_timestamp=builders.NOW)
EXAMPLES = {
    "the range or its gateway is being deleted": (
        msgspec.structs.replace(builders.serving(), metadata=deleted), [], {},
    ),
    "Discord refused a shard: note with which token and revision": (parked(), [builders.pod()], {}),
    "Discord no longer refuses: forget it": (builders.serving(annotations=noted), [builders.pod()], {}),
    "the gateway is paused, and its pod holds the range": (rolling(), pods(), {"wanted": builders.wanted(paused=True)}),
    "the active pod ends, and holds on until another stands by": (
        builders.serving(), [builders.pod(terminating=True), builders.pod(B, incarnation=2)], {},
    ),
    "the active pod is lost, another could work": (builders.serving(), [builders.pod(B, incarnation=2)], {}),
    "the active pod is lost, none may be made": (builders.serving(), [], {"wanted": builders.wanted(create_pods=False)}),
    "the active pod is lost, and the last ones did not come up either: wait": (builders.serving(), [], {"launch_in": 5.0}),
    "the active pod is lost, or there was none yet": (builders.shard_range(), [], {}),
    "the old holder is dead: wait for our turn to fence": (
        builders.with_status(builders.serving(), holder="gone"), [builders.pod()], {"silent": True, "may_fence": False},
    ),
    "the old holder is dead": (builders.with_status(builders.serving(), holder="gone"), [builders.pod()], {"silent": True}),
    "pods are left over": (builders.serving(), [builders.pod(), builders.pod(B, incarnation=2)], {}),
    "the new pod has its chance to come up": (
        builders.with_spec(rolling(holder=""), active_pod=B), pods(), {"released_for": 9.9},
    ),
    "the new pod did not come up: its predecessor takes the range back": (
        builders.with_spec(rolling(holder=""), active_pod=B), pods(), {"released_for": 10.0},
    ),
    "the hand-over is not over": (builders.with_spec(rolling(), active_pod=B), pods(), {}),
    "the hand-over was taken back: it is tried once more": (
        builders.serving(revision="new", annotations={ANNOTATION_TRIED_REVISION: "new"}), pods(), {"tried_for": 29.9},
    ),
    "the replacement stands by": (rolling(standby=STANDS_BY), pods(), {}),
    "the replacement gets ready": (rolling(), pods(), {}),
    "the active pod is outdated, none may be made": (rolling(), pods(new=False), {"wanted": builders.wanted(create_pods=False)}),
    "the active pod is outdated, and events wait in it": (rolling(spool_bytes=5), pods(new=False), {}),
    "the active pod is outdated, and must wait for its turn": (rolling(), pods(new=False), {"replace_in": 5.0}),
    "the active pod is outdated": (rolling(), pods(new=False), {}),
    "all is well": (builders.serving(), [builders.pod()], {}),
}  # fmt: skip


def test_every_row_has_an_example():
    assert set(EXAMPLES) == {row.name for row in TABLE}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_row_applies_to_its_example(name):
    of, its_pods, more = EXAMPLES[name]
    assert plan_range(builders.range_seen(of, its_pods, **more)).row == name


def does(name):
    of, its_pods, more = EXAMPLES[name]
    plan = plan_range(builders.range_seen(of, its_pods, **more))
    return [action for action in plan.actions if not isinstance(action, Announce)]


def test_the_incarnation_is_raised_before_its_pod_is_made():
    raise_it, make = does("the active pod is outdated")
    assert isinstance(raise_it, PatchRange)
    assert raise_it.spec.incarnation == 2
    assert isinstance(make, Create)
    assert make.body["metadata"]["name"] == "mybot-4-0-1-range-ui-2"


def test_another_active_pod_is_another_epoch():
    (patch,) = does("the replacement stands by")
    assert (patch.spec.active_pod, patch.spec.epoch) == (B, 2)


def test_taking_back_notes_the_revision_that_failed():
    (patch,) = does("the new pod did not come up: its predecessor takes the range back")
    assert (patch.spec.active_pod, patch.spec.epoch) == (A, 2)
    assert patch.annotations == {ANNOTATION_TRIED_REVISION: "new"}
    again = builders.serving(active_pod=B, revision="new", annotations={ANNOTATION_TRIED_REVISION: "new"})
    patch = plan(builders.with_status(again, holder=""), pods(), released_for=10.0).actions[0]
    assert patch.annotations == {ANNOTATION_FAILED_REVISION: "new"}


def test_a_fence_names_the_old_holder():
    (patch,) = does("the old holder is dead")
    assert patch.fences
    assert patch.spec.fenced_holder == "gone"


def test_a_pod_that_was_fenced_once_and_is_named_active_again_must_be_waited_for_again():
    of = builders.with_spec(rolling(holder=""), active_pod=B, fenced_holder=A)
    patch = plan(of, pods(), released_for=10.0).actions[0]
    assert (patch.spec.active_pod, patch.spec.fenced_holder, patch.fences) == (A, "", False)


def test_a_fenced_holder_that_came_to_life_is_not_kept_instead_of_the_replacement():
    of = builders.with_spec(rolling(), active_pod=B, fenced_holder=A)
    fresh = builders.pod("pod-c", incarnation=3, revision="new")
    its_pods = [builders.pod(A, looping=True), builders.pod(B, incarnation=2, phase="Pending"), fresh]
    made = plan(of, its_pods)
    assert made.row == "pods are left over"
    assert DeletePod(fresh) not in made.actions


def test_what_discord_refused_is_noted_with_what_ran():
    (patch,) = does("Discord refused a shard: note with which token and revision")
    assert patch.annotations == {
        ANNOTATION_PARKED_CODE: "4014",
        ANNOTATION_PARKED_SECRET: builders.SECRET_VERSION,
        ANNOTATION_PARKED_REVISION: builders.REVISION,
        ANNOTATION_PARKED_GENERATION: "1",
    }


def test_left_over_pods_are_deleted():
    assert does("pods are left over") == [DeletePod(builders.pod(B, incarnation=2))]


def plan(of, its_pods, **more):
    return plan_range(builders.range_seen(of, its_pods, **more))


def test_a_living_holder_is_never_fenced_however_silent():
    of = builders.with_spec(builders.serving(), active_pod=B)
    two = [builders.pod(A), builders.pod(B, incarnation=2)]
    assert plan(of, two, silent=True).row == "the hand-over is not over"
    assert plan(of, two, silent=True, lost=frozenset({A})).row == "the old holder is dead"


def test_a_holder_that_still_reports_is_not_fenced_though_its_pod_object_is_gone():
    of = builders.with_status(builders.serving(), holder="gone")
    assert plan(of, [builders.pod()]).row == "the hand-over is not over"


def test_the_active_pod_on_a_lost_node_is_replaced_once_it_is_silent():
    assert plan(builders.serving(), [builders.pod()], lost=frozenset({A})).row == "all is well"
    both = plan(builders.serving(), [builders.pod()], lost=frozenset({A}), silent=True)
    assert both.row == "the active pod is lost, or there was none yet"


def test_a_terminating_pod_has_its_successor_at_once():
    assert plan(builders.serving(), [builders.pod(terminating=True)]).row.startswith("the active pod is lost")


def test_a_crash_looping_pod_is_replaced_after_three_seconds_unless_parked():
    looping = [builders.pod(looping=True)]
    waiting = plan(builders.serving(), looping, crashed_for=1.0)
    assert (waiting.row, waiting.again_after) == ("all is well", 2.0)
    assert plan(builders.serving(), looping, crashed_for=3.0).row == "the active pod is lost, or there was none yet"
    assert plan(parked(annotations=noted), looping, crashed_for=60.0).row == "all is well"


def test_a_crash_looping_new_revision_is_taken_back():
    of = builders.with_spec(rolling(holder=""), active_pod=B)
    (patch, _) = plan(of, pods(looping=True), crashed_for=3.0).actions
    assert patch.spec.active_pod == A
    assert patch.annotations == {ANNOTATION_FAILED_REVISION: "new"}


def test_a_replacement_without_its_sinks_waits_unless_nothing_is_interrupted():
    away = {B: StandbyStatus(builders.NOW, sinks_available=False)}
    assert plan(rolling(standby=away), pods()).row == "the replacement gets ready"
    resumable = rolling(standby=away, shards=(builders.row(0, ShardState.CLOSED),))
    assert plan(resumable, pods()).row == "the replacement gets ready"
    idle = rolling(standby=away, shards=(builders.row(0, ShardState.WAITING, session=None),))
    assert plan(idle, pods()).row == "the replacement stands by"


def away(**status):
    return rolling(sinks=(SinkStatus("events", available=False),), **status)


@pytest.mark.parametrize(
    ("of", "why"),
    [
        (rolling(spool_bytes=5), "5 bytes are in its spool"),
        (away(), "sink 'events' is away"),
        (away(spool_bytes=5), "5 bytes are in its spool, and sink 'events' is away"),
    ],
)
def test_no_hand_over_begins_while_events_wait(of, why):
    seen = builders.range_seen(of, pods(new=False))
    assert plan_range(seen).row == "the active pod is outdated, and events wait in it"
    assert held_back(seen) == why
    assert held_back(builders.range_seen(of, pods())) == "", "one that has begun goes on"


def test_a_hand_over_whose_replacement_stands_by_does_not_begin_while_events_wait():
    seen = builders.range_seen(rolling(spool_bytes=5, standby=STANDS_BY), pods())
    assert plan_range(seen).row == "the active pod is outdated, and events wait in it"
    assert held_back(seen) == "5 bytes are in its spool"
    ending = [builders.pod(A, terminating=True), pods()[1]]
    assert plan(rolling(spool_bytes=5, standby=STANDS_BY), ending).row == "the active pod is lost, another could work"


def test_what_a_dead_holder_said_of_its_sinks_holds_nobody_back():
    of = builders.with_spec(away(spool_bytes=5), active_pod=B, fenced_holder=A)
    pending = builders.pod(B, incarnation=2, phase="Pending")
    assert plan(of, [pending], silent=True).row == "the active pod is outdated"


def test_a_change_of_sinks_or_buffer_begins_although_events_wait():
    of = away(spool_bytes=5)
    assert plan(of, [builders.pod(A, buffer="another")]).row == "the active pod is outdated"
    unknown = [builders.pod(A, buffer="")]
    assert plan(of, unknown).row == "the active pod is outdated, and events wait in it", "made by an older operator"


def test_a_sink_that_is_away_keeps_nobody_back_who_has_no_session():
    waiting = away(shards=(builders.row(0, ShardState.WAITING, session=None),))
    assert plan(waiting, pods(new=False)).row == "the active pod is outdated"


def test_a_claim_is_made_before_its_pod():
    spec = builders.gateway(buffer=Buffer(volume_claim=VolumeClaim("1Gi")))
    made = plan(builders.shard_range(), [], wanted=builders.wanted(spec)).actions
    assert [action.resource for action in made if isinstance(action, Create)] == [CLAIMS, PODS]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_paused_range_is_left_alone_while_it_is_held_and_no_pod_is_made_for_it(name):
    of, its_pods, more = EXAMPLES[name]
    actions = plan(of, its_pods, **(more | {"wanted": builders.wanted(paused=True)})).actions
    held = any(pod.usable and pod.uid == of.status.holder == of.spec.active_pod for pod in its_pods)
    assert not held or actions == ()
    assert not any(isinstance(action, Create) for action in actions)


def test_a_hand_over_that_is_paused_in_the_middle_is_taken_back():
    of = builders.with_spec(rolling(holder=""), active_pod=B)
    patch = plan(of, pods(), released_for=10.0, wanted=builders.wanted(paused=True)).actions[0]
    assert patch.spec.active_pod == A


def test_a_lost_pod_of_a_paused_range_is_succeeded_by_one_that_is_there():
    made = plan(rolling(), [pods()[1]], wanted=builders.wanted(paused=True))
    assert made.actions[0].spec.active_pod == B


# --- renewals that Discord refuses


def refusing(code=4014, **spec):
    config = builders.config(identity="new")
    of = builders.with_spec(builders.serving(**spec), config=config)
    rows = (builders.row(0, identity="old", refused=code), builders.row(1, identity="old"))
    return builders.with_status(of, shards=rows)


def test_a_refused_renewal_is_noted_once_and_its_pod_goes_on():
    (patch,) = [one for one in plan(refusing(), [builders.pod()]).actions if isinstance(one, PatchRange)]
    assert patch.annotations[ANNOTATION_PARKED_CODE] == "4014"
    assert plan(refusing(annotations=noted), [builders.pod()]).row == "all is well"


def test_a_container_that_forgot_the_refusal_does_not_undo_the_note():
    forgotten = builders.with_status(
        refusing(annotations=noted), shards=tuple(builders.row(shard, identity="old") for shard in (0, 1))
    )
    assert plan(forgotten, [builders.pod()]).row == "all is well"
    renewed = builders.with_status(
        refusing(annotations=noted), shards=tuple(builders.row(shard, identity="new") for shard in (0, 1))
    )
    assert plan(renewed, [builders.pod()]).row == "Discord no longer refuses: forget it"


def test_a_pod_whose_renewal_is_refused_is_replaced_when_it_crashes():
    of = refusing(annotations=noted)
    assert plan(of, [builders.pod(looping=True)], crashed_for=3.0).row.startswith("the active pod is lost")


def test_a_renewal_refused_for_the_token_is_mended_by_a_pod_with_the_new_secret():
    of = refusing(4004, annotations=noted)
    healed = builders.wanted(healed=True, secret_version="200")
    assert plan(of, [builders.pod()], wanted=healed).row == "the active pod is outdated"


# --- gaps


def test_a_gap_is_announced_on_the_gateway_with_what_is_known_of_it():
    seen = builders.range_seen(builders.serving(), [builders.pod()])
    announcement = lost_session(seen, 3, Gap("abc", 4711, builders.NOW)).announcement
    assert (announcement.kind, announcement.regarding.name) == ("DiscordGateway", "mybot")
    assert announcement.warning
    for word in ("Shard 3", "abc", "4711", builders.NOW):
        assert word in announcement.note


def test_a_failed_revision_is_left_alone():
    of = builders.serving(revision="new", annotations={ANNOTATION_FAILED_REVISION: "new"})
    assert plan(of, [builders.pod()]).row == "all is well"


def test_pods_of_a_range_that_does_not_come_up_are_made_ever_more_rarely():
    assert [launch_pace(number) for number in (0, 1, 2, 3, 20)] == [0.0, 0.0, 5.0, 10.0, 300.0]


def test_a_refused_token_is_mended_by_a_new_pod_with_the_new_secret():
    of = parked(4004, annotations=dict(noted))
    stays = builders.wanted(healed=False, secret_version="200")
    assert plan(of, [builders.pod()], wanted=stays).row == "all is well"
    healed = builders.wanted(healed=True, secret_version="200")
    made = plan(of, [builders.pod()], wanted=healed)
    assert made.row == "the active pod is outdated"
    fresh = [builders.pod(), builders.pod(B, incarnation=2, secret="200")]
    standing_by = builders.with_status(of, standby=STANDS_BY)
    assert plan(standing_by, fresh, wanted=healed).row == "the replacement stands by"


def test_a_changed_secret_moves_no_pod_that_has_a_session():
    changed = builders.wanted(secret_version="200")
    assert plan(builders.serving(), [builders.pod()], wanted=changed).row == "all is well"


def test_no_pod_is_made_for_a_range_of_a_gateway_that_is_being_deleted():
    going = msgspec.structs.replace(
        builders.GATEWAY_OBJECT,
        metadata=msgspec.structs.replace(builders.GATEWAY_OBJECT.metadata, deletion_timestamp=builders.NOW),
    )
    assert plan(builders.shard_range(), [], wanted=builders.wanted(going)).actions == ()


def test_a_hand_over_takes_few_steps():
    of = builders.serving()
    world = World(of, builders.wanted())
    world.add(builders.pod(A, of=of))
    world.write(builders.with_spec(world.range, revision="new"))
    rounds = 0
    while world.usable != ["made-1"]:
        world.round(0.1)
        rounds += 1
    assert rounds <= 6
    assert world.range.status.identifies_spent == of.status.identifies_spent
