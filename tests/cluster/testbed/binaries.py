"""The programs of the cluster: found in the cache, on the machine, or built once from Go modules.

Each *set* is one Go module below `gomod/`, whose go.mod and go.sum pin everything. A set's programs stand in
`<cache>/<set>/<version>/`; `<cache>/bin` links to the ones in use. A program that is already on `PATH` or in
`KUBEBUILDER_ASSETS` is linked instead of built, when it tells exactly the version we want.

Builds run one after the other: each uses all cores by itself, and the sets share much of the build cache.
To move to another version: change it here and in the set's go.mod, then `go mod tidy` in that folder.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from testbed import settings
from testbed.errors import BedError
from testbed.progress import output, run, say

if TYPE_CHECKING:
    from collections.abc import Iterator

GOMOD = settings.HERE / "gomod"
OWN = "shardwright.dev/"
GOFLAGS = "-trimpath -buildvcs=false -mod=readonly"


@dataclass(frozen=True, kw_only=True)
class BinarySet:
    """One Go module and the programs built from it: name of the program -> its package."""

    name: str
    version: str
    packages: dict[str, str]
    ldflags: str = ""
    tags: str = ""
    first_time: str
    version_arguments: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where its programs are kept."""
        return settings.CACHE / self.name / self.version

    @property
    def log(self) -> Path:
        """Where its build is logged."""
        return settings.CACHE / "logs" / f"build-{self.name}-{self.version}.log"

    def missing(self) -> list[str]:
        """Return the programs that are neither built nor linked."""
        return [program for program in self.packages if not (self.folder / program).exists()]


_KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
_CONTAINERD = ("containerd", "containerd-shim-runc-v2", "ctr")
_KUBE_VERSION = "k8s.io/component-base/version"

KUBERNETES = BinarySet(
    name="kubernetes",
    version="1.37.2",
    packages={program: f"k8s.io/kubernetes/cmd/{program}" for program in _KUBERNETES},
    ldflags=f"-X {_KUBE_VERSION}.gitVersion=v1.37.2 -X {_KUBE_VERSION}.gitMajor=1 -X {_KUBE_VERSION}.gitMinor=37",
    first_time="about 8 minutes",
    version_arguments={"kubectl": ("version", "--client")},
)
ETCD = BinarySet(
    name="etcd",
    version="3.7.3",
    packages={"etcd": "go.etcd.io/etcd/server/v3"},
    first_time="about a minute",
)
CONTAINERD = BinarySet(
    name="containerd",
    version="2.4.2",
    packages={program: f"github.com/containerd/containerd/v2/cmd/{program}" for program in _CONTAINERD},
    ldflags="-X github.com/containerd/containerd/v2/version.Version=v2.4.2",
    tags="no_btrfs no_devmapper no_zfs",
    first_time="about 2 minutes",
    version_arguments={"containerd-shim-runc-v2": ("-v",)},
)
HELM = BinarySet(
    name="helm",
    version="4.3.1",
    packages={"helm": "helm.sh/helm/v4/cmd/helm"},
    ldflags="-X helm.sh/helm/v4/internal/version.version=v4.3.1",
    first_time="about a minute",
    version_arguments={"helm": ("version",)},
)
NATS = BinarySet(
    name="nats",
    version="2.15.2",
    packages={"nats-server": "github.com/nats-io/nats-server/v2"},
    first_time="half a minute",
)
PAUSE = BinarySet(
    name="pause",
    version="1",
    packages={"pause": "shardwright.dev/testbed/pause"},
    first_time="some seconds",
)
DNS = BinarySet(
    name="dns",
    version="1.15.0",
    packages={"coredns": "shardwright.dev/testbed/dns/coredns"},
    first_time="about a minute",
)
SETS = (KUBERNETES, ETCD, CONTAINERD, PAUSE, DNS, NATS, HELM)


def require_all() -> None:
    """Have every program in `<cache>/bin`, building what is missing."""
    for binaries in SETS:
        require(binaries)
    settings.BIN.mkdir(parents=True, exist_ok=True)
    for binaries in SETS:
        for program in binaries.packages:
            _link(settings.BIN / program, binaries.folder / program)


def require(binaries: BinarySet) -> None:
    """Have one set's programs in its folder, building what is missing."""
    if not binaries.missing():
        return
    binaries.folder.mkdir(parents=True, exist_ok=True)
    for program in binaries.missing():
        found = _on_machine(binaries, program)
        if found is not None:
            _link(binaries.folder / program, found)
    if binaries.missing():
        _build(binaries)


def _on_machine(binaries: BinarySet, program: str) -> Path | None:
    """Return a program of exactly the wanted version that somebody has installed; never for our own programs."""
    if binaries.packages[program].startswith(OWN):
        return None
    arguments = binaries.version_arguments.get(program, ("--version",))
    for folder in _search_folders():
        candidate = folder / program
        if os.access(candidate, os.X_OK) and _tells(output([candidate, *arguments]), binaries.version):
            return candidate
    return None


def _search_folders() -> Iterator[Path]:
    for folder in os.environ.get("KUBEBUILDER_ASSETS", "").split(os.pathsep) + os.get_exec_path():
        if folder and Path(folder) != settings.BIN:
            yield Path(folder)


def _tells(text: str, version: str) -> bool:
    words = text.replace(",", " ").replace('"', " ").replace(":", " ").split()
    return version in words or f"v{version}" in words


def _link(link: Path, target: Path) -> None:
    if link.is_symlink() and link.readlink() == target:
        return
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def _build(binaries: BinarySet) -> None:
    advice = "see the log; when a module cannot be fetched, check that `go mod download` works on this machine"
    say(f"building {binaries.name} {binaries.version} ({binaries.first_time} the first time; log: {binaries.log})")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=binaries.folder) as fresh:
        flags = ["-tags", binaries.tags, "-ldflags", f"-s -w {binaries.ldflags}", "-o", f"{fresh}/"]
        command = [_go(), "build", *flags, *(binaries.packages[program] for program in binaries.missing())]
        run(command, log=binaries.log, advice=advice, env=_build_environment(), cwd=GOMOD / binaries.name)
        for program in binaries.missing():
            Path(fresh, _built_name(binaries.packages[program])).replace(binaries.folder / program)
    say(f"built {binaries.name} in {time.monotonic() - started:.0f} s")


def _built_name(package: str) -> str:
    """Return what `go build` calls a package's program: the last part of its path that is no major version."""
    return [part for part in package.split("/") if not re.fullmatch(r"v\d+", part)][-1]


def _go() -> str:
    go = shutil.which("go")
    if go is None:
        raise BedError("Go is not installed", advice="install Go 1.26 or newer, and put it on PATH")
    return go


def _build_environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": GOFLAGS}
