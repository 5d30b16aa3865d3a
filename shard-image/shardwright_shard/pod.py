"""The pod: holds a shard range, or stands by for it, and reports truthfully which.

Theory of operation. `run` goes round two phases. *Standing by*: the sinks are connected, the pod says so in the
ShardRange, and waits until the operator makes it active and the range is free; then it becomes the holder by
compare-and-swap. *Holding*: one `Shard` per shard id, each from its row in the checkpoint; a reporter writes heartbeat,
states and cursors every few seconds, and at once when a state changes. Holding ends when

* the operator makes another pod active: sessions close with 4000, the final cursors are written, the pod stands by;
* the pod is told to stop (SIGTERM): the same, and it ends; where the DiscordGateway is gone the sessions are closed
  with 1000, so that the bot goes offline;
* the ShardRange vanishes: likewise, by whether the DiscordGateway is still there;
* another pod turns out to hold the range: sockets are closed with 4000 and nothing is written.

While the cluster's API is away the pod goes on with what it last saw. What must survive the container, `checkpoint.py`
keeps; a pod that gave its range up goes on forwarding what waits in its spool until it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable
from enum import Enum, auto
from pathlib import Path
from typing import Final

from shardwright_api.resources import Gap, ShardState, ShardStatus, SinkStatus
from shardwright_shard.checkpoint import Keeper
from shardwright_shard.coordination.base import Coordinator, View
from shardwright_shard.errors import CoordinatorUnavailable, NotHolder, RangeGone, ShardError
from shardwright_shard.gap import Ending, Timeline
from shardwright_shard.identify_gate import IdentifyGate
from shardwright_shard.journal import InThread, Journal, Source
from shardwright_shard.session import Resumable, Session, SessionConfig
from shardwright_shard.session_table import Input, State
from shardwright_shard.shard import Shard, Surroundings
from shardwright_shard.sinks.base import Sink

log = logging.getLogger(__name__)

DRAIN_TIMEOUT: Final = 10.0
"""Seconds that a release waits for the sinks to acknowledge what has been read."""
REPORT_SPACING: Final = 0.25
"""Seconds between two reports at the least, unless there is a new session."""
HOLD_ON: Final = 20.0
"""Seconds that a pod which is told to stop goes on serving, so that its successor can get ready: a third of the grace."""
SINK_CHECK: Final = 0.1
"""Seconds between two looks at whether the sinks are available."""


class _End(Enum):
    """Why holding ended."""

    RELEASED = auto()
    STOPPED = auto()
    LOST = auto()
    GONE = auto()


class Pod:
    """One pod of one range. `random` in [0, 1) and the token are passed in; the loop's clock is used.

    `state_dir` is for checkpoint and spool; without it nothing survives the container. `hold_on`: seconds that sessions
    are served on after `stop`, unless another pod takes over before.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        make_sinks: Callable[[View], list[Sink]],
        read_token: Callable[[], str],
        random: Callable[[], float],
        tls: ssl.SSLContext,
        state_dir: Path | None = None,
        hold_on: float = 0.0,
        in_thread: InThread = asyncio.to_thread,
    ) -> None:
        self.coordinator = coordinator
        self._hold_on = hold_on
        self._empty = asyncio.Event()
        self.journal = Journal(
            limit=0,  # until the range is known
            on_full=self._pause_reading,
            on_room=self._resume_reading,
            on_empty=self._empty.set,
            on_broken=self._end_on_damage,
            in_thread=in_thread,
        )
        self.keeper = Keeper(
            state_dir, self.journal, rows=self._rows, on_failure=self._end_on_failure, in_thread=in_thread
        )
        self.shards: list[Shard] = []
        self.sinks: list[Sink] = []
        self.reports_failed = 0
        self._make_sinks = make_sinks
        self._read_token = read_token
        self._random = random
        self._tls = tls
        self._stop = asyncio.Event()
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()
        self._reported: set[str | None] = {None}
        """Sessions that stand in the ShardRange."""
        self._fatal = asyncio.Event()
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()
        self._final: tuple[list[ShardStatus], list[SinkStatus]] | None = None
        """Cursors of an ended holding that could not be written."""

    # --- what others ask ----------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether every shard is READY or RESUMED, as the holder, and every blocking sink takes events."""
        return not self.why_not_ready()

    def why_not_ready(self) -> str:
        """Say in a line why the pod is not ready; empty if it is."""
        if not self.shards:
            return "standing by: another pod holds the range, or none yet"
        away = [row for row in self._rows() if row.state is not ShardState.READY]
        states = [f"shard {row.id} {row.state}{f' ({row.message})' if row.message else ''}" for row in away]
        others = [self.sinks_obstacle(), "the buffer is full: reading is paused" if self.journal.full else None]
        return "; ".join([*states, *filter(None, others)])

    def sinks_obstacle(self) -> str | None:
        """Say which blocking sink does not take events; None if all do."""
        away = [f"{sink.name}: {sink.message}" for sink in self.sinks if sink.blocking and not sink.available]
        return f"sinks not available ({'; '.join(away)})" if away else None

    def stop(self) -> None:
        """End the pod: SIGTERM."""
        self._stop.set()

    # --- the two phases -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Stand by and hold until stopped. Raise `RangeGone` at once where there is no range."""
        try:
            await self._start()
            async with self._running_sinks():
                await self._go_round()
            await self.keeper.close()
        finally:
            await self.keeper.stop()
            await self.coordinator.close()
        if self._failure is not None:
            raise self._failure

    async def _go_round(self) -> None:
        while not self._stop.is_set():
            try:
                if await self._stand_by():
                    await self._hold()
            except RangeGone:
                log.warning("the ShardRange is gone: waiting for the pod to be deleted")
                await self._stop.wait()

    async def _start(self) -> None:
        while True:
            try:
                return await self.coordinator.start()
            except CoordinatorUnavailable as error:
                log.warning("the cluster's API is not available", extra={"error": str(error)})
                await _first(self._stop.wait(), seconds=2.0)
                if self._stop.is_set():
                    raise

    @contextlib.asynccontextmanager
    async def _running_sinks(self) -> AsyncIterator[None]:
        self.journal.resize(self.coordinator.view.spec.config.buffer_memory)
        self.sinks = self._make_sinks(self.coordinator.view)
        for sink in self.sinks:
            reader = self.journal.reader(sink.wake, sink.name)
            self.keeper.watch(reader)
            sink.attach(reader)
        tasks = [asyncio.create_task(sink.run(), name=f"sink {sink.name}") for sink in self.sinks]
        watch = asyncio.create_task(self._watch_sinks(), name="sinks' state")
        for task in [watch, *tasks]:
            task.add_done_callback(self._end_on_failure)
        try:
            yield
        finally:
            for task in [watch, *tasks]:
                task.cancel()
            await asyncio.gather(watch, *tasks, return_exceptions=True)

    def _end_on_failure(self, task: asyncio.Task[None]) -> None:
        """End the pod if a task that serves the sinks has ended by itself: events would wait for ever."""
        if not task.cancelled():
            self._failure = task.exception() or ShardError(f"the task {task.get_name()} has ended")
            log.critical("a task has failed", extra={"task": task.get_name()}, exc_info=self._failure)
            self._failed.set()
            self.stop()

    def _end_on_damage(self, error: Exception) -> None:
        """End the pod if its spool cannot be read: its next start cuts it off there and resumes from what is intact."""
        if self._failure is None:
            self._failure = error
            log.critical("the spool cannot be read", extra={"error": str(error)})
            self._failed.set()
            self.stop()

    async def _stand_by(self) -> bool:
        """Wait until this pod holds the range; False if it is stopped first."""
        while not self._stop.is_set():
            try:
                await self._disown()
                await self._release()
                before = self.coordinator.view.status
                if self.coordinator.view.active and await self._take():
                    await self.keeper.open(self.coordinator.view, before=before)
                    log.info("holding the range", extra={"range": self._range_text()})
                    return True
                await self.coordinator.report_standby(sinks_available=self.sinks_obstacle() is None)
            except CoordinatorUnavailable as error:
                log.warning("the cluster's API is not available", extra={"error": str(error)})
            await _first(self._stop.wait(), self.coordinator.changed(), seconds=self._heartbeat())
        return False

    async def _take(self) -> bool:
        """Become the holder. Who is it already does not write that: `heartbeatTime` tells how old the rows are."""
        view = self.coordinator.view
        if view.holding and view.status.epoch == view.spec.epoch and await self.coordinator.holds():
            return True
        return await self.coordinator.take()

    async def _disown(self) -> None:
        """Let go of what an earlier process of this pod still stands for as the holder: its successor waits for that.

        Only that process's files may know of its last session, and what waits in its spool is forwarded from here.
        """
        view = self.coordinator.view
        if view.holding and not view.active and self._final is None:
            log.info("letting go of the range for an earlier process of this pod")
            await self.keeper.open(view, before=view.status)
            self._final = self.keeper.rows, list(view.status.sinks)
            await self.keeper.give_up()

    async def _hold(self) -> None:
        """Run the shards until another pod is to hold the range, or this one is stopped."""
        self._make_shards()
        tasks = [asyncio.create_task(shard.run(), name=f"shard {shard.id}") for shard in self.shards]
        reporter = asyncio.create_task(self._report_for_ever(), name="reporter")
        self._fatal.clear()
        parker = asyncio.create_task(self._forfeit_on_fatal(), name="parker")
        try:
            end = await self._until_over([reporter, parker, *tasks])
            reporter.cancel()
            await self._end_holding(end)
        finally:
            for task in [reporter, parker, *tasks]:
                task.cancel()
            await asyncio.gather(reporter, parker, *tasks, return_exceptions=True)
            for shard in self.shards:
                shard.stop_timer()
            self.shards = []

    async def _until_over(self, tasks: list[asyncio.Task[None]]) -> _End:
        leave_at: float | None = None
        while True:
            if self._stop.is_set():
                leave_at = leave_at if leave_at is not None else await self._leave_at()
                if self._failure is not None or self._now() >= leave_at:
                    return _End.STOPPED
            if not self.coordinator.view.active:
                return _End.RELEASED
            if any(task.done() for task in tasks):
                return self._why_ended(tasks)
            over = [] if leave_at is None else [asyncio.sleep(leave_at - self._now())]
            told = self._stop if leave_at is None else self._failed
            try:
                await _first(*over, told.wait(), self.coordinator.changed(), *(_done(task) for task in tasks))
            except RangeGone:
                return _End.GONE
            self._nudge_shards()

    async def _leave_at(self) -> float:
        """Say when a pod that is told to stop lets go by itself: later only where it still has something to hand over."""
        serves = any(shard.session.state is State.LIVE for shard in self.shards)
        if not serves or not self._hold_on or await self._gateway_gone():
            return self._now()
        log.info("told to stop: serving on until another pod takes over", extra={"seconds": self._hold_on})
        return self._now() + self._hold_on

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    @staticmethod
    def _why_ended(tasks: list[asyncio.Task[None]]) -> _End:
        for task in tasks:
            if task.done() and (error := task.exception()) is not None:
                if isinstance(error, NotHolder):
                    return _End.LOST
                if isinstance(error, RangeGone):
                    return _End.GONE
                raise error
        return _End.LOST

    async def _end_holding(self, end: _End) -> None:
        log.info("giving the range up", extra={"why": end.name.lower()})
        offline = end in {_End.STOPPED, _End.GONE} and await self._gateway_gone()
        for shard in self.shards:
            shard.end(Input.DELETE if offline else Input.DRAIN)
        await self._until_acknowledged()
        await self._until_closed()
        if end in {_End.RELEASED, _End.STOPPED} and not offline:
            self._final = self._rows(), self._sink_rows()
            await self.keeper.give_up()
            await self._release()

    async def _gateway_gone(self) -> bool:
        try:
            return await self.coordinator.gateway_gone()
        except CoordinatorUnavailable:
            return False

    async def _until_acknowledged(self) -> None:
        """Give the sinks a moment to acknowledge what has been read: what is not, is replayed to the next holder."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT):
                while not self.journal.empty:
                    self._empty.clear()
                    await self._empty.wait()

    async def _until_closed(self) -> None:
        ended = [shard.connection.ended for shard in self.shards if shard.connection is not None]
        if ended:
            await asyncio.wait(ended, timeout=2.0)

    async def _release(self) -> None:
        """Write the final cursors and let the range go. Where the cluster does not answer, a standby tries again."""
        if self._final is None:
            return
        try:
            await self.coordinator.release(*self._final)
        except CoordinatorUnavailable as error:
            log.warning("the final cursors are not written yet", extra={"error": str(error)})
            return
        except (NotHolder, RangeGone) as error:
            log.warning("the final cursors were not written", extra={"error": str(error)})
        self._final = None

    # --- holding ------------------------------------------------------------------------------------------------

    def _make_shards(self) -> None:
        view = self.coordinator.view
        spec = view.spec
        around = Surroundings(
            coordinator=self.coordinator,
            journal=self.journal,
            gate=IdentifyGate(self.coordinator),
            gateway_url=spec.config.gateway_url,
            tls=self._tls,
            read_token=self._read_token,
            sinks_obstacle=self.sinks_obstacle,
            changed=self._shard_changed,
            fatal=self._fatal.set,
            renewed=self._shard_renewed,
        )
        self._reported = {None, *(row.session for row in view.status.shards)}
        self.shards = [
            self._make_shard(shard, self.keeper.row(shard), around) for shard in range(spec.first, spec.last + 1)
        ]
        for shard in range(spec.first, spec.last + 1):
            self.coordinator.watch_bucket(around.gate.bucket(shard))

    def _make_shard(self, shard: int, row: ShardStatus | None, around: Surroundings) -> Shard:
        spec = self.coordinator.view.spec
        config = SessionConfig(
            bot=spec.bot_id,
            shard=shard,
            total=spec.total,
            intents=spec.config.intents,
            compression=spec.config.compression,
            presence=spec.config.presence,
            large_threshold=spec.config.large_threshold,
            identity=spec.config.identity,
        )
        resumable = _resumable(config, row)
        self.keeper.go_on(resumable)
        ending = _ending(config, row)
        session = Session(config, random=self._random, wall=time.time, resumable=resumable, ending=ending)
        if row is not None:
            session.guilds = row.guilds
            session.stored = row.seq or None
        return Shard(session, around)

    async def _report_for_ever(self) -> None:
        """Write heartbeat, states and cursors: every few seconds, and soon after a change of state."""
        while True:
            self._dirty.clear()
            self._urgent.clear()
            rows = self._rows()
            try:
                await self.coordinator.report(rows, self._sink_rows(), spool_bytes=self.journal.spool_size)
                self._note_stored(rows)
            except CoordinatorUnavailable as error:
                self.reports_failed += 1
                log.warning("cannot write the heartbeat", extra={"error": str(error)})
            await _first(self._urgent.wait(), seconds=REPORT_SPACING)
            await _first(self._dirty.wait(), seconds=self._heartbeat())

    def _note_stored(self, rows: list[ShardStatus]) -> None:
        self._reported = {None, *(row.session for row in rows)}
        for shard, row in zip(self.shards, rows, strict=True):
            resumable = shard.session.resumable
            if resumable is not None and resumable.source.session == row.session:
                shard.session.stored = row.seq or None

    async def _forfeit_on_fatal(self) -> None:
        """Give up the open grants after a fatal close code: a new grant is then the sign to try again."""
        while True:
            await self._fatal.wait()
            try:
                await self.coordinator.forfeit()
                self._fatal.clear()
            except CoordinatorUnavailable:
                await asyncio.sleep(1.0)

    async def _watch_sinks(self) -> None:
        """Tell reporter and shards when a sink comes or goes."""
        before: list[tuple[bool, str]] = []
        while True:
            now = [(sink.available, sink.message) for sink in self.sinks]
            if now != before:
                before = now
                self._log_sinks()
                self._shard_changed()
                self._nudge_shards()
            await asyncio.sleep(SINK_CHECK)

    def _log_sinks(self) -> None:
        for sink in self.sinks:
            log.info(
                "sink available" if sink.available else "sink away", extra={"sink": sink.name, "reason": sink.message}
            )

    def _rows(self) -> list[ShardStatus]:
        return [shard.status() for shard in self.shards]

    def _sink_rows(self) -> list[SinkStatus]:
        return [
            SinkStatus(name=sink.name, available=sink.available, message=sink.message[:1000]) for sink in self.sinks
        ]

    def _shard_renewed(self, old: Shard, new: Shard) -> None:
        self.shards[self.shards.index(old)] = new

    def _shard_changed(self) -> None:
        self._dirty.set()
        if any(row.session not in self._reported for row in self._rows()):  # else a crash now would lose it untold
            self._urgent.set()
            self.keeper.hurry()

    def _nudge_shards(self) -> None:
        for shard in self.shards:
            shard.nudge()

    def _pause_reading(self) -> None:
        level = logging.INFO if self.journal.spool is not None and not self.journal.refused else logging.WARNING
        log.log(level, "the buffer is full: reading pauses", extra=self.journal.statistics())
        for shard in self.shards:
            shard.pause()

    def _resume_reading(self) -> None:
        for shard in self.shards:
            shard.resume()

    def _heartbeat(self) -> float:
        return self.coordinator.view.spec.config.heartbeat_seconds

    def _range_text(self) -> str:
        spec = self.coordinator.view.spec
        return f"{spec.first}-{spec.last} of {spec.total}"


def _resumable(config: SessionConfig, row: ShardStatus | None) -> Resumable | None:
    """Make a session from its checkpoint; None where there is none, or not all that a RESUME needs.

    Other intents, presence or large threshold do not matter here: the session goes on with its own until it is renewed.
    """
    if row is None or row.session is None or row.url is None or row.compression is None:
        return None
    seq = row.seq or 0
    return Resumable(
        source=Source(bot=config.bot, shard=config.shard, total=config.total, session=row.session, acked=seq),
        url=row.url,
        seq=seq,
        intents=config.intents if row.intents is None else row.intents,
        compression=row.compression,
        identity=row.identity or "",
        timeline=Timeline(row.seq_time),
    )


def _ending(config: SessionConfig, row: ShardStatus | None) -> Ending | None:
    """Give the ended session whose gap is still to be told: as the row says, or the row's own that cannot be resumed."""
    if row is None:
        return None
    gap = row.gap
    if gap is None and row.session is not None and _resumable(config, row) is None:
        gap = Gap(session=row.session, seq=row.seq or 0, time=row.seq_time)
    if gap is None:
        return None
    return Ending.from_row(gap, bot=config.bot, shard=config.shard, total=config.total)


async def _done(task: asyncio.Task[None]) -> None:
    await asyncio.wait([task])


async def _first(*waits: object, seconds: float | None = None) -> None:
    """Wait until the first of several waits is over, or for some seconds; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]  # type: ignore[call-overload]
    try:
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
