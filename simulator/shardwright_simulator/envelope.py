"""The gateway's envelope, `{"t":…,"s":…,"op":…,"d":…}`, byte for byte as Discord writes it.

Source: Gateway > Payload Structure; the key order is that of captured traffic and not promised by the docs.
"""

from __future__ import annotations

from typing import Any

import orjson

from shardwright_api.discord import Opcode
from shardwright_simulator.options import KeyOrder

Parts = tuple[bytes, ...]
"""The pieces of a message, big ones shared between many: `b"".join(parts)` is the message."""


def control(op: Opcode, d: Any, order: KeyOrder) -> bytes:
    """Write a message that is no dispatch: `t` and `s` are null."""
    data = orjson.dumps(d)
    if order is KeyOrder.DISCORD:
        return b'{"t":null,"s":null,"op":%d,"d":%b}' % (op, data)
    return b'{"op":%d,"d":%b,"s":null,"t":null}' % (op, data)


def dispatch(t: str, seq: int, d: Parts, order: KeyOrder) -> Parts:
    """Write a dispatch event around the pieces of its `d`."""
    if order is KeyOrder.DISCORD:
        return (b'{"t":"%b","s":%d,"op":0,"d":' % (t.encode(), seq), *d, b"}")
    return (b'{"op":0,"d":', *d, b',"s":%d,"t":"%b"}' % (seq, t.encode()))


def parse(data: bytes | str) -> dict[str, Any]:
    """Read a client's message; raise ValueError when it is no JSON object with an integer `op`."""
    message = orjson.loads(data)
    if not isinstance(message, dict) or type(message.get("op")) is not int:
        raise ValueError("not an object with an integer op")
    return message
