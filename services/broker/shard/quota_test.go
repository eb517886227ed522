// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// tenantLimits has a client tell of its tenant's limits.
func tenantLimits(change func(*link.TenantLimits)) option {
	l := link.NoTenantLimits
	l.Told = true
	change(&l)
	return func(o *link.Open) { o.Limits.Tenant = l }
}

// noted are how often reasons were noted, by client id and reason.
func (w *world) noted() map[string]int {
	w.gw.mu.Lock()
	defer w.gw.mu.Unlock()
	n := map[string]int{}
	for _, x := range w.gw.notes {
		dropped := slices.Contains([]string{"fan_out", "storage_bytes", "retained_rate"}, x.Reason)
		if x.Tenant != "acme" || x.Text == "" || x.Dropped != dropped {
			w.t.Errorf("noted %+v", x)
		}
		n[string(x.ClientID)+" "+x.Reason] += int(x.Count)
	}
	return n
}

func (w *world) wantNoted(what string, n int) {
	w.t.Helper()
	for end := time.Now().Add(5 * time.Second); w.noted()[what] != n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("noted %v, expected %s %d times", w.noted(), what, n)
		}
	}
}

// drops are how many messages were dropped for a reason.
func (w *world) drops(why dropReason) (n uint64) {
	w.set.Stats(func(s *Stats) { n += s.drops[why].Load() })
	return n
}

// suback asks for filters and returns what the broker says.
func (c *client) suback(filters ...string) []mqtt.ReasonCode {
	c.w.t.Helper()
	f := link.UpFrame{Kind: link.UpSubscribe, PacketID: 9}
	for _, x := range filters {
		f.Subscribe = append(f.Subscribe, mqtt.Subscription{Filter: x, QoS: 1})
	}
	c.send(f)
	return c.want(link.DownSuback).Reasons
}

func wantReasons(t *testing.T, got []mqtt.ReasonCode, want ...mqtt.ReasonCode) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("SUBACK has %v, expected %v", got, want)
	}
}

const (
	granted = mqtt.GrantedQoS1
	beyond  = mqtt.QuotaExceeded
)

func TestQuota_Subscriptions(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		most := tenantLimits(func(l *link.TenantLimits) { l.Subscriptions = 4 })
		a, b := w.connect("a", persistent, most), w.connect("b", most)
		wantReasons(t, a.suback("1", "2", "2", "1"), granted, granted, granted, granted)
		wantReasons(t, b.suback("1", "2", "3", "1"), granted, granted, beyond, granted)
		wantReasons(t, b.suback("$share/g/x"), beyond)
		wantReasons(t, a.suback("1"), granted) // it has it
		a.send(link.UpFrame{Kind: link.UpUnsubscribe, PacketID: 1, Unsubscribe: []string{"1"}})
		a.want(link.DownUnsuback)
		wantReasons(t, b.suback("3", "4"), granted, beyond)
		w.wantNoted("b subscriptions", 3)
		a.send(link.UpFrame{Kind: link.UpLimits, Limits: &link.NewLimits{SessionExpiry: 3600, Limits: func() link.Limits {
			o := &link.Open{Limits: unlimited}
			tenantLimits(func(*link.TenantLimits) {})(o)
			return o.Limits
		}()}})
		wantReasons(t, a.suback("5", "6", "7"), granted, granted, granted)
	})
}

func TestQuota_SharedGroups(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		most := tenantLimits(func(l *link.TenantLimits) { l.SharedGroups, l.SharedGroupMembers = 2, 3 })
		var all []*client
		for i := range 4 {
			all = append(all, w.connect(fmt.Sprint("c", i), most))
		}
		wantReasons(t, all[0].suback("$share/a/t", "$share/b/t", "$share/c/t", "$share/a/u", "plain"), granted, granted, beyond, beyond, granted)
		wantReasons(t, all[1].suback("$share/a/t"), granted)
		wantReasons(t, all[2].suback("$share/a/t"), granted)
		wantReasons(t, all[3].suback("$share/a/t", "$share/b/t"), beyond, granted)
		w.wantNoted("c0 shared_groups", 2)
		w.wantNoted("c3 shared_group_members", 1)
		all[2].close(link.CloseNormal)
		w.settle()
		wantReasons(t, all[3].suback("$share/a/t"), granted)
	})
}

func TestQuota_FanOut(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		most := tenantLimits(func(l *link.TenantLimits) { l.FanOut = 4 })
		p := w.connect("p", most)
		var subs []*client
		for i := range 6 {
			c := w.connect(fmt.Sprint("s", i), most)
			c.subscribe("a/#", 1)
			subs = append(subs, c)
		}
		subs[0].subscribe("a/+", 1) // one more match, and no more receivers
		m := w.connect("m", most)
		m.subscribe("$share/g/a/+", 1)
		reached := func() (n int) {
			w.settle()
			for _, c := range append(subs, m) {
				for r, ok := c.next(0); ok; r, ok = c.next(0) {
					if r.Kind == link.DownDeliver {
						n++
						if r.QoS > 0 {
							c.ack(mqtt.Puback, r.PacketID)
						}
					}
				}
			}
			return n
		}
		for qos := range mqtt.QoS(3) {
			p.publish(uint16(qos), "a/b", "x", qos)
			if qos > 0 {
				if r := p.wantAck(mqtt.Puback+mqtt.AckKind(qos-1), uint16(qos)); r.Failed() {
					t.Errorf("qos %d: %s", qos, r)
				}
			}
			if n := reached(); n != 4 {
				t.Errorf("qos %d: %d have it, expected 4", qos, n)
			}
			if n := w.drops(dropFanOut); n != 3*(uint64(qos)+1) {
				t.Errorf("qos %d: %d receivers are counted as left out, expected %d", qos, n, 3*(qos+1))
			}
		}
		w.wantNoted("p fan_out", 9)
		for _, c := range subs[:3] {
			c.close(link.CloseNormal)
		}
		subs = subs[3:]
		p.publish(0, "a/b", "y", 0)
		if n := reached(); n != 4 {
			t.Errorf("%d have what goes to as many as may be, expected 4", n)
		}
	})
}

func TestQuota_StorageBytes(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		most := tenantLimits(func(l *link.TenantLimits) { l.StorageBytes = 1000 })
		s := w.connect("s", persistent, most)
		s.subscribe("q", 1)
		s.close(link.CloseLost)
		p := w.connect("p", most)
		p.retain(1, "r", strings.Repeat("r", 400), 1)
		p.wantAck(mqtt.Puback, 1)
		for i := range uint16(4) { // of which two fit
			p.publish(2+i, "q", strings.Repeat("q", 200), 1)
			p.wantAck(mqtt.Puback, 2+i)
		}
		w.settle()
		if n := w.drops(dropStorage); n != 2 {
			t.Errorf("%d were dropped, expected 2", n)
		}
		w.wantNoted("s storage_bytes", 2)
		u := w.set.Tenant("acme").Usage()
		if n := u.QueueBytes + u.RetainedBytes; n > 1000 {
			t.Fatalf("%d bytes are stored of 1000", n)
		}
		full := tenantLimits(func(l *link.TenantLimits) { l.StorageBytes = u.QueueBytes + u.RetainedBytes })
		c := w.open("new", persistent, full)
		if r := c.want(link.DownRefused); r.Reason != mqtt.QuotaExceeded || !strings.Contains(r.Text, "storage_bytes") {
			t.Errorf("refused with %s %q", r.Reason, r.Text)
		}
		w.connect("passing", clean, full)
		back := w.connect("s", persistent, full) // which there is
		for range 2 {
			r := back.want(link.DownDeliver)
			back.ack(mqtt.Puback, r.PacketID)
		}
		w.settle()
		w.connect("new", persistent, full)
	})
}

func TestQuota_RetainedRate(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		most := tenantLimits(func(l *link.TenantLimits) { l.RetainedRate = 3 })
		p := w.connect("p", most, will("will", 0), func(o *link.Open) { o.Will.Message.Retain = true })
		s := w.connect("s", most)
		s.subscribe("#", 0)
		for i := range uint16(3) {
			p.retain(1+i, fmt.Sprint("r", i), "x", 1)
			if r := p.wantAck(mqtt.Puback, 1+i); r.Failed() {
				t.Errorf("message %d: %s", i, r)
			}
			s.wantDeliver("x", 0)
		}
		p.retain(4, "r4", "x", 1)
		if r := p.wantAck(mqtt.Puback, 4); r != mqtt.QuotaExceeded {
			t.Errorf("PUBACK has %s", r)
		}
		p.retain(5, "r5", "x", 2)
		if r := p.wantAck(mqtt.Pubrec, 5); r != mqtt.QuotaExceeded {
			t.Errorf("PUBREC has %s", r)
		}
		p.retain(0, "r6", "x", 0)
		s.silent()
		if n := w.drops(dropRetainedRate); n != 3 {
			t.Errorf("%d are counted, expected 3", n)
		}
		w.wantNoted("p retained_rate", 3)
		p.retain(7, "r0", "", 1) // what is deleted does not count, nor what is not retained
		if r := p.wantAck(mqtt.Puback, 7); r.Failed() {
			t.Errorf("a delete: %s", r)
		}
		s.wantDeliver("", 0)
		p.publish(8, "r1", "live", 1)
		p.wantAck(mqtt.Puback, 8)
		s.wantDeliver("live", 0)
		p.close(link.CloseLost)
		s.wantDeliver("gone", 0) // a will was taken at CONNECT
		w.clock.Add(1000)
		p = w.connect("p2", most)
		p.retain(1, "r", "later", 1)
		if r := p.wantAck(mqtt.Puback, 1); r.Failed() {
			t.Errorf("a second later: %s", r)
		}
	})
}

// More retained messages than may be sent at once come all, as many in each second.
func TestQuota_RetainedSubscribe(t *testing.T) {
	t.Parallel()
	for qos := range mqtt.QoS(2) {
		t.Run(qos.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1+2*int(qos), qos > 0)
			p := w.connect("p")
			for i := range uint16(25) {
				p.retain(1+i, fmt.Sprint("r/", i), "x", 1)
				p.wantAck(mqtt.Puback, 1+i)
			}
			c := w.connect("c", persistent, tenantLimits(func(l *link.TenantLimits) { l.RetainedSubscribe = 10 }))
			c.subscribe("r/#", qos)
			got := map[string]bool{}
			take := func() int {
				for {
					r, ok := c.next(30 * time.Millisecond)
					if !ok {
						return len(got)
					}
					if r.Kind == link.DownDeliver && r.Retain {
						got[string(r.msg.Topic)] = true
						if qos > 0 {
							c.ack(mqtt.Puback, r.PacketID)
						}
					}
				}
			}
			if n := take(); n != 10 {
				t.Fatalf("%d came at once, expected 10", n)
			}
			w.wantNoted("c retained_subscribe", 1)
			live := w.connect("live")
			live.publish(1, "r/live", "now", 1) // what is live does not wait
			live.wantAck(mqtt.Puback, 1)
			c.wantDeliver("now", qos)
			for end := time.Now().Add(5 * time.Second); len(got) < 25 && time.Now().Before(end); {
				w.clock.Add(100)
				take()
			}
			if len(got) != 25 {
				t.Errorf("%d came in the end, expected 25", len(got))
			}
			var paced uint64
			w.set.Stats(func(s *Stats) { paced += s.Paced.Load() })
			if paced != 2 {
				t.Errorf("it paused %d times, expected twice", paced)
			}
		})
	}
}
