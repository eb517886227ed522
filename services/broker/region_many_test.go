// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

var (
	many     = flag.Int("many", 0, "how many sessions without a connection TestRegion_PlacedMany has beside those that talk; 0 leaves it out")
	manyEach = flag.Int("each", 2, "how many messages wait in each of them")
)

// crowdLink is a link that many sessions are opened over, which counts what is answered.
type crowdLink struct {
	mu       sync.Mutex
	answered map[link.DownKind]int
}

func (c *crowdLink) Features() uint32 { return link.FeatureOwners | link.FeatureCells }
func (c *crowdLink) Flush()           {}
func (c *crowdLink) Lost(error)       {}
func (c *crowdLink) Receive(b *link.Down) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range b.Frames {
		c.answered[b.Frames[i].Kind]++
	}
}

func (c *crowdLink) count(kind link.DownKind) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answered[kind]
}

// populate makes n sessions with a subscription each, in the one partition of the tenant, and
// has each messages wait in every one of them.
func (w *town) populate(n, each int) {
	w.t.Helper()
	w.connect("first", 3600) // draws the cell
	cell, _ := w.brokers[0].region.layout.Cell(w.tenant)
	var at *house
	for _, h := range w.brokers {
		if owner, _ := h.region.Owner(cell.Partitions[0]); owner == h.name {
			at = h
		}
	}
	c := &crowdLink{answered: map[link.DownKind]int{}}
	b := at.Attach(c)
	send := func(f link.UpFrame) {
		if err := b.Send(&link.Up{Frames: []link.UpFrame{f}}); err != nil {
			w.t.Fatal(err)
		}
	}
	for i := 1; i <= n; i++ {
		id := mqtt.ClientID(fmt.Sprint("many-", i))
		send(link.UpFrame{Kind: link.UpOpen, Channel: link.Channel(i), Open: &link.Open{
			Tenant: w.tenant, ClientID: id, Partitions: w.spread, SessionExpiry: 3600, ReceiveMaximum: 10, Credit: 1 << 20, Limits: limitless,
		}})
		send(link.UpFrame{Kind: link.UpSubscribe, Channel: link.Channel(i), PacketID: 1, Subscribe: []mqtt.Subscription{
			{Filter: "many/all", QoS: mqtt.AtLeastOnce}, {Filter: "many/" + string(id), QoS: mqtt.AtLeastOnce},
		}})
	}
	b.Flush()
	w.eventually("opened", func() string {
		if k := c.count(link.DownSuback); k < n {
			return fmt.Sprintf("%d of %d", k, n)
		}
		return ""
	})
	_ = b.Close()
	x := w.connect("publisher", 0)
	for i := range each {
		x.publish(mqtt.AtLeastOnce, "many/all", fmt.Sprint("message ", i), uint16(i)+1)
		for f := range x.frames {
			if f.Kind == link.DownAck {
				break
			}
		}
	}
}

// What a move of many sessions takes: -many says how many. It prints what clients that talk notice.
func TestRegion_PlacedMany(t *testing.T) {
	if *many == 0 {
		t.Skip("measures a move of as many sessions as -many says")
	}
	w := newTown(t, 3)
	w.spread, w.tenant = 1, "acme"
	w.populate(*many, *manyEach)
	unbroken(t, w, func() {
		for _, m := range []int{2, 4, 1} {
			l := w.brokers[0].region.layout
			old, _ := l.Cell(w.tenant)
			list := l.Draw(w.tenant, m)
			begun := time.Now()
			c, err := l.Move(t.Context(), w.tenant, list, 1)
			if err != nil {
				t.Fatal(err)
			}
			w.eventually("arrived", func() string {
				for _, h := range w.brokers {
					if now, _ := h.region.layout.Cell(w.tenant); now.Stage != 0 || now.Revision < c.Revision+1 {
						return fmt.Sprintf("%s has %+v", h.name, now)
					}
				}
				return ""
			})
			t.Logf("%d sessions from %d to %d partitions, about %.0f of them moved: %v", *many, len(old.Partitions), m, float64(*many)*leaving(old.Partitions, list), time.Since(begun).Round(time.Millisecond))
			time.Sleep(time.Second) // clients send and get what has waited
		}
	})
}
