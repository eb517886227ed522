// SPDX-License-Identifier: Apache-2.0

// Package remote is the tenancy.Directory of a process that has no store of its
// own: it reads the tenants' and credentials' buckets, and that of the secrets of
// TLS session tickets, over the bus, keeps what it read, and hears of changes by
// one watch per bucket. With the control plane gone it goes on answering about
// those it knows for 24 hours, also across a restart, from one snapshot file. Run
// owns its goroutines. It knows no way to check a password (it is given one), and
// writes to no bucket.
package remote

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Verifier checks a password against a stored hash; id and revision name the
// credential as it is now, of the tenant whose turn it takes. It is called concurrently.
type Verifier interface {
	Verify(ctx context.Context, of, id string, revision uint64, hash string, password []byte) (bool, error)
	// Refuse takes as long as Verify of a wrong password; id names what was not
	// found.
	Refuse(ctx context.Context, of, id string, password []byte) error
}

// Conversation is the server's side of an exchange; see package scram.
type Conversation interface {
	Step(data []byte) (answer []byte, done bool, err error)
}

// Defaults of Config.
const (
	// DefaultKeep is how long answers are given without the control plane.
	DefaultKeep = 24 * time.Hour
	// wholeTenant is up to how many credentials a tenant is read whole.
	wholeTenant = 10_000
	// DefaultCredentials is how many credentials are kept; of tenants that are
	// not read whole the rest is read again.
	DefaultCredentials = 1_000_000
)

// Config says what a Directory stands on.
type Config struct {
	Bus      bus.Bus
	Verifier Verifier
	// SCRAM begins SCRAM-SHA-256; nil means that there is no such method.
	SCRAM func(find func(username string) (*tenancy.SCRAM, error)) (Conversation, error)
	// Tokens checks tokens; nil means that there is no such method.
	Tokens Tokens
	// Name is this node's, which the control plane is told with what it is told.
	Name string
	// Domain is what the tenants' host names are below: acme.<domain>.
	Domain string
	// OpenKey opens the keys of custom domains' certificates; nil serves no custom
	// domains.
	OpenKey func(purpose string, sealed []byte) ([]byte, error)
	// Region, if not empty, hides the tenants of other regions.
	Region string
	// Snapshot is the path of the snapshot file; empty means none.
	Snapshot string
	// Key authenticates the snapshot; see LoadKey. It must not be empty if
	// there is a snapshot.
	Key []byte
	// Keep is how long answers are given without the control plane; 0 means
	// DefaultKeep.
	Keep time.Duration
	// Credentials is how many are kept; 0 means DefaultCredentials.
	Credentials int
	Log         *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Directory is a tenancy.Directory over the bus. It is safe for concurrent use.
// Make it with New; it hears of changes while Run runs.
type Directory struct {
	cfg     Config
	log     *slog.Logger
	now     func() time.Time
	domain  string // "." and the domain, lower case
	cache   *cache
	changes changes
	absent  *absentees
	ready   chan struct{} // closed when the tenants are known
	once    sync.Once     // closes ready
	load    chan toLoad
	asking  chan struct{} // a token for each question about a credential
	dirty   chan struct{} // holds a token when the snapshot is behind

	grants    *grants
	decisions decisions

	tickets atomic.Pointer[tenancy.TicketSecrets]
	bans    banBook
	keys    keyBook
	devices *deviceBook
	hosts   hostBook
	flaps   chan tenancy.Flap

	contact  contact
	outage   outage
	refusals refusals

	mu      sync.Mutex
	buckets buckets // guarded by mu
}

var _ tenancy.Directory = (*Directory)(nil)

type buckets struct{ tenants, credentials, tickets, bans, keys, grants, devices, hosts bus.Bucket }

// New returns a Directory that knows what its snapshot knows. A snapshot that
// is missing, too old or not authentic is left alone, with a line in the log.
func New(cfg Config) (*Directory, error) {
	if cfg.Keep <= 0 {
		cfg.Keep = DefaultKeep
	}
	if cfg.Credentials <= 0 {
		cfg.Credentials = DefaultCredentials
	}
	if cfg.Snapshot != "" && len(cfg.Key) == 0 {
		return nil, errs.New(errs.Invalid, "a directory with a snapshot needs a key for it")
	}
	d := &Directory{
		cfg:    cfg,
		log:    cfg.Log,
		now:    cfg.Now,
		domain: "." + strings.ToLower(strings.Trim(cfg.Domain, ".")),
		cache:  newCache(cfg.Credentials),
		absent: newAbsentees(),
		grants: newGrants(),
		ready:  make(chan struct{}),
		load:   make(chan toLoad, 1024),
		asking: make(chan struct{}, asksAtOnce),
		dirty:  make(chan struct{}, 1),
		flaps:  make(chan tenancy.Flap, flapsMax),
	}
	if d.now == nil {
		d.now = time.Now
	}
	var err error
	if d.devices, err = newDeviceBook(); err != nil {
		return nil, err
	}
	d.changes.queues = map[*queue]struct{}{}
	if cfg.Snapshot != "" {
		d.restore()
	}
	return d, nil
}

// Kept is how many credentials are kept.
func (d *Directory) Kept() int { return d.cache.kept() }

// Tenant implements tenancy.Directory. A tenant that is suspended is returned
// as that; one that is reserved or deleted is NotFound.
func (d *Directory) Tenant(ctx context.Context, id string) (*tenancy.Tenant, error) {
	if err := d.fresh(); err != nil {
		d.refusals[aboutAll].Add(1)
		return nil, err
	}
	return d.Known(ctx, id)
}

// Known implements tenancy.Directory. Watches tell of changes as soon as the bus is
// back, and what is known is complete only when all of them have: until then Tenant
// may still refuse, while a change that was told must have its effect.
func (d *Directory) Known(ctx context.Context, id string) (*tenancy.Tenant, error) {
	r := d.cache.tenant(id)
	if r == nil || r.record.State == tenancy.StateReserved { // its sign-up may have ended just now
		var err error
		if r, err = d.askTenant(ctx, id); err != nil {
			return nil, err
		}
	}
	if r.tenant == nil || d.cfg.Region != "" && r.record.Region != d.cfg.Region {
		return nil, noTenant(id)
	}
	return r.tenant, nil
}

func noTenant(id string) error {
	return errs.Coded(errs.NotFound, "tenant_not_found", "there is no tenant %q", id)
}

// askTenant asks the bus about a tenant that is not known: it may have signed
// up a moment ago.
func (d *Directory) askTenant(ctx context.Context, id string) (*knownTenant, error) {
	if tenancy.ValidTenantID(id) != nil || d.absent.has(id, d.now()) {
		return nil, noTenant(id)
	}
	e, err := d.ask(ctx, aboutTenant, fmt.Sprintf("tenant %q is not known here", id), func(b *buckets) bus.Bucket { return b.tenants }, id)
	if errs.Is(err, errs.NotFound) {
		d.absent.add(id, d.now())
		return nil, noTenant(id)
	}
	if err != nil {
		return nil, err
	}
	k, err := d.knownTenant(e)
	if err != nil {
		return nil, err
	}
	// It is not kept: the watch tells of every tenant, and may have told that
	// this one is gone while it was on its way here.
	if known := d.cache.tenant(id); known != nil && known.record.Revision > k.record.Revision {
		return known, nil
	}
	return k, nil
}

const (
	// askTimeout bounds a question to the bus while a client waits.
	askTimeout = 2 * time.Second
	// asksAtOnce is how many credentials the bus is asked about at once. Thousands
	// of clients may come in one second that are not known here; asked for all at
	// once, the bus answers the last of them when their time is over, so that they
	// come again, and nobody is served faster.
	asksAtOnce = 64
)

// TenantByHost implements tenancy.Directory.
func (d *Directory) TenantByHost(ctx context.Context, host string) (*tenancy.Tenant, error) {
	id, ok := strings.CutSuffix(strings.ToLower(strings.TrimSuffix(host, ".")), d.domain)
	if h := d.CustomHost(host); !ok && h != nil && h.Active() {
		return d.Tenant(ctx, h.Host().Tenant)
	}
	if !ok || id == "" || strings.Contains(id, ".") {
		return nil, errs.Coded(errs.NotFound, "host_not_found", "no tenant has the host name %q; expected <tenant>%s or a custom domain with a certificate", host, d.domain)
	}
	return d.Tenant(ctx, id)
}

// Watch implements tenancy.Directory.
func (d *Directory) Watch(ctx context.Context, f func(tenancy.Change)) error {
	q := d.changes.subscribe()
	defer d.changes.unsubscribe(q)
	for {
		c, ok := q.pop(ctx)
		if !ok {
			return ctx.Err()
		}
		f(c)
	}
}

func (d *Directory) markDirty() {
	select {
	case d.dirty <- struct{}{}:
	default:
	}
}

// open returns the buckets; they are opened when the bus is first reached.
func (d *Directory) open(ctx context.Context) (buckets, error) {
	d.mu.Lock()
	b := d.buckets
	d.mu.Unlock()
	if b.tenants != nil {
		return b, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var err error
	for _, x := range []struct {
		to   *bus.Bucket
		name string
	}{
		{&b.credentials, tenancy.CredentialsBucket},
		{&b.tickets, tenancy.TicketsBucket},
		{&b.bans, tenancy.BansBucket},
		{&b.keys, tenancy.KeysBucket},
		{&b.devices, tenancy.DevicesBucket},
		{&b.hosts, tenancy.HostsBucket},
		{&b.tenants, tenancy.TenantsBucket}, // last: that it is there says that all are
	} {
		if *x.to, err = d.cfg.Bus.Bucket(ctx, bus.BucketConfig{Name: x.name}); err != nil {
			return buckets{}, err
		}
	}
	if b.grants, err = d.cfg.Bus.Bucket(ctx, bus.BucketConfig{Name: tenancy.GrantsBucket}); err != nil {
		return b, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.buckets = b
	return b, nil
}
