"""How a fault strikes: one small function for each action, looked up in a table.

The two logins have a way of their own: a fault at `identify` or `resume` answers in the place of READY or RESUMED, or
(`hold-answer`, `silent`) lets the login happen and holds the answer back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shardwright_api.discord import Opcode
from shardwright_simulator.connection import Connection, Phase
from shardwright_simulator.faults import ON_DISPATCH, Action, Fault, ShardKey, Trigger
from shardwright_simulator.outputs import Abort, Bomb, Fragmented, Junk, Ping, Raw, Truncated
from shardwright_simulator.session import Session

if TYPE_CHECKING:
    from shardwright_simulator.gateway import Gateway

RUBBISH_LIMIT = 4_096
RECONNECT_PATIENCE = 5.0
"""Seconds between op 7 and the close that follows it ("may close a few seconds later")."""
BROKEN_AFTER = 7
NEVER_SENT = frozenset({1005, 1006, 1015})
"""Close codes that stand for the lack of a close frame (RFC 6455, 7.4.1)."""
_RESUME_PARTS = 4
_HARMLESS_AT_CONNECT = frozenset({Action.STOP_READING, Action.RUBBISH, Action.JUNK_FRAME, Action.ZIP_BOMB})
_HOLDING = frozenset({Action.HOLD_ANSWER, Action.SILENT})

Strike = Callable[["Gateway", Fault, Connection], None]


def _reconnect(gateway: Gateway, fault: Fault, connection: Connection) -> None:
    gateway.control(connection, Opcode.RECONNECT, None)
    patience = RECONNECT_PATIENCE if fault.delay is None else fault.delay
    due = gateway.clock() + patience
    connection.later(gateway.timers.at(due, lambda: gateway.close(connection, fault.code, fault.reason)))


def _invalidate(gateway: Gateway, fault: Fault, connection: Connection) -> None:
    gateway.invalidate(connection, resumable=fault.resumable)


def _silence(gateway: Gateway, _: Fault, connection: Connection) -> None:
    gateway.mute(connection)


def _close(gateway: Gateway, fault: Fault, connection: Connection) -> None:
    if fault.code in NEVER_SENT:
        _abort(gateway, fault, connection)
    else:
        gateway.close(connection, fault.code, fault.reason)


def _abort(gateway: Gateway, _: Fault, connection: Connection) -> None:
    gateway.detach(connection)
    connection.finish(Abort())


def _stop_reading(_: Gateway, __: Fault, connection: Connection) -> None:
    connection.stop_reading()


def _rubbish(gateway: Gateway, fault: Fault, connection: Connection) -> None:
    connection.put(Raw(gateway.random.randbytes(min(fault.size, RUBBISH_LIMIT))))


def _junk_frame(gateway: Gateway, fault: Fault, connection: Connection) -> None:
    connection.put(Junk(gateway.random.randbytes(min(fault.size, RUBBISH_LIMIT))))


def _bomb(_: Gateway, fault: Fault, connection: Connection) -> None:
    connection.put(Bomb(fault.size))


def _ping(_: Gateway, __: Fault, connection: Connection) -> None:
    connection.put(Ping())


def _request_heartbeat(gateway: Gateway, _: Fault, connection: Connection) -> None:
    gateway.control(connection, Opcode.HEARTBEAT, None)


STRIKES: dict[Action, Strike] = {
    Action.RECONNECT: _reconnect,
    Action.INVALID_SESSION: _invalidate,
    Action.SILENT: _silence,
    Action.CLOSE: _close,
    Action.ABORT: _abort,
    Action.STOP_READING: _stop_reading,
    Action.RUBBISH: _rubbish,
    Action.JUNK_FRAME: _junk_frame,
    Action.ZIP_BOMB: _bomb,
    Action.PING: _ping,
    Action.HEARTBEAT_REQUEST: _request_heartbeat,
}


def strike(gateway: Gateway, fault: Fault, connection: Connection) -> None:
    """Let a fault strike a connection."""
    STRIKES[fault.action](gateway, fault, connection)


def strike_now(gateway: Gateway, fault: Fault, *, round_: int = 1) -> None:
    """Let a fault strike all live connections that it is aimed at, and plan the next round."""
    if not gateway.faults.waits(fault):
        return
    for connection in list(gateway.connections.values()):
        if connection.phase is not Phase.CLOSED and fault.fits((connection.bot, connection.shard)):
            _strike_one(gateway, fault, connection)
    if fault.times == 0 or round_ < fault.times:
        due = gateway.clock() + fault.every
        gateway.timers.at(due, lambda: strike_now(gateway, fault, round_=round_ + 1))


def _strike_one(gateway: Gateway, fault: Fault, connection: Connection) -> None:
    session = connection.session
    if fault.action not in ON_DISPATCH:
        strike(gateway, fault, connection)
    elif session is not None:
        gateway.dispatch_struck(session, fault)
    fault.struck += 1


def strike_login(gateway: Gateway, trigger: Trigger, connection: Connection, session: Session | None = None) -> bool:
    """Let a fault answer an IDENTIFY or RESUME; False when there is none, or when it only holds the answer back."""
    connection.held = None
    fault = gateway.faults.take(trigger, (connection.bot, connection.shard))
    if fault is not None and fault.action in _HOLDING:
        connection.held, fault = fault, None
    if fault is None:
        return False
    if fault.action is Action.INVALID_SESSION and not fault.resumable and session is not None:
        gateway.end(session)
    strike(gateway, fault, connection)
    return True


def answer(gateway: Gateway, connection: Connection, say: Callable[[], None]) -> None:
    """Answer a login, unless a fault holds the answer back."""
    fault = connection.held
    if fault is None:
        say()
    elif fault.action is Action.SILENT:
        gateway.mute(connection)
        say()
    elif fault.delay is not None:
        connection.later(gateway.timers.at(gateway.clock() + fault.delay, say))


def strike_event(gateway: Gateway, fault: Fault, session: Session, seq: int, message: bytes) -> None:
    """Let a fault strike an event on its way to whoever receives it."""
    if fault.action is Action.UNREADABLE and fault.poison:
        session.poison[seq] = broken(message)
    for connection in list(session.receivers):
        if connection.phase is Phase.ACTIVE:
            _EVENT_STRIKES[fault.action](gateway, fault, connection, message)
            session.sent_through = seq


def broken(message: bytes) -> bytes:
    """Make a message unreadable: it stops in the first value of its envelope."""
    return message[:BROKEN_AFTER]


def _cut(gateway: Gateway, _: Fault, connection: Connection, message: bytes) -> None:
    gateway.detach(connection)
    connection.finish(Truncated(message))


def _unreadable(_: Gateway, __: Fault, connection: Connection, message: bytes) -> None:
    connection.send(broken(message))


def _fragment(_: Gateway, fault: Fault, connection: Connection, message: bytes) -> None:
    connection.put(Fragmented(message, fault.frames))


_EVENT_STRIKES: dict[Action, Callable[[Gateway, Fault, Connection, bytes], None]] = {
    Action.CUT: _cut,
    Action.UNREADABLE: _unreadable,
    Action.FRAGMENT: _fragment,
}


def key_of_path(path: str) -> ShardKey:
    """Tell bot and shard of a connection that came by a resume URL; else nothing is known yet."""
    parts = path.strip("/").split("/")
    if len(parts) != _RESUME_PARTS or parts[0] != "resume" or not parts[2].isdigit():
        return "", None
    return parts[1], int(parts[2])


def leaves_alone(fault: Fault) -> bool:
    """Whether HELLO is sent although a fault strikes at connect."""
    return fault.action in _HARMLESS_AT_CONNECT
