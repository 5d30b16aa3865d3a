"""The plug-in point for sinks: one small Protocol.

The pod makes a sink, gives it a `Reader` of the journal, and runs `run()` as one task for the whole life of the pod.
`wake()` is called after each append, on the event loop, and publishes at once what it can without waiting; it must not
block or raise. A sink that is away does nothing in `wake()`; when it is back it calls `reader.rewind()` and goes on.

A sink filters by its own `EventFilter`: an event that it does not take counts as acknowledged together with its
predecessors. Whether it takes events now is `available`, with `message` for people when it does not.
"""

from __future__ import annotations

from typing import Protocol

from shardwright_shard.journal import Reader


class Sink(Protocol):
    """One sink of the pod."""

    name: str
    available: bool
    """Whether events sent now would be acknowledged soon."""
    blocking: bool
    """Whether events wait for it. One that drops instead holds back neither cursor nor identify nor readiness."""

    @property
    def message(self) -> str:
        """Say why it is not available: for conditions and logs; names streams and hosts, never secrets."""

    def attach(self, reader: Reader) -> None:
        """Take the reader: called once, before `run`."""

    def wake(self) -> None:
        """Publish what stands behind the read position, as far as that needs no waiting."""

    async def run(self) -> None:
        """Connect, serve, and reconnect until cancelled. Never returns by itself; never raises for faults of the sink."""

    def statistics(self) -> dict[str, int]:
        """Give plain integers: what became of events, `reconnects`, `pending`.

        `published`, `acknowledged`, `filtered`, `oversize`, `refused`; where a sink may drop also `expired`, `dropped`.
        """
