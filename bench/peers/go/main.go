// Go with amqp091-go and gorilla/websocket, written the usual way: a goroutine per direction, one frame per command.
package main

import (
	"context"
	"encoding/json"
	"log"
	"os"
	"sync"

	"github.com/gorilla/websocket"
	amqp "github.com/rabbitmq/amqp091-go"
)

const prefetch = 500

type cancel struct{ Symbol, ClOrdID, OrderID, TransactTime string }
type command struct {
	Type string   `json:"type"`
	Data []cancel `json:"data"`
}
type request struct {
	Reqid int      `json:"reqid"`
	Type  string   `json:"type"`
	Data  []cancel `json:"data"`
}
type frame struct {
	Type string            `json:"type"`
	Data []json.RawMessage `json:"data"`
}
type head struct{ ClOrdID, ExecType, Symbol string }
type open struct {
	delivery    amqp.Delivery
	unconfirmed int
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func logIn() *websocket.Conn {
	venue, _, err := websocket.DefaultDialer.Dial(os.Getenv("VENUE_URL"), nil)
	must(err)
	_, _, err = venue.ReadMessage() // hello
	must(err)
	subscribe := `{"reqid":1,"type":"subscribe","streams":[{"name":"ExecutionReport"}]}`
	must(venue.WriteMessage(websocket.TextMessage, []byte(subscribe)))
	_, _, err = venue.ReadMessage() // the empty initial frame
	must(err)
	return venue
}

func main() {
	connection, err := amqp.Dial(os.Getenv("AMQP_URL"))
	must(err)
	in, err := connection.Channel()
	must(err)
	out, err := connection.Channel()
	must(err)
	must(in.Qos(prefetch, 0, false))
	must(out.Confirm(false))
	confirms := out.NotifyPublish(make(chan amqp.Confirmation, 65536))
	venue := logIn()
	deliveries, err := in.Consume("cancel.commands", "", false, false, false, false, nil)
	must(err)

	var mu sync.Mutex
	waiting := map[string]*open{}
	published := make(chan *open, 1<<20) // one entry per publish, in publish order

	go func() {
		for {
			_, body, err := venue.ReadMessage()
			must(err)
			var f frame
			must(json.Unmarshal(body, &f))
			if f.Type != "ExecutionReport" {
				continue
			}
			for _, raw := range f.Data {
				var h head
				must(json.Unmarshal(raw, &h))
				mu.Lock()
				c := waiting[h.ClOrdID]
				key := "info.pending_cancel." + h.Symbol
				if h.ExecType == "Canceled" {
					key = "final.canceled." + h.Symbol
					delete(waiting, h.ClOrdID)
				}
				mu.Unlock()
				if c == nil {
					continue
				}
				published <- c
				must(out.PublishWithContext(context.Background(), "cancel.results", key, false, false, amqp.Publishing{
					ContentType: "application/json", DeliveryMode: amqp.Persistent, Body: raw}))
			}
		}
	}()
	go func() {
		for confirm := range confirms { // in publish order
			if !confirm.Ack {
				log.Fatal("the broker refused a result")
			}
			c := <-published
			if c.unconfirmed--; c.unconfirmed == 0 {
				must(c.delivery.Ack(false))
			}
		}
	}()
	reqid := 1
	for delivery := range deliveries {
		var c command
		must(json.Unmarshal(delivery.Body, &c))
		o := &open{delivery, 2 * len(c.Data)}
		mu.Lock()
		for _, item := range c.Data {
			waiting[item.ClOrdID] = o
		}
		mu.Unlock()
		reqid++
		must(venue.WriteJSON(request{reqid, "OrderCancelRequest", c.Data}))
	}
}
