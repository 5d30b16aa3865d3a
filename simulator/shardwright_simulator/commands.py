"""What a bot may ask for after READY, and the answers.

Sources: Gateway Events > Send Events; the 30 s rule for all members is of 2025-08-14 (change log).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from shardwright_api.discord import CloseCode, Intent, Opcode
from shardwright_simulator.connection import Connection
from shardwright_simulator.errors import ClientError
from shardwright_simulator.session import Session

if TYPE_CHECKING:
    from shardwright_simulator.gateway import Gateway

ALL_MEMBERS_WINDOW = 30.0


class VoiceState(msgspec.Struct):
    """The `d` of op 4."""

    guild_id: str | int
    channel_id: str | int | None = None
    self_mute: bool = False
    self_deaf: bool = False


class GuildMembers(msgspec.Struct):
    """The `d` of op 8."""

    guild_id: str | int | list[str | int]
    query: str | None = None
    limit: int | None = None
    presences: bool = False
    user_ids: Any = None
    nonce: str | None = None


class SoundboardSounds(msgspec.Struct):
    """The `d` of op 31."""

    guild_ids: list[str | int]


class ChannelInfo(msgspec.Struct):
    """The `d` of op 43."""

    guild_id: str | int
    fields: list[str]


class Presence(msgspec.Struct):
    """The `d` of op 3."""

    since: int | float | None
    activities: list[dict[str, Any]]
    status: str
    afk: bool


def _read(d: Any, shape: type[Any], op: Opcode) -> Any:
    try:
        return msgspec.convert(d, shape)
    except msgspec.ValidationError as error:
        raise ClientError(CloseCode.DECODE_ERROR, "command-shape", f"op {op}: {error}") from error


def _session(connection: Connection) -> Session:
    if connection.session is None:
        raise ClientError(CloseCode.NOT_AUTHENTICATED, "not-authenticated", "the session is over")
    return connection.session


def presence(_: Gateway, __: Connection, d: Any) -> None:
    """Take a presence; nobody is there to see it."""
    _read(d, Presence, Opcode.PRESENCE_UPDATE)


def voice_state(gateway: Gateway, connection: Connection, d: Any) -> None:
    """Answer a voice state with VOICE_STATE_UPDATE and VOICE_SERVER_UPDATE."""
    state = _read(d, VoiceState, Opcode.VOICE_STATE_UPDATE)
    session, guild = _session(connection), str(state.guild_id)
    about = {**msgspec.to_builtins(state), "guild_id": guild, "user_id": session.bot, "session_id": "simulated"}
    if session.wants("VOICE_STATE_UPDATE", direct=False):
        gateway.dispatch_own(session, "VOICE_STATE_UPDATE", about)
    if state.channel_id is not None:
        server = {"token": "simulated", "guild_id": guild, "endpoint": "voice.invalid:443"}
        gateway.dispatch_own(session, "VOICE_SERVER_UPDATE", server)


def guild_members(gateway: Gateway, connection: Connection, d: Any) -> None:
    """Answer a request for members with GUILD_MEMBERS_CHUNK, or RATE_LIMITED."""
    wanted = _read(d, GuildMembers, Opcode.REQUEST_GUILD_MEMBERS)
    session = _session(connection)
    guild = str(wanted.guild_id[0] if isinstance(wanted.guild_id, list) else wanted.guild_id)
    everyone = not wanted.user_ids and not wanted.query and not wanted.limit
    if everyone and not session.intents & Intent.GUILD_MEMBERS:
        raise ClientError(CloseCode.DISALLOWED_INTENTS, "members-intent", "all members need the intent GUILD_MEMBERS")
    if everyone and (wait := _wait(gateway, connection, guild)) > 0:
        meta = {"guild_id": guild, "nonce": wanted.nonce}
        gateway.dispatch_own(session, "RATE_LIMITED", {"opcode": 8, "retry_after": wait, "meta": meta})
        return
    chunk = {
        "guild_id": guild,
        "members": [],
        "chunk_index": 0,
        "chunk_count": 1,
        "not_found": [],
        "nonce": wanted.nonce,
    }
    gateway.dispatch_own(session, "GUILD_MEMBERS_CHUNK", chunk)


def _wait(gateway: Gateway, connection: Connection, guild: str) -> float:
    """Tell how long to wait before all members of a guild may be asked for again."""
    now = gateway.clock()
    wait = connection.member_requests.get(guild, now) - now
    if wait <= 0:
        connection.member_requests[guild] = now + ALL_MEMBERS_WINDOW
    return wait


def soundboard_sounds(gateway: Gateway, connection: Connection, d: Any) -> None:
    """Answer a request for sounds with one SOUNDBOARD_SOUNDS a guild."""
    session = _session(connection)
    for guild in _read(d, SoundboardSounds, Opcode.REQUEST_SOUNDBOARD_SOUNDS).guild_ids:
        gateway.dispatch_own(session, "SOUNDBOARD_SOUNDS", {"guild_id": str(guild), "soundboard_sounds": []})


def channel_info(gateway: Gateway, connection: Connection, d: Any) -> None:
    """Answer a request for channel infos with one CHANNEL_INFO."""
    wanted = _read(d, ChannelInfo, Opcode.REQUEST_CHANNEL_INFO)
    gateway.dispatch_own(_session(connection), "CHANNEL_INFO", {"guild_id": str(wanted.guild_id), "channels": []})
