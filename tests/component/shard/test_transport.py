"""TLS to the gateway, with a certificate authority of the test's own."""

import datetime as dt
import ssl
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from component.shard.stage import stays, until
from shardwright_simulator import Action, Fault


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(subject, key, *, issuer, signer, extension):
    """Sign a certificate for a day."""
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder(name(issuer), name(subject), key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(hours=1))
    builder = builder.not_valid_after(now + dt.timedelta(days=1))
    return builder.add_extension(extension, critical=True).sign(signer, hashes.SHA256())


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """Give a server's TLS context for 127.0.0.1, and the file of the authority that signed it."""
    folder = tmp_path_factory.mktemp("tls")
    root, leaf = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    ca = certificate("test root", root, issuer="test root", signer=root, extension=constraints)
    server = certificate("simulator", leaf, issuer="test root", signer=root, extension=address)
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "ca.pem").write_bytes(ca.public_bytes(pem))
    (folder / "server.pem").write_bytes(
        server.public_bytes(pem) + leaf.private_bytes(pem, pkcs8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context, folder / "ca.pem"


@pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])
async def test_everything_works_over_tls(open_stage, authority, compression):
    """Start, load, large events and every way to lose a connection, over wss:// with the authority's root."""
    context, root = authority
    stage = await open_stage(shards=4, compression=compression, tls=context)
    pod = await stage.started(tls=ssl.create_default_context(cafile=root))
    stage.load(600, rate=1500)
    stage.load(3, mix={"GUILD_UPDATE": 1}, sizes=[(3_000_000, 1)])
    await stage.sim.wait_for(lambda: stage.control.state().ledger.last > 300)
    for shard, action in enumerate((Action.RECONNECT, Action.ABORT, Action.CUT, Action.CLOSE)):
        stage.control.add_fault(Fault(action=action, shards=[shard]))
    await until(lambda: pod.count("resumed") == 4)
    await stage.arrived()
    assert pod.count("identifies") == 4


async def test_an_unknown_certificate_is_not_trusted(open_stage, authority):
    """Without the root nothing is said to whoever answers there: no handshake, no token, and the reason is shown."""
    stage = await open_stage(tls=authority[0])
    pod = stage.start(grant=1)
    await until(lambda: pod.pod.shards and "CERTIFICATE_VERIFY_FAILED" in pod.message())
    await stays(lambda: not stage.control.connections(), seconds=0.3)
    assert stage.status().identifies_spent == 0


async def test_a_pause_works_over_tls(open_stage, authority):
    """At the memory limit reading pauses over TLS as well, and goes on where it stopped."""
    stage = await open_stage(tls=authority[0])
    pod = await stage.started(tls=ssl.create_default_context(cafile=authority[1]), memory_limit=100_000)
    await stage.arrived()
    pod.sink.hold()
    stage.load(800, rate=8000, sizes=[(2_000, 1)])
    await until(lambda: pod.pod.journal.full)
    await stays(lambda: pod.pod.journal.size < 1_000_000, seconds=0.3)
    pod.sink.release()
    await stage.arrived()
    assert pod.count("resumes") == 0
