"""Debian packages: what the bed needs from the system, found by file, installed only where missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from testbed import settings
from testbed.errors import BedError
from testbed.progress import run, say

# package: a program on PATH or an absolute path that proves it is there
NEEDED = {
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "iptables": "iptables",
    "nftables": "nft",
    "conntrack": "conntrack",
    "socat": "socat",
    "iproute2": "ip",
    "util-linux": "nsenter",
    "openssl": "openssl",
    "ca-certificates": "/etc/ssl/certs/ca-certificates.crt",
}
NEEDED_FOR_IMAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}


def require(needed: dict[str, str]) -> None:
    """Install the packages that are missing; raise `BedError` with the exact command where that is impossible."""
    missing = sorted(package for package, proof in needed.items() if not _there(proof))
    if missing:
        _install(missing)


def require_root() -> None:
    """Raise `BedError` unless run as root: namespaces, cgroups and mounts need it."""
    if os.geteuid() != 0:
        raise BedError("the test bed needs root", advice="run the same command with sudo, or in a throw-away machine")


def _there(proof: str) -> bool:
    if proof.startswith("/"):
        return Path(proof).exists()
    return shutil.which(proof, path=settings.SYSTEM_PATH) is not None


def _install(missing: list[str]) -> None:
    command = ["apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300", *missing]
    advice = f"install them yourself: apt-get update && {' '.join(command)}"
    if shutil.which("apt-get") is None:
        raise BedError(f"missing packages: {' '.join(missing)}", advice=f"on Debian: {advice}")
    log = settings.CACHE / "logs" / "apt.log"
    say(f"installing Debian packages: {' '.join(missing)}")
    run(["apt-get", "update"], log=log, advice=advice)
    run(command, log=log, advice=advice, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
