// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"

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
		gone, err := s.leaving(ctx, was, d.Groups)
		if err == nil {
			err = s.enterGroups(ctx, t.ID, d.Name, d.Groups)
		}
		if err != nil {
			return nil, nil, err
		}
		d.Revision, err = put(ctx, s.devices, tenancy.DeviceKey(t.ID, d.Name), d, at)
		if errs.Is(err, errs.Conflict) {
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		s.leaveGroups(ctx, gone)
		if was == nil {
			s.deviceCounts.add(t.ID, 1)
		}
		s.lists.changed(t.ID)
		return was, d, nil
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
		gone, err := s.leaving(ctx, d, nil)
		if err != nil {
			return nil, err
		}
		err = s.devices.Delete(ctx, tenancy.DeviceKey(tenant, name), bus.Revision(d.Revision))
		if errs.Is(err, errs.Conflict) {
			continue
		}
		if err == nil {
			s.leaveGroups(ctx, gone)
			s.deviceCounts.add(tenant, -1)
			s.lists.changed(tenant)
		}
		return d, err
	}
}
