"""The servers that sinks write to, set up once and kept in the cache: nothing is installed into the system.

* Redis and RabbitMQ with its Erlang: Debian packages, fetched by apt and unpacked into the cache, so that no daemon
  is started and no account made.
* Kafka: jars by Maven; a Java runtime is installed from Debian where none is on PATH.
* nats-server: built from its Go module, by the test bed.

Measured on two cores, cold: 1 s for Redis, 3 s for RabbitMQ, 7 s for Kafka's jars; then nothing.
"""

from __future__ import annotations

import fcntl
import shutil
from contextlib import contextmanager
from pathlib import Path

from testbed import binaries, packages, settings
from testbed.progress import run, say

HERE = Path(__file__).resolve().parent
HOME = settings.CACHE / "brokers"
LOG = settings.CACHE / "logs" / "brokers.log"

REDIS = ("redis-server", "redis-tools", "libjemalloc2", "liblzf1")
_ERLANG = (
    "asn1 base crypto eldap ftp inets mnesia os-mon parsetools public-key runtime-tools snmp ssl syntax-tools tftp "
    "tools xmerl"
)
RABBITMQ = ("rabbitmq-server", *(f"erlang-{part}" for part in _ERLANG.split()))
JAVA = {"default-jre-headless": "java"}
MAVEN = {"maven": "mvn"}


def nats():
    """Give nats-server."""
    binaries.require(binaries.NATS)
    return binaries.NATS.folder / "nats-server"


def debian(name, wanted):
    """Give a folder with these Debian packages unpacked."""
    folder = HOME / name
    with _once(folder) as needed:
        if needed:
            _unpack(folder, wanted)
    return folder


def kafka():
    """Give the folder of Kafka's jars."""
    folder = HOME / "kafka"
    packages.require(JAVA)
    with _once(folder) as needed:
        if needed:
            packages.require(MAVEN)
            say("fetching Kafka's jars (some seconds the first time)")
            goal = ("dependency:copy-dependencies", f"-DoutputDirectory={folder}")
            pom = HERE / "kafka-pom.xml"
            run(["mvn", "-B", "-q", "-f", pom, *goal], log=LOG, advice="see the log; Maven must reach its repository")
    return folder


def _unpack(folder, wanted):
    say(f"fetching Debian packages: {' '.join(wanted)}")
    archives = folder / "archives"
    archives.mkdir()
    advice = "see the log; apt must reach Debian's packages"
    fetch = ["apt-get", "download", *wanted]
    if not any(Path("/var/lib/apt/lists").glob("*Packages*")):
        run(["apt-get", "update"], log=LOG, advice=advice)
    archives.chmod(0o777)  # apt fetches as a user of its own
    run(fetch, log=LOG, advice=f"{advice}; an old list is renewed by apt-get update", cwd=archives)
    for archive in sorted(archives.glob("*.deb")):
        run(["dpkg-deb", "-x", archive, folder], log=LOG, advice="see the log")
    shutil.rmtree(archives)


@contextmanager
def _once(folder):
    """Tell whether a folder has to be filled, one process at a time; what was left half-done goes first."""
    HOME.mkdir(parents=True, exist_ok=True)
    ready = folder / ".ready"
    with (HOME / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        needed = not ready.exists()
        if needed:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        yield needed
        ready.touch()
