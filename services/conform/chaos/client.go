// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/services/conform"
)

// client is a session that is to be connected, through whichever gateway.
type client struct {
	load   *Load
	name   string
	device *conform.Device
	known  bool // the session was made: from then on it must be there

	connected atomic.Bool
	since     atomic.Int64 // when connected changed, in ns
	proof     atomic.Bool  // a PINGREQ sent after it was cleared has been answered
	lost      atomic.Int64 // connections that ended unasked
	refusal   atomic.Pointer[string]
}

// newClient makes the client of that name; those of odd number speak MQTT 5.
func newClient(l *Load, name string, number int) *client {
	o := packet.Connect{Version: packet.V311, ClientID: l.prefix + "-" + name, KeepAlive: 30}
	if number%2 == 1 {
		o.Version, o.SessionExpiry, o.HasSessionExpiry = packet.V5, 3600, true
	}
	return &client{load: l, name: name, device: &conform.Device{Options: o, Timeout: 12 * time.Second}}
}

// connect tries all gateways in turn until one lets the client in, or ctx ends.
func (c *client) connect(ctx context.Context) bool {
	for at := rand.IntN(len(c.load.addrs)); ctx.Err() == nil; at++ {
		c.device.Address = c.load.addrs[at%len(c.load.addrs)]
		ack, err := c.device.Connect()
		if err == nil {
			if c.known && !ack.SessionPresent {
				c.load.errorf("%s: its session is gone", c.name)
			}
			c.known = true
			c.since.Store(time.Now().UnixNano())
			c.connected.Store(true)
			return true
		}
		why := err.Error()
		c.refusal.Store(&why)
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return false
}

// stay stays connected until leave reports true, ctx ends or the connection
// does. work is called 100 times a second; its error ends the connection.
func (c *client) stay(ctx context.Context, leave func() bool, work func() error) {
	defer func() {
		c.connected.Store(false)
		c.since.Store(time.Now().UnixNano())
	}()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	alive := make(chan struct{})
	go c.ping(alive)
	defer func() { <-alive }() // after the connection has ended
	for {
		select {
		case <-c.device.Done():
			c.lost.Add(1)
			why := c.device.Err().Error()
			c.refusal.Store(&why)
			return
		case <-ctx.Done():
			c.device.Kill()
			return
		case <-tick.C:
		}
		if leave() {
			if rand.IntN(2) == 0 {
				c.device.Kill()
			} else {
				c.device.Disconnect()
			}
			return
		}
		if err := work(); err != nil {
			c.lost.Add(1)
			c.device.Kill()
			return
		}
	}
}

// ping asks for an answer each second, and ends a connection that gives none.
func (c *client) ping(done chan<- struct{}) {
	defer close(done)
	for {
		before := c.proof.Load()
		if c.device.Ping() != nil {
			c.device.Kill()
			return
		}
		// Cleared meanwhile, the answer proves nothing yet.
		if !before && !c.proof.Load() {
			c.proof.Store(true)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-c.device.Done():
			return
		}
	}
}

// state says how the client is, for people.
func (c *client) state() string {
	since := time.Since(time.Unix(0, c.since.Load())).Round(10 * time.Millisecond)
	if c.connected.Load() {
		return fmt.Sprintf("connected for %v", since)
	}
	why := ""
	if w := c.refusal.Load(); w != nil {
		why = ": " + *w
	}
	return fmt.Sprintf("away for %v%s", since, why)
}
