// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/nats"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api/client"
	"github.com/manormq/manor/services/conform/chaos"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

const (
	// doomedID is the tenant that is purged, and doomedCredentials are enough of them for the purge to
	// be met in the middle.
	doomedID          = "doomed"
	doomedCredentials = 20_000
)

// doomed is a tenant that is purged while processes are killed, and a client of another tenant that
// publishes meanwhile.
type doomed struct {
	*replicas
	organization string
	control      *nats.Bus
	records      *store.Store

	beside *talker
	stop   chan struct{}
	said   chan []string
	killed time.Time
	left   int // credentials, when the process was killed
}

// doom makes a tenant with many credentials, deletes it, and kills the process that purges it in
// the middle of that.
func (r *replicas) doom() *doomed {
	r.t.Helper()
	ctx := r.t.Context()
	d := &doomed{replicas: r, stop: make(chan struct{}), said: make(chan []string, 1)}
	must := func(err error) {
		r.t.Helper()
		if err != nil {
			r.t.Fatal(err)
		}
	}
	me, err := r.clients[0].Me(ctx)
	must(err)
	d.organization = me.Organization
	_, err = r.clients[0].CreateTenant(ctx, d.organization, client.NewTenant{ID: doomedID})
	must(err)
	d.control, err = r.Of("nats")[0].Bus()
	must(err)
	r.t.Cleanup(func() { _ = d.control.Close() })
	d.records, err = store.New(ctx, store.Config{Bus: d.control, Log: slog.New(slog.DiscardHandler), Region: "local"})
	must(err)
	fill, filling := errgroup.WithContext(ctx)
	fill.SetLimit(64)
	for i := range doomedCredentials {
		fill.Go(func() error {
			return d.records.ImportCredential(filling, doomedID, tenancy.Credential{Username: fmt.Sprint("press-", i), Hash: "none"})
		})
	}
	must(fill.Wait())
	d.beside = r.talker(0)
	go func() { d.said <- d.beside.talk(r.t, d.stop) }()

	must(r.clients[0].DeleteTenant(ctx, doomedID))
	_, err = d.records.UpdateTenant(ctx, doomedID, 0, func(t *tenancy.TenantRecord) error { // its grace is over, and requests have ended that found it
		life := *t.Life
		life.Since = life.Since.Add(-time.Hour)
		life.PurgeAt = life.Since
		t.Life = &life
		return nil
	})
	must(err)
	victim := d.purging()
	victim.Kill()
	d.killed = time.Now()
	fmt.Printf("%s kill -9 %s, in the middle of a purge\n", d.killed.Format("15:04:05"), victim.Name)
	d.left = d.credentials()
	if d.left == 0 || d.left == doomedCredentials {
		r.t.Errorf("%s was killed when %d of %d credentials were left: not in the middle", victim.Name, d.left, doomedCredentials)
	}
	victim.Start()
	victim.Ready(time.Minute)
	return d
}

// purging waits for the process that removes the credentials.
func (d *doomed) purging() *chaos.Node {
	d.t.Helper()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		for _, n := range d.Of("tenancy") {
			resp, err := http.Get("http://" + n.Addr("operator") + "/debug/pprof/goroutine?debug=1")
			if err != nil {
				d.t.Fatal(err)
			}
			stacks, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil {
				d.t.Fatal(err)
			}
			if bytes.Contains(stacks, []byte("/purge.(*Service).records")) && bytes.Contains(stacks, []byte("/store.(*part).remove")) {
				return n
			}
		}
	}
	d.t.Fatal("after 30 s no process removes the credentials of the deleted tenant")
	return nil
}

func (d *doomed) credentials() int {
	d.t.Helper()
	b, err := d.control.Bucket(d.t.Context(), bus.BucketConfig{Name: tenancy.CredentialsBucket})
	if err != nil {
		d.t.Fatal(err)
	}
	keys, err := b.Keys(d.t.Context(), doomedID+".")
	if err != nil {
		d.t.Fatal(err)
	}
	return len(keys)
}

// gone waits until another process has ended the purge, and holds that nothing is left, that the
// audit log has it once, and that the client has noticed nothing. All processes must run.
func (d *doomed) gone() {
	d.t.Helper()
	ctx := d.t.Context()
	until := func(limit time.Duration, f func() error) {
		d.t.Helper()
		for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
			err := f()
			if err == nil {
				return
			}
			if time.Now().After(end) {
				d.t.Fatalf("after %v: %v", limit, err)
			}
		}
	}
	until(2*time.Minute, func() error {
		if _, err := d.records.Tenant(ctx, doomedID); !errs.Is(err, errs.NotFound) {
			return fmt.Errorf("the tenant is not purged: %w", err)
		}
		return nil
	})
	until(time.Minute, func() error { // it is in the log when the record is gone, or when somebody finds the note
		page, err := d.clients[0].Audit(ctx, d.organization, client.Query("operation", "purge-tenant-data"))
		if err == nil && (len(page.Items) != 1 || page.Items[0].Tenant != doomedID || page.Items[0].Outcome != "done") {
			err = fmt.Errorf("the audit log has %+v, expected one purge of %s, done", page.Items, doomedID)
		}
		return err
	})
	if has := d.bucketsWith(doomedID); !slices.Equal(has, []string{"audit", "purged_tenants"}) {
		d.t.Errorf("after the purge there is something in %v, expected the audit log and the note of the purge", has)
	}
	p, err := d.records.Purged(ctx, doomedID)
	if err != nil {
		d.t.Fatal(err)
	}
	close(d.stop)
	said := <-d.said
	if err := d.beside.Err(); err != nil {
		d.t.Errorf("the connection of another tenant was closed: %v", err)
	}
	d.beside.expect(d.t, said)
	fmt.Printf("a tenant was purged %.1f s after a process was killed that had left %d of its credentials; %d acknowledged messages of another tenant have come\n",
		p.DoneAt.Sub(d.killed).Seconds(), d.left, len(said))
}

// bucketsWith are the buckets of which a key or a value has the text.
func (d *doomed) bucketsWith(text string) []string {
	d.t.Helper()
	has, buckets := map[string]bool{}, 0
	err := filepath.WalkDir(d.Of("nats")[0].Data, func(_ string, e os.DirEntry, err error) error {
		name, ok := strings.CutPrefix(e.Name(), "KV_")
		if err != nil || !ok || !e.IsDir() {
			return err
		}
		buckets++
		b, err := d.control.Bucket(d.t.Context(), bus.BucketConfig{Name: name})
		if err != nil {
			return err
		}
		all, _, err := bus.List(d.t.Context(), b, "", 1<<20)
		for _, e := range all {
			if strings.Contains(e.Key, text) || bytes.Contains(e.Value, []byte(text)) {
				has[name] = true
			}
		}
		return err
	})
	if err != nil || buckets < 20 {
		d.t.Fatalf("%d buckets were looked through, expected 20 at least: %v", buckets, err)
	}
	return slices.Sorted(maps.Keys(has))
}
