"""A simulator on a real port, and a plain websocket client for it."""

import asyncio
import datetime as dt
import ipaddress
import json
import ssl
import zlib
from contextlib import asynccontextmanager

import pytest
from backports.zstd import ZstdDecompressor
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import connect

USER_AGENT = "DiscordBot (https://example.invalid, 1.0)"
WAIT = 20.0


class GatewayClient:
    """A websocket, read as a gateway connection."""

    def __init__(self, socket, compression):
        self.socket = socket
        decoders = {"": None, "zlib-stream": zlib.decompressobj, "zstd-stream": ZstdDecompressor}
        make = decoders[compression]
        self.decoder = make() if make else None
        self.session = ""
        self.resume_url = ""

    async def receive_raw(self):
        data = await asyncio.wait_for(self.socket.recv(decode=False), WAIT)
        return self.decoder.decompress(data) if self.decoder else data

    async def receive(self):
        return json.loads(await self.receive_raw())

    async def until(self, t):
        """Read up to the event `t`; return all read."""
        read = [await self.receive()]
        while read[-1]["t"] != t:
            read.append(await self.receive())
        return read

    async def send(self, op, d=None):
        await self.socket.send(json.dumps({"op": op, "d": d}))

    async def identify(self, sim, number=0, total=1, intents=513, **more):
        hello = await self.receive()
        assert hello["op"] == 10
        d = {"token": sim.token, "properties": {}, "intents": intents, "shard": [number, total]}
        await self.send(2, d | more)
        ready = (await self.until("READY"))[-1]["d"]
        self.session, self.resume_url = ready["session_id"], ready["resume_gateway_url"]
        return ready

    async def resume(self, sim, session, seq):
        assert (await self.receive())["op"] == 10
        await self.send(6, {"token": sim.token, "session_id": session, "seq": seq})

    async def closed(self):
        """Wait for the end; return the close code."""
        await asyncio.wait_for(self.socket.wait_closed(), WAIT)
        return self.socket.close_code


@pytest.fixture
def open_client():
    @asynccontextmanager
    async def opener(url, compression="", tls=None):
        query = "/?v=10&encoding=json" + (f"&compress={compression}" if compression else "")
        options = {
            "compression": None,
            "max_size": None,
            "ping_interval": None,
            "max_queue": None,
            "user_agent_header": USER_AGENT,
            "proxy": None,
        }
        async with connect(url + query, ssl=tls, close_timeout=2, **options) as socket:
            yield GatewayClient(socket, compression)

    return opener


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1: its file, its key's file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "simulator")])
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - day, now + day)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    folder = tmp_path_factory.mktemp("tls")
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return cert_file, key_file


@pytest.fixture
def client_tls(certificate):
    return ssl.create_default_context(cafile=certificate[0])
