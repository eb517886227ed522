// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/infra/kv/leveldb"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy/events"
)

// status is what the API answers, which may be no.
func (x *tenant) status(method, path, body string) (int, string) {
	x.Helper()
	req, err := http.NewRequestWithContext(x.Context(), method, x.p.api+path, strings.NewReader(body))
	if err != nil {
		x.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+x.key)
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		x.Fatal(err)
	}
	defer func() { _ = r.Body.Close() }()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		x.Fatal(err)
	}
	return r.StatusCode, string(b)
}

// ended expects a DISCONNECT with that reason, in the time that a change may take, and the end of
// the connection.
func (d *device) ended(reason mqtt.ReasonCode, text string) {
	d.x.Helper()
	p := d.next(live)
	if p == nil || p.Type != packet.DISCONNECT || p.Disconnect.Reason != reason || !strings.Contains(p.Disconnect.ReasonString, text) {
		d.x.Fatalf("expected DISCONNECT %v %q, got %+v", reason, text, p)
	}
	if p := d.next(live); p != nil {
		d.x.Fatalf("after DISCONNECT came %+v", p)
	}
}

// found are the keys and values that have a text in them: of the broker's store, of all buckets
// of the bus by name, and of the history of events. The product must have ended.
func found(t *testing.T, data, text string) map[string]int {
	t.Helper()
	has := map[string]int{}
	s, err := leveldb.Open(filepath.Join(data, "broker-1", "store"), leveldb.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	it := s.Scan(nil, nil)
	defer it.Close()
	for it.Next() {
		if bytes.Contains(it.Key(), []byte(text)) || bytes.Contains(it.Value(), []byte(text)) {
			has["store"]++
		}
	}
	server, err := embed.Start(t.Context(), embed.Config{Dir: filepath.Join(data, "nats-1"), Name: "nats-1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	b, err := server.Bus("test")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	buckets := 0
	if err := filepath.WalkDir(filepath.Join(data, "nats-1"), func(_ string, e os.DirEntry, err error) error {
		name, ok := strings.CutPrefix(e.Name(), "KV_")
		if err != nil || !ok || !e.IsDir() {
			return err
		}
		buckets++
		bucket, err := b.Bucket(t.Context(), bus.BucketConfig{Name: name})
		if err != nil {
			return err
		}
		all, _, err := bus.List(t.Context(), bucket, "", 1<<20)
		for _, e := range all {
			if strings.Contains(e.Key, text) || bytes.Contains(e.Value, []byte(text)) {
				has[name]++
			}
		}
		return err
	}); err != nil || buckets < 20 {
		t.Fatal(buckets, err)
	}
	stream, err := events.Open(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	past, err := stream.Read(t.Context(), bus.Read{Filter: text + ".*", Most: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if len(past) > 0 {
		has["events"] = len(past)
	}
	return has
}

// The life of a tenant, as its clients and its people see it: suspended and back, deleted and
// back, and in the end removed, of which the stores have nothing but what is kept of purpose.
func TestTenantLife(t *testing.T) {
	o := &options{data: t.TempDir(), bind: "127.0.0.1", grace: time.Hour, purgeSettle: 2500 * time.Millisecond}
	p, stop := runUntil(t, o)
	x := p.signUp(t, "acme")
	organization := "/v1/organizations/" + x.organization()
	x.do("POST", organization+"/tenants", `{"id":"doomed"}`, nil)
	x.id, x.word = "doomed", "chosen-password"
	x.do("POST", "/v1/tenants/doomed/credentials", `{"username":"default","password":"chosen-password"}`, nil)
	x.do("PUT", "/v1/tenants/doomed/devices/press-7", `{"groups":["presses"]}`, nil)
	x.do("PUT", "/v1/tenants/doomed/policies", `{"files":{"p.rego":"package mqtt\n\ngrants := [{\"action\":\"publish\",\"filter\":\"#\"}, {\"action\":\"subscribe\",\"filter\":\"#\"}]"}}`, nil)
	x.do("POST", "/v1/tenants/doomed/managed-ca", "", nil)
	x.do("POST", "/v1/tenants/doomed/domains", `{"fqdn":"mqtt.doomed.example","certificate":"uploaded"}`, nil)
	x.do("POST", "/v1/tenants/doomed/bans", `{"kind":"client_id","value":"villain"}`, nil)
	a := x.device(clientID("doomed-a"), stored)
	a.subscribe("doomed/#", mqtt.AtLeastOnce, 0)
	a.send(&packet.Packet{Type: packet.DISCONNECT, Disconnect: &packet.Disconnect{}})
	for n := range 3 {
		x.do("POST", "/v1/tenants/doomed/publish", fmt.Sprintf(`{"topic":"doomed/%d","payload":"for doomed","qos":1,"retain":true}`, n), nil)
	}
	b := x.device(clientID("doomed-b"))

	x.do("POST", "/v1/tenants/doomed:suspend", `{"reason":"unpaid"}`, nil)
	b.ended(mqtt.AdministrativeAction, "the tenant is suspended: unpaid")
	if _, k := x.connect(); k.Reason != mqtt.Banned || k.ReasonString != "the tenant is suspended: unpaid" {
		t.Errorf("CONNACK %v %s", k.Reason, k.ReasonString)
	}
	if _, k := x.connect(version(packet.V311)); packet.ReturnCode(k.Reason) != 5 {
		t.Errorf("CONNACK of 3.1.1 %v", k.Reason)
	}
	if code, body := x.status("POST", "/v1/tenants/doomed/publish", `{"topic":"a"}`); code != 403 || !strings.Contains(body, "tenant_inactive") {
		t.Errorf("publish: %d %s", code, body)
	}
	for _, path := range []string{"/retained", "/clients/doomed-a", "/credentials"} {
		x.do("GET", "/v1/tenants/doomed"+path, "", nil)
	}
	x.do("POST", "/v1/tenants/doomed:resume", "", nil)
	x.within(func() string {
		if _, k := x.connect(); k.Reason != mqtt.Success {
			return fmt.Sprintf("CONNACK %v", k.Reason)
		}
		return ""
	})
	c := x.device()

	x.do("DELETE", "/v1/tenants/doomed", "", nil)
	c.ended(mqtt.AdministrativeAction, "not there any more")
	if _, k := x.connect(); !k.Reason.Failed() {
		t.Error("a client is let in to a deleted tenant")
	}
	if code, body := x.status("GET", "/v1/tenants/doomed", ""); code != 410 {
		t.Errorf("the API answers %d %s", code, body)
	}
	x.do("POST", "/v1/tenants/doomed:restore", "", nil)
	x.within(func() string {
		if _, k := x.connect(clientID("doomed-a"), stored); k.Reason != mqtt.Success || !k.SessionPresent {
			return fmt.Sprintf("CONNACK %+v", k)
		}
		return ""
	})

	x.do("DELETE", "/v1/tenants/doomed", "", nil)
	x.do("POST", "/v1/tenants/doomed:purge", "", nil)
	x.withinTime(soon, func() string {
		if code, body := x.status("GET", "/v1/tenants/doomed", ""); code != 404 {
			return fmt.Sprintf("%d %s", code, body)
		}
		return ""
	})
	var log struct {
		Items []struct {
			After struct{ Removed map[string]int } `json:"after"`
		}
	}
	x.within(func() string { // it is done when the record has gone, and said then
		x.do("GET", organization+"/audit?operation=purge-tenant-data", "", &log)
		if len(log.Items) != 1 || log.Items[0].After.Removed["sessions"] < 1 || log.Items[0].After.Removed["retained_messages"] != 3 {
			return fmt.Sprintf("the audit log has %+v", log)
		}
		return ""
	})
	if code, body := x.status("POST", "/v1/signup", `{"organization":"Thief","email":"a@b.example","password":"correct horse","tenant":"doomed"}`); code != 409 {
		t.Errorf("somebody else gets the id: %d %s", code, body)
	}
	stop()
	got := slices.Sorted(maps.Keys(found(t, o.data, "doomed")))
	if !slices.Equal(got, []string{"audit", "purged_tenants"}) {
		t.Errorf("after the purge there is something in %v: %v", got, found(t, o.data, "doomed"))
	}
	if all := found(t, o.data, "acme"); all["tenants"] != 1 || all["credentials"] == 0 {
		t.Errorf("another tenant has %v", all)
	}
}

// runUntil is startProduct with those options, and ends it when stop is called.
func runUntil(t *testing.T, o *options) (p *product, stop func()) {
	t.Helper()
	all := o.layout()
	for name := range all[0].Ports {
		all[0].Ports[name] = freePort(t)
	}
	ca, err := openAuthority(o.data)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done, ready := make(chan error, 1), make(chan struct{})
	go func() {
		done <- runProduct(ctx, o, &all[0], ca, slog.New(slog.DiscardHandler), func(*prometheus.Registry) { close(ready) })
	}()
	ended := false
	stop = func() {
		cancel()
		if !ended {
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
		ended = true
	}
	t.Cleanup(stop)
	select {
	case <-ready:
	case err := <-done:
		done <- err
		t.Fatal(err)
	}
	return &product{mqtt: all[0].local("mqtt"), mqtts: all[0].local("mqtts"), wss: all[0].local("wss"), api: "http://" + all[0].local("api")}, stop
}
