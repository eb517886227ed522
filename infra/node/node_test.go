// SPDX-License-Identifier: Apache-2.0

package node_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/infra/telemetry"
)

type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) add(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, s)
}

func (d *diary) part(name string) node.Part {
	return node.Part{
		Name:  name,
		Start: func(context.Context) error { d.add("start " + name); return nil },
		Run: func(ctx context.Context) error {
			<-ctx.Done()
			d.add("end " + name)
			return ctx.Err()
		},
		Drain: func(context.Context) error { d.add("drain " + name); return nil },
		Stop:  func() error { d.add("stop " + name); return nil },
	}
}

func TestRun_OrderedStop(t *testing.T) {
	var d diary
	ctx, cancel := context.WithCancel(context.Background())
	err := node.Run(ctx, node.Options{Log: telemetry.Discard(), NoSignals: true, Ready: cancel}, d.part("a"), d.part("b"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"start a", "start b", "drain b", "end b", "stop b", "drain a", "end a", "stop a"}
	if diff := cmp.Diff(want, d.lines); diff != "" {
		t.Error(diff)
	}
}

func TestRun_FailureStopsAll(t *testing.T) {
	for _, c := range []struct {
		name string
		bad  node.Part
		want []string
	}{
		{"start", node.Part{Name: "bad", Start: func(context.Context) error { return io.ErrUnexpectedEOF }}, []string{"start a", "drain a", "end a", "stop a"}},
		{"run", node.Part{Name: "bad", Run: func(context.Context) error { return io.ErrUnexpectedEOF }}, []string{"start a", "drain a", "end a", "stop a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d diary
			err := node.Run(context.Background(), node.Options{Log: telemetry.Discard(), NoSignals: true}, d.part("a"), c.bad)
			if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "bad") {
				t.Errorf("got %v", err)
			}
			if diff := cmp.Diff(c.want, d.lines); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRun_PartThatDoesNotStop(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	release := make(chan struct{})
	defer close(release)
	err := node.Run(ctx, node.Options{Log: telemetry.Discard(), NoSignals: true, Ready: cancel, DrainTimeout: time.Millisecond},
		node.Part{Name: "deaf to run", Run: func(context.Context) error { <-release; return nil }},
		node.Part{Name: "deaf to drain", Drain: func(context.Context) error { <-release; return nil }},
		node.Part{Name: "deaf to stop", Stop: func() error { <-release; return nil }})
	if !errs.Is(err, errs.Unavailable) || !strings.Contains(err.Error(), "deaf to run") || !strings.Contains(err.Error(), "deaf to stop") {
		t.Errorf("got %v", err)
	}
}

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestOperator(t *testing.T) {
	health := &node.Health{}
	o := node.NewOperator(node.OperatorConfig{Listen: "127.0.0.1:0"}, "n1", "test", telemetry.Discard(),
		telemetry.NewRegistry("test", "v0"), health)
	o.Detail("things", func() any { return 42 })
	h := o.Handler()
	for path, want := range map[string]string{
		"/metrics":      "manor_build_info",
		"/health":       `"status": "OK"`,
		"/health/ping":  `"status": "OK"`,
		"/status.json":  `"things": 42`,
		"/status":       "<h1>n1</h1>",
		"/debug/pprof/": "goroutine",
	} {
		if code, body := get(t, h, path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, want %q in %.200s", path, code, want, body)
		}
	}
	health.Register("disk", func(context.Context) error { return errors.New("full") })
	health.Register("bus", func(context.Context) error { return nil })
	code, body := get(t, h, "/health")
	var r node.Report
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(node.Report{Status: "DOWN", Reasons: []string{"disk: full"}}, r); diff != "" || code != http.StatusServiceUnavailable {
		t.Errorf("%d %s", code, diff)
	}
	if code, _ := get(t, h, "/health/bus"); code != http.StatusOK {
		t.Errorf("/health/bus: %d", code)
	}
	if code, _ := get(t, h, "/health/none"); code != http.StatusNotFound {
		t.Errorf("/health/none: %d", code)
	}
	if code, _ := get(t, h, "/health/ping"); code != http.StatusOK {
		t.Errorf("/health/ping: %d", code)
	}
}

// A check that stands apart is asked by its name, and says why in VerneMQ's field too;
// the whole does not know it.
func TestHealth_Apart(t *testing.T) {
	health := &node.Health{}
	health.RegisterApart("others", func(context.Context) error { return errors.New("b2 is away") })
	o := node.NewOperator(node.OperatorConfig{}, "n1", "test", telemetry.Discard(), telemetry.NewRegistry("test", "v0"), health)
	if code, body := get(t, o.Handler(), "/health"); code != http.StatusOK {
		t.Errorf("/health: %d %s", code, body)
	}
	if code, body := get(t, o.Handler(), "/health/others"); code != http.StatusServiceUnavailable || !strings.Contains(body, `"reason": "b2 is away"`) {
		t.Errorf("/health/others: %d %s", code, body)
	}
	health.Register("others", func(context.Context) error { return errors.New("now it counts") })
	if code, body := get(t, o.Handler(), "/health"); code != http.StatusServiceUnavailable {
		t.Errorf("/health: %d %s", code, body)
	}
}

// A page takes the place of the process's own; what that said is at /process.json.
func TestOperator_Page(t *testing.T) {
	o := node.NewOperator(node.OperatorConfig{}, "n1", "test", telemetry.Discard(), telemetry.NewRegistry("test", "v0"), &node.Health{})
	o.Page([]byte("<p>mine</p>"), func(context.Context) any { return []int{7} })
	for path, want := range map[string]string{"/status": "<p>mine</p>", "/status.json": "[\n  7\n]", "/process.json": `"name": "n1"`} {
		if code, body := get(t, o.Handler(), path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

func TestOperator_LoopbackOnly(t *testing.T) {
	run := func(cfg node.OperatorConfig) (string, error) {
		o := node.NewOperator(cfg, "n1", "test", telemetry.Discard(), telemetry.NewRegistry("test", "v0"), &node.Health{})
		ctx, cancel := context.WithCancel(context.Background())
		addr := ""
		err := node.Run(ctx, node.Options{Log: telemetry.Discard(), NoSignals: true, Ready: func() {
			addr = o.Addr()
			resp, err := http.Get("http://" + addr + "/health/ping")
			if err != nil {
				t.Error(err)
			} else {
				resp.Body.Close()
			}
			cancel()
		}}, o.Part())
		cancel()
		return addr, err
	}
	if addr, err := run(node.OperatorConfig{Listen: "127.0.0.1:0"}); err != nil || addr == "" {
		t.Errorf("loopback: %q %v", addr, err)
	}
	for _, listen := range []string{"0.0.0.0:0", ":0", "8888"} {
		if _, err := run(node.OperatorConfig{Listen: listen}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v, want Invalid", listen, err)
		}
	}
}
