// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// askKeysEvery is how often one gateway asks at most for the keys of one issuer to be
// fetched again, because a token names one that it does not know: anybody can make
// up such a name.
const askKeysEvery = 5 * time.Second

// keySet is what is kept of a tenancy.KeySet.
type keySet struct {
	Tenant    string    `json:"tenant"`
	URL       string    `json:"url"`
	JWKS      string    `json:"jwks"`
	FetchedAt time.Time `json:"fetched_at"`
}

// keyBook has the keys of all tenants' issuers. It is safe for concurrent use; the
// zero book is empty.
type keyBook struct {
	asking singleflight.Group

	mu    sync.RWMutex
	sets  map[string]keySet    // guarded by mu; by tenancy.KeySetKey
	asked map[string]time.Time // guarded by mu; when the control plane was asked last
}

func (b *keyBook) get(tenant, address string) string {
	key := tenancy.KeySetKey(tenant, address)
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.sets[key].JWKS
}

// set keeps a set unless a newer one is there.
func (b *keyBook) set(k keySet) {
	key := tenancy.KeySetKey(k.Tenant, k.URL)
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, ok := b.sets[key]; ok && old.FetchedAt.After(k.FetchedAt) {
		return
	}
	if b.sets == nil {
		b.sets = map[string]keySet{}
	}
	b.sets[key] = k
}

func (b *keyBook) drop(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sets, key)
	delete(b.asked, key)
}

// mayAsk reports whether the control plane may be asked now, and notes that it is.
func (b *keyBook) mayAsk(key string, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.asked[key]) < askKeysEvery {
		return false
	}
	if b.asked == nil {
		b.asked = map[string]time.Time{}
	}
	b.asked[key] = now
	return true
}

func (b *keyBook) every() (all []keySet) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	for _, k := range b.sets {
		all = append(all, k)
	}
	return all
}

// askKeys has the control plane fetch the keys of an issuer again, and returns them.
// They are those that are known if it was asked a moment ago.
func (d *Directory) askKeys(ctx context.Context, tenant, address string) (jwks string, err error) {
	key := tenancy.KeySetKey(tenant, address)
	got, err, _ := d.keys.asking.Do(key, func() (any, error) {
		if !d.keys.mayAsk(key, d.now()) {
			return d.keys.get(tenant, address), nil
		}
		body, err := json.Marshal(tenancy.KeySetRequest{Tenant: tenant, URL: address})
		if err != nil {
			return "", errs.New(errs.Internal, "ask for keys: %w", err)
		}
		// The others that wait are not to lose their answer with the first.
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), askKeysTime)
		defer cancel()
		answer, err := d.cfg.Bus.Request(call, tenancy.SubjectKeys, body)
		if err != nil {
			return "", err
		}
		k, err := tenancy.DecodeKeySet(answer)
		if err != nil {
			return "", err
		}
		if k.JWKS != "" {
			d.keys.set(keySet{k.Tenant, k.URL, k.JWKS, k.FetchedAt})
			d.markDirty()
		}
		return d.keys.get(tenant, address), nil
	})
	jwks, _ = got.(string)
	return jwks, err
}

// askKeysTime is for how long a client waits for keys: the issuer has to answer.
const askKeysTime = 4 * time.Second

func (d *Directory) watchKeys(ctx context.Context, b bus.Bucket) {
	told := map[string]bool{}                              // until synced; then nil
	_ = b.Watch(ctx, d.watch(ofKeys), func(u bus.Update) { // ends with ctx only
		switch {
		case u.Synced:
			for _, k := range d.keys.every() { // what the snapshot had
				if key := tenancy.KeySetKey(k.Tenant, k.URL); !told[key] {
					d.keys.drop(key)
				}
			}
			told = nil
			d.markDirty()
		case u.Deleted:
			d.keys.drop(u.Entry.Key)
			d.markDirty()
		default:
			if told != nil {
				told[u.Entry.Key] = true
			}
			k, err := tenancy.DecodeKeySet(u.Entry.Value)
			if err != nil || tenancy.KeySetKey(k.Tenant, k.URL) != u.Entry.Key {
				d.log.Error("the stored keys of an issuer cannot be read", "key", u.Entry.Key, "error", err)
				return
			}
			d.keys.set(keySet{k.Tenant, k.URL, k.JWKS, k.FetchedAt})
			d.markDirty()
		}
	})
}

// cutKey splits a key of a bucket at the tenant's id.
func cutKey(key string) (tenant, rest string, ok bool) { return strings.Cut(key, ".") }
