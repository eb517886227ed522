// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
)

// left are the keys in the stores of all brokers that have a text in them, or in their values:
// but for the logs of partitions, from which followers get what they lack.
func (w *town) left(text string) (all []string) {
	w.t.Helper()
	for _, h := range w.brokers {
		it := h.store.Scan(nil, nil)
		for it.Next() {
			k := it.Key()
			if ofPartition := len(k) > 2 && k[0] != 0xFF; ofPartition && partition.Kind(k[2]) == partition.KindLog {
				continue
			}
			if bytes.Contains(k, []byte(text)) || bytes.Contains(it.Value(), []byte(text)) {
				all = append(all, fmt.Sprintf("%s: %q", h.name, k))
			}
		}
		if err := it.Err(); err != nil {
			w.t.Fatal(err)
		}
		it.Close()
	}
	return all
}

// forgetAll has the tenant be forgotten by a broker, and returns what it had.
func (w *town) forgetAll(h *house) (had link.Usage) {
	w.t.Helper()
	w.eventually("nothing is found any more", func() string {
		a := h.desk.answerTenant(&link.Query{Kind: link.QueryForget, Tenant: w.tenant})
		had.PersistentSessions += a.Usage.PersistentSessions
		had.Retained += a.Usage.Retained
		if a.Error != "" || a.Found {
			return fmt.Sprintf("%s %+v", a.Error, a.Usage)
		}
		return ""
	})
	return had
}

// A tenant with a cell of its own is forgotten by all brokers, followers too, and not while one
// is down, whose disk has something of it. Its connections are ended, and what is left is the
// number of its place.
func TestRegion_Forgets(t *testing.T) {
	t.Parallel()
	w := newTown(t, 3)
	w.spread, w.tenant = 3, "forgotten"
	for i := range 6 {
		c := w.connect(fmt.Sprint("sub-", i), 3600)
		c.subscribe(fmt.Sprint("forgotten/", i), mqtt.AtLeastOnce)
		if i%2 == 0 {
			c.send(link.UpFrame{Kind: link.UpClose, Close: &link.Close{Cause: link.CloseNormal}})
		}
	}
	want := w.retainSome()
	if len(w.left("forgotten")) == 0 {
		t.Fatal("the stores have nothing of the tenant")
	}

	w.brokers[2].stop()
	w.eventually("b3 is missed", func() string {
		a := w.brokers[0].desk.answerTenant(&link.Query{Kind: link.QueryForget, Tenant: w.tenant})
		if !strings.Contains(a.Error, "b3 is ") {
			return fmt.Sprintf("%+v", a)
		}
		return ""
	})
	w.brokers[2].start()
	w.settled()

	had := w.forgetAll(w.brokers[1])
	if had.Retained > int64(len(want)) || had.PersistentSessions > 6 {
		t.Errorf("forgotten: %+v", had)
	}
	w.eventually("the stores have nothing", func() string {
		all := w.left("forgotten")
		for i, key := range all {
			if !strings.Contains(key, "placement") {
				return strings.Join(all[i:], "\n")
			}
		}
		return ""
	})
	for _, h := range w.brokers {
		if u := h.shards.Tenant(w.tenant).Usage(); u != (link.Usage{}) {
			t.Errorf("%s still counts %+v", h.name, u)
		}
		if c, _ := h.region.layout.Cell(w.tenant); len(c.Partitions) > 0 || !c.Purged || !c.Placed() {
			t.Errorf("%s has it as %+v, expected none, purged, and gateways told", h.name, c)
		}
	}
	// A tenant of that name comes again, with another plan.
	w.spread = 2
	w.connect("again", 3600).subscribe("forgotten/again", mqtt.AtLeastOnce)
}
