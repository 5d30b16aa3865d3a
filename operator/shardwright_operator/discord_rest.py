"""`GET /gateway/bot`: the one question that the operator asks Discord, centrally for all pods.

Rules: the User-Agent is mandatory; `Retry-After` is honoured (header in seconds, body `retry_after` as float seconds); a
401 is final for that token, since ten thousand of them in ten minutes ban the address. No redirect is followed: the
token goes to the host that was named, and to no other. (Discord docs: Gateway > Get Gateway Bot; Rate Limits.)
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

import aiohttp
import msgspec

from shardwright_api.discord import API_URL, USER_AGENT
from shardwright_operator.errors import DiscordUnavailableError, TokenRejectedError
from shardwright_operator.tokens import Token


class SessionStartLimit(msgspec.Struct, frozen=True):
    """Discord's session start limit; `reset_after` in milliseconds."""

    total: int
    remaining: int
    reset_after: float
    max_concurrency: int


class GatewayBot(msgspec.Struct, frozen=True):
    """Discord's answer."""

    url: str
    shards: int
    session_start_limit: SessionStartLimit


class _Wait(msgspec.Struct, frozen=True):
    """The body of a 429."""

    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Question:
    """Which token to ask with, and where. An empty URL is Discord's own."""

    token: Token
    api_url: str = ""


class DiscordRest:
    """Discord's HTTP API."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def gateway_bot(self, question: Question) -> GatewayBot:
        """Ask. Raise `TokenRejectedError` or `DiscordUnavailableError`."""
        url = f"{(question.api_url or API_URL).rstrip('/')}/gateway/bot"
        headers = {"Authorization": question.token.authorization(), "User-Agent": USER_AGENT}
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as response:
                return _read(response.status, response.headers.get("Retry-After", ""), await response.read(), url)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise DiscordUnavailableError(f"GET {url}: {type(error).__name__}") from None


def _read(status: int, retry_after: str, raw: bytes, url: str) -> GatewayBot:
    """Judge an answer."""
    if status == HTTPStatus.UNAUTHORIZED:
        raise TokenRejectedError("Discord answered 401: the token is wrong or was reset")
    if status != HTTPStatus.OK:
        raise DiscordUnavailableError(f"GET {url}: {status}", _seconds(retry_after, raw))
    try:
        answer = msgspec.json.decode(raw, type=GatewayBot)
    except msgspec.DecodeError as error:
        raise DiscordUnavailableError(f"GET {url}: {error}") from None
    limit = answer.session_start_limit
    if answer.shards < 1 or limit.max_concurrency < 1 or limit.total < 0:
        raise DiscordUnavailableError(f"GET {url}: an answer that makes no sense")
    return answer


def _seconds(header: str, raw: bytes) -> float | None:
    """Read how long to wait: the longer of header and body."""
    try:
        body = msgspec.json.decode(raw, type=_Wait).retry_after
    except msgspec.DecodeError:
        body = 0.0
    try:
        head = float(header)
    except ValueError:
        head = 0.0
    return max(head, body) or None
