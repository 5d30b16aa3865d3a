"""The rules of the opening handshake: query string and headers (Gateway > Connecting; Reference > User Agent)."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shardwright_api.discord import API_VERSION, CloseCode
from shardwright_simulator.connection import Connection, Handshake
from shardwright_simulator.errors import ClientError
from shardwright_simulator.faults import Trigger
from shardwright_simulator.records import Violation
from shardwright_simulator.strikes import key_of_path

if TYPE_CHECKING:
    from shardwright_simulator.gateway import Gateway

VERSIONS = frozenset({"9", str(API_VERSION)})
COMPRESSIONS = frozenset({"", "zlib-stream", "zstd-stream"})
_USER_AGENT = re.compile(r"DiscordBot \([^()]+\)")


def valid_user_agent(user_agent: str) -> bool:
    """Whether a User-Agent is `DiscordBot (url, version)` with whatever follows."""
    return _USER_AGENT.match(user_agent) is not None


def check_query(connection: Connection) -> None:
    """Raise ClientError when version, encoding or compression cannot be served."""
    query = dict(connection.query)
    if query.get("v") not in VERSIONS:
        raise ClientError(CloseCode.INVALID_API_VERSION, "api-version", f"v={query.get('v')} is not served")
    if query.get("encoding", "json") != "json":
        raise ClientError(CloseCode.DECODE_ERROR, "encoding", "this simulator speaks JSON only")
    if connection.compression not in COMPRESSIONS:
        raise ClientError(CloseCode.DECODE_ERROR, "compression", f"compress={connection.compression} is not known")


def refusal(gateway: Gateway, handshake: Handshake) -> HTTPStatus | None:
    """Tell with which status an opening handshake is refused; None when it is accepted."""
    path = urlsplit(handshake.path).path
    if path.rstrip("/") and not path.startswith("/resume/"):
        return HTTPStatus.NOT_FOUND
    if gateway.options.require_user_agent and not valid_user_agent(handshake.user_agent):
        gateway.violations.add(_bad_user_agent(gateway, handshake))
        return HTTPStatus.FORBIDDEN
    fault = gateway.faults.take(Trigger.HANDSHAKE, key_of_path(path))
    return HTTPStatus(fault.status) if fault else None


def _bad_user_agent(gateway: Gateway, handshake: Handshake) -> Violation:
    message = f"websocket with User-Agent {handshake.user_agent!r}"
    return Violation(time=gateway.clock(), rule="user-agent", message=message)


def note_handshake(gateway: Gateway, connection: Connection) -> None:
    """Write down what is wrong with a handshake that is let through all the same."""
    if not valid_user_agent(connection.handshake.user_agent):
        message = f"websocket with User-Agent {connection.handshake.user_agent!r}"
        gateway.note(connection, "user-agent", message)
