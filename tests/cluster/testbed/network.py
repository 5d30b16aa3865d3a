"""The node's address, forwarding, and what has to be taken back at the end.

The bridge `kube0` carries the node's address: kubelet refuses a loopback one, and the host's own would open the
bed's ports to the outside. Pods hang on point-to-point links which vanish with their namespaces.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from testbed import settings
from testbed.progress import run

LOG = settings.LOGS / "network.log"
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_FORWARDING_BEFORE = settings.STATE / "ip_forward.before"
_ADVICE = "the bed needs to make bridges and routes: run it as root on a machine (or in a container) that may"
_OUR_TABLES = (("ip", "kube-proxy"), ("ip6", "kube-proxy"))


def ip(*arguments: str) -> None:
    """Run `ip`, and raise `BedError` when it fails."""
    run(["ip", *arguments], log=LOG, advice=_ADVICE)


def attempt(*argv: str) -> bool:
    """Run a command that may fail; tell whether it worked."""
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def prepare() -> None:
    """Have the bridge with the node's address, and forwarding."""
    if not link_exists(settings.BRIDGE):
        ip("link", "add", settings.BRIDGE, "type", "bridge")
    ip("address", "replace", f"{settings.NODE_ADDRESS}/{settings.NODE_PREFIX}", "dev", settings.BRIDGE)
    ip("link", "set", settings.BRIDGE, "up")
    _remember_forwarding()
    FORWARDING.write_text("1")


def link_exists(name: str) -> bool:
    """Tell whether a network link of the host's namespace exists."""
    return attempt("ip", "link", "show", "dev", name)


def remove() -> None:
    """Take back the bridge, kube-proxy's tables and the forwarding switch."""
    if link_exists(settings.BRIDGE):
        attempt("ip", "link", "delete", settings.BRIDGE)
    for family, table in _OUR_TABLES:
        attempt("nft", "delete", "table", family, table)
    if _FORWARDING_BEFORE.exists():
        FORWARDING.write_text(_FORWARDING_BEFORE.read_text())


def _remember_forwarding() -> None:
    if not _FORWARDING_BEFORE.exists():
        _FORWARDING_BEFORE.write_text(FORWARDING.read_text())
