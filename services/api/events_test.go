// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy/events"
)

// happens has events of the tenant acme be written, as a gateway does.
func (w *world) happens(all ...events.Event) {
	w.t.Helper()
	writer := events.NewWriter(func(ctx context.Context) (bus.Stream, error) { return events.Open(ctx, w.bus) }, telemetry.Discard())
	for _, e := range all {
		writer.Add("acme", e)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	cancel() // Run writes what there is, and ends
	if err := writer.Run(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// said is what a list answers, in few words.
func (w *world) said(path string) (said []string, next string) {
	w.t.Helper()
	body := w.want(w.do("GET", "/v1/tenants/acme"+path, w.owner, ""), 200, "")
	for _, i := range body["items"].([]any) {
		e := i.(map[string]any)
		said = append(said, e["client_id"].(string)+" "+e["kind"].(string))
	}
	next, _ = body["next"].(string)
	return said, next
}

func TestEvents_List(t *testing.T) {
	w := newWorld(t)
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d).UTC() }
	w.happens(events.Event{At: ago(40 * 24 * time.Hour), Kind: events.Connected, ClientID: "a"})
	w.happens(events.Event{At: ago(2 * time.Hour), Kind: events.Connected, ClientID: "a", Address: "192.0.2.1:5", Protocol: "5"})
	w.happens(
		events.Event{At: ago(time.Minute), Kind: events.Denied, ClientID: "b", Reason: "Not authorized", Why: "wrong password"},
		events.Event{At: ago(time.Second), Kind: events.Disconnected, ClientID: "a", Reason: "connection lost"})
	for path, want := range map[string][]string{
		"/events":                  {"a disconnected", "b denied"},
		"/events?kind=denied":      {"b denied"},
		"/events?client=a":         {"a disconnected"},
		"/clients/a/timeline":      {"a disconnected"},
		"/clients/nobody/timeline": nil,
		"/clients/a/timeline?from=" + ago(3*time.Hour).Format(time.RFC3339):                                                {"a connected", "a disconnected"},
		"/clients/a/timeline?kind=connected,denied&from=" + ago(3*time.Hour).Format(time.RFC3339):                          {"a connected"},
		"/clients/a/timeline?from=" + ago(3*time.Hour).Format(time.RFC3339) + "&to=" + ago(time.Hour).Format(time.RFC3339): {"a connected"},
		// The quota event_days is 30 at most.
		"/clients/a/timeline?from=2026-01-01T00:00:00Z": {"a connected", "a disconnected"},
	} {
		got, _ := w.said(path)
		slices.Sort(got) // two clients' may be told in any order within a second
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", path, d)
		}
	}
	first, next := w.said("/events?limit=1")
	second, end := w.said("/events?limit=1&cursor=" + next)
	if len(first) != 1 || len(second) != 1 || first[0] == second[0] || end != "" {
		t.Errorf("pages %v %v, next %q", first, second, end)
	}
	for path, code := range map[string]string{
		"/events?kind=born":     "event_kind_unknown",
		"/events?cursor=x":      "cursor_invalid",
		"/events?from=tomorrow": "request_invalid",
		"/events?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z": "range_invalid",
		"/events:stream?for=2h":    "for_invalid",
		"/events:stream?kind=born": "event_kind_unknown",
	} {
		w.want(w.do("GET", "/v1/tenants/acme"+path, w.owner, ""), 400, code)
	}
}

func TestEvents_Stream(t *testing.T) {
	w := newWorld(t)
	srv := httptest.NewServer(w.s.Handler())
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/v1/tenants/acme/events:stream?client=a", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.owner)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%s %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			lines <- s.Text()
		}
	}()
	if first := <-lines; !strings.HasPrefix(first, ":") {
		t.Errorf("the first line is %q", first)
	}
	// The stream is followed soon after that; it does not say when.
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for name := ""; ; {
		select {
		case <-tick.C:
			w.happens(events.Event{Kind: events.Connected, ClientID: "b"}, events.Event{Kind: events.Denied, ClientID: "a", Reason: "Banned"})
		case line, ok := <-lines:
			if !ok {
				t.Fatal("the stream has ended")
			}
			if n, is := strings.CutPrefix(line, "event: "); is {
				name = n
			}
			if data, is := strings.CutPrefix(line, "data: "); is {
				if name != "denied" || !strings.Contains(data, `"client_id":"a"`) || !strings.Contains(data, `"reason":"Banned"`) {
					t.Errorf("event %s, data %s", name, data)
				}
				return
			}
		}
	}
}
