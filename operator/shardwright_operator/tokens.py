"""Bot tokens: kept away from logs, named by fingerprints, and read for the bot's id.

A token is only ever inside a `Token`, whose `repr` is redacted; it leaves it in one place, the Authorization header.
Fingerprints are salted per process: they tell whether a token changed, and are worth nothing outside.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

import msgspec

from shardwright_api.resources import Model, ObjectMeta, SecretKeyRef
from shardwright_operator.errors import TokenMalformedError

Fingerprint = NewType("Fingerprint", str)

_SALT: Final = secrets.token_bytes(16)
_MAX_ID_DIGITS: Final = 20


class Token:
    """A bot token that does not show itself."""

    __slots__ = ("_value", "fingerprint")

    def __init__(self, value: str) -> None:
        self._value = value
        self.fingerprint = Fingerprint(hmac.new(_SALT, value.encode(), hashlib.sha256).hexdigest()[:16])

    def __repr__(self) -> str:
        """Hide the token."""
        return "Token(redacted)"

    def authorization(self) -> str:
        """Give the value of the Authorization header."""
        return f"Bot {self._value}"

    def bot_id(self) -> str:
        """Decode the bot's user id, the token's first segment. Raise `TokenMalformedError`."""
        return decode_bot_id(self._value)


def decode_bot_id(token: str) -> str:
    """Decode the base64url segment before the first dot; it holds the bot's id in decimal digits."""
    if not token.isprintable() or " " in token:
        raise TokenMalformedError("the token holds a space, a line end or a control character")
    segment, dot, rest = token.partition(".")
    if not dot or not rest:
        raise TokenMalformedError("the token has no dots: it is no bot token")
    try:
        text = base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise TokenMalformedError("the token's first segment is not base64: it is no bot token") from None
    if not text.isdecimal() or len(text) > _MAX_ID_DIGITS:
        raise TokenMalformedError("the token's first segment holds no bot id: it is no bot token")
    return text


class TokenProblem(StrEnum):
    """Why a Secret gives no token: the reasons of `TokenValid=False`."""

    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason
    KEY_NOT_FOUND = "SecretKeyNotFound"
    MALFORMED = "TokenMalformed"
    FORBIDDEN = "SecretForbidden"


@dataclass(frozen=True, slots=True)
class TokenState:
    """What the Secret held when it was last read: a token with its bot's id, or a problem with a message."""

    token: Token | None = None
    bot_id: str = ""
    version: str = ""
    problem: TokenProblem | None = None
    message: str = ""


class SecretObject(Model, frozen=True):
    """The part of a Secret that we read."""

    metadata: ObjectMeta
    data: dict[str, bytes] | None = None

    def __repr__(self) -> str:
        """Hide the data."""
        return f"SecretObject({self.metadata.name})"


def missing(reference: SecretKeyRef) -> TokenState:
    """Say that the Secret does not exist."""
    return TokenState(
        problem=TokenProblem.SECRET_NOT_FOUND,
        message=f"Secret {reference.name!r} does not exist; create it with the bot's token under key {reference.key!r}",
    )


def forbidden(reference: SecretKeyRef) -> TokenState:
    """Say that the operator may not read the Secret."""
    return TokenState(
        problem=TokenProblem.FORBIDDEN,
        message=f"the operator has no right to get Secret {reference.name!r} in this namespace",
    )


def read(raw: bytes, reference: SecretKeyRef) -> TokenState:
    """Take the token out of a Secret as the API server stores it (values in base64)."""
    secret = msgspec.json.decode(raw, type=SecretObject)
    version = secret.metadata.resource_version
    value = (secret.data or {}).get(reference.key)
    if value is None:
        message = f"Secret {reference.name!r} has no key {reference.key!r}"
        return TokenState(version=version, problem=TokenProblem.KEY_NOT_FOUND, message=message)
    try:
        token = Token(value.decode("ascii").strip())
        return TokenState(token=token, bot_id=token.bot_id(), version=version)
    except (UnicodeDecodeError, TokenMalformedError) as error:
        reason = str(error) if isinstance(error, TokenMalformedError) else "the token is not plain text"
        message = f"Secret {reference.name!r}, key {reference.key!r}: {reason}"
        return TokenState(version=version, problem=TokenProblem.MALFORMED, message=message)
