// A bot on disgo that prints what it sees, one JSON object a line: `disgo API_URL GATEWAY_URL TOKEN`.
package main

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/disgoorg/disgo"
	"github.com/disgoorg/disgo/bot"
	"github.com/disgoorg/disgo/events"
	"github.com/disgoorg/disgo/gateway"
	"github.com/disgoorg/disgo/rest"
	"github.com/disgoorg/disgo/sharding"
)

var printing sync.Mutex

func tell(event *events.Raw) {
	var payload struct {
		Serial *int `json:"shardwright_serial"`
	}
	data, err := io.ReadAll(event.Payload)
	if err == nil {
		err = json.Unmarshal(data, &payload)
	}
	if err != nil {
		panic(err)
	}
	printing.Lock()
	defer printing.Unlock()
	_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"t": event.EventType, "serial": payload.Serial})
}

func main() {
	apiURL, token := os.Args[1], os.Args[3]
	client, err := disgo.New(token,
		bot.WithRestClientConfigOpts(rest.WithURL(apiURL)),
		bot.WithShardManagerConfigOpts(
			sharding.WithShardIDs(0, 1), // by itself disgo 0.18 leaves the last shard out
			sharding.WithGatewayConfigOpts(
				gateway.WithIntents(gateway.IntentsNonPrivileged),
				gateway.WithEnableRawEvents(true),
			),
		),
		bot.WithEventListenerFunc(tell),
	)
	if err != nil {
		panic(err)
	}
	if err = client.OpenShardManager(context.Background()); err != nil {
		panic(err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}
