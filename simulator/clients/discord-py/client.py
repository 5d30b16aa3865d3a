"""A bot on discord.py that prints what it sees, one JSON object a line: `client.py API_URL GATEWAY_URL TOKEN`."""

import json
import sys

import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route


def tell(**what):
    """Print a line."""
    print(json.dumps(what), flush=True)


class Client(discord.AutoShardedClient):
    """Tells of each event."""

    async def on_socket_raw_receive(self, message):
        """Tell of a dispatch event."""
        payload = json.loads(message)
        if payload["op"] == 0:
            tell(t=payload["t"], serial=(payload["d"] or {}).get("shardwright_serial"))


api_url, gateway_url, token = sys.argv[1:]
Route.BASE = api_url
DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway_url)
Client(intents=discord.Intents.default(), enable_debug_events=True).run(token)
