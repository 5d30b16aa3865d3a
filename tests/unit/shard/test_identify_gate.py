"""Grants, handed to the pod's shards one by one: nobody identifies without one, and none is lost without need."""

import asyncio

import pytest

from shardwright_shard.errors import CoordinatorUnavailable
from shardwright_shard.identify_gate import IdentifyGate
from unit.shard.stage import RANGE, Stage


@pytest.fixture
async def stage(monkeypatch):
    stage = Stage(monkeypatch, max_concurrency=2)
    stage.coordinator = stage.flaky("a")
    stage.cluster.activate(RANGE, "a")
    await stage.coordinator.start()
    await stage.coordinator.take()
    stage.gate = IdentifyGate(stage.coordinator)
    yield stage
    await stage.end()


async def test_without_a_grant_nobody_may_go_for_an_identify(stage):
    assert "grant" in stage.gate.obstacle(0)
    assert not await stage.gate.pay(0)
    assert stage.status.identifies_spent == 0


async def test_a_grant_is_for_one_shard(stage):
    stage.cluster.grant(RANGE, 1)
    assert stage.gate.obstacle(0) is None
    stage.gate.reserve(0)
    assert stage.gate.obstacle(0) is None, "who has reserved is not kept from going on"
    assert "grant" in stage.gate.obstacle(1)


async def test_a_reservation_that_was_not_used_goes_back(stage):
    stage.cluster.grant(RANGE, 1)
    stage.gate.reserve(0)
    stage.gate.unreserve(0)
    assert stage.gate.obstacle(1) is None


async def test_paying_writes_the_spend_into_the_cluster_once(stage):
    stage.cluster.grant(RANGE, 2)
    stage.gate.reserve(0)
    assert await stage.gate.pay(0)
    assert await stage.gate.pay(0)
    assert stage.status.identifies_spent == 1
    assert stage.gate.paid(0)
    assert stage.gate.obstacle(1) is None, "one grant is left"


async def test_a_paid_right_stays_with_its_shard_until_it_is_used(stage):
    stage.cluster.grant(RANGE, 1)
    stage.gate.reserve(0)
    await stage.gate.pay(0)
    stage.gate.unreserve(0)
    assert stage.gate.obstacle(0) is None
    stage.gate.reserve(0)
    assert stage.gate.obstacle(0) is None
    stage.gate.use(0)
    stage.gate.unreserve(0)
    assert "grant" in stage.gate.obstacle(0)
    assert stage.status.identifies_spent == 1


async def test_grants_that_are_gone_at_the_time_of_paying_are_not_spent(stage):
    stage.cluster.grant(RANGE, 1)
    stage.gate.reserve(0)
    stage.cluster.write(RANGE, identifies_spent=1)
    assert not await stage.gate.pay(0)
    assert stage.status.identifies_spent == 1


async def test_an_answer_that_does_not_come_is_no_payment(stage):
    stage.cluster.grant(RANGE, 1)
    stage.gate.reserve(0)
    stage.coordinator.errors["spend"] = [CoordinatorUnavailable("away")]
    with pytest.raises(CoordinatorUnavailable):
        await stage.gate.pay(0)
    assert not stage.gate.paid(0)
    assert await stage.gate.pay(0)


async def test_a_hold_stands_in_the_way_of_everybody(stage):
    stage.cluster.grant(RANGE, 2)
    stage.gate.reserve(0)
    await stage.gate.pay(0)
    stage.cluster.hold(RANGE, on=True)
    assert "hold" in stage.gate.obstacle(0)
    assert "hold" in stage.gate.obstacle(1)
    assert not await stage.gate.pay(1)


async def test_a_fatal_code_voids_what_was_reserved_or_paid_until_a_new_grant(stage):
    stage.cluster.grant(RANGE, 3)
    stage.gate.reserve(0)
    await stage.gate.pay(0)
    stage.gate.reserve(1)
    stage.gate.slam()
    assert stage.gate.shut
    assert not stage.gate.paid(0)
    assert all("parked" in stage.gate.obstacle(shard) for shard in (0, 1, 2))
    await stage.coordinator.forfeit()
    stage.cluster.grant(RANGE, 1)
    assert not stage.gate.shut
    assert stage.gate.obstacle(2) is None, "no reservation from before stands against it"
    stage.gate.reserve(2)
    assert "grant" in stage.gate.obstacle(0), "the new grant is for one shard, whatever was paid before"


async def test_a_payment_on_its_way_when_the_gate_is_slammed_is_void_too(stage):
    stage.cluster.grant(RANGE, 1)
    stage.gate.reserve(0)

    async def fatal_meanwhile():
        stage.gate.slam()
        return await stage.coordinator.inner.spend()

    stage.coordinator.errors["spend"] = [fatal_meanwhile]
    assert not await stage.gate.pay(0)
    stage.cluster.grant(RANGE, 1)
    assert not stage.gate.paid(0)


async def test_shards_of_one_bucket_take_turns_in_order(stage):
    order = []

    async def go(shard):
        async with stage.gate.turn(shard):
            order.append(shard)
            await asyncio.sleep(1)

    await asyncio.gather(*(go(shard) for shard in (0, 1, 2, 3)))
    assert sorted(order[:2]) == [0, 1], "buckets do not wait for each other"
    assert sorted(order[2:]) == [2, 3]


async def test_a_turn_that_is_cancelled_is_free_again(stage):
    async def go():
        async with stage.gate.turn(0):
            await asyncio.sleep(1000)

    task = asyncio.create_task(go())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    async with asyncio.timeout(1), stage.gate.turn(2):
        pass
