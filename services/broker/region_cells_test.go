// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/operate"
	"github.com/manormq/manor/services/broker/partition"
)

// livesIn holds that the stores of all brokers have sessions and retained messages of the
// town's tenant in these partitions, in several of them and in no other. A CONNACK does
// not wait for the record of a session that is new.
func (w *town) livesIn(cell []partition.ID) {
	w.t.Helper()
	w.eventually("in its partitions", func() string {
		if found := w.found(cell); len(found) < min(2, len(cell)) {
			return fmt.Sprintf("they have %v", found)
		}
		return ""
	})
}

// found counts what the stores have of the tenant, by partition, all of which must be in
// cell.
func (w *town) found(cell []partition.ID) map[partition.ID]int {
	w.t.Helper()
	found := map[partition.ID]int{}
	for _, h := range w.brokers {
		for p := range partition.ID(16) {
			for _, kind := range []partition.Kind{partition.KindSession, partition.KindRetained} {
				it := h.store.Scan(partition.Range(p, kind))
				for it.Next() {
					if tenant, name, err := partition.SplitNamed(it.Key()); err != nil || tenant == w.tenant {
						if found[p]++; !slices.Contains(cell, p) {
							w.t.Errorf("%s has %q in partition %d, expected all in %v (%v)", h.name, name, p, cell, err)
						}
					}
				}
				it.Close()
			}
		}
	}
	return found
}

// A tenant of three partitions lives in these, wherever they are: nothing is lost when a
// broker dies, each broker finds its sessions and retained messages, and all have its record.
func TestRegion_Cells(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("half a minute")
	}
	w := newTown(t, 3, func(_ int, c *Config) { c.Cluster.Reserved = 4 })
	w.spread = 3
	var shared []partition.ID
	for p := range partition.ID(12) {
		shared = append(shared, p)
	}
	cell := link.Cell("acme", 3, shared)
	disturb(t, w, func() {
		w.brokers[1].stop()
		time.Sleep(4 * time.Second) // its followers have taken over
		w.brokers[1].start()
		w.settled()
	})
	want := w.retainSome()
	w.livesIn(cell)
	w.findRetained(want)
	for _, h := range w.brokers {
		for _, id := range []mqtt.ClientID{"reader-0", "one-1", "two-2"} {
			if a := h.shards.Ask(&link.Query{Kind: link.QueryClient, Tenant: "acme", ClientID: id}); !a.Found || a.Error != "" {
				t.Errorf("%s does not find %s: %s", h.name, id, a.Error)
			}
		}
		a := h.shards.Ask(&link.Query{Kind: link.QueryRetained, Tenant: "acme", Filter: "ret/#"})
		if len(a.Retained) != len(want) || a.Error != "" {
			t.Errorf("%s has %d retained messages, %s", h.name, len(a.Retained), a.Error)
		}
		w.eventually(h.name+" has the record", func() string {
			if got := column(h.must(http.MethodGet, "tenant/show")[0], "Partitions")["acme"]; strings.ReplaceAll(got, " ", "") != ranged(cell) {
				return fmt.Sprintf("%s, expected %s", got, ranged(cell))
			}
			return ""
		})
	}
}

// ranged is a list of partitions as operators see it, without spaces.
func ranged(cell []partition.ID) string {
	var b []string
	for i := 0; i < len(cell); i++ {
		first := cell[i]
		for i+1 < len(cell) && cell[i+1] == cell[i]+1 {
			i++
		}
		if b = append(b, fmt.Sprint(first)); cell[i] != first {
			b[len(b)-1] += fmt.Sprint("-", cell[i])
		}
	}
	return strings.Join(b, ",")
}

// Partitions move to the brokers that accept their label, and back, while clients of
// every kind talk; nobody notices, and nobody else gets them.
func TestRegion_Labels(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("half a minute")
	}
	labels := [][]string{nil, {"shared", "gold"}, {"gold"}}
	w := newTown(t, 3, func(i int, c *Config) { c.Cluster.Labels, c.Cluster.Reserved = labels[i], 2 })
	w.spread = 3
	for path, want := range map[string]string{
		"partition/label?partitions=0&label=silver":          "no broker that is there accepts the label silver",
		"partition/label?partitions=0&label=gold&replicas=3": "2 brokers accept the label gold (b2, b3), and there are to be 3 replicas",
		"partition/label?partitions=16&label=gold":           "expected partitions from 0 to 15",
	} {
		code, all := w.brokers[0].command(http.MethodPost, path)
		if err := operate.Err(code, all); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %d %v, expected %q", path, code, err, want)
		}
	}
	held := func(by ...string) {
		t.Helper()
		w.balanced()
		for _, h := range w.brokers {
			for id, in := range column(h.must(http.MethodGet, "partition/show")[0], "In sync") {
				for b := range strings.FieldsSeq(in) {
					if !slices.Contains(by, b) {
						t.Errorf("%s: partition %s is held by %s", h.name, id, in)
					}
				}
			}
		}
	}
	held("b1", "b2")
	unbroken(t, w, func() {
		w.brokers[0].must(http.MethodPost, "cluster/config/set?name=moves&value=8")
		w.brokers[2].must(http.MethodPost, "partition/label?partitions=0-15&label=gold")
		held("b2", "b3")
	})
	for _, h := range w.brokers {
		if got := column(h.must(http.MethodGet, "partition/show")[0], "Label"); got["0"] != "gold" || got["15"] != "gold" {
			t.Errorf("%s: labels %v", h.name, got)
		}
		if got := column(h.must(http.MethodGet, "cluster/config/show")[0], "Value"); got["moves"] != "8" || got["replicas"] != "2" || h.region.layout.Moves() != 8 {
			t.Errorf("%s: settings %v", h.name, got)
		}
	}
	// What was said is on the disk: a broker that comes back knows it without the others.
	w.brokers[1].stop()
	w.brokers[1].start()
	if got := w.brokers[1].region.layout.Label(3); got != "gold" {
		t.Errorf("a broker that was started has the label %q", got)
	}
	w.settled()
	w.brokers[1].must(http.MethodPost, "partition/label?partitions=0-15&label=shared&replicas=1")
	w.eventually("one replica each", func() string {
		for _, h := range w.brokers {
			for id, n := range column(h.must(http.MethodGet, "partition/show")[0], "Replicas") {
				if n != "1 of 1" {
					return id + ": " + n
				}
			}
		}
		return ""
	})
	held("b1", "b2")
}

// A tenant is placed before it has anything: then its clients are there and nowhere else,
// and gateways know. It is refused where something would stay behind.
func TestRegion_Place(t *testing.T) {
	t.Parallel()
	w := newTown(t, 3, func(_ int, c *Config) { c.Cluster.Reserved, c.Cluster.Labels = 4, []string{"shared", "gold"} })
	w.spread = 2
	refused := func(path, want string) {
		t.Helper()
		code, all := w.brokers[0].command(http.MethodPost, path)
		if err := operate.Err(code, all); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %d %v, expected %q", path, code, err, want)
		}
	}
	const place = "tenant/place?tenant=acme&partitions=12-13"
	c := w.connect("first", 3600)
	refused("tenant/place?tenant=acme&dedicated=gold", "no partition has the label gold")
	refused("tenant/place?tenant=acme&partitions=16", "expected partitions from 0 to 15")
	refused("tenant/place?tenant=acme&dedicated=shared", "nobody's own")
	if a := w.brokers[1].shards.Ask(&link.Query{Kind: link.QueryKick, Tenant: "acme", ClientID: "first", Purge: true}); !a.Found {
		t.Errorf("%+v", a)
	}
	w.brokers[2].stop()
	w.eventually("its failure is seen", func() string {
		if code, _ := w.brokers[0].command(http.MethodPost, place); code != http.StatusConflict {
			return fmt.Sprint(code)
		}
		return ""
	})
	refused(place, "all brokers must know of it")
	w.brokers[2].start()
	w.settled()
	_ = c.link.Close()
	w.eventually("placed", func() string {
		code, all := w.brokers[0].command(http.MethodPost, place)
		if err := operate.Err(code, all); err != nil {
			return err.Error()
		}
		return ""
	})
	for i := range 12 {
		w.connect(fmt.Sprint("c-", i), 3600)
	}
	w.livesIn([]partition.ID{12, 13})
	for _, h := range w.brokers {
		table := h.region.Table()
		if len(table.Cells) != 1 || table.Cells[0].Tenant != "acme" || table.Shared != 12 || !slices.Equal(table.Cells[0].Partitions, []uint16{12, 13}) {
			t.Errorf("%s tells gateways %+v", h.name, table.Cells)
		}
	}
	refused(place, "acme lives in these partitions")
	// Two commands for one tenant do not cross.
	w.brokers[2].shards.Hold("late", "somebody", time.Minute)
	refused("tenant/place?tenant=late&partitions=14", "late is being placed by another command")
	w.brokers[2].shards.Release("late", "somebody")
	w.brokers[0].must(http.MethodPost, "tenant/place?tenant=late&partitions=14")
	w.brokers[1].must(http.MethodPost, "tenant/place?tenant=late&shared")
	w.old()
	// A dedicated tenant has all partitions with a label.
	w.brokers[1].must(http.MethodPost, "partition/label?partitions=14-15&label=gold")
	w.brokers[1].must(http.MethodPost, "tenant/place?tenant=globex&dedicated=gold")
	w.tenant = "globex"
	for i := range 6 {
		w.connect(fmt.Sprint("g-", i), 3600)
	}
	w.livesIn([]partition.ID{14, 15})
}

// old brings clients by a gateway that knows no cells: it is let in where it is right, and
// refused elsewhere, since it would not know where to go.
func (w *town) old() {
	w.t.Helper()
	in, out := 0, 0
	for i := range 6 {
		for _, h := range w.brokers {
			g := &oldGateway{frames: make(chan link.DownFrame, 64)}
			l := h.Attach(g)
			_ = l.Send(&link.Up{Frames: []link.UpFrame{{Kind: link.UpOpen, Channel: 1, Open: &link.Open{
				Tenant: w.tenant, ClientID: mqtt.ClientID(fmt.Sprint("old-", i)), ReceiveMaximum: 1, Credit: 1 << 20, Limits: limitless,
			}}}})
			select {
			case f := <-g.frames:
				switch {
				case f.Kind == link.DownOpened:
					in++
				case f.Kind == link.DownRefused && f.Reason == mqtt.ServerUnavailable && strings.Contains(f.Text, "too old"):
					out++
				default:
					w.t.Errorf("%s answers an old gateway %+v", h.name, f)
				}
			case <-time.After(10 * time.Second):
				w.t.Errorf("%s does not answer an old gateway", h.name)
			}
			_ = l.Close()
		}
	}
	if in != 6 || out != 12 {
		w.t.Errorf("an old gateway was let in %d times and refused %d times, expected 6 and 12", in, out)
	}
}

// oldGateway has the features of a release before cells.
type oldGateway struct{ frames chan link.DownFrame }

func (g *oldGateway) Features() uint32 { return link.FeatureOwners | link.FeatureMoves }
func (g *oldGateway) Flush()           {}
func (g *oldGateway) Lost(error)       {}

func (g *oldGateway) Receive(b *link.Down) {
	for _, f := range b.Frames {
		switch f.Kind {
		case link.DownTable, link.DownLoad, link.DownWindow:
		default:
			g.frames <- f
		}
	}
}
