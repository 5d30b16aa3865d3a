"""What must survive the container: a checkpoint file and the spool, in the pod's state directory.

Theory of operation. The directory is an `emptyDir`, which a container finds again after a crash, or a claim, which
another pod finds. It belongs to whoever has its lock (`flock`: a process that dies lets go of it); a pod asks for the
lock when it has taken its range, never as a standby, and gives it up with the range as soon as nothing waits in the
spool. A pod that gets no directory, or no lock, works without: from memory and the ShardRange alone. For a lock it asks
again while it holds the range. A directory that fails while it is opened is not used, and left as it is.

Nobody waits for a disk for ever: beginnings and ends of holdings take place one after the other (`_in_turn`), and the pod
goes on without them where the disk does not answer in time. They then happen late, which does no harm: a spool is taken
over by a journal that held nothing yet, and no other.

The file says how far each sink has acknowledged, in the journal's positions, and holds the shards' rows as the ShardRange
does. It is written when something changed, once a second at the most, at once for a new session, and at the end: to
another name, synced, renamed. It is written before anything is appended and before a segment of the spool is deleted,
so that the file's positions always fit the spool.

What is *durable* follows from both: the last sequence of a session in the spool, or the acknowledged one. A damaged spool
is cut off where the damage begins, and the cursor falls back with it.

Which knowledge holds (`choose`): the file counts where nobody has held the range since it was written, which the epoch
tells. Then, for each shard, of two sessions the one told later (the file's time against the heartbeat's, one clock), and
of one session the higher sequence. Else the ShardRange alone counts; the spool is forwarded all the same: what is sent
twice has the same id. A file that is half-written, foreign, or of a newer format is dropped with a log line.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from msgspec.structs import replace

from shardwright_api.resources import RangeSpec, RangeStatus, ShardState, ShardStatus
from shardwright_shard.coordination.base import View
from shardwright_shard.journal import InThread, Journal, Reader, Source
from shardwright_shard.session import Resumable
from shardwright_shard.spool import Chunk, Spool, sync_directory

log = logging.getLogger(__name__)

FORMAT: Final = 1
EVERY: Final = 1.0
"""Seconds between two checkpoints at the least, unless one is asked for."""
OPEN_PATIENCE: Final = 10.0
"""Seconds that a pod waits for what the last holder left. It writes no heartbeat meanwhile."""
PATIENCE: Final = 5.0
"""Seconds that it waits for the disk otherwise."""
ASK_AGAIN: Final = 5.0
"""Seconds after which a lock that another pod had is asked for again."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The file. `time` is Unix time in seconds; `sinks`: the position before which each has acknowledged everything."""

    format: int = FORMAT
    binding: str
    epoch: int
    time: float
    shards: tuple[ShardStatus, ...]
    sinks: dict[str, int]


class _Format(msgspec.Struct):
    format: int


def binding(spec: RangeSpec) -> str:
    """Say whose events and sessions these are."""
    return f"{spec.config.gateway}: bot {spec.bot_id}, shards {spec.first}-{spec.last} of {spec.total}"


def parse(raw: bytes, wanted: str) -> Checkpoint:
    """Read a file. Raise `ValueError` saying why it is of no use."""
    try:
        found = msgspec.json.decode(raw, type=_Format).format
        if found != FORMAT:
            raise ValueError(f"it has format {found}, not {FORMAT}")
        checkpoint = msgspec.json.decode(raw, type=Checkpoint)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(f"it cannot be read: {error}") from None
    if checkpoint.binding != wanted:
        raise ValueError(f"it belongs to {checkpoint.binding}")
    return checkpoint


def choose(row: ShardStatus | None, kept: ShardStatus | None, *, newer: bool) -> ShardStatus | None:
    """Choose between a shard's row in the ShardRange and its row in the file, which is `newer` or not."""
    if row is None or kept is None:
        return row or kept
    last = kept if newer else row
    if row.session == kept.session:
        further = max(row, kept, key=lambda each: each.seq or 0)
        return replace(last, seq=further.seq, seq_time=further.seq_time)
    return last


def _essence(row: ShardStatus) -> ShardStatus:
    """Leave out of a row what a resume does not need, and what changes all the time."""
    return replace(row, state=ShardState.CLOSED, latency=None, close=None, message=None)


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or not there: to another name, synced, renamed. Raise `OSError`."""
    half = path.with_suffix(".tmp")
    descriptor = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    half.rename(path)
    sync_directory(path.parent)


class Keeper:
    """Keeps checkpoint and spool. Without a directory nothing is kept, and nothing fails.

    `rows` gives the shards' rows as of now, none on standby; `wall` Unix time. `on_failure` hears of a task that has ended by itself.
    """

    def __init__(
        self,
        directory: Path | None,
        journal: Journal,
        *,
        rows: Callable[[], list[ShardStatus]],
        on_failure: Callable[[asyncio.Task[None]], None],
        wall: Callable[[], float] = time.time,
        in_thread: InThread = asyncio.to_thread,
    ) -> None:
        self._directory = directory
        self._journal = journal
        self._rows = rows
        self._on_failure = on_failure
        self._wall = wall
        self._in_thread = in_thread
        self._readers: list[Reader] = []
        self._lock: int | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._hurry = asyncio.Event()
        self._binding = ""
        self._epoch = 0
        self._last: Checkpoint | None = None
        self._saving = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._jobs: set[asyncio.Task[None]] = set()
        self._late: set[asyncio.Task[None]] = set()
        self._again: asyncio.TimerHandle | None = None
        self._obstacle = ""
        """Why there is no lock, as was said already."""
        self._saving_since: float | None = None
        self._chosen: dict[int, ShardStatus] = {}
        self._kept: list[ShardStatus] = []
        """Rows for the file: the last there were."""
        self._tails: dict[str, tuple[Source, int]] = {}
        self._failed = False
        """Whether the last checkpoint could not be written."""

    def watch(self, reader: Reader) -> None:
        """Keep this sink's position, too."""
        self._readers.append(reader)

    @property
    def failing(self) -> bool:
        """Whether the last checkpoint could not be written, or the disk does not answer."""
        since, now = self._saving_since, asyncio.get_running_loop().time()
        return self._failed or bool(self._late) or (since is not None and now - since > PATIENCE)

    @property
    def path(self) -> Path:
        """Give the file's path."""
        assert self._directory is not None
        return self._directory / "checkpoint.json"

    # --- a holding begins ---------------------------------------------------------------------------------------

    async def open(self, view: View, *, before: RangeStatus) -> None:
        """Find what the last holder left, and keep from now on. `before`: the status before this pod took the range."""
        self._chosen, self._tails = {row.id: row for row in view.status.shards}, {}
        if self._directory is not None:
            await self._in_turn(lambda: self._open(view, before), OPEN_PATIENCE)

    async def _open(self, view: View, before: RangeStatus) -> None:
        self._ask_no_more()
        if self._lock is None and not await self._in_thread(self._take_lock):
            self._again = asyncio.get_running_loop().call_later(ASK_AGAIN, self._ask_again, view, before)
            return
        try:
            keeps = await self._take_over(view, before)
        except OSError as error:
            log.warning("no checkpoint is kept: the state directory cannot be read", extra={"error": str(error)})
            keeps = False
        if not keeps:
            await self._stop()
        elif not self._tasks:
            self._start(self._journal.run(), "spooler")
            self._start(self._save_for_ever(), "checkpoint")

    async def _take_over(self, view: View, before: RangeStatus) -> bool:
        """Make what is there ours. False, or `OSError`: nothing can be kept, and all stays as it is."""
        wanted = binding(view.spec)
        found = await self._in_thread(self._read, wanted)
        same = found is not None and found.epoch == before.epoch
        if found is not None and same:
            self._choose(found, before)
        if self._journal.spool is None and not await self._open_spool(view, found):
            return False
        if not same:
            self._tails = {}
        self._binding, self._epoch, self._kept = wanted, view.status.epoch, list(self._chosen.values())
        if not await self.save() and found is not None and max(found.sinks.values(), default=0) > self._journal.end:
            await self._in_thread(self.path.unlink)  # what comes now has positions that it calls acknowledged
        return True

    def _ask_again(self, view: View, before: RangeStatus) -> None:
        """Look whether the directory is free now. Shards run already: what is found there is not chosen from any more."""
        self._again = None
        if self._rows():  # still the holder
            self._begin(lambda: self._open(view, before))

    def _choose(self, found: Checkpoint, before: RangeStatus) -> None:
        told, kept = self._chosen, {row.id: row for row in found.shards}
        newer = found.time > _unix(before.heartbeat_time)
        for shard in told.keys() | kept.keys():
            row = choose(told.get(shard), kept.get(shard), newer=newer)
            if row is not None:
                self._chosen[shard] = row

    def _take_lock(self) -> bool:
        """Become the directory's only user; say whether that was possible."""
        assert self._directory is not None
        try:
            descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            self._keep_nothing("the state directory cannot be used", error)
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            self._keep_nothing("another pod uses the state directory", error)
            return False
        self._lock, self._obstacle = descriptor, ""
        return True

    def _keep_nothing(self, why: str, error: OSError) -> None:
        if why != self._obstacle:
            log.warning("no checkpoint is kept: %s", why, extra={"error": str(error)})
        self._obstacle = why

    def _read(self, wanted: str) -> Checkpoint | None:
        """Read the file, where there is one of use. Raise `OSError`."""
        try:
            return parse(self.path.read_bytes(), wanted)
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("the checkpoint is dropped", extra={"file": self.path.name, "reason": str(error)})
            return None

    async def _open_spool(self, view: View, found: Checkpoint | None) -> bool:
        """Take over what lies in the spool, unless the journal has held other events. Raise `OSError`."""
        assert self._directory is not None
        limit = view.spec.config.buffer_disk
        spool = Spool(self._directory / "spool", limit=limit, binding=binding(view.spec))
        chunks = await self._in_thread(spool.scan)
        if chunks and self._journal.end:
            log.warning("another pod's spool is left alone until the next start", extra={"events": _count(chunks)})
            spool.close()
            return False
        for chunk in chunks:
            for source, last in chunk.lasts:
                if last is not None:
                    self._tails[source.session] = (source, last)
        if chunks:
            log.info("the spool holds events of an earlier run", extra={"events": _count(chunks)})
        if limit or chunks:
            self._journal.use(spool, chunks, found.sinks if found is not None else {})
        return True

    @property
    def rows(self) -> list[ShardStatus]:
        """Give the rows to go on from, in the order of the shards."""
        return [self._chosen[shard] for shard in sorted(self._chosen)]

    def row(self, shard: int) -> ShardStatus | None:
        """Give the row to go on from."""
        return self._chosen.get(shard)

    def go_on(self, resumable: Resumable | None) -> None:
        """Let a session go on behind what the spool holds of it: its cursor moves as that is acknowledged."""
        if resumable is None or resumable.source.session not in self._tails:
            return
        source, last = self._tails[resumable.source.session]
        source.acked = max(source.acked or 0, resumable.seq)
        resumable.source = source
        resumable.seq = max(resumable.seq, last)

    # --- while it lasts -----------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """Write the checkpoint now: there is a new session."""
        self._hurry.set()

    async def save(self) -> bool:
        """Write the checkpoint if it has changed, then delete what is not needed any more. False where that failed."""
        async with self._saving:
            if self._lock is None:
                return False
            spool = self._journal.spool
            doomed = spool.dead() if spool is not None else []
            checkpoint = self._checkpoint()
            if self._last is None or replace(checkpoint, time=0.0) != self._last:
                await self._write(checkpoint)
            if not self._failed:
                await self._journal.sweep(doomed)
            return not self._failed

    async def _write(self, checkpoint: Checkpoint) -> None:
        try:
            await self._in_thread(write_file, self.path, msgspec.json.encode(checkpoint))
        except OSError as error:
            if not self._failed:
                log.warning("the checkpoint cannot be written", extra={"error": str(error)})
            self._failed, self._last = True, None
        else:
            self._failed, self._last = False, replace(checkpoint, time=0.0)

    def _checkpoint(self) -> Checkpoint:
        self._kept = self._rows() or self._kept
        return Checkpoint(
            binding=self._binding,
            epoch=self._epoch,
            time=self._wall(),
            shards=tuple(_essence(row) for row in self._kept),
            sinks={reader.name: reader.acked for reader in self._readers},
        )

    async def _save_for_ever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._hurry.wait()
            self._hurry.clear()
            self._saving_since = asyncio.get_running_loop().time()
            await self.save()
            self._saving_since = None

    def _start(self, coroutine: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        task.add_done_callback(self._on_failure)
        self._tasks.append(task)

    # --- it ends ------------------------------------------------------------------------------------------------

    async def give_up(self) -> None:
        """Write the last checkpoint of a holding. Give the directory up where nothing waits; else forward on."""
        if self._directory is not None:
            await self._in_turn(self._give_up, PATIENCE)

    async def _give_up(self) -> None:
        self._ask_no_more()
        if self._lock is None:
            return
        await self._journal.secure()
        waiting = not self._journal.empty
        await self.save()
        if not waiting:
            await self._stop()

    async def close(self) -> None:
        """Bring all that waits to disk and write the last checkpoint: the pod ends, its sinks have."""
        if self._directory is not None:
            await self._in_turn(self._close, PATIENCE)

    async def _close(self) -> None:
        if self._lock is not None:
            await self._journal.secure()
            await self.save()
        await self._stop()

    async def stop(self) -> None:
        """End all tasks and give the directory up as it is: the pod ends."""
        if self._directory is None:
            return
        await self._in_turn(self._stop, PATIENCE)
        rest = [*self._jobs, *self._tasks]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        self._tasks.clear()

    async def _stop(self) -> None:
        self._ask_no_more()
        async with self._saving, self._journal.disk:  # not in the middle of a write
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._saving_since = None
        self._journal.forsake()
        self._unlock()

    def _ask_no_more(self) -> None:
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            self._last = None

    # --- one after the other ------------------------------------------------------------------------------------

    async def _in_turn(self, work: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Let work be done in its turn; wait for that so long at the most. It goes on when the disk answers."""
        job = self._begin(work)
        done, _ = await asyncio.wait([job], timeout=seconds)
        if done:
            job.result()
        else:
            log.error("the state directory does not answer: going on without it", extra={"seconds": seconds})
            self._late.add(job)

    def _begin(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        job = asyncio.create_task(self._wait_for_turn(work), name="state directory")
        self._jobs.add(job)
        job.add_done_callback(self._job_over)
        return job

    async def _wait_for_turn(self, work: Callable[[], Awaitable[None]]) -> None:
        async with self._turn:
            await work()

    def _job_over(self, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        self._late.discard(job)
        if not job.cancelled() and job.exception() is not None:
            self._on_failure(job)


def _count(chunks: list[Chunk]) -> int:
    return chunks[-1].end - chunks[0].position


def _unix(text: str) -> float:
    """Read a time of the API; 0 where there is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
