"""From any state a range comes to rest with one pod that holds it, and no living holder is ever robbed."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardwright_api.resources import ShardState
from shardwright_operator.sums import ANNOTATION_FAILED_REVISION
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
        fenced_holder=draw(st.sampled_from(["", "gone", *UIDS])),
        epoch=draw(st.integers(0, 5)),
    )
    states = st.sampled_from([ShardState.READY, ShardState.CLOSED, ShardState.WAITING, ShardState.IDENTIFYING])
    rows = tuple(
        builders.row(shard, draw(states), session=draw(st.sampled_from(["s", None])))
        for shard in range(draw(st.integers(0, 2)))
    )
    status = msgspec.structs.replace(
        of.status,
        holder=draw(names),
        shards=rows,
        identifies_spent=draw(st.integers(0, 2)),
        spool_bytes=draw(st.sampled_from([0, 0, 5])),
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


KINDS = ("delete", "drain", "vanish", "fail", "roll", "shy", "cordon", "uncordon", "spool", "fill", "pause", "nothing")
faults = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 3), st.integers(1, 12)), max_size=8)


def break_something(world, kind, which, number):
    pods = sorted(world.pods)
    if kind == "roll":
        world.write(builders.with_spec(world.range, revision=f"r{number}"))
    elif kind == "cordon":
        world.cordoned.add(f"node-{1 + which % 2}")
    elif kind == "uncordon":
        world.cordoned.clear()
    elif kind == "spool":
        world.write_status(spool_bytes=5)
    elif kind == "fill":
        world.full = not world.full
    elif kind == "pause":
        world.wanted = builders.wanted(paused=not world.wanted.paused)
    elif pods:
        break_pod(world, kind, pods[which % len(pods)])


def break_pod(world, kind, uid):
    if kind in {"delete", "drain"}:
        world.actors[uid].slow = kind == "drain"
        world.replace_pod(world.pods[uid], deletion=builders.NOW)
    elif kind == "vanish":
        world.vanish(uid)
    elif kind == "shy":
        world.actors[uid].shy = True
    elif kind == "fail":
        world.replace_pod(world.pods[uid], phase="Failed")
        world.actors[uid].cut = True


def mend(world):
    """From now on nothing breaks: pods behave, and those that waited for room have found it."""
    world.full = False
    world.cordoned.clear()
    world.wanted = builders.wanted()
    for uid in world.pods:
        world.actors[uid].shy = False
        if world.actors[uid].broken and not world.pods[uid].dead:
            world.replace_pod(world.pods[uid], phase="Running")
            world.actors[uid].broken = False


@settings(max_examples=400, deadline=None)
@given(worlds(), faults)
def test_whatever_breaks_in_between_the_range_comes_to_rest(world, faults):
    for number, (kind, which, rounds) in enumerate(faults):
        break_something(world, kind, which, number)
        for _ in range(rounds):
            world.round()
    mend(world)
    world.settle(600)
    assert not world.operate(), world.rows_seen[-5:]
    assert world.usable == [world.range.spec.active_pod]
    assert world.range.status.holder == world.range.spec.active_pod
    failed = world.range.metadata.annotations.get(ANNOTATION_FAILED_REVISION) == world.range.spec.revision
    assert failed or world.pods[world.range.spec.active_pod].revision == world.range.spec.revision


@settings(max_examples=200, deadline=None)
@given(worlds(), faults)
def test_a_new_revision_mends_whatever_broke_though_its_pods_never_do(world, faults):
    """The pods that are there go on as they are: those that have no room never get it, the shy never take the range."""
    for number, (kind, which, rounds) in enumerate(faults):
        break_something(world, kind, which, number)
        for _ in range(rounds):
            world.round()
    world.full = False
    world.cordoned.clear()
    world.wanted = builders.wanted()
    world.write(builders.with_spec(world.range, revision="mended"))
    world.settle(600)
    assert world.range.status.holder == world.range.spec.active_pod
    assert world.pods[world.range.spec.active_pod].revision == "mended"


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
