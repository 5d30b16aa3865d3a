"""Ends a node's containers and shims, and unmounts what they had mounted: at `down`, and after a hard kill."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from testbed import cgroups, processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from testbed.settings import NodeSettings

SHIM = b"containerd-shim-runc-v2"
SHIM_SECONDS = 0.5


def end_all(node: NodeSettings) -> None:
    """Kill a node's containers, then their shims, then unmount everything below the node's folder."""
    cgroups.remove(node)
    for pid in _shims(node):
        processes.end(pid, seconds=SHIM_SECONDS)
    unmount_below(node.state)


def _shims(node: NodeSettings) -> Iterator[int]:
    """Find a node's shims: a shim's command line names the socket of the containerd that started it."""
    for folder in Path("/proc").glob("[0-9]*"):
        words = _command_line(folder)
        if words[0].endswith(SHIM) and str(node.socket).encode() in words:
            yield int(folder.name)


def _command_line(folder: Path) -> list[bytes]:
    try:
        return (folder / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return [b""]


def unmount_below(folder: Path) -> None:
    """Unmount everything below a folder, the last mounted first."""
    for target in reversed(_mounts_below(folder)):
        subprocess.run(["umount", "--lazy", target], capture_output=True, check=False)


def _mounts_below(folder: Path) -> list[str]:
    targets = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    decoded = [target.encode().decode("unicode_escape") for target in targets]
    return [target for target in decoded if Path(target).is_relative_to(folder)]
