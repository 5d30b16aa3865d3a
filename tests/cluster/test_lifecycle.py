"""Deletion, children deleted by hand, and an operator that dies: nothing is lost, nothing is spent."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from road import OPERATOR_NAMESPACE, Cluster, Road, wait_for

CHILDREN = "shardranges,pods,poddisruptionbudgets,roles,rolebindings"
OURS = "app.kubernetes.io/managed-by=shardwright"


def children(road: Road) -> list[str]:
    found = road.cluster.kubectl("get", CHILDREN, "-n", road.namespace, "-l", OURS, "-o", "name")
    return found.split()


def uids(road: Road) -> dict[str, str]:
    """Give what must not change while the operator is away: every child's UID."""
    found = road.cluster.items("-n", road.namespace, CHILDREN, "-l", OURS)
    return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["uid"] for item in found}


def restarts(road: Road) -> int:
    return sum(status["restartCount"] for pod in road.pods() for status in pod["status"].get("containerStatuses", []))


def ready_road(make_road: Callable[..., Road], *, count: int, per_pod: int, concurrency: int = 4) -> Road:
    road = make_road(bot={"guilds": 10 * count, "max_concurrency": concurrency})
    road.make_secret()
    road.apply_gateway(shards={"count": count, "perPod": per_pod})
    road.wait_condition("Ready", "True", seconds=150)
    return road


@pytest.mark.timeout(240)
def test_deleting_removes_every_child_and_applying_again_breaks_no_window(make_road: Callable[..., Road]) -> None:
    """Gone within 10 s without a finalizer, the bot goes offline; applied again at once, each bucket keeps its 5 s."""
    road = ready_road(make_road, count=4, per_pod=2, concurrency=2)
    assert len(children(road)) >= 6
    start = time.monotonic()
    road.cluster.kubectl("delete", "dgw", "mybot", "-n", road.namespace, "--wait=false")
    wait_for("every child is gone", lambda: not children(road), seconds=40)
    print(f"\nevery child gone after {time.monotonic() - start:.1f} s")
    assert road.dgw() == {}
    assert road.simulator.call("GET", "sessions") == [], "the bot is still online: sessions were not closed with 1000"

    road.apply_gateway(shards={"count": 4, "perPod": 2})
    road.wait_condition("Ready", "True", seconds=120)
    road.cluster.kubectl("delete", "dgw", "mybot", "-n", road.namespace, "--wait=true")
    road.apply_gateway(shards={"count": 4, "perPod": 2})
    road.wait_condition("Ready", "True", seconds=120)
    assert road.simulator.violations() == []


@pytest.mark.timeout(300)
def test_every_child_deleted_by_hand_comes_back(make_road: Callable[..., Road]) -> None:
    """A pod, a ShardRange, the PDB, the Role and a Lease come back by themselves."""
    road = ready_road(make_road, count=4, per_pod=2)
    before = {name.split("/")[0] for name in children(road)}
    road.cluster.kubectl("delete", "pod", road.pods()[0]["metadata"]["name"], "-n", road.namespace, "--wait=false")
    road.cluster.kubectl("delete", "pdb,role,rolebinding", "-l", OURS, "-n", road.namespace)
    road.cluster.kubectl("delete", "lease", "-l", OURS, "-n", road.namespace)
    wait_for("the children", lambda: {name.split("/")[0] for name in children(road)} == before, seconds=60)
    wait_for("the leases", lambda: road.cluster.items("-n", road.namespace, "leases", "-l", OURS), seconds=60)
    wait_for("two pods", lambda: len(road.pods()) == 2, seconds=90)
    road.wait_condition("Ready", "True", seconds=90)
    assert len(road.simulator.identifies()) == 4, "a pod deleted by hand cost an identify"

    road.cluster.kubectl("delete", "sr", road.ranges()[0]["metadata"]["name"], "-n", road.namespace)
    wait_for("two ranges", lambda: len(road.ranges()) == 2, seconds=60)
    road.wait_condition("Ready", "True", seconds=120)
    assert road.simulator.violations() == []


@pytest.fixture
def killed_operator(operator: Cluster) -> Iterator[Callable[[], int]]:
    """Give a function that kills the operator's process with SIGKILL and says how many it killed.

    Afterwards the next test gets a new operator pod: the kubelet makes a container that died often wait.
    """

    def kill() -> int:
        found = subprocess.run(
            ["pgrep", "-f", "/opt/shardwright/bin/python -m shardwright_operator"],
            capture_output=True,
            text=True,
            check=False,
        )
        for pid in found.stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        return len(found.stdout.split())

    yield kill
    operator.kubectl("delete", "pods", "--all", "-n", OPERATOR_NAMESPACE)
    operator.kubectl("rollout", "status", "deployment/shardwright", "-n", OPERATOR_NAMESPACE, "--timeout=90s")


@pytest.mark.timeout(420)
def test_an_operator_killed_while_32_shards_run_changes_nothing(
    make_road: Callable[..., Road], killed_operator: Callable[[], int]
) -> None:
    """SIGKILL under load: no pod restarts, no event is lost, nothing is re-created on return."""
    road = ready_road(make_road, count=32, per_pod=8, concurrency=16)
    before = uids(road)
    done: dict[str, Any] = {}
    load = threading.Thread(target=lambda: done.update(road.simulator.load(rate=300, seconds=25)))
    load.start()
    assert killed_operator() > 0
    wait_for("the operator is back", lambda: operator_ready(road), seconds=90)
    load.join()
    road.wait_condition("Ready", "True", seconds=60)
    assert uids(road) == before
    assert restarts(road) == 0
    assert road.compare().faults() == {}
    assert len(road.simulator.identifies()) == 32
    assert road.simulator.violations() == []


def operator_ready(road: Road) -> bool:
    pods = road.cluster.items("-n", OPERATOR_NAMESPACE, "pods")
    return any(
        status.get("ready") and status.get("restartCount", 0) > 0
        for pod in pods
        for status in pod["status"].get("containerStatuses", [])
    )


@pytest.mark.timeout(300)
def test_an_operator_that_comes_back_finishes_half_made_children(
    make_road: Callable[..., Road], killed_operator: Callable[[], int]
) -> None:
    """Killed again and again while it makes things: in the end everything stands, once."""
    road = make_road(bot={"guilds": 80, "max_concurrency": 8})
    road.make_secret()
    road.apply_gateway(shards={"count": 8, "perPod": 2})
    wait_for("the first child", lambda: children(road), seconds=60, every=0.05)
    killed_operator()
    wait_for("more children, or the operator", lambda: operator_ready(road), seconds=90)
    killed_operator()
    road.wait_condition("Ready", "True", seconds=200)
    assert len(road.ranges()) == 4
    assert len(road.pods()) == 4
    assert len(road.simulator.identifies()) == 8
    assert road.simulator.violations() == []
