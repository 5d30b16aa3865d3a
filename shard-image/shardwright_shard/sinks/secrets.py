"""Credentials and certificates of a sink: files that Kubernetes mounts from Secrets, read again at each connect.

    <folder>/<sink>/credentials/{username,password,token,nkey,creds,hmac-key}
    <folder>/<sink>/tls/{ca.crt,tls.crt,tls.key}

Mounted whole, without `subPath`, so that a changed Secret is there within a minute; never in the environment. What is
read is used at once and kept nowhere; nothing here ends up in a message: those name the Secret's key and no more.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from shardwright_shard.errors import SinkUnavailable


class Secrets:
    """What a sink may read. A key that is not there gives None; without a Secret every key is None."""

    def __init__(self, folder: Path | None = None, *, credentials: bool = False, tls: bool = False) -> None:
        """`credentials`, `tls`: whether the sink names a Secret for them."""
        self._credentials = folder / "credentials" if folder and credentials else None
        self._tls = folder / "tls" if folder and tls else None

    @property
    def has_tls(self) -> bool:
        """Whether certificates were named."""
        return self._tls is not None

    def check(self) -> None:
        """Raise `SinkUnavailable` where a Secret that is named is not mounted: before anything is dialled."""
        for folder, what in ((self._credentials, "credentials"), (self._tls, "certificates")):
            if folder is not None and not (folder.is_dir() and any(folder.iterdir())):
                raise SinkUnavailable(f"the Secret with the {what} is not there, or empty")

    def key(self, name: str) -> str | None:
        """Give a key of the credentials, without white space around it. Raise `SinkUnavailable` where it is unreadable."""
        return None if self._credentials is None else _read(self._credentials / name)

    def login(self) -> tuple[str, str] | None:
        """Give user name and password; None where no Secret is named. Raise `SinkUnavailable` where one is missing."""
        if self._credentials is None:
            return None
        username, password = self.key("username"), self.key("password")
        if username is None or password is None:
            raise SinkUnavailable("the Secret with the credentials has no key username or no key password")
        return username, password

    def file(self, name: str) -> Path | None:
        """Give the path of a certificate or key, where it is there."""
        path = self._tls / name if self._tls is not None else None
        return path if path is not None and path.is_file() else None

    def context(self) -> ssl.SSLContext:
        """Give a TLS context: the system's roots, or `ca.crt` instead; a client certificate where there is one.

        Raise `SinkUnavailable` where a file does not fit.
        """
        ca, cert, key = self.file("ca.crt"), self.file("tls.crt"), self.file("tls.key")
        try:
            context = ssl.create_default_context(cafile=str(ca) if ca else None)
            if cert is not None:
                context.load_cert_chain(cert, key)
        except (OSError, ValueError) as error:
            raise SinkUnavailable(f"the Secret with the certificates does not fit: {error}") from None
        return context


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        raise SinkUnavailable(f"the Secret's key {path.name} cannot be read") from None
