"""Versions, addresses and folders: everything about the test bed that is a choice and not a deed.

Two folders hold all that the bed writes:

* the *state* (`SHARDWRIGHT_TESTBED`): etcd, containerd, kubelet, certificates, logs, pidfiles. `down` removes it.
* the *cache* (`SHARDWRIGHT_CACHE`): binaries by version, the base image, built images. It is kept.

A `NodeSettings` names what differs between the first node (the host's own network) and the second (a namespace).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]
STATE = Path(os.environ.get("SHARDWRIGHT_TESTBED") or "/var/tmp/shardwright-testbed").absolute()
CACHE = Path(os.environ.get("SHARDWRIGHT_CACHE") or "~/.cache/shardwright").expanduser().absolute()

# What daemons and tools see: none of the caller's environment.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

BIN = CACHE / "bin"
LOGS = STATE / "logs"
PKI = STATE / "pki"
ADMIN_KUBECONFIG = STATE / "admin.kubeconfig"

BRIDGE = "kube0"
NODE_ADDRESS = "10.200.0.1"
NODE_PREFIX = 24
API_PORT = 6443
API_URL = f"https://{NODE_ADDRESS}:{API_PORT}"
POD_RANGES = "10.244.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"
FIRST_SERVICE_ADDRESS = "10.96.0.1"
CLUSTER_DOMAIN = "cluster.local"
ETCD_CLIENT = "http://127.0.0.1:23790"
ETCD_PEER = "http://127.0.0.1:23800"
CGROUP = "shardwright"

PAUSE_IMAGE = "localhost/shardwright/pause:1"


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """One node: its name, its addresses, and the network namespace it lives in (the host's when empty)."""

    name: str
    address: str
    pod_range: str
    namespace: str = ""

    @property
    def state(self) -> Path:
        """Folder of this node's containerd, kubelet and CNI files."""
        return STATE / self.name

    @property
    def socket(self) -> Path:
        """The containerd socket: also what tells this node's shims from any others on the machine."""
        return self.state / "containerd.sock"

    @property
    def daemons(self) -> tuple[str, ...]:
        """Names of this node's daemons, in the order in which they are stopped."""
        return tuple(f"{self.name}-{program}" for program in ("kubelet", "kube-proxy", "containerd"))

    @property
    def cgroup(self) -> str:
        """Path below the root of every cgroup hierarchy; every container process of this node is inside."""
        return f"{CGROUP}/{self.name}"

    @property
    def user(self) -> str:
        """What the kubelet is to the API server."""
        return f"system:node:{self.name}"


NODE_1 = NodeSettings(name="node-1", address=NODE_ADDRESS, pod_range="10.244.0.0/24")
NODE_2 = NodeSettings(name="node-2", address="10.200.0.2", pod_range="10.244.1.0/24", namespace="shardwright-2")
NODES = (NODE_1, NODE_2)
