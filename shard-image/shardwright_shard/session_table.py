"""The session's state machine as two tables: what each input does in each state, and what each close code means.

Theory of operation. A session belongs to one shard and outlives its connections. `IDLE` has no connection; from there
the edge connects (`CONNECTING`, `OPEN` until HELLO). With a session to resume, HELLO is answered by RESUME
(`RESUMING`); without one the session queues for an identify slot (`QUEUED`) and sends IDENTIFY when it is won
(`IDENTIFYING`). READY or RESUMED make it `LIVE`. A fatal close code parks it: nothing is tried until the edge says that
what caused it has changed. `ENDED` is for good: drained (the session lives on at Discord) or deleted (it does not).

A pair that is not in the table is illegal: `step` raises and nothing has changed. What a *server* may send at a wrong
time is in the table, as a violation: the connection is closed with 4000 and the session is resumed.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final, NamedTuple

from shardwright_api.discord import FATAL_CLOSE_CODES, CloseCode
from shardwright_shard.errors import IllegalTransition


class State(Enum):
    """Where a session stands."""

    IDLE = auto()
    CONNECTING = auto()
    OPEN = auto()
    QUEUED = auto()
    IDENTIFYING = auto()
    RESUMING = auto()
    LIVE = auto()
    PARKED = auto()
    ENDED = auto()


class Input(Enum):
    """What can happen to a session."""

    CONNECT = auto()
    OPENED = auto()
    HELLO_RESUME = auto()
    """HELLO, and there is a session to resume."""
    HELLO_IDENTIFY = auto()
    """HELLO, and there is none."""
    SLOT = auto()
    """The identify slot is won, and paid for."""
    READY = auto()
    RESUMED = auto()
    EVENT = auto()
    BEAT_REQUEST = auto()
    BEAT_DUE = auto()
    ACK = auto()
    RECONNECT = auto()
    INVALID_RESUMABLE = auto()
    INVALID = auto()
    LOST = auto()
    """The connection ended, the session may be resumed."""
    REFUSED = auto()
    """The connection ended with a code that ends the session too."""
    FATAL = auto()
    """The connection ended with a code after which reconnecting never helps."""
    ZOMBIE = auto()
    TIMEOUT = auto()
    RUBBISH = auto()
    HOLE = auto()
    """The sequences of a live session leap: what lies between may have gone another way."""
    PAUSED = auto()
    """Reading has been paused for longer than a heartbeat interval."""
    UNPARK = auto()
    DRAIN = auto()
    DELETE = auto()


class Effect(Enum):
    """What a transition makes the session do, in the table's order."""

    HEARTBEATS = auto()
    BEAT = auto()
    ACK = auto()
    IDENTIFY = auto()
    RESUME = auto()
    ADOPT = auto()
    FORWARD = auto()
    LIVE = auto()
    FORGET = auto()
    CLOSE_KEEP = auto()
    """Close with 4000: the session lives on."""
    CLOSE_END = auto()
    """Close with 1000: the bot goes offline."""
    RETRY = auto()


class Transition(NamedTuple):
    """The next state, and the effects on the way there."""

    state: State
    effects: tuple[Effect, ...] = ()


_RETRY = Transition(State.IDLE, (Effect.RETRY,))
_DROP = Transition(State.IDLE, (Effect.CLOSE_KEEP, Effect.RETRY))
_DROP_AND_FORGET = Transition(State.IDLE, (Effect.FORGET, Effect.CLOSE_KEEP, Effect.RETRY))
_END_KEEP = Transition(State.ENDED, (Effect.CLOSE_KEEP,))
_END = Transition(State.ENDED, (Effect.CLOSE_END,))
_DONE = Transition(State.ENDED)

_CONNECTED: Final = (State.OPEN, State.QUEUED, State.IDENTIFYING, State.RESUMING, State.LIVE)

_WHILE_CONNECTED: Final = {
    Input.RECONNECT: _DROP,
    Input.INVALID_RESUMABLE: _DROP,
    Input.INVALID: _DROP_AND_FORGET,
    Input.LOST: _RETRY,
    Input.REFUSED: Transition(State.IDLE, (Effect.FORGET, Effect.RETRY)),
    Input.FATAL: Transition(State.PARKED),
    Input.ZOMBIE: _DROP,
    Input.TIMEOUT: _DROP,
    Input.RUBBISH: _DROP,
    Input.PAUSED: _DROP,
    Input.DRAIN: _END_KEEP,
    Input.DELETE: _END,
    # What a server sends at a wrong time; the states below say where the time is right.
    Input.HELLO_RESUME: _DROP,
    Input.HELLO_IDENTIFY: _DROP,
    Input.READY: _DROP,
    Input.RESUMED: _DROP,
    Input.EVENT: _DROP,
}


def _common() -> dict[tuple[State, Input], Transition]:
    table = {(state, given): then for state in _CONNECTED for given, then in _WHILE_CONNECTED.items()}
    for state in _CONNECTED:
        table[state, Input.BEAT_REQUEST] = Transition(state, (Effect.BEAT,))
        table[state, Input.ACK] = Transition(state, (Effect.ACK,))
        if state is not State.OPEN:
            table[state, Input.BEAT_DUE] = Transition(state, (Effect.BEAT,))
    return table


TABLE: Final[dict[tuple[State, Input], Transition]] = {
    **_common(),
    (State.IDLE, Input.CONNECT): Transition(State.CONNECTING),
    (State.IDLE, Input.DRAIN): _DONE,
    (State.IDLE, Input.DELETE): _DONE,
    (State.CONNECTING, Input.OPENED): Transition(State.OPEN),
    (State.CONNECTING, Input.LOST): _RETRY,
    (State.CONNECTING, Input.RUBBISH): _DROP,
    (State.CONNECTING, Input.TIMEOUT): _DROP,
    (State.CONNECTING, Input.DRAIN): _END_KEEP,
    (State.CONNECTING, Input.DELETE): _END_KEEP,
    (State.OPEN, Input.HELLO_RESUME): Transition(State.RESUMING, (Effect.HEARTBEATS, Effect.RESUME)),
    (State.OPEN, Input.HELLO_IDENTIFY): Transition(State.QUEUED, (Effect.HEARTBEATS,)),
    (State.QUEUED, Input.SLOT): Transition(State.IDENTIFYING, (Effect.IDENTIFY,)),
    (State.IDENTIFYING, Input.READY): Transition(State.LIVE, (Effect.ADOPT, Effect.FORWARD, Effect.LIVE)),
    (State.RESUMING, Input.RESUMED): Transition(State.LIVE, (Effect.FORWARD, Effect.LIVE)),
    (State.RESUMING, Input.EVENT): Transition(State.RESUMING, (Effect.FORWARD,)),
    # A RESUME from sequence 0 replays READY itself: an event like any other, the session is known already.
    (State.RESUMING, Input.READY): Transition(State.RESUMING, (Effect.FORWARD,)),
    (State.LIVE, Input.EVENT): Transition(State.LIVE, (Effect.FORWARD,)),
    (State.LIVE, Input.HOLE): _DROP,
    (State.PARKED, Input.UNPARK): Transition(State.IDLE),
    (State.PARKED, Input.DRAIN): _DONE,
    (State.PARKED, Input.DELETE): _DONE,
    (State.ENDED, Input.DRAIN): _DONE,
    (State.ENDED, Input.DELETE): _DONE,
    (State.ENDED, Input.LOST): _DONE,
}


def step(state: State, given: Input) -> Transition:
    """Look a pair up. Raise `IllegalTransition` for one that is not in the table."""
    try:
        return TABLE[state, given]
    except KeyError:
        raise IllegalTransition(f"{given.name} is not allowed in {state.name}") from None


_SESSION_OVER: Final = frozenset(
    {
        CloseCode.NOT_AUTHENTICATED,
        CloseCode.ALREADY_AUTHENTICATED,
        CloseCode.SESSION_NO_LONGER_VALID,
        CloseCode.INVALID_SEQUENCE,
        CloseCode.SESSION_TIMED_OUT,
    }
)
"""Codes after which only a new IDENTIFY helps."""


def input_of_close(code: int | None) -> Input:
    """Say what a close code means for the session (Discord: Opcodes and Status Codes > Gateway Close Event Codes).

    None is a connection that ended without a close frame. Codes below 4000 come from proxies and servers on the way:
    the session may live, so a RESUME is tried; an op 9 then ends it. An unknown 4xxx code is treated likewise.
    """
    if code in FATAL_CLOSE_CODES:
        return Input.FATAL
    return Input.REFUSED if code in _SESSION_OVER else Input.LOST
