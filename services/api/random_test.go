// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/services/api/mail/mailtest"
	"github.com/manormq/manor/tenancy"
)

var (
	randomRequests = flag.Int("random-requests", 1500, "requests of TestRandomRequests")
	randomSeed     = flag.Uint64("random-seed", 1, "where TestRandomRequests begins; 0 is another one each time")
)

const (
	// slowest is how long a request may take.
	slowest = 5 * time.Second
	// worldRequests is how many requests a world serves: those that change something
	// have it run down, with keys that are no good any more.
	worldRequests = 400
)

// TestRandomRequests asks for every operation with requests that fit the OpenAPI
// document, and with those that do not in many ways, with different keys. No answer
// is of 500 or more: nothing is away here, and nothing switched off that has a 501 or 503; each is as the document says, and none takes long. make
// api-random makes more of them.
func TestRandomRequests(t *testing.T) {
	seed := *randomSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	x := &randomizer{t: t, r: rand.New(rand.NewPCG(seed, 1)), seed: seed, failures: map[string]bool{}, statuses: map[string]map[int]int{}}
	x.settle()
	doc := x.w.do("GET", "/v1/openapi.json", "", "")
	x.document = parseDocument(t, []byte(doc.body))
	for n := range *randomRequests {
		if n%worldRequests == worldRequests-1 {
			x.settle()
		}
		x.n = n
		x.ask(x.document.operations[n%len(x.document.operations)])
	}
	x.coverage()
}

// randomizer makes requests, sends them and looks at the answers.
type randomizer struct {
	t        *testing.T
	r        *rand.Rand
	seed     uint64
	n        int // of the request
	document *randomDocument
	w        *world
	server   *httptest.Server
	keys     []string
	failures map[string]bool // what has been said
	statuses map[string]map[int]int
	worlds   int
	mails    *mailtest.Server // of this world; nil for none
}

// settle makes a new world, with the keys of several callers.
func (x *randomizer) settle() {
	if x.server != nil {
		x.server.Close()
	}
	x.w, x.mails = newWorld(x.t), nil
	if x.worlds++; x.worlds%2 == 0 { // where sign-ups are verified, and invitations sent
		m, server := mailer(x.t)
		c := x.w.cfg
		c.Mailer = m
		s, err := api.New(c)
		if err == nil {
			err = s.Start(x.t.Context())
		}
		if err != nil {
			x.t.Fatal(err)
		}
		x.w.s, x.mails = s, server
	}
	x.server = httptest.NewServer(x.w.s.Handler())
	x.t.Cleanup(x.server.Close)
	key := func(a tenancy.Access) string {
		_, secret := x.w.newKey(a)
		return secret
	}
	owner := key(tenancy.Access{Role: tenancy.RoleOwner})
	x.keys = []string{
		owner, owner, owner, owner, owner, owner, owner, owner, owner, owner, // most requests are to come to the handlers
		key(tenancy.Access{Role: tenancy.RoleViewer}), key(tenancy.Access{Permissions: []string{tenancy.MayReadUsage}}), key(tenancy.Access{Role: tenancy.RoleAdmin, Tenants: []string{"second"}}),
		x.w.signIn("ops@acme.example", "choose-a-good-one"), x.w.beta, "", "mk_\xff", "mt_" + strings.Repeat("a", 5000),
	}
}

// randomRequest is a request before it is sent.
type randomRequest struct {
	method, path, key, kind string
	query                   []string
	header                  map[string]string
	body                    []byte
}

func (q *randomRequest) String() string {
	return fmt.Sprintf("%s %.300s?%.300s %.200q, %s body %.400q", q.method, q.path, strings.Join(q.query, "&"), q.header, q.kind, q.body)
}

// ask makes one request of op and checks the answer.
func (x *randomizer) ask(op *randomOperation) {
	q := x.request(op)
	url := x.server.URL + q.path
	if len(q.query) > 0 {
		url += "?" + strings.Join(q.query, "&")
	}
	ctx, cancel := context.WithTimeout(x.t.Context(), 2*slowest)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, q.method, url, bytes.NewReader(q.body))
	if err != nil {
		x.t.Fatalf("seed %d, request %d: %v", x.seed, x.n, err)
	}
	for name, value := range q.header {
		req.Header.Set(name, value)
	}
	if q.key != "" {
		req.Header["Authorization"] = []string{"Bearer " + strings.ToValidUTF8(q.key, "?")}
	}
	start := time.Now()
	resp, err := x.client().Do(req)
	if err != nil {
		x.failed(op, q, "no answer: "+err.Error(), nil)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	var body []byte
	if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); media != "text/event-stream" {
		if body, err = io.ReadAll(resp.Body); err != nil {
			x.failed(op, q, "the answer breaks off: "+err.Error(), body)
		}
	}
	if took := time.Since(start); took > slowest {
		x.failed(op, q, fmt.Sprintf("took %v", took), body)
	}
	if x.statuses[op.id] == nil {
		x.statuses[op.id] = map[int]int{}
	}
	x.statuses[op.id][resp.StatusCode]++
	is := op
	if q.method != op.method { // which may be another operation, or none
		is = x.document.of(q.method, op.path)
	}
	if what := x.document.check(is, resp, body); what != "" {
		x.failed(op, q, what, body)
	}
	if is != nil && is.id == "delete-organization" && resp.StatusCode == http.StatusNoContent {
		x.settle() // no key is good any more
	}
}

func (x *randomizer) client() *http.Client {
	c := x.server.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// failed says what is wrong, once for each operation and kind of thing.
func (x *randomizer) failed(op *randomOperation, q *randomRequest, what string, body []byte) {
	kind := op.id + " " + what[:min(len(what), 40)]
	if x.failures[kind] {
		return
	}
	x.failures[kind] = true
	x.t.Errorf("seed %d, request %d, %s: %s\n%s\nanswer %.1000s", x.seed, x.n, op.id, what, q, body)
}

// coverage holds that requests have come through: else the test looks at the checks of
// keys and nothing else.
func (x *randomizer) coverage() {
	var never []string
	for _, op := range x.document.operations {
		good, bad := 0, 0
		for status, n := range x.statuses[op.id] {
			switch {
			case status < 300:
				good += n
			case status == http.StatusBadRequest || status == http.StatusUnsupportedMediaType:
				bad += n
			}
		}
		if good == 0 {
			never = append(never, op.id+" never succeeds")
		}
		if bad == 0 && op.body != nil {
			never = append(never, op.id+" is never asked wrongly")
		}
	}
	// A short run may have no luck with some.
	luck := 0
	if x.n < 60*len(x.document.operations) {
		luck = len(x.document.operations) / 10
	}
	if len(never) > luck {
		x.t.Errorf("seed %d: %s; what it answered: %v", x.seed, strings.Join(never, ", "), x.statuses)
	}
}
