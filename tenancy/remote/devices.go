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
	// tenants are those whose registry is read, or was, by id; guarded by mu.
	tenants map[string]*registry
}

// registry is what is kept of one tenant's devices.
type registry struct {
	// whole says that all of them are kept, large that there are too many for that.
	whole, large bool
	// told are the keys that the watch tells while they are read; nil at other times.
	told map[string]bool
}

func newDeviceBook() (*deviceBook, error) {
	b := &deviceBook{tenants: map[string]*registry{}}
	var err error
	// Called by Add, with mu held.
	b.seen, err = lru.NewWithEvict(devicesKept, func(key string, x *tenancy.Device) {
		if tenant, _, ok := cutKey(key); ok && x != nil && b.tenants[tenant] != nil {
			b.tenants[tenant].whole = false
		}
	})
	if err != nil {
		return nil, errs.New(errs.Internal, "devices: %w", err)
	}
	return b, nil
}

// whole reports whether all devices of a tenant are kept: one that is not is none.
func (b *deviceBook) whole(tenant string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.tenants[tenant]
	return r != nil && r.whole
}

// read begins to read the registry of a tenant, and reports whether that is to be done.
func (b *deviceBook) read(tenant string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.tenants[tenant]
	if r == nil {
		r = &registry{}
		b.tenants[tenant] = r
	}
	if r.whole || r.large || !b.synced && b.revision == 0 {
		return false
	}
	r.told = map[string]bool{}
	return true
}

// readAll ends read: all are the devices of the tenant; large says that there are more,
// failed that they could not be read.
func (b *deviceBook) readAll(tenant string, all []*tenancy.Device, large, failed bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.tenants[tenant]
	told := r.told
	if r.told, r.large = nil, large; large || failed {
		return
	}
	r.whole = true // before Add, which may take it back
	for _, x := range all {
		if key := tenancy.DeviceKey(tenant, x.Name); !told[key] {
			b.seen.Add(key, x)
		}
	}
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
	tenant, _, _ := cutKey(key)
	r := b.tenants[tenant]
	if r != nil && r.told != nil {
		r.told[key] = true
	}
	if b.seen.Contains(key) || r != nil && (r.whole || r.told != nil) {
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

// every returns those that are there, the keys of which there are none, the tenants of
// which these are all, and up to where that holds.
func (b *deviceBook) every() (all []*tenancy.Device, none, whole []string, revision uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, r := range b.tenants {
		if r.whole {
			whole = append(whole, id)
		}
	}
	for _, key := range b.seen.Keys() {
		if x, _ := b.seen.Peek(key); x != nil {
			all = append(all, x)
		} else {
			none = append(none, key)
		}
	}
	return all, none, whole, b.revision
}

// restore takes what every has returned.
func (b *deviceBook) restore(all []*tenancy.Device, none, whole []string, revision uint64) {
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
	for _, id := range whole {
		b.tenants[id] = &registry{whole: true}
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
	if d.outage.is() && d.devices.whole(t.ID) {
		return nil, nil
	}
	e, err := d.ask(ctx, aboutDevice, "this device is not known here", func(b *buckets) bus.Bucket { return b.devices }, key)
	switch {
	case errs.Is(err, errs.NotFound):
	case errs.Is(err, errs.Unavailable) && d.devices.whole(t.ID):
		return nil, nil
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

// loadRegistry reads all devices of a tenant whose clients come here, unless they are
// known or too many.
func (d *Directory) loadRegistry(ctx context.Context, id string) {
	k := d.cache.tenant(id)
	if k == nil || k.tenant == nil || !k.tenant.Registry || !d.devices.read(id) {
		return
	}
	all, large, err := d.listDevices(ctx, id)
	d.devices.readAll(id, all, large, err != nil)
	if err != nil && ctx.Err() == nil {
		d.log.Debug("the devices of a tenant were not read", "tenant", id, "error", err)
	}
	d.markDirty()
}

func (d *Directory) listDevices(ctx context.Context, tenant string) (all []*tenancy.Device, more bool, err error) {
	b, err := d.open(ctx)
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	entries, more, err := bus.List(ctx, b.devices, tenancy.CredentialPrefix(tenant), wholeTenant)
	for _, e := range entries {
		x, err := tenancy.DecodeDevice(e.Value, uint64(e.Revision))
		if err != nil {
			return nil, false, err
		}
		all = append(all, x)
	}
	return all, more, err
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
