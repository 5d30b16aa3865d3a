"""What breaks in the middle of a hand-over, row by row of the design's table: the range comes through, and nothing is spent."""

from dataclasses import replace

import pytest

from shardwright_api.resources import ShardState
from shardwright_operator.memory import Paces
from shardwright_operator.plan_range import ALL_IS_WELL, RETRY_AFTER, awaited, launch_pace, leaves_node, plan_range
from shardwright_operator.silence import Since
from shardwright_operator.sums import ANNOTATION_FAILED_REVISION, ANNOTATION_STAYS, ANNOTATION_TRIED_REVISION
from shardwright_operator.views import range_key
from unit.operator import builders
from unit.operator.world import World

A, B = "pod-a", "made-1"


def rolling(**more):
    """Pod A serves, and the range is to have another revision."""
    world = World(builders.serving(), builders.wanted(), **more)
    world.add(builders.pod(A, of=world.range))
    world.write(builders.with_spec(world.range, revision="new"))
    return world


def serving(**more):
    world = World(builders.serving(), builders.wanted(), **more)
    world.add(builders.pod(A, of=world.range))
    return world


def end(world, *, pod, spent=2):
    """Let the world settle, and check that this pod serves the whole range, and that no identify was spent."""
    world.settle(200)
    assert world.usable == [pod], world.rows_seen[-8:]
    assert world.range.status.holder == world.range.spec.active_pod == pod
    assert all(row.state is ShardState.READY for row in world.range.status.shards)
    assert world.range.status.identifies_spent == spent


@pytest.mark.parametrize("steps", range(14))
def test_the_operator_dies_at_any_step_and_its_successor_goes_on(steps):
    world = rolling()
    for step in range(steps):
        if step % 2:
            for uid in list(world.pods):
                world.act(uid)
        else:
            world.operate()
    world.since, world.launches, world.replacements = Since(), Paces(launch_pace), Paces(launch_pace)
    end(world, pod=B)
    assert world.made == 1


def test_a_dies_before_b_is_active_and_b_is_made_active_at_once():
    world = rolling()
    while not world.made:
        world.operate()
    world.replace_pod(world.pods[A], deletion=builders.NOW)
    world.act(A)
    world.operate()
    assert world.range.spec.active_pod == B
    end(world, pod=B)


def test_a_falls_silent_with_its_pod_gone_and_is_fenced_after_fifteen_seconds():
    world = rolling()
    while world.range.spec.active_pod == A:
        if not world.operate():
            world.act(B)
    world.vanish(A)
    world.round(14.0)
    assert world.range.spec.fenced_holder == ""
    world.round(2.0)
    world.round(0.1)
    assert world.range.spec.fenced_holder == A
    end(world, pod=B)


def test_a_is_gone_without_its_final_write_and_b_resumes_from_the_checkpoint():
    world = serving()
    world.vanish(A)
    end(world, pod=B)
    assert world.range.spec.fenced_holder == A


def test_b_does_not_come_up_and_a_takes_the_range_back_after_ten_seconds():
    world = rolling(shy_revisions={"new"})
    while world.range.status.holder:
        world.round(0.1)
    let_go = world.now
    while world.range.spec.active_pod == B:
        world.round(1.0)
    assert 10 <= world.now - let_go <= 13
    assert ANNOTATION_FAILED_REVISION not in world.range.metadata.annotations, "it is tried once more"
    taken_back = world.now
    while world.range.spec.active_pod == A:
        world.round(1.0)
    assert RETRY_AFTER <= world.now - taken_back <= RETRY_AFTER + 3
    end(world, pod=A)
    assert world.range.metadata.annotations[ANNOTATION_FAILED_REVISION] == "new"


def test_a_revision_is_not_blamed_for_a_node_that_died_at_the_switch():
    world = rolling()
    while world.range.spec.active_pod == A:
        world.operate()
        if world.range.spec.active_pod == A:
            world.act(B)
    world.actors[B].cut = True
    while world.range.spec.active_pod == B:
        world.round(1.0)
    world.vanish(B)
    end(world, pod="made-2")
    assert ANNOTATION_FAILED_REVISION not in world.range.metadata.annotations


def test_a_pod_whose_node_is_lost_at_the_switch_is_given_up_at_once():
    of = builders.with_status(builders.serving(active_pod=B, revision="new"), holder="")
    pods = [builders.pod(A), builders.pod(B, incarnation=2, revision="new")]
    plan = plan_range(builders.range_seen(of, pods, lost=frozenset({B})))
    assert plan.row == "the active pod is lost, another could work"
    assert plan.actions[0].annotations == {}


def test_both_die_and_a_new_incarnation_resumes_from_the_checkpoint():
    world = rolling()
    while not world.made:
        world.operate()
    for uid in (A, B):
        world.vanish(uid)
    end(world, pod="made-2")
    assert world.range.spec.incarnation == 3


def test_a_pod_that_crash_loops_is_replaced_after_three_seconds():
    world = serving()
    looping = builders.pod(A, of=world.range, looping=True)
    world.pods[A] = looping
    world.actors[A].cut = True
    world.operate()
    assert not world.made
    world.now += 3.0
    world.operate()
    assert world.made == 1
    world.actors[A].cut = False  # its container comes up now and then, and obeys
    end(world, pod=B)


def test_a_cordoned_node_is_left_before_the_eviction_comes():
    world = serving(cordoned={"node-1"})
    assert leaves_node(world.observe())
    end(world, pod=B)
    assert "the replacement stands by" in world.rows_seen


def test_without_another_place_a_cordoned_pod_stays_as_it_is():
    world = serving(cordoned={"node-1"}, full=True)
    for _ in range(50):
        world.round(10.0)
    assert world.usable == [A, B]
    assert (world.made, world.range.status.holder) == (1, A)
    world.cordoned.clear()
    world.settle()
    assert world.usable == [A]


def test_a_pod_whose_successor_elsewhere_does_not_come_up_stays_on_its_cordoned_node():
    world = serving(cordoned={"node-1"}, shy_revisions={builders.REVISION})
    world.actors[A].shy = False
    world.settle(200)
    assert world.range.status.holder == A
    assert world.made == 1
    assert world.range.metadata.annotations[ANNOTATION_STAYS] == A


def test_a_cordon_waits_for_its_turn():
    seen = builders.range_seen(builders.serving(), [builders.pod()], cordoned=frozenset({A}), may_move=False)
    assert not leaves_node(seen)
    assert plan_range(seen).row == "the active pod is outdated, and must wait for its turn"
    assert plan_range(replace(seen, may_move=True)).row == "the active pod is outdated"
    begun = builders.range_seen(
        builders.serving(), [builders.pod(), builders.pod("pod-b", incarnation=2)], cordoned={A}, may_move=False
    )
    assert leaves_node(begun), "what has begun counts, whatever happens to other ranges"


def until_b_is_to_take(world):
    """Go on until A has let go, and B is named active and does not take the range."""
    while world.range.spec.active_pod == A or world.range.status.holder:
        world.operate()
        for uid in set(world.pods) - {A}:
            world.actors[uid].shy = True
        for uid in list(world.pods):
            world.act(uid)


def test_a_stays_until_b_holds_though_the_spec_changes_again():
    world = rolling(broken_revisions={"newer"})
    until_b_is_to_take(world)
    world.write(builders.with_spec(world.range, revision="newer"))
    world.settle(200)
    assert world.range.status.holder == A
    assert world.range.metadata.annotations[ANNOTATION_TRIED_REVISION] == "new", "not the one that was not tried"


def test_a_stays_until_b_holds_though_its_node_is_cordoned_too():
    world = serving(cordoned={"node-1"})
    until_b_is_to_take(world)
    world.cordoned.add("node-2")
    world.full = True
    world.settle(200)
    assert world.range.status.holder == A


def test_a_takes_the_range_back_though_its_node_was_uncordoned_in_between():
    world = serving(cordoned={"node-1"})
    until_b_is_to_take(world)
    world.cordoned.clear()
    end(world, pod=A)
    assert ANNOTATION_STAYS not in world.range.metadata.annotations


def test_nobody_gives_the_range_back_to_a_pod_on_a_lost_node():
    of = builders.with_status(builders.serving(active_pod=B), holder=B, shards=())
    pods = [builders.pod(A), builders.pod(B, incarnation=2)]
    assert plan_range(builders.range_seen(of, pods, released_for=60.0)).row.startswith("the new pod did not come up")
    lost = builders.range_seen(of, pods, released_for=60.0, lost=frozenset({A}))
    assert plan_range(lost).row == ALL_IS_WELL


def test_a_spec_that_mends_the_successor_of_a_lost_pod_reaches_the_range():
    world = serving(full=True)
    world.vanish(A)
    for _ in range(20):
        world.round()
    assert (world.range.spec.active_pod, world.range.status.holder) == (B, A)
    world.full = False
    world.write(builders.with_spec(world.range, revision="mended"))
    end(world, pod="made-2")


def test_what_waited_in_a_drained_pod_holds_nobody_back():
    world = serving(full=True)
    world.write_status(spool_bytes=500)
    world.replace_pod(world.pods[A], deletion=builders.NOW)
    for _ in range(20):
        world.round()
    assert (world.range.spec.active_pod, world.range.status.holder) == (B, "")
    world.full = False
    world.write(builders.with_spec(world.range, revision="mended"))
    end(world, pod="made-2")


def test_pods_that_the_kubelet_refuses_are_made_ever_more_rarely_and_told_of_as_stalled():
    world, waited = rolling(), Since()
    key, held = range_key(world.range), 0.0
    for _ in range(150):
        world.round()
        for uid in set(world.pods) - {A}:
            world.replace_pod(world.pods[uid], phase="Failed")
            world.actors[uid].cut = True
        held = waited.held(key, "awaited", awaited(world.observe()), world.now)
    assert world.range.status.holder == A
    assert 4 < world.made < 12
    assert held > 250, "the clock goes on from one pod to the next"
    world.replace_pod(world.pods[A], deletion=builders.NOW)
    before = world.made
    world.operate()
    assert world.made == before + 1, "a pod that is drained has its successor at once all the same"


def test_a_drained_pod_holds_on_until_its_successor_stands_by():
    world = serving()
    world.actors[A].slow = True
    world.replace_pod(world.pods[A], deletion=builders.NOW)
    world.operate()
    assert world.made == 1
    world.operate()
    assert world.rows_seen[-1] == "the active pod ends, and holds on until another stands by"
    assert world.range.spec.active_pod == A
    world.act(B)
    world.operate()
    assert world.range.spec.active_pod == B
    world.actors[A].slow = False
    end(world, pod=B)


def test_a_drained_pod_that_serves_on_is_up_and_its_range_counts_as_moving():
    summary = builders.summary(builders.serving(), [builders.pod(terminating=True)])
    assert (summary.up, summary.moving) == (True, True)


def test_a_drained_pod_that_lets_go_at_once_is_succeeded_at_once():
    world = serving()
    world.replace_pod(world.pods[A], deletion=builders.NOW)
    world.operate()
    world.act(A)
    world.operate()
    assert world.range.spec.active_pod == B
    end(world, pod=B)


def test_a_drained_pod_that_says_nothing_any_more_is_not_waited_for():
    world = serving()
    world.actors[A].cut = True
    world.replace_pod(world.pods[A], deletion=builders.NOW)
    world.operate()
    world.now += 15
    world.operate()
    assert world.range.spec.active_pod == B


def test_a_node_is_lost_and_its_pod_hangs_in_terminating():
    world = serving()
    world.actors[A].cut = True
    world.replace_pod(world.pods[A], deletion=builders.NOW)
    for _ in range(30):
        world.round()
    assert world.range.status.holder == world.range.spec.active_pod == B
    assert world.range.spec.fenced_holder == A
