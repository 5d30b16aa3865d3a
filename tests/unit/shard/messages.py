"""Gateway messages as Discord sends them: bytes, in Discord's order of keys."""

import json

BOT = "81384788765712384"
URL = "wss://resume.example"


def dispatch(name, seq, data=None):
    body = json.dumps({} if data is None else data, separators=(",", ":"))
    return f'{{"t":"{name}","s":{seq},"op":0,"d":{body}}}'.encode()


def message(op, data=None):
    return f'{{"t":null,"s":null,"op":{op},"d":{json.dumps(data)}}}'.encode()


def hello(interval_ms=40_000):
    return message(10, {"heartbeat_interval": interval_ms, "_trace": ['["gateway-prd"]']})


def ready(seq=1, *, session="one", url=URL, guilds=()):
    stubs = [{"id": str(guild), "unavailable": True} for guild in guilds]
    data = {"v": 10, "user": {"id": BOT}, "guilds": stubs, "session_id": session, "resume_gateway_url": url}
    return dispatch("READY", seq, {**data, "shard": [0, 1], "application": {"id": BOT, "flags": 0}})


def resumed(seq):
    return dispatch("RESUMED", seq, {"_trace": ["[]"]})


def guild_create(guild, seq, **fields):
    return dispatch("GUILD_CREATE", seq, {"id": str(guild), "members": [], **fields})


def guild_delete(guild, seq, **fields):
    return dispatch("GUILD_DELETE", seq, {"id": str(guild), **fields})


BEAT_REQUEST = message(1)
RECONNECT = message(7)
ACK = message(11)


def invalid(*, resumable):
    return message(9, resumable)
