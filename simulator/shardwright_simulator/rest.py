"""The REST API: `/gateway`, `/gateway/bot`, `/users/@me`, `/oauth2/applications/@me` (API v9 and v10).

Rules that are kept: a valid User-Agent (else 403), `Authorization: Bot <token>` (else 401), 50 requests a second and bot
(else 429), 10,000 invalid requests in 10 minutes end in a ban. Sources: Reference, Topics > Rate Limits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from shardwright_api.discord import API_VERSION
from shardwright_simulator.bots import Bot
from shardwright_simulator.faults import Fault, Trigger
from shardwright_simulator.gateway import Gateway
from shardwright_simulator.handshakes import valid_user_agent
from shardwright_simulator.http import Request, Response, json_response
from shardwright_simulator.ids import bot_id_of
from shardwright_simulator.records import RestRequest, Violation

GLOBAL_LIMIT = 50
INVALID_LIMIT = 10_000
INVALID_WINDOW = 600.0
_INVALID = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS})
_PREFIXES = (f"/api/v{API_VERSION}", "/api/v9", "/api")


class Window:
    """Counts what happened in the last so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._times: deque[float] = deque()

    def add(self, now: float) -> None:
        """Count one more."""
        self._times.append(now)

    def count(self, now: float) -> int:
        """Count what is not older than the window."""
        while self._times and self._times[0] <= now - self._seconds:
            self._times.popleft()
        return len(self._times)


def error(status: HTTPStatus, message: str, **headers: str) -> Response:
    """Answer with an error as Discord words it."""
    return json_response({"message": message, "code": 0}, status, **headers)


def too_many(retry_after: float, *, everywhere: bool) -> Response:
    """Answer 429 (Topics > Rate Limits > Exceeding A Rate Limit)."""
    body = {"message": "You are being rate limited.", "retry_after": retry_after, "global": everywhere}
    scope = {"X_RateLimit_Scope": "global" if everywhere else "user"}
    if everywhere:
        scope["X_RateLimit_Global"] = "true"
    return json_response(body, HTTPStatus.TOO_MANY_REQUESTS, Retry_After=str(max(1, round(retry_after))), **scope)


class Rest:
    """Answers REST requests."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._requests: dict[str, Window] = {}
        self._invalid = Window(INVALID_WINDOW)
        self._routes: dict[str, Callable[[Request, Bot], Any]] = {
            "/gateway/bot": self._gateway_bot,
            "/users/@me": lambda _, bot: self._user(bot),
            "/oauth2/applications/@me": lambda _, bot: self._application(bot),
        }

    def answer(self, request: Request, *, secure: bool) -> Response:
        """Answer a request and write it down."""
        bot = self._bot(request)
        response = self._answer(request, bot, secure=secure)
        now = self._gateway.clock()
        if response.status in _INVALID:
            self._invalid.add(now)
        agent = request.header("User-Agent")
        about = RestRequest(
            time=now, bot=bot.id if bot else "", path=request.path, status=response.status, user_agent=agent
        )
        self._gateway.rest_requests.add(about)
        return response

    def _answer(self, request: Request, bot: Bot | None, *, secure: bool) -> Response:
        refusal = self._refusal(request, bot)
        if refusal is not None:
            return refusal
        path = api_path(request.path)
        if path == "/gateway":
            return json_response({"url": self._url(request, secure=secure)})
        route = self._routes.get(path)
        if route is None:
            return error(HTTPStatus.NOT_FOUND, "404: Not Found")
        if bot is None:
            return error(HTTPStatus.UNAUTHORIZED, "401: Unauthorized")
        body = route(request, bot)
        if path == "/gateway/bot":
            body["url"] = self._url(request, secure=secure)
        return json_response(body, X_RateLimit_Limit="50", X_RateLimit_Remaining="49", X_RateLimit_Reset_After="1.0")

    def _refusal(self, request: Request, bot: Bot | None) -> Response | None:
        """Refuse what comes without a User-Agent, strikes a fault, or comes too often."""
        if not valid_user_agent(request.header("User-Agent")):
            self._violate(bot, "user-agent", f"REST with User-Agent {request.header('User-Agent')!r}")
            return error(HTTPStatus.FORBIDDEN, "error code: 1010")
        fault = self._gateway.faults.take(Trigger.REST, (bot.id if bot else "", None), api_path(request.path))
        return self._fault(fault) if fault else self._limit(bot)

    def _fault(self, fault: Fault) -> Response:
        if fault.status == HTTPStatus.TOO_MANY_REQUESTS:
            return too_many(fault.retry_after, everywhere=False)
        status = HTTPStatus(fault.status)
        return error(status, f"{status.value}: {status.phrase}")

    def _limit(self, bot: Bot | None) -> Response | None:
        now = self._gateway.clock()
        if self._invalid.count(now) >= INVALID_LIMIT:
            self._violate(bot, "invalid-request-limit", f"{INVALID_LIMIT} invalid requests in 10 minutes")
            return too_many(INVALID_WINDOW, everywhere=True)
        window = self._requests.setdefault(bot.id if bot else "", Window(1.0))
        if window.count(now) >= GLOBAL_LIMIT:
            self._violate(bot, "rest-limit", f"more than {GLOBAL_LIMIT} requests in a second")
            return too_many(1.0, everywhere=True)
        window.add(now)
        return None

    def _violate(self, bot: Bot | None, rule: str, message: str) -> None:
        about = Violation(time=self._gateway.clock(), bot=bot.id if bot else "", rule=rule, message=message)
        self._gateway.violations.add(about)

    def _bot(self, request: Request) -> Bot | None:
        scheme, _, token = request.header("Authorization").partition(" ")
        if scheme != "Bot":
            return None
        bot = self._gateway.bot_by_token(token)
        if bot is None and self._gateway.options.accept_any_rest_token:
            return self._gateway.bots.get(bot_id_of(token)) or next(iter(self._gateway.bots.values()), None)
        return bot

    def _url(self, request: Request, *, secure: bool) -> str:
        host = self._gateway.options.public_host or request.header("Host")
        return f"{'wss' if secure else 'ws'}://{host}"

    def _gateway_bot(self, _: Request, bot: Bot) -> dict[str, Any]:
        """Answer `GET /gateway/bot` (Gateway > Get Gateway Bot); `reset_after` is milliseconds."""
        now = self._gateway.clock()
        bot.refresh(now)
        limit = {
            "total": bot.config.total,
            "remaining": bot.remaining,
            "reset_after": round((bot.reset_at - now) * 1000),
            "max_concurrency": bot.config.max_concurrency,
        }
        return {"url": "", "shards": bot.config.shards, "session_start_limit": limit}

    def _user(self, bot: Bot) -> dict[str, Any]:
        names = {"username": bot.config.name, "discriminator": "0000", "global_name": None, "avatar": None}
        return {"id": bot.id, **names, "bot": True, "flags": 0, "public_flags": 0}

    def _application(self, bot: Bot) -> dict[str, Any]:
        """Answer `GET /oauth2/applications/@me`, which discord.py asks before it connects."""
        about = {
            "id": bot.id,
            "name": bot.config.name,
            "icon": None,
            "description": "",
            "flags": 0,
            "verify_key": "0" * 64,
        }
        return {**about, "bot_public": True, "bot_require_code_grant": False, "owner": self._user(bot), "team": None}


def api_path(path: str) -> str:
    """Cut the API prefix off a path."""
    for prefix in _PREFIXES:
        if path.startswith(prefix + "/"):
            return path.removeprefix(prefix)
    return ""
