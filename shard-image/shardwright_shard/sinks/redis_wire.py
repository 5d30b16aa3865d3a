r"""Redis' protocol (RESP 2) as bytes: what comes back, and commands.

Entry ids, the replies of XADD, come in runs and are counted by the run; everything else is read one by one:

    $15\r\n1735689600250-0\r\n      an entry's id
    -OOM command not allowed ...    an error
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from shardwright_shard.errors import SinkUnavailable

_RUN: Final = re.compile(rb"(?:\$\d+\r\n\d+-\d+\r\n)+")
_LINE_LIMIT: Final = 64 * 1024
_BULK_LIMIT: Final = 1024 * 1024
_TEXT_LIMIT: Final = 200
PING: Final = b"*1\r\n$4\r\nPING\r\n"


class Stored(NamedTuple):
    """So many entries were added."""

    entries: int


class Failed(NamedTuple):
    """A command was refused, in the server's words."""

    text: str


class Answer(NamedTuple):
    """Any other reply: a text, or texts."""

    texts: tuple[str, ...]


Reply = Stored | Failed | Answer


def command(*arguments: str) -> bytes:
    """Write a command."""
    return (f"*{len(arguments)}\r\n" + "".join(bulk(argument) for argument in arguments)).encode()


def bulk(text: str) -> str:
    """Write one argument."""
    return f"${len(text.encode())}\r\n{text}\r\n"


class Parser:
    """Feed it what a socket gives, cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Reply]:
        """Give the replies that are whole. Raise `SinkUnavailable` where it is not the protocol."""
        data = self._rest + data if self._rest else data
        found: list[Reply] = []
        start = 0
        while start < len(data):
            if match := _RUN.match(data, start):
                found.append(Stored(data.count(b"$", start, match.end())))
                start = match.end()
                continue
            reply, end = _reply(data, start)
            if reply is None:
                break
            found.append(reply)
            start = end
        self._rest = data[start:]
        return found


def _reply(data: bytes, start: int) -> tuple[Reply | None, int]:
    """Read one reply at `start`: it and its end; None while it is not whole."""
    line, end = _line(data, start)
    if line is None:
        return None, start
    kind, rest = line[:1], line[1:]
    if kind == b"-":
        return Failed(rest[:_TEXT_LIMIT].decode(errors="replace")), end
    if kind in (b"+", b":"):
        return Answer((rest.decode(errors="replace"),)), end
    if kind == b"$":
        text, end = _bulk(data, rest, end)
        return (None, start) if text is None else (Answer((text,)), end)
    if kind == b"*":
        return _array(data, start, _size(rest), end)
    raise SinkUnavailable(f"the server does not speak Redis' protocol: {line[:20]!r}")


def _array(data: bytes, start: int, count: int, end: int) -> tuple[Reply | None, int]:
    texts: list[str] = []
    for _ in range(count):
        reply, after = _reply(data, end)
        if reply is None:
            return None, start
        if isinstance(reply, Answer):
            texts.extend(reply.texts)
        end = after
    return Answer(tuple(texts)), end


def _bulk(data: bytes, size_text: bytes, start: int) -> tuple[str | None, int]:
    size = _size(size_text)
    if size < 0:
        return "", start
    if len(data) < start + size + 2:
        return None, start
    return data[start : start + size].decode(errors="replace"), start + size + 2


def _size(text: bytes) -> int:
    try:
        size = int(text)
    except ValueError:
        size = _BULK_LIMIT + 1
    if size > _BULK_LIMIT:
        raise SinkUnavailable(f"the server does not speak Redis' protocol: a size of {text[:20]!r}")
    return size


def _line(data: bytes, start: int) -> tuple[bytes | None, int]:
    end = data.find(b"\r\n", start)
    if end >= 0:
        return data[start:end], end + 2
    if len(data) - start > _LINE_LIMIT:
        raise SinkUnavailable("the server does not speak Redis' protocol: a line without an end")
    return None, start
