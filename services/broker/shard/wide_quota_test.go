// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// pair is a cluster of two brokers, of which one has the partitions with even numbers.
func pair(t *testing.T) [2]*wideNode {
	w := newWide(t, 1, 2)
	return [2]*wideNode{w.nodes[0], w.nodes[1]}
}

// beforeDeadline repeats do until it is true.
func beforeDeadline(t *testing.T, what string, do func() bool) {
	t.Helper()
	for end := time.Now().Add(8 * time.Second); !do(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("not in time: " + what)
		}
	}
}

func bounded(change func(*link.TenantLimits)) link.Limits {
	o := link.Open{Limits: unlimited}
	tenantLimits(change)(&o)
	return o.Limits
}

func (c *wideConn) suback(t *testing.T, filters ...string) []mqtt.ReasonCode {
	t.Helper()
	f := link.UpFrame{Kind: link.UpSubscribe, PacketID: 9}
	for _, x := range filters {
		f.Subscribe = append(f.Subscribe, mqtt.Subscription{Filter: x, QoS: 1})
	}
	c.send(f)
	return c.want(t, link.DownSuback).Reasons
}

// What two brokers have counts together, once they have told each other.
func TestWide_QuotaSubscriptions(t *testing.T) {
	t.Parallel()
	n := pair(t)
	limits := bounded(func(l *link.TenantLimits) { l.Subscriptions = 4 })
	var c [4]*wideConn
	for p := range partition.ID(4) {
		c[p] = n[p%2].visitor(clientIn(p, "c"), limits)
		wantReasons(t, c[p].suback(t, fmt.Sprint("f", p)), granted)
	}
	for _, of := range n {
		beforeDeadline(t, "the others' are known", func() bool {
			of.set.shards[0].ask(func() { of.set.shards[0].everywhere(of.set.Tenant("acme"), ofStorage, 1<<40) })
			return of.set.Tenant("acme").far.fresh[ofSubscriptions].Load() == 2
		})
	}
	for p := range c {
		wantReasons(t, c[p].suback(t, "more", fmt.Sprint("f", p)), beyond, granted)
	}
	c[0].close()
	beforeDeadline(t, "there is room again", func() bool { return c[1].suback(t, "more")[0] == granted })
}

// Groups and their members are known to all brokers by their routes.
func TestWide_QuotaSharedGroups(t *testing.T) {
	t.Parallel()
	n := pair(t)
	limits := bounded(func(l *link.TenantLimits) { l.SharedGroups, l.SharedGroupMembers = 2, 3 })
	a, b, c := n[0].visitor(clientIn(0, "a"), limits), n[1].visitor(clientIn(1, "b"), limits), n[1].visitor(clientIn(3, "c"), limits)
	d := n[0].visitor(clientIn(2, "d"), limits)
	wantReasons(t, a.suback(t, "$share/1/t"), granted)
	wantReasons(t, b.suback(t, "$share/2/t"), granted)
	wantReasons(t, a.suback(t, "$share/3/t"), beyond)
	wantReasons(t, c.suback(t, "$share/3/t"), beyond)
	wantReasons(t, b.suback(t, "$share/1/t"), granted)
	wantReasons(t, c.suback(t, "$share/1/t"), granted)
	wantReasons(t, d.suback(t, "$share/1/t", "$share/2/t"), beyond, granted)
	c.close()
	beforeDeadline(t, "there is room again", func() bool { return d.suback(t, "$share/1/t")[0] == granted })
}

// Storage and sessions of two brokers count together.
func TestWide_QuotaStorage(t *testing.T) {
	t.Parallel()
	n := pair(t)
	limits := bounded(func(l *link.TenantLimits) { l.StorageBytes = 1000 })
	limits.Sessions = 3
	stored := func(of *wideNode, id string) string { return of.stored(id, limits) }
	known := func(what string, ok func(*elsewhere) bool) {
		t.Helper()
		for _, of := range n {
			beforeDeadline(t, what, func() bool {
				of.set.shards[0].ask(func() { of.set.shards[0].everywhere(of.set.Tenant("acme"), ofStorage, 1<<40) })
				return ok(&of.set.Tenant("acme").far)
			})
		}
	}
	x, y := clientIn(0, "x"), clientIn(1, "y")
	for i, id := range []string{x, y} {
		if why := stored(n[i], id); why != "" {
			t.Fatal(why)
		}
	}
	p := n[0].visitor(clientIn(2, "p"), limits)
	publish := func(packet uint16, to string) {
		t.Helper()
		p.send(link.UpFrame{Kind: link.UpPublish, PacketID: packet, Message: message("q/"+to, strings.Repeat("q", 600), 1, false)})
		if r := p.want(t, link.DownAck); r.Reason.Failed() {
			t.Error(r.Reason)
		}
	}
	publish(1, x)
	known("what is stored", func(e *elsewhere) bool {
		return e.fresh[ofSessions].Load() == 1 && (e.fresh[ofStorage].Load() > 600) == (e == &n[1].set.Tenant("acme").far)
	})
	publish(2, y)
	u := n[1].set.Tenant("acme").Usage()
	if u.QueueBytes != 0 {
		t.Errorf("%d bytes wait at the second broker, beside those of the first", u.QueueBytes)
	}
	limits.Tenant.StorageBytes = 600
	if why := stored(n[1], clientIn(3, "z")); !strings.Contains(why, "storage_bytes") {
		t.Errorf("a session was refused with %q", why)
	}
	limits.Tenant.StorageBytes, limits.Sessions = -1, 2
	if why := stored(n[1], clientIn(3, "z")); !strings.Contains(why, "persistent_sessions") {
		t.Errorf("a session was refused with %q", why)
	}
}

// At other brokers a message has as many receivers in a partition as it may have.
func TestWide_QuotaFanOut(t *testing.T) {
	t.Parallel()
	n := pair(t)
	const most, there = 66, 70
	limits := bounded(func(l *link.TenantLimits) { l.FanOut = most })
	var subs []*wideConn
	for i := range there {
		c := n[1].visitor(clientIn(1, fmt.Sprint("s", i, "-")), limits)
		wantReasons(t, c.suback(t, "t"), granted)
		subs = append(subs, c)
	}
	p := n[0].visitor(clientIn(0, "p"), limits)
	for qos := range mqtt.QoS(2) {
		p.send(link.UpFrame{Kind: link.UpPublish, PacketID: uint16(qos), Message: message("t", "x", qos, false)})
		if qos > 0 {
			if r := p.want(t, link.DownAck); r.Reason.Failed() {
				t.Error(r.Reason)
			}
		}
		left := func() (total uint64) {
			n[1].set.Stats(func(s *Stats) { total += s.drops[dropFanOut].Load() })
			return total
		}
		beforeDeadline(t, "receivers are left out", func() bool { return left() == uint64(qos+1)*(there-most) })
		for _, s := range n[1].set.shards {
			s.ask(func() {})
		}
		got := 0
		for _, c := range subs {
			items, _ := c.frames.take()
			for i := range items {
				if items[i].Kind == link.DownDeliver {
					got++
					c.send(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Puback, PacketID: items[i].PacketID})
				}
			}
		}
		if got != most {
			t.Errorf("qos %d: %d have it, expected %d", qos, got, most)
		}
	}
}

// Retained messages of two brokers count together, and how many are set in a second; and who subscribes is paced whoever has them.
func TestWide_QuotaRetained(t *testing.T) {
	t.Parallel()
	n := pair(t)
	limits := bounded(func(*link.TenantLimits) {})
	limits.Retained = 6
	c := [2]*wideConn{n[0].visitor(clientIn(0, "a"), limits), n[1].visitor(clientIn(1, "b"), limits)}
	set := func(by int, packet uint16, p partition.ID) mqtt.ReasonCode {
		t.Helper()
		c[by].send(link.UpFrame{Kind: link.UpPublish, PacketID: packet, Message: message(topicIn(p), "x", 1, true)})
		return c[by].want(t, link.DownAck).Reason
	}
	for p := range partition.ID(6) {
		if r := set(int(p%2), uint16(p)+1, p); r.Failed() {
			t.Fatal(r)
		}
	}
	for i, of := range n {
		beforeDeadline(t, "the others' are known", func() bool {
			of.set.shards[0].ask(func() { of.set.shards[0].everywhere(of.set.Tenant("acme"), ofStorage, 1<<40) })
			return of.set.Tenant("acme").far.fresh[ofRetained].Load() == 3
		})
		if r := set(i, 10, 6+partition.ID(i)); r != mqtt.QuotaExceeded {
			t.Errorf("one too many at %s: %s", of.name, r)
		}
		if r := set(i, 11, partition.ID(i)); r.Failed() {
			t.Errorf("one in the place of another: %s", r)
		}
	}
	rate := bounded(func(l *link.TenantLimits) { l.RetainedRate, l.RetainedSubscribe = 1, 4 })
	for i, of := range n {
		c[i] = of.visitor(clientIn(partition.ID(i), "rate"), rate)
		refused := 0
		for k := range uint16(4) {
			if set(i, k+1, partition.ID(i)) == mqtt.QuotaExceeded {
				refused++
			}
		}
		if refused < 2 {
			t.Errorf("%s has refused %d of 4 in a second", of.name, refused)
		}
	}
	s := n[0].visitor(clientIn(2, "s"), rate)
	got, began, first := 0, time.Now(), 0
	s.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 9, Subscribe: []mqtt.Subscription{{Filter: "r/+"}}})
	beforeDeadline(t, "all retained messages", func() bool {
		items, _ := s.frames.take()
		for i := range items {
			if items[i].Kind == link.DownDeliver {
				got++
			}
		}
		if time.Since(began) < 500*time.Millisecond {
			first = got
		}
		return got == 6
	})
	if first > 4 {
		t.Errorf("%d came at once, expected 4", first)
	}
}

// Who is paced does not keep its partition from moving, and has all before that.
func TestWide_QuotaPaceAndMove(t *testing.T) {
	t.Parallel()
	n := pair(t)
	limits := bounded(func(l *link.TenantLimits) { l.RetainedSubscribe = 1 })
	p := n[0].visitor(clientIn(0, "p"), limits)
	for i := range uint16(8) {
		p.send(link.UpFrame{Kind: link.UpPublish, PacketID: i + 1, Message: message(topicIn(partition.ID(i)), "x", 1, true)})
		if r := p.want(t, link.DownAck).Reason; r.Failed() {
			t.Fatal(r)
		}
	}
	s := n[0].visitor(clientIn(2, "s"), limits)
	s.send(link.UpFrame{Kind: link.UpSubscribe, PacketID: 9, Subscribe: []mqtt.Subscription{{Filter: "r/+"}}})
	got, paused := 0, false
	take := func() {
		items, _ := s.frames.take()
		for i := range items {
			switch items[i].Kind {
			case link.DownDeliver:
				got++
			case link.DownPause:
				paused = true
				if got < 8 {
					t.Errorf("it is paused with %d of 8 retained messages", got)
				}
				s.send(link.UpFrame{Kind: link.UpPaused})
			default:
			}
		}
	}
	beforeDeadline(t, "the first", func() bool { take(); return got > 0 })
	done := make(chan struct{})
	go func() {
		defer close(done)
		n[0].w.give(2, n[1], true)
	}()
	beforeDeadline(t, "the pause", func() bool { take(); return paused })
	<-done
}

// Three brokers keep one rate of retained messages, wherever they are set, and one has it
// all when the others set none.
func TestWide_QuotaRetainedRate(t *testing.T) {
	t.Parallel()
	const rate = 100
	w := newWide(t, 1, 3)
	limits := bounded(func(l *link.TenantLimits) { l.RetainedRate = rate })
	var all []*wideConn
	for i := range w.nodes {
		all = append(all, w.nodes[i].visitor(clientIn(partition.ID(i), "r"), limits))
	}
	set := func(past time.Duration, by ...*wideConn) (n int) {
		t.Helper()
		for end := time.Now().Add(past); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
			for _, c := range by {
				c.send(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: message(topicIn(partition.ID(n%6)), "x", 1, true)})
				switch r := c.want(t, link.DownAck).Reason; {
				case !r.Failed():
					n++
				case r != mqtt.QuotaExceeded:
					t.Fatal(r)
				}
			}
		}
		return n
	}
	// What came in since the beginning, and what may come at once: one bucket has no more.
	// In seconds what one exchange is late counts; infra/jointrate holds 5 % in a minute.
	const late = rate / 4
	begun, total := time.Now(), 0
	for _, by := range [][]*wideConn{all, all[2:]} {
		from := time.Now()
		n := set(2500*time.Millisecond, by...)
		total += n
		if least := time.Since(from).Seconds()*rate*0.95 - late; float64(n) < least {
			t.Errorf("%d set by %d brokers, expected at least %.0f", n, len(by), least)
		}
		if most := time.Since(begun).Seconds()*rate*1.05 + rate + late; float64(total) > most {
			t.Errorf("%d set in %v, at last by %d brokers, expected at most %.0f", total, time.Since(begun), len(by), most)
		}
	}
}
