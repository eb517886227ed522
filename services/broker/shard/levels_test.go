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

// That a tenant comes to 80% of a quota, and to all of it, is told once by each of the brokers that
// watch it, also by one that has less of it than the other.
func TestWide_QuotaLevels(t *testing.T) {
	t.Parallel()
	n := pair(t)
	limits := bounded(func(l *link.TenantLimits) { l.Subscriptions = 10 })
	a, b := n[0].visitor(clientIn(0, "a"), limits), n[1].visitor(clientIn(1, "b"), limits)
	var all []string
	for i := range 5 {
		all = append(all, fmt.Sprint("f", i))
	}
	wantReasons(t, a.suback(t, all[:4]...), granted, granted, granted, granted) // not near its limit, as it knows
	b.suback(t, all...)
	told := func() (told []string) {
		told = levelsOf(n[:])
		slices.Sort(told)
		return slices.Compact(told)
	}
	beforeDeadline(t, "80% are told", func() bool { return slices.Equal(told(), []string{"acme subscriptions 1"}) })
	beforeDeadline(t, "the last one is granted", func() bool { return b.suback(t, "more")[0] == granted })
	beforeDeadline(t, "100% are told", func() bool {
		return slices.Equal(told(), []string{"acme subscriptions 1", "acme subscriptions 2"})
	})
	if all := levelsOf(n[:]); len(all) > 2*len(n) {
		t.Errorf("told %q: expected each level once by each broker", all)
	}
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

// Shared subscriptions are told of, without any other quota being near.
func TestLevels_SharedGroups(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, false)
	c := w.connect("c", tenantLimits(func(l *link.TenantLimits) { l.SharedGroups = 5 }))
	wait := func(what string, want ...string) {
		t.Helper()
		beforeDeadline(t, what, func() bool {
			w.clock.Add(elsewhereFor)
			w.gw.mu.Lock()
			defer w.gw.mu.Unlock()
			var all []string
			for _, x := range w.gw.levels {
				all = append(all, fmt.Sprintf("%s %d %d", x.Reason, x.Level, x.Count))
			}
			return slices.Equal(all, want)
		})
	}
	c.suback("$share/1/t", "$share/2/t", "$share/3/t", "plain")
	c.suback("$share/4/t")
	wait("80% are told", "shared_groups 1 80")
	c.suback("$share/5/t")
	wait("100% are told", "shared_groups 1 80", "shared_groups 2 100")
	c.send(link.UpFrame{Kind: link.UpUnsubscribe, PacketID: 1, Unsubscribe: []string{"$share/1/t", "$share/2/t", "$share/3/t", "$share/4/t"}})
	c.want(link.DownUnsuback)
	beforeDeadline(t, "it is looked at no more", func() bool {
		w.clock.Add(elsewhereFor)
		return !w.set.Tenant("acme").far.watched.Load()
	})
}
