"""A shard's session with Discord, without any I/O: messages, close codes and ticks in; bytes to send and events out.

Theory of operation. The edge (`shard.py`) owns sockets, clocks and the journal. It tells the session what happened
(`connect`, `opened`, `receive`, `slot`, `closed`, `tick`, ...), always with the time, and afterwards takes what the
session left: `sends` (JSON texts), `events` for the journal, and `close_code` when the connection is to be closed.
Which input does what stands in `session_table.py`; this file only carries the effects out.

What is guaranteed: `seq` is the sequence of the last event that was handed on, so a RESUME from it neither repeats nor
skips; an event is handed on byte for byte and in order. On any failure the session keeps what a RESUME needs, until
Discord says that it is over; the gap that this leaves is told before the next READY (`gap.py`).

A hole in the sequences of a live session is not taken as given: the connection is dropped and the session resumed from
the last event before it. Where the replay has the same hole, it is Discord's, and holes are only counted from then on.

The hot path is `receive`: while events are expected, a message is compared with the only header it can have
(`{"t":"...","s":<seq + 1>,"op":0,`), and just its name is looked up. Any other layout, the events that this program
needs itself and everything that is not a dispatch are decoded, which is slower but rare.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from shardwright_api.discord import EVENT_NAMES, CloseCode, Opcode
from shardwright_api.resources import Compression, Gap
from shardwright_shard.errors import Unreadable
from shardwright_shard.gap import Ending, Timeline
from shardwright_shard.journal import Event, Source
from shardwright_shard.session_table import Effect, Input, State, input_of_close, step

HELLO_TIMEOUT: Final = 20.0
"""Seconds from the start of a connection to HELLO."""
READY_TIMEOUT: Final = 60.0
"""Seconds from IDENTIFY to READY, or of silence while a RESUME is answered. Long: an outage may delay READY."""
MAX_FAILED_RESUMES: Final = 5
"""RESUMEs in a row that end without RESUMED, after which the session is given up (discord-api-docs#1619)."""
GIVE_UP_AFTER: Final = 300.0
"""Seconds of RESUMEs that bring nothing, after which the session is given up however few they were. The time in which no
connection came as far as HELLO does not count: nothing is known of the session then."""
MAX_SKIPS: Final = 5
"""Events in a row that are skipped as unreadable and make up for the RESUMEs that they cost."""

_PREFIX: Final = b'{"t":"'
_LAST: Final = ord("}")
_NAME_END: Final = 72
_NAME: Final = re.compile(r"[A-Z0-9_]{1,64}")
_OWN = frozenset({"READY", "RESUMED", "GUILD_CREATE", "GUILD_DELETE"})
_ORDINARY: Final = {name.encode(): name for name in EVENT_NAMES - _OWN}
_CONNECTED: Final = (State.OPEN, State.QUEUED, State.IDENTIFYING, State.RESUMING, State.LIVE)
_STREAMING: Final = (State.RESUMING, State.LIVE)


class _Envelope(msgspec.Struct):
    op: int
    s: int | None = None
    t: str | None = None
    d: msgspec.Raw = msgspec.Raw(b"null")


class _Hello(msgspec.Struct):
    heartbeat_interval: float


class _Guild(msgspec.Struct):
    id: str
    unavailable: bool | None = None


class _Ready(msgspec.Struct):
    session_id: str
    resume_gateway_url: str
    guilds: list[_Guild] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """What IDENTIFY says. `shard` of `total`; `intents` as bits."""

    bot: str
    shard: int
    total: int
    intents: int
    compression: Compression
    presence: dict[str, Any] | None = None
    large_threshold: int | None = None
    identity: str = ""
    """Hash of what IDENTIFY says of intents, presence and large threshold; empty: not known."""


@dataclass(slots=True, kw_only=True)
class Resumable:
    """All that a RESUME needs. It goes on with the compression and the intents of its IDENTIFY, whatever the config."""

    source: Source
    url: str
    seq: int
    intents: int
    compression: Compression
    identity: str = ""
    timeline: Timeline = field(default_factory=Timeline)


@dataclass(slots=True)
class Counters:
    """Plain integers, collected at scrape."""

    heartbeats: int = 0
    zombies: int = 0
    unreadable: int = 0
    skipped: int = 0
    unknown_opcodes: int = 0
    closes: dict[int, int] = field(default_factory=dict)
    identifies: int = 0
    resumes: int = 0
    resumed: int = 0
    readies: int = 0
    invalid_sessions: int = 0
    gaps: int = 0
    missing: int = 0
    """Sequences that Discord left out, in a replay too."""


@dataclass(slots=True)
class _Tries:
    """RESUMEs in a row that brought nothing."""

    failed: int = 0
    skips: int = 0
    seconds: float = 0.0
    last_at: float | None = None

    def sent(self, now: float) -> None:
        """Count a RESUME, as failed until it turns out otherwise, and the time since the one before."""
        self.failed += 1
        if self.last_at is not None:
            self.seconds += now - self.last_at
        self.last_at = now


class Session:
    """One shard's session. Read `state`, `resumable`, `guilds`, `latency`, `close`, `retry_at` freely."""

    def __init__(
        self,
        config: SessionConfig,
        *,
        random: Callable[[], float],
        wall: Callable[[], float],
        resumable: Resumable | None = None,
        ending: Ending | None = None,
        replaces: Session | None = None,
    ) -> None:
        """Begin without a connection. `wall`: Unix time, for what is told to people and sinks alone.

        `ending`: of a session before, whose gap is not known to every sink. `replaces`: the live session of the same
        shard that ends when this one is READY.
        """
        self.config = config
        self.state = State.IDLE
        self.resumable = resumable
        self.source = resumable.source if resumable else None
        """Where `events` belong to: outlives the session's end, so that what came before it is still handed on."""
        self.sends: list[bytes] = []
        self.events: list[Event] = []
        self.close_code: int | None = None
        self.guilds = 0
        self.latency: float | None = None
        self.last_close: int | None = None
        self.last_reason = ""
        self.stored: int | None = (resumable.seq or None) if resumable else None
        """The last sequence that the checkpoint holds: what heartbeats say."""
        self.paused = False
        self.retry_at = 0.0
        self.ending = ending
        """Of the session before this one, until every sink knows the gap."""
        self.counters: Counters = replaces.counters if replaces else Counters()
        self.received: dict[str, int] = replaces.received if replaces else {}
        self._replaces = replaces
        self._random = random
        self.wall = wall
        self._token = ""
        self._unloaded: set[str] = set()
        self._expected = b""
        self._now = 0.0
        self.interval = 0.0
        """Seconds between heartbeats, as HELLO said."""
        self._beat_at = float("inf")
        self._beat_sent: float | None = None
        self._beat_acked = True
        self._deadline = float("inf")
        self._live_since: float | None = None
        self._failures = 0
        self._storm = 0
        """Times op 9 came since the session was last live for long."""
        self._tries = _Tries()
        self._resumed_from = 0
        self._hole: int | None = None
        self._holes_are_discords = False
        self._ready_seq = 1
        self._why_ended = ""
        self._attempts = 0
        self._invalidated = False
        self._rate_limited = False
        self._poison: int | None = None
        self._effects: dict[Effect, Callable[[], None]] = {
            Effect.HEARTBEATS: self._start_heartbeats,
            Effect.BEAT: self._beat,
            Effect.ACK: self._acknowledge_beat,
            Effect.IDENTIFY: self._identify,
            Effect.RESUME: self._resume,
            Effect.LIVE: self._go_live,
            Effect.FORGET: self._forget,
            Effect.CLOSE_KEEP: lambda: self._close_with(4000),
            Effect.CLOSE_END: lambda: self._close_with(1000),
            Effect.RETRY: self._plan_retry,
        }

    # --- what the edge says -------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether there is a connection past its handshake."""
        return self.state in _CONNECTED

    @property
    def compression(self) -> Compression:
        """The compression that the next connection must ask for."""
        return self.resumable.compression if self.resumable else self.config.compression

    @property
    def resume_url(self) -> str | None:
        """The URL for a RESUME; None: the gateway's own, which now and then stands in for one that is out of reach."""
        if self.resumable is None or (self._attempts and self._attempts % _URL_TRIES == 0):
            return None
        return self.resumable.url

    def successor(self) -> Session:
        """Make the session that is to replace this one."""
        return Session(self.config, random=self._random, wall=self.wall, replaces=self)

    @property
    def stands_by(self) -> bool:
        """Whether this is a successor that has not had READY: the session that it is to replace still counts."""
        return self._replaces is not None

    @property
    def outdated(self) -> bool:
        """Whether the session was identified as something else than the config says: it is to be renewed."""
        old, new = self.resumable, self.config
        if old is None:
            return False
        return old.identity != new.identity if old.identity and new.identity else old.intents != new.intents

    def gap(self) -> Gap | None:
        """Give what the row says of the session before; None as soon as every sink has acknowledged what told of it."""
        if self.resumable is not None and (self.resumable.source.acked or 0) >= self._ready_seq:
            self.ending = None
        return self.ending.row() if self.ending is not None else None

    def handed_on(self, now: float) -> None:
        """Note that the events of a read stand in the journal; `now` is their Unix time."""
        if self.resumable is not None:
            self.resumable.timeline.note(self.resumable.seq, now)

    def given_up(self, reason: str) -> Ending | None:
        """Say what is lost if the session is given up now; the older ending where its gap is not told to all yet."""
        if self.resumable is None:
            return self.ending
        if self.gap() is not None and self.ending is not None:
            self.ending.reason = reason
            return self.ending
        source, timeline, seq = self.resumable.source, self.resumable.timeline, self.resumable.seq
        if self.events:
            timeline.note(seq, self.wall())
        return Ending(source, timeline, seq=seq, reason=reason)

    def connect(self, now: float) -> None:
        """Begin to connect."""
        self._deadline = now + HELLO_TIMEOUT
        self._attempts += 1
        self._apply(Input.CONNECT, now)

    def opened(self, now: float, *, token: str) -> None:
        """Take the end of the opening handshake, and the token for a RESUME."""
        self._token = token
        self._apply(Input.OPENED, now)

    def slot(self, now: float, *, token: str) -> None:
        """Take the identify slot, already won and paid for: IDENTIFY is sent now."""
        self._token = token
        self._apply(Input.SLOT, now)

    def closed(self, code: int | None, now: float, *, reason: str = "") -> None:
        """Take the end of the connection: its close code, None where there was none."""
        if self.state in {State.IDLE, State.PARKED}:
            return
        self.last_close = code
        self.last_reason = reason
        self.counters.closes[code or 0] = self.counters.closes.get(code or 0, 0) + 1
        self._rate_limited = code == CloseCode.RATE_LIMITED
        self._why_ended = f"close code {code}{f': {reason}' if reason else ''}"
        given = Input.LOST if self.state is State.CONNECTING else input_of_close(code)
        self._apply(given if self.state is not State.ENDED else Input.LOST, now)

    def reading(self, *, paused: bool) -> None:
        """Note that the edge stops or resumes reading: ACKs that came meanwhile are not read yet."""
        self.paused = paused
        self._beat_acked = True
        self._beat_sent = None

    def give(self, given: Input, now: float) -> None:
        """Take an input without data: PAUSED, UNPARK, DRAIN, DELETE, RUBBISH."""
        self._apply(given, now)

    def tick(self, now: float) -> None:
        """Do what is due: a heartbeat, or the end of our patience."""
        if self.state not in _CONNECTED and self.state is not State.CONNECTING:
            return
        if now >= self._deadline:
            self.last_reason = f"nothing came in time while {self.state.name}"
            self._apply(Input.TIMEOUT, now)
        elif now >= self._beat_at:
            self._beat_is_due(now)

    def next_tick(self) -> float:
        """Give the time at which `tick` has something to do; infinity if never."""
        return min(self._deadline, self._beat_at)

    def rubbish(self, error: Exception, now: float) -> None:
        """Take bytes that cannot be read. The second time at one place of a replay, the event there is skipped."""
        if not self.connected:
            return
        self.counters.unreadable += 1
        self.last_reason = f"unreadable: {error}"
        self._note_poison()
        self._apply(Input.RUBBISH, now)

    def receive(self, messages: list[bytes], now: float) -> None:
        """Take whole gateway messages, in order. Stops at one that ends the connection."""
        self._now = now
        for message in messages:
            end = message.find(b'"', 6, _NAME_END)
            if message.startswith(self._expected, end) and message.startswith(_PREFIX) and message[-1] == _LAST:
                name = _ORDINARY.get(message[6:end])
                if name is not None and self._expected and self.resumable is not None:
                    self.resumable.seq = seq = self.resumable.seq + 1
                    self._expected = b'","s":%d,"op":0,' % (seq + 1)
                    self.received[name] = self.received.get(name, 0) + 1
                    self.events.append(Event(seq, name, message))
                    continue
            try:
                self._receive_decoded(message, now)
            except (msgspec.MsgspecError, Unreadable, UnicodeDecodeError) as error:
                self.rubbish(error, now)
            if self.state not in _CONNECTED:
                return
        if self.state is State.RESUMING:
            self._deadline = now + READY_TIMEOUT

    # --- messages that are decoded ------------------------------------------------------------------------------

    def _receive_decoded(self, message: bytes, now: float) -> None:
        envelope = msgspec.json.decode(message, type=_Envelope)
        if envelope.op == Opcode.DISPATCH:
            self._dispatch(envelope, message, now)
        elif envelope.op == Opcode.HELLO:
            self._hello(envelope, now)
        elif envelope.op == Opcode.INVALID_SESSION:
            self._invalid(resumable=msgspec.json.decode(envelope.d, type=bool), now=now)
        elif envelope.op in _SIMPLE:
            self._apply(_SIMPLE[envelope.op], now)
        else:
            self.counters.unknown_opcodes += 1

    def _hello(self, envelope: _Envelope, now: float) -> None:
        interval = msgspec.json.decode(envelope.d, type=_Hello).heartbeat_interval / 1000
        if interval <= 0:
            raise Unreadable("HELLO without a positive heartbeat_interval")
        self.interval = interval
        self._apply(Input.HELLO_RESUME if self.resumable else Input.HELLO_IDENTIFY, now)

    def _invalid(self, *, resumable: bool, now: float) -> None:
        self._invalidated = True
        self._storm += 1
        self._why_ended = "op 9"
        self.counters.invalid_sessions += 1
        self.last_reason = f"op 9, {'resumable' if resumable else 'not resumable'}"
        self._apply(Input.INVALID_RESUMABLE if resumable else Input.INVALID, now)

    def _dispatch(self, envelope: _Envelope, message: bytes, now: float) -> None:
        if envelope.t is None or envelope.s is None or not _NAME.fullmatch(envelope.t):
            raise Unreadable("a dispatch without a sequence or a proper name")
        if self._is_hole(envelope.s):
            self.last_reason = f"the sequences leap from {self._hole} to {envelope.s}"
            self._apply(Input.HOLE, now)
            return
        given = {"READY": Input.READY, "RESUMED": Input.RESUMED}.get(envelope.t, Input.EVENT)
        transition = step(self.state, given)
        if Effect.ADOPT in transition.effects:
            self._adopt(msgspec.json.decode(envelope.d, type=_Ready))
        elif given is Input.READY and Effect.FORWARD in transition.effects:
            self._list_guilds(msgspec.json.decode(envelope.d, type=_Ready))
        if Effect.FORWARD in transition.effects:
            self._forward(envelope, message)
        self._apply(given, now)

    def _adopt(self, ready: _Ready) -> None:
        config = self.config
        source = Source(bot=config.bot, shard=config.shard, total=config.total, session=ready.session_id)
        self.source = source
        self.resumable = Resumable(
            source=source,
            url=ready.resume_gateway_url,
            seq=0,
            intents=config.intents,
            compression=config.compression,
            identity=config.identity,
        )
        if self._replaces is not None:
            self.ending, self._replaces = self._replaces.given_up("renewal"), None
        self.stored = None
        self._hole, self._holes_are_discords = None, False
        self._list_guilds(ready)

    def _is_hole(self, seq: int) -> bool:
        """Say whether a live session's events leap over sequences that a RESUME may bring."""
        if self.state is not State.LIVE or self.resumable is None or seq <= self.resumable.seq + 1:
            return False
        if self._holes_are_discords:
            self.counters.missing += seq - self.resumable.seq - 1
            return False
        self._hole = self.resumable.seq
        return True

    def _look_into_hole(self, seq: int) -> None:
        """Take what comes first after a RESUME from before a hole: the events that were missing, or proof that none are."""
        if self._hole is not None and self.resumable is not None and self.resumable.seq == self._hole:
            self._holes_are_discords = seq > self._hole + 1
            self.counters.missing += max(seq - self._hole - 1, 0)
        self._hole = None

    def _list_guilds(self, ready: _Ready) -> None:
        self.guilds = len(ready.guilds)
        self._unloaded = {guild.id for guild in ready.guilds}

    def _forward(self, envelope: _Envelope, message: bytes) -> None:
        name, seq = envelope.t, envelope.s
        assert name is not None
        assert seq is not None
        assert self.resumable is not None
        self._look_into_hole(seq)
        if name == "READY" and self.ending is not None:
            self._ready_seq = seq
            self.counters.gaps += 1
            self.events.append(self.ending.event(self.resumable.source, self.wall()))
        backfill = self._count_guild(name, envelope.d) if name.startswith("GUILD_") else False
        self.resumable.seq = max(seq, self.resumable.seq)
        self._expected = b'","s":%d,"op":0,' % (self.resumable.seq + 1)
        known = name if name in EVENT_NAMES else "other"
        self.received[known] = self.received.get(known, 0) + 1
        if name == "RESUMED":  # a new one each time that Discord says it, though its sequence may come again
            mark = f"resumed-{seq}-{int(self._random() * 2**48):012x}"
            self.events.append(Event(None, name, message, mark=mark))
        else:
            self.events.append(Event(seq, name, message, backfill))

    def _count_guild(self, name: str, data: msgspec.Raw) -> bool:
        """Keep the number of guilds; say whether this is a guild that READY (or an outage) announced.

        A process that takes a session over while its guilds still come knows their number, not which of them have come:
        the rest count as joins, until the next READY.
        """
        if name not in _OWN:
            return False
        try:
            guild = msgspec.json.decode(data, type=_Guild)
        except msgspec.MsgspecError:
            return False  # the envelope alone decides whether an event can be read
        if name == "GUILD_DELETE":
            if guild.unavailable:
                self._unloaded.add(guild.id)
            else:
                self._unloaded.discard(guild.id)
                self.guilds = max(self.guilds - 1, 0)  # a replay to another pod may say it twice; the CRD takes no less
            return False
        if guild.id in self._unloaded:
            if not guild.unavailable:
                self._unloaded.discard(guild.id)
            return True
        self.guilds += 1
        return False

    # --- effects ------------------------------------------------------------------------------------------------

    def _apply(self, given: Input, now: float) -> None:
        transition = step(self.state, given)
        self._now = now
        self.state = transition.state
        for effect in transition.effects:
            perform = self._effects.get(effect)
            if perform is not None:
                perform()
        if transition.state not in _STREAMING:
            self._expected = b""
        if transition.state not in _CONNECTED and transition.state is not State.CONNECTING:
            self._beat_at = self._deadline = float("inf")

    def _send(self, opcode: Opcode, data: Any) -> None:
        self.sends.append(msgspec.json.encode({"op": int(opcode), "d": data}))

    def _start_heartbeats(self) -> None:
        self._beat_at = self._now + self.interval * self._random()
        self._beat_acked = True
        self._beat_sent = None
        self._deadline = float("inf")
        self._attempts = 0

    def _beat(self) -> None:
        self._send(Opcode.HEARTBEAT, self.stored)
        self.counters.heartbeats += 1

    def _beat_is_due(self, now: float) -> None:
        if not self._beat_acked and not self.paused:
            self.counters.zombies += 1
            self.last_reason = "a heartbeat was not acknowledged"
            self._apply(Input.ZOMBIE, now)
            return
        self._beat_acked = False
        self._beat_sent = now
        self._beat_at += self.interval
        if self._beat_at <= now:  # the loop stood still: the ACK gets its time nevertheless
            self._beat_at = now + self.interval
        self._apply(Input.BEAT_DUE, now)

    def _acknowledge_beat(self) -> None:
        self._beat_acked = True
        if self._beat_sent is not None:
            self.latency = self._now - self._beat_sent
            self._beat_sent = None

    def _identify(self) -> None:
        config = self.config
        data: dict[str, Any] = {
            "token": self._token,
            "intents": config.intents,
            "properties": {"os": "linux", "browser": "shardwright", "device": "shardwright"},
            "shard": [config.shard, config.total],
            "compress": False,
        }
        if config.presence is not None:
            data["presence"] = {"since": None, **config.presence}
        if config.large_threshold is not None:
            data["large_threshold"] = config.large_threshold
        self._send(Opcode.IDENTIFY, data)
        self.counters.identifies += 1
        self._deadline = self._now + READY_TIMEOUT

    def _resume(self) -> None:
        assert self.resumable is not None
        self._tries.sent(self._now)
        self._resumed_from = self.resumable.seq
        self.counters.resumes += 1
        self._expected = b'","s":%d,"op":0,' % (self.resumable.seq + 1)
        self._deadline = self._now + READY_TIMEOUT
        session, seq = self.resumable.source.session, self.resumable.seq
        self._send(Opcode.RESUME, {"token": self._token, "session_id": session, "seq": seq})

    def _go_live(self) -> None:
        if self._tries.failed:
            self.counters.resumed += 1
        else:
            self.counters.readies += 1
            self._failures = 0  # it was hard to get a session: that says nothing about resuming it
        self._tries = _Tries()
        self._invalidated = False
        self._poison = None
        self._live_since = self._now
        self._deadline = float("inf")
        self.last_reason = ""

    def _forget(self) -> None:
        self.ending = self.given_up(self._why_ended)
        self.resumable = None
        self.stored = None
        self._unloaded = set()
        self._tries = _Tries()

    def _close_with(self, code: int) -> None:
        self.close_code = code

    def _plan_retry(self) -> None:
        """Give up a session that resumed in vain too often, and say when to connect again."""
        if self._attempts:
            self._tries.last_at = None  # not even HELLO came
        if self.resumable is not None and self.resumable.seq > self._resumed_from:
            self._tries = _Tries()  # some of the replay came
        if self._tries.failed >= MAX_FAILED_RESUMES or self._tries.seconds >= GIVE_UP_AFTER:
            self._why_ended = f"no RESUME worked: {self.last_reason or self._why_ended}"
            self._forget()
        if self._live_since is not None and self._now - self._live_since >= _STABLE:
            self._failures = self._storm = 0
        self._live_since = None
        self.retry_at = self._now + self._delay()
        self._failures += 1
        self._invalidated = self._rate_limited = False
        self._token = ""

    def _delay(self) -> float:
        """Wait 1-5 s after op 9 (staff, discord-api-docs#244), else nothing at first; then longer each time, with jitter."""
        jitter = 0.5 + self._random() / 2
        if self._rate_limited:
            return 10.0 * jitter
        growing = min(_LONGEST, 2.0 ** min(self._failures, 7) / 2) * jitter if self._failures else 0.0
        if not self._invalidated:
            return growing
        storm = (1.0 + 4.0 * self._random()) * 2.0 ** min(self._storm - 1, 6)
        return max(growing, min(storm, _LONGEST * jitter))

    def _note_poison(self) -> None:
        """Skip the event after `seq` if it could not be read twice: RESUME would fetch the same again."""
        if self.state not in _STREAMING or self.resumable is None:
            return
        if self.state is State.LIVE or self._poison != self.resumable.seq:
            self._poison = self.resumable.seq
            return
        self._poison = None
        self.counters.skipped += 1
        self.resumable.seq += 1  # the sequence itself cannot be read; Discord gives them without gaps
        self._resumed_from += 1
        self._tries.skips += 1
        if self._tries.skips <= MAX_SKIPS:
            self._tries.failed = 0
        told = {"seq": self.resumable.seq, "shard": self.config.shard, "reason": self.last_reason}
        self.events.append(Event(self.resumable.seq, "shardwright.unreadable", msgspec.json.encode(told)))


_LONGEST: Final = 60.0
"""Seconds of the longest pause before a connection."""
_STABLE: Final = 30.0
"""Seconds of being live after which earlier failures no longer count."""
_URL_TRIES: Final = 4
"""Each so-many-th connection in a row without HELLO goes to the gateway's own URL instead of the session's."""
_SIMPLE: Final = {
    int(Opcode.HEARTBEAT): Input.BEAT_REQUEST,
    int(Opcode.RECONNECT): Input.RECONNECT,
    int(Opcode.HEARTBEAT_ACK): Input.ACK,
}
