// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// banBook has the bans of all tenants. It is safe for concurrent use; the zero book
// is empty.
type banBook struct {
	mu      sync.RWMutex
	tenants map[string]*bannedBy // guarded by mu
}

// bannedBy are the bans of one tenant.
type bannedBy struct {
	all map[string]*tenancy.Ban // by id
	// made is of all; nil after a change.
	made *tenancy.Bans
}

func (b *banBook) set(x *tenancy.Ban) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tenants[x.Tenant]
	if t == nil {
		if b.tenants == nil {
			b.tenants = map[string]*bannedBy{}
		}
		t = &bannedBy{all: map[string]*tenancy.Ban{}}
		b.tenants[x.Tenant] = t
	}
	t.all[x.ID], t.made = x, nil
}

// drop reports whether there was such a ban.
func (b *banBook) drop(tenant, id string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tenants[tenant]
	if t == nil || t.all[id] == nil {
		return false
	}
	delete(t.all, id)
	if t.made = nil; len(t.all) == 0 {
		delete(b.tenants, tenant)
	}
	return true
}

func (b *banBook) of(tenant string) *tenancy.Bans {
	b.mu.RLock()
	t := b.tenants[tenant]
	if t == nil || t.made != nil {
		defer b.mu.RUnlock()
		if t == nil {
			return nil
		}
		return t.made
	}
	b.mu.RUnlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if t = b.tenants[tenant]; t == nil {
		return nil
	}
	if t.made == nil {
		all := make([]*tenancy.Ban, 0, len(t.all))
		for _, x := range t.all {
			all = append(all, x)
		}
		t.made = tenancy.NewBans(all)
	}
	return t.made
}

func (b *banBook) every() (all []*tenancy.Ban) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, t := range b.tenants {
		for _, x := range t.all {
			all = append(all, x)
		}
	}
	return all
}

// Bans implements tenancy.Directory.
func (d *Directory) Bans(tenant string) *tenancy.Bans { return d.bans.of(tenant) }

func (d *Directory) watchBans(ctx context.Context, b bus.Bucket) {
	told := map[string]bool{} // until synced; then nil
	gone := func(tenant, id string) {
		if d.bans.drop(tenant, id) {
			d.changes.tell(tenancy.Change{Kind: tenancy.BansChanged, Tenant: tenant}, true)
			d.markDirty()
		}
	}
	_ = b.Watch(ctx, d.watch(ofBans), func(u bus.Update) { // ends with ctx only
		switch {
		case u.Synced:
			for _, x := range d.bans.every() { // what the snapshot had
				if !told[x.Key()] {
					gone(x.Tenant, x.ID)
				}
			}
			told = nil
		case u.Deleted:
			if tenant, id, ok := cutKey(u.Entry.Key); ok {
				gone(tenant, id)
			}
		default:
			if told != nil {
				told[u.Entry.Key] = true
			}
			x, err := tenancy.DecodeBan(u.Entry.Value, uint64(u.Entry.Revision))
			if err != nil || x.Key() != u.Entry.Key {
				d.log.Error("a stored ban cannot be read; who is banned by it is let in", "key", u.Entry.Key, "error", err)
				return
			}
			d.bans.set(x)
			d.changes.tell(tenancy.Change{Kind: tenancy.BansChanged, Tenant: x.Tenant}, true)
			d.markDirty()
		}
	})
}

// flapsMax is how many Flaps wait to be told. More are left out: the gateway that has
// seen them has banned them itself.
const flapsMax = 256

// Flapped implements tenancy.Directory.
func (d *Directory) Flapped(f tenancy.Flap) {
	f.Gateway = d.cfg.Name
	select {
	case d.flaps <- f:
	default:
		d.log.Warn("the control plane is not told of a client that flaps: too many wait", "tenant", f.Tenant, "client_id", f.ClientID)
	}
}

func (d *Directory) runFlaps(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-d.flaps:
			body, err := json.Marshal(f)
			if err == nil {
				call, cancel := context.WithTimeout(ctx, askTimeout)
				_, err = d.cfg.Bus.Request(call, tenancy.SubjectFlapping, body)
				cancel()
			}
			if err != nil && ctx.Err() == nil && !errs.Is(err, errs.NotFound) {
				d.log.Warn("the control plane was not told of a client that flaps; this gateway alone bans it", "tenant", f.Tenant, "client_id", f.ClientID, "error", err)
			}
		}
	}
}
