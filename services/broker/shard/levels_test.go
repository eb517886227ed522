// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"slices"
	"testing"

	"github.com/manormq/manor/infra/level"
	"github.com/manormq/manor/infra/link"
)

// levelsOf is what was told of the levels of quotas at all brokers, in order for each.
func levelsOf(nodes []*wideNode) (told []string) {
	for _, n := range nodes {
		n.gw.mu.Lock()
		for _, x := range n.gw.levels {
			told = append(told, fmt.Sprintf("%s %s %d", x.Tenant, x.Reason, x.Level))
			if !x.Loose || x.Count < 80 || x.Level == level.Reached && x.Count < 100 {
				told = append(told, fmt.Sprintf("%+v", x))
			}
		}
		n.gw.mu.Unlock()
	}
	return told
}

// That a tenant comes to 80% of a quota, and to all of it, is told once, by one of the brokers that
// have some of it; and again when it has been far from it, but not soon.
func TestWide_QuotaLevels(t *testing.T) {
	t.Parallel()
	n := pair(t)
	limits := bounded(func(l *link.TenantLimits) { l.Subscriptions = 10 })
	a, b := n[0].visitor(clientIn(0, "a"), limits), n[1].visitor(clientIn(1, "b"), limits)
	var all []string
	for i := range 5 {
		all = append(all, fmt.Sprint("f", i))
	}
	wantReasons(t, a.suback(t, all...), granted, granted, granted, granted, granted)
	wantReasons(t, b.suback(t, all[:3]...), granted, granted, granted)
	near := []string{"acme subscriptions 1"}
	beforeDeadline(t, "80% are told", func() bool { return slices.Equal(levelsOf(n[:]), near) })
	beforeDeadline(t, "all are granted", func() bool {
		got := b.suback(t, all...)
		return got[3] == granted && got[4] == granted
	})
	both := []string{near[0], "acme subscriptions 2"}
	beforeDeadline(t, "100% are told", func() bool {
		got := levelsOf(n[:])
		slices.Sort(got)
		return slices.Equal(got, both)
	})
}

// A broker alone tells, too.
func TestLevels_Alone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, false)
	c := w.connect("c", tenantLimits(func(l *link.TenantLimits) { l.Subscriptions = 5 }))
	told := func() (all []string) {
		w.gw.mu.Lock()
		defer w.gw.mu.Unlock()
		for _, x := range w.gw.levels {
			all = append(all, fmt.Sprintf("%s %d %d", x.Reason, x.Level, x.Count))
		}
		return all
	}
	wait := func(what string, want ...string) {
		t.Helper()
		beforeDeadline(t, what, func() bool {
			w.clock.Add(elsewhereFor) // a second of the broker's
			return slices.Equal(told(), want)
		})
	}
	c.suback("1", "2", "3")
	c.suback("4")
	wait("80% are told", "subscriptions 1 80")
	c.suback("5")
	wait("100% are told", "subscriptions 1 80", "subscriptions 2 100")
	// Far from it, the tenant is not looked at any more, and told of when it comes to it again.
	c.send(link.UpFrame{Kind: link.UpUnsubscribe, PacketID: 1, Unsubscribe: []string{"2", "3", "4", "5"}})
	c.want(link.DownUnsuback)
	beforeDeadline(t, "it is looked at no more", func() bool {
		w.clock.Add(elsewhereFor)
		return !w.set.Tenant("acme").far.watched.Load()
	})
	w.clock.Add(level.Quiet.Milliseconds() + 1)
	c.suback("2", "3", "4", "5")
	wait("100% are told again", "subscriptions 1 80", "subscriptions 2 100", "subscriptions 2 100")
}
