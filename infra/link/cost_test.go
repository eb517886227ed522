// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// What a client can make arbitrarily large counts, so that a window bounds it.
func TestCost(t *testing.T) {
	if got := link.DeliverCost(10, 2000); got != 10+link.DeliverOverhead+5*2000 {
		t.Errorf("a Deliver with 2000 identifiers costs %d", got)
	}
	message := mqtt.Message{Topic: []byte("a/b"), Properties: []byte("pp"), Payload: []byte("1234")}
	for name, tc := range map[string]struct {
		f    link.UpFrame
		want int
	}{
		"publish":     {link.UpFrame{Kind: link.UpPublish, Message: message}, 9 + link.DeliverOverhead},
		"subscribe":   {link.UpFrame{Kind: link.UpSubscribe, Subscribe: []mqtt.Subscription{{Filter: "a/b"}, {Filter: "#"}}}, 4 + 2*link.DeliverOverhead},
		"unsubscribe": {link.UpFrame{Kind: link.UpUnsubscribe, Unsubscribe: []string{"a/b", "c"}}, 4 + 2*link.DeliverOverhead},
		"ack":         {link.UpFrame{Kind: link.UpAck, PacketID: 7}, link.DeliverOverhead},
		"credit":      {link.UpFrame{Kind: link.UpCredit, Bytes: 1 << 40}, 0},
	} {
		if got := tc.f.Cost(); got != tc.want {
			t.Errorf("%s costs %d, expected %d", name, got, tc.want)
		}
	}
}
