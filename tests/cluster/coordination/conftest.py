"""Fixtures of the coordination tests on a real API server: CRDs, own namespaces, coordinators behind proxies."""

import secrets
import subprocess
from pathlib import Path

import pytest
from coordination.cluster_stage import Admin, ClusterStage

CRDS = Path(__file__).parents[3] / "crds"


@pytest.fixture(scope="session")
def crds(kubeconfig):
    for manifest in sorted(CRDS.glob("*.yaml")):
        subprocess.run(
            ["kubectl", f"--kubeconfig={kubeconfig}", "apply", "--server-side", f"-f{manifest}"], check=True, timeout=60
        )


@pytest.fixture
async def admin(kubeconfig):
    found = Admin(kubeconfig)
    yield found
    await found.session.close()


@pytest.fixture
async def stage(crds, admin, tmp_path):
    found = ClusterStage(admin, f"coordination-{secrets.token_hex(4)}", tmp_path)
    await found.set_up()
    yield found
    await found.tear_down()
