// A bot on @discordjs/ws that prints what it sees, one JSON object a line: `client.js API_URL GATEWAY_URL TOKEN`.
import { REST } from "@discordjs/rest";
import { CompressionMethod, WebSocketManager, WebSocketShardEvents } from "@discordjs/ws";

const [apiUrl, , token] = process.argv.slice(2);
const rest = new REST({ api: apiUrl.replace(/\/v\d+$/, ""), version: "10" }).setToken(token);
const manager = new WebSocketManager({ token, rest, intents: 53575421, compression: CompressionMethod.ZlibNative });

manager.on(WebSocketShardEvents.Dispatch, ({ t, d }) => {
  console.log(JSON.stringify({ t, serial: d?.shardwright_serial ?? null }));
});
manager.on(WebSocketShardEvents.Error, (error) => console.error(error));
await manager.connect();
