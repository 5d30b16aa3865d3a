// A bot on @discordjs/ws that prints what it sees, one JSON object a line: `client.js API_URL GATEWAY_URL TOKEN`.
import { CompressionMethod, WebSocketManager, WebSocketShardEvents } from "@discordjs/ws";

const [apiUrl, , token] = process.argv.slice(2);
const headers = { authorization: `Bot ${token}`, "user-agent": "DiscordBot (https://discord.js.org, 2.0.4)" };

const manager = new WebSocketManager({
  token,
  intents: 53575421,
  compression: CompressionMethod.ZlibNative,
  fetchGatewayInformation: async () => (await fetch(`${apiUrl}/gateway/bot`, { headers })).json(),
});

manager.on(WebSocketShardEvents.Dispatch, ({ t, d }) => {
  console.log(JSON.stringify({ t, serial: d?.shardwright_serial }));
});
manager.on(WebSocketShardEvents.Error, (error) => console.error(error));
await manager.connect();
