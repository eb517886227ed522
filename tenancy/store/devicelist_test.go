// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// reads counts what is read of the buckets of devices: values, and keys.
type reads struct {
	bus.Bus
	values, keys atomic.Int64
}

func (r *reads) Bucket(ctx context.Context, cfg bus.BucketConfig) (bus.Bucket, error) {
	b, err := r.Bus.Bucket(ctx, cfg)
	if err != nil || cfg.Name != tenancy.DevicesBucket && cfg.Name != "device_groups" {
		return b, err
	}
	return &countedBucket{b, r}, nil
}

type countedBucket struct {
	bus.Bucket
	r *reads
}

func (b *countedBucket) Get(ctx context.Context, key string) (bus.Entry, error) {
	b.r.values.Add(1)
	return b.Bucket.Get(ctx, key)
}

func (b *countedBucket) Keys(ctx context.Context, prefix string) ([]string, error) {
	keys, err := b.Bucket.Keys(ctx, prefix)
	b.r.keys.Add(int64(len(keys)))
	return keys, err
}

func (b *countedBucket) Watch(ctx context.Context, w bus.Watch, f func(bus.Update)) error {
	return b.Bucket.Watch(ctx, w, func(u bus.Update) {
		b.r.values.Add(1)
		f(u)
	})
}

// What pages of devices read is what they have, and the names once for each list: of a group
// the names of its devices, also of devices that were there before groups had names.
func TestDevices_Reads(t *testing.T) {
	const devices, every = 400, 40 // one in forty is a press
	r := &reads{Bus: mem.New()}
	newStore := func() *store.Store {
		t.Helper()
		s, err := store.New(t.Context(), store.Config{Bus: r, Log: telemetry.Discard(), Region: "local"})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := newStore()
	acme, err := s.EnsureTenant(t.Context(), "acme", store.EnsureOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bucket, err := r.Bus.Bucket(t.Context(), bus.BucketConfig{Name: tenancy.DevicesBucket})
	if err != nil {
		t.Fatal(err)
	}
	for n := range devices { // as they were stored before
		d := tenancy.Device{Tenant: "acme", Name: fmt.Sprintf("d-%03d", n), Groups: []string{"all"}}
		if n%every == 0 {
			d.Groups = append(d.Groups, "presses")
		}
		value, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bucket.Put(t.Context(), tenancy.DeviceKey("acme", d.Name), value, bus.Absent); err != nil {
			t.Fatal(err)
		}
	}
	list := func(s *store.Store, group string, limit int) (names []string, pages int) {
		t.Helper()
		r.values.Store(0)
		r.keys.Store(0)
		for cursor := ""; ; {
			page, next, err := s.Devices(t.Context(), "acme", group, cursor, limit)
			if err != nil {
				t.Fatal(err)
			}
			pages++
			for _, d := range page {
				names = append(names, d.Name)
			}
			if cursor = next; next == "" {
				return names, pages
			}
			if len(page) != limit {
				t.Errorf("a page of %d, expected %d", len(page), limit)
			}
		}
	}
	reads := func(what string, values, keys int64) {
		t.Helper()
		if v, k := r.values.Load(), r.keys.Load(); v > values || k > keys {
			t.Errorf("%s: %d values and %d keys are read, expected at most %d and %d", what, v, k, values, keys)
		}
	}
	names, pages := list(s, "", 20)
	if len(names) != devices || pages != 20 || !slices.IsSorted(names) {
		t.Errorf("%d devices in %d pages", len(names), pages)
	}
	reads("all", devices, devices)
	if names, _ = list(s, "presses", 3); len(names) != devices/every { // has them indexed
		t.Errorf("presses are %v", names)
	}
	other := newStore() // which has to look whether they are
	if names, pages = list(other, "presses", 3); len(names) != devices/every || pages != 4 {
		t.Errorf("presses are %v, in %d pages", names, pages)
	}
	reads("a group", devices/every+1, devices/every)
	if names, _ = list(other, "none", 3); len(names) != 0 {
		t.Errorf("%v are in no group", names)
	}
	reads("an empty group", 1, 0)

	// What is changed is seen at once, by another process too from its next first page on.
	put := func(name string, groups ...string) {
		t.Helper()
		if _, _, err := s.PutDevice(t.Context(), acme, tenancy.Device{Name: name, Groups: groups}, 0); err != nil {
			t.Fatal(err)
		}
	}
	put("d-001", "presses")
	put("d-000", "all")
	if _, err := s.RemoveDevice(t.Context(), "acme", "d-040", 0); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*store.Store{s, other} {
		names, _ = list(s, "presses", 3)
		if len(names) != devices/every-1 || names[0] != "d-001" || names[1] != "d-080" {
			t.Errorf("presses are %v", names)
		}
		groups, err := s.Groups(t.Context(), "acme")
		if want := map[string]int{"all": devices - 2, "presses": devices/every - 1}; err != nil || !maps.Equal(groups, want) {
			t.Errorf("groups %v, expected %v: %v", groups, want, err)
		}
	}
	r.values.Store(0)
	if _, err := other.Groups(t.Context(), "acme"); err != nil || r.values.Load() > 1 {
		t.Errorf("groups read %d values: %v", r.values.Load(), err)
	}
	// A list goes on with the names of its first page, and without what was deleted.
	page, next, err := s.Devices(t.Context(), "acme", "presses", "", 3)
	if err != nil || len(page) != 3 {
		t.Fatal(page, err)
	}
	if _, err := s.RemoveDevice(t.Context(), "acme", "d-200", 0); err != nil {
		t.Fatal(err)
	}
	if page, _, err = s.Devices(t.Context(), "acme", "presses", next, 3); err != nil || page[0].Name != "d-160" || page[1].Name != "d-240" {
		t.Errorf("after %s: %v, %v", next, page[0], err)
	}
}
