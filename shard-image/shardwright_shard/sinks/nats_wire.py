r"""The NATS client protocol as bytes: no I/O.

`Parser.feed` turns what came from the server into operations, whatever way the stream was cut. It is built for a
publisher: nearly all that a server sends to one are acknowledgements of JetStream,

    MSG _INBOX.7f2c.41 1 30\r\n{"stream":"DISCORD","seq":9417}\r\n

and a run of them is found by one regular expression and given as one `Acks`, the numbers at the end of their subjects.
Every other message is a `Message`, for `acknowledgement` or the caller to judge. `ack_stream` names the stream that may
acknowledge: what another stream, a refusal or a duplicate says never matches the expression unread.

Nothing that a server sends makes the parser grow without bound: longer lines and larger messages than the limits, and
all that is not the protocol, raise `SinkUnavailable`, after which the connection must be closed.

Source of the rules: NATS client protocol; ADR-4 (headers); ADR-1 (JetStream's JSON).
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec

from shardwright_shard.errors import SinkUnavailable

LINE_LIMIT: Final = 256 * 1024
"""Of a control line: INFO names every server of a cluster, all others are short."""
MESSAGE_LIMIT: Final = 8 * 1024 * 1024
"""Of a message to us: acknowledgements are small, the description of a stream may name many subjects."""
TEXT_LIMIT: Final = 500
"""Of what is told to people in a server's words."""
PING: Final = b"PING\r\n"
PONG: Final = b"PONG\r\n"
NO_RESPONDERS: Final = 503
_NEVER: Final = re.compile(b"(?!)")


class Info(msgspec.Struct, frozen=True):
    """What the server tells of itself: first on every connection, and again when it changes."""

    server_id: str = ""
    server_name: str = ""
    version: str = ""
    max_payload: int = 1024 * 1024
    headers: bool = False
    jetstream: bool = False
    tls_required: bool = False
    tls_available: bool = False
    auth_required: bool = False
    nonce: str | None = None
    ldm: bool = False
    """Lame duck mode: the server is about to go and asks its clients to move."""


class Acks(NamedTuple):
    """A run of plain acknowledgements by the stream we expect: the numbers of their reply subjects, in order."""

    numbers: list[int]


class Message(NamedTuple):
    """Any other message. `status` is the code of the header line, 0 without one."""

    subject: bytes
    payload: bytes
    status: int = 0


class Ping(NamedTuple):
    """The server wants a PONG."""


class Pong(NamedTuple):
    """The server has handled all that stood before our PING."""


class Failure(NamedTuple):
    """`-ERR`: some failures close the connection, a missing permission does not."""

    text: str


Operation = Info | Acks | Message | Ping | Pong | Failure


class _AckError(msgspec.Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _PubAck(msgspec.Struct, frozen=True):
    stream: str = ""
    seq: int = 0
    error: _AckError | None = None


def refusal(message: Message, stream: str) -> str | None:
    """Judge a reply to a published message: None is an acknowledgement by `stream`, a text says why it is none."""
    if message.status == NO_RESPONDERS:
        return f"no stream takes {stream}'s subjects (no responders)"
    try:
        ack = msgspec.json.decode(message.payload, type=_PubAck)
    except msgspec.DecodeError:
        return "the reply is no acknowledgement of JetStream"
    if ack.error is not None:
        return f"{ack.error.description[:TEXT_LIMIT]} ({ack.error.err_code or ack.error.code})"
    if ack.stream != stream:
        return f"stream {ack.stream or '?'} took the event instead of {stream}"
    return None if ack.seq else "the acknowledgement has no sequence"


def connect(options: dict[str, Any]) -> bytes:
    """Write CONNECT."""
    return b"CONNECT " + msgspec.json.encode(options) + b"\r\n"


def subscribe(subject: str) -> bytes:
    """Write SUB for the one subscription that a publisher has."""
    return f"SUB {subject} 1\r\n".encode()


def publish(subject: str, reply: str, payload: bytes) -> bytes:
    """Write PUB: for requests. Events are written by `nats_encoder`."""
    return f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n"


class Parser:
    """Bytes of the server to operations. After an exception it is of no use."""

    def __init__(self, *, inbox: str = "", ack_stream: str | None = None) -> None:
        """Find acknowledgements of `ack_stream` at `<inbox>.<number>`; without a stream, runs are not looked for."""
        self._rest = b""
        self._run, self._number = _ack_patterns(inbox, ack_stream)

    def feed(self, data: bytes) -> list[Operation]:
        """Give the operations that are whole now; what is left waits for more bytes."""
        if self._rest:
            data = self._rest + data
        found: list[Operation] = []
        start, end = 0, len(data)
        while start < end:
            if run := self._run.match(data, start):
                stop = run.end()
                found.append(Acks(list(map(int, self._number.findall(data, start, stop)))))
            else:
                operation, stop = _operation(data, start)
                if stop == start:
                    break
                if operation is not None:
                    found.append(operation)
            start = stop
        self._rest = data[start:]
        return found


def _ack_patterns(inbox: str, stream: str | None) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Give the expression of a run of acknowledgements, and the one of the number in each."""
    if stream is None:
        return _NEVER, _NEVER
    subject = re.escape(f"MSG {inbox}.").encode()
    name = re.escape(msgspec.json.encode(stream))
    body = rb'\d{1,18} 1 \d+\r\n\{"stream":' + name + rb',"seq":[1-9]\d*+(?:,"duplicate": ?true)?\}\r\n'
    return re.compile(b"(?:" + subject + body + b")++"), re.compile(subject + rb"(\d+) ")


def _operation(data: bytes, start: int) -> tuple[Operation | None, int]:
    """Read one operation at `start`: it and its end; the end is `start` while it is not whole."""
    line_end = data.find(b"\r\n", start)
    if line_end < 0:
        if len(data) - start > LINE_LIMIT:
            raise SinkUnavailable("the NATS server sent a line without an end")
        return None, start
    verb, _, rest = data[start:line_end].partition(b" ")
    verb = verb.upper()
    if verb in (b"MSG", b"HMSG"):
        return _message(data, start, line_end + 2, rest.split(), headers=verb == b"HMSG")
    return _short(verb, rest), line_end + 2


def _short(verb: bytes, rest: bytes) -> Operation | None:
    """Read an operation that is one line; `+OK` says nothing."""
    match verb:
        case b"INFO":
            return _info(rest)
        case b"-ERR":
            return Failure(rest[:TEXT_LIMIT].strip(b" '").decode(errors="replace"))
        case b"PING":
            return Ping()
        case b"PONG":
            return Pong()
        case b"+OK":
            return None
    raise SinkUnavailable(f"the server does not speak NATS: {verb[:20]!r}")


def _info(raw: bytes) -> Info:
    try:
        return msgspec.json.decode(raw, type=Info)
    except msgspec.DecodeError as error:
        raise SinkUnavailable(f"the NATS server's INFO cannot be read: {error}") from error


def _message(data: bytes, start: int, body: int, fields: list[bytes], *, headers: bool) -> tuple[Message | None, int]:
    """Read a message whose body begins at `body`: `subject sid [reply] [header size] size`."""
    sizes = 2 if headers else 1
    try:
        numbers = [int(field) for field in fields[-sizes:]]
    except ValueError:
        numbers = []
    if len(numbers) != sizes or len(fields) not in (2 + sizes, 3 + sizes) or not 0 <= numbers[0] <= numbers[-1]:
        raise SinkUnavailable("the NATS server sent a message whose line cannot be read")
    if numbers[-1] > MESSAGE_LIMIT:
        raise SinkUnavailable(f"the NATS server sent a message of {numbers[-1]} bytes")
    end = body + numbers[-1]
    if len(data) < end + 2:
        return None, start
    if data[end : end + 2] != b"\r\n":
        raise SinkUnavailable("the NATS server sent a message whose size is wrong")
    head = body + numbers[0] if headers else body
    return Message(fields[0], data[head:end], _status(data[body:head])), end + 2


def _status(header: bytes) -> int:
    """Give the status code of `NATS/1.0 503 No Responders`, 0 where there is none."""
    words = header.partition(b"\r\n")[0].split()
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
