// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"slices"
	"sync"
	"sync/atomic"
)

// rareEvery is in how many intervals (quota.Interval) a tenant is looked at once that is far
// from its limits.
const rareEvery = 4

// looks are the tenants that use something. Those near a limit, and those with clients that
// wait, are looked at in each interval, the others in turn, so that what thousands of tenants
// cost that use little is little, and spread.
type looks struct {
	near []*look
	// rare are by the interval in which it is their turn. The entry of one that is near
	// again stays until then.
	rare [rareEvery][]*look
	turn int
}

// pace is how often a tenant is looked at. Its zero value is in each interval.
type pace struct{ at atomic.Uint32 }

const (
	paceNear     = iota
	paceRare     // in its turn
	paceHastened // in its turn, and in fresh.near
)

// rare reports whether its entry in looks.rare counts.
func (p *pace) rare() bool { return p.at.Load() != paceNear }

// hasten reports whether the caller is to add the tenant to fresh.near.
func (p *pace) hasten() bool {
	return p.at.Load() == paceRare && p.at.CompareAndSwap(paceRare, paceHastened)
}

// fresh are the tenants that have begun to use something, and those that are looked at
// rarely and are to be looked at more often. It is safe for concurrent use.
type fresh struct {
	mu    sync.Mutex
	began []*look        // guarded by mu
	near  []*tenantState // guarded by mu
}

// take returns what has gathered.
func (f *fresh) take() (began []*look, near []*tenantState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	began, near, f.began, f.near = f.began, f.near, nil, nil
	return began, near
}

// hasten has x looked at in each interval.
func (l *looks) hasten(x *look) {
	if x.state.meters.pace.at.Swap(paceNear) != paceNear {
		x.calm = 0
		l.near = append(l.near, x)
	}
}

// finding is what a look at a tenant shows.
type finding uint8

const (
	foundUse  finding = iota // near a limit, or somebody waits
	foundCalm                // far from all limits
	foundIdle                // nothing is used
)

// each calls sample for those whose turn it is, once for each, and drops the idle ones.
func (l *looks) each(sample func(*look) finding) {
	l.turn = (l.turn + 1) % rareEvery
	var back []*look
	rare := slices.DeleteFunc(l.rare[l.turn], func(x *look) bool {
		if !x.state.meters.pace.rare() {
			return true
		}
		found := sample(x)
		if found != foundCalm {
			x.state.meters.pace.at.Store(paceNear)
		}
		if found == foundUse {
			x.calm = 0
			back = append(back, x)
		}
		return found != foundCalm
	})
	l.near = slices.DeleteFunc(l.near, func(x *look) bool {
		switch sample(x) {
		case foundIdle:
			return true
		case foundUse:
			x.calm = 0
			return false
		case foundCalm:
		}
		// So long no entry of it is left in l.rare from before.
		if x.calm++; x.calm < rareEvery {
			return false
		}
		x.state.meters.pace.at.Store(paceRare)
		// Who has begun to wait since the sample has found the pace near.
		if m := &x.state.meters; m.waiting() && m.pace.at.Swap(paceNear) == paceRare {
			x.calm = 0
			return false
		}
		rare = append(rare, x)
		return true
	})
	l.rare[l.turn] = rare
	l.near = append(l.near, back...)
}
