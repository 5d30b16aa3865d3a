"""What the test bed raises: one error, which says what to do next and where the log is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

TAIL_LINES = 12


class BedError(Exception):
    """A step of the test bed failed.

    * `message` says what failed,
    * `advice` says what to do about it,
    * `log` is the file to read; its last lines are shown too.
    """

    def __init__(self, message: str, *, advice: str, log: Path | None = None) -> None:
        super().__init__(message)
        self.advice = advice
        self.log = log

    def __str__(self) -> str:
        parts = [self.args[0], f"  what to do: {self.advice}"]
        if self.log is not None:
            parts += [f"  log: {self.log}", *(f"  | {line}" for line in tail(self.log))]
        return "\n".join(parts)


def tail(log: Path) -> list[str]:
    """Return the last lines of a log, or none when it is not there."""
    if not log.exists():
        return []
    return log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
