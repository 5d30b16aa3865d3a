"""The HTTP sink: CloudEvents to an endpoint, by POST. Its life: `connected.py`; the requests: `http_request.py`.

An event counts as acknowledged when its request was answered by 2xx. Any other answer, or none, is tried again after a
pause: the one that `Retry-After` asks for, or a backoff. So an endpoint sees an event again when its answer was lost.

Events wait in *lanes*, each with one request at a time, so that order holds: in binary mode one lane per shard, and as
many requests at once; in batched mode one lane, and as many events in a request as have gathered, up to `maxBatch`. An
event (or a batch of one) that is answered by 413 is replaced by `shardwright.oversize`; a larger batch is halved.

There is no connection to watch: the endpoint is asked once at the start (`OPTIONS`: any answer will do), and is away
while a lane fails.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Final, cast
from urllib.parse import urlsplit

import aiohttp

from shardwright_api import resources
from shardwright_api.resources import HttpMode
from shardwright_shard.errors import ConfigError, SinkUnavailable
from shardwright_shard.journal import Batch
from shardwright_shard.sinks import oversize
from shardwright_shard.sinks.backoff import backoff
from shardwright_shard.sinks.connected import ConnectedSink, Line, Surroundings
from shardwright_shard.sinks.flow import Flow
from shardwright_shard.sinks.headers import Timestamps
from shardwright_shard.sinks.http_request import Item, Login, login, request, retry_after
from shardwright_shard.sinks.intake import Intake
from shardwright_shard.sinks.selection import Selection
from shardwright_shard.sinks.window import Window

log = logging.getLogger(__name__)

_TOO_LARGE: Final = 413
_LARGE: Final = 1024 * 1024
_LOGIN_EVERY: Final = 5.0
"""Seconds after which the Secret is read again."""
_TEXT_LIMIT: Final = 160
_HUNDRED: Final = 100
_SUCCESS: Final = 2
_ALL: Final = ""


class Lanes:
    """The outlet: events to lanes, each served by a task of the line while it holds any."""

    def __init__(self, *, mode: HttpMode, selection: Selection) -> None:
        self.selection = selection
        self.oversize = 0
        self.line: Connection | None = None
        self._mode = mode
        self._timestamps = Timestamps()

    def flush(self, tail: bytes = b"") -> bytes:
        """Give nothing: requests are made by the lanes."""
        return tail

    def add(self, batch: Batch, number: int) -> Sequence[int]:
        """Add a batch, its events numbered from `number` on. Give the journal positions of those to be sent."""
        positions, events = self.selection.of(batch)
        moment = self._timestamps.text(batch.time)
        items = [Item(count, batch.source, event, moment) for count, event in enumerate(events, number)]
        if items and self.line is not None:
            self.line.add(_ALL if self._mode is HttpMode.BATCHED else batch.source.uri, items)
        return positions


class Connection:
    """A session of aiohttp, and the lanes' tasks. `failing`: why, by lane."""

    writable = True

    def __init__(self, sink: HttpSink) -> None:
        self.lost_because: str | None = None
        self.failing: dict[str, str] = {}
        self._sink = sink
        self._lanes: dict[str, deque[Item]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._login, self._login_read = login(sink.secrets), time.monotonic()
        connector = aiohttp.TCPConnector(limit=0, ssl=sink.secrets.context() if sink.secure else True)
        within = aiohttp.ClientTimeout(total=sink.answers_within, connect=sink.limits.connect_within)
        self._session = aiohttp.ClientSession(connector=connector, timeout=within, auto_decompress=False)

    def write(self, data: bytes) -> None:
        """Write nothing: requests are made by the lanes."""

    async def close(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    async def look(self) -> None:
        """Ask the endpoint for any answer. Raise `SinkUnavailable`."""
        try:
            async with self._session.options(self._sink.url, allow_redirects=False):
                pass
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SinkUnavailable(_words(error)) from None

    def add(self, name: str, items: list[Item]) -> None:
        """Add events to a lane; start it where it is empty."""
        lane = self._lanes.get(name)
        if lane is None:  # a lane that is empty may still be served: its last answer just made room for these
            lane = self._lanes[name] = deque()
            task = asyncio.get_running_loop().create_task(self._serve(name, lane))
            self._tasks.add(task)
            task.add_done_callback(self._ended)
        lane.extend(items)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Give the session up if a lane ended with its events unsent: a new one begins with them."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a lane of an HTTP sink failed", exc_info=error)
            self.lost_because = f"internal error: {type(error).__name__}"

    async def _serve(self, name: str, lane: deque[Item]) -> None:
        """Send a lane's events, one request after the other, until it is empty."""
        most = self._sink.most
        pauses = self._sink.pauses()
        while lane:
            items = [lane[index] for index in range(min(most, len(lane)))]
            status, pause, why = await self._post(items)
            if status // _HUNDRED == _SUCCESS:
                for _ in items:
                    lane.popleft()
                most, pauses = self._sink.most, self._sink.pauses()
                self.failing.pop(name, None)
                self._sink.delivered(self, [item.number for item in items])
            elif status == _TOO_LARGE and (len(items) > 1 or self._replaced(lane)):
                most = max(1, len(items) // 2)
            else:
                self.failing[name] = why
                self._sink.failed(why)
                await asyncio.sleep(next(pauses) if pause is None else pause)
        del self._lanes[name]

    def _replaced(self, lane: deque[Item]) -> bool:
        """Put what stands for an event that is too large in its place; tell whether it was not done before."""
        item = lane[0]
        smaller = oversize.replacement(item.source, item.event)
        if item.event.name == smaller.name:
            return False
        lane[0] = item._replace(event=smaller)
        self._sink.lanes.oversize += 1
        return True

    async def _post(self, items: list[Item]) -> tuple[int, float | None, str]:
        """Send a request: its status (0: none), the pause that was asked for, and words for people."""
        now = time.time()
        try:
            body, headers = request(self._sink.mode, items, self._fresh_login(), now=now)
            data = body if len(body) < _LARGE else BytesIO(body)  # aiohttp writes a stream by the piece
            async with self._session.post(self._sink.url, data=data, headers=headers, allow_redirects=False) as answer:
                pause = retry_after(answer.headers.get("retry-after"), now=now)
                if answer.status // _HUNDRED == _SUCCESS:
                    await answer.read()
                    return answer.status, None, ""
                text = (await answer.content.read(_TEXT_LIMIT)).decode(errors="replace")
                return answer.status, pause, self._told(f"{answer.status} {answer.reason}: {' '.join(text.split())}")
        except aiohttp.ClientSSLError as error:
            self.lost_because = _words(error)  # certificates are read again for a new session
            return 0, None, self.lost_because
        except (aiohttp.ClientError, OSError, TimeoutError, SinkUnavailable) as error:
            return 0, None, self._told(_words(error))

    def _fresh_login(self) -> Login:
        """Read the Secret again once in a while, and while requests fail."""
        now = time.monotonic()
        if self.failing or now - self._login_read > _LOGIN_EVERY:
            self._login, self._login_read = login(self._sink.secrets), now
        return self._login

    def _told(self, text: str) -> str:
        """Leave our secrets out of what a server said."""
        for secret in self._login.secrets:
            text = text.replace(secret, "***")
        return text.removesuffix(": ")


class HttpFlow(Flow):
    """Answers to acknowledgements."""

    def take(self, numbers: list[int]) -> None:
        """Take what was answered by 2xx."""
        self.settle(self.window.acknowledge(numbers))


class HttpSink(ConnectedSink):
    """One HTTP sink."""

    def __init__(self, spec: resources.HttpSink, around: Surroundings) -> None:
        """Read the configuration. Raise `ConfigError` where it does not fit."""
        self.answers_within = around.limits.acks_within
        super().__init__(replace(around, limits=replace(around.limits, acks_within=float("inf"))))
        parts = _parts(spec.url)
        self.url = spec.url
        self.where = f"{parts[0]}://{parts[1]}{parts[2]}"
        self.secure = parts[0] == "https"
        self.mode = spec.mode
        self.most = spec.max_batch if spec.mode is HttpMode.BATCHED else 1
        self.lanes = Lanes(mode=spec.mode, selection=self.selection)

    def make_flow(self, reader: Intake, window: Window) -> Flow:
        """Make the flow."""
        return HttpFlow(reader, outlet=self.lanes, window=window, resends=False)

    async def connect(self) -> Connection:
        """Make a session, and see that the endpoint is there."""
        self.secrets.check()
        line = Connection(self)
        try:
            await line.look()
        except BaseException:
            await line.close()
            raise
        self.lanes.line = line
        return line

    def told_to_wait(self, line: Line) -> bool:
        """Tell whether a lane fails: it says why by itself, and goes on by itself."""
        return bool(cast("Connection", line).failing)

    def pauses(self) -> Iterator[float]:
        """Give the pauses between attempts."""
        return backoff(self.random, first=self.limits.first_pause, limit=self.limits.longest_pause)

    def delivered(self, line: Connection, numbers: list[int]) -> None:
        """Take what was answered by 2xx."""
        flow = cast("HttpFlow", self.flow)
        before = flow.acknowledged
        flow.take(numbers)
        flow.pump_behind()
        if not line.failing:
            self.judge(before)

    def failed(self, why: str) -> None:
        """Say why a request failed; the lane goes on trying."""
        self.flow.refused += 1
        self.away(f"{self.where}: {why}")


def _parts(url: str) -> tuple[str, str, str]:
    """Give scheme, host with port, and path. Raise `ConfigError`."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"url: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise ConfigError("url: no user or password in a URL; credentials come from a Secret")
    if parts.scheme not in ("http", "https") or not host or parts.fragment:
        raise ConfigError("url: expected http://host/path or https://host/path")
    return parts.scheme, parts.netloc, parts.path


def _words(error: Exception) -> str:
    return str(error)[:_TEXT_LIMIT] or "no answer in time"
