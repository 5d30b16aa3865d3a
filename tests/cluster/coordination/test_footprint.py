"""What a coordinator costs in memory: a pod shall stay under 60 MB with all that it does."""

import asyncio
import sys
from pathlib import Path

import pytest
import yaml
from coordination.cluster_stage import RANGE

pytestmark = pytest.mark.cluster
PROGRAM = Path(__file__).with_name("footprint.py")


@pytest.fixture(scope="session")
def authority(prepared):
    return yaml.safe_load(Path(prepared).read_text())["clusters"][0]["cluster"]["certificate-authority"]


async def test_watches_cost_little(stage, authority):
    arguments = [stage.admin.url, authority, str(stage.token_file), stage.namespace, RANGE]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), *arguments, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    imported, started, watching = (float(word) for word in output.split())
    print(f"RSS in MB: imports {imported}, started {started}, watching 16 buckets {watching}")
    assert started - imported < 3
    assert watching - started < 6
