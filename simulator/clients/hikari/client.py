"""A bot on hikari that prints what it sees, one JSON object a line: `client.py API_URL GATEWAY_URL TOKEN`."""

import json
import sys

import hikari

api_url, _, token = sys.argv[1:]
bot = hikari.GatewayBot(token, rest_url=api_url, banner=None, intents=hikari.Intents.ALL_UNPRIVILEGED)


@bot.listen(hikari.ShardPayloadEvent)
async def on_payload(event):
    """Tell of a dispatch event."""
    print(json.dumps({"t": event.name, "serial": event.payload.get("shardwright_serial")}), flush=True)


bot.run(check_for_updates=False)
