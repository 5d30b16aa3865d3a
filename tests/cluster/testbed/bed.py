"""Up, down, status: the order in which things start and end.

`up` is level-triggered. What runs is left alone; what is missing is started; when *nothing* of a former bed runs any
more (the machine was kept, its processes were not), the leftovers are removed first and the bed is made anew.
A lock beside the state folder lets one `up` or `down` work at a time.

Order of `up`: packages, binaries, bridge, keys; etcd, API server, controllers, scheduler, names;
containerd, the pause image, kubelet, kube-proxy. `down` goes the other way, and ends leftover containers by process id.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
from typing import TYPE_CHECKING

from testbed import (
    api,
    binaries,
    control_plane,
    network,
    node,
    packages,
    pki,
    processes,
    second_node,
    settings,
)
from testbed.progress import say, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

STOP_SECONDS = 1.0


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Let one program change the bed at a time; others wait."""
    settings.STATE.parent.mkdir(parents=True, exist_ok=True)
    with settings.STATE.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def up() -> None:
    """Bring the bed up, or do nothing when it is."""
    packages.require_root()
    with locked():
        if not healthy():
            _make()
    say(f"up: KUBECONFIG={settings.ADMIN_KUBECONFIG} tools={settings.BIN} logs={settings.LOGS}")


def healthy() -> bool:
    """Tell whether all daemons run, the API server is ready and so is the node."""
    daemons_run = all(processes.running(daemon.name) is not None for daemon in control_plane.all_daemons())
    return daemons_run and node.running(settings.NODE_1) and api.healthy() and api.node_ready(settings.NODE_1.name)


def _make() -> None:
    packages.require(packages.NEEDED)
    binaries.require_all()
    _forget_dead_bed()
    settings.STATE.mkdir(parents=True, exist_ok=True)
    network.prepare()
    pki.create()
    control_plane.write_corefile()
    say("starting the control plane")
    for daemon in control_plane.all_daemons():
        processes.start(daemon)
        processes.wait_ready(daemon)
    say("starting the node")
    node.start(settings.NODE_1)
    wait_until(_default_account, what="the default service account exists", advice="read the log",
               log=control_plane.controllers().log)  # fmt: skip


def _default_account() -> bool:
    return api.get("/api/v1/namespaces/default/serviceaccounts/default") is not None


def _forget_dead_bed() -> None:
    """Remove what a bed left whose processes are all gone."""
    if settings.STATE.exists() and not any(map(processes.running, processes.known())):
        say("cleaning up after a bed whose processes are gone")
        _remove()


def down() -> None:
    """Stop everything and remove the state folder; keep the cache."""
    packages.require_root()
    with locked():
        _remove()


def _remove() -> None:
    """Stop the nodes, then the control plane (etcd last), then remove what they left."""
    for where in reversed(settings.NODES):
        node.stop(where)
    for daemon in reversed(control_plane.all_daemons()):
        processes.stop(daemon.name, seconds=STOP_SECONDS)
    second_node.remove_network()
    network.remove()
    shutil.rmtree(settings.STATE, ignore_errors=True)


def stop_api_server() -> None:
    """Take the API server away, as a failing control plane would."""
    with locked():
        processes.stop(control_plane.API_SERVER, seconds=STOP_SECONDS)


def start_api_server() -> None:
    """Bring the API server back, and wait until it is ready."""
    daemon = control_plane.api_server()
    with locked():
        processes.start(daemon)
        processes.wait_ready(daemon)


def second_node_up() -> None:
    """Bring the second node up, unless it is."""
    with locked():
        second_node.up()


def second_node_down() -> None:
    """Stop the second node and remove all of it."""
    with locked():
        second_node.down()


def status() -> str:
    """Return what runs, and where its log is."""
    rows = [f"{name:28} {_process(name):12} {settings.LOGS / name}.log" for name in processes.known()]
    rows.append(f"API server ready: {api.healthy()}")
    rows += [f"{where.name} ready: {api.healthy() and api.node_ready(where.name)}" for where in settings.NODES]
    return "\n".join(rows)


def _process(name: str) -> str:
    pid = processes.running(name)
    return "stopped" if pid is None else f"pid {pid}"
