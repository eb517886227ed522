// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// devicesKept is how many devices are kept; beyond it the one that was asked for longest
// ago is read again.
const devicesKept = 200_000

// deviceBook has devices that were asked for, also that there are none of a name. It is
// safe for concurrent use.
type deviceBook struct {
	mu   sync.Mutex
	seen *lru.Cache[string, *tenancy.Device] // guarded by mu; by key, nil for none
	// told counts what the watch has told, revision is up to where; guarded by mu.
	told, revision uint64
	// synced: the watch has begun; guarded by mu. Before, and without a revision that
	// it goes on from, what is read may change unheard of.
	synced bool
}

func newDeviceBook() (*deviceBook, error) {
	seen, err := lru.New[string, *tenancy.Device](devicesKept)
	if err != nil {
		return nil, errs.New(errs.Internal, "devices: %w", err)
	}
	return &deviceBook{seen: seen}, nil
}

// get returns a device that is kept, and what add wants to be given.
func (b *deviceBook) get(key string) (x *tenancy.Device, ok bool, told uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x, ok = b.seen.Get(key)
	return x, ok, b.told
}

// add keeps what was read, unless the watch has told something since get: that may have
// been about it.
func (b *deviceBook) add(key string, x *tenancy.Device, told uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.told == told && (b.synced || b.revision > 0) {
		b.seen.Add(key, x)
	}
}

// set applies what the watch says; x is nil for none.
func (b *deviceBook) set(key string, x *tenancy.Device, revision uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.told++
	b.revision = max(b.revision, revision)
	if b.seen.Contains(key) {
		b.seen.Add(key, x)
	}
}

// began notes that the watch has told all up to the revision.
func (b *deviceBook) began(revision uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.synced, b.revision = true, max(b.revision, revision)
}

func (b *deviceBook) upTo() (revision uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.revision
}

// every returns those that are there, the keys of which there are none, and up to where
// that holds.
func (b *deviceBook) every() (all []*tenancy.Device, none []string, revision uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range b.seen.Keys() {
		if x, _ := b.seen.Peek(key); x != nil {
			all = append(all, x)
		} else {
			none = append(none, key)
		}
	}
	return all, none, b.revision
}

// restore takes what every has returned.
func (b *deviceBook) restore(all []*tenancy.Device, none []string, revision uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.revision = revision; revision == 0 {
		return // nothing says since when it may have changed
	}
	for _, x := range all {
		b.seen.Add(tenancy.DeviceKey(x.Tenant, x.Name), x)
	}
	for _, key := range none {
		b.seen.Add(key, nil)
	}
}

// Device implements tenancy.Directory.
func (d *Directory) Device(ctx context.Context, t *tenancy.Tenant, name string) (*tenancy.Device, error) {
	if !t.Registry || tenancy.ValidUsername(name) != nil {
		return nil, nil
	}
	key := tenancy.DeviceKey(t.ID, name)
	x, ok, told := d.devices.get(key)
	if ok {
		return x, nil
	}
	e, err := d.ask(ctx, aboutDevice, "this device is not known here", func(b *buckets) bus.Bucket { return b.devices }, key)
	switch {
	case errs.Is(err, errs.NotFound):
	case err != nil:
		return nil, err
	default:
		if x, err = tenancy.DecodeDevice(e.Value, uint64(e.Revision)); err != nil {
			return nil, err
		}
	}
	d.devices.add(key, x, told)
	d.markDirty()
	return x, nil
}

func (d *Directory) watchDevices(ctx context.Context, b bus.Bucket) {
	after := d.devices.upTo()
	// As of credentials: without what was kept, only what changes from now on matters.
	w := bus.Watch{After: bus.Revision(after), NewOnly: after == 0, Current: d.current(ofDevices)}
	_ = b.Watch(ctx, w, func(u bus.Update) { // ends with ctx only
		if u.Synced {
			d.devices.began(uint64(u.Entry.Revision))
			return
		}
		tenant, name, ok := tenancy.ParseCredentialKey(u.Entry.Key)
		var x *tenancy.Device
		var err error
		if ok && !u.Deleted {
			x, err = tenancy.DecodeDevice(u.Entry.Value, uint64(u.Entry.Revision))
		}
		if !ok || err != nil {
			d.log.Error("a stored device cannot be read", "key", u.Entry.Key, "error", err)
			return
		}
		d.devices.set(u.Entry.Key, x, uint64(u.Entry.Revision))
		d.changes.tell(tenancy.Change{Kind: tenancy.DeviceChanged, Tenant: tenant, Username: name, Device: x}, false)
		d.markDirty()
	})
}
