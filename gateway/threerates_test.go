// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// crowd are the clients of one tenant at three gateways, of which the first two have more
// demand than the limit and the last has little, and what they have got.
type crowd struct {
	r      *region3
	ctx    context.Context //nolint:containedctx // of goroutines that end with the test
	lives  *sync.WaitGroup
	tenant string
	got    atomic.Int64
}

// crowd makes a tenant with limits, whose clients go when the test ends.
func (r *region3) crowd(tenant string, limits func(l *tenancy.Limits)) *crowd {
	for _, w := range r.at {
		t := &tenancy.Tenant{ID: tenant, State: tenancy.StateActive, Limits: tenancy.NoLimits(), Hostname: tenant + ".localhost"}
		limits(&t.Limits)
		w.dir.mu.Lock()
		w.dir.tenants[tenant] = t
		w.dir.mu.Unlock()
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &crowd{r: r, ctx: ctx, lives: &sync.WaitGroup{}, tenant: tenant}
	r.t.Cleanup(func() { cancel(); c.lives.Wait() })
	return c
}

func (c *crowd) hello(id string) *packet.Connect {
	p := hello(id)
	p.Username = c.tenant + ":dev"
	return p
}

// client connects, and ends its connection when the test does.
func (c *crowd) client(n int, id string) *client {
	x := c.r.at[n].dial("mqtt").mustConnect(c.hello(id))
	context.AfterFunc(c.ctx, func() { _ = x.c.Close() })
	return x
}

// listen counts the bytes that come to a subscriber of t.
func (c *crowd) listen(n int, id string) {
	x := c.client(n, id)
	x.subscribe("t")
	_ = x.c.SetReadDeadline(time.Time{})
	c.lives.Go(func() {
		for b := make([]byte, 64<<10); ; {
			k, err := x.c.Read(b)
			c.got.Add(int64(k))
			if err != nil {
				return
			}
		}
	})
}

// speak publishes the payload to a topic so many times, pauses, and goes on. It returns how
// large a message is.
func (c *crowd) speak(n int, id, topic, payload string, times int, pause time.Duration) int {
	x := c.client(n, id)
	one := packet.Append(nil, x.v, publish(topic, payload, 0), 0)
	c.lives.Go(func() {
		for all := []byte(strings.Repeat(string(one), times)); ; time.Sleep(pause) {
			if _, err := x.c.Write(all); err != nil {
				return
			}
		}
	})
	return len(one)
}

// hears has subscribers at each gateway, two at the first, that are to get messages.
func (c *crowd) hears(payload string, times int) (size int) {
	for id, n := range map[string]int{"a": 0, "b": 0, "c": 1, "d": 2} {
		c.listen(n, id)
	}
	c.speak(0, "to-two", "t", payload, times, 10*time.Millisecond)
	c.speak(1, "to-one", "t", payload, times, 10*time.Millisecond)
	return c.speak(2, "to-little", "t", payload, 1, 25*time.Millisecond)
}

// talks has clients publish to in as fast as they may.
func (c *crowd) talks(payload string) (size int) {
	c.speak(0, "a", "in", payload, 1, 0)
	c.speak(0, "b", "in", payload, 1, 0)
	c.speak(1, "c", "in", payload, 1, 0)
	return c.speak(2, "d", "in", payload, 1, 25*time.Millisecond)
}

// knocks has clients connect again and again, and counts those that are let in.
func (c *crowd) knocks() {
	knock := func(n int, id string, pause time.Duration) {
		c.lives.Go(func() {
			for times := 0; c.ctx.Err() == nil; times++ {
				if c.letIn(n, fmt.Sprint(id, "-", times)) {
					c.got.Add(1)
				}
				time.Sleep(pause)
			}
		})
	}
	for i := range 12 {
		knock(0, fmt.Sprint("many-", i), 0)
		knock(i%2, fmt.Sprint("some-", i), 0)
	}
	knock(2, "few", 100*time.Millisecond)
}

// letIn reports whether a client is let in, which then goes.
func (c *crowd) letIn(n int, id string) bool {
	x, err := net.Dial("tcp", c.r.at[n].addr("mqtt"))
	if err != nil {
		return false
	}
	defer func() { _ = x.Close() }()
	defer context.AfterFunc(c.ctx, func() { _ = x.Close() })()
	if _, err := x.Write(packet.Append(nil, packet.V5, &packet.Packet{Type: packet.CONNECT, Connect: c.hello(id)}, 0)); err != nil {
		return false
	}
	b := make([]byte, 256)
	k, err := x.Read(b)
	return err == nil && k > 3 && mqtt.ReasonCode(b[3]) == mqtt.Success // CONNACK: type, length, flags, reason code
}

// spoken is how many messages the brokers have taken for in.
func (r *region3) spoken() (n int) {
	for _, w := range r.at {
		w.broker.mu.Lock()
		for _, c := range w.broker.channels {
			if len(c.topics) > 0 && c.topics[0] == "in" {
				n += len(c.topics)
			}
		}
		w.broker.mu.Unlock()
	}
	return n
}

// Every other rate holds for three gateways together as publish_rate does, within 5%,
// wherever the tenant's clients are. Each is of a tenant of its own, and all at once, which
// takes the time of one.
func TestRatesOfThreeGateways(t *testing.T) {
	t.Parallel()
	const bytes, messages, connects = 400_000, 400, 100
	long := strings.Repeat("x", 2000)
	r := startThree(t, func(*tenancy.Limits) {})
	out := r.crowd("bytes-out", func(l *tenancy.Limits) { l.BytesOutRate = bytes })
	out.hears(long, 3)
	delivered := r.crowd("delivered", func(l *tenancy.Limits) { l.DeliveryRate = messages })
	small := delivered.hears("x", 5)
	in := r.crowd("bytes-in", func(l *tenancy.Limits) { l.BytesInRate = bytes })
	large := in.talks(long)
	come := r.crowd("come", func(l *tenancy.Limits) { l.ConnectRate = connects })
	come.knocks()
	count := func(c *crowd) func() int { return func() int { return int(c.got.Load()) } }
	r.at[0].eventually("what may come at once has come, five seconds' worth of connects", func() bool {
		return rateOf(count(come), 250*time.Millisecond) < 1.5*connects
	})
	time.Sleep(1500 * time.Millisecond) // by when parts have moved to where the demand is
	var measured sync.WaitGroup
	measured.Go(func() { r.wantRateOf("bytes_out_rate", count(out), bytes) })
	measured.Go(func() {
		r.wantRateOf("delivery_rate", func() int { return int(delivered.got.Load()) / small }, messages)
	})
	measured.Go(func() { r.wantRateOf("bytes_in_rate", func() int { return r.spoken() * large }, bytes) })
	measured.Go(func() { r.wantRateOf("connect_rate", count(come), connects) })
	measured.Wait()
}
