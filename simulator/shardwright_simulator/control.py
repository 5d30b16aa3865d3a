"""The simulator's own controls, for tests in the same process; `control_http.py` offers the same over HTTP.

All methods are synchronous and take effect at once; what they cause on sockets is sent in the same turn of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from shardwright_simulator import strikes
from shardwright_simulator.bots import Bot
from shardwright_simulator.connection import Connection
from shardwright_simulator.errors import ConfigError, ControlError
from shardwright_simulator.faults import Fault, Trigger
from shardwright_simulator.gateway import Gateway
from shardwright_simulator.ledger import Entry, LedgerStatistics
from shardwright_simulator.load import LoadGenerator, LoadSpec, LoadStatus
from shardwright_simulator.options import BotConfig, Options
from shardwright_simulator.records import Identify, Overlap, RestRequest, Resume, Severity, Silence, Violation
from shardwright_simulator.session import Session


class BotView(msgspec.Struct, kw_only=True):
    """A bot as it is now."""

    config: BotConfig
    token_valid: bool
    remaining: int
    reset_at: float
    overruns: int
    sessions: int


class SessionView(msgspec.Struct, kw_only=True):
    """A session as it is now."""

    id: str
    bot: str
    shard: int
    total: int
    intents: int
    created: float
    seq: int
    sent_through: int
    buffered: int
    backfilling: bool
    connections: list[int]
    query: dict[str, str]


class ConnectionView(msgspec.Struct, kw_only=True):
    """A live connection as it is now."""

    id: int
    bot: str
    shard: int | None
    total: int | None
    session: str
    phase: str
    opened: float
    last_heard: float
    last_beat: float
    messages_sent: int
    bytes_sent: int
    path: str
    compression: str
    user_agent: str


class State(msgspec.Struct, kw_only=True):
    """All at a glance."""

    time: float
    options: Options
    bots: list[BotView]
    connections: int
    sessions: int
    violations: int
    identifies: int
    resumes: int
    overlaps: int
    ledger: LedgerStatistics
    loads: list[LoadStatus]


class Control:
    """Everything that a test may ask of a simulator or do to it."""

    def __init__(self, gateway: Gateway, flush: Callable[[], None]) -> None:
        self._gateway = gateway
        self._flush = flush
        self._loads = LoadGenerator(gateway)

    # Ask

    def state(self) -> State:
        """Give all at a glance."""
        gateway = self._gateway
        bots = self.bots()
        return State(
            time=gateway.clock(),
            options=gateway.options,
            bots=bots,
            connections=len(gateway.connections),
            sessions=sum(bot.sessions for bot in bots),
            violations=len(self.violations()),
            identifies=len(gateway.identifies),
            resumes=len(gateway.resumes),
            overlaps=len(gateway.overlaps),
            ledger=gateway.ledger.statistics(),
            loads=self._loads.all(),
        )

    def bots(self) -> list[BotView]:
        """List the bots."""
        return [_bot_view(bot) for bot in self._gateway.bots.values()]

    def bot(self, bot_id: str = "") -> BotView:
        """Give a bot; the first when none is named."""
        return _bot_view(self._bot(bot_id))

    def sessions(self, *, bot: str = "") -> list[SessionView]:
        """List the sessions that could be resumed, connected or not."""
        bots = [b for b in self._gateway.bots.values() if not bot or b.id == bot]
        return [_session_view(session) for b in bots for session in b.sessions.values()]

    def connections(self, *, bot: str = "") -> list[ConnectionView]:
        """List the live connections."""
        return [_connection_view(c) for c in self._gateway.connections.values() if not bot or c.bot == bot]

    def identifies(self, *, bot: str = "", after: int = 0) -> list[Identify]:
        """List the IDENTIFYs as they arrived."""
        return list(self._gateway.identifies.query(bot=bot, after=after))

    def resumes(self, *, bot: str = "", after: int = 0) -> list[Resume]:
        """List the RESUMEs as they arrived."""
        return list(self._gateway.resumes.query(bot=bot, after=after))

    def violations(
        self, *, bot: str = "", after: int = 0, severity: Severity | None = Severity.VIOLATION
    ) -> list[Violation]:
        """List the broken rules; with `severity` None the notes too."""
        found = self._gateway.violations.query(bot=bot, after=after)
        return [v for v in found if severity is None or v.severity is severity]

    def overlaps(self, *, bot: str = "", after: int = 0) -> list[Overlap]:
        """List the times that two live connections shared a session."""
        return list(self._gateway.overlaps.query(bot=bot, after=after))

    def silences(self, *, bot: str = "", after: int = 0) -> list[Silence]:
        """List the times in which nobody could get a shard's events; the longest of a window is the caller's to find."""
        return list(self._gateway.silences.journal.query(bot=bot, after=after))

    def rest_requests(self, *, bot: str = "", after: int = 0) -> list[RestRequest]:
        """List the REST requests."""
        return list(self._gateway.rest_requests.query(bot=bot, after=after))

    def ledger(self, *, bot: str = "", session: str = "", after: int = 0, limit: int = 0) -> Iterator[Entry]:
        """Give the events that were made, in order."""
        return self._gateway.ledger.query(bot=bot, session=session, after=after, limit=limit)

    # Do

    def set_options(self, **changes: Any) -> Options:
        """Change options; what is under way keeps what it began with."""
        merged = msgspec.to_builtins(self._gateway.options) | changes
        self._gateway.options = _convert(merged, Options)
        return self._gateway.options

    def add_bot(self, config: BotConfig) -> BotView:
        """Let another bot in."""
        return _bot_view(self._gateway.add_bot(config))

    def change_bot(self, bot_id: str = "", **changes: Any) -> BotView:
        """Change a bot. A new `token` lets the old one in no more; sessions go on, but need the new one to resume."""
        bot = self._bot(bot_id)
        valid = changes.pop("token_valid", None)
        config = _convert(msgspec.to_builtins(bot.config) | changes, BotConfig)
        bot.configure(config, changes, self._gateway.clock())
        bot.token_valid = bot.token_valid if valid is None else bool(valid)
        return _bot_view(bot)

    def rotate_token(self, bot_id: str = "") -> str:
        """Give a bot a new token, as its owner would in the portal; the old one is refused from now on."""
        return self._bot(bot_id).rotate_token()

    def remove_bot(self, bot_id: str) -> None:
        """Let a bot in no more; its connections are closed with 4004."""
        bot = self._bot(bot_id)
        bot.token_valid = False
        self._gateway.overrun(bot)
        del self._gateway.bots[bot_id]
        self._flush()

    def add_fault(self, fault: Fault) -> Fault:
        """Script a fault; one at `now` strikes before this returns, unless it has an `after`."""
        gateway = self._gateway
        gateway.faults.add(fault)
        if fault.at is Trigger.NOW and fault.after:
            gateway.timers.at(gateway.clock() + fault.after, lambda: strikes.strike_now(gateway, fault))
        elif fault.at is Trigger.NOW:
            strikes.strike_now(gateway, fault)
        self._flush()
        return fault

    def faults(self) -> list[Fault]:
        """List the faults with how often each has struck."""
        return self._gateway.faults.list()

    def remove_fault(self, fault_id: int) -> Fault:
        """Take a fault back."""
        return self._gateway.faults.remove(fault_id)

    def clear_faults(self) -> None:
        """Take all faults back."""
        self._gateway.faults.clear()

    def start_load(self, spec: LoadSpec) -> LoadStatus:
        """Begin a load."""
        status = self._loads.start(spec)
        self._flush()
        return status

    def stop_load(self, load_id: int) -> LoadStatus:
        """End a load."""
        return self._loads.stop(load_id)

    def load(self, load_id: int) -> LoadStatus:
        """Tell how a load goes."""
        return self._loads.status(load_id)

    def loads(self) -> list[LoadStatus]:
        """Tell how all loads go."""
        return self._loads.all()

    def stop_loads(self) -> None:
        """End all loads."""
        self._loads.stop_all()

    def end_session(self, session_id: str) -> None:
        """Forget a session; its connections get op 9 false."""
        for bot in self._gateway.bots.values():
            session = bot.sessions.get(session_id)
            if session is not None:
                self._gateway.drop(session)
                self._flush()
                return
        raise ControlError(f"no session {session_id!r}")

    def reset(self) -> None:
        """Stop loads, take back faults, clear all journals and the ledger; bots, sessions and connections stay."""
        self._loads.stop_all()
        gateway = self._gateway
        gateway.faults.clear()
        for journal in (
            gateway.violations,
            gateway.identifies,
            gateway.resumes,
            gateway.overlaps,
            gateway.silences.journal,
            gateway.rest_requests,
        ):
            journal.clear()
        gateway.ledger.clear()

    def _bot(self, bot_id: str) -> Bot:
        return self._gateway.bot(bot_id or next(iter(self._gateway.bots), ""))


def _convert(value: Any, shape: Any) -> Any:
    try:
        return msgspec.convert(value, shape)
    except (msgspec.ValidationError, ConfigError) as error:
        raise ControlError(str(error)) from error


def _bot_view(bot: Bot) -> BotView:
    return BotView(
        config=bot.config,
        token_valid=bot.token_valid,
        remaining=bot.remaining,
        reset_at=bot.reset_at,
        overruns=bot.overruns,
        sessions=len(bot.sessions),
    )


def _session_view(session: Session) -> SessionView:
    return SessionView(
        id=session.id,
        bot=session.bot,
        shard=session.shard,
        total=session.total,
        intents=session.intents,
        created=session.created,
        seq=session.seq,
        sent_through=session.sent_through,
        buffered=session.buffered,
        backfilling=session.backfilling,
        connections=[c.id for c in session.attached],
        query=dict(session.query),
    )


def _connection_view(connection: Connection) -> ConnectionView:
    return ConnectionView(
        id=connection.id,
        bot=connection.bot,
        shard=connection.shard,
        total=connection.total,
        session=connection.session.id if connection.session else "",
        phase=connection.phase.value,
        opened=connection.opened,
        last_heard=connection.last_heard,
        last_beat=connection.last_beat,
        messages_sent=connection.messages_sent,
        bytes_sent=connection.bytes_sent,
        path=connection.handshake.path,
        compression=connection.compression,
        user_agent=connection.handshake.user_agent,
    )
