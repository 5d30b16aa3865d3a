"""What Discord, a Secret or a sink refuses: a condition that names it, nothing spent, and healing by itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from road import OPERATOR_NAMESPACE, STREAM, Road, wait_for

LIVE_BUDGET = {"total": 1000, "remaining": 1000}


def restarts(road: Road) -> int:
    return sum(status["restartCount"] for pod in road.pods() for status in pod["status"].get("containerStatuses", []))


@pytest.mark.timeout(240)
def test_a_missing_secret_and_a_missing_key_are_named_and_heal(make_road: Callable[..., Road]) -> None:
    """No pod is made before the token is there."""
    road = make_road(bot={"guilds": 10})
    road.apply_gateway(shards={"count": 1})
    found = road.wait_condition("TokenValid", "False", seconds=30)
    assert "mybot-token" in found["message"]
    assert road.pods() == []
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mybot-token"}, "stringData": {"wrong": "x"}}
    road.cluster.apply(secret, namespace=road.namespace)
    wait_for(
        "the key is named",
        lambda: "no key 'token'" in road.condition("TokenValid")["message"],
        seconds=60,
    )
    assert road.pods() == []
    road.make_secret()
    road.wait_condition("Ready", "True", seconds=120)
    assert len(road.simulator.identifies()) == 1


@pytest.mark.timeout(240)
def test_a_wrong_token_costs_nothing_where_rest_refuses_it(make_road: Callable[..., Road]) -> None:
    """`/gateway/bot` answers 401: no pod identifies; a new Secret heals it."""
    road = make_road(bot={"guilds": 80, "max_concurrency": 1})
    good = road.token()
    head, middle, _ = good.split(".")
    road.make_secret(token=f"{head}.{middle}.wrong")
    road.apply_gateway(shards={"count": 8, "perPod": 1})
    found = road.wait_condition("TokenValid", "False", seconds=30)
    assert "mybot-token" in found["message"]
    assert road.simulator.identifies() == []
    asked = [request for request in road.simulator.call("GET", "requests") if request["status"] == 401]
    assert 1 <= len(asked) <= 3, "a refused token was asked again and again"
    road.make_secret()
    road.wait_condition("TokenValid", "True", seconds=60)
    road.wait_condition("Ready", "True", seconds=120)
    assert road.simulator.violations() == []


@pytest.mark.timeout(240)
def test_a_wrong_token_that_only_identify_finds_costs_one(make_road: Callable[..., Road]) -> None:
    """Eight pods never try it at once: the canary alone does, and parks until the Secret changes."""
    road = make_road(bot={"guilds": 80, "max_concurrency": 8}, options={"accept_any_rest_token": True})
    head, middle, _ = road.token().split(".")
    road.make_secret(token=f"{head}.{middle}.wrong")
    road.apply_gateway(shards={"count": 8, "perPod": 1})
    road.wait_condition("TokenValid", "False", seconds=60)
    settled = time.monotonic() + 15
    wait_for(
        "fifteen seconds without another try", lambda: time.monotonic() > settled or attempts(road) > 1, seconds=20
    )
    assert attempts(road) == 1
    assert restarts(road) == 0
    wait_for("eight pods run", lambda: phases(road) == ["Running"] * 8, seconds=60)
    assert attempts(road) == 1
    road.make_secret()
    road.wait_condition("Ready", "True", seconds=150)
    assert attempts(road) == 9
    assert [v for v in road.simulator.violations() if v["rule"] != "token"] == []


def phases(road: Road) -> list[str]:
    return [pod["status"]["phase"] for pod in road.pods()]


def attempts(road: Road) -> int:
    return len(road.simulator.identifies())


@pytest.mark.timeout(240)
def test_an_intent_that_is_not_allowed_is_named(make_road: Callable[..., Road]) -> None:
    """4014: `IntentsAllowed=False` with the intents; one identify; taking the intent away heals it."""
    road = make_road(bot={"guilds": 20, "max_concurrency": 2, "privileged_intents": []})
    road.make_secret()
    road.apply_gateway(shards={"count": 2, "perPod": 1}, intents=["GUILDS", "GUILD_MEMBERS"])
    found = road.wait_condition("IntentsAllowed", "False", seconds=60)
    assert "GUILD_MEMBERS" in found["message"]
    assert "GUILDS," not in found["message"]
    assert attempts(road) == 1
    assert restarts(road) == 0
    road.apply_gateway(shards={"count": 2, "perPod": 1}, intents=["GUILDS"])
    road.wait_condition("Ready", "True", seconds=150)
    assert attempts(road) == 3


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("bot", "code"), [({"large_multiple": 16}, "4010"), ({"guilds": 10_000, "guild_bytes": 300}, "4011")]
)
def test_a_shard_count_that_discord_refuses_is_named(
    make_road: Callable[..., Road], bot: dict[str, Any], code: str
) -> None:
    """4010 and 4011 park the range, and the message says what to do."""
    road = make_road(bot={"guilds": 20, **bot})
    road.make_secret()
    road.apply_gateway(shards={"count": 2, "perPod": 2})
    wait_for("the code is named", lambda: code in road.condition("Ready").get("message", ""), seconds=60)
    assert road.condition("Ready")["status"] == "False"
    assert attempts(road) == 1
    assert restarts(road) == 0


@pytest.mark.timeout(240)
def test_a_missing_stream_is_named_and_nothing_identifies_before_it_is_there(make_road: Callable[..., Road]) -> None:
    """`SinksAvailable=False` names the stream; no identify before the sinks answer."""
    road = make_road(bot={"guilds": 10}, stream=False)
    road.make_secret()
    road.apply_gateway(shards={"count": 1})
    road.wait_condition("SinksAvailable", "False", seconds=60)
    wait_for("the stream is named", lambda: STREAM in road.condition("SinksAvailable")["message"], seconds=30)
    assert attempts(road) == 0
    road.make_stream()
    road.wait_condition("Ready", "True", seconds=90)
    assert attempts(road) == 1


@pytest.mark.timeout(480)
def test_a_crash_loop_before_ready_spends_no_more_than_was_granted(make_road: Callable[..., Road]) -> None:
    """The container dies again and again before READY: identifies stay within the grants."""
    seconds = float(os.environ.get("SHARDWRIGHT_CRASH_LOOP_SECONDS", "60"))
    road = make_road(bot={"guilds": 20, "max_concurrency": 2})
    road.simulator.call("POST", "faults", {"action": "hold-answer", "at": "identify", "times": 0})
    road.make_secret()
    road.apply_gateway(shards={"count": 2, "perPod": 2})
    end = time.monotonic() + seconds
    wait_for("the first identify", lambda: attempts(road), seconds=60)
    kills = 0
    while time.monotonic() < end:
        kills += kill_shards()
        wait_for("another try, or the end", lambda: shard_processes() or time.monotonic() > end, seconds=seconds + 30)
    granted = sum(found["spec"].get("identifyGrant", 0) for found in road.ranges())
    print(f"\n{kills} kills in {seconds:g} s: granted {granted}, identified {attempts(road)}")
    assert kills >= 2
    assert attempts(road) <= granted
    assert granted <= 4, "the operator goes on granting to a range that never becomes ready"


def shard_processes() -> list[int]:
    found = subprocess.run(
        ["pgrep", "-f", "/opt/shardwright/bin/python -m shardwright_shard"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]


def kill_shards() -> int:
    pids = shard_processes()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)


@pytest.mark.timeout(240)
def test_the_token_stands_nowhere_but_in_its_secret(make_road: Callable[..., Road]) -> None:
    """Not in any object, log, metric, environment or process list; also after it was refused."""
    road = make_road(bot={"guilds": 20, "max_concurrency": 2})
    road.make_secret()
    road.apply_gateway(shards={"count": 2, "perPod": 1})
    road.wait_condition("Ready", "True", seconds=90)
    secret = road.token().split(".")[2]
    kinds = "dgw,sr,pods,leases,events,configmaps,roles,rolebindings,serviceaccounts,poddisruptionbudgets"
    places = {
        "objects": json.dumps(road.cluster.items("-n", road.namespace, kinds)),
        "operator": json.dumps(road.cluster.items("-n", OPERATOR_NAMESPACE, "pods,configmaps,events")),
        "logs": road.logs(),
        "processes": processes(),
        **{f"metrics of {pod['metadata']['name']}": metrics(road, pod) for pod in road.pods()},
    }
    assert [place for place, text in places.items() if secret in text] == []
    assert all(places.values())


def metrics(road: Road, pod: dict[str, Any]) -> str:
    path = f"/api/v1/namespaces/{road.namespace}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
    return road.cluster.kubectl("get", "--raw", path)


def processes() -> str:
    """Give arguments and environment of every process on the machine but this one's."""
    texts = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            for name in ("cmdline", "environ"):
                try:
                    texts.append((folder / name).read_bytes().decode(errors="replace"))
                except OSError:
                    continue
    return "\n".join(texts)
