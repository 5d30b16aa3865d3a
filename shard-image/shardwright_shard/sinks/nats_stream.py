"""What JetStream tells of a stream, and whether a sink can use it.

Asked at each connect, and again after each refusal: a stream may be made, deleted, filled or changed at any time. The
answer is judged here, by pure functions; the texts are for conditions and logs, and name the fix.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from shardwright_shard.errors import ConfigError
from shardwright_shard.sinks.nats_encoder import SMALLEST_LIMIT
from shardwright_shard.sinks.nats_subject import covers
from shardwright_shard.sinks.nats_wire import NO_RESPONDERS, Message

SHORTEST_WINDOW: Final = 600.0
"""Seconds: below it a resend after an outage may be stored twice."""
_NAME: Final = re.compile(r"[-_a-zA-Z0-9]{1,255}")
_NOT_FOUND: Final = 404


class StreamReport(msgspec.Struct, frozen=True):
    """The judgement: a `problem` that forbids publishing, a `warning` that does not, and the largest message."""

    problem: str = ""
    warning: str = ""
    largest: int | None = None


class _Config(msgspec.Struct, frozen=True):
    subjects: tuple[str, ...] | None = ()
    duplicate_window: int = 0
    max_msg_size: int = -1
    no_ack: bool = False
    sealed: bool = False


class _Error(msgspec.Struct, frozen=True):
    code: int = 0
    description: str = ""


class _StreamInfo(msgspec.Struct, frozen=True):
    config: _Config = _Config()
    error: _Error | None = None


def valid_name(stream: str | None) -> str | None:
    """Give a stream's name back. Raise `ConfigError` where it would not be one token of a subject."""
    if stream is None or _NAME.fullmatch(stream):
        return stream
    raise ConfigError(f"stream {stream!r}: letters, digits, _ and - only")


def info_subject(stream: str) -> str:
    """Give the subject that asks for a stream's description."""
    return f"$JS.API.STREAM.INFO.{stream}"


def judge(reply: Message, *, stream: str, subjects: Iterable[str]) -> StreamReport:
    """Judge the server's description of `stream` for publishing on `subjects`, which may hold wildcards."""
    if reply.status == NO_RESPONDERS:
        return StreamReport(problem="JetStream is not enabled for this account on the NATS server")
    try:
        info = msgspec.json.decode(reply.payload, type=_StreamInfo)
    except msgspec.DecodeError as error:
        return StreamReport(problem=f"the description of stream {stream} cannot be read: {error}")
    wanted = list(subjects)
    if info.error is not None:
        return StreamReport(problem=_error(info.error, stream, wanted))
    return StreamReport(
        problem=_problem(info.config, stream, wanted),
        warning=_warning(info.config, stream),
        largest=info.config.max_msg_size if info.config.max_msg_size > 0 else None,
    )


def _error(error: _Error, stream: str, wanted: list[str]) -> str:
    if error.code == _NOT_FOUND:
        return f"stream {stream} does not exist; create it: nats stream add {stream} --subjects '{','.join(wanted)}'"
    return f"stream {stream}: {error.description} ({error.code})"


def _problem(config: _Config, stream: str, wanted: list[str]) -> str:
    """Say what forbids publishing into a stream that is there."""
    missing = [subject for subject in wanted if not any(covers(own, subject) for own in config.subjects or ())]
    if missing:
        return f"stream {stream} does not take {', '.join(missing)}: add them to its subjects"
    if config.no_ack:
        return f"stream {stream} has no_ack set, so nothing would ever be acknowledged: unset it"
    if config.sealed:
        return f"stream {stream} is sealed"
    if 0 < config.max_msg_size < SMALLEST_LIMIT:
        return f"stream {stream} has max_msg_size {config.max_msg_size}: {SMALLEST_LIMIT} is the least that works"
    return ""


def _warning(config: _Config, stream: str) -> str:
    """Warn of a window in which duplicates are dropped that is shorter than an outage may be."""
    seconds = config.duplicate_window / 1e9
    if seconds >= SHORTEST_WINDOW:
        return ""
    return f"stream {stream} has duplicate_window {seconds:g}s: events resent later than that are stored twice; set 10m"
