"""A node: containerd, kubelet and kube-proxy, for the host's network or a namespace of its own.

All a node writes is below its state folder, except `/var/log/containers`, `/var/lib/cni/results` and the shims'
sockets, where the programs leave no choice: `stop` removes what is ours there.

containerd runs without `CAP_SYS_RESOURCE` too (`restrict_oom_score_adj`). Pods get point-to-point links: whatever
they send passes the host's routing, so that services work between two pods of one node without bridge filtering.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed import api, archives, cgroups, containers, pki, processes, settings
from testbed.control_plane import answers
from testbed.processes import Daemon
from testbed.progress import run

if TYPE_CHECKING:
    from testbed.settings import NodeSettings

CNI_PLUGINS = "/usr/lib/cni"
CNI_NETWORK = "shardwright"
STOP_SECONDS = 2.0
PROXY_HEALTH_PORT = 10256

CONTAINERD_CONFIG = """\
version = 3
root = '{state}/containerd'
state = '{state}/containerd-run'

[grpc]
  address = '{socket}'

[plugins.'io.containerd.internal.v1.opt']
  path = '{state}/opt'

[plugins.'io.containerd.nri.v1.nri']
  disable = true

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['{cni}']
  conf_dir = '{state}/cni'
  use_internal_loopback = true

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = '{runc}'
  Root = '{state}/runc'
  SystemdCgroup = false

[plugins.'io.containerd.cri.v1.images']
  snapshotter = 'overlayfs'

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{pause}'
"""


def start(node: NodeSettings) -> None:
    """Start what does not run of a node, and wait until it is Ready."""
    prepare(node)
    runtime = containerd(node)
    processes.start(proxy(node))
    processes.start(runtime)
    processes.wait_ready(runtime)
    _import_pause(node)
    processes.start(kubelet(node))
    for daemon in (proxy(node), kubelet(node)):
        processes.wait_ready(daemon)


def stop(node: NodeSettings) -> None:
    """Stop a node's daemons (the kubelet first, so that nothing starts containers again) and end its containers."""
    for name in node.daemons:
        processes.stop(name, seconds=STOP_SECONDS)
    containers.end_all(node)
    _forget(node)


def running(node: NodeSettings) -> bool:
    """Tell whether all of a node's daemons run."""
    return all(processes.running(name) is not None for name in node.daemons)


def prepare(node: NodeSettings) -> None:
    """Write a node's configuration and make its control groups."""
    (node.state / "cni").mkdir(parents=True, exist_ok=True)
    cgroups.prepare(node)
    _write(node.state / "containerd.toml", _containerd_config(node))
    _write(node.state / "cni" / "10-pods.conflist", json.dumps(_cni_config(node), indent=2))
    _write(node.state / "kubelet.json", json.dumps(_kubelet_config(node), indent=2))
    _write(node.state / "kube-proxy.json", json.dumps(_proxy_config(node), indent=2))
    _write(node.state / "resolv.conf", f"nameserver {settings.NODE_ADDRESS}\n")


def _write(path: Path, text: str) -> None:
    """Write a file unless it holds the text already: kube-proxy ends when its configuration is touched."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def _containerd_config(node: NodeSettings) -> str:
    runc = shutil.which("runc", path=settings.SYSTEM_PATH) or "runc"
    return CONTAINERD_CONFIG.format(
        state=node.state, socket=node.socket, cni=CNI_PLUGINS, runc=runc, pause=settings.PAUSE_IMAGE
    )


def _cni_config(node: NodeSettings) -> dict[str, Any]:
    ipam = {
        "type": "host-local",
        "dataDir": str(node.state / "addresses"),
        "ranges": [[{"subnet": node.pod_range}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    plugins = [{"type": "ptp", "mtu": 1500, "ipam": ipam}, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return {"cniVersion": "1.0.0", "name": f"{CNI_NETWORK}-{node.name}", "plugins": plugins}


def _kubelet_config(node: NodeSettings) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.CA)},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{node.socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        "podLogsDir": str(node.state / "pod-logs"),
        "volumePluginDir": str(node.state / "volume-plugins"),
        "resolvConf": str(node.state / "resolv.conf"),
        "clusterDNS": [settings.NODE_ADDRESS],
        "clusterDomain": settings.CLUSTER_DOMAIN,
        # A full disk of the host is not the bed's business: never evict, never collect the images we imported.
        "evictionHard": dict.fromkeys(("nodefs.available", "nodefs.inodesFree", "imagefs.available"), "0%"),
        "imageGCHighThresholdPercent": 100,
    }


def _proxy_config(node: NodeSettings) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(pki.kubeconfig(pki.PROXY))},
        "clusterCIDR": settings.POD_RANGES,
        "conntrack": {"maxPerCore": 0, "min": 0},
        "oomScoreAdj": 0,
        "healthzBindAddress": f"{node.address}:{PROXY_HEALTH_PORT}",
        "metricsBindAddress": "127.0.0.1:10249",
    }


def containerd(node: NodeSettings) -> Daemon:
    """Return a node's container runtime."""
    argv = (str(settings.BIN / "containerd"), "--config", str(node.state / "containerd.toml"), "--log-level=info")
    return Daemon(name=f"{node.name}-containerd", argv=argv, ready=node.socket.is_socket, namespace=node.namespace)


def kubelet(node: NodeSettings) -> Daemon:
    """Return a node's kubelet; it is ready when the API server says that the node is."""
    argv = (
        str(settings.BIN / "kubelet"),
        f"--config={node.state / 'kubelet.json'}",
        f"--kubeconfig={pki.kubeconfig(node.user)}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
        f"--root-dir={node.state / 'kubelet'}",
        f"--cert-dir={node.state / 'kubelet-pki'}",
    )
    ready = partial(api.node_ready, node.name)
    return Daemon(name=f"{node.name}-kubelet", argv=argv, ready=ready, namespace=node.namespace)


def proxy(node: NodeSettings) -> Daemon:
    """Return kube-proxy: it turns service addresses into pods' for all that passes the host."""
    argv = (
        str(settings.BIN / "kube-proxy"),
        f"--config={node.state / 'kube-proxy.json'}",
        f"--hostname-override={node.name}",
    )
    health = f"http://{node.address}:{PROXY_HEALTH_PORT}/healthz"
    return Daemon(name=f"{node.name}-kube-proxy", argv=argv, ready=lambda: answers(health), namespace=node.namespace)


def _import_pause(node: NodeSettings) -> None:
    """Have the image of the pods' sandboxes."""
    archive = node.state / "pause.tar"
    archives.of_program(program=settings.BIN / "pause", name=settings.PAUSE_IMAGE, command=["/pause"], to=archive)
    import_image(archive, node)


def import_image(archive: Path, node: NodeSettings) -> None:
    """Import an archive into a node's containerd, where the kubelet looks for images."""
    command: list[str | Path] = [settings.BIN / "ctr", "-a", node.socket, "-n", "k8s.io", "images", "import", archive]
    run(command, log=settings.LOGS / "import.log", advice="read the log, and that of containerd beside it")


def _forget(node: NodeSettings) -> None:
    """Remove what a node's programs wrote outside its state folder."""
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and link.readlink().is_relative_to(node.state):
            link.unlink()
    for result in Path("/var/lib/cni/results").glob(f"{CNI_NETWORK}-{node.name}-*"):
        result.unlink()
    for bootstrap in (node.state / "containerd-run").glob("*/*/*/bootstrap.json"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            Path(json.loads(bootstrap.read_text())["address"].removeprefix("unix://")).unlink()
