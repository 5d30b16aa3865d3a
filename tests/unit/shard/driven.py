"""A session and its clock in the hands of a test: no sockets, no waiting."""

import json

from shardwright_api.resources import Compression
from shardwright_shard.journal import Source
from shardwright_shard.session import Resumable, Session, SessionConfig
from unit.shard.messages import BOT, URL, hello, ready, resumed

TOKEN = "the.secret.token"
CONFIG = SessionConfig(bot=BOT, shard=3, total=8, intents=513, compression=Compression.ZSTD)


def resumable(seq=10, *, session="old", url=URL, intents=CONFIG.intents, compression=Compression.ZSTD):
    source = Source(bot=BOT, shard=CONFIG.shard, total=CONFIG.total, session=session, acked=seq)
    return Resumable(source=source, url=url, seq=seq, intents=intents, compression=compression)


class Driven:
    """`random` is what the session draws, every time."""

    def __init__(self, *, to_resume=None, random=0.5, config=CONFIG, **more):
        self.random = random
        self.now = 1000.0
        self.wall = 1735689600.0
        self.session = Session(
            config, random=lambda: self.random, wall=lambda: self.wall + self.now - 1000.0, resumable=to_resume, **more
        )

    # --- the ways into a state; each gives the Driven back -----------------------------------------------------

    def connecting(self):
        self.session.connect(self.now)
        return self

    def opened(self):
        self.connecting().session.opened(self.now, token=TOKEN)
        return self

    def greeted(self, interval_ms=40_000):
        """Until after HELLO: queued for IDENTIFY, or RESUME is sent."""
        self.opened().receive(hello(interval_ms))
        return self

    def identifying(self):
        self.greeted().session.slot(self.now, token=TOKEN)
        return self

    def live(self, *, guilds=()):
        """READY has come with sequence 1, or RESUMED with the next one after the replay's start."""
        if self.session.resumable is None:
            self.identifying().receive(ready(1, guilds=guilds))
        else:
            self.greeted().receive(resumed(self.session.resumable.seq + 1))
        self.taken()
        return self

    # --- what happens ---------------------------------------------------------------------------------------------

    def receive(self, *messages):
        self.session.receive(list(messages), self.now)

    def closed(self, code=None):
        self.session.closed(code, self.now)

    def after(self, seconds):
        """Let time pass, with a tick whenever one is due."""
        end = self.now + seconds
        while self.session.next_tick() <= end:
            self.now = max(self.now, self.session.next_tick())
            self.session.tick(self.now)
        self.now = end

    # --- what the session left ------------------------------------------------------------------------------------

    @property
    def state(self):
        return self.session.state.name

    def sent(self):
        """Take what was sent, decoded."""
        texts, self.session.sends = self.session.sends, []
        return [json.loads(text) for text in texts]

    def sent_ops(self):
        return [each["op"] for each in self.sent()]

    def events(self):
        """Take the events."""
        events, self.session.events = self.session.events, []
        if events:
            self.session.handed_on(self.session.wall())
        return events

    def names(self):
        return [event.name for event in self.events()]

    def close_code(self):
        code, self.session.close_code = self.session.close_code, None
        return code

    def taken(self):
        """Forget all that the session has left so far."""
        self.sent(), self.events(), self.close_code()

    def delay(self):
        """Seconds until it connects again."""
        return self.session.retry_at - self.now
