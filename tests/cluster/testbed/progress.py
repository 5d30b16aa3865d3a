"""Lines that tell a person what happens, and the one way to run a program to its end.

Every command's output goes to a log. A failure raises `BedError` with the end of that log. A command that takes
long says so every 30 seconds, so that nobody has to guess whether it hangs.
"""

from __future__ import annotations

import subprocess
import time
from typing import TYPE_CHECKING

from testbed.errors import BedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

STARTED = time.monotonic()
REMIND_SECONDS = 30.0


def say(text: str) -> None:
    """Print one line with the seconds since the program started."""
    print(f"[{time.monotonic() - STARTED:4.0f} s] {text}", flush=True)


def run(
    argv: Sequence[str | Path],
    *,
    log: Path,
    advice: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a program to its end, its output appended to `log`; raise `BedError` when it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        output.write(f"$ {' '.join(map(str, argv))}\n")
        output.flush()
        with subprocess.Popen(
            argv, stdout=output, stderr=output, stdin=subprocess.DEVNULL, env=env, cwd=cwd
        ) as process:
            _watch(process, log)
    if process.returncode:
        raise BedError(f"{argv[0]} ended with code {process.returncode}", advice=advice, log=log)


def _watch(process: subprocess.Popen[bytes], log: Path) -> None:
    started = time.monotonic()
    while True:
        try:
            process.wait(timeout=REMIND_SECONDS)
        except subprocess.TimeoutExpired:
            say(f"  ... still at it after {time.monotonic() - started:.0f} s (log: {log})")
        else:
            return


def output(argv: Sequence[str | Path]) -> str:
    """Return what a quick program prints, or an empty text when it fails or is not there."""
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=20).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def wait_until(
    condition: Callable[[], bool], *, what: str, advice: str, log: Path | None = None, seconds: float = 60.0
) -> None:
    """Poll `condition` until it holds; raise `BedError` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BedError(f"{what}: not within {seconds:.0f} s", advice=advice, log=log)
        time.sleep(0.05)
