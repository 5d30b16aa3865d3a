"""The core: all that Discord would know, without a socket, a clock or a task of its own.

The edge calls `connect`, `receive` and `lost` for each websocket, `timers.run(now)` when `timers.next_due` has come, and
after each of these `drain()`, which tells what is to be done on which connection. All of it is synchronous, so no call
sees another half done. A rule that a client breaks never raises out of here: it is written down and answered as
Discord would answer.

Sessions outlive connections: an event is numbered, entered in the ledger and put in the replay buffer of its session
first, and only then written to the connections that receive, if there are any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import count
from random import Random
from typing import Any

import orjson

from shardwright_api.discord import CLOSE_NORMAL, CLOSE_RESUMABLE, CloseCode, Opcode
from shardwright_simulator import envelope, strikes
from shardwright_simulator.bots import Bot
from shardwright_simulator.connection import Connection, Handshake, Phase
from shardwright_simulator.dialogue import converse
from shardwright_simulator.envelope import Parts
from shardwright_simulator.errors import ClientError, ConfigError, NotFoundError
from shardwright_simulator.faults import REASON_LIMIT, Fault, FaultBook, Trigger
from shardwright_simulator.handshakes import check_query, note_handshake
from shardwright_simulator.ids import session_ids
from shardwright_simulator.ledger import Entry, Ledger
from shardwright_simulator.options import BotConfig, Options, ResumeMode
from shardwright_simulator.outputs import Close, Output
from shardwright_simulator.records import Identify, Journal, Overlap, RestRequest, Resume, Severity, Violation
from shardwright_simulator.session import Session
from shardwright_simulator.silences import Silences
from shardwright_simulator.templates import Shape, Templates, ids, wire_name
from shardwright_simulator.timers import Timers

Clock = Callable[[], float]
CLOSES_SESSION = frozenset({CLOSE_NORMAL, 1001})
"""Close codes by which a client ends its session (Gateway > Disconnecting)."""
BACKFILL_TICK = 0.02
SAMPLE_EVENT = "INTERACTION_CREATE"
"""What is made for a fault that needs an event: no intent holds it back."""
SAMPLE_SIZE = 900


class Gateway:
    """Discord, as far as a bot can see it."""

    def __init__(self, options: Options, bots: list[BotConfig], *, clock: Clock, random: Random) -> None:
        self.options = options
        self.clock = clock
        self.random = random
        self.timers = Timers()
        self.ledger = Ledger(options.ledger_limit)
        self.templates = Templates(random)
        self.faults = FaultBook()
        self.connections: dict[int, Connection] = {}
        self.violations: Journal[Violation] = Journal()
        self.identifies: Journal[Identify] = Journal()
        self.resumes: Journal[Resume] = Journal()
        self.overlaps: Journal[Overlap] = Journal()
        self.rest_requests: Journal[RestRequest] = Journal()
        self.silences = Silences()
        self.bots: dict[str, Bot] = {}
        self._open_overlaps: list[Overlap] = []
        self._touched: list[Connection] = []
        self._connection_ids = count(1)
        self._session_ids = session_ids(random)
        self._serials = count(1)
        for config in bots:
            self.add_bot(config)

    # Bots

    def add_bot(self, config: BotConfig) -> Bot:
        """Let another bot in; raise ConfigError when its id or token is taken."""
        if any(config.id == bot.id or config.token == bot.config.token for bot in self.bots.values()):
            raise ConfigError(f"bot {config.id}: the id or the token is taken")
        bot = self.bots[config.id] = Bot(config, self.clock())
        return bot

    def bot(self, bot_id: str) -> Bot:
        """Find a bot by its id."""
        try:
            return self.bots[bot_id]
        except KeyError:
            raise NotFoundError(f"no bot {bot_id!r}") from None

    def bot_by_token(self, token: str) -> Bot | None:
        """Find the bot that a token lets in."""
        return next((bot for bot in self.bots.values() if bot.accepts(token)), None)

    def overrun(self, bot: Bot) -> None:
        """End all sessions of a bot that spent more session starts than it had; its token is reset already."""
        for connection in self.connections_of(bot):
            self.close(connection, CloseCode.AUTHENTICATION_FAILED, "session start limit exceeded, token reset")
        for session in list(bot.sessions.values()):
            self.end(session)

    def connections_of(self, bot: Bot) -> list[Connection]:
        """List a bot's live connections."""
        return [c for c in self.connections.values() if c.bot == bot.id]

    # The edge's side

    def connect(self, handshake: Handshake) -> Connection:
        """Take a websocket whose opening handshake is done, and greet it."""
        now = self.clock()
        connection = Connection(id=next(self._connection_ids), handshake=handshake, now=now, touched=self._touched)
        self.connections[connection.id] = connection
        note_handshake(self, connection)
        fault = self.faults.take(Trigger.CONNECT, strikes.key_of_path(connection.resume_path))
        if fault is None or strikes.leaves_alone(fault):
            self._greet(connection)
        if fault is not None:
            strikes.strike(self, fault, connection)
        return connection

    def _greet(self, connection: Connection) -> None:
        try:
            check_query(connection)
        except ClientError as error:
            self.refuse(connection, error)
            return
        interval = self.options.heartbeat_interval
        self.control(connection, Opcode.HELLO, {"heartbeat_interval": round(interval * 1000), "_trace": ["[]"]})
        connection.phase = Phase.GREETED
        self._await_heartbeat(connection)

    def _await_heartbeat(self, connection: Connection) -> None:
        """Close the connection if it has not sent a heartbeat in one and a half intervals and a second."""
        patience = self.options.heartbeat_interval * 1.5 + 1.0
        due = (self.clock() if connection.deaf else connection.last_beat) + patience
        if due > self.clock():
            connection.later(self.timers.at(due, lambda: self._await_heartbeat(connection)))
            return
        self.violate(connection, "heartbeat-missing", f"no heartbeat for {patience:.1f} s", CLOSE_RESUMABLE)
        self.close(connection, CLOSE_RESUMABLE, "no heartbeat")

    def receive(self, connection: Connection, data: bytes | str) -> None:
        """Take a whole message from a client."""
        if connection.phase is Phase.CLOSED:
            return
        try:
            converse(self, connection, data)
        except ClientError as error:
            self.refuse(connection, error)

    def lost(self, connection: Connection, code: int | None) -> None:
        """Take note that a connection is gone; `code` is what the client closed with, None without a close frame."""
        self.connections.pop(connection.id, None)
        connection.phase = Phase.CLOSED
        connection.cancel_timers()
        session = connection.session
        ends = session is not None and connection in session.receivers and code in CLOSES_SESSION
        self.detach(connection, by_client=True)
        if session is not None and ends:
            self.end(session)

    def drain(self) -> Iterator[tuple[Connection, list[Output]]]:
        """Hand over what is to be done on which connection."""
        touched = self._touched[:]
        self._touched.clear()
        for connection in touched:
            yield connection, connection.drain()

    # Words to one connection

    def control(self, connection: Connection, op: Opcode, d: Any) -> bool:
        """Send a message that is no dispatch."""
        return connection.send(envelope.control(op, d, self.options.key_order))

    def close(self, connection: Connection, code: int, reason: str = "") -> None:
        """Close a connection; its session lives on without it."""
        self.detach(connection)
        connection.finish(Close(code, reason))

    def refuse(self, connection: Connection, error: ClientError) -> None:
        """Write a broken rule down and close the connection for it."""
        self.violate(connection, error.rule, str(error), error.code)
        reason = str(error).encode("ascii", "replace").decode()
        self.close(connection, error.code, reason[:REASON_LIMIT])

    def violate(
        self,
        connection: Connection,
        rule: str,
        message: str,
        close_code: int | None = None,
        *,
        severity: Severity = Severity.VIOLATION,
    ) -> None:
        """Write down that a connection broke a rule."""
        self.violations.add(
            Violation(**self.about(connection), rule=rule, message=message, close_code=close_code, severity=severity)
        )

    def note(self, connection: Connection, rule: str, message: str) -> None:
        """Write down something that breaks no rule."""
        self.violate(connection, rule, message, severity=Severity.NOTE)

    def about(self, connection: Connection) -> dict[str, Any]:
        """Give the fields that every record about a connection has."""
        return {
            "time": self.clock(),
            "bot": connection.bot,
            "shard": connection.shard,
            "total": connection.total,
            "session": connection.session.id if connection.session else "",
            "connection": connection.id,
        }

    def invalidate(self, connection: Connection, *, resumable: bool) -> None:
        """Send op 9; without `resumable` the session is over (Gateway > Invalid Session)."""
        if connection.phase is Phase.CLOSED:
            return
        session = connection.session
        self.detach(connection)
        if session is not None and not resumable:
            self.end(session)
        self.control(connection, Opcode.INVALID_SESSION, resumable)
        connection.phase = Phase.GREETED

    # Sessions

    def start_session(self, connection: Connection, bot: Bot, shard: int, total: int, intents: int) -> Session:
        """Begin a session for a connection that has identified."""
        session = Session(
            id=next(self._session_ids),
            bot=bot.id,
            shard=shard,
            total=total,
            intents=intents,
            query=connection.query,
            limit=bot.replay_limit(shard, total),
            created=self.clock(),
        )
        bot.add(session)
        self.attach(connection, session)
        return session

    def attach(self, connection: Connection, session: Session) -> None:
        """Let a connection have a session's events; what becomes of an older one is the option `on_resume`."""
        mode = self.options.on_resume
        for old in list(session.attached):
            self._overlap(old, connection, session, mode)
            if mode is ResumeMode.CUT:
                self.close(old, CLOSE_RESUMABLE, "resumed elsewhere")
        session.receivers = [*session.receivers, connection] if mode is ResumeMode.SHARE else [connection]
        session.attached.append(connection)
        session.hold(None)
        connection.session = session
        self.silences.note(session, self.clock())

    def activate(self, connection: Connection, session: Session) -> None:
        """Let events go out on a connection from now on: READY or RESUMED comes next."""
        connection.phase = Phase.ACTIVE
        self.silences.note(session, self.clock())

    def mute(self, connection: Connection) -> None:
        """Send nothing any more on a connection, a fault."""
        connection.muted = True
        if connection.session is not None:
            self.silences.note(connection.session, self.clock())

    def _overlap(self, old: Connection, new: Connection, session: Session, mode: ResumeMode) -> None:
        cut = mode is ResumeMode.CUT
        about = self.about(new) | {"session": session.id}
        overlap = Overlap(**about, old=old.id, new=new.id, mode=mode, silent_before=self.clock() - old.last_heard)
        if cut:
            overlap.seconds, overlap.ended_by = 0.0, "cut"
        else:
            self._open_overlaps.append(overlap)
        self.overlaps.add(overlap)

    def detach(self, connection: Connection, *, by_client: bool = False) -> None:
        """Take a connection away from its session; a session left alone is forgotten after a while."""
        session, connection.session = connection.session, None
        if session is None or connection not in session.attached:
            return
        session.attached.remove(connection)
        if connection in session.receivers:
            session.receivers.remove(connection)
        self._end_overlaps(connection, by_client=by_client)
        self.silences.note(session, self.clock())
        if not session.attached and not session.ended:
            session.hold(self.timers.at(self.clock() + self.options.session_ttl, lambda: self.end(session)))

    def _end_overlaps(self, connection: Connection, *, by_client: bool) -> None:
        for overlap in [o for o in self._open_overlaps if connection.id in (o.old, o.new)]:
            self._open_overlaps.remove(overlap)
            overlap.seconds = self.clock() - overlap.time
            overlap.ended_by = ("old" if connection.id == overlap.old else "new") if by_client else "cut"

    def drop(self, session: Session) -> None:
        """End a session, and tell its connections by op 9."""
        for connection in list(session.attached):
            self.invalidate(connection, resumable=False)
        if not session.ended:
            self.end(session)

    def end(self, session: Session) -> None:
        """Forget a session: from now on a RESUME of it gets op 9."""
        session.ended = True
        session.hold(None)
        self.bots[session.bot].remove(session)

    def backfill(self, session: Session, guilds: Iterator[int], size: int) -> None:
        """Send GUILD_CREATE for the guilds of READY, a handful at a time (Gateway Events > Guild Create)."""
        at_once = max(1, round(self.options.backfill_rate * BACKFILL_TICK))
        session.backfilling = not session.ended and self._backfill_some(session, guilds, size, at_once)
        if session.backfilling:
            self.timers.at(self.clock() + BACKFILL_TICK, lambda: self.backfill(session, guilds, size))

    def _backfill_some(self, session: Session, guilds: Iterator[int], size: int, most: int) -> bool:
        for _ in range(most):
            guild = next(guilds, None)
            if guild is None:
                return False
            self.emit_to([session], "GUILD_CREATE", guild, size, serial=next(self._serials), flags="backfill")
        return True

    # Events

    def emit(self, bot: Bot, t: str, guild: int | None, size: int, *, twins: bool = False) -> int:
        """Make one event of a bot and give each session that sees it a copy; return the number of copies."""
        sessions = [s for s in bot.receivers(guild) if s.wants(wire_name(t), direct=guild is None)]
        serial = next(self._serials)
        self.emit_to(sessions, t, guild, size, serial=serial)
        if twins:
            self.emit_to(sessions, t, guild, size, serial=serial, flags="twin")
        return len(sessions) * (1 + twins)

    def emit_to(
        self, sessions: list[Session], t: str, guild: int | None, size: int, *, serial: int, flags: str = ""
    ) -> None:
        """Give sessions a copy each of an event, of a shape that its serial chooses."""
        keys = ids(t, guild, serial)
        for session in sessions:
            template = self.templates.get(Shape(t, size, serial, session.content))
            self.dispatch(session, wire_name(t), template.fill(keys), serial=serial, flags=flags)

    def dispatch_own(self, session: Session, t: str, d: dict[str, Any], *, flags: str = "control") -> None:
        """Dispatch an event that the dialogue itself calls for, such as READY."""
        serial = next(self._serials)
        body = orjson.dumps({**d, "shardwright_serial": serial})
        self.dispatch(session, t, (body,), serial=serial, flags=flags)

    def dispatch_struck(self, session: Session, fault: Fault) -> None:
        """Make an event that a fault strikes on its way."""
        serial = next(self._serials)
        guild = next(self.bots[session.bot].guilds(session.shard, session.total), None)
        template = self.templates.get(Shape(SAMPLE_EVENT, SAMPLE_SIZE, serial, content=False))
        self.dispatch(
            session, SAMPLE_EVENT, template.fill(ids(SAMPLE_EVENT, guild, serial)), serial=serial, fault=fault
        )

    def dispatch(
        self, session: Session, t: str, d: Parts, *, serial: int, flags: str = "", fault: Fault | None = None
    ) -> None:
        """Give an event its number, enter it, keep it for a replay, and send it to whoever receives, maybe struck by a fault."""
        seq = session.next_seq()
        parts = envelope.dispatch(t, seq, d, self.options.key_order)
        message = b"".join(parts)
        session.remember(seq, parts)
        fault = fault or self.faults.take(Trigger.DISPATCH, (session.bot, session.shard))
        if fault is None:
            self._enter(session, seq, t, message, serial=serial, flags=flags)
            self._send(session, seq, message)
        else:
            strikes.strike_event(self, fault, session, seq, message)
            flags = "unreadable" if seq in session.poison else flags
            self._enter(session, seq, t, session.poison.get(seq, message), serial=serial, flags=flags)

    def _enter(self, session: Session, seq: int, t: str, message: bytes, *, serial: int | None, flags: str) -> None:
        digest = sha256(message).digest()
        n = self.ledger.last + 1
        about = (session.bot, session.id, session.shard, session.total)
        self.ledger.add(Entry(n, self.clock(), *about, seq, t, serial, len(message), digest, flags))

    def _send(self, session: Session, seq: int, message: bytes) -> None:
        for connection in session.receivers:
            if connection.phase is Phase.ACTIVE and connection.send(message):
                session.sent_through = seq

    def resumed(self, connection: Connection, session: Session) -> None:
        """Send RESUMED: a dispatch with a number of its own, that no replay repeats."""
        seq = session.next_seq()
        message = b"".join(envelope.dispatch("RESUMED", seq, (b'{"_trace":["[]"]}',), self.options.key_order))
        self._enter(session, seq, "RESUMED", message, serial=None, flags="control")
        if connection.send(message):
            session.sent_through = seq
