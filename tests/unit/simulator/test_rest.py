"""The REST API and its limits (Reference; Topics > Rate Limits)."""

import orjson
import pytest

from shardwright_simulator import BotConfig, Fault
from shardwright_simulator.http import parse_head
from shardwright_simulator.rest import INVALID_LIMIT, Rest

AGENT = "DiscordBot (https://example.invalid, 1.0)"


class Api:
    """Asks one `Rest`."""

    def __init__(self, world):
        self.world = world
        self.rest = Rest(world.gateway)

    def get(self, path, token=None, agent=AGENT, *, secure=False):
        token = self.world.bot.config.token if token is None else token
        authorization = f"Authorization: Bot {token}\r\n" if token else ""
        head = f"GET {path} HTTP/1.1\r\nHost: sim:8080\r\nUser-Agent: {agent}\r\n{authorization}\r\n"
        response = self.rest.answer(parse_head(head.encode()), secure=secure)
        return response.status.value, orjson.loads(response.body), dict(response.headers)


@pytest.fixture
def api(world):
    return Api(world)


def test_gateway_needs_no_token(api):
    assert api.get("/api/v10/gateway", token="")[:2] == (200, {"url": "ws://sim:8080"})


def test_with_tls_the_url_is_wss(api):
    assert api.get("/api/v10/gateway", secure=True)[1] == {"url": "wss://sim:8080"}


def test_gateway_bot_tells_the_budget_in_milliseconds(make_world):
    world = make_world(bots=[BotConfig(guilds=3_000, max_concurrency=16, remaining=7, reset_after=60)])
    status, body, _ = Api(world).get("/api/v10/gateway/bot")
    assert status == 200
    limit = {"total": 1_000, "remaining": 7, "reset_after": 60_000, "max_concurrency": 16}
    assert body == {"url": "ws://sim:8080", "shards": 3, "session_start_limit": limit}


@pytest.mark.parametrize("path", ["/api/v10/users/@me", "/api/v9/users/@me", "/api/users/@me"])
def test_users_me_names_the_bot(api, path):
    assert api.get(path)[1]["id"] == api.world.bot.id


@pytest.mark.parametrize("path", ["/api/v10/gateway/bot", "/api/v10/users/@me", "/api/v10/oauth2/applications/@me"])
@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_wrong_token_gets_401(api, path, token):
    assert api.get(path, token=token)[0] == 401


@pytest.mark.parametrize("path", ["/", "/api", "/api/v10/nothing", "/api/v8/gateway", "/gateway"])
def test_an_unknown_path_gets_404(api, path):
    assert api.get(path)[0] == 404


@pytest.mark.parametrize("agent", ["", "curl/8", "Mozilla/5.0"])
def test_without_a_valid_user_agent_it_is_403_and_a_violation(api, agent):
    assert api.get("/api/v10/gateway", agent=agent)[0] == 403
    assert api.world.rules() == ["user-agent"]


def test_any_token_can_be_let_in_at_rest(make_world):
    api = Api(make_world(accept_any_rest_token=True))
    assert api.get("/api/v10/gateway/bot", token="wrong")[0] == 200
    assert api.get("/api/v10/gateway/bot", token="")[0] == 401


def test_more_than_50_requests_in_a_second_get_429(api):
    statuses = [api.get("/api/v10/users/@me")[0] for _ in range(51)]
    assert statuses == [200] * 50 + [429]
    assert api.world.rules() == ["rest-limit"]
    api.world.advance(1.1)
    assert api.get("/api/v10/users/@me")[0] == 200


def test_a_scripted_429_names_its_wait(api):
    api.world.control.add_fault(Fault(action="status", retry_after=2.5, times=2))
    for _ in range(2):
        status, body, headers = api.get("/api/v10/gateway/bot")
        assert (status, body["retry_after"], headers["Retry-After"]) == (429, 2.5, "2")
    assert api.get("/api/v10/gateway/bot")[0] == 200


def test_a_scripted_status_strikes_the_path_it_is_aimed_at(api):
    api.world.control.add_fault(Fault(action="status", status=503, path="/users", times=0))
    assert api.get("/api/v10/gateway/bot")[0] == 200
    assert api.get("/api/v10/users/@me")[0] == 503


def test_10000_invalid_requests_end_in_a_ban(api):
    for _ in range(INVALID_LIMIT):
        api.rest._invalid.add(api.world.now)
    status, body, headers = api.get("/api/v10/gateway/bot")
    assert (status, body["global"], headers["X-RateLimit-Global"]) == (429, True, "true")
    assert api.world.rules() == ["invalid-request-limit"]


def test_every_request_is_written_down(api):
    api.get("/api/v10/gateway/bot")
    api.get("/api/v10/gateway/bot", token="wrong")
    assert [(r.path, r.status, r.bot) for r in api.world.control.rest_requests()] == [
        ("/api/v10/gateway/bot", 200, api.world.bot.id),
        ("/api/v10/gateway/bot", 401, ""),
    ]
