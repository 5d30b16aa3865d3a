"""Fixtures: a stage in namespaces of its own, on a cluster where no other operator acts there."""

import contextlib
import json
import subprocess
from pathlib import Path

import pytest
import testbed

from cluster.operator.stage import Stage

CRDS = Path(__file__).parents[3] / "crds"
LABEL = "app.kubernetes.io/name=shardwright"


@pytest.fixture(scope="session")
def bed():
    """Bring the test bed up, and leave everything else on it alone: these tests keep to namespaces of their own."""
    return testbed.up()


@pytest.fixture(scope="session")
def kubectl(bed):
    def run(*arguments):
        command = [bed.bin / "kubectl", f"--kubeconfig={bed.kubeconfig}", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout

    return run


@pytest.fixture(scope="session")
def alone(kubectl):
    """Install the CRDs, and send an operator to sleep that serves the whole cluster: two would grant the same identifies."""
    kubectl(
        "apply", "--server-side", "--force-conflicts", *(f"-f{manifest}" for manifest in sorted(CRDS.glob("*.yaml")))
    )
    found = [
        (each["metadata"]["namespace"], each["metadata"]["name"], each["spec"]["replicas"])
        for each in json.loads(kubectl("get", "deployments", "-A", "-l", LABEL, "-ojson"))["items"]
        if {"name": "SHARDWRIGHT_NAMESPACES"} in each["spec"]["template"]["spec"]["containers"][0]["env"]
    ]
    for namespace, name, _ in found:
        kubectl("-n", namespace, "scale", f"deployment/{name}", "--replicas=0")
        kubectl("-n", namespace, "wait", "pod", "-l", LABEL, "--for=delete", "--timeout=60s")
    yield
    for namespace, name, replicas in found:
        with contextlib.suppress(subprocess.CalledProcessError):  # it may have been uninstalled meanwhile
            kubectl("-n", namespace, "scale", f"deployment/{name}", f"--replicas={replicas}")


@pytest.fixture
async def stage(alone, bed, tmp_path):
    made = Stage(bed.kubeconfig, tmp_path)
    await made.set_up()
    yield made
    await made.tear_down()


@pytest.fixture
async def running(stage):
    """A stage with the operator on it."""
    await stage.operator.start()
    return stage
