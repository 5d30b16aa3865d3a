"""Fixtures of the coordination tests on a real API server: CRDs, own namespaces, coordinators behind proxies."""

import secrets
import subprocess
from pathlib import Path

import pytest
from coordination.cluster_stage import Admin, ClusterStage

CRDS = Path(__file__).parents[3] / "crds"
APPLY = ("apply", "--server-side", "--force-conflicts")


@pytest.fixture(scope="session")
def prepared(bed):
    """Install the CRDs; give the kubeconfig of the cluster that has them."""
    for manifest in sorted(CRDS.glob("*.yaml")):
        subprocess.run(
            [bed.bin / "kubectl", f"--kubeconfig={bed.kubeconfig}", *APPLY, f"-f{manifest}"], check=True, timeout=60
        )
    return bed.kubeconfig


@pytest.fixture
async def admin(prepared):
    found = Admin(prepared)
    yield found
    await found.session.close()


@pytest.fixture
async def stage(admin, tmp_path):
    found = ClusterStage(admin, f"coordination-{secrets.token_hex(4)}", tmp_path)
    await found.set_up()
    yield found
    await found.tear_down()
