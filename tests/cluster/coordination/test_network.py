"""The network between pod and API server, and the pod's rights, as they fail."""

import asyncio
import time

import pytest

from shardwright_shard.coordination import api_client
from shardwright_shard.errors import CoordinatorUnavailable
from unit.shard.coordination.contract import ROW, SINK, holder, sees

pytestmark = pytest.mark.cluster


async def test_a_silent_network_fails_requests_within_seconds(stage):
    coordinator = await holder(stage, "a")
    stage.proxies["a"].silence()
    began = time.monotonic()
    with pytest.raises(CoordinatorUnavailable):
        await coordinator.report([ROW], [SINK])
    assert time.monotonic() - began < api_client.REQUEST_SECONDS + 1
    assert coordinator.view.holding
    stage.proxies["a"].sound()
    await coordinator.report([ROW], [SINK])


async def test_a_watch_that_fell_silent_is_opened_anew_and_misses_nothing(stage, monkeypatch):
    monkeypatch.setattr(api_client, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(api_client, "REQUEST_SECONDS", 1.0)
    coordinator = await holder(stage, "a")
    await asyncio.sleep(0.2)
    stage.proxies["a"].silence()
    await stage.change(hold=True)
    await asyncio.sleep(3)
    assert not coordinator.view.spec.hold
    stage.proxies["a"].sound()
    await sees(coordinator, lambda: coordinator.view.spec.hold)


async def test_while_the_api_server_is_away_it_is_asked_seldom(stage, caplog):
    coordinator = await stage.coordinator("a")
    await asyncio.sleep(0.2)
    stage.cut("a")
    await asyncio.sleep(5)
    assert 2 < caplog.text.count("cannot be watched") < 15
    stage.restore()
    await stage.change(hold=True)
    await sees(coordinator, lambda: coordinator.view.spec.hold)


async def test_a_new_token_in_the_file_is_taken_when_the_old_one_is_refused(stage):
    good = stage.token_file.read_text()
    stage.token_file.write_text("nonsense")
    coordinator = await stage.coordinator("a", start=False)
    with pytest.raises(CoordinatorUnavailable, match="401"):
        await coordinator.start()
    stage.token_file.write_text(good)
    await coordinator.start()


async def test_without_rights_the_gateway_counts_as_gone_and_all_else_may_be_tried_again(stage):
    coordinator = await holder(stage, "a")
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{stage.namespace}/roles/pods"
    await stage.admin("PUT", roles, {"metadata": {"name": "pods"}, "rules": []})
    await asyncio.sleep(1)
    assert await coordinator.gateway_gone()
    with pytest.raises(CoordinatorUnavailable, match="403"):
        await coordinator.report([ROW], [SINK])
    with pytest.raises(CoordinatorUnavailable, match="403"):
        await coordinator.holds()


async def test_a_pod_may_do_nothing_but_its_own(stage):
    client = await stage.client("a")
    try:
        for path in (stage.ranges, stage.leases, stage.gateways, f"{stage.ranges}/mybot-4-4-7"):
            with pytest.raises(api_client.Forbidden):
                await client.get(path, dict)
        with pytest.raises(api_client.Forbidden):
            await client.patch(stage.range_path, dict, {"spec": {}}, api_client.PatchType.MERGE)
    finally:
        await client.close()
