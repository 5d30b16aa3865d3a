"""The shard program as a process of its own, on a cluster in memory that keeps its range in a file across its deaths.

`python pod_process.py SETTINGS` with a JSON file of `Settings`. The stdout sink writes to the process's standard output.
"""

import sys
from pathlib import Path

import msgspec
import uvloop

from shardwright_api.resources import ObjectMeta, RangeSpec, ShardConfig, ShardRange, Sink, StdoutSink
from shardwright_shard import logs
from shardwright_shard.__main__ import run_pod
from shardwright_shard.coordination.local import LocalCluster

UID = "p1"
GATEWAY = "mybot"


class Settings(msgspec.Struct, kw_only=True):
    """What the process is to run. `folder` holds range, token and state."""

    folder: str
    gateway_url: str
    bot: str
    shards: int
    intents: int
    port: int
    buffer_memory: int = 64 * 1024 * 1024
    buffer_disk: int = 2**30
    heartbeat_seconds: float = 0.5

    @property
    def range_file(self) -> Path:
        return Path(self.folder) / "range.json"

    @property
    def token_file(self) -> Path:
        return Path(self.folder) / "token"

    @property
    def state(self) -> Path:
        return Path(self.folder) / "state"


class FileCluster(LocalCluster):
    """A cluster whose one range outlives the process."""

    def __init__(self, file):
        super().__init__(window=0.1)
        self._file = file
        if file.exists():
            found = msgspec.json.decode(file.read_bytes(), type=ShardRange)
            self._ranges[found.metadata.name] = found
            self._gateways[GATEWAY] = 1

    def _store(self, found):
        half = self._file.with_suffix(".half")
        half.write_bytes(msgspec.json.encode(found))
        half.rename(self._file)
        super()._store(found)


def cluster(settings):
    """Give the cluster, with the range made, granted and given to this pod the first time."""
    found = FileCluster(settings.range_file)
    name = f"{GATEWAY}-{settings.shards}-0-{settings.shards - 1}"
    if not found._ranges:
        config = ShardConfig(
            gateway=GATEWAY,
            gateway_url=settings.gateway_url,
            intents=settings.intents,
            sinks=(Sink(name="out", stdout=StdoutSink()),),
            heartbeat_seconds=settings.heartbeat_seconds,
            buffer_memory=settings.buffer_memory,
            buffer_disk=settings.buffer_disk,
        )
        spec = RangeSpec(
            first=0,
            last=settings.shards - 1,
            total=settings.shards,
            bot_id=settings.bot,
            max_concurrency=settings.shards,
            config=config,
        )
        found._gateways[GATEWAY] = 1
        found._store(ShardRange(metadata=ObjectMeta(name=name, uid="range-1"), spec=spec))
        found.activate(name, UID)
        found.grant(name, settings.shards)
    return found, name


async def main(settings):
    found, name = cluster(settings)
    coordinator = found.coordinator(name, pod=UID)
    await run_pod(coordinator, token_file=settings.token_file, http_port=settings.port, state_dir=settings.state)


if __name__ == "__main__":
    logs.set_up("info")
    uvloop.run(main(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Settings)))
