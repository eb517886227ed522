// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
)

// clientIn gives a client id that lives in partition p of 8.
func clientIn(p partition.ID, prefix string) string {
	cell := []partition.ID{0, 1, 2, 3, 4, 5, 6, 7}
	for i := 0; ; i++ {
		id := fmt.Sprintf("%s-%d", prefix, i)
		if partition.Choose(cell, id) == p {
			return id
		}
	}
}

// Two filters, or a filter and a group, match in one partition of another
// shard: each receiver has the exact publish.
func TestExact_TwoOfOnePartition(t *testing.T) {
	for _, second := range []string{"t/x", "$share/g/t/x"} {
		w := newWorld(t, 2, false)
		a := w.connect(clientIn(1, "a"), persistent)
		b := w.connect(clientIn(1, "b"), persistent)
		p := w.connect(clientIn(0, "p"), persistent)
		a.subscribe("t/+", 2)
		b.subscribe(second, 2)
		p.publish(1, "t/x", "hello", 2)
		p.wantAck(mqtt.Pubrec, 1)
		w.settle()
		a.wantDeliver("hello", 2)
		b.wantDeliver("hello", 2)
	}
}

// A body stays as long as an entry refers to it, even if its first receiver
// drops the message as expired at once; and what cannot be read holds up nothing.
func TestBody_OutlivesAnExpiredReceiver(t *testing.T) {
	w := newWorld(t, 1, false)
	a := w.connect(clientIn(1, "a"), persistent)
	bid := clientIn(1, "b")
	b := w.connect(bid, persistent)
	a.subscribe("t", 1)
	b.subscribe("t", 1)
	b.close(link.CloseLost)
	p := w.connect("p", persistent)
	m := message("t", string(make([]byte, 2000)), 1, false)
	m.HasExpiry, m.Expiry = true, 0
	p.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: m})
	p.wantAck(mqtt.Puback, 1)
	p.publish(2, "t", "important", 1)
	p.wantAck(mqtt.Puback, 2)
	w.settle()
	w.restart(1)
	b = w.connect(bid, persistent)
	b.wantDeliver("important", 1)
}

// A session stands in the heap of deadlines once, however often it comes and
// goes.
func TestDeadlines_OneForEachSession(t *testing.T) {
	w := newWorld(t, 1, false)
	for range 500 {
		c := w.connect("flap", expiry(3600*24*365))
		c.close(link.CloseNormal)
	}
	w.settle()
	ch := make(chan int, 1)
	w.set.shards[0].call(func() { ch <- len(w.set.shards[0].deadlines) })
	if n := <-ch; n > 10 {
		t.Fatalf("%d entries in the heap for one session", n)
	}
}

// A session whose expiry has become 0 ends with its connection, also when another
// connection takes over [MQTT-3.1.2.11.2].
func TestTakeOver_EndsASessionWithoutExpiry(t *testing.T) {
	w := newWorld(t, 1, false)
	c := w.connect("c", persistent)
	c.subscribe("t", 1)
	c.close(link.CloseNormal)
	w.connect("c", func(o *link.Open) { o.CleanStart, o.SessionExpiry = false, 0 })
	c = w.open("c", func(o *link.Open) { o.CleanStart, o.SessionExpiry = false, 0 })
	if r := c.want(link.DownOpened); r.SessionPresent {
		t.Fatal("session present though its Session Expiry Interval was 0 when its connection was closed")
	}
}

// A link that has ended leaves no open batch in any shard.
func TestLinks_LeaveNothingBehind(t *testing.T) {
	w := newWorld(t, 1, false)
	for range 50 {
		w.gw, w.link = w.attach()
		c := w.connect("c")
		c.close(link.CloseNormal)
		w.settle()
		_ = w.link.Close()
	}
	w.gw, w.link = w.attach()
	w.settle()
	ch := make(chan int, 1)
	w.set.shards[0].call(func() { ch <- len(w.set.shards[0].outs) })
	if n := <-ch; n > 5 {
		t.Fatalf("%d open batches for one live link", n)
	}
}

// A member that ends before its delivery is committed leaves it to another one.
func TestShared_MemberEndsBeforeTheCommit(t *testing.T) {
	w := newWorld(t, 1, false)
	a := w.connect("a", persistent)
	a.subscribe("$share/g/t", 1)
	b := w.connect("b", persistent)
	p := w.connect("p", persistent)
	// one turn: publish goes to a, and a ends; then b is a member already.
	b.subscribe("$share/g/t", 1)
	zero := uint32(0)
	up := &link.Up{}
	for i := range 2 {
		up.Frames = append(up.Frames, link.UpFrame{Kind: link.UpPublish, Channel: p.id, PacketID: uint16(i + 1), Message: message("t", fmt.Sprint("m", i), 1, false)})
	}
	up.Frames = append(up.Frames, link.UpFrame{Kind: link.UpClose, Channel: a.id, Close: &link.Close{Cause: link.CloseNormal, SessionExpiry: zero, HasSessionExpiry: true}})
	if err := w.link.Send(up); err != nil {
		t.Fatal(err)
	}
	w.link.Flush()
	p.wantAck(mqtt.Puback, 1)
	p.wantAck(mqtt.Puback, 2)
	w.settle()
	got := map[string]bool{}
	for {
		r, ok := b.next(0)
		if !ok {
			break
		}
		got[string(r.msg.Payload)] = true
	}
	if len(got) != 2 {
		t.Fatalf("the remaining member got %v of m0 and m1, both acknowledged", got)
	}
}

// A crash cannot leave a target's commit without the origin's: no number is given
// twice, and no message is lost or doubled.
func TestCrash_BetweenTargetAndOrigin(t *testing.T) {
	store := mem.New()
	cfg := Config{Store: store, Partitions: 8, Shards: 2, Sync: partition.Sync{Every: -1}, Now: func() int64 { return 1_000_000 }, Log: slog.New(slog.DiscardHandler)}
	w := &world{t: t, store: store}
	w.clock.Store(1_000_000)
	w.start(2)
	sub := clientIn(1, "s")
	p1, p2 := clientIn(0, "p"), clientIn(0, "q")
	s := w.connect(sub, persistent)
	s.subscribe("t", 2)
	w.connect(p1, persistent)
	w.connect(p2, persistent)
	w.settle()
	w.stop()

	// A run of which I drive the turns: A is busy with a turn while B takes
	// what A left in its mailbox, and B's batch is committed first.
	set, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	flushCommits := func() { ctx, c := context.WithCancel(context.Background()); c(); _ = set.committer.Run(ctx) }
	drain := func() {
		for range 4 {
			for _, x := range set.shards {
				if x.acquire() {
					r := runs.Get().(*run)
					x.turn(nil, nil, r)
				}
			}
			flushCommits()
		}
	}
	drain()
	gw := &gateway{clients: map[link.Channel]*client{}, answers: make(chan uint64, 8)}
	l := set.Attach(gw)
	pub := &client{w: w, id: 1}
	gw.clients[1] = pub
	if err := l.Send(&link.Up{Frames: []link.UpFrame{{Kind: link.UpOpen, Channel: 1, Open: &link.Open{Tenant: "acme", ClientID: mqtt.ClientID(p1), SessionExpiry: 3600, ReceiveMaximum: 20, Credit: 1 << 30, Limits: unlimited}}}}); err != nil {
		t.Fatal(err)
	}
	drain()
	A, B := set.shards[0], set.shards[1]
	if !A.acquire() {
		t.Fatal("A is busy")
	}
	A.run = runs.Get().(*run)
	A.frame(l.mu.channels[1], &link.UpFrame{Kind: link.UpPublish, Channel: 1, PacketID: 1, Message: message("t", "X", 2, false)})
	// meanwhile, on another thread:
	if !B.acquire() {
		t.Fatal("B is busy")
	}
	B.turn(nil, nil, runs.Get().(*run))
	flushCommits()
	// kill -9 here: A's batch was never submitted.

	w.start(2)
	defer func() { w.stop() }()
	q := w.connect(p2, persistent)
	q.publish(7, "t", "Y", 2)
	q.wantAck(mqtt.Pubrec, 7)
	p := w.connect(p1, persistent)
	p.publish(1, "t", "X", 2) // again: it has no PUBREC
	p.wantAck(mqtt.Pubrec, 1)
	w.settle()
	s = w.connect(sub, persistent)
	w.settle()
	time.Sleep(50 * time.Millisecond)
	got := map[string]int{}
	for {
		r, ok := s.next(0)
		if !ok {
			break
		}
		got[string(r.msg.Payload)]++
	}
	if got["X"] != 1 || got["Y"] != 1 {
		t.Fatalf("got %v, expected X and Y once each: both have their PUBREC", got)
	}
}

// Subscribing again and again starts no second replay of the same filter.
func TestReplays_OneForEachSubscription(t *testing.T) {
	w := newWorld(t, 1, false)
	p := w.connect("p")
	for i := range 300 {
		p.retain(uint16(i+1), fmt.Sprint("r/", i), "x", 1)
		p.wantAck(mqtt.Puback, uint16(i+1))
	}
	c := w.connect("c", window(1))
	for range 2000 {
		c.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: []mqtt.Subscription{{Filter: "r/#", QoS: 1}}})
	}
	w.settle()
	ch := make(chan int, 1)
	w.set.shards[0].call(func() {
		ch <- len(w.set.shards[0].session(w.set.Tenant("acme"), "c").replays)
	})
	if n := <-ch; n > 100 {
		t.Fatalf("%d replays wait for one session with one subscription", n)
	}
}

// A retained publish beyond the quota is refused as a whole, so sending it again
// delivers nothing twice.
func TestRetained_RefusedIsNotDelivered(t *testing.T) {
	w := newWorld(t, 1, false)
	s := w.connect("s", persistent)
	s.subscribe("t", 2)
	p := w.connect("p", persistent, func(o *link.Open) { o.Limits.Retained = 0 })
	for range 2 { // the second is what a 3.1.1 client does after it was closed
		p.retain(1, "t", "x", 2)
		if r := p.wantAck(mqtt.Pubrec, 1); !r.Failed() {
			t.Fatalf("PUBREC %s", r)
		}
	}
	w.settle()
	n := 0
	for {
		if _, ok := s.next(0); !ok {
			break
		}
		n++
	}
	if n > 1 {
		t.Fatalf("a QoS 2 message with one identifier, not acknowledged in between, came %d times", n)
	}
}

// Expired retained messages do not count against the quota.
func TestRetained_ExpiredMakesRoom(t *testing.T) {
	w := newWorld(t, 1, false)
	p := w.connect("p", func(o *link.Open) { o.Limits.Retained = 1 })
	m := message("a", "x", 1, true)
	m.HasExpiry, m.Expiry = true, 1
	p.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: m})
	p.wantAck(mqtt.Puback, 1)
	w.clock.Add(60_000)
	p.retain(2, "b", "y", 1)
	if r := p.wantAck(mqtt.Puback, 2); r.Failed() {
		t.Fatalf("%s, though the only retained message expired 59 s ago", r)
	}
}

// Expired entries make room in a full queue.
func TestQueue_ExpiredMakesRoom(t *testing.T) {
	w := newWorld(t, 1, false)
	s := w.connect("s", persistent, queueLimit(1))
	s.subscribe("t", 1)
	s.close(link.CloseNormal)
	p := w.connect("p")
	m := message("t", "old", 1, false)
	m.HasExpiry, m.Expiry = true, 1
	p.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: m})
	p.wantAck(mqtt.Puback, 1)
	w.clock.Add(60_000)
	p.publish(2, "t", "new", 1)
	p.wantAck(mqtt.Puback, 2)
	s = w.connect("s", persistent, queueLimit(1))
	s.wantDeliver("new", 1)
}

// Handing a group's messages over leaves the rest of a long queue in the store.
func TestShared_HandOverKeepsTheWindow(t *testing.T) {
	w := newWorld(t, 1, false)
	a := w.connect("a", persistent, window(1))
	a.subscribe("big", 1)
	a.subscribe("$share/g/t", 1)
	b := w.connect("b", persistent)
	b.subscribe("$share/g/t", 1)
	p := w.connect("p")
	for i := range 200 {
		p.publish(uint16(i+1), "big", string(make([]byte, 64<<10)), 1)
		p.wantAck(mqtt.Puback, uint16(i+1))
	}
	a.close(link.CloseLost)
	w.settle()
	ch := make(chan int, 1)
	w.set.shards[0].call(func() {
		ch <- w.set.shards[0].session(w.set.Tenant("acme"), "a").queue.InMemory()
	})
	if n := <-ch; n > 2*queue.WindowLimit {
		t.Fatalf("%d bytes are in memory after the hand-over", n)
	}
}

// What an outbox sends again after a crash does not replace a newer retained
// message.
func TestCrash_ResendKeepsNewerRetained(t *testing.T) {
	store := mem.New()
	cell := []partition.ID{0, 1, 2, 3, 4, 5, 6, 7}
	topic := ""
	for i := 0; ; i++ {
		if topic = fmt.Sprint("r", i); partition.Choose(cell, topic) == 1 {
			break
		}
	}
	p1, p2 := clientIn(0, "p"), clientIn(1, "q")
	cfg := Config{Store: store, Partitions: 8, Shards: 2, Sync: partition.Sync{Every: -1}, Now: func() int64 { return 1_000_000 }, Log: slog.New(slog.DiscardHandler)}
	w := &world{t: t, store: store}
	w.clock.Store(1_000_000)
	set, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	commit := func() { ctx, c := context.WithCancel(context.Background()); c(); _ = set.committer.Run(ctx) }
	turn := func(i int) {
		if x := set.shards[i]; x.acquire() {
			x.turn(nil, nil, runs.Get().(*run))
		}
	}
	gw := &gateway{clients: map[link.Channel]*client{}, answers: make(chan uint64, 8)}
	l := set.Attach(gw)
	c2 := &client{w: w, id: 2}
	gw.clients[2] = c2
	for i, id := range []string{p1, p2} {
		if err := l.Send(&link.Up{Frames: []link.UpFrame{{Kind: link.UpOpen, Channel: link.Channel(i + 1), Open: &link.Open{Tenant: "acme", ClientID: mqtt.ClientID(id), SessionExpiry: 3600, ReceiveMaximum: 20, Credit: 1 << 30, Limits: unlimited}}}}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		turn(0)
		turn(1)
		commit()
	}
	// old, QoS 2, from shard 0 to the retained messages of shard 1
	_ = l.Send(&link.Up{Frames: []link.UpFrame{{Kind: link.UpPublish, Channel: 1, PacketID: 1, Message: message(topic, "old", 2, true)}}})
	turn(1)
	commit()
	turn(1) // its answer waits in the mailbox of shard 0, which has other things to do
	_ = l.Send(&link.Up{Frames: []link.UpFrame{{Kind: link.UpPublish, Channel: 2, PacketID: 9, Message: message(topic, "new", 1, true)}}})
	commit()
	turn(1)
	c2.want(link.DownOpened)
	c2.wantAck(mqtt.Puback, 9)
	// kill -9
	w.start(2)
	defer func() { w.stop() }()
	w.settle()
	s := w.connect("s")
	s.subscribe(topic, 1)
	s.wantDeliver("new", 1)
}

// While a stored member lives, its messages move only to stored members.
func TestShared_StoredStaysStored(t *testing.T) {
	w := newWorld(t, 1, false)
	a := w.connect("a", persistent)
	a.subscribe("$share/g/t", 1)
	a.close(link.CloseLost)
	p := w.connect("p")
	p.publish(1, "t", "m", 1)
	p.wantAck(mqtt.Puback, 1)
	// still stored for a. Now a comes, a clean member too, and a goes again.
	a = w.connect("a", persistent, window(1))
	a.wantDeliver("m", 1)
	b := w.connect("b")
	b.subscribe("$share/g/t", 1)
	a.close(link.CloseLost)
	b.silent()
	w.restart(1)
	a = w.connect("a", persistent)
	a.wantDeliver("m", 1)
}

// Filters that wait in a mailbox count against its limit.
func TestMailbox_CountsFilters(t *testing.T) {
	w := newWorld(t, 1, false)
	c := w.connect("c")
	s := w.set.shards[0]
	hold := make(chan struct{})
	begun := make(chan struct{})
	s.call(func() { close(begun); <-hold }) // a long turn, or a disk that stands still
	<-begun
	defer close(hold)
	filters := make([]mqtt.Subscription, 200)
	held := 0
	for i := range 1000 {
		for k := range filters {
			filters[k].Filter = strings.Repeat("x", 1000) + string(rune('a'+k%26))
			held += 1001
		}
		_ = i
		c.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: filters})
	}
	if n := s.mailBytes.Load(); n < int64(held)/2 {
		t.Fatalf("the mailbox holds %d MiB of SUBSCRIBEs and counts %d KiB; backlog() = %d KiB", held>>20, n>>10, w.set.backlog()>>10)
	}
}

// Retained messages larger than an answer may be come in pages.
func TestAnswer_IsBounded(t *testing.T) {
	w := newWorld(t, 1, true)
	p := w.connect("p")
	body := string(make([]byte, 20<<20))
	for i := range 13 {
		p.retain(uint16(i+1), fmt.Sprint("r/", i), body, 1)
		p.wantAck(mqtt.Puback, uint16(i+1))
	}
	w.asked++
	q := &link.Query{ID: w.asked, Kind: link.QueryRetained, Tenant: "acme", Filter: "#", Limit: 1000}
	_ = w.link.Send(&link.Up{Frames: []link.UpFrame{{Kind: link.UpQuery, Query: q}}})
	select {
	case <-w.gw.answers:
	case <-time.After(10 * time.Second):
		t.Fatal("no answer")
	}
}

// What a member had in the store alone, and not yet committed, goes to another
// one when its session ends.
func TestShared_TailBeforeTheCommit(t *testing.T) {
	w := newWorld(t, 1, false)
	a := w.connect("a", persistent, window(1))
	a.subscribe("$share/g/t", 1)
	p := w.connect("p")
	big := string(make([]byte, 40<<10))
	for i := range 4 { // one in flight, the rest waits, of which the window holds one
		p.publish(uint16(i+1), "t", big, 1)
		p.wantAck(mqtt.Puback, uint16(i+1))
	}
	w.settle()
	b := w.connect("b", persistent)
	b.subscribe("$share/g/t", 1)
	zero := uint32(0)
	// b is picked or a: two publishes give a one, and a ends in the same turn.
	up := &link.Up{Frames: []link.UpFrame{
		{Kind: link.UpPublish, Channel: p.id, PacketID: 10, Message: message("t", "m0", 1, false)},
		{Kind: link.UpPublish, Channel: p.id, PacketID: 11, Message: message("t", "m1", 1, false)},
		{Kind: link.UpClose, Channel: a.id, Close: &link.Close{Cause: link.CloseNormal, SessionExpiry: zero, HasSessionExpiry: true}},
	}}
	if err := w.link.Send(up); err != nil {
		t.Fatal(err)
	}
	p.wantAck(mqtt.Puback, 10)
	p.wantAck(mqtt.Puback, 11)
	w.settle()
	got := map[string]bool{}
	for {
		r, ok := b.next(0)
		if !ok {
			break
		}
		if len(r.msg.Payload) < 10 {
			got[string(r.msg.Payload)] = true
		}
	}
	if len(got) != 2 {
		t.Fatalf("got %v of m0 and m1", got)
	}
}
