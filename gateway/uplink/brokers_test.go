// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/link"
)

// region is brokers at addresses, some of which answer.
type region struct {
	mu    sync.Mutex
	up    map[string]bool         // by address
	links map[string][]*fakeLink  // by address, those that are open
	dials map[string]int          // by address
	named map[string]string       // the name under which an address was dialled last
	lost  map[*Link[int]]struct{} // that Lost was called for
	news  int                     // calls of Changed
}

type fakeLink struct {
	r    *region
	addr string
	gw   link.Gateway
}

func (*fakeLink) Send(*link.Up) error { return nil }
func (*fakeLink) Post(*link.Up) error { return nil }
func (*fakeLink) Flush()              {}
func (l *fakeLink) Close() error {
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	l.r.links[l.addr] = slices.DeleteFunc(l.r.links[l.addr], func(o *fakeLink) bool { return o == l })
	return nil
}

func (*region) Receive(*Link[int], *link.Down) {}
func (*region) Flush()                         {}
func (*region) FlushEarly()                    {}
func (r *region) Lost(l *Link[int], _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost[l] = struct{}{}
	l.Channels.All(func(*int) {})
}

func (r *region) dial(name, addr string, gw link.Gateway) (link.Broker, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dials[addr]++
	r.named[addr] = name
	if !r.up[addr] {
		return nil, errors.New("refused")
	}
	l := &fakeLink{r, addr, gw}
	r.links[addr] = append(r.links[addr], l)
	return l, nil
}

// set has an address answer or not; in the second case its links are lost.
func (r *region) set(addr string, up bool) {
	r.mu.Lock()
	r.up[addr] = up
	var lost []*fakeLink
	if !up {
		lost, r.links[addr] = r.links[addr], nil
	}
	r.mu.Unlock()
	for _, l := range lost {
		l.gw.Lost(errors.New("gone"))
	}
	synctest.Wait()
}

func (r *region) changes() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.news
}

func (r *region) open(addr string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.links[addr])
}

// tell has the broker at addr tell u on one of its links.
func (r *region) tell(t *testing.T, addr string, u link.TableUpdate) {
	t.Helper()
	r.mu.Lock()
	if len(r.links[addr]) == 0 {
		t.Fatalf("there is no link to %s", addr)
	}
	gw := r.links[addr][0].gw
	r.mu.Unlock()
	gw.Receive(&link.Down{Frames: []link.DownFrame{{Kind: link.DownTable, Table: &u}}})
	synctest.Wait()
}

// inRegion runs test in a bubble with Brokers of those seeds.
func inRegion(t *testing.T, seeds []string, test func(t *testing.T, r *region, b *Brokers[int])) {
	synctest.Test(t, func(t *testing.T) {
		r := &region{up: map[string]bool{}, links: map[string][]*fakeLink{}, dials: map[string]int{}, named: map[string]string{}, lost: map[*Link[int]]struct{}{}}
		c := BrokersConfig[int]{
			Links: 2, Handler: r, Log: slog.New(slog.DiscardHandler),
			Dial: func(_ context.Context, b link.TableBroker, gw link.Gateway) (link.Broker, error) {
				return r.dial(b.Name, b.Address, gw)
			},
			Changed: func() {
				r.mu.Lock()
				r.news++
				r.mu.Unlock()
			},
		}
		for _, addr := range seeds {
			r.up[addr] = true
			c.Seeds = append(c.Seeds, DialerFunc(func(_ context.Context, gw link.Gateway) (link.Broker, error) { return r.dial("", addr, gw) }))
		}
		b := NewBrokers(c)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { b.Run(ctx); close(done) }()
		synctest.Wait()
		test(t, r, b)
		cancel()
		<-done
		for addr, links := range r.links {
			if len(links) > 0 {
				t.Errorf("%d links to %s are open after Run", len(links), addr)
			}
		}
	})
}

var (
	b1 = link.TableBroker{Name: "b1", Address: "h1:1"}
	b2 = link.TableBroker{Name: "b2", Address: "h2:1"}
	b3 = link.TableBroker{Name: "b3", Address: "h3:1"}
)

// table is one of four partitions, owned as named; "" is told too.
func table(epoch uint64, brokers []link.TableBroker, owners ...string) link.TableUpdate {
	u := link.TableUpdate{Partitions: 4, Brokers: brokers}
	for p, name := range owners {
		u.Owners = append(u.Owners, link.TableOwner{Partition: uint16(p), Epoch: epoch, Broker: name})
	}
	return u
}

// in is a client id of each of four partitions.
var in = func() (out [4]string) {
	for i := 0; slices.Contains(out[:], ""); i++ {
		id := fmt.Sprint("c", i)
		out[link.Choose([]uint16{0, 1, 2, 3}, id)] = id
	}
	return out
}()

// owners are the brokers to which clients of each partition get links; "-" is none.
func owners(b *Brokers[int]) (out [4]string) {
	for p, id := range in {
		l, got := pick(b, id)
		switch {
		case l == nil:
			out[p] = "-"
		case int(got) != p && b.table.Partitions() > 0:
			out[p] = fmt.Sprint("partition ", got)
		default:
			out[p] = l.To()
		}
	}
	return out
}

func wantOwners(t *testing.T, b *Brokers[int], want ...string) {
	t.Helper()
	if got := owners(b); !slices.Equal(got[:], want) {
		t.Errorf("the links lead to %q, want %q", got, want)
	}
}

// Without a table there is one broker.
func TestBrokers_OneWithoutATable(t *testing.T) {
	inRegion(t, []string{"h1:1"}, func(t *testing.T, r *region, b *Brokers[int]) {
		wantOwners(t, b, "", "", "", "")
		if r.open("h1:1") != 2 || b.Up() != 2 {
			t.Errorf("%d links, %d up", r.open("h1:1"), b.Up())
		}
		r.set("h1:1", false)
		wantOwners(t, b, "-", "-", "-", "-")
		before := r.changes()
		r.set("h1:1", true)
		time.Sleep(10 * time.Second)
		if r.changes() != before+2 {
			t.Errorf("Changed was called %d times for two links that came up", r.changes()-before)
		}
		wantOwners(t, b, "", "", "", "")
	})
}

// Two brokers tell a part each; links to both, and the seed's go.
func TestBrokers_TablesAreMerged(t *testing.T) {
	inRegion(t, []string{"lb:1"}, func(t *testing.T, r *region, b *Brokers[int]) {
		r.up["h1:1"], r.up["h2:1"] = true, true
		both := []link.TableBroker{b1, b2}
		before := r.changes()
		r.tell(t, "lb:1", table(3, both, "b1", "b1"))
		if r.changes() == before {
			t.Error("Changed was not called")
		}
		wantOwners(t, b, "b1", "b1", "-", "-")
		r.tell(t, "h2:1", link.TableUpdate{Partitions: 4, Brokers: both, Owners: []link.TableOwner{
			{Partition: 0, Epoch: 2, Broker: "b2"}, {Partition: 2, Epoch: 1, Broker: "b2"}, {Partition: 3, Epoch: 1},
		}})
		wantOwners(t, b, "b1", "b1", "b2", "-")
		time.Sleep(2 * time.Second)
		if r.open("lb:1") != 0 || r.open("h1:1") != 2 || r.open("h2:1") != 2 {
			t.Errorf("%d links to the seed, %d and %d to the brokers; want 0, 2 and 2", r.open("lb:1"), r.open("h1:1"), r.open("h2:1"))
		}
		if r.named["h1:1"] != "b1" || r.named["h2:1"] != "b2" {
			t.Errorf("dialled as %v", r.named)
		}
		// One broker is lost: the other's clients have their links.
		r.set("h1:1", false)
		wantOwners(t, b, "-", "-", "b2", "-")
		r.tell(t, "h2:1", table(4, both, "b2", "b2"))
		wantOwners(t, b, "b2", "b2", "b2", "-")
		if b.Moved(&link.Moved{Partition: 2, Epoch: 1, Broker: "b1"}) || !b.Moved(&link.Moved{Partition: 3, Epoch: 2, Broker: "b2"}) {
			t.Error("Moved takes an old entry, or no newer one")
		}
		wantOwners(t, b, "b2", "b2", "b2", "b2")
	})
}

// A seed's links stay while they have channels, and take no new ones.
func TestBrokers_LinksEndWithTheirChannels(t *testing.T) {
	inRegion(t, []string{"lb:1"}, func(t *testing.T, r *region, b *Brokers[int]) {
		old, _ := pick(b, in[0])
		v := 0
		ch, err := old.Channels.Add(&v)
		if err != nil {
			t.Fatal(err)
		}
		r.up["h1:1"], r.up["h2:1"] = true, true
		r.tell(t, "lb:1", table(1, []link.TableBroker{b1, b2}, "b1", "b2", "b1", "b2"))
		time.Sleep(time.Minute)
		wantOwners(t, b, "b1", "b2", "b1", "b2")
		if r.open("lb:1") == 0 || len(r.lost) > 0 {
			t.Fatal("the link of a channel was closed")
		}
		old.Channels.Remove(ch)
		time.Sleep(2 * time.Second)
		if r.open("lb:1") != 0 {
			t.Error("the seed's links are still there")
		}
		if _, err := old.Channels.Add(&v); !errors.Is(err, ErrEnds) {
			t.Errorf("Add on a link that has ended: %v", err)
		}
		if _, told := r.lost[old]; !told {
			t.Error("Lost was not called for a link that is closed while the others go on")
		}

		// A broker leaves the table.
		leaving, _ := pick(b, in[1])
		if ch, err = leaving.Channels.Add(&v); err != nil {
			t.Fatal(err)
		}
		r.tell(t, "h1:1", table(2, []link.TableBroker{b1}, "b1", "b1", "b1", "b1"))
		time.Sleep(time.Minute)
		wantOwners(t, b, "b1", "b1", "b1", "b1")
		if r.open("h2:1") == 0 {
			t.Fatal("the link of a channel to a broker that has left was closed")
		}
		leaving.Channels.Remove(ch)
		time.Sleep(2 * time.Second)
		dials := r.dials["h2:1"]
		if r.open("h2:1") != 0 || b.Up() != 2 {
			t.Errorf("%d links to the broker that has left, %d in all", r.open("h2:1"), b.Up())
		}
		time.Sleep(time.Minute)
		if r.dials["h2:1"] != dials {
			t.Error("a broker that has left is dialled")
		}
	})
}

// A broker that tells of itself alone takes nothing from one that owns partitions.
func TestBrokers_OwnersStay(t *testing.T) {
	inRegion(t, []string{"h1:1"}, func(t *testing.T, r *region, b *Brokers[int]) {
		r.up["h2:1"] = true
		r.tell(t, "h1:1", table(1, []link.TableBroker{b1, b2}, "b1", "b1", "b2", "b2"))
		r.tell(t, "h2:1", table(0, []link.TableBroker{b2}))
		time.Sleep(time.Minute)
		wantOwners(t, b, "b1", "b1", "b2", "b2")
		r.tell(t, "h2:1", table(2, []link.TableBroker{b2}, "b2", "b2"))
		time.Sleep(time.Minute)
		wantOwners(t, b, "b2", "b2", "b2", "b2")
		if n := r.open("h1:1"); n != 0 {
			t.Errorf("%d links to who owns nothing and is not told", n)
		}
	})
}

// A broker comes back at another address; one that has left is not dialled, though
// its links were lost before.
func TestBrokers_AnotherAddress(t *testing.T) {
	inRegion(t, []string{"h1:1"}, func(t *testing.T, r *region, b *Brokers[int]) {
		r.up["h2:1"], r.up["h2:9"] = true, true
		r.tell(t, "h1:1", table(1, []link.TableBroker{b1, b2}, "b1", "b2", "b1", "b2"))
		wantOwners(t, b, "b1", "b2", "b1", "b2")
		r.set("h2:1", false)
		wantOwners(t, b, "b1", "-", "b1", "-")
		moved := link.TableBroker{Name: "b2", Address: "h2:9"}
		r.tell(t, "h1:1", table(1, []link.TableBroker{b1, moved}))
		wantOwners(t, b, "b1", "b2", "b1", "b2")
		time.Sleep(2 * time.Second)
		dials := r.dials["h2:1"]
		time.Sleep(time.Minute)
		if r.dials["h2:1"] != dials || r.open("h2:9") != 2 {
			t.Errorf("the old address is still dialled, or the new one has %d links", r.open("h2:9"))
		}
	})
}

// When no broker of the table answers any more, the seeds are asked again.
func TestBrokers_SeedsComeBack(t *testing.T) {
	inRegion(t, []string{"lb:1"}, func(t *testing.T, r *region, b *Brokers[int]) {
		r.up["h1:1"] = true
		r.tell(t, "lb:1", table(1, []link.TableBroker{b1}, "b1", "b1", "b1", "b1"))
		time.Sleep(time.Minute)
		if r.open("lb:1") != 0 {
			t.Fatal("the seed's links are still there")
		}
		r.set("h1:1", false)
		time.Sleep(8 * time.Second)
		if r.open("lb:1") != 2 {
			t.Fatalf("%d links to the seed", r.open("lb:1"))
		}
		wantOwners(t, b, "-", "-", "-", "-") // the seed may lead to anybody
		r.up["h3:1"] = true
		r.tell(t, "lb:1", table(2, []link.TableBroker{b3}, "b3", "b3", "b3", "b3"))
		wantOwners(t, b, "b3", "b3", "b3", "b3")
	})
}

// With no way to dial brokers of the table the seed leads to all of them, as in one
// process.
func TestBrokers_TheSeedIsEverybody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &nobody{}
		b := NewBrokers(BrokersConfig[int]{
			Handler: h, Log: slog.New(slog.DiscardHandler),
			Seeds: []Dialer{DialerFunc(func(context.Context, link.Gateway) (link.Broker, error) { return h, nil })},
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { b.Run(ctx); close(done) }()
		synctest.Wait()
		u := table(1, []link.TableBroker{b1}, "b1", "b1", "b1")
		b.tell(&u)
		synctest.Wait()
		wantOwners(t, b, "", "", "", "-")
		cancel()
		<-done
	})
}

// pick is Pick for a client of a tenant of all partitions, with its partition.
func pick(b *Brokers[int], clientID string) (*Link[int], uint16) {
	partition, _ := b.Partition("acme", 0, clientID)
	return b.Pick(partition, "acme", clientID), partition
}
