// SPDX-License-Identifier: Apache-2.0

package domains

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// Bounds of the orders at the CA. What a tenant has ordered is counted apart from its
// domains, so that it does not begin anew with a domain that was deleted.
const (
	// DefaultOrders is how many orders all tenants make in orderWindow: Let's Encrypt
	// takes 300 of an account.
	DefaultOrders = 270
	orderWindow   = 3 * time.Hour
	// Of one tenant: certificates for names that have none or whose tenant asks for
	// another one, and renewals of those that are about to end. Failures count.
	newHourly, newDaily         = 10, 50
	renewalHourly, renewalDaily = 50, 200
	// pauseTime is for how long no order is made after the CA's rate limit, if it
	// does not say, and pauseMost if it says more: it may be asked then again.
	pauseTime = 15 * time.Minute
	pauseMost = orderWindow
)

// OrdersBucket has a tally in JSON for each tenant, and one for all.
const OrdersBucket = "domain_orders"

// slotTime is how exactly orders are counted; windows are longer by that much at most.
const slotTime = 5 * time.Minute

// tally is how many orders were made.
type tally struct {
	// Slots are new ones and renewals, by the number of the slot since 1970.
	Slots map[int64][2]int `json:"slots,omitempty"`
	// PausedUntil is until when none is made.
	PausedUntil time.Time `json:"paused_until,omitzero"`
}

const allOrders = "all" // the key of the tally of all tenants; the others have a dot

func orderKey(tenant string) string { return "tenant." + tenant }

// orders bounds the orders of all processes. It is safe for concurrent use.
type orders struct {
	bucket bus.Bucket
	most   int // in orderWindow
	now    func() time.Time
}

// bound is one of a tally.
type bound struct {
	window time.Duration
	most   int
	// new and renewals say what is counted.
	new, renewals bool
}

// tenantBounds are those of an order.
func tenantBounds(renewal bool) []bound {
	if renewal {
		return []bound{{time.Hour, renewalHourly, false, true}, {24 * time.Hour, renewalDaily, false, true}}
	}
	return []bound{{time.Hour, newHourly, true, false}, {24 * time.Hour, newDaily, true, false}}
}

// bounds are those of all tenants: a third is left to renewals.
func (o *orders) bounds(renewal bool) []bound {
	most := o.most
	if !renewal {
		most -= most / 3
	}
	return []bound{{orderWindow, most, true, true}}
}

// free returns when there is room for one more; the zero time is now.
func (t *tally) free(now time.Time, bounds []bound) (until time.Time) {
	for _, b := range bounds {
		var slots []int64
		n := 0
		for slot, c := range t.Slots {
			if slotEnd(slot).Add(b.window).After(now) {
				slots = append(slots, slot)
				n += b.counts(c)
			}
		}
		slices.Sort(slots)
		for _, slot := range slots {
			if n < b.most {
				break
			}
			n -= b.counts(t.Slots[slot])
			if at := slotEnd(slot).Add(b.window); n < b.most && at.After(until) {
				until = at
			}
		}
	}
	if t.PausedUntil.After(now) && t.PausedUntil.After(until) {
		until = t.PausedUntil
	}
	return until
}

func (b bound) counts(c [2]int) (n int) {
	if b.new {
		n += c[0]
	}
	if b.renewals {
		n += c[1]
	}
	return n
}

func slotEnd(slot int64) time.Time { return time.Unix((slot+1)*int64(slotTime/time.Second), 0).UTC() }

// read returns a tally, and at what to write it.
func (o *orders) read(ctx context.Context, key string) (*tally, bus.Revision, error) {
	t := &tally{}
	e, err := o.bucket.Get(ctx, key)
	switch {
	case errs.Is(err, errs.NotFound):
		e.Revision = bus.Absent
	case err != nil:
		return nil, 0, err
	default:
		if err := json.Unmarshal(e.Value, t); err != nil {
			return nil, 0, errs.New(errs.Internal, "stored orders of %s: %w", key, err)
		}
	}
	if t.Slots == nil {
		t.Slots = map[int64][2]int{}
	}
	return t, e.Revision, nil
}

// change writes a tally again, unless f says that it stays.
func (o *orders) change(ctx context.Context, key string, f func(*tally) bool) error {
	for {
		t, at, err := o.read(ctx, key)
		if err != nil || !f(t) {
			return err
		}
		for slot := range t.Slots {
			if !slotEnd(slot).Add(24 * time.Hour).After(o.now()) {
				delete(t.Slots, slot)
			}
		}
		value, err := json.Marshal(t)
		if err != nil {
			return errs.New(errs.Internal, "orders of %s: %w", key, err)
		}
		if _, err = o.bucket.Put(ctx, key, value, at); !errs.Is(err, errs.Conflict) {
			return err
		}
	}
}

// take counts an order of a tenant that is to be made now. If it must not be, why says so
// as the tenant is told, and until when.
func (o *orders) take(ctx context.Context, tenant string, renewal bool) (until time.Time, why, err error) {
	// The tenant's is looked at first and counted last: what it may not order does not
	// count for all, and what all may not order does not count for it.
	mine, _, err := o.read(ctx, orderKey(tenant))
	if err != nil {
		return time.Time{}, nil, err
	}
	if until = mine.free(o.now(), tenantBounds(renewal)); !until.IsZero() {
		return until, errs.Coded(errs.Quota, "domain_orders", "the tenant has ordered so many certificates that the next one is ordered at %s", until.Format(time.RFC3339)), nil
	}
	count := func(key string, bounds []bound) error {
		return o.change(ctx, key, func(t *tally) bool {
			now := o.now()
			if until = t.free(now, bounds); !until.IsZero() {
				return false
			}
			slot := now.Unix() / int64(slotTime/time.Second)
			c := t.Slots[slot]
			if renewal {
				c[1]++
			} else {
				c[0]++
			}
			t.Slots[slot] = c
			return true
		})
	}
	if err = count(allOrders, o.bounds(renewal)); err == nil && until.IsZero() {
		err = count(orderKey(tenant), tenantBounds(renewal))
	}
	if err == nil && !until.IsZero() {
		why = errs.Coded(errs.Unavailable, "orders_paused", "this installation has ordered so many certificates that the next one is ordered at %s", until.Format(time.RFC3339))
	}
	return until, why, err
}

// pause has no order made for a while, because the CA has asked for that.
func (o *orders) pause(ctx context.Context, wait time.Duration) (until time.Time, err error) {
	if wait <= 0 {
		wait = pauseTime
	}
	until = o.now().Add(min(wait, pauseMost)).UTC()
	return until, o.change(ctx, allOrders, func(t *tally) bool {
		if t.PausedUntil.After(until) {
			until = t.PausedUntil
			return false
		}
		t.PausedUntil = until
		return true
	})
}
