// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/manormq/manor/gateway"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// opensAt counts the Opens of each broker, and looks at all.
func (r *region) opensAt(t *testing.T, right func(o *link.Open) bool) (at []int) {
	t.Helper()
	for i, b := range r.brokers {
		b.mu.Lock()
		at = append(at, len(b.opens))
		for _, o := range b.opens {
			if !right(&o) {
				t.Errorf("broker %d was asked for %s: %d partitions, placement %d", i, o.ClientID, o.Partitions, o.Placement)
			}
		}
		b.mu.Unlock()
	}
	return at
}

func upTo(n uint16) (all []uint16) {
	for p := range n {
		all = append(all, p)
	}
	return all
}

// A gateway goes where the cell of the tenant is: what it was told, else what it draws;
// brokers hear by what it has chosen.
func TestCells_Chosen(t *testing.T) {
	for name, c := range map[string]struct {
		cells     []link.TableCell
		m         int
		cell      []uint16
		placement uint64
	}{
		"told":       {[]link.TableCell{{Tenant: "acme", Revision: 3, Partitions: []uint16{6, 7}}}, 2, []uint16{6, 7}, 3},
		"drawn":      {nil, 2, link.Cell("acme", 2, upTo(6)), 0},
		"given back": {[]link.TableCell{{Tenant: "acme", Revision: 4}}, 2, link.Cell("acme", 2, upTo(6)), 4},
		"all":        {[]link.TableCell{{Tenant: "beta", Revision: 3, Partitions: []uint16{6}}}, 0, upTo(6), 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := startRegion(t, 3, true, nil)
			r.brokers[0].link(link.DownFrame{Kind: link.DownTable, Table: &link.TableUpdate{Partitions: partitions, Brokers: r.table.Brokers, Shared: 6, Cells: c.cells}})
			r.dir.edit("acme", func(t *tenancy.Tenant) { t.Partitions = c.m })
			want := make([]int, 3)
			for i := range 12 {
				id := fmt.Sprint("client-", i)
				r.dial("mqtt").mustConnect(hello(id))
				want[int(link.Choose(c.cell, id))%3]++
			}
			got := r.opensAt(t, func(o *link.Open) bool { return int(o.Partitions) == c.m && o.Placement == c.placement })
			if fmt.Sprint(got) != fmt.Sprint(want) || r.metric("mqtt_gateway_opens_total") > 0 {
				t.Errorf("the brokers were asked %v times, expected %v, and nobody to wait", got, want)
			}
		})
	}
}

// A broker says that the client belongs to another partition: the gateway goes there, at
// once; and not at once again and again, where brokers say different things.
func TestCells_AnotherPartition(t *testing.T) {
	r := startRegion(t, 3, true, nil)
	r.brokers[0].refuses(&link.Moved{Partition: 5, Epoch: 1, Broker: "b2"})
	begun := time.Now()
	r.dial("mqtt").mustConnect(hello(idIn(0, 0)))
	if took := time.Since(begun); r.brokers[0].opened() != 1 || r.brokers[2].opened() != 1 || r.brokers[1].opened() != 0 {
		t.Errorf("the brokers were asked %d, %d and %d times in %v", r.brokers[0].opened(), r.brokers[1].opened(), r.brokers[2].opened(), took)
	}
	r.brokers[2].refuses(&link.Moved{Partition: 0, Epoch: 1, Broker: "b0"})
	c := r.hello("mqtt", idIn(0, 1))
	r.waiting(1)
	r.eventually("it is asked again and again", func() bool { return r.brokers[2].opened() >= 4 })
	if n, most := r.brokers[0].opened()+r.brokers[2].opened(), 20+int(time.Since(begun)/(50*time.Millisecond)); n > most {
		t.Errorf("the brokers were asked %d times in %v", n, time.Since(begun))
	}
	r.brokers[0].refuses(nil)
	c.welcome()
}

// Who waits at a broker that lets nobody of the tenant in goes where the tenant is at once when
// its new cell is told, clients that come and clients whose connection goes on; nobody waits
// until one of them has asked there.
func TestCells_PlacedWhileTheyWait(t *testing.T) {
	const n = 40
	for _, name := range []string{"come", "go on"} {
		t.Run(name, func(t *testing.T) {
			r := startRegion(t, 2, true, nil)
			here := &link.Moved{Partition: 0, Epoch: 1, Broker: "b0"}
			var clients []*client
			switch name {
			case "come":
				r.brokers[0].refuses(here)
				for i := range n {
					clients = append(clients, r.hello("mqtt", idIn(0, i)))
				}
			case "go on":
				for i := range n {
					clients = append(clients, r.dial("mqtt").mustConnect(hello(idIn(0, i))))
				}
				r.pause(0, n)
				r.brokers[0].refuses(here)
				r.brokers[0].down(link.DownFrame{Kind: link.DownMoved, Moved: here})
			}
			r.waiting(n)
			begun := time.Now()
			r.brokers[0].link(link.DownFrame{Kind: link.DownTable, Table: &link.TableUpdate{
				Partitions: partitions, Brokers: r.table.Brokers, Shared: partitions, Cells: []link.TableCell{{Tenant: "acme", Revision: 2, Partitions: []uint16{1}}},
			}})
			r.eventually("the new owner is asked for all", func() bool { return r.brokers[1].opened() >= n })
			if took := time.Since(begun); took > n*100*time.Millisecond/2 {
				t.Errorf("it takes %v until all are where the tenant is", took)
			}
			if o := r.brokers[1].lastOpen(); o.Placement != 2 {
				t.Errorf("the new owner was asked for %+v", o)
			}
			for _, c := range clients {
				if name == "come" {
					c.welcome()
					continue
				}
				c.send(&packet.Packet{Type: packet.PINGREQ})
				c.want(packet.PINGRESP)
			}
			if got := r.brokers[1].opened(); got != n {
				t.Errorf("the new owner was asked %d times for %d clients", got, n)
			}
		})
	}
}

// helloOfBeta is hello of a client of tenant beta.
func (r *region) helloOfBeta(id string) *client {
	c := r.dial("mqtt")
	p := hello(id)
	p.Username = "beta:dev"
	c.send(&packet.Packet{Type: packet.CONNECT, Connect: p})
	return c
}

// refusesOnly has a broker let in nobody of some clients.
func (b *fakeBroker) refusesOnly(clients map[mqtt.ClientID]bool, m *link.Moved) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.moved = func(id mqtt.ClientID) *link.Moved {
		if clients[id] {
			return m
		}
		return nil
	}
}

// A tenant of whom nobody is let in does not keep others from being tried who wait for the same
// partition behind it.
func TestCells_HeldTenant(t *testing.T) {
	r := startRegion(t, 1, true, nil)
	here := &link.Moved{Partition: 0, Epoch: 1, Broker: "b0"}
	r.brokers[0].refuses(here)
	const n = 8
	held := map[mqtt.ClientID]bool{}
	for i := range n {
		r.helloOfBeta(idIn(0, i))
		held[mqtt.ClientID(idIn(0, i))] = true
	}
	r.waiting(n)
	var others []*client
	for i := range n {
		others = append(others, r.hello("mqtt", idIn(0, n+i)))
	}
	r.waiting(2 * n)
	r.brokers[0].refusesOnly(held, here)
	for _, c := range others {
		c.welcome()
	}
	r.waiting(n)
}

// A newer cell of one tenant has its clients tried, and not all others that wait for the same
// partition, whose owner does not serve it yet.
func TestCells_RefusalStays(t *testing.T) {
	r := startRegion(t, 1, true, nil)
	r.brokers[0].refuses(&link.Moved{Partition: 0, Epoch: 1, Broker: "b0"})
	const n = 60
	for i := range n {
		r.hello("mqtt", idIn(0, i))
	}
	r.waiting(n)
	r.helloOfBeta(idIn(0, n))
	r.waiting(n + 1)
	before := r.brokers[0].opened()
	for revision := range uint64(5) {
		r.brokers[0].link(link.DownFrame{Kind: link.DownTable, Table: &link.TableUpdate{
			Partitions: partitions, Brokers: r.table.Brokers, Shared: partitions, Cells: []link.TableCell{{Tenant: "beta", Revision: 2 + revision, Partitions: []uint16{0}}},
		}})
		r.eventually("its client is asked for by the new record", func() bool {
			b := r.brokers[0]
			b.mu.Lock()
			defer b.mu.Unlock()
			return slices.ContainsFunc(b.opens, func(o link.Open) bool { return o.Tenant == "beta" && o.Placement == 2+revision })
		})
	}
	if asked := r.brokers[0].opened() - before; asked > n {
		t.Errorf("the owner was asked %d times because of one client of another tenant", asked)
	}
}

// agedBroker is one of before cells.
type agedBroker struct{ link.Broker }

func (agedBroker) Features() uint32 { return link.FeatureOwners | link.FeatureMoves }

// A broker that knows no cells is asked for nobody who has one: it would make a second
// session. A tenant of all partitions is served.
func TestCells_OlderBroker(t *testing.T) {
	r := startRegion(t, 1, true, func(c *gateway.Config) {
		dial := c.Dial
		c.Dial = func(ctx context.Context, to link.TableBroker, gw link.Gateway) (link.Broker, error) {
			b, err := dial(ctx, to, gw)
			return agedBroker{b}, err
		}
		c.OwnerWait = 400 * time.Millisecond
	})
	r.dial("mqtt").mustConnect(hello("one"))
	r.dir.edit("acme", func(t *tenancy.Tenant) { t.Partitions = 2 })
	c := r.hello("mqtt", "two")
	if k := c.want(packet.CONNACK).Connack; k.Reason != mqtt.ServerUnavailable {
		t.Errorf("CONNACK %v", k.Reason)
	}
	if n := r.brokers[0].opened(); n != 1 {
		t.Errorf("the broker was asked %d times", n)
	}
	if o := r.brokers[0].lastOpen(); o.Partitions != 0 || o.Placement != 0 {
		t.Errorf("the broker was told of cells: %+v", o)
	}
}

// Who waits for a partition when a table of another size comes goes on in its new one.
func TestCells_Regroup(t *testing.T) {
	r := startRegion(t, 2, false, nil)
	c := r.hello("mqtt", "client")
	r.waiting(1)
	u := &link.TableUpdate{Partitions: 2 * partitions, Brokers: r.table.Brokers, Shared: 2*partitions - 1}
	p := link.Choose(upTo(2*partitions-1), "client")
	u.Owners = []link.TableOwner{{Partition: p, Epoch: 1, Broker: "b1"}}
	r.brokers[0].link(link.DownFrame{Kind: link.DownTable, Table: u})
	c.welcome()
	if r.brokers[1].opened() != 1 {
		t.Error("its owner was not asked")
	}
}
