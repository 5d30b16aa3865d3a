"""CloudEvents over HTTP as requests: bodies, headers, signatures, and what an answer means. No I/O.

| mode | body | headers |
|---|---|---|
| binary | the gateway message, byte for byte | `ce-id`, `ce-type`, ... ; `content-type: application/json` |
| batched | a JSON array of structured events | `content-type: application/cloudevents-batch+json` |

With a key `hmac-key` each request is signed as Standard Webhooks says: `webhook-id` (of the first event),
`webhook-timestamp`, and `webhook-signature: v1,<base64>` over `<id>.<timestamp>.<body>` by HMAC-SHA256.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

from shardwright_api.resources import HttpMode
from shardwright_shard.errors import SinkUnavailable
from shardwright_shard.journal import Event, Source
from shardwright_shard.sinks.headers import DATA_TYPE, attributes, encoded
from shardwright_shard.sinks.secrets import Secrets
from shardwright_shard.sinks.stdout import line

BATCH_TYPE: Final = "application/cloudevents-batch+json"
LONGEST_WAIT: Final = 3600.0
"""Seconds: a `Retry-After` beyond that is taken for a mistake."""
_PREFIX: Final = "whsec_"


class Item(NamedTuple):
    """An event to send, with our number of it and its time as text."""

    number: int
    source: Source
    event: Event
    time: str


class Login(NamedTuple):
    """What the Secret says: headers of every request, and the key that signs."""

    headers: Mapping[str, str] = {}
    key: bytes | None = None
    secrets: tuple[str, ...] = ()
    """Texts that may stand in no message."""


def login(secrets: Secrets) -> Login:
    """Read the Secret. Raise `SinkUnavailable` where it does not fit."""
    token, username, key = secrets.key("token"), secrets.key("username"), secrets.key("hmac-key")
    headers, hidden = {}, [text for text in (token, key) if text]
    if token is not None:
        headers["authorization"] = f"Bearer {token}"
    elif username is not None:
        password = secrets.key("password") or ""
        headers["authorization"] = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
        hidden += [password, headers["authorization"].removeprefix("Basic ")]
    return Login(headers, _key(key), tuple(filter(None, hidden)))


def _key(text: str | None) -> bytes | None:
    if text is None or not text.startswith(_PREFIX):
        return text.encode() if text else None
    try:
        return base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise SinkUnavailable(f"the Secret's key hmac-key begins with {_PREFIX}, but is no base64 behind it") from None


def request(mode: HttpMode, items: Sequence[Item], login: Login, *, now: float) -> tuple[bytes, dict[str, str]]:
    """Give the body and the headers of a request for one event, or for several in batched mode."""
    first = items[0]
    if mode is HttpMode.BATCHED:
        body = b"[" + b",".join(line(item.source, item.event, time=item.time)[:-1] for item in items) + b"]"
        headers = {"content-type": BATCH_TYPE}
    else:
        body = first.event.payload
        given = attributes(first.source, first.event, time=first.time)
        headers = {f"ce-{name}": encoded(value) for name, value in given.items()}
        headers["content-type"] = DATA_TYPE
    id_ = f"{first.source.id_prefix}{first.event.last}"
    return body, headers | dict(login.headers) | _signature(login.key, encoded(id_), int(now), body)


def _signature(key: bytes | None, id_: str, timestamp: int, body: bytes) -> dict[str, str]:
    if key is None:
        return {}
    digest = hmac.new(key, f"{id_}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    signature = f"v1,{base64.b64encode(digest).decode()}"
    return {"webhook-id": id_, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


def retry_after(value: str | None, *, now: float) -> float | None:
    """Read `Retry-After`: seconds, or a date. None where it is absent or cannot be read."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return min(float(value), LONGEST_WAIT)
    try:
        return min(max(0.0, parsedate_to_datetime(value).timestamp() - now), LONGEST_WAIT)
    except ValueError:
        return None
