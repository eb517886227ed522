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
// waits for it or not, however many crates it fills.
func TestOrderAcrossShards(t *testing.T) {
	const messages = 400
	each(t, func(t *testing.T, w *world) {
		var subscribers []*client
		for i := range 6 {
			c := w.connect(fmt.Sprint("s", i), window(messages), credit(1<<30))
			c.subscribe("t", 1)
			subscribers = append(subscribers, c)
		}
		p := w.connect("p")
		var up link.Up
		payloads := make([]string, messages)
		for i := range messages {
			payloads[i] = fmt.Sprintf("%d %s", i, strings.Repeat("x", 400))
			f := link.UpFrame{Kind: link.UpPublish, Channel: p.id, Message: message("t", payloads[i], mqtt.QoS(i/7%2), i%50 == 0)}
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
				c.wantDeliver(payload, mqtt.QoS(i/7%2))
			}
		}
	})
}
