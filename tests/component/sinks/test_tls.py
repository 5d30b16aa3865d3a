"""Every sink by TLS: the server's issuer and our own certificate come from a Secret, read again at each connect."""

from __future__ import annotations

import shutil

import pytest

from component.sinks.certificates import Authority
from component.sinks.kinds import KINDS, HttpBatched
from component.sinks.stage import Stage
from component.sinks.test_conformance import assert_kept
from shardwright_api import resources

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=[kind for kind in KINDS if kind is not HttpBatched], ids=lambda kind: kind.name)
def kind(request, tmp_path):
    program = request.getfixturevalue(f"{request.param.name}_program") if request.param.needs_program else None
    made = request.param(program, tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def authority():
    return Authority()


async def test_a_server_that_asks_for_our_certificate_gets_it_once_the_secret_has_it(kind, authority, tmp_path):
    """With another issuer in the Secret the server is refused; with the right one all goes through."""
    server = authority.issue(tmp_path / "server")
    await kind.start_with_tls(server)
    folder = tmp_path / "events" / "tls"
    Authority().issue(folder)
    chosen = kind.sink(secrets=tmp_path, credentials_secret_ref=None, tls_secret_ref=resources.SecretRef("any"))
    async with Stage(chosen) as stage:
        stage.append_messages(20)
        await stage.away("verif")
        print(f"{kind.name}: {stage.sink.message}")
        assert stage.source.acked is None
        shutil.rmtree(folder)
        authority.issue(folder)
        await stage.settled(within=60)
        await stage.available()
    assert_kept(stage, await kind.stored())
