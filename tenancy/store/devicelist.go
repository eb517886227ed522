// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// deviceGroupsBucket says which devices are in a group: tenant.group.name, the latter two in
// base64, has the time in it. A key may be there of a device that is not in the group any
// more, after a process was killed; none is missing once indexedKey is there.
const deviceGroupsBucket = "device_groups"

// indexedKey is there when all devices that a tenant had before there was the bucket are in
// it. No tenant's id has an underscore.
func indexedKey(tenant string) string { return "_indexed." + tenant }

func groupPrefix(tenant, group string) string {
	return tenant + "." + base64.RawURLEncoding.EncodeToString([]byte(group)) + "."
}

func groupKey(tenant, group, name string) string {
	return groupPrefix(tenant, group) + base64.RawURLEncoding.EncodeToString([]byte(name))
}

// enterGroups notes that a device will be in those groups. It comes before the device is
// stored.
func (s *Store) enterGroups(ctx context.Context, tenant, name string, groups []string) error {
	for _, g := range groups {
		if _, err := s.deviceGroups.Put(ctx, groupKey(tenant, g, name), nil, bus.Any); err != nil {
			return err
		}
	}
	return nil
}

// leaving are keys in the bucket, with what revision they are at before a device is stored
// that is not in those groups any more: who enters one again meanwhile changes it.
func (s *Store) leaving(ctx context.Context, was *tenancy.Device, groups []string) (map[string]bus.Revision, error) {
	if was == nil {
		return nil, nil
	}
	gone := map[string]bus.Revision{}
	for _, g := range was.Groups {
		if slices.Contains(groups, g) {
			continue
		}
		key := groupKey(was.Tenant, g, was.Name)
		e, err := s.deviceGroups.Get(ctx, key)
		switch {
		case err == nil:
			gone[key] = e.Revision
		case !errs.Is(err, errs.NotFound):
			return nil, err
		}
	}
	return gone, nil
}

// leaveGroups forgets keys of a device that was stored. What it cannot forget is looked at,
// and left out, by who lists.
func (s *Store) leaveGroups(ctx context.Context, gone map[string]bus.Revision) {
	for key, at := range gone {
		_ = s.deviceGroups.Delete(ctx, key, at)
	}
}

// indexDevices has the bucket have all devices of a tenant: those from before it.
func (s *Store) indexDevices(ctx context.Context, tenant string) error {
	switch _, err := s.deviceGroups.Get(ctx, indexedKey(tenant)); {
	case err == nil:
		return nil
	case !errs.Is(err, errs.NotFound):
		return err
	}
	names, err := s.deviceNames(ctx, tenant)
	if err != nil {
		return err
	}
	for _, name := range names {
		d, err := s.Device(ctx, tenant, name)
		if errs.Is(err, errs.NotFound) {
			continue
		}
		if err == nil {
			err = s.enterGroups(ctx, tenant, name, d.Groups)
		}
		if err != nil {
			return err
		}
	}
	_, err = s.deviceGroups.Put(ctx, indexedKey(tenant), nil, bus.Any)
	return err
}

// deviceNames are the names of a tenant's devices in order.
func (s *Store) deviceNames(ctx context.Context, tenant string) ([]string, error) {
	keys, err := s.devices.Keys(ctx, tenant+".")
	if err != nil {
		return nil, err
	}
	s.deviceCounts.set(tenant, int64(len(keys)), s.now())
	return namesOf(keys), nil
}

// namesOf are the last words of keys, which are in base64, in order.
func namesOf(keys []string) []string {
	names := make([]string, 0, len(keys))
	for _, key := range keys {
		if b, err := base64.RawURLEncoding.DecodeString(key[strings.LastIndexByte(key, '.')+1:]); err == nil {
			names = append(names, string(b))
		}
	}
	slices.Sort(names)
	return names
}

// Devices returns at most limit devices of a tenant whose names come after cursor, in
// order, and the cursor of the next page, empty at the end. With a group it is those in
// it. A first page reads the names of the tenant's devices, or those of the group, and no
// others; further ones that come within listLife go on with these, and have no device that
// another process has made meanwhile. Of the devices themselves those of the page are read.
func (s *Store) Devices(ctx context.Context, tenant, group, cursor string, limit int) (page []*tenancy.Device, next string, err error) {
	names, ok := s.lists.get(tenant, group, s.now())
	if !ok || cursor == "" {
		made := s.lists.changes(tenant)
		if names, err = s.namesIn(ctx, tenant, group); err != nil {
			return nil, "", err
		}
		if len(names) > limit {
			s.lists.set(tenant, group, names, s.now(), made)
		}
	}
	begin, found := slices.BinarySearch(names, cursor)
	if found {
		begin++
	}
	for n := begin; n < len(names); n++ {
		if len(page) == limit {
			return page, names[n-1], nil
		}
		d, err := s.Device(ctx, tenant, names[n])
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

// namesIn are the names of all devices, or of those in a group.
func (s *Store) namesIn(ctx context.Context, tenant, group string) ([]string, error) {
	if group == "" {
		return s.deviceNames(ctx, tenant)
	}
	if err := s.indexDevices(ctx, tenant); err != nil {
		return nil, err
	}
	keys, err := s.deviceGroups.Keys(ctx, groupPrefix(tenant, group))
	return namesOf(keys), err
}

// Groups returns how many devices are in each group. It reads no device; a device of a
// process that was killed while it changed its groups may count in one that it has left.
func (s *Store) Groups(ctx context.Context, tenant string) (map[string]int, error) {
	if err := s.indexDevices(ctx, tenant); err != nil {
		return nil, err
	}
	keys, err := s.deviceGroups.Keys(ctx, tenant+".")
	if err != nil {
		return nil, err
	}
	n := map[string]int{}
	for _, key := range keys {
		_, rest, _ := strings.Cut(key, ".")
		group, _, _ := strings.Cut(rest, ".")
		if b, err := base64.RawURLEncoding.DecodeString(group); err == nil {
			n[string(b)]++
		}
	}
	return n, nil
}

const (
	// listLife is for how long the names of a list are kept for its further pages.
	listLife = time.Minute
	// listsKept is how many lists a process keeps, listsNames how many names in all of them.
	listsKept  = 64
	listsNames = 1_000_000
)

// lists are names of devices of lists that are being read, page by page. It is safe for
// concurrent use.
type lists struct {
	mu     sync.Mutex
	of     map[listOf]*list  // guarded by mu
	names  int               // guarded by mu
	change map[string]uint64 // by tenant, how often this process has changed its devices; guarded by mu
}

type listOf struct{ tenant, group string }

type list struct {
	names []string // not changed
	from  time.Time
}

func (l *lists) get(tenant, group string, now time.Time) (names []string, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x := l.of[listOf{tenant, group}]
	if x == nil || now.Sub(x.from) >= listLife {
		return nil, false
	}
	return x.names, true
}

// changes is what set wants to know: how often there was a change before the names were read.
func (l *lists) changes(tenant string) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.change[tenant]
}

// set keeps the names of a list, unless there was a change meanwhile. The oldest make room.
func (l *lists) set(tenant, group string, names []string, now time.Time, changes uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.change[tenant] != changes || len(names) > listsNames {
		return
	}
	of := listOf{tenant, group}
	l.removeLocked(of)
	for len(l.of) >= listsKept || l.names+len(names) > listsNames {
		var oldest listOf
		var at time.Time
		for k, x := range l.of {
			if at.IsZero() || x.from.Before(at) {
				oldest, at = k, x.from
			}
		}
		l.removeLocked(oldest)
	}
	if l.of == nil {
		l.of = map[listOf]*list{}
	}
	l.of[of] = &list{names, now}
	l.names += len(names)
}

func (l *lists) removeLocked(of listOf) {
	if x := l.of[of]; x != nil {
		l.names -= len(x.names)
		delete(l.of, of)
	}
}

// changed forgets the lists of a tenant.
func (l *lists) changed(tenant string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.change) > 10_000 { // what is read meanwhile is not kept
		clear(l.change)
		clear(l.of)
		l.names = 0
	}
	if l.change == nil {
		l.change = map[string]uint64{}
	}
	l.change[tenant]++
	for of := range l.of {
		if of.tenant == tenant {
			l.removeLocked(of)
		}
	}
}
