"""Addresses of servers: one, or several with commas between, of the form `scheme://host:port/path`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from random import Random
from urllib.parse import unquote, urlsplit

from shardwright_shard.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a server listens, and whether TLS is a must. `path` without the slash in front."""

    scheme: str
    host: str
    port: int
    path: str
    tls: bool

    def __str__(self) -> str:
        """Name it for people."""
        return f"{self.scheme}://{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Form:
    """What the addresses of a protocol look like."""

    plain: str
    plain_port: int
    secure: str
    secure_port: int

    def addresses(self, url: str) -> list[Address]:
        """Read one address or several. Raise `ConfigError` naming the form that was expected."""
        return [self._address(part.strip()) for part in url.split(",")]

    def _address(self, url: str) -> Address:
        expected = f"expected {self.plain}://host:port or {self.secure}://host:port, several with commas between"
        try:
            parts = urlsplit(url)
            port = parts.port
            (parts.hostname or "").encode("idna")
        except ValueError as error:
            raise ConfigError(f"url: {error}") from error
        if parts.username is not None or parts.password is not None:
            raise ConfigError("url: no user or password in a URL; credentials come from a Secret")
        if parts.scheme not in (self.plain, self.secure) or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(f"url: {expected}")
        tls = parts.scheme == self.secure
        return Address(
            scheme=parts.scheme,
            host=parts.hostname,
            port=port or (self.secure_port if tls else self.plain_port),
            path=unquote(parts.path.removeprefix("/")),
            tls=tls,
        )


def in_turn(found: list[Address], random: Random) -> Iterator[Address]:
    """Give the servers without end, in a random order."""
    random.shuffle(found)
    return cycle(found)
