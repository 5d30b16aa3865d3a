"""Daemons: started once, told apart by their pidfile, stopped by process id.

A pidfile holds the process id *and* the process's start time (field 22 of `/proc/<pid>/stat`), so that a number
which the kernel has given to somebody else since is never signalled. Daemons get a session of their own and outlive
the program that started them; they see none of its environment. A zombie counts as stopped: the caller may be a
long-lived test run that has not reaped it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from testbed import settings
from testbed.errors import BedError
from testbed.progress import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RUN = settings.STATE / "run"
START_TIME_FIELD = 22 - 3  # counted after "pid (comm)", which is cut off
KILL_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """A program to keep running, and how to tell that it serves."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return settings.LOGS / f"{self.name}.log"


def start_time(pid: int) -> int | None:
    """Return when a live process started, in ticks since boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[START_TIME_FIELD])


def running(name: str) -> int | None:
    """Return the process id of a daemon that lives, by its pidfile."""
    try:
        pid, started = json.loads((RUN / f"{name}.json").read_text())
    except (OSError, ValueError):
        return None
    return pid if start_time(pid) == started else None


def known() -> list[str]:
    """Return the names of all daemons that have a pidfile."""
    return sorted(path.stem for path in RUN.glob("*.json"))


def start(daemon: Daemon) -> None:
    """Start a daemon unless it runs; do not wait for it."""
    if running(daemon.name) is not None:
        return
    RUN.mkdir(parents=True, exist_ok=True)
    pid = _spawn(daemon)
    temporary = RUN / f"{daemon.name}.tmp"
    temporary.write_text(json.dumps([pid, start_time(pid)]))
    temporary.replace(RUN / f"{daemon.name}.json")


def _spawn(daemon: Daemon) -> int:
    daemon.log.parent.mkdir(parents=True, exist_ok=True)
    argv = _in_namespace(daemon)
    env = {"PATH": f"{settings.BIN}:{settings.SYSTEM_PATH}", "HOME": str(settings.STATE), **daemon.env}
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(daemon.log), append, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawnp(argv[0], argv, env, file_actions=actions, setsid=True)


def _in_namespace(daemon: Daemon) -> tuple[str, ...]:
    if not daemon.namespace:
        return daemon.argv
    return ("nsenter", f"--net=/run/netns/{daemon.namespace}", *daemon.argv)


def wait_ready(daemon: Daemon, *, seconds: float = 60.0) -> None:
    """Wait until a daemon serves; raise `BedError` at once when it has died."""

    def ready() -> bool:
        if running(daemon.name) is None:
            raise BedError(f"{daemon.name} stopped right after its start", advice="read its log", log=daemon.log)
        return daemon.ready()

    advice = "read its log, then run the testbed's `down` and `up`"
    wait_until(ready, what=f"{daemon.name} is ready", advice=advice, log=daemon.log, seconds=seconds)


def stop(name: str, *, seconds: float = 5.0) -> None:
    """Stop a daemon by process id (SIGTERM, then SIGKILL after `seconds`) and remove its pidfile."""
    pid = running(name)
    if pid is not None:
        end(pid, seconds=seconds)
    (RUN / f"{name}.json").unlink(missing_ok=True)


def end(pid: int, *, seconds: float) -> None:
    """Bring one process to its end: SIGTERM, then SIGKILL for one that is still there after `seconds`."""
    for number, patience in ((signal.SIGTERM, seconds), (signal.SIGKILL, KILL_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        if _gone_within(pid, patience):
            return


def _gone_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while start_time(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
