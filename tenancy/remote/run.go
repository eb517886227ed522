// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Intervals of Run.
const (
	retryEvery = 500 * time.Millisecond // opening the buckets
	probeEvery = 5 * time.Second        // asking whether the bus is there
)

// Run watches the buckets, reads tenants whole that are asked about, and writes
// the snapshot, until ctx is done. It never gives up on a bus that is away.
func (d *Directory) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { d.runWatches(ctx) })
	wg.Go(func() { d.runLoader(ctx) })
	wg.Go(func() { d.runProbe(ctx) })
	wg.Go(func() { d.runDecisions(ctx) })
	wg.Go(func() { d.runFlaps(ctx) })
	if d.cfg.Snapshot != "" {
		wg.Go(func() { d.runSnapshot(ctx) })
	}
	wg.Wait()
	return nil
}

// runWatches opens the buckets, as soon as that can be done, and watches them.
func (d *Directory) runWatches(ctx context.Context) {
	warned := false
	for {
		b, err := d.open(ctx)
		if err == nil {
			var wg sync.WaitGroup
			wg.Go(func() { d.watchTenants(ctx, b.tenants) })
			wg.Go(func() { d.watchCredentials(ctx, b.credentials) })
			wg.Go(func() { d.watchTickets(ctx, b.tickets) })
			wg.Go(func() { d.watchBans(ctx, b.bans) })
			wg.Go(func() { d.watchKeys(ctx, b.keys) })
			wg.Go(func() { d.watchDevices(ctx, b.devices) })
			wg.Go(func() { d.watchHosts(ctx, b.hosts) })
			wg.Wait()
			return
		}
		if !warned && ctx.Err() == nil {
			warned = true
			d.log.Warn("the control plane is not there; serving what is known", "error", err)
		}
		if !pause(ctx, retryEvery) {
			return
		}
	}
}

// pause waits and reports whether ctx lives on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (d *Directory) watchTenants(ctx context.Context, b bus.Bucket) {
	told := map[string]bool{}                          // until synced; then nil
	_ = b.Watch(ctx, bus.Watch{}, func(u bus.Update) { // ends with ctx only
		switch {
		case u.Synced:
			d.touch()
			// What the snapshot had and the bucket has not is gone.
			for _, id := range d.cache.tenantIDs() {
				if !told[id] {
					d.tenantGone(id)
				}
			}
			told = nil
			d.heard()
			d.markDirty()
		case u.Deleted:
			d.tenantGone(u.Entry.Key)
		default:
			if told != nil {
				told[u.Entry.Key] = true
			}
			d.tenantTold(u.Entry)
		}
	})
}

func (d *Directory) tenantGone(id string) {
	if d.cache.dropTenant(id) {
		d.grants.drop(id)
		d.changes.tell(tenancy.Change{Kind: tenancy.TenantChanged, Tenant: id})
		d.markDirty()
	}
}

func (d *Directory) tenantTold(e bus.Entry) {
	k, err := d.knownTenant(e)
	if err != nil {
		d.log.Error("a stored tenant cannot be read", "tenant", e.Key, "error", err)
		return
	}
	d.absent.remove(e.Key)
	if d.cache.setTenant(k) {
		d.changes.tell(tenancy.Change{Kind: tenancy.TenantChanged, Tenant: e.Key})
		d.markDirty()
	}
}

func (d *Directory) knownTenant(e bus.Entry) (*knownTenant, error) {
	r, err := tenancy.DecodeTenant(e.Value, uint64(e.Revision))
	if err != nil {
		return nil, err
	}
	return d.makeTenant(r)
}

func (d *Directory) makeTenant(r *tenancy.TenantRecord) (*knownTenant, error) {
	k := &knownTenant{record: r}
	if r.State == tenancy.StateReserved || r.State == tenancy.StateDeleted {
		return k, nil
	}
	var err error
	k.tenant, err = r.Tenant(d.domain[1:])
	return k, err
}

func (d *Directory) watchCredentials(ctx context.Context, b bus.Bucket) {
	d.cache.mu.RLock()
	after := d.cache.revision
	d.cache.mu.RUnlock()
	// What is kept was read at revision after; without any, only what changes
	// from now on matters.
	w := bus.Watch{After: bus.Revision(after), NewOnly: after == 0}
	_ = b.Watch(ctx, w, func(u bus.Update) { // ends with ctx only
		if u.Synced {
			d.touch()
			d.cache.setRevision(uint64(u.Entry.Revision))
			return
		}
		d.credentialTold(u)
	})
}

func (d *Directory) credentialTold(u bus.Update) {
	tenant, username, ok := tenancy.ParseCredentialKey(u.Entry.Key)
	if !ok {
		d.log.Error("a stored credential has a key that is none", "key", u.Entry.Key)
		return
	}
	d.absent.remove(u.Entry.Key)
	c := tenancy.Credential{Tenant: tenant, Username: username, Revision: uint64(u.Entry.Revision)}
	if !u.Deleted {
		var err error
		if c, err = tenancy.DecodeCredential(u.Entry.Value, uint64(u.Entry.Revision)); err != nil {
			d.log.Error("a stored credential cannot be read", "tenant", tenant, "error", err)
			return
		}
	}
	gone, session := d.cache.told(c, u.Deleted)
	if gone {
		d.changes.tell(tenancy.Change{Kind: tenancy.CredentialGone, Tenant: tenant, Username: username})
	}
	if session {
		d.changes.tell(tenancy.Change{Kind: tenancy.CredentialChanged, Tenant: tenant, Username: username, Session: c.Session})
	}
	d.markDirty()
}

// runLoader reads tenants whole, those that wait together.
func (d *Directory) runLoader(ctx context.Context) {
	for {
		select {
		case id := <-d.load:
			d.loadTenants(ctx, d.alsoWaiting(id))
		case <-ctx.Done():
			return
		}
	}
}

// runProbe keeps the time at which the bus was last there.
func (d *Directory) runProbe(ctx context.Context) {
	for pause(ctx, probeEvery) {
		d.mu.Lock()
		b := d.buckets.tenants
		d.mu.Unlock()
		if b == nil {
			continue
		}
		call, cancel := context.WithTimeout(ctx, askTimeout)
		// Any answer will do; this key is no tenant.
		_, err := b.Get(call, "-")
		cancel()
		if err == nil || errs.Is(err, errs.NotFound) {
			d.touch()
		}
	}
}
