"""A second node in a network namespace of its own, for tests that lose a node.

One end of a link hangs on the bridge `kube0`, the other is the namespace's `eth0`. The node's daemons run inside with
their own folder, socket and control group. Cutting the link loses the node as a failing network would: its
processes and pods go on, and nobody hears of them (`NotReady` after 50 s, pods evicted as their tolerations say).
"""

from __future__ import annotations

import shutil

from testbed import api, images, network, node, settings
from testbed.errors import BedError
from testbed.progress import say

NODE = settings.NODE_2
LINK = "shardwright-2"
_NAMESPACE_LINK = "shardwright-2n"


def up() -> None:
    """Bring the second node up, unless it is; the bed must be up."""
    if not api.healthy():
        raise BedError("the bed is not up", advice="run `up` first")
    if node.running(NODE) and api.node_ready(NODE.name):
        return
    say("starting the second node")
    _make_network()
    set_link(up=True)
    node.start(NODE)
    images.import_like(settings.NODE_1, into=NODE)


def down() -> None:
    """Stop the second node, forget it and its pods in the API server, and remove its namespace and folder."""
    node.stop(NODE)
    api.delete(f"/api/v1/nodes/{NODE.name}")
    for path in _pods():
        api.delete(f"{path}?gracePeriodSeconds=0")
    remove_network()
    shutil.rmtree(NODE.state, ignore_errors=True)


def _pods() -> list[str]:
    found = api.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{NODE.name}") or {"items": []}
    names = [pod["metadata"] for pod in found["items"]]
    return [f"/api/v1/namespaces/{name['namespace']}/pods/{name['name']}" for name in names]


def set_link(*, up: bool) -> None:
    """Plug the second node's network cable in or out."""
    network.ip("link", "set", LINK, "up" if up else "down")
    if up:
        network.ip("route", "replace", NODE.pod_range, "via", NODE.address)


def _make_network() -> None:
    if network.link_exists(LINK):
        return
    network.ip("netns", "add", NODE.namespace)
    network.ip("link", "add", LINK, "type", "veth", "peer", "name", _NAMESPACE_LINK)
    network.ip("link", "set", LINK, "master", settings.BRIDGE)
    network.ip("link", "set", _NAMESPACE_LINK, "netns", NODE.namespace, "name", "eth0")
    _configure_namespace()


def _configure_namespace() -> None:
    inside = ("-n", NODE.namespace)
    network.ip(*inside, "address", "replace", f"{NODE.address}/{settings.NODE_PREFIX}", "dev", "eth0")
    for link in ("lo", "eth0"):
        network.ip(*inside, "link", "set", link, "up")
    network.ip("link", "set", LINK, "up")
    network.ip(*inside, "route", "replace", "default", "via", settings.NODE_ADDRESS)
    network.ip(*inside, "route", "replace", settings.NODE_1.pod_range, "via", settings.NODE_ADDRESS)
    network.ip("netns", "exec", NODE.namespace, "sh", "-c", f"echo 1 > {network.FORWARDING}")


def remove_network() -> None:
    """Remove the namespace and its link."""
    if network.link_exists(LINK):
        network.ip("link", "delete", LINK)
    network.attempt("ip", "netns", "delete", NODE.namespace)
