// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/services/api"
)

// sending is a request whose body comes by hand.
type sending struct {
	in       *io.PipeWriter
	answered chan response
}

func (f *fixture) send(method, path, key string, headers ...string) sending {
	body, in := io.Pipe()
	s := sending{in, make(chan response, 1)}
	f.t.Cleanup(func() { _ = in.CloseWithError(io.ErrUnexpectedEOF) })
	req := httptest.NewRequest(method, path, body)
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	go func() {
		w := httptest.NewRecorder()
		f.s.Handler().ServeHTTP(w, req)
		s.answered <- response{w.Code, w.Header(), w.Body.String()}
	}()
	return s
}

// answer waits for the answer.
func (s sending) answer(t *testing.T, what string) response {
	t.Helper()
	select {
	case r := <-s.answered:
		return r
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: no answer", what)
		return response{}
	}
}

// Nobody waits for the body of a stranger who may not ask, with an Idempotency-Key or without,
// and where strangers may ask, bodies are small.
func TestStrangers_Bodies(t *testing.T) {
	w := newWorld(t)
	for _, key := range []string{"", "mk_wrong"} {
		for _, headers := range [][]string{nil, {"Idempotency-Key", "a"}} {
			r := w.send("POST", "/v1/tenants/acme/publish", key, headers...).answer(t, "publish with key "+key)
			if r.status != http.StatusUnauthorized {
				t.Errorf("key %q, %v: status %d", key, headers, r.status)
			}
			w.want(w.send("POST", "/v1/nothing", key, headers...).answer(t, "a path that is none"), 404, "path_unknown")
		}
	}
	large := fmt.Sprintf(`{"organization":%q}`, strings.Repeat("a", 64<<10))
	w.want(w.do("POST", "/v1/signup", "", large), 413, "body_too_large")
	w.want(w.do("POST", "/v1/signup", "", large, "Idempotency-Key", "a"), 413, "body_too_large")
	s := w.send("POST", "/v1/signup", "", "Idempotency-Key", "a")
	go func() { _, _ = io.WriteString(s.in, large) }() // of which not all is read
	w.want(s.answer(t, "a body of unknown length"), 413, "body_too_large")
}

// The process reads 8 large bodies at a time, whosever they are.
func TestBodies_LargeOfAll(t *testing.T) {
	w := newFixture(t)
	var all []sending
	for i := range 5 {
		tenant := fmt.Sprint("org-", i)
		key := w.signUp(tenant)
		for range 2 {
			s := w.send("POST", "/v1/tenants/"+tenant+"/publish", key)
			if i == 4 { // of the fifth none has a turn
				w.want(s.answer(t, "one more"), 503, "bodies_busy")
				continue
			}
			if _, err := io.WriteString(s.in, `{"topic":"a",`); err != nil {
				t.Fatal(err)
			}
			all = append(all, s)
		}
	}
	for _, s := range all {
		if _, err := io.WriteString(s.in, `"payload":"x"}`); err != nil {
			t.Fatal(err)
		}
		_ = s.in.Close()
		w.want(s.answer(t, "a slow one"), 200, "")
	}
}

// Few large bodies are read at a time, of one organization fewer. Small ones do not wait.
func TestBodies_LargeAtATime(t *testing.T) {
	w := newWorld(t)
	const path, most = "/v1/tenants/acme/publish", 2
	var all []sending
	for range most {
		s := w.send("POST", path, w.owner)
		if _, err := io.WriteString(s.in, `{"topic":"a",`); err != nil { // its turn has come
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if r := w.send("POST", path, w.owner).answer(t, "one more"); r.status != 503 || r.header.Get("Retry-After") == "" {
		t.Errorf("one more: %d %s, Retry-After %q", r.status, r.body, r.header.Get("Retry-After"))
	}
	w.want(w.do("POST", path, w.owner, `{"topic":"a"}`), 200, "")
	beta := w.send("POST", "/v1/tenants/beta/publish", w.beta)
	if _, err := io.WriteString(beta.in, `{"topic":"a"}`); err != nil {
		t.Fatal(err)
	}
	_ = beta.in.Close()
	w.want(beta.answer(t, "another organization's"), 200, "")
	for _, s := range all {
		if _, err := io.WriteString(s.in, `"payload":"x"}`); err != nil {
			t.Fatal(err)
		}
		_ = s.in.Close()
		w.want(s.answer(t, "a slow one"), 200, "")
	}
}

// Who tries wrong keys is not looked up for long; who has a right one goes on, from the same address too.
func TestStrangers_WrongKeys(t *testing.T) {
	f := newFixture(t, func(c *api.Config) { c.Rates = api.Rates{WrongKeysAddress: 3} })
	f.peer = "192.0.2.9:1000"
	key := f.signUp("acme")
	f.want(f.do("GET", "/v1/tenants/acme", key, ""), 200, "")
	for i := range 5 {
		for _, path := range []string{"/v1/tenants/acme", "/v1/me"} {
			r := f.do("GET", path, fmt.Sprint("mk_", i, path), "")
			if i < 1 && r.status != 401 || i > 1 && (r.status != 429 || r.header.Get("Retry-After") == "") {
				t.Errorf("wrong key %d: %d, Retry-After %q", i, r.status, r.header.Get("Retry-After"))
			}
		}
	}
	f.want(f.do("GET", "/v1/tenants/acme", key, ""), 200, "")
	f.peer = "192.0.2.10:1000"
	f.want(f.do("GET", "/v1/tenants/acme", "mk_wrong", ""), 401, "api_key_invalid")
}

// TestFollowed holds both bounds on streams of events, and that one that ends makes room.
func TestFollowed(t *testing.T) {
	begin := api.Followed()
	code := func(err error) string {
		if p, ok := errors.AsType[*api.Problem](err); ok {
			return p.Code
		}
		return fmt.Sprint(err)
	}
	var last func()
	for i := range 64 {
		end, err := begin(fmt.Sprint("tenant-", i/8))
		if err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
		last = end
		if i != 7 {
			continue
		}
		if _, err := begin("tenant-0"); code(err) != "streams_of_tenant" {
			t.Fatalf("a ninth stream of a tenant: %v", err)
		}
	}
	if _, err := begin("another"); code(err) != "streams_busy" {
		t.Errorf("stream 65: %v", err)
	}
	last()
	if _, err := begin("another"); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}

// What strangers ask is not kept where nothing is, or they may not, or are refused, and
// answers quote little of it.
func TestStrangers_KeepNothing(t *testing.T) {
	f := newFixture(t, func(c *api.Config) { c.Rates = api.Rates{SignUpsAddress: 3} })
	before := len(f.bucket("replies"))
	for i := range 5 {
		key := fmt.Sprint("k-", i)
		for _, path := range []string{"/v1/" + strings.Repeat("x", 20_000), "/v1/tenants/acme/publish"} {
			if r := f.do("POST", path, "", `{"topic":"a"}`, "Idempotency-Key", key); len(r.body) > 1000 || r.status != 404 && r.status != 401 {
				t.Errorf("%.40s: %d, %d bytes", path, r.status, len(r.body))
			}
		}
		r := f.do("POST", "/v1/signup", "", `{"tenant":"-"}`, "Idempotency-Key", key)
		if want := map[bool]int{true: 400, false: 429}[i < 3]; r.status != want {
			t.Errorf("sign-up %d: %d, want %d", i, r.status, want)
		}
	}
	if n := len(f.bucket("replies")) - before; n != 0 {
		t.Errorf("%d records are kept", n)
	}
}

// Sign-ups count where they are refused too, and in dry runs.
func TestStrangers_RefusedCount(t *testing.T) {
	f := newFixture(t, func(c *api.Config) { c.Rates = api.Rates{SignUpsAddress: 3} })
	f.signUp("acme")
	f.want(f.do("POST", "/v1/signup", "", strings.ReplaceAll(signUpBody, "ops@", "o2@")), 409, "tenant_taken")
	f.want(f.do("POST", "/v1/signup?dry_run=true", "", strings.ReplaceAll(signUpBody, "acme", "beta")), 200, "")
	f.want(f.do("POST", "/v1/signup?dry_run=true", "", strings.ReplaceAll(signUpBody, "acme", "beta")), 429, "rate_limited")
	f.want(f.do("POST", "/v1/signup", "", signUpBody), 429, "rate_limited")
}

// A key that asks for what is not its own has the rate of its organization.
func TestRefused_Count(t *testing.T) {
	now := time.Now()
	f := newFixture(t, func(c *api.Config) { c.Now = func() time.Time { return now } })
	key := f.signUp("acme")
	f.want(f.do("PUT", "/v1/tenants/acme/quotas/overrides", key, `{"api_rate":2}`), 200, "")
	var wg sync.WaitGroup
	statuses := make([]int, 30)
	for i := range statuses {
		wg.Go(func() { statuses[i] = f.do("GET", "/v1/tenants/beta", key, "").status })
	}
	wg.Wait()
	over := 0
	for _, s := range statuses {
		if s == http.StatusTooManyRequests {
			over++
		} else if s != http.StatusNotFound {
			t.Errorf("status %d", s)
		}
	}
	if over < 20 {
		t.Errorf("%d of %d requests were over the rate", over, len(statuses))
	}
}

// An import is not read beyond the items that it may have, and answers say little of what is
// wrong, however much is.
func TestBounded_Problems(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		item string
		n    int
		more float64
	}{
		"too many":       {`{}`, 100_001, 0},
		"unknown fields": {`{"a":1}`, 50, 30},
		"types":          {`{"username":1}`, 50, 30},
	} {
		body := `{"items":[` + strings.TrimSuffix(strings.Repeat(c.item+",", c.n), ",") + `]}`
		r := w.do("POST", importTo, w.owner, body)
		v := w.want(r, 400, "request_invalid")
		more, _ := v["more_errors"].(float64)
		if len(r.body) > 10_000 || more != c.more || len(v["errors"].([]any)) > 20 {
			t.Errorf("%s: %d bytes, %v more errors: %.300s", name, len(r.body), more, r.body)
		}
	}
	for _, body := range []string{`[]`, `{}`, `{"items":{}}`, `{"items":null}`, `{"items":[]}`, `{"items":[{}],"items":[{}]}`, `{"other":1}`, `{"items":[}`} {
		w.want(w.do("POST", importTo, w.owner, body), 400, "request_invalid")
	}
	var b strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&b, `,"field-%d":1`, i)
	}
	r := w.do("POST", "/v1/signup", "", `{"`+strings.Repeat("x", 1000)+`":1`+b.String()+`}`)
	v := w.want(r, 400, "request_invalid")
	if len(r.body) > 10_000 || len(v["errors"].([]any)) != 20 || v["more_errors"].(float64) < 900 {
		t.Errorf("sign-up: %d bytes: %.300s", len(r.body), r.body)
	}
}

// A repetition of what had an answer that is too large to be kept is not done again, and is
// told so.
func TestIdempotencyKey_LargeAnswer(t *testing.T) {
	f := newFixture(t)
	key := f.signUp("acme")
	f.s.KeepUpTo(20)
	const path = "/v1/tenants/acme/credentials"
	first := f.do("POST", path, key, `{"username":"x"}`, "Idempotency-Key", "k")
	if f.want(first, 201, "")["password"] == nil {
		t.Errorf("the first answer is %s", first.body)
	}
	again := f.do("POST", path, key, `{"username":"x"}`, "Idempotency-Key", "k")
	f.want(again, 201, "answer_too_large")
	if again.header.Get("ETag") != first.header.Get("ETag") || again.header.Get("Location") != first.header.Get("Location") {
		t.Errorf("headers %v, want those of %v", again.header, first.header)
	}
}

// Streams of events are bounded, by tenant, and end with their callers.
func TestEvents_StreamsOfTenant(t *testing.T) {
	w := newWorld(t)
	srv := httptest.NewServer(w.s.Handler())
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	follow := func(tenant, key string) *http.Response {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/v1/tenants/"+tenant+"/events:stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		return resp
	}
	var all []*http.Response
	for range 8 {
		if r := follow("acme", w.owner); r.StatusCode != 200 {
			t.Fatal(r.Status)
		} else {
			all = append(all, r)
		}
	}
	if r := follow("acme", w.owner); r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") == "" {
		t.Errorf("one more: %s, Retry-After %q", r.Status, r.Header.Get("Retry-After"))
	}
	if r := follow("beta", w.beta); r.StatusCode != 200 {
		t.Errorf("another tenant: %s", r.Status)
	}
	_ = all[0].Body.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if r := follow("acme", w.owner); r.StatusCode == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the end of a stream gives nothing back")
		}
	}
}
