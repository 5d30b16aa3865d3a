"""IDENTIFY and RESUME.

IDENTIFY, in this order: shape (4002), token (4004), budget (an overrun resets the token), the table of `identify.py`
(each failure has spent a start), bucket (too early: op 9 false, and the start is spent all the same), READY, backfill.

RESUME: shape (4002), token (4004), session (op 9 false), query string (op 9 false), sequence (4007), replay buffer
(op 9 false), replay, RESUMED. Sources: Gateway > Identifying, Gateway > Resuming, Gateway > Session Start Limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from shardwright_api.discord import API_VERSION, CloseCode, Intent
from shardwright_simulator import identify as checks
from shardwright_simulator import strikes
from shardwright_simulator.bots import Bot
from shardwright_simulator.connection import Connection, Phase
from shardwright_simulator.errors import ClientError
from shardwright_simulator.faults import Trigger
from shardwright_simulator.records import Identify, Resume
from shardwright_simulator.session import Session

if TYPE_CHECKING:
    from shardwright_simulator.gateway import Gateway

SCHEME = "Bot "
"""Some libraries (twilight) put the scheme of REST before the token here too; the gateway takes it."""


class ResumeData(msgspec.Struct):
    """The `d` of a RESUME."""

    token: str
    session_id: str
    seq: int


def identify(gateway: Gateway, connection: Connection, d: Any) -> None:
    """Take an IDENTIFY, write it down with its result, and answer it."""
    record = Identify(**gateway.about(connection), result="ready")
    gateway.identifies.add(record)
    try:
        _identify(gateway, connection, checks.read(d), record)
    except ClientError as error:
        record.result = str(error.code)
        raise


def _identify(gateway: Gateway, connection: Connection, data: checks.IdentifyData, record: Identify) -> None:
    bot = _log_in(gateway, connection, data.token)
    if checks.is_shard(data, bot):
        connection.shard, connection.total = data.shard
    record.bot, record.shard, record.total = bot.id, connection.shard, connection.total
    record.intents = data.intents if type(data.intents) is int else None
    _spend(gateway, connection, bot, record)
    checks.check(data, bot)
    shard, total = data.shard
    record.bucket = bot.bucket(shard)
    if not _in_turn(gateway, connection, bot, shard, record):
        return
    if strikes.strike_login(gateway, Trigger.IDENTIFY, connection):
        record.result = "fault"
        return
    if connection.resume_path != "/":
        gateway.note(connection, "identify-url", "IDENTIFY at a resume_gateway_url")
    connection.payload_compression = data.compress and not connection.compression
    session = gateway.start_session(connection, bot, shard, total, data.intents)
    record.session = session.id
    connection.phase = Phase.STARTING
    strikes.answer(gateway, connection, lambda: _ready(gateway, connection, bot, session))


def _log_in(gateway: Gateway, connection: Connection, token: str) -> Bot:
    bot = gateway.bot_by_token(token.removeprefix(SCHEME))
    if bot is None:
        raise ClientError(CloseCode.AUTHENTICATION_FAILED, "token", "the token is wrong")
    connection.bot = bot.id
    return bot


def _spend(gateway: Gateway, connection: Connection, bot: Bot, record: Identify) -> None:
    spent = bot.spend(gateway.clock())
    record.remaining = bot.remaining
    if spent:
        return
    connection.bot = ""
    gateway.overrun(bot)
    connection.bot = bot.id
    raise ClientError(
        CloseCode.AUTHENTICATION_FAILED, "session-start-limit", "no session starts left: the token is reset"
    )


def _in_turn(gateway: Gateway, connection: Connection, bot: Bot, shard: int, record: Identify) -> bool:
    """Take the shard's bucket, or answer with op 9 (Gateway > Rate Limiting: one identify a bucket and 5 s)."""
    window = gateway.options.identify_window
    record.early = bot.claim(shard, gateway.clock(), window)
    if not record.early:
        return True
    record.result = "invalid-session"
    message = f"identify {record.early:.3f} s too early in bucket {record.bucket}"
    gateway.violate(connection, "max-concurrency", message)
    gateway.invalidate(connection, resumable=False)
    return False


def _ready(gateway: Gateway, connection: Connection, bot: Bot, session: Session) -> None:
    gateway.activate(connection, session)
    gateway.dispatch_own(session, "READY", _ready_body(gateway, connection, bot, session))
    if session.intents & Intent.GUILDS:
        gateway.backfill(session, bot.guilds(session.shard, session.total), bot.config.guild_bytes)


def _ready_body(gateway: Gateway, connection: Connection, bot: Bot, session: Session) -> dict[str, Any]:
    """Write the `d` of READY (Gateway Events > Ready)."""
    user = {"id": bot.id, "username": bot.config.name, "discriminator": "0000", "global_name": None, "avatar": None}
    guilds = bot.guilds(session.shard, session.total)
    return {
        "v": int(dict(connection.query).get("v", API_VERSION)),
        "user_settings": {},
        "user": {**user, "bot": True, "verified": True, "mfa_enabled": True, "flags": 0, "email": None},
        "session_type": "normal",
        "session_id": session.id,
        "resume_gateway_url": resume_url(gateway, connection, session),
        "relationships": [],
        "private_channels": [],
        "presences": [],
        "guilds": [{"unavailable": True, "id": str(guild)} for guild in guilds],
        "guild_join_requests": [],
        "geo_ordered_rtc_regions": [],
        "auth": {},
        "application": {"id": bot.id, "flags": 0},
        "shard": [session.shard, session.total],
        "_trace": ["[]"],
    }


def resume_path(session: Session) -> str:
    """Give the path of the URL at which a session is to be resumed."""
    return f"/resume/{session.bot}/{session.shard}/{session.total}"


def resume_url(gateway: Gateway, connection: Connection, session: Session) -> str:
    """Give the `resume_gateway_url` of a session."""
    host = gateway.options.public_host or connection.handshake.host
    return f"{'wss' if connection.handshake.secure else 'ws'}://{host}{resume_path(session)}"


def resume(gateway: Gateway, connection: Connection, d: Any) -> None:
    """Take a RESUME, write it down with its result, and answer it."""
    record = Resume(**gateway.about(connection), result="resumed")
    gateway.resumes.add(record)
    try:
        _resume(gateway, connection, d, record)
    except ClientError as error:
        record.result = str(error.code)
        raise


def _resume(gateway: Gateway, connection: Connection, d: Any, record: Resume) -> None:
    try:
        data = msgspec.convert(d, ResumeData)
    except msgspec.ValidationError as error:
        raise ClientError(CloseCode.DECODE_ERROR, "resume-shape", f"RESUME: {error}") from error
    record.session, record.seq = data.session_id, data.seq
    bot = _log_in(gateway, connection, data.token)
    record.bot = bot.id
    session = bot.sessions.get(data.session_id)
    if session is not None:
        connection.shard, connection.total = record.shard, record.total = session.shard, session.total
    if strikes.strike_login(gateway, Trigger.RESUME, connection, session):
        record.result = "fault"
        return
    if session is None or not _may_resume(gateway, connection, session, data.seq):
        record.result = "invalid-session"
        if session is not None:
            gateway.drop(session)
        gateway.invalidate(connection, resumable=False)
        return
    _note_url(gateway, connection, session)
    gateway.attach(connection, session)
    connection.phase = Phase.STARTING
    strikes.answer(gateway, connection, lambda: _replay(gateway, connection, session, data.seq, record))


def _may_resume(gateway: Gateway, connection: Connection, session: Session, seq: int) -> bool:
    if connection.query != session.query:
        message = f"resumed with the query {connection.query}, but the session has {session.query}"
        gateway.violate(connection, "resume-query", message)
        return False
    if not 0 <= seq <= session.seq:
        gateway.end(session)
        message = f"resumed at {seq}, but the session is at {session.seq}"
        raise ClientError(CloseCode.INVALID_SEQUENCE, "resume-sequence", message)
    return session.can_replay(seq)


def _note_url(gateway: Gateway, connection: Connection, session: Session) -> None:
    if connection.resume_path != resume_path(session):
        gateway.note(connection, "resume-url", f"resumed at {connection.resume_path}, not at the resume_gateway_url")


def _replay(gateway: Gateway, connection: Connection, session: Session, seq: int, record: Resume) -> None:
    missed = session.missed(seq)
    for n, message in missed:
        if connection.send(message):
            session.sent_through = max(session.sent_through, n)
    record.replayed = len(missed)
    gateway.activate(connection, session)
    gateway.resumed(connection, session)
