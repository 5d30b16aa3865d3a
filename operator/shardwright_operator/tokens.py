"""Bot tokens: kept away from logs, named by fingerprints, and read for the bot's id.

A token is only ever inside a `Token`, whose `repr` is redacted; it leaves it in one place, the Authorization header.
Fingerprints are salted per process: they tell whether a token changed, and are worth nothing outside.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NewType

import msgspec

from shardwright_api.resources import Model, ObjectMeta, SecretKeyRef
from shardwright_api.token import MalformedToken, bot_id_of

Fingerprint = NewType("Fingerprint", str)

_SALT: Final = secrets.token_bytes(16)


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
        """Decode the bot's user id, the token's first segment. Raise `MalformedToken`."""
        return bot_id_of(self._value)


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
    except (UnicodeDecodeError, MalformedToken) as error:
        reason = str(error) if isinstance(error, MalformedToken) else "the token is not plain text"
        message = f"Secret {reference.name!r}, key {reference.key!r}: {reason}"
        return TokenState(version=version, problem=TokenProblem.MALFORMED, message=message)
