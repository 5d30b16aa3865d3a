"""A reader of what a publisher writes: strict, so that a wrong length anywhere fails the test."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    subject: str
    reply: str | None
    headers: dict[str, str]
    payload: bytes

    @property
    def number(self):
        return int(self.reply.rpartition(".")[2])


def read(raw):
    """Read `HPUB` commands and PINGs (given as the text "PING")."""
    found = []
    while raw:
        line, _, raw = raw.partition(b"\r\n")
        if line == b"PING":
            found.append("PING")
            continue
        verb, subject, *reply, head, total = line.decode("ascii").split(" ")
        assert verb == "HPUB"
        assert len(reply) < 2
        block, payload, end = raw[: int(head)], raw[int(head) : int(total)], raw[int(total) : int(total) + 2]
        assert end == b"\r\n"
        found.append(Published(subject, reply[0] if reply else None, headers(block), payload))
        raw = raw[int(total) + 2 :]
    return found


def headers(block):
    first, *lines, blank, rest = block.decode("ascii").split("\r\n")
    assert (first, blank, rest) == ("NATS/1.0", "", "")
    pairs = [line.split(": ", 1) for line in lines]
    assert len({name for name, _ in pairs}) == len(pairs)
    return dict(pairs)
