"""Control groups of the bed's containers, on cgroup v1 and v2: made beforehand, and the way to end what is inside.

Every container process of a node is in a group below the node's own, whoever its parent has become since. So this
is also how the bed finds, by process id, containers whose containerd was killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from testbed import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.settings import NodeSettings

ROOT = Path("/sys/fs/cgroup")
PATIENCE_SECONDS = 5.0


def hierarchies() -> list[Path]:
    """Return the root of every hierarchy that containers are put in."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return [path for path in ROOT.iterdir() if (path / "cgroup.procs").exists() and not path.is_symlink()]


def prepare(node: NodeSettings) -> None:
    """Make a node's group in every hierarchy."""
    for hierarchy in hierarchies():
        group = hierarchy
        for part in Path(node.cgroup).parts:
            _delegate(group)
            group /= part
            group.mkdir(exist_ok=True)
            _inherit_cpuset(group)


def _delegate(group: Path) -> None:
    """Give the controllers of a version 2 group to its children."""
    available = group / "cgroup.controllers"
    if available.exists():
        wanted = " ".join(f"+{name}" for name in available.read_text().split())
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(wanted)


def _inherit_cpuset(group: Path) -> None:
    """Copy a version 1 cpuset from the parent: it starts empty, and no process may enter an empty one."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = group / name
        if file.exists() and not file.read_text().strip():
            with contextlib.suppress(OSError):
                file.write_text((group.parent / name).read_text())


def remove(node: NodeSettings) -> None:
    """End every process in a node's groups, then remove the groups."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (pids := set(_members(node))) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    for group in (*_groups(node), *(hierarchy / settings.CGROUP for hierarchy in hierarchies())):
        with contextlib.suppress(OSError):
            group.rmdir()


def _groups(node: NodeSettings) -> Iterator[Path]:
    """Walk a node's groups, the innermost first."""
    for hierarchy in hierarchies():
        for folder, _, _ in os.walk(hierarchy / node.cgroup, topdown=False):
            yield Path(folder)


def _members(node: NodeSettings) -> Iterator[int]:
    for group in _groups(node):
        with contextlib.suppress(OSError):
            yield from map(int, (group / "cgroup.procs").read_text().split())
