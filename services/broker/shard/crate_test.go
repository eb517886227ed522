// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// What one turn publishes arrives in its order in every shard, whether somebody
// waits for it or not, however many crates it fills, and whether it fits into one.
func TestOrderAcrossShards(t *testing.T) {
	for name, c := range map[string]struct {
		messages int
		qos      func(i int) mqtt.QoS
		size     func(i int) int
	}{
		"mixed":       {400, func(i int) mqtt.QoS { return mqtt.QoS(i / 7 % 2) }, func(int) int { return 400 }},
		"many crates": {400, func(int) mqtt.QoS { return 0 }, func(int) int { return 400 }},
		"some large":  {100, func(int) mqtt.QoS { return 0 }, func(i int) int { return 100 + i%10/9*2*cratedPayload }},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, w *world) { orderAcrossShards(t, w, c.messages, c.qos, c.size) })
		})
	}
}

func orderAcrossShards(t *testing.T, w *world, messages int, qos func(int) mqtt.QoS, size func(int) int) {
	var subscribers []*client
	for i := range 6 {
		c := w.connect(fmt.Sprint("s", i), window(uint16(messages)), credit(1<<30))
		c.subscribe("t", 1)
		subscribers = append(subscribers, c)
	}
	p := w.connect("p")
	var up link.Up
	payloads := make([]string, messages)
	for i := range messages {
		payloads[i] = fmt.Sprintf("%d %s", i, strings.Repeat("x", size(i)))
		f := link.UpFrame{Kind: link.UpPublish, Channel: p.id, Message: message("t", payloads[i], qos(i), i%50 == 0)}
		if f.Message.QoS > 0 {
			f.PacketID = uint16(i)
		}
		up.Frames = append(up.Frames, f)
	}
	if err := w.link.Send(&up); err != nil {
		t.Fatal(err)
	}
	w.link.Flush()
	for _, c := range subscribers {
		for i, payload := range payloads {
			c.wantDeliver(payload, qos(i))
		}
	}
}
