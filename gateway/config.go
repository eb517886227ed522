// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/events"
)

// Config is what a Gateway needs.
type Config struct {
	// Name is the gateway's in labels and generated client ids.
	Name      string
	Listeners []listener.Config
	Directory tenancy.Directory
	// Hosts is what is known of a custom domain; nil, or a nil answer, is none. It is
	// called concurrently.
	Hosts func(name string) *tenancy.CustomHost
	// Domain is what tenants' hostnames are below; a TLS client that names just
	// the domain names no tenant.
	Domain string
	// Tickets is what all gateways derive the keys of TLS session tickets from; nil,
	// and while it gives nil, each has its own.
	Tickets func() *tenancy.TicketSecrets
	// Dialer leads to a broker, and Seeds to one each; one of them is enough. Dial
	// leads to those of the partition table, which brokers tell; without it the seeds
	// lead to all of them. Links is how many links are kept to each; 0 means 2, and 1
	// is enough in one process.
	Dialer uplink.Dialer
	Seeds  []uplink.Dialer
	Dial   func(ctx context.Context, b link.TableBroker, gw link.Gateway) (link.Broker, error)
	Links  int
	// OwnerWait is for how long a client waits for its partition to have a broker;
	// 0 means 10 s.
	OwnerWait time.Duration
	// GuestWait is after how long, since it came, a client whose tenant allows it is
	// given a guest session; 0 means 5 s.
	GuestWait time.Duration
	// Anonymous is the id of the tenant of clients that name none, on the
	// listeners without TLS; empty is none.
	Anonymous string
	// Record hears of what is denied, and of some of what is allowed, under tenants'
	// own policies; nil is nobody. It must not block, and may keep d.
	Record func(tenant string, d *tenancy.Decision)
	// Check asks what mqtt.check of a tenant's policy says; see remote.Directory.AskCheck. nil
	// denies what is to be asked about.
	Check func(ctx context.Context, q *tenancy.CheckQuestion) (*tenancy.CheckAnswer, error)
	// Loops is how many event loops share the connections without TLS; 0 is one
	// for each processor.
	Loops int
	// ConnectTimeout bounds each handshake, and the time from the first byte of
	// MQTT until CONNACK; 0 means 10 s.
	ConnectTimeout time.Duration
	// ConnectSize is the largest CONNECT in bytes, before the tenant and its
	// quota packet_size are known; 0 means 256 KiB.
	ConnectSize int
	// ShedAfter is for how long the clients of a tenant that sends more than its
	// rates allow are read more slowly before messages are refused; 0 means 10 s.
	ShedAfter time.Duration
	// Bus is where gateways tell each other what is used of the quotas that they share;
	// nil, and with Alone, this one has all of them. Alone says that there are no others.
	Bus   bus.Bus
	Alone bool
	// Events hears what happens to clients; nil if nobody keeps that. Whoever makes it
	// runs it.
	Events     *events.Writer
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

const (
	defaultLinks          = 2
	defaultConnectTimeout = 10 * time.Second
	defaultConnectSize    = 256 << 10
	defaultShedAfter      = 10 * time.Second
)

func (c *Config) validate() error {
	switch {
	case c.Directory == nil || c.Dialer == nil && len(c.Seeds) == 0 || c.Log == nil || c.Registerer == nil:
		return errs.New(errs.Invalid, "gateway: expected a directory, a dialer, a logger and a registerer")
	case len(c.Listeners) == 0:
		return errs.New(errs.Invalid, "gateway: listeners: expected at least one")
	}
	names := map[string]bool{}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if err := l.Validate(); err != nil {
			return err
		}
		if names[l.Label()] {
			return errs.New(errs.Invalid, "gateway: listeners: expected different names, found %q twice", l.Label())
		}
		names[l.Label()] = true
	}
	if c.Dialer != nil {
		c.Seeds = append([]uplink.Dialer{c.Dialer}, c.Seeds...)
	}
	if c.OwnerWait == 0 {
		c.OwnerWait = defaultOwnerWait
	}
	if c.GuestWait == 0 {
		c.GuestWait = defaultGuestWait
	}
	if c.Links == 0 {
		c.Links = defaultLinks
	}
	if c.ShedAfter == 0 {
		c.ShedAfter = defaultShedAfter
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = defaultConnectTimeout
	}
	if c.ConnectSize == 0 {
		c.ConnectSize = defaultConnectSize
	}
	return nil
}
