"""One shard at the edge: connects its session's websocket, keeps it alive, and brings it back.

Theory of operation. `run` is one task for as long as the pod holds the range: wait until nothing stands against a
connection, connect, serve until the connection ends, wait as long as the session says, again. While a connection is
served, reads call `messages` directly (no task, queue or future per message): the session turns them into events, the
journal takes them, the sinks are woken. One timer per shard drives heartbeats and time-outs.

A connection is made only by the holder of the range: that is asked of the cluster each time. While the cluster does not
answer, a session may be resumed *blindly*, the first time at once and then once every 30 s; nothing is identified. After
op 9, or when a blind connection that was live is lost, another pod may have the session: then nothing is tried any more
until the cluster answers.

A session that was identified with another identity than the config's is *renewed*: a second `Shard` with a session of its
own, the successor, goes for an IDENTIFY while the old session stays live and stays the shard's row. When it is READY, the
old one ends in the same step (with 1000: nobody shall resume it), so that every sink sees the old tail, the gap, READY.
An IDENTIFY that Discord refuses for good parks the successor alone; the old session goes on.

On failure of a connection the session decides (`session_table.py`); on `NotHolder` the pod gives the range up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final

from shardwright_api.resources import ShardState, ShardStatus
from shardwright_shard.connection import Connection, connect, gateway_uri
from shardwright_shard.coordination.base import Coordinator
from shardwright_shard.errors import (
    ConfigError,
    CoordinatorUnavailable,
    GatewayProtocolError,
    NotHolder,
    Retryable,
    Terminal,
)
from shardwright_shard.identify_gate import IdentifyGate
from shardwright_shard.journal import Journal
from shardwright_shard.session import Session
from shardwright_shard.session_table import Input, State

log = logging.getLogger(__name__)

BLIND_RESUME_INTERVAL: Final = 30.0
"""Seconds between resumes while the cluster's API cannot say whether we still hold the range."""
SECURE_TIMEOUT: Final = 5.0
"""Seconds that an IDENTIFY waits for the old session's tail to be on disk."""
GRACE: Final = 0.2
"""Seconds for the answer to our close frame. Who does not answer by then may die beside the next connection."""
TOO_EARLY: Final = 5.0
"""Seconds after IDENTIFY in which op 9 means that it came too early for its bucket."""

_MESSAGE_LIMIT: Final = 1000
"""Characters of a row's message: many rows share one object."""

_STATES: Final = {
    State.IDLE: ShardState.WAITING,
    State.CONNECTING: ShardState.CONNECTING,
    State.OPEN: ShardState.CONNECTING,
    State.QUEUED: ShardState.IDENTIFYING,
    State.IDENTIFYING: ShardState.IDENTIFYING,
    State.RESUMING: ShardState.RESUMING,
    State.LIVE: ShardState.READY,
    State.PARKED: ShardState.PARKED,
    State.ENDED: ShardState.CLOSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all shards of a pod share."""

    coordinator: Coordinator
    journal: Journal
    gate: IdentifyGate
    gateway_url: str
    tls: ssl.SSLContext
    read_token: Callable[[], str]
    sinks_obstacle: Callable[[], str | None]
    """Why an IDENTIFY must wait for the sinks; None if they take events."""
    changed: Callable[[], None]
    """Called after each change of a shard's state."""
    fatal: Callable[[], None]
    """Called when Discord answered with a fatal close code."""
    renewed: Callable[[Shard, Shard], None]
    """Called when a shard's successor takes its place."""


class Shard:
    """One shard: a `Session` and, most of the time, a `Connection`. `replaces`: the shard that it is the successor of."""

    def __init__(self, session: Session, around: Surroundings, *, replaces: Shard | None = None) -> None:
        self.session = session
        self.successor: Shard | None = None
        self._replaces = replaces
        self.id = session.config.shard
        self.connection: Connection | None = None
        self.waiting_for: str | None = None
        self.inflater_bytes = (0, 0)
        """Bytes compressed and inflated over all earlier connections."""
        self._around = around
        self._loop = asyncio.get_running_loop()
        self._nudge = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._paused_since: float | None = None
        self._blind: _Blind | None = None
        self._identified_at = 0.0
        self._invalid_before = 0
        self._over = self._loop.create_future()
        self._last_state = session.state
        self._token = ""
        self._slot_task: asyncio.Task[None] | None = None

    # --- the task -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the session, and the one that replaces it, connected until it has ended.

        Raise `NotHolder` if another pod holds the range.
        """
        if self.session.outdated:
            self.successor = Shard(self.session.successor(), self._around, replaces=self)
            await _both(self._keep_connected(), self.successor.run())
        else:
            await self._keep_connected()

    async def _keep_connected(self) -> None:
        while self.session.state is not State.ENDED:
            await self._until_free()
            if self.session.state is not State.IDLE:
                continue
            if self.session.resumable is not None:
                await self._serve()
            else:
                await self._serve_identify()

    async def _serve_identify(self) -> None:
        """Go for an IDENTIFY: one shard per bucket at a time connects and queues."""
        gate = self._around.gate
        gate.reserve(self.id)
        try:
            async with gate.turn(self.id):
                if self.session.state is not State.IDLE or self._obstacle() is not None:
                    return
                serving = asyncio.create_task(self._serve())
                await self._while(serving, lambda: self._identify_is_over(serving))
        finally:
            gate.unreserve(self.id)
        await serving

    def _identify_is_over(self, serving: asyncio.Task[None]) -> bool:
        return serving.done() or self.session.state in {State.IDENTIFYING, State.LIVE, State.PARKED, State.ENDED}

    async def _while(self, task: asyncio.Task[None], over: Callable[[], bool]) -> None:
        """Wait until `over`; a cancelled wait cancels the task as well."""
        task.add_done_callback(lambda _: self.nudge())
        try:
            while not over():
                self._nudge.clear()
                await self._nudge.wait()
        except asyncio.CancelledError:
            task.cancel()
            raise

    async def _until_free(self) -> None:
        """Wait until nothing stands against a new connection."""
        while self.session.state in {State.IDLE, State.PARKED}:
            self._unpark()
            self._call_renewal_off()
            self._nudge.clear()
            reason = self._obstacle()
            self._say(reason)
            if reason is None and self.session.state is State.IDLE:
                return
            pause = self.session.retry_at - self._loop.time()
            try:
                async with asyncio.timeout(max(pause, 0.01) if pause > 0 else 5.0):
                    await self._nudge.wait()
            except TimeoutError:
                continue

    def _obstacle(self) -> str | None:
        """Say what stands against a new connection; None if nothing does."""
        if self.session.state is State.PARKED:
            return f"Discord closed with {self.session.last_close}: {self.session.last_reason}".removesuffix(": ")
        if self.session.retry_at > self._loop.time():
            return f"waits before it connects again: {self.session.last_reason}".removesuffix(": ")
        if self._around.journal.full:
            return "the buffer is full: a sink is slow or away"
        if self.session.resumable is not None:
            return None
        return self._rival() or self._around.sinks_obstacle() or self._around.gate.obstacle(self.id)

    def _rival(self) -> str | None:
        """Say why the other session of this shard, the old or the new one, keeps this one from IDENTIFY."""
        if self.successor is not None:
            return "waits for the session that is to replace this one"
        if self._replaces is not None and self._replaces.session.state is not State.LIVE:
            return "waits until the session that is to be replaced is live"
        return None

    def _call_renewal_off(self) -> None:
        """Let a successor go that has not sent IDENTIFY, where the old session is over: a new one is needed anyhow."""
        successor = self.successor
        if successor is None or self.session.resumable is not None:
            return
        if successor.session.state is not State.IDENTIFYING:
            self.successor = None
            successor.end(Input.DRAIN)
            successor.stop_timer()

    def _unpark(self) -> None:
        if self.session.state is State.PARKED and not self._around.gate.shut:
            self.session.give(Input.UNPARK, self._loop.time())
            self._note()

    async def _serve(self) -> None:
        """Make one connection and serve it until it has ended."""
        try:
            if not await self._may_connect():
                return
            token = self._around.read_token()
            self._paused_since = None
            self.session.connect(self._loop.time())
            self._note()
            self._token = token
            url = self.session.resume_url or self._around.gateway_url
            compression = self.session.compression
            connection = await connect(gateway_uri(url, compression), compression, self, tls=self._around.tls)
        except (OSError, TimeoutError, ConfigError, GatewayProtocolError) as error:
            self._could_not_connect(error)
            return
        await self._until_ended(connection)

    async def _until_ended(self, connection: Connection) -> None:
        """Wait until the connection has ended, or was closed by us a moment ago."""
        over = self._over = self._loop.create_future()
        connection.ended.add_done_callback(lambda _: _finish(over))
        try:
            self._set_timer()
            await over
        finally:
            done = connection.inflater
            self.inflater_bytes = (
                self.inflater_bytes[0] + done.compressed,
                self.inflater_bytes[1] + done.inflated,
            )
            self.connection = None

    async def _may_connect(self) -> bool:
        """Ask whether we still hold the range; without an answer allow one RESUME now and then."""
        try:
            if not await self._around.coordinator.holds():
                raise NotHolder("another pod holds the range")
        except CoordinatorUnavailable:
            if not self._may_resume_blindly():
                self.session.retry_at = self._loop.time() + 1.0
                return False
        else:
            self._blind = None
        return self.session.state is State.IDLE

    def _may_resume_blindly(self) -> bool:
        if self.session.resumable is None:
            return False
        now, invalid = self._loop.time(), self.session.counters.invalid_sessions
        if self._blind is None:
            self._blind = _Blind(invalid_before=invalid)
        if self._blind.was_live or invalid > self._blind.invalid_before or now < self._blind.again_at:
            return False
        self._blind.again_at = now + BLIND_RESUME_INTERVAL
        return True

    def _could_not_connect(self, error: Exception) -> None:
        log.warning("cannot connect", extra={"shard": self.id, "error": str(error) or type(error).__name__})
        self.session.last_reason = str(error) or "no connection in time"
        self.connection = None
        if self.session.state is State.CONNECTING:
            self.session.closed(None, self._loop.time(), reason=self.session.last_reason)
        else:
            self.session.retry_at = self._loop.time() + 5.0
        self._note()

    async def _win_slot(self) -> None:
        """Pay for the identify, win the bucket's slot, and send it; drop the connection where that is not possible."""
        gate, coordinator = self._around.gate, self._around.coordinator
        connection = self.connection
        try:
            while self.session.state is State.QUEUED and self.connection is connection:
                await self._secure()
                reason = self._obstacle()
                if reason is not None or not await gate.pay(self.id):
                    self._give_up(reason or "the grant was taken back")
                    return
                until = await coordinator.slot(gate.bucket(self.id), self.id)
                token = self._around.read_token()
                if until is not None and self._may_identify(connection) and self._loop.time() <= until:
                    gate.use(self.id)
                    self.session.slot(self._loop.time(), token=token)
                    self._after()
        except (Retryable, Terminal) as error:
            self._give_up(str(error))
        except Exception:
            log.exception("cannot identify", extra={"shard": self.id})
            self._give_up("a bug: the log has it")

    async def _secure(self) -> None:
        """Let the tail of the session before reach the disk, before an IDENTIFY makes it the only copy."""
        if self.session.ending is not None or self._replaces is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SECURE_TIMEOUT):
                    await self._around.journal.secure()

    def _may_identify(self, connection: Connection | None) -> bool:
        free = self.connection is connection and self.session.state is State.QUEUED
        return free and self._around.gate.paid(self.id) and self._obstacle() is None

    def _give_up(self, reason: str) -> None:
        if self.session.state is State.QUEUED:
            self.session.last_reason = reason
            self.session.give(Input.RUBBISH, self._loop.time())
            self._after()

    # --- what the connection calls ------------------------------------------------------------------------------

    def made(self, connection: Connection) -> None:
        """Take the connection, so that its first bytes can be answered."""
        if self.session.state is not State.CONNECTING:
            connection.abandon()
            return
        self.connection = connection

    def opened(self) -> None:
        """Go on with HELLO, or not yet where the journal has filled up meanwhile."""
        if self._around.journal.full:
            self.pause()
        self.session.opened(self._loop.time(), token=self._token)
        self._after()

    def messages(self, messages: list[bytes]) -> None:
        """Take the messages of one read."""
        self.session.receive(messages, self._loop.time())
        self._after()

    def unreadable(self, error: GatewayProtocolError) -> None:
        """Drop the connection; the session notes where it happened."""
        self.session.rubbish(error, self._loop.time())
        self._after()

    def lost(self, code: int | None, reason: str) -> None:
        """Let the session decide what the close code means."""
        self.session.closed(code, self._loop.time(), reason=reason)
        self._after()

    # --- what the pod calls -------------------------------------------------------------------------------------

    def nudge(self) -> None:
        """Look again: something outside has changed."""
        self._nudge.set()
        if self.successor is not None:
            self.successor.nudge()

    def pause(self) -> None:
        """Stop reading: the journal is full."""
        if self.successor is not None:
            self.successor.pause()
        if self.connection is not None and self._paused_since is None:
            self._paused_since = self._loop.time()
            self.session.reading(paused=True)
            self.connection.pause_reading()

    def resume(self) -> None:
        """Read again: there is room in the journal."""
        if self.successor is not None:
            self.successor.resume()
        self._paused_since = None
        if self.session.paused:
            self.session.reading(paused=False)
        if self.connection is not None:
            self.connection.resume_reading()
        self.nudge()

    def end(self, given: Input) -> None:
        """End for good: DRAIN keeps the session alive at Discord, DELETE does not."""
        if self.successor is not None:
            self.successor.end(given)
        self.session.give(given, self._loop.time())
        self._after()

    def status(self) -> ShardStatus:
        """Give the shard's row: state, and what another pod needs to resume it."""
        session, resumable = self.session, self.session.resumable
        return ShardStatus(
            id=self.id,
            state=_STATES[session.state],
            session=resumable.source.session if resumable else None,
            url=resumable.url if resumable else None,
            seq=(resumable.source.acked or 0) if resumable else None,
            seq_time=resumable.timeline.until(resumable.source.acked or 0) if resumable else None,
            intents=resumable.intents if resumable else None,
            compression=resumable.compression if resumable else None,
            guilds=session.guilds,
            latency=round(session.latency * 1000) if session.latency is not None else None,
            close=session.last_close,
            message=self.message(),
            identity=(resumable.identity or None) if resumable else None,
            refused=self._refused(),
            gap=session.gap(),
        )

    def _refused(self) -> int | None:
        """Give the fatal code that answered the IDENTIFY of the successor."""
        successor = self.successor
        return successor.session.last_close if successor and successor.session.state is State.PARKED else None

    def message(self) -> str | None:
        """Say for people why the shard is not ready, within what the CRD takes."""
        if self.session.state is State.LIVE:
            about = self.successor.message() if self.successor else None
            return f"to be renewed: {about}"[:_MESSAGE_LIMIT] if about else None
        return (self.waiting_for or self.session.last_reason)[:_MESSAGE_LIMIT] or None

    # --- inside -------------------------------------------------------------------------------------------------

    def _after(self) -> None:
        """Carry out what the session left after an input."""
        session, connection = self.session, self.connection
        if self._replaces is not None and not session.stands_by:
            self._take_the_place_of(self._replaces)
        if session.events:
            assert session.source is not None
            events, session.events = session.events, []
            now = session.wall()
            self._around.journal.append(session.source, events, now)
            session.handed_on(now)
        if session.sends:
            sends, session.sends = session.sends, []
            for text in sends:
                if connection is not None:
                    connection.send(text)
        if session.close_code is not None:
            code, session.close_code = session.close_code, None
            if connection is not None:
                connection.close(code)
                self._loop.call_later(GRACE, _finish, self._over)
        if session.state is not self._last_state:
            self._entered(session.state)
        self._set_timer()

    def _take_the_place_of(self, old: Shard) -> None:
        """End the old session in the step in which the new one is READY: its tail stands in the journal already."""
        self._replaces = old.successor = None
        now, before = old.traffic(), self.inflater_bytes
        self.inflater_bytes = (now[0] + before[0], now[1] + before[1])
        self._around.renewed(old, self)
        self._around.journal.hasten()  # what came since the IDENTIFY is the only copy from now on
        old.end(Input.DELETE)
        old.stop_timer()

    def traffic(self) -> tuple[int, int]:
        """Give the bytes compressed and inflated over all connections."""
        compressed, inflated = self.inflater_bytes
        if self.connection is not None:
            inflater = self.connection.inflater
            return compressed + inflater.compressed, inflated + inflater.inflated
        return compressed, inflated

    def _judge_identify(self, state: State) -> None:
        """Tell the bucket's line whether an IDENTIFY came too early for Discord."""
        invalid = self.session.counters.invalid_sessions
        if state is State.IDENTIFYING:
            self._identified_at, self._invalid_before = self._loop.time(), invalid
        elif self._last_state is State.IDENTIFYING:
            too_early = invalid > self._invalid_before and self._loop.time() - self._identified_at < TOO_EARLY
            if too_early or state is State.LIVE:
                gate = self._around.gate
                self._around.coordinator.identified(gate.bucket(self.id), too_early=too_early)

    def _entered(self, state: State) -> None:
        self._judge_identify(state)
        if state is State.LIVE and self._blind is not None:
            self._blind.was_live = True
        if state is State.QUEUED:
            self._slot_task = self._loop.create_task(self._win_slot())
        elif self._slot_task is not None and self._slot_task is not asyncio.current_task():
            self._slot_task.cancel()
        if state is State.PARKED:
            self._around.gate.slam()
            self._around.fatal()
        self._note()

    def _note(self) -> None:
        """Log a change of state, and tell the pod."""
        if self.session.state is self._last_state:
            return
        self._last_state = self.session.state
        self._say(None)
        reason = self.session.last_reason
        log.info("shard is %s", self._last_state.name.lower(), extra={"shard": self.id, "reason": reason})
        self.nudge()
        self._around.changed()

    def _say(self, reason: str | None) -> None:
        if reason != self.waiting_for:
            self.waiting_for = reason
            self._around.changed()

    def _set_timer(self) -> None:
        """Keep one timer, at or before what is due next: a heartbeat, a time-out, the end of a pause."""
        due = min(self.session.next_tick(), self._loop.time() + 3600)
        if self._timer is not None:
            if not self._timer.cancelled() and self._loop.time() < self._timer_due <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._tick)
        self._timer_due = due  # uvloop's handle does not know its time where that has come already

    def _tick(self) -> None:
        self._timer = None
        now = self._loop.time()
        interval = self.session.interval
        if self._paused_since is not None and self.session.connected and now - self._paused_since > interval:
            self.session.last_reason = "reading was paused for longer than a heartbeat interval"
            self.session.give(Input.PAUSED, now)
        else:
            self.session.tick(now)
        self._after()

    def stop_timer(self) -> None:
        """Forget the timer: the shard is not used any more."""
        if self.successor is not None:
            self.successor.stop_timer()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@dataclass(slots=True)
class _Blind:
    """What was tried since the cluster has not answered."""

    invalid_before: int
    """How often op 9 had come before."""
    again_at: float = 0.0
    was_live: bool = False


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _both(*works: Coroutine[None, None, None]) -> None:
    """Run to the end of both, or until one raises: then the other is cancelled."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
