"""The control API over HTTP: every route, and what it refuses."""

import orjson
import pytest

from shardwright_simulator import BotConfig
from shardwright_simulator.control_http import ControlRoutes
from shardwright_simulator.http import parse_head


class Http:
    """Asks one `ControlRoutes`."""

    def __init__(self, world):
        self.routes = ControlRoutes(world.control)

    def __call__(self, method, path, body=None):
        raw = body if isinstance(body, bytes) else orjson.dumps(body) if body is not None else b""
        request = parse_head(f"{method} /control/{path} HTTP/1.1\r\n\r\n".encode())._replace(body=raw)
        response = self.routes.answer(request)
        data = response.body if response.stream is None else b"".join(response.stream)
        lines = response.content_type == "application/jsonl"
        return response.status.value, [orjson.loads(x) for x in data.splitlines()] if lines else orjson.loads(data)


@pytest.fixture
def http(world):
    return Http(world)


@pytest.mark.parametrize("path", [
    "state", "options", "bots", "bots/1000000000000000001", "sessions", "connections", "identifies", "resumes",
    "overlaps", "silences?after=2&bot=1", "requests", "violations", "violations?severity=all", "violations?severity=note&after=3&bot=1", "ledger",
    "ledger?bot=1&session=2&after=3&limit=4", "loads", "faults", "state/",
])  # fmt: skip
def test_what_can_be_asked(http, path):
    assert http("GET", path)[0] == 200


@pytest.mark.parametrize(("method", "path", "body", "status"), [
    ("GET", "nothing", None, 404),
    ("PUT", "state", None, 404),
    ("GET", "bots/5", None, 404),
    ("PATCH", "bots", {}, 404),
    ("DELETE", "bots/5", None, 404),
    ("GET", "loads/1", None, 404),
    ("GET", "loads/x", None, 400),
    ("DELETE", "loads/9", None, 404),
    ("DELETE", "faults/9", None, 404),
    ("DELETE", "sessions/x", None, 400),
    ("GET", "ledger?after=x", None, 400),
    ("GET", "violations?severity=bad", None, 400),
    ("POST", "loads", b"{", 400),
    ("POST", "loads", {"rate": -1}, 400),
    ("POST", "loads", {"speed": 1}, 400),
    ("POST", "loads", {"bot": "9"}, 404),
    ("POST", "faults", {"action": "explode"}, 400),
    ("POST", "faults", {"action": "ping", "at": "resume"}, 400),
    ("POST", "bots", {"id": "x"}, 400),
    ("POST", "bots", {"id": "1000000000000000001"}, 400),
    ("PATCH", "options", {"heartbeat_interval": -1}, 400),
    ("PATCH", "options", {"nonsense": 1}, 400),
    ("PATCH", "options", [], 400),
    ("PATCH", "bots/1000000000000000001", {"guilds": "many"}, 400),
])  # fmt: skip
def test_what_is_refused(http, method, path, body, status):
    code, answer = http(method, path, body)
    assert code == status
    assert answer["error"]


def test_a_bot_is_added_changed_and_removed(world, http):
    assert http("POST", "bots", {"id": "7", "guilds": 3})[1]["config"]["shards"] == 1
    assert http("PATCH", "bots/7", {"remaining": 3, "max_concurrency": 4})[1]["remaining"] == 3
    token = http("POST", "rotate-token/7")[1]["token"]
    assert world.control.bot("7").config.token == token
    client = world.connect()
    client.identify(0, 1, token=token)
    assert client.session
    assert http("DELETE", "bots/7")[0] == 200
    assert client.closed == 4004
    assert http("GET", "bots/7")[0] == 404


def test_a_token_can_be_declared_wrong_and_right_again(world, http):
    http("PATCH", f"bots/{world.bot.id}", {"token_valid": False})
    client = world.connect()
    client.identify()
    assert client.closed == 4004
    assert http("PATCH", f"bots/{world.bot.id}", {"token_valid": True})[1]["token_valid"]


def test_options_change_while_it_runs(world, http):
    assert http("PATCH", "options", {"on_resume": "keep", "latency": [0.1, 0.2]})[1]["on_resume"] == "keep"
    assert world.gateway.options.latency == (0.1, 0.2)


def test_loads_are_started_watched_and_stopped(world, http):
    world.ready()
    load = http("POST", "loads", {"rate": 50, "sizes": [[300, 1]], "mix": {"MESSAGE_CREATE": 1}})[1]
    world.advance(1)
    assert http("GET", f"loads/{load['id']}")[1]["events"] == 50
    assert not http("DELETE", f"loads/{load['id']}")[1]["running"]
    assert http("DELETE", "loads")[0] == 200


def test_faults_are_made_listed_and_taken_back(world, http):
    client = world.ready()
    fault = http("POST", "faults", {"action": "close", "code": 4009})[1]
    assert client.closed == 4009
    assert http("GET", "faults")[1][0]["struck"] == 1
    assert http("DELETE", f"faults/{fault['id']}")[0] == 200
    assert http("DELETE", "faults")[0] == 200
    assert http("GET", "faults")[1] == []


def test_the_ledger_comes_in_lines(world, http):
    world.ready()
    lines = http("GET", "ledger?after=1&limit=1")[1]
    assert [(line["n"], line["t"], line["flags"]) for line in lines] == [(2, "GUILD_CREATE", "backfill")]


def test_a_session_is_ended_and_all_is_reset(world, http):
    client = world.ready()
    assert http("DELETE", f"sessions/{client.session}")[0] == 200
    assert client.messages[-1]["op"] == 9
    assert http("POST", "reset")[0] == 200
    assert http("GET", "identifies")[1] == []


def test_state_tells_all_at_a_glance(make_world):
    world = make_world(bots=[BotConfig(id="1"), BotConfig(id="2")])
    world.ready(0, 1)
    state = Http(world)("GET", "state")[1]
    assert (state["connections"], state["sessions"], len(state["bots"])) == (1, 1, 2)
    assert state["bots"][0]["sessions"] == 1


def test_the_replay_buffer_of_a_session_that_lives_can_be_made_smaller(http, world):
    world.ready()
    assert http("PATCH", "bots/1000000000000000001", {"replay_limit": 1})[0] == 200
    (session,) = world.control.sessions()
    assert session.buffered == 1
    again = world.connect()
    again.resume(session.id, 1)
    assert again.ops[-1] == 9


@pytest.mark.parametrize("change", [{"session_ttl": 2}, {"on_resume": "keep"}, {"trim_by_heartbeat": True}])
def test_what_the_next_fault_needs_can_be_set_while_sessions_live(http, change):
    code, options = http("PATCH", "options", change)
    assert code == 200
    assert change.items() <= options.items()
