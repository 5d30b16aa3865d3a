"""Bodies of dispatch events: made once for each shape, then only filled with ids.

A template is the `d` of an event, cut where its ids belong. What a forwarder may stumble over is in them on purpose:
`guild_id` deeper than depth 1 before and after the real one, JSON text inside strings, all of Unicode, a quarter of
them in backslash-u escapes, ids as the last and as the first key.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

import orjson

from shardwright_simulator.envelope import Parts
from shardwright_simulator.ids import guild_id

DIRECT_MESSAGE: Final = "DIRECT_MESSAGE"
"""A name of ours: MESSAGE_CREATE without a guild, which goes to shard 0 only."""
GUILD_LESS: Final = frozenset({DIRECT_MESSAGE, "ENTITLEMENT_CREATE", "SUBSCRIPTION_CREATE", "USER_UPDATE"})
GUILD_IS_ID: Final = frozenset({"GUILD_CREATE", "GUILD_UPDATE", "GUILD_DELETE"})
"""Events whose `d.id` is the guild's, and which have no `d.guild_id`."""
MESSAGES: Final = frozenset({"MESSAGE_CREATE", "MESSAGE_UPDATE", DIRECT_MESSAGE})
WITH_ID: Final = MESSAGES | {"INTERACTION_CREATE", "ENTITLEMENT_CREATE", "SUBSCRIPTION_CREATE"}

BIG = 100_000
"""Bodies above this have one variant only, to save memory."""
VARIANTS = 8
CONTENT_LIMIT = 2_000
DECOY_GUILD = str(guild_id(999_983))
SNOWFLAKE_BASE = 1_100_000_000_000_000_000
_MARK = "shardwright_ids_here"
_IDS_ROOM = 90
_PLAIN_WORDS = "shard gateway the a of resume identify sequence bucket wave lease pod sink event guild member thread"
_HARD_WORDS = """
naïve Zürich café привет мир 你好 世界 שלום 🎉 👩\u200d👩\u200d👧 ¯\\_(ツ)_/¯ <@80351110224678912> <:e:1234> https://a.example/?b=c&d=e
back\\slash quote"s /slash/ null\\u0000 }}]]{{[[ {"guild_id":"1","t":"X","s":1} "guild_id":"2" \ufeffmark
"""
_WORDS = [*_PLAIN_WORDS.split(), *_HARD_WORDS.split(), "tab\there", "line\n\nbreak", "\u2028", "\u00a0"]

Encoder = Callable[[Any], bytes]


class Shape(NamedTuple):
    """What tells one template from another."""

    t: str
    size: int
    """Bytes of `d`, about."""
    variant: int
    content: bool
    """Whether the session may read message content (Gateway > Message Content Intent)."""


class Template(NamedTuple):
    """A `d`, cut where its ids belong."""

    before: bytes
    after: bytes

    def fill(self, ids: bytes) -> Parts:
        """Give the pieces of a `d` with these ids."""
        return (self.before, ids, self.after)


def wire_name(t: str) -> str:
    """Give the event name that Discord would send."""
    return "MESSAGE_CREATE" if t == DIRECT_MESSAGE else t


def ids(t: str, guild: int | None, serial: int) -> bytes:
    """Write the keys that differ between two events of one shape."""
    keys = b'"shardwright_serial":%d' % serial
    if guild is not None and t in GUILD_IS_ID:
        return b'"id":"%d",' % guild + keys
    if guild is not None:
        keys = b'"guild_id":"%d",' % guild + keys
    return b'"id":"%d",' % (SNOWFLAKE_BASE + (serial << 12)) + keys if t in WITH_ID else keys


class Templates:
    """Makes templates and keeps them."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._made: dict[Shape, Template] = {}

    def get(self, shape: Shape) -> Template:
        """Give the template of a shape."""
        variants = 1 if shape.size > BIG else VARIANTS
        shape = shape._replace(variant=shape.variant % variants)
        template = self._made.get(shape)
        if template is None:
            template = self._made[shape] = self._make(shape)
        return template

    def _make(self, shape: Shape) -> Template:
        encode = _ascii if shape.variant % 4 == 3 else orjson.dumps  # noqa: PLR2004  a quarter of them
        bare = len(encode(_with_filler(shape, ""))) + _IDS_ROOM
        text = filler(self._random, shape.size - bare, encode)
        before, after = encode(_with_filler(shape, text)).split(encode(_MARK) + b":0")
        return Template(before, after)


def filler(random: Random, size: int, encode: Encoder) -> str:
    """Make text that takes about `size` bytes once encoded."""
    words = [(word, len(encode(word)) - 1) for word in _WORDS]
    chosen = []
    while size > 0:
        word, length = random.choice(words)
        chosen.append(word)
        size -= length
    return " ".join(chosen)


def _ascii(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _with_filler(shape: Shape, text: str) -> dict[str, Any]:
    body = _body(shape.t)
    if shape.t in MESSAGES:
        body["content"] = text[:CONTENT_LIMIT] if shape.content else ""
        text = text[CONTENT_LIMIT:] if shape.content else text
    keys = list(body.items())
    keys.insert(len(keys) * (shape.variant % 3) // 2, (_MARK, 0))
    return {**dict(keys), "shardwright_filler": text}


def _user() -> dict[str, Any]:
    return {
        "id": "80351110224678912",
        "username": "nelly",
        "discriminator": "0",
        "global_name": "Nelly",
        "avatar": None,
    }


def _member() -> dict[str, Any]:
    joined = "2024-02-03T04:05:06.000000+00:00"
    return {"roles": [], "nick": None, "joined_at": joined, "deaf": False, "mute": False, "flags": 0, "avatar": None}


def _message() -> dict[str, Any]:
    return {
        "type": 0,
        "message_reference": {"channel_id": "1", "guild_id": DECOY_GUILD, "message_id": "2", "type": 0},
        "channel_id": "1100000000000000001",
        "content": "",
        "author": _user(),
        "mentions": [],
        "mention_roles": [],
        "attachments": [],
        "embeds": [],
        "timestamp": "2026-08-06T07:08:09.101000+00:00",
        "edited_timestamp": None,
        "tts": False,
        "mention_everyone": False,
        "pinned": False,
        "flags": 0,
        "components": [{"type": 1, "id": 1, "components": [], "guild_id": DECOY_GUILD}],
    }


def _interaction() -> dict[str, Any]:
    return {
        "type": 2,
        "application_id": "1",
        "token": "simulated",
        "version": 1,
        "channel_id": "1100000000000000001",
        "member": {**_member(), "user": _user(), "permissions": "0"},
        "data": {"id": "3", "name": "ping", "type": 1, "guild_id": DECOY_GUILD},
        "entitlements": [],
        "locale": "de",
        "context": 0,
        "authorizing_integration_owners": {},
        "attachment_size_limit": 10_485_760,
        "app_permissions": "0",
    }


def _guild() -> dict[str, Any]:
    return {
        "name": "Simulated guild",
        "icon": None,
        "splash": None,
        "discovery_splash": None,
        "owner_id": "80351110224678912",
        "afk_channel_id": None,
        "afk_timeout": 300,
        "verification_level": 0,
        "default_message_notifications": 0,
        "explicit_content_filter": 0,
        "roles": [],
        "emojis": [],
        "features": [],
        "mfa_level": 0,
        "application_id": None,
        "system_channel_id": None,
        "system_channel_flags": 0,
        "rules_channel_id": None,
        "joined_at": "2024-02-03T04:05:06.000000+00:00",
        "large": False,
        "unavailable": False,
        "member_count": 2,
        "voice_states": [],
        "members": [],
        "channels": [],
        "threads": [],
        "presences": [],
        "stage_instances": [],
        "guild_scheduled_events": [],
        "soundboard_sounds": [],
        "stickers": [],
        "vanity_url_code": None,
        "description": None,
        "banner": None,
        "premium_tier": 0,
        "premium_subscription_count": 0,
        "preferred_locale": "en-US",
        "public_updates_channel_id": None,
        "safety_alerts_channel_id": None,
        "nsfw_level": 0,
        "premium_progress_bar_enabled": False,
        "max_members": 500_000,
        "max_video_channel_users": 25,
        "max_stage_video_channel_users": 50,
        "incidents_data": None,
    }


def _presence() -> dict[str, Any]:
    clients = {"desktop": "online"}
    return {"user": {"id": "80351110224678912"}, "status": "online", "activities": [], "client_status": clients}


def _reaction() -> dict[str, Any]:
    return {
        "user_id": "80351110224678912",
        "type": 0,
        "message_id": "2",
        "channel_id": "1100000000000000001",
        "member": {**_member(), "user": _user(), "guild_id": DECOY_GUILD},
        "emoji": {"id": None, "name": "🔥"},
        "burst": False,
        "burst_colors": [],
    }


def _voice_state() -> dict[str, Any]:
    flags = dict.fromkeys(("deaf", "mute", "self_deaf", "self_mute", "self_video", "suppress"), False)
    return {
        "channel_id": None,
        "user_id": "80351110224678912",
        "session_id": "v",
        **flags,
        "request_to_speak_timestamp": None,
    }


def _typing() -> dict[str, Any]:
    member = {**_member(), "user": _user()}
    return {
        "channel_id": "1100000000000000001",
        "user_id": "80351110224678912",
        "timestamp": 1_754_460_000,
        "member": member,
    }


_BODIES: dict[str, Callable[[], dict[str, Any]]] = {
    "MESSAGE_CREATE": _message,
    "MESSAGE_UPDATE": _message,
    DIRECT_MESSAGE: _message,
    "INTERACTION_CREATE": _interaction,
    "GUILD_CREATE": _guild,
    "GUILD_UPDATE": _guild,
    "GUILD_MEMBER_ADD": lambda: {**_member(), "user": _user()},
    "PRESENCE_UPDATE": _presence,
    "MESSAGE_REACTION_ADD": _reaction,
    "VOICE_STATE_UPDATE": _voice_state,
    "TYPING_START": _typing,
}


def _body(t: str) -> dict[str, Any]:
    make = _BODIES.get(t)
    return make() if make else {"nested": {"guild_id": DECOY_GUILD}}
