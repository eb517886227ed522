// SPDX-License-Identifier: Apache-2.0

package session

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/manormq/manor/infra/mqtt"
)

// Whatever is subscribed and unsubscribed, few filters or many, a session holds
// what a plain map holds.
func TestSubscriptionsAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	s, naive := New(1, "c"), map[string]mqtt.QoS{}
	var fx Effects
	s.Step(0, &Event{Kind: Attach, Open: &Opening{Expiry: 1, ReceiveMaximum: 1, InboundMaximum: 1}}, &fx)
	for round := range 8000 {
		f, qos := fmt.Sprint("f", r.IntN(200)), mqtt.QoS(r.IntN(3))
		_, had := naive[f]
		fx.Reset()
		// Many for a time, then few, then many again.
		if r.IntN(8) < 1+round/2000%2*6 {
			s.Step(0, &Event{Kind: Subscribe, Subs: []mqtt.Subscription{{Filter: f, QoS: qos}}, Limit: -1}, &fx)
			naive[f] = qos
			if fx.Send[0].New[0] == had {
				t.Fatalf("%s: new %v", f, !had)
			}
		} else {
			s.Step(0, &Event{Kind: Unsubscribe, Filter: []string{f}}, &fx)
			delete(naive, f)
			if ok := fx.Send[0].Reasons[0] == mqtt.Success; ok != had {
				t.Fatalf("%s: unsubscribed %v, held %v", f, ok, had)
			}
		}
		if len(s.Subscriptions()) != len(naive) {
			t.Fatalf("%d subscriptions, expected %d", len(s.Subscriptions()), len(naive))
		}
		for _, sub := range s.Subscriptions() {
			if q, ok := naive[sub.Filter]; !ok || q != sub.QoS {
				t.Fatalf("%+v is held, expected %v %v", sub, q, ok)
			}
		}
	}
}
