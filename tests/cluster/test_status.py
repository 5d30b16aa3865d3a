"""`kubectl` tells the truth at every stage."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from road import Road, wait_for


@pytest.mark.timeout(240)
def test_kubectl_tells_the_truth_from_apply_to_ready(make_road: Callable[..., Road]) -> None:
    """Columns, conditions and `kubectl wait` follow what really stands."""
    road = make_road(bot={"guilds": 40, "max_concurrency": 2})
    road.make_secret()
    road.apply_gateway(shards={"count": 4, "perPod": 2})
    first = road.wait_condition("Ready", "False", seconds=20)
    assert first["reason"] != ""
    assert first["message"] != ""
    road.cluster.kubectl("wait", "-n", road.namespace, "--for=condition=Ready", "dgw/mybot", "--timeout=90s")

    status = road.dgw()["status"]
    assert status["observedGeneration"] == road.dgw()["metadata"]["generation"]
    assert status["plan"] == {
        "total": 4, "perPod": 2, "ranges": 2, "maxConcurrency": 2, "buckets": 2, "waves": 2, "coldStartSeconds": 5,
    }  # fmt: skip
    assert status["shards"]["ready"] == status["shards"]["total"] == 4
    assert status["pods"]["ready"] == 2
    wait_for("the guilds", lambda: road.dgw()["status"].get("guilds") == 40, seconds=90)
    table = road.cluster.kubectl("get", "dgw", "-n", road.namespace)
    print(f"\n{table}")
    assert table.splitlines()[0].split() == [
        "NAME",
        "SHARDS",
        "READY",
        "PODS",
        "GUILDS",
        "IDENTIFIES-LEFT",
        "STATUS",
        "AGE",
    ]
    assert table.splitlines()[1].split()[:3] == ["mybot", "4", "4"]
    assert "finalizers" not in road.dgw()["metadata"]
    assert not any("shardwright" in key or "kopf" in key for key in road.dgw()["metadata"].get("annotations", {}))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("fault", ["close", "silent"])
def test_ready_follows_a_session_that_leaves_and_comes_back(make_road: Callable[..., Road], fault: str) -> None:
    """Ready turns False within 5 s of a close frame, or of a heartbeat that is not acknowledged; then True again."""
    road = make_road(bot={"guilds": 20, "max_concurrency": 2}, options={"heartbeat_interval": 2})
    road.make_secret()
    road.apply_gateway(shards={"count": 2, "perPod": 2})
    road.wait_condition("Ready", "True", seconds=90)

    road.simulator.call("POST", "faults", {"action": "refuse", "status": 503, "times": 0, "shards": [1]})
    road.simulator.call("POST", "faults", {"action": fault, "shards": [1]})
    start = time.monotonic()
    found = road.wait_condition("Ready", "False", seconds=30)
    patience = 2 * 2.0 if fault == "silent" else 0.0
    late = time.monotonic() - start - patience
    print(f"\nReady=False {late:.1f} s after {fault} (and {patience:g} s for the heartbeat): {found['message']}")
    assert late < 15
    pod_ready = lambda: all(  # noqa: E731
        condition["status"] == "False"
        for pod in road.pods()
        for condition in pod["status"]["conditions"]
        if condition["type"] == "Ready"
    )
    wait_for("the pod is not ready", pod_ready, seconds=20)

    road.simulator.call("DELETE", "faults")
    road.wait_condition("Ready", "True", seconds=90)
    assert len(road.simulator.identifies()) == 2, "an identify was wasted"
    assert road.simulator.violations() == []
