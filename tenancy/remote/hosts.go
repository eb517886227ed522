// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"strings"
	"sync"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// hostBook has the custom domains of all tenants. It is safe for concurrent use; the
// zero book is empty.
type hostBook struct {
	mu    sync.RWMutex
	hosts map[string]*tenancy.CustomHost // guarded by mu; by name, or wildcard
}

// get is who a name leads to. The name itself comes before a wildcard, whoever has it and
// whether it is served or not: a wildcard takes nothing from those who have shown that a
// name below it is theirs.
func (b *hostBook) get(name string) *tenancy.CustomHost {
	above, ok := tenancy.WildcardFor(name)
	if !ok {
		return nil
	}
	b.mu.RLock()
	exact, wildcard := b.hosts[name], b.hosts[above]
	b.mu.RUnlock()
	switch {
	case exact == nil:
		return wildcard
	case wildcard != nil && !exact.Active() && wildcard.Active() && exact.Host().Tenant == wildcard.Host().Tenant:
		return exact.Below(wildcard)
	}
	return exact
}

func (b *hostBook) set(h *tenancy.CustomHost) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.hosts == nil {
		b.hosts = map[string]*tenancy.CustomHost{}
	}
	b.hosts[h.Host().FQDN] = h
}

func (b *hostBook) drop(fqdn string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.hosts, fqdn)
}

func (b *hostBook) every() (all []*tenancy.Host) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, h := range b.hosts {
		all = append(all, h.Host())
	}
	return all
}

// CustomHost is what is known of a host name that a tenant has verified, in any case and
// with or without a dot at its end; nil if nobody has. Of a name that a wildcard stands for
// it is the wildcard's, unless somebody has verified the name itself. The installation's own
// names are nobody's. It may be called concurrently.
func (d *Directory) CustomHost(name string) *tenancy.CustomHost {
	if d.cfg.OpenKey == nil {
		return nil
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if strings.HasSuffix("."+name, d.domain) {
		return nil
	}
	return d.hosts.get(name)
}

// openKey is OpenKey of the configuration, if there is one.
func (d *Directory) openKey(purpose string, sealed []byte) ([]byte, error) {
	if d.cfg.OpenKey == nil {
		return nil, errs.New(errs.Unavailable, "what is sealed for gateways cannot be opened here: expected domain_key_file")
	}
	return d.cfg.OpenKey(purpose, sealed)
}

func (d *Directory) watchHosts(ctx context.Context, b bus.Bucket) {
	told := map[string]bool{}                               // until synced; then nil
	_ = b.Watch(ctx, d.watch(ofHosts), func(u bus.Update) { // ends with ctx only
		switch {
		case u.Synced:
			for _, h := range d.hosts.every() { // what the snapshot had
				if !told[h.FQDN] {
					d.hosts.drop(h.FQDN)
				}
			}
			told = nil
			d.markDirty()
		case u.Deleted:
			d.hosts.drop(tenancy.HostOfKey(u.Entry.Key))
			d.markDirty()
		default:
			if told != nil {
				told[tenancy.HostOfKey(u.Entry.Key)] = true
			}
			h, err := tenancy.DecodeHost(u.Entry.Value, uint64(u.Entry.Revision))
			if err != nil || tenancy.HostKey(h.FQDN) != u.Entry.Key {
				d.log.Error("a stored host cannot be read; what was known of it stays", "host", u.Entry.Key, "error", err)
				return
			}
			d.hosts.set(tenancy.NewCustomHost(h, d.openKey))
			d.markDirty()
		}
	})
}
