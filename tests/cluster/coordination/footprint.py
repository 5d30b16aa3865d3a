"""Print the resident memory, in MB, of a process with one coordinator: with imports, started, watching 16 buckets.

Run as `python footprint.py URL CA TOKEN_FILE NAMESPACE RANGE`.
"""

import asyncio
import os
import ssl
import sys
from pathlib import Path

import uvloop

from shardwright_shard.coordination.api_client import ApiClient, Server
from shardwright_shard.coordination.kubernetes import KubernetesCoordinator


def resident():
    """Give the resident set in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


async def main(url, authority, token_file, namespace, name):
    imported = resident()
    server = Server(url=url, tls=ssl.create_default_context(cafile=authority), token_file=Path(token_file))
    coordinator = KubernetesCoordinator(
        ApiClient(server), namespace=namespace, range_name=name, pod_name="pod", pod_uid="pod"
    )
    await coordinator.start()
    await asyncio.sleep(1)
    started = resident()
    for bucket in range(16):
        coordinator.watch_bucket(bucket)
    await asyncio.sleep(2)
    print(f"{imported:.1f} {started:.1f} {resident():.1f}")
    await coordinator.close()


uvloop.run(main(*sys.argv[1:]))
