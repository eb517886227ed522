// SPDX-License-Identifier: Apache-2.0

package gateway_test

import (
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy"
)

// A client that is in debt where almost nothing of the rate is lent does not sleep for as
// long as it would take with that: it is woken when the others have left some.
func TestSleeperIsWokenWhenMoreIsLent(t *testing.T) {
	t.Parallel()
	r := startThree(t, func(l *tenancy.Limits) { l.BytesInRate = 400_000 })
	r.pumpBytes(0, "a", 20_000)
	time.Sleep(1500 * time.Millisecond) // the others have almost nothing now
	// So that it takes some intervals until they have left it.
	r.wires[0].late.Store(int64(400 * time.Millisecond))
	c := r.at[1].dial("mqtt").mustConnect(hello("b"))
	begin := time.Now()
	for range 2 {
		c.send(publish("t", strings.Repeat("x", 250_000), 1))
	}
	for range 2 {
		c.want(packet.PUBACK)
	}
	// 190 kB of debt: 35 s at the 5.3 kB a second that an idle gateway has, 1 s at a half.
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("two messages took %s, expected about 2 s", took)
	}
}

// Who waits has one timer, however often it has to look again because limits change.
func TestSleepersHaveOneTimer(t *testing.T) {
	t.Parallel()
	w := start(t, nil)
	rate := int64(100_000)
	change := func() {
		rate += 3000
		w.dir.edit("acme", func(t *tenancy.Tenant) { t.Limits.BytesOutRate, t.Limits.BytesInRate = rate/2, rate })
		w.dir.changes <- tenancy.Change{Kind: tenancy.TenantChanged, Tenant: "acme"}
	}
	change()
	sub := w.dial("mqtt").mustConnect(hello("s"))
	sub.subscribe("t")
	p := w.dial("mqtt").mustConnect(hello("p"))
	sending, reading := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sending)
		b := packet.Append(nil, p.v, publish("t", strings.Repeat("x", 100_000), 0), 0)
		for {
			if _, err := p.c.Write(b); err != nil {
				return
			}
		}
	}()
	go func() {
		defer close(reading)
		for b := make([]byte, 64<<10); ; {
			if _, err := sub.c.Read(b); err != nil {
				return
			}
		}
	}()
	throttled := func() float64 { return w.metric("mqtt_gateway_throttled_total") }
	w.eventually("both wait", func() bool {
		return w.metric("mqtt_gateway_throttled_total", "bytes_in_rate") > 0 && w.metric("mqtt_gateway_throttled_total", "bytes_out_rate") > 0
	})
	for range 100 { // each makes the wait end earlier
		change()
	}
	time.Sleep(100 * time.Millisecond) // all changes are heard
	before := throttled()
	time.Sleep(1500 * time.Millisecond)
	// Each message is a wait of 0.25 s.
	if n := throttled() - before; n < 1 || n > 40 {
		t.Errorf("two connections have had to wait %g times in 1.5 s, expected about 12", n)
	}
	_, _ = p.c.Close(), sub.c.Close()
	<-sending
	<-reading
}
