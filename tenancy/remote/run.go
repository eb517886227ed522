// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/tenancy"
)

// retryEvery is how often Run tries to open the buckets.
const retryEvery = 500 * time.Millisecond

// Run watches the buckets, reads tenants whole that are asked about, and writes
// the snapshot, until ctx is done. It never gives up on a bus that is away.
func (d *Directory) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { d.runWatches(ctx) })
	wg.Go(func() { d.runLoader(ctx) })
	wg.Go(func() { d.runVigil(ctx) })
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
	told := map[string]bool{}                                 // until synced; then nil
	_ = b.Watch(ctx, d.watch(ofTenants), func(u bus.Update) { // ends with ctx only
		switch {
		case u.Synced:
			// What the snapshot had and the bucket has not is gone.
			for _, id := range d.cache.tenantIDs() {
				if !told[id] {
					d.tenantGone(id)
				}
			}
			told = nil
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
		d.changes.tell(tenancy.Change{Kind: tenancy.TenantChanged, Tenant: id}, true)
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
		d.changes.tell(tenancy.Change{Kind: tenancy.TenantChanged, Tenant: e.Key}, k.tenant == nil || !k.tenant.Active())
		d.wantRest(k)
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
	w := bus.Watch{After: bus.Revision(after), NewOnly: after == 0, Current: d.current(ofCredentials)}
	_ = b.Watch(ctx, w, func(u bus.Update) { // ends with ctx only
		if u.Synced {
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
		d.changes.tell(tenancy.Change{Kind: tenancy.CredentialGone, Tenant: tenant, Username: username}, true)
	}
	if session {
		d.changes.tell(tenancy.Change{Kind: tenancy.CredentialChanged, Tenant: tenant, Username: username, Session: c.Session}, false)
	}
	d.markDirty()
}

// wantRest has the grants of a tenant's policy read, and its registry, if its clients come
// here: they are to be known when the control plane goes before the next client comes.
func (d *Directory) wantRest(k *knownTenant) {
	if t := k.tenant; t == nil || t.Policy.Live() == 0 && !t.Registry || !d.cache.wanted(t.ID) {
		return
	}
	select {
	case d.load <- toLoad{tenant: k.tenant.ID, rest: true}:
	default: // read at their first use
	}
}

// toLoad is a tenant to read: its credentials, the grants of its policy and its registry,
// or only the rest without the credentials.
type toLoad struct {
	tenant string
	rest   bool
}

// runLoader reads tenants whole: the credentials of those that wait together, then the rest of
// one after the other.
func (d *Directory) runLoader(ctx context.Context) {
	for {
		select {
		case l := <-d.load:
			all := d.alsoWaiting(l)
			var whole []string
			for _, l := range all {
				if !l.rest {
					whole = append(whole, l.tenant)
				}
			}
			if len(whole) > 0 {
				d.loadTenants(ctx, whole)
			}
			for _, l := range all {
				d.loadGrants(ctx, l.tenant)
				d.loadRegistry(ctx, l.tenant)
			}
		case <-ctx.Done():
			return
		}
	}
}

// loadGrants reads what all clients of a tenant are granted by its policy. Of one with
// mqtt.connect each client has its class.
func (d *Directory) loadGrants(ctx context.Context, id string) {
	k := d.cache.tenant(id)
	if k == nil || k.tenant == nil || k.tenant.Policy.Live() == 0 || k.tenant.Policy.Connect {
		return
	}
	if _, err := d.grantSet(ctx, id, k.tenant.Policy.Revision, tenancy.DefaultClass); err != nil && ctx.Err() == nil {
		d.log.Debug("the grants of a tenant were not read", "tenant", id, "error", err)
	}
}
