"""A websocket server that does what a test's script says, byte by byte where it matters."""

import asyncio
import contextlib
import ipaddress
import ssl
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from websockets.frames import Close, Frame, Opcode
from websockets.server import ServerProtocol

from unit.shard.wire import frame


def certificate(folder):
    """A server's and a client's context that trust each other, for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - timedelta(hours=1))
    builder = builder.not_valid_after(now + timedelta(hours=1)).add_extension(address, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "cert.pem").write_bytes(pem)
    (folder / "key.pem").write_bytes(key.private_bytes(*form))
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer
        self.protocol = ServerProtocol()
        self.request = None
        self.frames = []

    async def greeting(self):
        """Read the request, and give the answer that accepts it, not yet sent."""
        while self.request is None:
            self.protocol.receive_data(await self._read())
            self.request = next(iter(self.protocol.events_received()), None)
        self.protocol.send_response(self.protocol.accept(self.request))
        return b"".join(self.protocol.data_to_send())

    async def accept(self):
        self.writer.write(await self.greeting())

    async def send(self, *messages):
        self.writer.write(b"".join(frame(message) for message in messages))
        await self.writer.drain()

    def send_close(self, code, reason=""):
        self.writer.write(frame(Close(code, reason).serialize(), Opcode.CLOSE))

    def abort(self):
        self.writer.transport.abort()

    async def receive(self, opcode):
        """Read until a frame of this kind comes."""
        while True:
            found = next((each for each in self.frames if each.opcode is opcode), None)
            if found is not None:
                self.frames.remove(found)
                return found
            self.protocol.receive_data(await self._read())
            self.frames += [event for event in self.protocol.events_received() if isinstance(event, Frame)]

    async def close_code(self):
        """Read until the client's close frame, and give its code."""
        return Close.parse((await self.receive(Opcode.CLOSE)).data).code

    async def until_closed(self):
        """Read until the client has ended the TCP connection."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    async def _read(self):
        data = await self.reader.read(65536)
        if not data:
            raise ConnectionResetError("the client has gone")
        return data


class Server:
    """Runs `script(peer)` for each connection; leaving it raises what a script raised."""

    def __init__(self, script, *, tls=None):
        self.script, self.tls = script, tls
        self.tasks = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        port = self.server.sockets[0].getsockname()[1]
        self.url = f"{'ws' if self.tls is None else 'wss'}://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *exc_info):
        self.server.close()
        async with asyncio.timeout(10):
            await asyncio.gather(*self.tasks)

    async def _serve(self, reader, writer):
        self.tasks.append(asyncio.current_task())
        try:
            await self.script(Peer(reader, writer))
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()
