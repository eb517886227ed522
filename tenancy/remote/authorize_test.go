// SPDX-License-Identifier: Apache-2.0

package remote_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/directory/directorytest"
	"github.com/manormq/manor/tenancy/remote"
	"github.com/manormq/manor/tenancy/store"
)

// livePolicy makes a revision live whose classes may publish to a topic of their name.
func livePolicy(t *testing.T, s *store.Store, connect bool, classes ...string) uint64 {
	t.Helper()
	r, err := s.Tenant(t.Context(), "acme")
	if err != nil {
		t.Fatal(err)
	}
	var sets []*tenancy.GrantSet
	for _, c := range classes {
		set, err := tenancy.NewGrantSet(0, c, []tenancy.GrantEntry{{Action: tenancy.ActionPublish, Filter: c + "/%c"}})
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, set)
	}
	p, err := s.AddPolicy(t.Context(), r, store.Policy{Connect: connect}, sets)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.UpdateTenant(t.Context(), "acme", 0, store.LivePolicy(p, "")); err != nil {
		t.Fatal(err)
	}
	return p.Revision
}

// seen waits until the directory knows that a revision is live.
func seen(t *testing.T, d *remote.Directory, revision uint64) *tenancy.Tenant {
	t.Helper()
	var tn *tenancy.Tenant
	directorytest.Eventually(t, func() string {
		var err error
		if tn, err = d.Tenant(t.Context(), "acme"); err != nil {
			return err.Error()
		}
		if tn.Policy.Live() != revision {
			return "the revision is not known"
		}
		return ""
	})
	return tn
}

func client(id string) *tenancy.Arrival {
	return &tenancy.Arrival{Client: tenancy.Subject{ClientID: id}}
}

func mayPublish(t *testing.T, d *remote.Directory, tn *tenancy.Tenant, id, topic string) {
	t.Helper()
	g, err := d.Authorize(t.Context(), tn, client(id))
	if err != nil {
		t.Fatalf("%s: %v", id, err)
	}
	if !g.MayPublish([]byte(topic), 0, false) || g.MayPublish([]byte(topic+"x"), 0, false) || g.Revision != tn.Policy.Grant() {
		t.Errorf("%s has not the grant to publish to %s alone", id, topic)
	}
}

// TestAuthorize_BusGone: grants that were read hold while the bus is away, also after
// a restart; others are refused.
func TestAuthorize_BusGone(t *testing.T) {
	b, own := mem.New(), t.TempDir()
	s := newStore(t, b)
	directorytest.SignUp(t, s, "acme")
	key, err := remote.LoadKey(filepath.Join(own, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := remote.Config{Bus: b, Snapshot: filepath.Join(own, "directory.snapshot"), Key: key}
	d, stop := start(t, cfg)
	ready(t, d)
	tn := seen(t, d, 0)
	if g, err := d.Authorize(t.Context(), tn, client("c")); err != nil || !g.Default() {
		t.Errorf("without a policy: %v, %v", g, err)
	}
	tn = seen(t, d, livePolicy(t, s, false, tenancy.DefaultClass))
	mayPublish(t, d, tn, "c1", "default/c1")
	b.SetDown(true)
	mayPublish(t, d, tn, "c2", "default/c2")
	stop() // writes the snapshot
	d, stop = start(t, cfg)
	ready(t, d)
	mayPublish(t, d, seen(t, d, 1), "c3", "default/c3")
	b.SetDown(false)
	tn = seen(t, d, livePolicy(t, s, false, "other")) // of which nobody is
	if _, err := d.Authorize(t.Context(), tn, client("c")); !errs.Is(err, errs.Denied) {
		t.Errorf("a class that is not there: %v, want Denied", err)
	}
	tn = seen(t, d, livePolicy(t, s, false, tenancy.DefaultClass))
	b.SetDown(true)
	if _, err := d.Authorize(t.Context(), tn, client("c")); !errs.Is(err, errs.Unavailable) {
		t.Errorf("grants that were not read: %v, want Unavailable", err)
	}
	stop()
}

// TestAuthorize_Connect: what mqtt.connect has said holds while no tenancyd answers, for
// the revision that it was said under, and for who was let in.
func TestAuthorize_Connect(t *testing.T) {
	b, own := mem.New(), t.TempDir()
	s := newStore(t, b)
	directorytest.SignUp(t, s, "acme")
	key, err := remote.LoadKey(filepath.Join(own, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	cfg := remote.Config{Bus: b, Snapshot: filepath.Join(own, "directory.snapshot"), Key: key, Now: func() time.Time { return now }}
	d, stopDirectory := start(t, cfg)
	ready(t, d)
	tn := seen(t, d, livePolicy(t, s, true, "a", "b"))
	says := map[string]tenancy.ConnectAnswer{"c1": {Allow: true, Class: "a"}, "c2": {Allow: true, Class: "b"}, "lost": {Allow: true, Class: "z"}, "no": {Reason: "not you"}}
	answers := func() (stop func()) {
		t.Helper()
		stop, err := b.Serve(tenancy.ConnectSubject, func(_ context.Context, body []byte) ([]byte, error) {
			var q tenancy.ConnectQuestion
			if err := json.Unmarshal(body, &q); err != nil {
				return nil, err
			}
			return json.Marshal(says[q.Arrival.Client.ClientID])
		})
		if err != nil {
			t.Fatal(err)
		}
		return stop
	}
	denied := func(id string, kind errs.Kind) {
		t.Helper()
		if _, err := d.Authorize(t.Context(), tn, client(id)); !errs.Is(err, kind) {
			t.Errorf("%s: %v, want %v", id, err, kind)
		}
	}
	denied("c1", errs.Unavailable) // nobody answers yet
	stop := answers()
	mayPublish(t, d, tn, "c1", "a/c1")
	mayPublish(t, d, tn, "c2", "b/c2")
	denied("no", errs.Denied)
	denied("lost", errs.Denied)
	stop()
	mayPublish(t, d, tn, "c1", "a/c1")
	denied("c3", errs.Unavailable)
	denied("no", errs.Unavailable)
	// Also after a restart.
	stopDirectory()
	if b, err := os.ReadFile(cfg.Snapshot); err != nil || !containsAll(string(b), `"admitted"`, `"c2"`) {
		t.Fatalf("the snapshot: %v", err)
	}
	d, stopDirectory = start(t, cfg)
	ready(t, d)
	mayPublish(t, d, tn, "c2", "b/c2")
	// Who is not let in any more is forgotten.
	says["c2"] = tenancy.ConnectAnswer{}
	stop = answers()
	denied("c2", errs.Denied)
	stop()
	denied("c2", errs.Unavailable)
	// Under another revision nothing is known.
	tn = seen(t, d, livePolicy(t, s, true, "a", "b"))
	denied("c1", errs.Unavailable)
	stop = answers()
	mayPublish(t, d, tn, "c1", "a/c1")
	stop()
	// And no longer than a day.
	now = now.Add(remote.DefaultKeep + time.Second)
	denied("c1", errs.Unavailable)
	stopDirectory()
}
