"""Secrets of sinks as volumes of a pod."""

from __future__ import annotations

from shardwright_api import names
from shardwright_api.resources import NatsSink, SecretRef, Sink
from shardwright_operator import sink_secrets

NATS = NatsSink("tls://nats:4222")
SINKS = (
    Sink("events", nats=NATS, credentials_secret_ref=SecretRef("nats-login"), tls_secret_ref=SecretRef("nats-tls")),
    Sink("audit", nats=NATS, tls_secret_ref=SecretRef("nats-tls")),
    Sink("open", nats=NATS),
)


def test_each_secret_of_each_sink_is_mounted_whole_where_the_pod_looks_for_it():
    assert [mount["mountPath"] for mount in sink_secrets.mounts(SINKS)] == [
        f"{names.SINKS_DIR}/events/credentials",
        f"{names.SINKS_DIR}/events/tls",
        f"{names.SINKS_DIR}/audit/tls",
    ]
    assert all(mount["readOnly"] and "subPath" not in mount for mount in sink_secrets.mounts(SINKS))


def test_a_missing_secret_does_not_keep_the_pod_from_starting():
    volumes = {volume["name"]: volume["secret"] for volume in sink_secrets.volumes(SINKS)}
    assert volumes["sink-audit-tls"] == {"secretName": "nats-tls", "defaultMode": 0o440, "optional": True}
    assert [mount["name"] for mount in sink_secrets.mounts(SINKS)] == list(volumes)
    assert all(len(name) <= 63 for name in volumes)
