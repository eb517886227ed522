// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// A tenant of which much is to be told does not keep another's from being told.
func TestNotes_OfTwoTenants(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, false)
	s := w.set.shards[0]
	s.ask(func() {
		for i := range 3 * notesMost {
			for range 2 {
				s.note(w.set.Tenant("loud"), mqtt.ClientID(fmt.Sprint("c", i)), noteFanOut, 1)
			}
		}
		s.note(w.set.Tenant("quiet"), "c", noteStorage, 1)
	})
	told := func(tenant string) (notes, count int) {
		w.gw.mu.Lock()
		defer w.gw.mu.Unlock()
		for _, x := range w.gw.notes {
			if x.Tenant == tenant {
				notes, count = notes+1, count+int(x.Count)
			}
		}
		return notes, count
	}
	beforeDeadline(t, "the loud one's numbers", func() bool {
		_, n := told("loud")
		return n == 2*notesMost
	})
	if n, _ := told("quiet"); n != 1 {
		t.Errorf("%d notes of the quiet tenant, expected 1", n)
	}
	beforeDeadline(t, "nothing more is kept", func() (none bool) {
		s.ask(func() { none = len(s.notes.of)+len(s.notes.per) == 0 })
		return none
	})
}

// Reasons that take turns are an event each, and a number afterwards; each acknowledgement
// that refuses has its quota named, the first of several.
func TestNotes_ReasonsThatTakeTurns(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.set.noteEvery = time.Hour
		most := tenantLimits(func(l *link.TenantLimits) { l.SharedGroups, l.SharedGroupMembers, l.RetainedRate = 1, 1, 0 })
		a, b := w.connect("a", most), w.connect("b", most)
		a.suback("$share/a/t")
		named := func(want ...string) {
			t.Helper()
			w.gw.mu.Lock()
			defer w.gw.mu.Unlock()
			if !slices.Equal(w.gw.names, want) {
				t.Errorf("the refusals are named %q, want %q", w.gw.names, want)
			}
			w.gw.names = nil
		}
		var filters []string
		for i := range 8 {
			filters = append(filters, "$share/a/t", fmt.Sprint("$share/b/", i))
		}
		b.suback(filters...)
		named("shared_group_members")
		b.suback("plain")
		named()
		b.suback("$share/c/t")
		named("shared_groups")
		for i := range uint16(2) {
			b.retain(1+i, "r", "x", mqtt.QoS(1+i))
			b.wantAck(mqtt.Puback+mqtt.AckKind(i), 1+i)
			named("retained_rate")
		}
		w.gw.mu.Lock()
		defer w.gw.mu.Unlock()
		if n := len(w.gw.notes); n != 3 {
			t.Errorf("%d events of three reasons: %+v", n, w.gw.notes)
		}
	})
}
