// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
)

// countedBus counts what is listed of credentials.
type countedBus struct {
	bus.Bus
	asked, prefixes atomic.Int64
}

type countedBucket struct {
	bus.Bucket
	of *countedBus
}

func (b *countedBus) Bucket(ctx context.Context, cfg bus.BucketConfig) (bus.Bucket, error) {
	k, err := b.Bus.Bucket(ctx, cfg)
	if cfg.Name != tenancy.CredentialsBucket {
		return k, err
	}
	return &countedBucket{k, b}, err
}

func (b *countedBucket) Entries(ctx context.Context, prefixes []string, limit int) ([]bus.Entry, bool, error) {
	b.of.asked.Add(1)
	b.of.prefixes.Add(int64(len(prefixes)))
	return b.Bucket.Entries(ctx, prefixes, limit)
}

// Tenants whose clients come together are read together: each is held whole then, but for
// one with too many credentials and one with a record that cannot be read.
func TestLoadTenants(t *testing.T) {
	ctx, b := t.Context(), &countedBus{Bus: mem.New()}
	credentials, err := b.Bucket(ctx, bus.BucketConfig{Name: tenancy.CredentialsBucket})
	if err != nil {
		t.Fatal(err)
	}
	put := func(tenant, name, value string) {
		if _, err := credentials.Put(ctx, tenancy.CredentialKey(tenant, name), []byte(value), bus.Any); err != nil {
			t.Fatal(err)
		}
	}
	const tenants = 1000
	for i := range tenants {
		id := fmt.Sprint("t-", i)
		for k := range 3 {
			put(id, fmt.Sprint("c-", k), fmt.Sprintf(`{"tenant":%q,"username":"c-%d"}`, id, k))
		}
	}
	for k := range wholeTenant + 1 {
		put("t-3", fmt.Sprint("more-", k), fmt.Sprintf(`{"tenant":"t-3","username":"more-%d"}`, k))
	}
	put("t-5", "bad", "{")
	d, err := New(Config{Bus: b, Verifier: &quick{}, Domain: "test", Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	for i := range tenants {
		d.known(fmt.Sprint("t-", i), "c-1")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go d.runLoader(ctx)
	whole := func(id string) bool {
		_, _, whole := d.cache.find(id, "c-1")
		return whole
	}
	missing := func() (ids []string) {
		for i := range tenants {
			if id := fmt.Sprint("t-", i); !whole(id) && id != "t-3" && id != "t-5" {
				ids = append(ids, id)
			}
		}
		return ids
	}
	for end := time.Now().Add(10 * time.Second); len(missing()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not read whole: %v", missing())
		}
	}
	if n := b.prefixes.Load(); n != tenants || b.asked.Load() > 4 {
		t.Errorf("%d tenants were read %d times in %d questions, expected once each, in a few", tenants, n, b.asked.Load())
	}
	if whole("t-3") || whole("t-5") {
		t.Error("a tenant is held whole that has too many credentials, or one that cannot be read")
	}
	if c, ok, _ := d.cache.find("t-7", "c-2"); !ok || c.Username != "c-2" {
		t.Errorf("found %+v, %v", c, ok)
	}
}

// Tenants that together have more than is read at once are read in parts.
func TestLoadTenants_Halved(t *testing.T) {
	ctx, b := t.Context(), &countedBus{Bus: mem.New()}
	credentials, err := b.Bucket(ctx, bus.BucketConfig{Name: tenancy.CredentialsBucket})
	if err != nil {
		t.Fatal(err)
	}
	const tenants, each = 8, loadEntries / 6
	for i := range tenants {
		id := fmt.Sprint("t-", i)
		for k := range each {
			name := fmt.Sprint("c-", k)
			if _, err := credentials.Put(ctx, tenancy.CredentialKey(id, name), fmt.Appendf(nil, `{"tenant":%q,"username":%q}`, id, name), bus.Any); err != nil {
				t.Fatal(err)
			}
		}
	}
	d, err := New(Config{Bus: b, Verifier: &quick{}, Domain: "test", Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i := range tenants {
		ids = append(ids, fmt.Sprint("t-", i))
	}
	d.loadTenants(ctx, ids)
	for _, id := range ids {
		if _, _, whole := d.cache.find(id, "c-0"); !whole {
			t.Errorf("%s is not held whole", id)
		}
	}
	if n := d.Kept(); n != tenants*each || b.asked.Load() != 3 {
		t.Errorf("%d are kept after %d questions, expected %d after 3", n, b.asked.Load(), tenants*each)
	}
}
