// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"slices"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// PutDevice makes or replaces a device of the registry: Name, Attributes and Groups of
// like are read. It returns the device as it was, nil if it is new, and as it is. With
// ifRevision other than 0 it must be at that revision, else the error is Conflict with
// Code "revision_mismatch"; beyond the quota devices it is a tenancy.ExceededError.
func (s *Store) PutDevice(ctx context.Context, t *tenancy.TenantRecord, like tenancy.Device, ifRevision uint64) (was, now *tenancy.Device, err error) {
	if err := like.Normalize(); err != nil {
		return nil, nil, err
	}
	if !t.Registry {
		// Gateways look into the registry only of tenants that have one, so that this
		// comes first.
		if _, err := s.UpdateTenant(ctx, t.ID, 0, func(r *tenancy.TenantRecord) error {
			r.Registry = true
			return nil
		}); err != nil {
			return nil, nil, err
		}
		t.Registry = true // the next of an import need not do it again
	}
	for {
		was, err = s.Device(ctx, t.ID, like.Name)
		d := &tenancy.Device{Tenant: t.ID, Name: like.Name, Attributes: like.Attributes, Groups: like.Groups, UpdatedAt: s.now().UTC()}
		at := bus.Absent
		switch {
		case errs.Is(err, errs.NotFound) && ifRevision != 0:
			return nil, nil, errs.Coded(errs.Conflict, "revision_mismatch", "there is no device %q", like.Name)
		case errs.Is(err, errs.NotFound):
			if err := s.CheckDevices(ctx, t, 1); err != nil {
				return nil, nil, err
			}
			was, d.CreatedAt = nil, d.UpdatedAt
		case err != nil:
			return nil, nil, err
		case ifRevision != 0 && was.Revision != ifRevision:
			return nil, nil, errs.Coded(errs.Conflict, "revision_mismatch", "the device is at revision %d, not %d", was.Revision, ifRevision)
		default:
			d.CreatedAt, at = was.CreatedAt, bus.Revision(was.Revision)
		}
		d.Revision, err = put(ctx, s.devices, tenancy.DeviceKey(t.ID, d.Name), d, at)
		if errs.Is(err, errs.Conflict) {
			continue
		}
		if err == nil && was == nil {
			s.deviceCounts.add(t.ID, 1)
		}
		return was, d, err
	}
}

// CheckDevices returns the error of a tenant that may not have n devices more.
func (s *Store) CheckDevices(ctx context.Context, t *tenancy.TenantRecord, n int64) error {
	limits, err := t.Limits()
	if err != nil {
		return err
	}
	have, err := s.CountDevices(ctx, t.ID)
	if err == nil && limits.Devices >= 0 && have+n > limits.Devices {
		err = &tenancy.ExceededError{Quota: "devices", Limit: limits.Devices, Usage: have}
	}
	return err
}

// CountDevices returns how many devices a tenant has. What other processes add is seen
// within a minute.
func (s *Store) CountDevices(ctx context.Context, tenant string) (int64, error) {
	if n, ok := s.deviceCounts.get(tenant, s.now()); ok {
		return n, nil
	}
	keys, err := s.devices.Keys(ctx, tenant+".")
	if err != nil {
		return 0, err
	}
	s.deviceCounts.set(tenant, int64(len(keys)), s.now())
	return int64(len(keys)), nil
}

// Device returns a device, or an error NotFound.
func (s *Store) Device(ctx context.Context, tenant, name string) (*tenancy.Device, error) {
	e, err := s.devices.Get(ctx, tenancy.DeviceKey(tenant, name))
	if err != nil {
		return nil, named(err, "device_not_found", "there is no device %q", name)
	}
	return tenancy.DecodeDevice(e.Value, uint64(e.Revision))
}

// RemoveDevice removes a device and returns it as it was; see RemoveCredential.
func (s *Store) RemoveDevice(ctx context.Context, tenant, name string, ifRevision uint64) (*tenancy.Device, error) {
	for {
		d, err := s.Device(ctx, tenant, name)
		if err != nil {
			return nil, err
		}
		if ifRevision != 0 && d.Revision != ifRevision {
			return nil, errs.Coded(errs.Conflict, "revision_mismatch", "the device is at revision %d, not %d", d.Revision, ifRevision)
		}
		err = s.devices.Delete(ctx, tenancy.DeviceKey(tenant, name), bus.Revision(d.Revision))
		if errs.Is(err, errs.Conflict) {
			continue
		}
		if err == nil {
			s.deviceCounts.add(tenant, -1)
		}
		return d, err
	}
}

// devicesLooked is how many devices one page of a group looks at.
const devicesLooked = 10_000

// Devices returns at most limit devices of a tenant whose names come after cursor, in
// order, and the cursor of the next page, empty at the end. With a group it is those in
// it; then a page may have fewer, or none, though others follow.
func (s *Store) Devices(ctx context.Context, tenant, group, cursor string, limit int) (page []*tenancy.Device, next string, err error) {
	keys, err := s.devices.Keys(ctx, tenant+".")
	if err != nil {
		return nil, "", err
	}
	s.deviceCounts.set(tenant, int64(len(keys)), s.now())
	names := make([]string, 0, len(keys))
	for _, key := range keys {
		if _, name, ok := tenancy.ParseCredentialKey(key); ok && name > cursor {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for n, name := range names {
		if len(page) == limit || n == devicesLooked {
			return page, names[n-1], nil
		}
		d, err := s.Device(ctx, tenant, name)
		switch {
		case errs.Is(err, errs.NotFound): // deleted meanwhile
		case err != nil:
			return nil, "", err
		case group == "" || slices.Contains(d.Groups, group):
			page = append(page, d)
		}
	}
	return page, "", nil
}

// groupsLooked is how many devices Groups looks at.
const groupsLooked = 100_000

// Groups returns how many devices are in each group; whole says that all devices were
// looked at, and not only 100,000.
func (s *Store) Groups(ctx context.Context, tenant string) (n map[string]int, whole bool, err error) {
	entries, more, err := bus.List(ctx, s.devices, tenant+".", groupsLooked)
	if err != nil {
		return nil, false, err
	}
	n = map[string]int{}
	for _, e := range entries {
		d, err := tenancy.DecodeDevice(e.Value, uint64(e.Revision))
		if err != nil {
			return nil, false, err
		}
		for _, g := range d.Groups {
			n[g]++
		}
	}
	return n, !more, nil
}
