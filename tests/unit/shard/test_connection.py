"""One websocket against a real socket: in the clear and over TLS, on both event loops."""

import asyncio
import ssl

import pytest
from websockets.frames import Opcode

from shardwright_api.discord import USER_AGENT
from shardwright_api.resources import Compression
from shardwright_shard import connection as module
from shardwright_shard.connection import Connection, connect, gateway_uri
from shardwright_shard.errors import GatewayProtocolError, TooLarge, Unreadable
from unit.shard.websocket_server import Server, certificate
from unit.shard.wire import Compressor, frame

pytestmark = pytest.mark.timeout(15)

HELLO = b'{"op":10}'


class Recorder:
    """Writes down what it hears; `on_messages` and `on_unreadable` may act."""

    def __init__(self):
        self.connection = None
        self.heard = []
        self.received = []
        self.over = asyncio.get_running_loop().create_future()
        self.some = asyncio.Event()
        self.on_opened = self.on_messages = self.on_unreadable = lambda: None

    def made(self, connection):
        self.heard.append("made")
        self.connection = connection

    def opened(self):
        self.heard.append("opened")
        self.on_opened()

    def messages(self, messages):
        self.heard.append("messages")
        self.received += messages
        self.some.set()
        self.on_messages()

    def unreadable(self, error):
        self.heard.append("unreadable")
        self.error = error
        self.on_unreadable()

    def lost(self, code, reason):
        self.heard.append("lost")
        self.reason = reason
        self.over.set_result(code)

    async def until_received(self, count):
        while len(self.received) < count:
            self.some.clear()
            await self.some.wait()

    @property
    def kinds(self):
        """What was heard, runs of messages as one."""
        return [kind for index, kind in enumerate(self.heard) if self.heard[index - 1 : index] != [kind]]


@pytest.fixture(scope="module")
def contexts(tmp_path_factory):
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=["plain", "tls"])
def tls(request, contexts):
    return contexts if request.param == "tls" else (None, None)


@pytest.fixture(autouse=True)
async def _nothing_unheard():
    """An exception that nobody took fails its test."""
    unheard = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unheard.append(context))
    yield
    assert unheard == []


@pytest.fixture
def short_linger(monkeypatch):
    monkeypatch.setattr(module, "LINGER", 0.05)


@pytest.fixture
def long_linger(monkeypatch):
    """For a machine that is slow at moving megabytes."""
    monkeypatch.setattr(module, "LINGER", 10.0)


@pytest.fixture
async def recorder():
    return Recorder()


def serve(script, tls):
    return Server(script, tls=tls[0])


async def open_connection(server, recorder, tls, *, compression=Compression.NONE):
    return await connect(gateway_uri(server.url, compression), compression, recorder, tls=tls[1])


# --- the opening handshake --------------------------------------------------------------------------------------------


async def test_the_handshake_names_the_program_and_asks_as_discord_wants_it(recorder, tls):
    requests = []

    async def script(peer):
        await peer.accept()
        requests.append(peer.request)
        peer.send_close(4000)
        await peer.until_closed()

    async with serve(script, tls) as server:
        await open_connection(server, recorder, tls, compression=Compression.ZSTD)
        await recorder.over
    (request,) = requests
    assert request.headers["User-Agent"] == USER_AGENT
    assert request.path == "/?v=10&encoding=json&compress=zstd-stream"
    assert "Sec-WebSocket-Extensions" not in request.headers, "permessage-deflate is not Discord's"


@pytest.mark.parametrize("pieces", [1, 2, 1000])
async def test_messages_in_the_same_read_as_the_handshake_are_not_lost(recorder, tls, pieces):
    async def script(peer):
        data = await peer.greeting() + frame(HELLO) + frame(b"two")
        size = -(-len(data) // pieces)
        for start in range(0, len(data), size):
            peer.writer.write(data[start : start + size])
            await peer.writer.drain()
        await recorder.until_received(2)

    async with serve(script, tls) as server:
        await open_connection(server, recorder, tls)
        await recorder.over
    assert recorder.received == [HELLO, b"two"]
    assert recorder.kinds == ["made", "opened", "messages", "lost"]


@pytest.mark.parametrize("status", ["429 Too Many Requests", "403 Forbidden", "502 Bad Gateway", "200 OK"])
async def test_a_refused_handshake_is_a_loss_that_says_why(recorder, tls, status):
    async def script(peer):
        await peer.greeting()
        body = b"error code: 1015"
        peer.writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await peer.until_closed()

    async with serve(script, tls) as server:
        connection = await open_connection(server, recorder, tls)
        assert await recorder.over is None
        await connection.ended
    assert recorder.heard == ["made", "lost"]
    assert status.split()[0] in recorder.reason


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"X" * 200_000,
    ],
)
async def test_what_is_no_handshake_is_a_loss(recorder, tls, answer):
    async def script(peer):
        await peer.greeting()
        peer.writer.write(answer)
        await peer.until_closed()

    async with serve(script, tls) as server:
        connection = await open_connection(server, recorder, tls)
        assert await recorder.over is None
        await connection.ended
    assert recorder.heard == ["made", "lost"]


async def test_a_server_that_hangs_up_during_the_handshake_is_a_loss(recorder, tls):
    async def script(peer):
        await peer.greeting()

    async with serve(script, tls) as server:
        await open_connection(server, recorder, tls)
        assert await recorder.over is None
    assert recorder.heard == ["made", "lost"]


# --- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(4004, "Authentication failed."), (1000, ""), (1001, "bye"), (4999, "")])
async def test_the_servers_close_code_is_told_after_its_last_messages(recorder, tls, code, reason):
    async def script(peer):
        await peer.accept()
        await peer.send(HELLO, b"last")
        peer.send_close(code, reason)
        assert await peer.close_code() == code, "the close frame is echoed"
        await peer.until_closed()

    async with serve(script, tls) as server:
        connection = await open_connection(server, recorder, tls)
        assert await recorder.over == code
        await connection.ended
    assert recorder.reason == reason
    assert recorder.received == [HELLO, b"last"]
    assert recorder.kinds == ["made", "opened", "messages", "lost"]


async def test_a_close_frame_without_a_code_is_none(recorder, tls):
    async def script(peer):
        await peer.accept()
        peer.writer.write(frame(b"", Opcode.CLOSE))
        await peer.until_closed()

    async with serve(script, tls) as server:
        await open_connection(server, recorder, tls)
        assert await recorder.over is None


async def test_an_abrupt_cut_is_none(recorder, tls):
    async def script(peer):
        await peer.accept()
        await peer.send(HELLO)
        peer.writer.write(frame(b"half a frame")[:7])
        await recorder.until_received(1)
        peer.abort()

    async with serve(script, tls) as server:
        connection = await open_connection(server, recorder, tls)
        assert await recorder.over is None
        await connection.ended
    assert recorder.received == [HELLO]
    assert recorder.heard.count("lost") == 1


@pytest.mark.usefixtures("short_linger")
async def test_a_server_that_stays_after_its_close_frame_is_not_waited_for(recorder, tls):
    """TLS would wait half a minute for the peer's part, and the shard for its reconnect."""
    done = asyncio.Event()

    async def script(peer):
        await peer.accept()
        peer.writer.transport.pause_reading()
        peer.send_close(4000)
        await done.wait()
        peer.abort()

    async with serve(script, tls) as server:
        connection = await open_connection(server, recorder, tls)
        assert await recorder.over == 4000
        async with asyncio.timeout(2):
            await connection.ended
        done.set()


# --- how we end it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [4000, 1000])
async def test_our_close_code_reaches_the_server_and_nothing_is_heard_any_more(recorder, tls, code):
    seen = []

    async def script(peer):
        await peer.accept()
        await peer.send(HELLO)
        seen.append(await peer.close_code())
        await peer.send(b"too late")
        peer.send_close(code)

    async with serve(script, tls) as server:
        connection = await open_connection(server, recorder, tls)
        await recorder.until_received(1)
        connection.close(code)
        await connection.ended
    assert seen == [code]
    assert recorder.received == [HELLO]
    assert recorder.heard == ["made", "opened", "messages"]


@pytest.mark.usefixtures("long_linger")
@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("code", [4000, 1000])
async def test_the_server_sees_our_close_frame_while_it_is_flooding(recorder, tls, code, paused):
    """A socket closed with unread data is reset, and the frame may be lost with it: so it is read and forgotten."""
    seen = []

    async def script(peer):
        await peer.accept()
        flood = asyncio.create_task(pour(peer))
        seen.append(await peer.close_code())
        flood.cancel()

    async def pour(peer):
        while True:
            await peer.send(bytes(60_000))

    async with serve(script, tls) as server:
        connection = await open_connection(server, recorder, tls)
        await recorder.until_received(5)
        if paused:
            connection.pause_reading()
        connection.close(code)
        await connection.ended
    assert seen == [code]
    assert "lost" not in recorder.heard


@pytest.mark.usefixtures("long_linger")
@pytest.mark.parametrize("paused", [False, True])
async def test_a_server_that_reads_only_when_it_has_written_everything_sees_our_close_frame(recorder, tls, paused):
    seen = []

    async def script(peer):
        await peer.accept()
        peer.writer.transport.pause_reading()
        for _ in range(60):
            await peer.send(bytes(100_000))
        peer.writer.transport.resume_reading()
        seen.append(await peer.close_code())

    def close():
        if paused:
            recorder.connection.pause_reading()
        recorder.connection.close(4000)

    async with serve(script, tls) as server:
        recorder.on_messages = close
        connection = await open_connection(server, recorder, tls)
        await connection.ended
    assert seen == [4000]


@pytest.mark.usefixtures("short_linger")
async def test_a_server_that_ignores_our_close_is_cut_off(recorder, tls):
    async def script(peer):
        await peer.accept()
        await peer.send(HELLO)
        await peer.until_closed()

    async with serve(script, tls) as server:
        connection = await open_connection(server, recorder, tls)
        await recorder.until_received(1)
        connection.close(4000)
        async with asyncio.timeout(2):
            await connection.ended
    assert recorder.heard == ["made", "opened", "messages"]


async def test_a_close_before_the_handshake_is_over_drops_the_socket(recorder, tls):
    async def script(peer):
        await peer.greeting()
        await peer.until_closed()

    async with serve(script, tls) as server:
        connection = await open_connection(server, recorder, tls)
        connection.close(4000)
        await connection.ended
    assert recorder.heard == ["made"]


@pytest.mark.parametrize("moment", ["on_opened", "on_messages"])
async def test_a_close_from_within_a_callback_silences_the_rest_of_the_read(recorder, tls, moment):
    seen = []

    async def script(peer):
        peer.writer.write(await peer.greeting() + frame(HELLO))
        seen.append(await peer.close_code())
        peer.writer.write(frame(b"more"))

    async with serve(script, tls) as server:
        setattr(recorder, moment, lambda: recorder.connection.close(4000))
        connection = await open_connection(server, recorder, tls)
        await connection.ended
    assert seen == [4000]
    assert "lost" not in recorder.heard
    assert recorder.received == ([] if moment == "on_opened" else [HELLO])


async def test_closing_twice_sending_and_aborting_afterwards_are_harmless(recorder, tls):
    async def script(peer):
        await peer.accept()
        await peer.send(HELLO)
        assert await peer.close_code() == 4000

    async with serve(script, tls) as server:
        connection = await open_connection(server, recorder, tls)
        await recorder.until_received(1)
        connection.close(4000)
        connection.close(1000)
        connection.send(b"late")
        await connection.ended
        connection.send(b"later")
        connection.abort()
        connection.pause_reading()
        connection.resume_reading()
        connection.close(4000)


async def test_an_abandoned_connection_is_silent(recorder, tls):
    async def script(peer):
        await peer.accept()
        await peer.send(HELLO)
        await peer.until_closed()

    async with serve(script, tls) as server:
        connection = await open_connection(server, recorder, tls)
        await recorder.until_received(1)
        connection.abandon()
        await connection.ended
    assert "lost" not in recorder.heard


# --- messages ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", list(Compression))
async def test_messages_of_all_sizes_arrive_whole_and_in_order(recorder, tls, compression):
    messages = [HELLO, b"x" * 125, b"y" * 126, b"z" * 65_536, bytes(range(256)) * 12_000, b"end"]

    async def script(peer):
        await peer.accept()
        compress = Compressor(compression)
        for message in messages:
            await peer.send(compress(message))
        await recorder.until_received(len(messages))

    async with serve(script, tls) as server:
        connection = await open_connection(server, recorder, tls, compression=compression)
        await recorder.over
    assert recorder.received == messages
    assert connection.inflater.inflated == sum(map(len, messages))


async def test_connections_that_share_the_buffer_do_not_mix(tls):
    async def script(peer):
        await peer.accept()
        number = (await peer.receive(Opcode.TEXT)).data
        for _ in range(200):
            piece = frame(number * 1000)
            peer.writer.write(piece[:700])
            await asyncio.sleep(0)
            peer.writer.write(piece[700:])
            await peer.writer.drain()
        peer.send_close(4000)
        await peer.until_closed()

    async with serve(script, tls) as server:
        recorders = [Recorder() for _ in range(4)]
        for number, recorder in enumerate(recorders):
            recorder.on_opened = lambda r=recorder, n=number: r.connection.send(b"%d" % n)
            await open_connection(server, recorder, tls)
        await asyncio.gather(*(recorder.over for recorder in recorders))
    for number, recorder in enumerate(recorders):
        assert recorder.received == [b"%d" % number * 1000] * 200


async def test_what_we_send_arrives_masked_as_text_and_pings_are_answered(recorder, tls):
    async def script(peer):
        peer.writer.write(await peer.greeting() + frame(b"are you there", Opcode.PING) + frame(HELLO))
        assert (await peer.receive(Opcode.PONG)).data == b"are you there"
        assert (await peer.receive(Opcode.TEXT)).data == b'{"op":1,"d":null}'

    async with serve(script, tls) as server:
        recorder.on_messages = lambda: recorder.connection.send(b'{"op":1,"d":null}')
        await open_connection(server, recorder, tls)
        assert await recorder.over is None


async def test_while_reading_is_paused_nothing_comes_and_afterwards_nothing_is_missing(recorder, tls):
    messages = [b"%d " % number * 2000 for number in range(400)]
    heard_while_paused = []

    def pause():
        if len(recorder.received) < 400 and not heard_while_paused:
            recorder.connection.pause_reading()
            recorder.connection.pause_reading()
            heard_while_paused.append(len(recorder.received))

    async def script(peer):
        await peer.accept()
        for message in messages:
            peer.writer.write(frame(message))
        for _ in range(200):
            await asyncio.sleep(0)
        heard_while_paused.append(len(recorder.received))
        recorder.connection.resume_reading()
        await peer.writer.drain()
        await recorder.until_received(len(messages))

    async with serve(script, tls) as server:
        recorder.on_messages = pause
        await open_connection(server, recorder, tls)
        await recorder.over
    assert recorder.received == messages
    before, after = heard_while_paused
    assert before == after < len(messages)


async def test_what_is_sent_while_reading_is_paused_goes_out(recorder, tls):
    async def script(peer):
        await peer.accept()
        await peer.send(HELLO)
        assert (await peer.receive(Opcode.TEXT)).data == b"beat"

    def beat():
        recorder.connection.pause_reading()
        recorder.connection.send(b"beat")

    async with serve(script, tls) as server:
        recorder.on_messages = beat
        connection = await open_connection(server, recorder, tls)
        await recorder.until_received(1)
        connection.resume_reading()
        await recorder.over


# --- what cannot be read ----------------------------------------------------------------------------------------------

RUBBISH = {
    "not inflatable": (Compression.ZLIB, frame(b"rubbish!\x00\x00\xff\xff"), Unreadable),
    "reserved bits": (Compression.NONE, b"\xf2\x01a", GatewayProtocolError),
    "too large": (Compression.NONE, b"\x82\x7f" + (2**40).to_bytes(8), TooLarge),
}


@pytest.mark.parametrize("kind", RUBBISH)
@pytest.mark.usefixtures("short_linger")
async def test_what_cannot_be_read_is_told_once_after_what_could(recorder, tls, kind):
    compression, rubbish, error = RUBBISH[kind]

    async def script(peer):
        compress = Compressor(compression)
        peer.writer.write(await peer.greeting() + frame(compress(HELLO)) + rubbish + rubbish)
        await peer.until_closed()

    async with serve(script, tls) as server:
        recorder.on_unreadable = lambda: recorder.connection.close(4000)
        connection = await open_connection(server, recorder, tls, compression=compression)
        await connection.ended
    assert recorder.received == [HELLO]
    assert recorder.heard == ["made", "opened", "messages", "unreadable"]
    assert isinstance(recorder.error, error)


@pytest.mark.usefixtures("short_linger")
async def test_the_memory_for_what_one_read_inflates_to_is_bounded(recorder, tls, monkeypatch):
    """Each message is small enough for itself; a bomb of many is cut off, and what was read of it is handed on."""
    monkeypatch.setattr(module, "MAX_READ", 1_000_000)

    async def script(peer):
        compress = Compressor(Compression.ZSTD)
        peer.writer.write(await peer.greeting() + b"".join(frame(compress(bytes(100_000))) for _ in range(100)))
        await peer.until_closed()

    async with serve(script, tls) as server:
        recorder.on_unreadable = lambda: recorder.connection.close(4000)
        connection = await open_connection(server, recorder, tls, compression=Compression.ZSTD)
        await connection.ended
    assert len(recorder.received) == 11
    assert isinstance(recorder.error, TooLarge)


async def test_a_handler_that_does_not_close_after_rubbish_has_it_done_for_it(recorder, tls):
    async def script(peer):
        peer.writer.write(await peer.greeting() + b"\xf2\x01a")
        await peer.until_closed()

    async with serve(script, tls) as server:
        connection = await open_connection(server, recorder, tls)
        assert await recorder.over is None
        await connection.ended
    assert recorder.heard == ["made", "opened", "unreadable", "lost"]


# --- connections that do not come about -------------------------------------------------------------------------------


async def test_nobody_there_is_an_oserror(recorder):
    async with Server(None) as server:
        url = server.url
    with pytest.raises(OSError):  # noqa: PT011 - which one is the system's
        await connect(url, Compression.NONE, recorder, tls=None)
    assert recorder.heard == []


@pytest.mark.parametrize("url", ["", "gateway.example", "https://x/", "wss://", "wss://x:notaport/", "wss://[::1"])
async def test_a_url_that_is_none_is_an_error_of_its_own(recorder, url):
    with pytest.raises(GatewayProtocolError):
        await connect(gateway_uri(url, Compression.ZLIB), Compression.ZLIB, recorder, tls=None)


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example"])
async def test_a_host_name_that_is_none_is_an_error_that_is_expected(recorder, host):
    with pytest.raises((GatewayProtocolError, OSError)):
        await connect(f"ws://{host}/", Compression.NONE, recorder, tls=None)


async def test_a_certificate_that_is_not_trusted_is_an_oserror(recorder, contexts):
    async def script(peer):
        await peer.until_closed()

    async with Server(script, tls=contexts[0]) as server:
        with pytest.raises(OSError):  # noqa: PT011 - ssl.SSLCertVerificationError
            await connect(server.url, Compression.NONE, recorder, tls=ssl.create_default_context())
    assert "opened" not in recorder.heard


async def test_a_server_that_says_nothing_to_tls_is_given_up(recorder, contexts, monkeypatch):
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.05)

    async def script(peer):
        await peer.until_closed()

    async with Server(script) as server:
        with pytest.raises(TimeoutError):
            await connect(server.url.replace("ws:", "wss:"), Compression.NONE, recorder, tls=contexts[1])
    assert recorder.heard == []


async def test_a_connect_that_is_cancelled_is_silent_ever_after(recorder, tls):
    """Even where the socket was there already: its end must not be taken for that of the next connection."""

    async def script(peer):
        await peer.until_closed()

    async with serve(script, tls) as server:
        task = asyncio.create_task(open_connection(server, recorder, tls))
        recorder.made = lambda _connection: task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert "lost" not in recorder.heard


async def test_abort_before_there_is_a_socket_ends_it():
    connection = Connection("ws://x/", Compression.NONE, Recorder())
    connection.abort()
    await connection.ended


@pytest.mark.parametrize(
    ("url", "compression", "uri"),
    [
        ("wss://gateway.discord.gg", Compression.NONE, "wss://gateway.discord.gg/?v=10&encoding=json"),
        ("wss://a/", Compression.ZLIB, "wss://a/?v=10&encoding=json&compress=zlib-stream"),
        ("wss://a/resume/1?x=y#z", Compression.ZSTD, "wss://a/resume/1?v=10&encoding=json&compress=zstd-stream#z"),
        ("ws://127.0.0.1:8080", Compression.NONE, "ws://127.0.0.1:8080/?v=10&encoding=json"),
    ],
)
def test_the_query_is_always_the_one_of_the_session(url, compression, uri):
    assert gateway_uri(url, compression) == uri
