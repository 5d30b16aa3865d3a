"""What a bot token tells: its first segment is the bot's id in base64url (Discord: Reference > Authentication)."""

from __future__ import annotations

import base64
from typing import Final

MAX_ID_DIGITS: Final = 20


class MalformedToken(ValueError):
    """A text that is no bot token; the message says why, and never holds any of it."""


def bot_id_of(token: str) -> str:
    """Decode the bot's user id, in decimal digits. Raise `MalformedToken`."""
    if not token.isprintable() or " " in token:
        raise MalformedToken("the token holds a space, a line end or a control character")
    segment, dot, rest = token.partition(".")
    if not dot or not rest:
        raise MalformedToken("the token has no dots: it is no bot token")
    try:
        text = base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        raise MalformedToken("the token's first segment is not base64: it is no bot token") from None
    if not text.isdecimal() or len(text) > MAX_ID_DIGITS:
        raise MalformedToken("the token's first segment holds no bot id: it is no bot token")
    return text
