"""One shard at the edge: connects its session's websocket, keeps it alive, and brings it back.

Theory of operation. `run` is one task for as long as the pod holds the range: wait until nothing stands against a
connection, connect, serve until the connection ends, wait as long as the session says, again. While a connection is
served, reads call `messages` directly (no task, queue or future per message): the session turns them into events, the
journal takes them, the sinks are woken. One timer per shard drives heartbeats and time-outs.

A connection is made only by the holder of the range: that is asked of the cluster each time. While the cluster does not
answer, a session may be resumed, the first time at once and then once every 30 s; nothing is identified.

On failure of a connection the session decides (`session_table.py`); on `NotHolder` the pod gives the range up.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
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


class Shard:
    """One shard: a `Session` and, most of the time, a `Connection`."""

    def __init__(self, session: Session, around: Surroundings) -> None:
        self.session = session
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
        self._blind_resume_at = 0.0
        self._last_state = session.state
        self._token = ""
        self._slot_task: asyncio.Task[None] | None = None

    # --- the task -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the session connected until it has ended. Raise `NotHolder` if another pod holds the range."""
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
        return self._around.sinks_obstacle() or self._around.gate.obstacle(self.id)

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
        try:
            self._set_timer()
            await connection.ended
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
            now = self._loop.time()
            if self.session.resumable is None or now < self._blind_resume_at:
                self.session.retry_at = now + 1.0
                return False
            self._blind_resume_at = now + BLIND_RESUME_INTERVAL
        return self.session.state is State.IDLE

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

    def pause(self) -> None:
        """Stop reading: the journal is full."""
        if self.connection is not None and self._paused_since is None:
            self._paused_since = self._loop.time()
            self.session.reading(paused=True)
            self.connection.pause_reading()

    def resume(self) -> None:
        """Read again: there is room in the journal."""
        self._paused_since = None
        if self.session.paused:
            self.session.reading(paused=False)
        if self.connection is not None:
            self.connection.resume_reading()
        self.nudge()

    def end(self, given: Input) -> None:
        """End for good: DRAIN keeps the session alive at Discord, DELETE does not."""
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
            intents=resumable.intents if resumable else None,
            compression=resumable.compression if resumable else None,
            guilds=session.guilds,
            latency=round(session.latency * 1000) if session.latency is not None else None,
            close=session.last_close,
            message=self._message(),
        )

    def _message(self) -> str | None:
        """Say for people why the shard is not ready, within what the CRD takes."""
        if self.session.state is State.LIVE:
            return None
        return (self.waiting_for or self.session.last_reason)[:_MESSAGE_LIMIT] or None

    # --- inside -------------------------------------------------------------------------------------------------

    def _after(self) -> None:
        """Carry out what the session left after an input."""
        session, connection = self.session, self.connection
        if session.events:
            assert session.source is not None
            events, session.events = session.events, []
            self._around.journal.append(session.source, events, time.time())
        if session.sends:
            sends, session.sends = session.sends, []
            for text in sends:
                if connection is not None:
                    connection.send(text)
        if session.close_code is not None:
            code, session.close_code = session.close_code, None
            if connection is not None:
                connection.close(code)
        if session.state is not self._last_state:
            self._entered(session.state)
        self._set_timer()

    def _entered(self, state: State) -> None:
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
