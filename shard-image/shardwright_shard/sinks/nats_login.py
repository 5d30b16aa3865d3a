"""How a NATS sink logs in: the options of CONNECT that its Secret makes.

| key of the Secret | what the server gets |
|---|---|
| `creds` | the JWT, and its nonce signed by the seed: what `nsc generate creds` writes |
| `nkey` | the public key of the seed, and the signed nonce |
| `token` | the token |
| `username`, `password` | both |

The first that is there is used. Seeds are Ed25519 (NATS: `nkeys`): base32 of two bytes that tell the kind, 32 of the
seed, and a checksum.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from shardwright_shard.errors import SinkUnavailable
from shardwright_shard.sinks.secrets import Secrets

_JWT: Final = re.compile(r"-+BEGIN NATS USER JWT-+\s*(\S+)\s*-+END NATS USER JWT-+")
_SEED: Final = re.compile(r"-+BEGIN USER NKEY SEED-+\s*(\S+)\s*-+END USER NKEY SEED-+")
_USER: Final = bytes([20 << 3])
_SEED_LENGTH: Final = 36


def login(secrets: Secrets, nonce: str | None) -> dict[str, str]:
    """Give the options of CONNECT. Raise `SinkUnavailable` where the Secret does not fit; without one there are none."""
    if (creds := secrets.key("creds")) is not None:
        jwt, seed = _JWT.search(creds), _SEED.search(creds)
        if jwt is None or seed is None:
            raise SinkUnavailable("the Secret's key creds is no file of NATS credentials")
        return {"jwt": jwt[1], "sig": _signed(seed[1], nonce)[1]}
    if (seed_text := secrets.key("nkey")) is not None:
        public, signature = _signed(seed_text, nonce)
        return {"nkey": public, "sig": signature}
    if (token := secrets.key("token")) is not None:
        return {"auth_token": token}
    found = secrets.login()
    return {} if found is None else {"user": found[0], "pass": found[1]}


def _signed(seed: str, nonce: str | None) -> tuple[str, str]:
    """Give the public key and the signature of the nonce. Raise `SinkUnavailable`."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - takes memory, seldom needed
        Ed25519PrivateKey,
    )

    if nonce is None:
        raise SinkUnavailable("the server asks for no signature: it has no nkeys or JWTs configured")
    key = Ed25519PrivateKey.from_private_bytes(_raw(seed))
    public = key.public_key().public_bytes_raw()
    text = base64.b32encode(_checked(_USER + public)).decode().rstrip("=")
    return text, base64.urlsafe_b64encode(key.sign(nonce.encode())).decode().rstrip("=")


def _raw(seed: str) -> bytes:
    """Give the 32 bytes of a user's seed, which begins with `SU`."""
    try:
        data = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error:
        data = b""
    if len(data) != _SEED_LENGTH or not seed.startswith("SU") or _checked(data[:-2]) != data:
        raise SinkUnavailable("the Secret holds no seed of a NATS user (SU...)")
    return data[2:-2]


def _checked(data: bytes) -> bytes:
    """Add the checksum: CRC-16 of CCITT, started at 0, low byte first."""
    return data + binascii.crc_hqx(data, 0).to_bytes(2, "little")
