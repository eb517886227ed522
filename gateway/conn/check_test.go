// SPDX-License-Identifier: Apache-2.0

package conn_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy"
)

// TestCheck_Remembered: a verdict holds for its time, and of more topics than are kept
// the oldest are asked about again; another grant forgets all.
func TestCheck_Remembered(t *testing.T) {
	grant := granted(t, oneEntry("#", 2)).Asking()
	c, _ := accepted(t, 1<<40, grant, nil)
	fx := &conn.Effects{}
	// asks handles a publish at a time, and reports whether that had to be asked about.
	asks := func(topic string, now int64) bool {
		t.Helper()
		fx.Reset()
		fx.Now = now
		c.Handle(publishOf(topic, 0, 0), fx)
		if !fx.Asking.Came() {
			if len(fx.Up.Frames) != 1 {
				t.Fatalf("%s is not passed on", topic)
			}
			return false
		}
		if len(fx.Up.Frames) != 0 || fx.Close.Ended || fx.Asking.Items[0].Topic != topic {
			t.Fatalf("%s: %+v", topic, fx)
		}
		a := fx.Asking
		c.Answer(&a, []tenancy.CheckVerdict{{Allow: true, TTL: 1}}, "", now)
		fx.Reset()
		fx.Now = now
		c.Handle(publishOf(topic, 0, 0), fx)
		if len(fx.Up.Frames) != 1 {
			t.Fatalf("%s is not passed on after the answer", topic)
		}
		return true
	}
	for _, x := range []struct {
		at   int64
		want bool
	}{{0, true}, {999, false}, {1000, true}, {1001, false}} {
		if got := asks("a", x.at); got != x.want {
			t.Errorf("at %d ms it asks: %v", x.at, got)
		}
	}
	for i := range 255 {
		asks(fmt.Sprint("b/", i), 1001)
	}
	if asks("a", 1001) {
		t.Error("a is forgotten among 256 topics")
	}
	asks("c", 1001)
	if !asks("b/0", 1001) || asks("a", 1001) {
		t.Error("the topic that was not used for longest is kept, or another is not")
	}
	// A topic alias that comes with a question is known when the packet is handled again.
	fx.Reset()
	fx.Now = 1001
	c.Handle(publishOf("aliased", 0, 3), fx)
	aliased := fx.Asking
	if len(aliased.Items) != 1 || aliased.Items[0].Topic != "aliased" {
		t.Fatalf("asked %+v", aliased)
	}
	c.Answer(&aliased, []tenancy.CheckVerdict{{Allow: true, TTL: 1}}, "", 1001)
	for _, topic := range []string{"aliased", ""} {
		fx.Reset()
		fx.Now = 1001
		c.Handle(publishOf(topic, 0, 3), fx)
		if len(fx.Up.Frames) != 1 || string(fx.Up.Frames[0].Message.Topic) != "aliased" {
			t.Errorf("%q with the alias: %+v", topic, fx.Up.Frames)
		}
	}
	c.Regrant(granted(t, oneEntry("#", 2)).Asking())
	if !asks("a", 1001) {
		t.Error("another grant remembers what was said under the last one")
	}
	// An answer that was asked for under another grant is good for nothing.
	fx.Reset()
	c.Handle(publishOf("d", 0, 0), fx)
	a := fx.Asking
	c.Regrant(granted(t, oneEntry("#", 2)).Asking())
	c.Answer(&a, []tenancy.CheckVerdict{{Allow: true, TTL: 60}}, "", 0)
	if !asks("d", 0) {
		t.Error("an answer to a former grant counts")
	}
}

// TestCheck_ReducesHeld: of what a session holds what mqtt.check denies, or says nothing
// of, is taken away.
func TestCheck_ReducesHeld(t *testing.T) {
	one := mqtt.AtLeastOnce
	c, _ := accepted(t, 1<<20, granted(t, oneEntry("#", 2)).Asking(), nil)
	r := c.Reduce([]mqtt.Subscription{{Filter: "a", QoS: 2}, {Filter: "b"}, {Filter: "c", QoS: 2}, {Filter: "d"}}, map[string]tenancy.CheckVerdict{
		"a": {Allow: true}, "b": {}, "c": {Allow: true, QoS: &one},
	})
	if got := fmt.Sprintf("%v %v", r.Gone, r.Lower); !strings.HasPrefix(got, "[b d] [{c ") || len(r.Lower) != 1 || r.Lower[0].QoS != 1 {
		t.Errorf("got %s", got)
	}
}
