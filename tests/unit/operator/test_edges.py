"""What stands at the edge when something is refused, fails again and again, or is changed by another."""

import asyncio
import datetime as dt
import json
from types import SimpleNamespace

import msgspec
import pytest

from shardwright_api.resources import Buffer, ShardState, VolumeClaim
from shardwright_operator import render
from shardwright_operator.actions import Create, PatchRange
from shardwright_operator.asker import Asker
from shardwright_operator.bot_controller import BotController, paced_before, raise_grant
from shardwright_operator.edge import Edge
from shardwright_operator.errors import ConflictError, ForbiddenError, InvalidError, UnreadableError
from shardwright_operator.events import EventWriter
from shardwright_operator.executor import Executor
from shardwright_operator.gateway_controller import GatewayController
from shardwright_operator.keys import GatewayKey
from shardwright_operator.kube import CLAIMS, RANGES, _failure
from shardwright_operator.lists import Lists
from shardwright_operator.memory import Memory, Paces
from shardwright_operator.plan_bot import BotPlan, Grant, grant_pace
from shardwright_operator.plan_gateway import plan_gateway
from shardwright_operator.range_controller import RangeController
from shardwright_operator.secret_reader import SecretReader
from shardwright_operator.settings import Settings
from shardwright_operator.store import Store
from shardwright_operator.sums import ANNOTATION_PACED
from unit.operator import builders
from unit.operator.memory_kube import MemoryKube

KEY = GatewayKey(builders.NAMESPACE, builders.GATEWAY)


@pytest.fixture
def kube():
    return MemoryKube()


@pytest.fixture
def executor(kube):
    store = Store(clock=lambda: 0.0, enqueue=lambda _: None)
    return Executor(kube, store, EventWriter(kube, instance="test"))


# --- claims


def claim():
    wanted = builders.wanted(builders.gateway(buffer=Buffer(volume_claim=VolumeClaim("1Gi"))))
    return render.claim(wanted, builders.shard_range())


async def test_a_claim_that_is_there_is_used_again(kube, executor):
    await executor.run([Create(CLAIMS, claim())])
    await executor.run([Create(CLAIMS, claim())])


@pytest.mark.parametrize("left", [{"ownerReferences": []}, {"deletionTimestamp": builders.NOW}])
async def test_a_claim_that_another_range_left_behind_is_not_used(kube, executor, left):
    body = claim()
    kube.put(CLAIMS, body | {"metadata": body["metadata"] | left})
    with pytest.raises(InvalidError, match="another ShardRange"):
        await executor.run([Create(CLAIMS, body)])


async def test_a_range_that_cannot_be_read_is_named(kube, executor):
    body = {"metadata": {"name": "r", "namespace": "n"}, "spec": {"first": "nought"}}
    kube.put(RANGES, body)
    with pytest.raises(UnreadableError, match="ShardRange"):
        await executor.run([Create(RANGES, body)])


# --- the API server's refusals


def refused(status, **body):
    response = SimpleNamespace(status=status, reason="", headers={})
    return _failure(response, json.dumps({"message": "no", "reason": "Forbidden", **body}).encode())


def test_nothing_is_tried_hotly_in_a_namespace_that_is_being_deleted():
    going = refused(403, details={"causes": [{"reason": "NamespaceTerminating", "message": "", "field": ""}]})
    assert isinstance(going, ForbiddenError)
    assert going.retry_after == 60.0
    assert refused(403, details={}).retry_after is None
    assert refused(403).retry_after is None


async def test_only_a_403_says_that_there_is_no_right_to_nodes(kube):
    lists = Lists(kube, Store(clock=lambda: 0.0, enqueue=lambda _: None), ())
    kube.fail["list", "nodes"] = ForbiddenError(401, "Unauthorized", "")
    with pytest.raises(ForbiddenError):
        await lists.read_nodes()
    kube.fail["list", "nodes"] = ForbiddenError(403, "Forbidden", "")
    assert not await lists.read_nodes()


class Refusing:
    """An executor that is refused once."""

    def __init__(self):
        self.failures = [ForbiddenError(403, "Forbidden", "roles are not yours to make")]

    async def run(self, actions):
        if self.failures:
            raise self.failures.pop()


async def test_a_refused_child_is_noted_until_it_is_made(kube):
    woken, memory = [], Memory(clock=lambda: 0.0)
    gateways = GatewayController(
        kube=kube,
        store=Store(clock=lambda: 0.0, enqueue=woken.append),
        memory=memory,
        secrets=SecretReader(kube),
        asker=Asker(None),
        executor=Refusing(),
        settings=Settings(),
        enqueue=woken.append,
    )
    plan = plan_gateway(builders.gateway_seen())
    with pytest.raises(ForbiddenError):
        await gateways._run(KEY, plan)
    assert "roles are not yours to make" in memory.child_troubles[KEY]
    await gateways._run(KEY, plan)
    assert memory.child_troubles == {}
    assert woken == [KEY, KEY], "each news is told in the status"


# --- grants


class OneConflict:
    def __init__(self):
        self.granted = []

    async def run(self, actions):
        (patch,) = actions
        assert isinstance(patch, PatchRange)
        if not self.granted and patch.base.spec.first == 0:
            raise ConflictError(409, "Conflict", "")
        self.granted.append(patch.base.spec.first)


async def test_a_conflict_on_one_grant_leaves_the_others_theirs_and_is_no_occasion(kube):
    executor, memory = OneConflict(), Memory(clock=lambda: 0.0)
    bots = BotController(
        store=Store(clock=lambda: 0.0, enqueue=lambda _: None),
        memory=memory,
        secrets=SecretReader(kube),
        asker=Asker(None),
        executor=executor,
        enqueue=lambda _: None,
    )
    grants = tuple(Grant(builders.budget(builders.serving(first, first + 1)), 1, paced=True) for first in (0, 2))
    with pytest.raises(ConflictError):
        await bots._hand_out(BotPlan(grants=grants))
    assert executor.granted == [2]
    assert (bots._paces.count(builders.key(0, 1)), bots._paces.count(builders.key(2, 3))) == (0, 1)


def test_a_paced_grant_says_so_for_the_operator_after_this_one():
    grant = Grant(builders.budget(builders.serving()), 1, paced=True)
    assert raise_grant(grant, f"3 {builders.NOW}").annotations == {ANNOTATION_PACED: f"3 {builders.NOW}"}
    assert raise_grant(grant).annotations == {}


def test_an_operator_that_comes_up_anew_keeps_the_pace():
    later = builders.moment() + dt.timedelta(seconds=20)
    count, age = paced_before(f"4 {builders.NOW}", later)
    assert (count, age) == (4, 20.0)
    paces = Paces(grant_pace)
    paces.restore(builders.key(), count, age, 1000.0)
    assert paces.wait(builders.key(), 1000.0) == grant_pace(4) - 20.0
    for nonsense in ("", "four", "4", "4 yesterday", "4 2026-01-02"):
        assert paced_before(nonsense, later) == (0, 0.0)


def test_a_pace_that_ran_out_long_ago_is_not_taken_up():
    paces, key = Paces(grant_pace), builders.key()
    paces.restore(key, 9, grant_pace(9) - 1.0, 5000.0)
    assert paces.wait(key, 5000.0) == 1.0, "longer than ten minutes, and still to be kept"
    paces.reset(key)
    paces.restore(key, 6, 30 * 86400.0, 5000.0)
    assert paces.count(key) == 0


def test_a_range_that_is_made_anew_under_the_same_name_has_no_pace_yet():
    store = Store(clock=lambda: 0.0, enqueue=lambda _: None)
    kube = MemoryKube()
    bots = BotController(
        store=store,
        memory=Memory(clock=lambda: 0.0),
        secrets=SecretReader(kube),
        asker=Asker(None),
        executor=None,
        enqueue=lambda _: None,
    )
    store.put_range(builders.serving())
    bots._range(builders.key(), None)
    for _ in range(5):
        bots._paces.note(builders.key(), 0.0)
    assert bots._range(builders.key(), None).one_at_a_time
    store.drop_range(builders.key(), "range-uid-0")
    store.put_range(builders.serving(uid="another"))
    assert not bots._range(builders.key(), None).one_at_a_time


# --- cordons


@pytest.fixture
def controller(kube, executor):
    return RangeController(
        store=Store(clock=lambda: 0.0, enqueue=lambda _: None),
        memory=Memory(clock=lambda: 0.0),
        secrets=SecretReader(kube),
        executor=executor,
        enqueue=lambda _: None,
    )


@pytest.mark.parametrize(("state", "moves"), [(ShardState.PARKED, True), (ShardState.WAITING, False)])
def test_a_range_that_discord_refuses_keeps_no_other_on_its_cordoned_node(controller, state, moves):
    store = controller._store
    store.put_pod(builders.pod())
    store.put_range(builders.serving())
    other = builders.serving(2, 3, active_pod="pod-b")
    store.put_pod(builders.pod("pod-b", of=other))
    store.put_range(
        builders.with_status(other, holder="pod-b", shards=builders.rows(other, state, session=None, close=4014))
    )
    assert controller._may_move(builders.key(), builders.wanted()) is moves


async def test_the_pace_of_pods_begins_anew_when_all_is_well_not_while_one_is_awaited(controller):
    store, key = controller._store, builders.key()
    controller._memory.wanted[KEY] = builders.wanted()
    store.put_pod(builders.pod())
    store.put_pod(builders.pod("pod-b", incarnation=2, revision="new"))
    of = builders.serving(revision="new")
    for version, beat in (("11", builders.NOW), ("12", "2026-01-02T03:04:10Z")):
        meta = msgspec.structs.replace(of.metadata, resource_version=version)
        store.put_range(builders.with_status(msgspec.structs.replace(of, metadata=meta), heartbeat_time=beat))
    assert store.summaries[key].ready
    controller._launches.note(key, 0.0)
    controller._replacements.note(key, 0.0)
    await controller.look_at(key)
    assert controller._replacements.count(key) == 1
    assert controller._launches.count(key) == 0, "should the active pod be lost now, its successor is made at once"
    store.drop_pod(builders.pod("pod-b", incarnation=2, revision="new"))
    meta = msgspec.structs.replace(of.metadata, resource_version="13")
    store.put_range(builders.with_spec(msgspec.structs.replace(of, metadata=meta), revision=builders.REVISION))
    await controller.look_at(key)
    assert controller._replacements.count(key) == 0


# --- kopf


class Stop:
    """A flag that is set after some waits."""

    def __init__(self, rounds):
        self.waits, self.rounds = [], rounds

    def is_set(self):
        return len(self.waits) >= self.rounds

    def wait(self, seconds):
        self.waits.append(seconds)


async def test_kopf_that_returns_is_started_anew_after_a_pause_and_the_operator_says_so():
    class Returning(Edge):
        async def _operator(self):
            return None

    edge = Returning(Settings(), None, with_nodes=False)
    edge._stop = Stop(3)
    edge._thread = None
    assert not edge.failing()
    await asyncio.to_thread(edge._run)
    assert edge.restarts == 3
    assert min(edge._stop.waits) >= 0.25
    assert not edge.failing()
    edge._stop = Stop(5)
    await asyncio.to_thread(edge._run)
    assert edge.failing()
