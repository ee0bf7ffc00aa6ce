// Clients in Go, as somebody would use them.
//
//	matrix NAME URL TOPIC      prints {"id","data"} of each event, a line each, from the earliest on
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand"
	"net/http"
	"os"
	"strings"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	launchdarkly "github.com/launchdarkly/eventsource"
	r3labs "github.com/r3labs/sse/v2"
	tmaxmax "github.com/tmaxmax/go-sse"
)

// largest is more than an event with its envelope.
const largest = 1 << 18

func emit(id, data string) {
	line, _ := json.Marshal(map[string]string{"id": id, "data": data})
	fmt.Println(string(line))
}

func pause() time.Duration {
	return time.Duration(500+rand.Intn(1000)) * time.Millisecond
}

func fromLaunchDarkly(address string) {
	request, _ := http.NewRequest("GET", address, nil)
	for ; ; time.Sleep(pause()) {
		stream, err := launchdarkly.SubscribeWithRequestAndOptions(request,
			launchdarkly.StreamOptionErrorHandler(func(error) launchdarkly.StreamErrorHandlerResult {
				return launchdarkly.StreamErrorHandlerResult{}
			}))
		if err != nil {
			continue
		}
		for event := range stream.Events {
			if event.Event() == "" {
				emit(event.Id(), event.Data())
			}
		}
	}
}

func fromR3labs(address string) {
	client := r3labs.NewClient(address, r3labs.ClientMaxBufferSize(largest))
	for ; ; time.Sleep(pause()) {
		// It returns at an end without an error, and keeps the id.
		_ = client.SubscribeRaw(func(event *r3labs.Event) {
			if len(event.Event) == 0 && len(event.Data) > 0 {
				emit(string(event.ID), string(event.Data))
			}
		})
	}
}

func fromTmaxmax(address string) {
	request, _ := http.NewRequest("GET", address, nil)
	for ; ; time.Sleep(pause()) {
		connection := tmaxmax.NewConnection(request)
		connection.Buffer(nil, largest)
		connection.SubscribeMessages(func(event tmaxmax.Event) {
			request.Header.Set("Last-Event-ID", event.LastEventID)
			emit(event.LastEventID, event.Data)
		})
		// It gives up at an answer that is no event stream.
		_ = connection.Connect()
	}
}

type frame struct {
	Op   string          `json:"op"`
	ID   string          `json:"id"`
	Data json.RawMessage `json:"data"`
}

// sockets reads from one connection after the other, each where the one before ended.
func sockets(url, topic string, dial func(address string) (read func() ([]byte, error), err error)) {
	after := "earliest"
	for ; ; time.Sleep(pause()) {
		address := strings.Replace(url, "http", "ws", 1) + "/v1/ws?topic=" + topic + "&after=" + after
		read, err := dial(address)
		for err == nil {
			var text []byte
			if text, err = read(); err != nil {
				break
			}
			var got frame
			if json.Unmarshal(text, &got) == nil && got.Op == "event" {
				after = got.ID
				emit(got.ID, string(got.Data))
			}
		}
	}
}

func gorillaDial(address string) (func() ([]byte, error), error) {
	socket, _, err := gorilla.DefaultDialer.Dial(address, nil)
	return func() ([]byte, error) {
		_, text, err := socket.ReadMessage()
		return text, err
	}, err
}

func coderDial(address string) (func() ([]byte, error), error) {
	ctx := context.Background()
	socket, _, err := coder.Dial(ctx, address, nil)
	if err == nil {
		socket.SetReadLimit(largest)
	}
	return func() ([]byte, error) {
		_, text, err := socket.Read(ctx)
		return text, err
	}, err
}

func main() {
	name, url, topic := os.Args[1], os.Args[2], os.Args[3]
	address := url + "/v1/sse?topic=" + topic + "&after=earliest"
	switch name {
	case "launchdarkly":
		fromLaunchDarkly(address)
	case "r3labs":
		fromR3labs(address)
	case "tmaxmax":
		fromTmaxmax(address)
	case "gorilla":
		sockets(url, topic, gorillaDial)
	case "coder":
		sockets(url, topic, coderDial)
	default:
		fmt.Fprintln(os.Stderr, "unknown client:", name)
		os.Exit(2)
	}
}
