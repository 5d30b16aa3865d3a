"""How the NATS sink logs in: by each key that its Secret may have."""

from __future__ import annotations

import base64
import binascii
import json
import time
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from component.sinks.stage import BOT, QUICK, Stage
from shardwright_api import resources
from shardwright_shard.sinks.factory import make_sink

PREFIXES = {"O": 14, "A": 0, "U": 20}
TOKEN = "s3cr3t-t0ken"


def checked(data):
    return base64.b32encode(data + binascii.crc_hqx(data, 0).to_bytes(2, "little")).decode().rstrip("=")


class Key:
    """A key pair as `nk` makes them."""

    def __init__(self, kind):
        self.private = Ed25519PrivateKey.generate()
        prefix = PREFIXES[kind] << 3
        self.public = checked(bytes([prefix]) + self.private.public_key().public_bytes_raw())
        first, second = (18 << 3) | (prefix >> 5), (prefix & 31) << 3
        self.seed = checked(bytes([first, second]) + self.private.private_bytes_raw())

    def jwt(self, subject, kind, **claims):
        """Sign a JWT about `subject` as `nsc` does."""
        about = {"jti": "x", "iat": int(time.time()), "iss": self.public, "sub": subject.public, "name": kind}
        about["nats"] = {"type": kind, "version": 2, **claims}
        parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, about]
        text = ".".join(encoded(json.dumps(part).encode()) for part in parts)
        return f"{text}.{encoded(self.private.sign(text.encode()))}"


def encoded(raw):
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@pytest.fixture
def secret(tmp_path):
    folder = tmp_path / "events" / "credentials"
    folder.mkdir(parents=True)
    return folder


def sink(server, tmp_path):
    nats = resources.NatsSink(url=server.url)
    spec = resources.Sink(name="events", nats=nats, credentials_secret_ref=resources.SecretRef("any"))
    return make_sink(spec, bot=BOT, random=Random(), limits=QUICK, secrets=tmp_path)


async def assert_told_until(stage, secret, key, text, words):
    """Check that a wrong key is told without a secret, and that the right one is found without a new start."""
    stage.append_messages(5)
    await stage.away(words)
    print(stage.sink.message)
    assert not any(part in stage.sink.message for part in text.split())
    (secret / key).write_text(text)
    await stage.settled()
    assert stage.sink.available


async def test_by_a_token(make_server, tmp_path, secret):
    server = await make_server().start(authorization={"token": TOKEN})
    (secret / "token").write_text("wrong")
    async with Stage(sink(server, tmp_path)) as stage:
        await assert_told_until(stage, secret, "token", TOKEN, "Authorization Violation")


async def test_by_an_nkey(make_server, tmp_path, secret):
    key = Key("U")
    server = await make_server().start(authorization={"users": [{"nkey": key.public}]})
    (secret / "nkey").write_text(Key("U").seed)
    async with Stage(sink(server, tmp_path)) as stage:
        await assert_told_until(stage, secret, "nkey", key.seed, "Authorization Violation")


async def test_by_a_file_of_credentials(make_server, tmp_path, secret):
    operator, account, user = Key("O"), Key("A"), Key("U")
    limits = {"subs": -1, "data": -1, "payload": -1}
    unlimited = {"conn": -1, "leaf": -1, "imports": -1, "exports": -1, "wildcards": True}
    server = await make_server().start(
        operator=operator.jwt(operator, "operator"),
        resolver="MEMORY",
        resolver_preload={account.public: operator.jwt(account, "account", limits={**limits, **unlimited})},
        jetstream=False,
    )
    jwt = account.jwt(user, "user", **limits)
    (secret / "creds").write_text(creds(jwt, Key("U").seed))
    async with Stage(sink(server, tmp_path)) as stage:
        await assert_told_until(stage, secret, "creds", creds(jwt, user.seed), "Authorization Violation")


@pytest.mark.parametrize(
    "case",
    [
        ("nkey", "SUAXXXX", "no seed of a NATS user"),
        ("nkey", "not base32!", "no seed of a NATS user"),
        ("creds", "nothing in it", "no file of NATS credentials"),
        ("username", "shard", "no key username or no key password"),
    ],
)
async def test_a_secret_that_does_not_fit_is_told_without_what_it_holds(make_server, tmp_path, secret, case):
    key, text, words = case
    server = await make_server().start(authorization={"users": [{"nkey": Key("U").public}]})
    (secret / key).write_text(text)
    async with Stage(sink(server, tmp_path)) as stage:
        await stage.away(words)
        assert text not in stage.sink.message


def creds(jwt, seed):
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
