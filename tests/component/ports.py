"""Ports for servers that must be told theirs before they start."""

from __future__ import annotations

import random
import socket
from contextlib import suppress

_RANGE = range(20000, 30000)
"""Below what the kernel takes for outgoing connections, so that nobody has a port while its server is being restarted."""
_given: set[int] = set()


def free_port() -> int:
    """Give a port of the loopback that is free, and never the same one twice."""
    while True:
        port = random.choice(_RANGE)
        if port in _given:
            continue
        _given.add(port)
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
