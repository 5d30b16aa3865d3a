"""Pauses between attempts: exponential with jitter, from an injected random."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random


def backoff(random: Random, *, first: float = 0.1, limit: float = 5.0) -> Iterator[float]:
    """Yield pauses in seconds without end: each drawn from the upper half of `first`, doubled up to `limit`."""
    pause = first
    while True:
        yield pause * (0.5 + random.random() / 2)
        pause = min(limit, pause * 2)
