"""The cluster in memory: several ranges and pods, Leases made by themselves, faults of single pods."""

import asyncio

import pytest

from shardwright_api.resources import RangeSpec, ShardConfig
from shardwright_shard.coordination.local import LocalCluster
from shardwright_shard.errors import CoordinatorUnavailable

CONFIG = ShardConfig(gateway="mybot", gateway_url="wss://gateway.example", intents=1)


def spec(first, last):
    return RangeSpec(first=first, last=last, total=4, bot_id="1", max_concurrency=1, config=CONFIG)


@pytest.fixture
async def cluster():
    found = LocalCluster(window=1.0)
    found.add_range("low", spec(0, 1))
    found.add_range("high", spec(2, 3))
    return found


async def holder(cluster, name, pod):
    coordinator = cluster.coordinator(name, pod=pod)
    await coordinator.start()
    cluster.activate(name, pod)
    assert await coordinator.take()
    return coordinator


async def test_ranges_are_held_one_by_one(cluster):
    low, high = await holder(cluster, "low", "a"), await holder(cluster, "high", "b")
    cluster.grant("low", 1)
    assert (await low.spend(), await high.spend()) == (True, False)
    assert (cluster.range("low").status.holder, cluster.range("high").status.holder) == ("a", "b")


async def test_pods_of_all_ranges_share_the_buckets_of_a_bot_in_ascending_order(cluster):
    low, high = await holder(cluster, "low", "a"), await holder(cluster, "high", "b")
    await asyncio.gather(high.slot(0, 3), low.slot(0, 1), high.slot(0, 2), low.slot(0, 0))
    assert [won.holder for won in cluster.swaps] == ["a/0", "a/1", "b/2", "b/3"]
    assert cluster.swaps[-1].at - cluster.swaps[0].at == pytest.approx(3.0, abs=0.1)


async def test_an_operator_hands_a_range_over(cluster):
    old = await holder(cluster, "low", "a")
    new = cluster.coordinator("low", pod="b")
    await new.start()
    await new.report_standby(sinks_available=True)
    assert cluster.range("low").status.standby["b"].sinks_available
    cluster.activate("low", "b")
    await old.changed()
    assert not old.view.active
    await old.release([], [])
    await new.changed()
    assert await new.take()
    assert cluster.range("low").status.epoch == cluster.range("low").spec.epoch == 2


async def test_one_pod_is_cut_off_and_the_others_are_not(cluster):
    low, high = await holder(cluster, "low", "a"), await holder(cluster, "high", "b")
    cluster.cut("a")
    cluster.hold("low", on=True)
    with pytest.raises(CoordinatorUnavailable):
        await low.report([], [])
    assert not low.view.spec.hold
    await high.report([], [])
    cluster.restore()
    assert low.view.spec.hold
    await low.report([], [])


async def test_closing_twice_is_harmless(cluster):
    coordinator = await holder(cluster, "low", "a")
    await coordinator.close()
    await coordinator.close()
