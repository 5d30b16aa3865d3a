"""What events of one source, name and mark share, made at first sight and kept: bounded, since sessions come and go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from shardwright_shard.journal import Source

_KEPT_SOURCES: Final = 1024
_KEPT_NAMES: Final = 512
T = TypeVar("T")


class Lines(dict[str, T]):
    """By event name."""

    def __init__(self, make: Callable[[str], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> T:
        """Make what is not there yet."""
        if len(self) >= _KEPT_NAMES:
            self.clear()
        line = self[name] = self._make(name)
        return line


class Prepared(Generic[T]):
    """By source; `make(source, name, backfill)` makes what is missing."""

    def __init__(self, make: Callable[[Source, str, bool], T]) -> None:
        self._make = make
        self._sources: dict[Source, tuple[Lines[T], Lines[T]]] = {}

    def lines(self, source: Source) -> tuple[Lines[T], Lines[T]]:
        """Give a source's lines: of plain events, and of those marked as backfill."""
        return self._sources.get(source) or self._meet(source)

    def _meet(self, source: Source) -> tuple[Lines[T], Lines[T]]:
        if len(self._sources) >= _KEPT_SOURCES:
            self._sources.clear()
        plain = Lines(lambda name: self._make(source, name, False))
        marked = Lines(lambda name: self._make(source, name, True))
        found = self._sources[source] = (plain, marked)
        return found

    def clear(self) -> None:
        """Forget all of it: something that is the same for all has changed."""
        self._sources.clear()
