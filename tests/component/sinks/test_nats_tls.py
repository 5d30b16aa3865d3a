"""The NATS sink over TLS."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from component.sinks.nats_stage import Stage


@pytest.fixture
def certificate(tmp_path):
    """Make a self-signed certificate for localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject_name=name, issuer_name=name, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}


@pytest.mark.parametrize("scheme", ["tls", "nats"])
async def test_events_go_over_tls_where_scheme_or_server_want_it(make_server, certificate, scheme):
    server = await make_server().start(tls=certificate)
    trusted = ssl.create_default_context(cafile=certificate["cert_file"])
    async with Stage(f"{scheme}://localhost:{server.port}", stream=None, tls=trusted) as stage:
        for _ in range(100):
            stage.append_messages(20, size=1000)
        await stage.settled()
        assert stage.sink.available


async def test_a_server_that_nobody_vouches_for_is_refused(make_server, certificate):
    server = await make_server().start(tls=certificate)
    async with Stage(f"tls://localhost:{server.port}", stream=None) as stage:
        await stage.away("CERTIFICATE_VERIFY_FAILED")


async def test_tls_is_never_given_up_where_the_url_wants_it(nats_server):
    """A server without TLS must not get a word of ours in the clear."""
    async with Stage(f"tls://localhost:{nats_server.port}", stream=None) as stage:
        stage.append_messages(1)
        await stage.away("the server offers no TLS")
        assert stage.source.acked is None
