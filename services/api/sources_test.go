// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/lease"
)

// A whole file replaces what came from the one before, and nothing else.
func TestSources(t *testing.T) {
	w := newWorld(t)
	_, first, err := password.Generate()
	if err != nil {
		t.Fatal(err)
	}
	_, second, err := password.Generate()
	if err != nil {
		t.Fatal(err)
	}
	const path = "/v1/tenants/acme/sources"
	put := func(text string) map[string]any {
		t.Helper()
		r := w.do("PUT", path+"/vmq_passwd", w.owner, fmt.Sprintf(`{"text":%q}`, text))
		w.want(r, 202, "")
		return w.ended(r.header.Get("Location"))
	}
	v := put("a:" + first + "\nb:" + first + "\ndefault:" + first + "\n")
	if v["state"] != "done" || v["total"] != 3.0 || v["made"] != 2.0 || v["skipped"] != 1.0 || v["failed"] != 0.0 {
		t.Errorf("at first: %v", v)
	}
	v = put("b:" + second + "\nc:" + second + "\n")
	if v["made"] != 2.0 || v["failed"] != 0.0 {
		t.Errorf("then: %v", v)
	}
	if _, err := w.store.Credential(t.Context(), "acme", "a"); !errs.Is(err, errs.NotFound) {
		t.Errorf("a is there: %v", err)
	}
	for name, generation := range map[string]int{"b": 2, "c": 1, "default": 1} {
		if c, err := w.store.Credential(t.Context(), "acme", name); err != nil || c.Generation != generation || (c.Source == "") != (name == "default") {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	list := w.want(w.do("GET", "/v1/tenants/acme/credentials", w.owner, ""), 200, "")["items"].([]any)
	for _, x := range list {
		if c := x.(map[string]any); (c["source"] == "vmq_passwd") != (c["username"] != "default") {
			t.Errorf("the list has %v", c)
		}
	}
	items := w.want(w.do("GET", path, w.owner, ""), 200, "")["items"].([]any)
	if s := items[0].(map[string]any); len(items) != 1 || s["kind"] != "vmq_passwd" || s["users"] != 2.0 || s["applied_at"] == nil || s["problem"] != nil {
		t.Errorf("sources %v", items)
	}
	// What is wrong is refused before anything is changed.
	v = w.want(w.do("PUT", path+"/vmq_passwd", w.owner, `{"text":"# x\nb:secret"}`), 400, "import_invalid")
	if d := v["detail"].(string); !strings.HasPrefix(d, "vmq.passwd:2:1: expected USER:") || strings.Contains(d, "secret") {
		t.Errorf("the detail is %s", d)
	}
	w.want(w.do("PUT", path+"/vmq_passwd", w.owner, `{"text":""}`), 400, "request_invalid") // a line with # is nobody
	w.want(w.do("PUT", "/v1/tenants/acme/quotas/overrides", w.owner, `{"credentials":3}`), 200, "")
	w.want(w.do("PUT", path+"/vmq_passwd", w.owner, fmt.Sprintf(`{"text":%q}`, "b:"+second+"\nc:"+second+"\nd:"+second)), 409, "quota_exceeded")
	if n, err := w.store.CountCredentials(t.Context(), "acme"); n != 3 || err != nil {
		t.Errorf("%d credentials, %v", n, err)
	}
}

// A tenant that sends one file after the other, while none of them gets done, has one slot: the
// others are for other tenants.
func TestSources_OneOfTenant(t *testing.T) {
	w := newWorld(t)
	bucket, err := w.store.Bus().Bucket(t.Context(), bus.BucketConfig{Name: "source_locks"})
	if err != nil {
		t.Fatal(err)
	}
	locks := lease.New(lease.Config{Bucket: bucket, Log: telemetry.Discard()})
	if err := locks.Lock(t.Context(), "acme vmq_passwd"); err != nil {
		t.Fatal(err)
	}
	const path = "/v1/tenants/acme/sources/vmq_passwd"
	first := w.do("PUT", path, w.owner, `{"text":"# nobody"}`)
	w.want(first, 202, "")
	for range 5 {
		w.want(w.do("PUT", path, w.owner, `{"text":"# nobody"}`), 409, "imports_busy")
	}
	r := w.do("POST", "/v1/tenants/acme/credentials:import", w.owner, `{"items":[{"username":"x","password":"hunter2-device"}]}`)
	w.want(r, 202, "")
	if v := w.ended(r.header.Get("Location")); v["state"] != "done" {
		t.Errorf("an import beside it: %v", v)
	}
	if err := locks.Unlock(t.Context(), "acme vmq_passwd"); err != nil {
		t.Fatal(err)
	}
	if v := w.ended(first.header.Get("Location")); v["state"] != "done" {
		t.Errorf("the file: %v", v)
	}
}

// deadlines is an answer's writer that keeps until when the request may be read.
type deadlines struct {
	*httptest.ResponseRecorder
	read chan time.Time
}

func (d *deadlines) SetReadDeadline(at time.Time) error {
	select {
	case d.read <- at:
	default:
	}
	return nil
}

// A file takes its turn before it is read: who sends it slowly holds no memory beyond that
// of those few, has one of the turns, and that for a time. Strangers have no turn.
func TestSources_BodiesAtATime(t *testing.T) {
	w := newWorld(t)
	const path, mine, other = "/v1/tenants/acme/sources/vmq_passwd", 1, 1
	var wg sync.WaitGroup
	var sending []*io.PipeWriter
	send := func(key, path string) *deadlines {
		body, in := io.Pipe()
		sending = append(sending, in)
		req := httptest.NewRequest(http.MethodPut, path, body)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+key)
		d := &deadlines{httptest.NewRecorder(), make(chan time.Time, 1)}
		wg.Go(func() { w.s.Handler().ServeHTTP(d, req) })
		return d
	}
	begins := func() { // the last that was sent is read
		if _, err := sending[len(sending)-1].Write([]byte("{")); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		send("mk_wrong", path)
	}
	for range mine {
		d := send(w.owner, path)
		begins()
		if until := time.Until(<-d.read); until > time.Minute {
			t.Errorf("the file may come for %v", until)
		}
	}
	w.want(w.send("PUT", path, w.owner).answer(t, "one more"), 503, "imports_busy")
	w.want(w.do("PUT", "/v1/tenants/beta/sources/vmq_passwd?dry_run=true", w.beta, `{"text":"# nobody"}`), 200, "")
	for range other {
		send(w.beta, "/v1/tenants/beta/sources/vmq_passwd")
		begins()
	}
	for _, in := range sending {
		_ = in.CloseWithError(io.ErrUnexpectedEOF)
	}
	wg.Wait()
	w.want(w.do("PUT", path+"?dry_run=true", w.owner, `{"text":"# nobody"}`), 200, "")
}
