"""Scripted faults: what goes wrong, when, for whom, how often.

A fault waits at its trigger. `now` strikes the live connections at once (later with `after`, again and again with
`every`); the others strike when a connection opens, identifies, resumes or gets its next event, or when REST is asked.
`times` counts the strikes for each shard on its own; 0 means for ever. Faults are tried in the order they were made;
the first that fits strikes, and no other.
"""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus
from typing import Final

import msgspec

from shardwright_simulator.errors import ControlError, NotFoundError

CLOSE_CODES: Final = frozenset({*range(1000, 1004), 1005, 1006, *range(1007, 1016), *range(3000, 5000)})
"""What a close frame may carry (RFC 6455, 7.4), and the codes that stand for the lack of one."""
REASON_LIMIT: Final = 123
"""Bytes of a close reason (RFC 6455, 5.5)."""
ShardKey = tuple[str, int | None]


class Trigger(StrEnum):
    """When a fault strikes."""

    NOW = "now"
    HANDSHAKE = "handshake"
    CONNECT = "connect"
    IDENTIFY = "identify"
    RESUME = "resume"
    DISPATCH = "dispatch"
    REST = "rest"


class Action(StrEnum):
    """What a fault does."""

    RECONNECT = "reconnect"
    INVALID_SESSION = "invalid-session"
    SILENT = "silent"
    CLOSE = "close"
    ABORT = "abort"
    STOP_READING = "stop-reading"
    RUBBISH = "rubbish"
    JUNK_FRAME = "junk-frame"
    ZIP_BOMB = "zip-bomb"
    PING = "ping"
    HEARTBEAT_REQUEST = "heartbeat-request"
    HOLD_ANSWER = "hold-answer"
    REFUSE = "refuse"
    CUT = "cut"
    UNREADABLE = "unreadable"
    FRAGMENT = "fragment"
    STATUS = "status"


_N, _C, _I, _R, _D = Trigger.NOW, Trigger.CONNECT, Trigger.IDENTIFY, Trigger.RESUME, Trigger.DISPATCH
ON_DISPATCH: Final = frozenset({Action.CUT, Action.UNREADABLE, Action.FRAGMENT})
"""Actions that need an event to strike; struck `now`, they get one made for them."""

ALLOWED: Final[dict[Action, frozenset[Trigger]]] = {
    Action.RECONNECT: frozenset({_N, _C, _I, _R}),
    Action.INVALID_SESSION: frozenset({_N, _I, _R}),
    Action.SILENT: frozenset({_N, _C, _I, _R}),
    Action.CLOSE: frozenset({_N, _C, _I, _R}),
    Action.ABORT: frozenset({_N, _C, _I, _R}),
    Action.STOP_READING: frozenset({_N, _C}),
    Action.RUBBISH: frozenset({_N, _C, _I, _R}),
    Action.JUNK_FRAME: frozenset({_N, _C, _I, _R}),
    Action.ZIP_BOMB: frozenset({_N, _C, _I, _R}),
    Action.PING: frozenset({_N}),
    Action.HEARTBEAT_REQUEST: frozenset({_N}),
    Action.HOLD_ANSWER: frozenset({_I, _R}),
    Action.REFUSE: frozenset({Trigger.HANDSHAKE}),
    Action.CUT: frozenset({_N, _D}),
    Action.UNREADABLE: frozenset({_N, _D}),
    Action.FRAGMENT: frozenset({_N, _D}),
    Action.STATUS: frozenset({Trigger.REST}),
}


class Fault(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One scripted fault. Which of the later fields count depends on the action."""

    action: Action
    at: Trigger = Trigger.NOW
    bot: str = ""
    """Whom it strikes; empty: every bot."""
    shards: list[int] | None = None
    """Which shards; None: all. At `connect` a shard is known only by its resume URL."""
    times: int = 1
    """How often, for each shard on its own (at `now`: rounds, `every` seconds apart); 0 for ever."""
    after: float = 0.0
    every: float = 1.0
    code: int = 4000
    """`close`: the close code. `reconnect`: with what the connection is closed afterwards."""
    reason: str = ""
    resumable: bool = False
    """`invalid-session`: the `d` of op 9."""
    delay: float | None = None
    """`hold-answer`: seconds until READY or RESUMED, None for never. `reconnect`: seconds until the close."""
    size: int = 512 * 1024 * 1024
    """`zip-bomb`: bytes after inflating. `rubbish`, `junk-frame`: at most 4096 of it."""
    frames: int = 3
    """`fragment`: frames a message."""
    poison: bool = False
    """`unreadable`: also in every replay of that sequence."""
    status: int = 429
    """`status`: what REST answers; `refuse`: what the websocket handshake gets."""
    retry_after: float = 1.0
    path: str = "/gateway"
    """`status`: strikes paths that begin with this, after the API prefix."""
    id: int = 0
    struck: int = 0
    """How often it has struck so far."""

    def __post_init__(self) -> None:
        """Check that the action can strike at the trigger; both may be given by their names."""
        try:
            self.action, self.at = Action(self.action), Trigger(self.at)
        except ValueError as error:
            raise ControlError(str(error)) from error
        allowed = sorted(ALLOWED[self.action])
        if self.at is Trigger.NOW and len(allowed) == 1:
            self.at = allowed[0]
        if self.at not in allowed:
            raise ControlError(f"{self.action} strikes at {', '.join(allowed)}, not at {self.at}")
        self._check_values()

    def _check_values(self) -> None:
        if self.code not in CLOSE_CODES or len(self.reason.encode()) > REASON_LIMIT:
            raise ControlError(f"{self.code} is no close code, or the reason is longer than {REASON_LIMIT} bytes")
        if self.status not in set(HTTPStatus):
            raise ControlError(f"{self.status} is no HTTP status")
        if self.every <= 0 or self.times < 0 or self.frames < 1:
            raise ControlError("every must be above 0, times at least 0, frames at least 1")

    def fits(self, key: ShardKey) -> bool:
        """Whether it is aimed at this shard."""
        bot, shard = key
        return (not self.bot or not bot or self.bot == bot) and (self.shards is None or shard in self.shards)


class FaultBook:
    """The faults that wait."""

    def __init__(self) -> None:
        self._faults: dict[int, Fault] = {}
        self._hits: dict[int, dict[ShardKey, int]] = {}
        self._last = 0
        self.armed: frozenset[Trigger] = frozenset()
        """The triggers at which something waits: the hot path asks nothing else."""

    def add(self, fault: Fault) -> Fault:
        """Give a fault its number and let it wait."""
        self._last += 1
        fault.id = self._last
        self._faults[fault.id] = fault
        self._hits[fault.id] = {}
        self._rearm()
        return fault

    def remove(self, fault_id: int) -> Fault:
        """Forget a fault."""
        fault = self._faults.pop(fault_id, None)
        if fault is None:
            raise NotFoundError(f"no fault {fault_id}")
        self._rearm()
        return fault

    def clear(self) -> None:
        """Forget all faults."""
        self._faults.clear()
        self._rearm()

    def list(self) -> list[Fault]:
        """List the faults that wait or have struck, oldest first."""
        return list(self._faults.values())

    def take(self, trigger: Trigger, key: ShardKey, path: str = "") -> Fault | None:
        """Give the fault that strikes this shard now, and count it; None when there is none."""
        if trigger not in self.armed:
            return None
        for fault in self._faults.values():
            if (
                fault.at is trigger
                and fault.fits(key)
                and path.startswith(fault.path if path else "")
                and self._count(fault, key)
            ):
                return fault
        return None

    def waits(self, fault: Fault) -> bool:
        """Whether a fault has not been removed."""
        return fault.id in self._faults

    def _count(self, fault: Fault, key: ShardKey) -> bool:
        hits = self._hits[fault.id]
        if fault.times and hits.get(key, 0) >= fault.times:
            return False
        hits[key] = hits.get(key, 0) + 1
        fault.struck += 1
        return True

    def _rearm(self) -> None:
        self.armed = frozenset(fault.at for fault in self._faults.values())
