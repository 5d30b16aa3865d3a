"""From any state a range comes to rest with one pod that holds it, and no living holder is ever robbed."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright_api.resources import ShardState
from unit.operator import builders
from unit.operator.world import Actor, World

UIDS = ("a", "b", "c")


@st.composite
def worlds(draw):
    """Any mixture of pods, of who is named active, who holds and who is fenced."""
    of = builders.shard_range(
        incarnation=3, identify_grant=4, revision=draw(st.sampled_from([builders.REVISION, "old"]))
    )
    world = World(of, builders.wanted())
    for number, uid in enumerate(draw(st.lists(st.sampled_from(UIDS), unique=True, max_size=3))):
        pod = builders.pod(
            uid,
            of=of,
            incarnation=number,
            revision=draw(st.sampled_from([builders.REVISION, "old", "older"])),
            phase=draw(st.sampled_from(["Running", "Running", "Pending", "Failed"])),
            terminating=draw(st.booleans()),
        )
        world.add(pod, Actor(cut=pod.dead))
    names = st.sampled_from(["", *UIDS, "gone"])
    spec = msgspec.structs.replace(
        of.spec,
        active_pod=draw(names),
        fenced_holder=draw(st.sampled_from(["", "gone"])),
        epoch=draw(st.integers(0, 5)),
    )
    states = st.sampled_from([ShardState.READY, ShardState.CLOSED, ShardState.WAITING, ShardState.IDENTIFYING])
    rows = tuple(
        builders.row(shard, draw(states), session=draw(st.sampled_from(["s", None])))
        for shard in range(draw(st.integers(0, 2)))
    )
    status = msgspec.structs.replace(
        of.status, holder=draw(names), shards=rows, identifies_spent=draw(st.integers(0, 2))
    )
    world.range = msgspec.structs.replace(of, spec=spec, status=status)
    return world


@settings(max_examples=400, deadline=None)
@given(worlds())
def test_any_state_comes_to_rest_with_one_pod_that_holds_the_range(world):
    world.settle()
    assert not world.operate(), world.rows_seen[-5:]
    assert world.usable == [world.range.spec.active_pod]
    assert world.range.status.holder == world.range.spec.active_pod
    assert all(row.state is ShardState.READY for row in world.range.status.shards)
    assert world.pods[world.range.spec.active_pod].revision == world.range.spec.revision


faults = st.lists(
    st.tuples(st.sampled_from(["delete", "vanish", "fail", "roll", "nothing"]), st.integers(0, 3), st.integers(1, 6)),
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(worlds(), faults)
def test_whatever_breaks_in_between_the_range_comes_to_rest(world, faults):
    for number, (fault, which, rounds) in enumerate(faults):
        pods = sorted(world.pods)
        uid = pods[which % len(pods)] if pods else ""
        if fault == "roll":
            world.write(builders.with_spec(world.range, revision=f"r{number}"))
        elif fault == "delete" and uid:
            world.replace_pod(world.pods[uid], deletion=builders.NOW)
        elif fault == "vanish" and uid:
            world.vanish(uid)
        elif fault == "fail" and uid:
            world.replace_pod(world.pods[uid], phase="Failed")
            world.actors[uid].cut = True
        for _ in range(rounds):
            world.round()
    world.settle(400)
    assert not world.operate(), world.rows_seen[-5:]
    assert world.usable == [world.range.spec.active_pod]
    assert world.range.status.holder == world.range.spec.active_pod
    assert world.pods[world.range.spec.active_pod].revision == world.range.spec.revision


@pytest.mark.parametrize("kind", ["broken", "shy"])
def test_a_revision_that_does_not_come_up_is_taken_back_and_not_tried_again(kind):
    of = builders.serving()
    world = World(of, builders.wanted(), **{f"{kind}_revisions": {"bad"}})
    world.add(builders.pod("pod-a", of=of))
    world.write(builders.with_spec(world.range, revision="bad"))
    world.settle(200)
    assert world.range.status.holder == "pod-a"
    assert all(row.state is ShardState.READY for row in world.range.status.shards)
    assert world.made == 1


def test_after_a_failed_revision_the_next_one_is_tried():
    of = builders.serving()
    world = World(of, builders.wanted(), shy_revisions={"bad"})
    world.add(builders.pod("pod-a", of=of))
    world.write(builders.with_spec(world.range, revision="bad"))
    world.settle(60)
    world.write(builders.with_spec(world.range, revision="good"))
    world.settle(60)
    assert world.usable == [world.range.status.holder] == ["made-2"]
