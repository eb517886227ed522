// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/load"
	"github.com/manormq/manor/infra/mqtt"
)

// hold keeps the shard busy until release is called.
func (s *Shard) hold() (release func()) {
	hold, begun := make(chan struct{}), make(chan struct{})
	s.call(func() { close(begun); <-hold })
	<-begun
	return func() { close(hold) }
}

// While a shard is busy, what one tenant sends waits behind little of what
// another does, however much that is, and each tenant's messages keep their order.
func TestLanes_TenantsTakeTurns(t *testing.T) {
	for _, shards := range []int{1, 4} {
		t.Run(fmt.Sprint(shards), func(t *testing.T) {
			w := newWorld(t, shards, false)
			loud, quiet := w.connect("loud", inTenant("a")), w.connect("quiet", inTenant("b"))
			for _, c := range []*client{loud, quiet} {
				c.subscribe("t", 0)
			}
			s := w.set.shardOf(w.link.(*Link).mu.channels[loud.id].part)
			if w.set.shardOf(w.link.(*Link).mu.channels[quiet.id].part) != s {
				s = nil
			}
			if shards == 1 && s == nil {
				t.Fatal("one shard, and not the same")
			}
			const many, few = 5000, 20
			var releases []func()
			for _, s := range w.set.shards {
				releases = append(releases, s.hold())
			}
			post := func(c *client, n int) {
				b := &link.Up{}
				for i := range n {
					b.Frames = append(b.Frames, link.UpFrame{Kind: link.UpPublish, Channel: c.id, Message: mqtt.Message{Topic: []byte("t"), Payload: fmt.Append(nil, i)}})
				}
				if err := w.link.Post(b); err != nil {
					t.Fatal(err)
				}
			}
			post(loud, many)
			post(quiet, few)
			order := w.gw.watch()
			for _, release := range releases {
				release()
			}
			w.settle()
			if s != nil {
				before := 0
				for _, ch := range order() {
					if ch == quiet.id {
						break
					}
					before++
				}
				if most := 2 * sharedWork / frameWork; before > most {
					t.Errorf("%d messages of the other tenant came first, expected %d at most", before, most)
				}
			}
			for c, n := range map[*client]int{loud: many, quiet: few} {
				for i := range n {
					c.wantDeliver(fmt.Sprint(i), 0)
				}
				c.silent()
			}
		})
	}
}

// A shard takes nothing more from gateways while too much of what came of it waits
// for another one, and goes on by itself when that has done it.
func TestLanes_Held(t *testing.T) {
	w := newWorld(t, 2, false)
	a, b := w.set.shards[0], w.set.shards[1]
	var pub, sub *client
	for i := 0; pub == nil || sub == nil; i++ {
		c := w.connect(fmt.Sprint("c", i))
		switch w.set.shardOf(w.link.(*Link).mu.channels[c.id].part) {
		case a:
			pub = c
		case b:
			sub = c
		}
	}
	sub.subscribe("t", 0)
	release := b.hold()
	const n = 4000
	for i := range n {
		pub.send(link.UpFrame{Kind: link.UpPublish, Message: mqtt.Message{Topic: []byte("t"), Payload: fmt.Appendf(nil, "%0200d", i)}})
	}
	if inner := b.inner.Load(); inner < innerLimit || inner > 2*innerLimit {
		t.Errorf("%d KiB wait in the other shard, expected about %d", inner>>10, innerLimit>>10)
	}
	if waits := a.mailBytes.Load(); waits < 100<<10 {
		t.Errorf("%d KiB wait in the publisher's shard", waits>>10)
	}
	release()
	for i := range n {
		sub.wantDeliver(fmt.Sprintf("%0200d", i), 0)
	}
}

// The channels that use their windows share what their tenant may have under way,
// and who does not use it has no share.
func TestWindows_AreShared(t *testing.T) {
	w := newWorld(t, 1, false)
	s := w.set.shards[0]
	channels := func(tenant string, n int) (out []*Channel) {
		for i := range n {
			out = append(out, &Channel{shard: s, tenant: w.set.Tenant(tenant), id: link.Channel(i)})
		}
		return out
	}
	grant := func(chs []*Channel) (n uint64) {
		for _, ch := range chs {
			n = s.window(ch)
		}
		return n
	}
	now := func(epoch int64) { s.now = epoch * windowEpoch }
	w.stop() // its goroutine reads what is set here
	w.stop = func() {}
	s.mixed = 100 * windowEpoch // frames of two tenants came
	one, hundred := channels("a", 1), channels("a", 100)
	now(100)
	if n := grant(one); n != windowsOf {
		t.Errorf("alone: %d, expected %d", n, windowsOf)
	}
	if n := grant(hundred); n != windowsOf/101 {
		t.Errorf("one of 101: %d, expected %d", n, windowsOf/101)
	}
	now(101)
	if n := grant(one); n != windowsOf/101 {
		t.Errorf("just after: %d, expected %d", n, windowsOf/101)
	}
	now(103)
	if n := grant(one); n != windowsOf {
		t.Errorf("alone again: %d, expected %d", n, windowsOf)
	}
	for i := range 63 {
		grant(channels(fmt.Sprint("t", i), 1))
	}
	if n := grant(one); n != windowsAll/64 {
		t.Errorf("one of 64 tenants: %d, expected %d", n, windowsAll/64)
	}
	now(200)
	s.mixed = s.now
	if n := grant(channels("b", 100_000)); n != windowLeast {
		t.Errorf("one of very many: %d, expected %d", n, windowLeast)
	}
	now(300)
	s.mixed = 0
	if n := grant(hundred); n != windowsOne/100 {
		t.Errorf("one of 100 of the only tenant: %d, expected %d", n, windowsOne/100)
	}
}

// What has waited too long in a lane is dropped at QoS 0 by a broker that is
// overloaded, and counted; nothing else is.
func TestLanes_Shed(t *testing.T) {
	w := newWorld(t, 1, false)
	s := w.set.shards[0]
	c := w.connect("c", inTenant("a"))
	c.subscribe("t", 1)
	post := func(from, n int, qos mqtt.QoS) {
		b := &link.Up{}
		for i := from; i < from+n; i++ {
			f := link.UpFrame{Kind: link.UpPublish, Channel: c.id, Message: mqtt.Message{Topic: []byte("t"), Payload: fmt.Append(nil, i), QoS: qos}}
			if qos > 0 {
				f.PacketID = uint16(i)
			}
			b.Frames = append(b.Frames, f)
		}
		if err := w.link.Post(b); err != nil {
			t.Fatal(err)
		}
	}
	w.set.SetLoad(load.Shed)
	w.gw.mu.Lock()
	if w.gw.load != load.Shed {
		t.Errorf("the gateway is told %s, expected shed", w.gw.load)
	}
	w.gw.mu.Unlock()
	release := s.hold()
	post(1, 10, 0)
	post(11, 3, 1)
	w.clock.Add(shedAge + 1)
	post(21, 2, 0)
	release()
	w.settle()
	before := w.set.Tenant("a").Counts()
	if n := before.Dropped["overload"]; n != 10 || before.Received != 15 || before.Sent != 5 {
		t.Errorf("%+v, expected 15 received, 10 dropped, 5 sent", before)
	}
	w.set.SetLoad(load.Calm)
	release = s.hold()
	post(31, 2, 0)
	w.clock.Add(shedAge + 1)
	release()
	w.settle()
	if n := w.set.Tenant("a").Counts(); n.Dropped["overload"] != 10 || n.Sent != 7 {
		t.Errorf("calm again: %+v", n)
	}
}

// A shard that is relieved at the end of the turn in which it was held goes on.
func TestLanes_RelievedAtTheEndOfATurn(t *testing.T) {
	w := newWorld(t, 2, false)
	a, b := w.set.shards[0], w.set.shards[1]
	var pub *client
	for i := 0; pub == nil; i++ {
		if c := w.connect(fmt.Sprint("c", i)); w.set.shardOf(w.link.(*Link).mu.channels[c.id].part) == a {
			pub = c
		}
	}
	w.settle()
	for !a.acquire() {
		runtime.Gosched()
	}
	b.inner.Add(2 * innerLimit)
	f := link.UpFrame{Kind: link.UpPublish, Channel: pub.id, PacketID: 1, Message: mqtt.Message{Topic: []byte("t"), QoS: 1}}
	if err := w.link.Post(&link.Up{Frames: []link.UpFrame{f}}); err != nil {
		t.Fatal(err)
	}
	a.state.Store(running) // it has seen that there is more, and looks
	r := runs.Get().(*run)
	a.run = r
	if more, n := a.serve(sharedWork); more || n != 0 {
		t.Fatalf("a held shard did %d items", n)
	}
	b.inner.Add(-2 * innerLimit)
	b.relieved()     // while a still runs
	for range 1000 { // a worker that is woken now tries in vain
		runtime.Gosched()
	}
	a.end(r)
	a.run = nil
	if !a.state.CompareAndSwap(running, idle) {
		a.turn(nil, nil, r)
	}
	w.set.finish(r)
	pub.wantAck(mqtt.Puback, 1)
}

// What is behind a fence runs when all that waited before was done, whoever's it is.
func TestLanes_Fence(t *testing.T) {
	w := newWorld(t, 1, false)
	s := w.set.shards[0]
	clients := []*client{w.connect("a", inTenant("a")), w.connect("b", inTenant("b"))}
	release := s.hold()
	for i := range 4000 {
		f := link.UpFrame{Kind: link.UpPublish, Channel: clients[i%2].id, Message: mqtt.Message{Topic: []byte("t"), Payload: make([]byte, 200)}}
		if err := w.link.Post(&link.Up{Frames: []link.UpFrame{f}}); err != nil {
			t.Fatal(err)
		}
	}
	left := make(chan int, 1)
	s.post(item{kind: itemFence, call: func() {
		s.mail.Lock()
		defer s.mail.Unlock()
		left <- s.mail.lanes.Len()
	}}, nil)
	release()
	if n := <-left; n != 0 {
		t.Errorf("%d items still wait", n)
	}
}

// While a shard rests, what a tenant sends of whom nothing waits is done at once,
// and not behind what waits of another.
func TestLanes_VisitWhileResting(t *testing.T) {
	w := newWorld(t, 1, false)
	s := w.set.shards[0]
	loud, quiet := w.connect("loud", inTenant("a")), w.connect("quiet", inTenant("b"))
	for _, c := range []*client{loud, quiet} {
		c.subscribe("t", 0)
	}
	w.settle()
	for !s.acquire() {
		runtime.Gosched()
	}
	publish := func(c *client, payload string) link.UpFrame {
		return link.UpFrame{Kind: link.UpPublish, Channel: c.id, Message: mqtt.Message{Topic: []byte("t"), Payload: []byte(payload)}}
	}
	if err := w.link.Post(&link.Up{Frames: []link.UpFrame{publish(loud, "1"), publish(loud, "2")}}); err != nil {
		t.Fatal(err)
	}
	order := w.gw.watch()
	s.state.Store(resting) // and the worker has not come
	quiet.send(publish(quiet, "at once"))
	w.settle()
	if got := order(); !slices.Equal(got, []link.Channel{quiet.id, loud.id, loud.id}) {
		t.Errorf("delivered to %v, expected the quiet %d first", got, quiet.id)
	}
	quiet.wantDeliver("at once", 0)
	for _, want := range []string{"1", "2"} {
		loud.wantDeliver(want, 0)
	}
	// Over a link a batch has frames of several tenants.
	for !s.acquire() {
		runtime.Gosched()
	}
	if err := w.link.Post(&link.Up{Frames: []link.UpFrame{publish(loud, "3")}}); err != nil {
		t.Fatal(err)
	}
	order = w.gw.watch()
	s.state.Store(resting)
	if err := w.link.Send(&link.Up{Frames: []link.UpFrame{publish(loud, "4"), publish(quiet, "too")}}); err != nil {
		t.Fatal(err)
	}
	w.settle()
	if got := order(); !slices.Equal(got, []link.Channel{quiet.id, loud.id, loud.id}) {
		t.Errorf("of a batch of both, delivered to %v, expected the quiet %d first", got, quiet.id)
	}
	quiet.wantDeliver("too", 0)
	for _, want := range []string{"3", "4"} {
		loud.wantDeliver(want, 0)
	}
}
