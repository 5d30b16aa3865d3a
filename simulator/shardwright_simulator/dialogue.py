"""What a client may say when: the gateway's dialogue as a table of phase and opcode.

A pair that is not in the table breaks a rule: `NOT_ALLOWED` says which, by phase. Opcodes that only servers send, and
all others, are unknown (4001). Sources: Gateway > Connection Lifecycle, Opcodes and Status Codes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from shardwright_api.discord import MAX_SEND_BYTES, SEND_LIMIT, CloseCode, Opcode
from shardwright_simulator import authentication, commands, envelope
from shardwright_simulator.connection import Connection, Phase
from shardwright_simulator.errors import ClientError

if TYPE_CHECKING:
    from shardwright_simulator.gateway import Gateway

Handler = Callable[["Gateway", Connection, Any], None]
CLIENT_OPCODES = frozenset(
    {
        Opcode.HEARTBEAT,
        Opcode.IDENTIFY,
        Opcode.PRESENCE_UPDATE,
        Opcode.VOICE_STATE_UPDATE,
        Opcode.RESUME,
        Opcode.REQUEST_GUILD_MEMBERS,
        Opcode.REQUEST_SOUNDBOARD_SOUNDS,
        Opcode.REQUEST_CHANNEL_INFO,
    }
)


def heartbeat(gateway: Gateway, connection: Connection, d: Any) -> None:
    """Acknowledge a heartbeat (Gateway > Sending Heartbeats); its `d` must not name what was never sent."""
    if d is not None and type(d) is not int:
        raise ClientError(CloseCode.DECODE_ERROR, "heartbeat-shape", "the d of a heartbeat is a number or null")
    connection.last_beat = gateway.clock()
    session = connection.session
    sent = session.sent_through if session else 0
    if d is not None and session is not None and d > sent:
        gateway.violate(connection, "heartbeat-sequence", f"heartbeat names {d}, but only {sent} was sent")
    elif d and session is not None and gateway.options.trim_by_heartbeat:
        session.trim(d)
    gateway.control(connection, Opcode.HEARTBEAT_ACK, None)


TABLE: dict[tuple[Phase, Opcode], Handler] = {
    (Phase.GREETED, Opcode.HEARTBEAT): heartbeat,
    (Phase.GREETED, Opcode.IDENTIFY): authentication.identify,
    (Phase.GREETED, Opcode.RESUME): authentication.resume,
    (Phase.STARTING, Opcode.HEARTBEAT): heartbeat,
    (Phase.ACTIVE, Opcode.HEARTBEAT): heartbeat,
    (Phase.ACTIVE, Opcode.PRESENCE_UPDATE): commands.presence,
    (Phase.ACTIVE, Opcode.VOICE_STATE_UPDATE): commands.voice_state,
    (Phase.ACTIVE, Opcode.REQUEST_GUILD_MEMBERS): commands.guild_members,
    (Phase.ACTIVE, Opcode.REQUEST_SOUNDBOARD_SOUNDS): commands.soundboard_sounds,
    (Phase.ACTIVE, Opcode.REQUEST_CHANNEL_INFO): commands.channel_info,
}

_NOT_AUTHENTICATED = (CloseCode.NOT_AUTHENTICATED, "not-authenticated", "sent before IDENTIFY or RESUME was answered")
_ALREADY = (CloseCode.ALREADY_AUTHENTICATED, "already-authenticated", "a second IDENTIFY or RESUME on one connection")
_LOGINS = frozenset({Opcode.IDENTIFY, Opcode.RESUME})


def broken_rule(phase: Phase, op: int) -> ClientError:
    """Give the rule that a pair outside of the table breaks."""
    if op not in CLIENT_OPCODES:
        return ClientError(CloseCode.UNKNOWN_OPCODE, "unknown-opcode", f"op {op} is not for bots to send")
    if op in _LOGINS and phase in (Phase.STARTING, Phase.ACTIVE):
        return ClientError(*_ALREADY)
    return ClientError(*_NOT_AUTHENTICATED)


def converse(gateway: Gateway, connection: Connection, data: bytes | str) -> None:
    """Take one message of a client; raise ClientError when it breaks a rule that closes the connection."""
    if not connection.count_arrival(gateway.clock()):
        raise ClientError(CloseCode.RATE_LIMITED, "send-limit", f"more than {SEND_LIMIT} messages in 60 s")
    message = read(data)
    op = message["op"]
    handler = TABLE.get((connection.phase, op))
    if handler is None:
        raise broken_rule(connection.phase, op)
    handler(gateway, connection, message.get("d"))


def read(data: bytes | str) -> dict[str, Any]:
    """Read a message; raise ClientError when it is too long or no payload."""
    size = len(data) if isinstance(data, bytes) else len(data.encode())
    if size > MAX_SEND_BYTES:
        raise ClientError(CloseCode.DECODE_ERROR, "send-size", f"{size} bytes are more than {MAX_SEND_BYTES}")
    try:
        return envelope.parse(data)
    except ValueError as error:
        raise ClientError(CloseCode.DECODE_ERROR, "decode", f"no gateway payload: {error}") from error
