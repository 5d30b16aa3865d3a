"""Fixtures of the cluster tests: the test bed, its images, the operator installed by the chart, and fresh roads."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import testbed
from road import Cluster, Road

_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here: it needs the real node."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def bed() -> testbed.Cluster:
    """Bring the test bed up; it stays up, so that the next run is fast. What an earlier run or the demo left, goes."""
    bed = testbed.up()
    leftovers = Cluster(bed.kubeconfig, str(bed.bin / "kubectl"), str(bed.bin / "helm"))
    leftovers.uninstall_operator()
    leftovers.kubectl("delete", "discordgateways", "--all", "--all-namespaces", check=False)
    return bed


@pytest.fixture(scope="session")
def kubeconfig(bed: testbed.Cluster) -> Path:
    return bed.kubeconfig


@pytest.fixture(scope="session")
def helm(bed: testbed.Cluster) -> Path:
    return bed.bin / "helm"


@pytest.fixture(scope="session")
def cluster(bed: testbed.Cluster) -> Cluster:
    return Cluster(bed.kubeconfig, str(bed.bin / "kubectl"), str(bed.bin / "helm"))


@pytest.fixture(scope="session")
def operator(bed: testbed.Cluster, cluster: Cluster) -> Iterator[Cluster]:
    """The cluster with the project's images and the operator, as the chart installs it.

    It serves every namespace: tests that run an operator of their own come before (by their folders' names), and have
    the cluster for themselves.
    """
    bed.images()
    cluster.install_operator()
    yield cluster
    cluster.uninstall_operator()


@pytest.fixture
def make_road(operator: Cluster) -> Iterator[Callable[..., Road]]:
    """Make namespaces with a simulator and NATS; they are deleted afterwards."""
    roads: list[Road] = []

    def make(**settings: object) -> Road:
        road = Road(operator, f"road-{os.getpid()}-{next(_numbers)}")
        roads.append(road)
        road.set_up(**settings)
        return road

    yield make
    for road in roads:  # the gateway first: its bot is the next test's too, and a namespace takes its time
        operator.kubectl("delete", "dgw", "--all", "-n", road.namespace, "--timeout=60s", check=False)
        operator.kubectl("delete", "namespace", road.namespace, "--wait=false", check=False)
