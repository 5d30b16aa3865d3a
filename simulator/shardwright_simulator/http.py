"""As much HTTP/1.1 as the port needs: requests with an optional body of known length, answers of known length or chunked.

Sans-I/O: `RequestReader.feed(data)` gives whole requests. The websocket handshake is one of them; its bytes go on to
the websocket library, which reads it by itself.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException, parse_headers
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import msgspec
import orjson

from shardwright_simulator.errors import HttpError

HEAD_LIMIT = 64 * 1024
BODY_LIMIT = 4 * 1024 * 1024
_HEAD_END = b"\r\n\r\n"


class Request(NamedTuple):
    """One HTTP request."""

    method: str
    target: str
    headers: Message
    body: bytes
    raw: bytes
    """The bytes of the head, as they came."""

    @property
    def path(self) -> str:
        """The path without the query string."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        """The query string."""
        return dict(parse_qsl(urlsplit(self.target).query))

    @property
    def is_websocket(self) -> bool:
        """Whether the client wants a websocket."""
        return self.header("Upgrade").lower() == "websocket"

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection stays open after the answer."""
        return self.header("Connection").lower() != "close"

    def header(self, name: str) -> str:
        """Give a header; empty when it is not there."""
        return str(self.headers.get(name, ""))


class Response(NamedTuple):
    """An answer. A `stream` takes the place of the body and is sent piece by piece."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    stream: Iterable[bytes] | None = None

    def head(self) -> bytes:
        """Write the head."""
        lines = [f"HTTP/1.1 {self.status.value} {self.status.phrase}", f"Content-Type: {self.content_type}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        lines.append(f"Content-Length: {len(self.body)}" if self.stream is None else "Transfer-Encoding: chunked")
        return "\r\n".join(lines).encode() + _HEAD_END

    def pieces(self) -> Iterator[bytes]:
        """Write the whole answer, piece by piece."""
        yield self.head() + self.body
        if self.stream is not None:
            for piece in self.stream:
                yield b"%x\r\n%b\r\n" % (len(piece), piece)
            yield b"0\r\n\r\n"


def json_response(value: Any, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> Response:
    """Answer with a struct, a list or a dict."""
    named = tuple((name.replace("_", "-"), text) for name, text in headers.items())
    return Response(status, orjson.dumps(msgspec.to_builtins(value)), headers=named)


class RequestReader:
    """Cuts requests out of what arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Request | None = None

    def feed(self, data: bytes) -> Request | None:
        """Add bytes; give a request when it is whole. Raise HttpError when it never will be."""
        self._buffer += data
        if self._head is None:
            self._head = self._read_head()
        if self._head is None or len(self._buffer) < (length := _body_length(self._head)):
            return None
        request, self._head = self._head._replace(body=bytes(self._buffer[:length])), None
        del self._buffer[:length]
        return request

    def rest(self) -> bytes:
        """Take what came after the last request."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _read_head(self) -> Request | None:
        end = self._buffer.find(_HEAD_END)
        if end < 0:
            if len(self._buffer) > HEAD_LIMIT:
                raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the head of the request is too long")
            return None
        raw = bytes(self._buffer[: end + len(_HEAD_END)])
        del self._buffer[: len(raw)]
        return parse_head(raw)


def parse_head(raw: bytes) -> Request:
    """Read request line and headers; raise HttpError when they are none."""
    line, _, rest = raw.partition(b"\r\n")
    try:
        method, target, version = line.decode("ascii").split(" ")
        headers = parse_headers(io.BytesIO(rest))
        urlsplit(target)
    except (ValueError, HTTPException) as error:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"no HTTP request: {error}") from error
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise HttpError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "HTTP/1.1 is spoken here")
    return Request(method, target, headers, b"", raw)


def _body_length(request: Request) -> int:
    if request.header("Transfer-Encoding"):
        raise HttpError(HTTPStatus.LENGTH_REQUIRED, "send a Content-Length")
    text = request.header("Content-Length") or "0"
    if not text.isdigit() or int(text) > BODY_LIMIT:
        raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Content-Length {text[:20]!r} is not served")
    return int(text)
