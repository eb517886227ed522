// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/tenancy"
)

// Tenants are read whole together: of a bucket with a million credentials a server reads
// some megabytes of its log for one tenant, and little more for many. When the gateways
// of a region start again, clients of all tenants come at once.
const (
	// loadAtOnce is how many tenants are read together.
	loadAtOnce = bus.EntriesMax
	// loadEntries is how many credentials of several tenants are read together; with
	// more of them the tenants are halved.
	loadEntries = 5 * wholeTenant
	// loadTimeout bounds one reading.
	loadTimeout = 2 * time.Minute
)

// alsoWaiting is the tenant with others that wait to be read.
func (d *Directory) alsoWaiting(first toLoad) []toLoad {
	all := []toLoad{first}
	for len(all) < loadAtOnce {
		select {
		case l := <-d.load: // whole each once: see cache.credential
			all = append(all, l)
		default:
			return all
		}
	}
	return all
}

// loadTenants reads tenants whole. Those that cannot be are read at their next use.
func (d *Directory) loadTenants(ctx context.Context, ids []string) {
	for _, id := range ids {
		defer d.cache.reading(id)()
	}
	entries, more, err := d.entriesOf(ctx, ids)
	switch {
	case err != nil:
		for _, id := range ids {
			d.cache.loadLater(id)
		}
		if ctx.Err() == nil {
			d.log.Debug("the credentials of tenants were not read", "tenants", len(ids), "first", ids[0], "error", err)
		}
		return
	case more && len(ids) > 1:
		d.loadTenants(ctx, ids[:len(ids)/2])
		d.loadTenants(ctx, ids[len(ids)/2:])
		return
	}
	creds := make(map[string][]tenancy.Credential, len(ids))
	bad := map[string]bool{}
	for _, e := range entries {
		tenant, _, _ := tenancy.ParseCredentialKey(e.Key)
		c, err := tenancy.DecodeCredential(e.Value, uint64(e.Revision))
		if err != nil {
			bad[tenant] = true
			d.log.Error("a stored credential cannot be read", "tenant", tenant, "error", err)
			continue
		}
		creds[tenant] = append(creds[tenant], c)
	}
	for _, id := range ids {
		if bad[id] {
			d.cache.loadLater(id)
			continue
		}
		d.cache.setWhole(id, creds[id], more || len(creds[id]) > wholeTenant)
	}
	d.markDirty()
}

// entriesOf reads the credentials of tenants, and reports whether they have more than are
// read together.
func (d *Directory) entriesOf(ctx context.Context, ids []string) (entries []bus.Entry, more bool, err error) {
	b, err := d.open(ctx)
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	limit := loadEntries
	if len(ids) == 1 {
		limit = wholeTenant
	}
	prefixes := make([]string, len(ids))
	for i, id := range ids {
		prefixes[i] = tenancy.CredentialPrefix(id)
	}
	return b.credentials.Entries(ctx, prefixes, limit)
}
