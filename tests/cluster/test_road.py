"""From `kubectl apply` to events in a JetStream stream: every event that Discord sent stands there, in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from road import Comparison, Road

LATENCY = [0.05, 0.2]
SIZES = [(300, 20), (1_000, 70), (4_000, 9.5), (200_000, 0.4), (1_500_000, 0.1)]
"""Bytes of an event and weights: the largest are more than NATS takes (1 MiB)."""


def identify_times(road: Road) -> list[float]:
    return [identify["time"] for identify in road.simulator.identifies()]


def assert_all_there(result: Comparison) -> None:
    print(f"\nsent {result.sent}, stored {result.received}, of these told as oversize {result.oversize}")
    assert result.faults() == {}


@pytest.mark.timeout(420)
@pytest.mark.parametrize("compression", ["zstd-stream", "zlib-stream", "none"])
def test_32_shards_in_4_pods_forward_every_event_byte_for_byte(
    make_road: Callable[..., Road], compression: str
) -> None:
    """32 shards, 8 a pod, max_concurrency 16, 50-200 ms of latency; then 500 events/s for a minute."""
    road = make_road(bot={"guilds": 320, "max_concurrency": 16}, options={"latency": LATENCY})
    road.make_secret()
    road.apply_gateway(shards={"count": 32, "perPod": 8}, transport={"compression": compression})
    road.wait_condition("Ready", "True", seconds=120)

    pods = road.pods()
    assert len(pods) == 4
    times = identify_times(road)
    assert len(times) == 32
    spread = times[-1] - times[1]
    print(f"\nlast IDENTIFY {spread:.2f} s after the first that followed the canary; the limit is 5 s")
    assert spread <= 1.1 * 5 + 2

    load = road.simulator.load(rate=500, seconds=60, sizes=SIZES, twins=0.02)
    print(f"load: {load['events']} events, {load['skipped']} not made because the machine was busy")
    result = road.compare()
    assert_all_there(result)
    assert result.oversize > 0, "no event was larger than NATS takes: the load is not what the test wants"
    assert result.sent > 15_000
    assert road.simulator.violations() == []
    assert len(road.simulator.identifies()) == 32, "an identify was wasted"


@pytest.mark.timeout(180)
def test_one_shard_at_max_concurrency_1(make_road: Callable[..., Road]) -> None:
    """The smallest bot works as well; a count left out takes Discord's recommendation."""
    road = make_road(bot={"guilds": 10, "max_concurrency": 1, "shards": 1})
    road.make_secret()
    road.apply_gateway()
    road.wait_condition("Ready", "True")
    assert road.dgw()["status"]["plan"]["total"] == 1
    road.simulator.load(rate=50, seconds=3)
    assert_all_there(road.compare())
    assert road.simulator.violations() == []
    assert len(road.simulator.identifies()) == 1


@pytest.mark.timeout(240)
def test_8_pods_of_one_shard_at_max_concurrency_1_take_turns(make_road: Callable[..., Road]) -> None:
    """Eight pods share one bucket: one identify every 5 s, none wasted, none early."""
    road = make_road(bot={"guilds": 80, "max_concurrency": 1}, options={"latency": LATENCY})
    road.make_secret()
    road.apply_gateway(shards={"count": 8, "perPod": 1})
    road.wait_condition("Ready", "True", seconds=150)
    times = identify_times(road)
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    spread = times[-1] - times[1]
    print(
        f"\ngaps between identifies {[round(gap, 2) for gap in gaps]}; last after the first that followed the canary {spread:.2f} s"
    )
    assert min(gaps) >= 5.0
    assert spread <= 1.1 * 30 + 2
    assert road.simulator.violations() == []
    assert len(times) == 8


@pytest.mark.timeout(240)
def test_two_gateways_of_one_bot_share_buckets_and_two_bots_do_not(make_road: Callable[..., Road]) -> None:
    """The Leases and the budget are the bot's: two gateways of it stay within its limits, another bot is apart."""
    road = make_road(bot={"guilds": 40, "max_concurrency": 1, "total": 100, "remaining": 100})
    other = "1000000000000000002"
    road.simulator.call("POST", "bots", {"id": other, "guilds": 20, "max_concurrency": 1})
    road.make_secret()
    road.make_secret("other-token", token=road.token(other))
    road.apply_gateway("first", shards={"count": 2, "perPod": 1})
    road.apply_gateway("second", shards={"count": 3, "perPod": 1})
    road.apply_gateway("other", shards={"count": 2, "perPod": 1}, tokenSecretRef={"name": "other-token"})
    for name in ("first", "second", "other"):
        road.wait_condition("Ready", "True", name=name, seconds=120)

    leases = {lease["metadata"]["name"] for lease in road.cluster.items("-n", road.namespace, "leases")}
    assert {name for name in leases if "identify" in name} == {"1000000000000000001-identify-0", f"{other}-identify-0"}
    ours = [identify["time"] for identify in road.simulator.identifies("1000000000000000001")]
    theirs = [identify["time"] for identify in road.simulator.identifies(other)]
    assert len(ours) == 5
    assert len(theirs) == 2
    assert any(abs(one - two) < 4 for one in ours for two in theirs), "the other bot had to wait for this one"
    assert road.simulator.violations() == []
    starts = [session_starts(road, name) for name in ("first", "second")]
    assert {found["total"] for found in starts} == {100}
    assert max(found["remaining"] for found in starts) <= 100


def session_starts(road: Road, name: str) -> dict[str, Any]:
    found: dict[str, Any] = road.dgw(name)["status"]["sessionStarts"]
    return found
