"""Processes of this machine that a fault strikes: containers' programs, found by their pod's control group, and NATS."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")


def of_pod(uid: str, program: str) -> list[int]:
    """Find the processes of a pod that run a Python module or program of this name."""
    found = {pid for folder in _groups(uid) for pid in _pids(folder)}
    return sorted(pid for pid in found if program in _command(pid))


def _groups(uid: str) -> list[Path]:
    roots = [GROUPS / "pids" / "shardwright", GROUPS / "shardwright"]
    return [group for root in roots if root.exists() for group in root.glob(f"*/**/*{uid}/*/cgroup.procs")]


def _pids(file: Path) -> list[int]:
    try:
        return [int(pid) for pid in file.read_text().split()]
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def send(pids: list[int], what: signal.Signals) -> int:
    """Send a signal; say to how many that still ran."""
    return sum(_send(pid, what) for pid in pids)


def _send(pid: int, what: signal.Signals) -> bool:
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        return False
    return True


class NatsServer:
    """A NATS server on this machine, reached by pods at the node's address; its stream outlives its process."""

    def __init__(self, binary: Path, folder: Path, address: str) -> None:
        self._binary = binary
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.address = address
        with socket.socket() as probe:
            probe.bind((address, 0))
            self.port: int = probe.getsockname()[1]

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{self.address}:{self.port}"

    async def start(self) -> None:
        """Start it and wait until it takes connections."""
        command = [self._binary, "-js", "-sd", self._folder, "-a", self.address, "-p", str(self.port)]
        log = (self._folder / "nats.log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        while True:
            try:
                _, writer = await asyncio.open_connection(self.address, self.port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
