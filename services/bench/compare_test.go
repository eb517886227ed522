// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"net/http/httptest"
	"net/http/pprof"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/bus/embed"
	"github.com/manormq/manor/tenancy/store"
)

// TestMain makes the program of these tests one that a Comparison can start: it
// has the generator, the floor, and a manor dev that is a floor.
func TestMain(m *testing.M) {
	run := func(args []string) error { return Main(context.Background(), "", args, os.Stdout, os.Stderr) }
	switch {
	case len(os.Args) > 1 && os.Args[1] == "bench":
		exit(run(os.Args[2:]))
	case len(os.Args) > 1 && os.Args[1] == "dev":
		var offset int
		for i, arg := range os.Args {
			if arg == "--listen-offset" {
				_, _ = fmt.Sscan(os.Args[i+1], &offset)
			}
		}
		ports := map[string]int{"mqtt": 1883 + offset}
		_ = json.NewEncoder(os.Stdout).Encode(map[string]any{"processes": []any{map[string]any{"pid": os.Getpid(), "ports": ports}}})
		exit(run([]string{"floor", "-addr", fmt.Sprintf("127.0.0.1:%d", ports["mqtt"])}))
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func TestRows(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range rows {
		var o Options
		fs := flag.NewFlagSet("", flag.ContinueOnError)
		o.Flags(fs)
		if err := fs.Parse(strings.Fields(r.args)); err != nil || fs.NArg() > 0 {
			t.Errorf("%s: %v, %q", r.name, err, fs.Args())
		}
		if err := o.Validate(); err != nil {
			t.Errorf("%s: %v", r.name, err)
		}
		if seen[r.name] || r.base != "" && !seen[r.base] {
			t.Errorf("%s is there twice, or its base %q is not above it", r.name, r.base)
		}
		seen[r.name] = true
		for _, targets := range []map[string]float64{asked[r.name], askedItself[r.name]} {
			for figure := range targets {
				if !slices.Contains(r.figures, figure) {
					t.Errorf("%s has a target for %s, which it does not show", r.name, figure)
				}
			}
		}
		if askedMultiple[r.name] != 0 && r.base == "" {
			t.Errorf("%s has a target for a multiple and no base", r.name)
		}
	}
	for _, names := range []iter.Seq[string]{maps.Keys(asked), maps.Keys(askedItself), maps.Keys(askedMultiple)} {
		for name := range names {
			if !seen[name] {
				t.Errorf("%s has a target and is no row", name)
			}
		}
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	tab := newTable(&out, []peer{{name: "mosquitto"}, {name: floorName}})
	tab.head()
	results := func(all ...float64) (r [][]*Result) {
		for _, v := range all {
			r = append(r, []*Result{{CPU: v}})
		}
		return r
	}
	tab.row(row{name: "one", figures: saturated}, results(6, 12, 2))
	failing := results(9, 12, 0)
	failing[2] = []*Result{{Error: "refused"}}
	tab.row(row{name: "two", figures: []string{"cpu_us"}, base: "one"}, failing)
	tab.row(row{name: "q1-64", figures: []string{"cpu_us"}}, results(3, 30, 2))
	tab.row(row{name: "tenants100", figures: []string{"cpu_us"}, base: "one"}, results(6.3, 30, 2))
	tab.row(row{name: "storm-tls-resumed", figures: []string{"connect_cpu_us"}}, [][]*Result{{{Extra: map[string]float64{"connect_cpu_us": 300}}}, {}, {}})
	for _, want := range []string{
		"scenario figure manor mosquitto floor ratio asked to floor", "one cpu_us 6.00 12.0 2.00 0.50 - 3.00", "rate - - - - - -",
		"two cpu_us 9.00 12.0 - 0.75 - -", "x one 1.50 1.00 - - -", "x one 1.05 2.50 1.00 - 1.10", "connect_cpu_us 300 - - - (400) -", "floor, run 1: 0 lost refused", "q1-64 cpu_us 3.00 30.0 2.00 0.10 0.07 1.50",
	} {
		if got := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
}

func TestLogins(t *testing.T) {
	file := filepath.Join(t.TempDir(), "logins")
	want := []login{{"a:x", "1"}, {"b:x", "2"}}
	if err := writeLogins(file, want); err != nil {
		t.Fatal(err)
	}
	got, err := readLogins(file)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("read %v, %v", got, err)
	}
	o := Options{logins: got}
	if l := o.login(3); l != want[1] {
		t.Errorf("client 3 is %v", l)
	}
	for _, text := range []string{"", "one\n", "\tpass\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readLogins(file); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestMakeTenants(t *testing.T) {
	dir := t.TempDir()
	file, err := makeTenants(t.Context(), dir, 3)
	if err != nil {
		t.Fatal(err)
	}
	if all, err := readLogins(file); err != nil || len(all) != 3 || all[2].user != "bench-2:client" {
		t.Errorf("credentials %v, %v", all, err)
	}
	server, err := embed.Start(t.Context(), embed.Config{Dir: filepath.Join(dir, devNATS), Name: devNATS, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	control, err := server.Bus("test")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = control.Close() }()
	records, err := store.New(t.Context(), store.Config{Bus: control, Log: slog.New(slog.DiscardHandler), Region: devRegion})
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := records.Tenant(t.Context(), "bench-2")
	if err != nil {
		t.Fatal(err)
	}
	if limits, err := tenant.Limits(); err != nil || limits.Connections >= 0 {
		t.Errorf("tenant with %d connections, %v", limits.Connections, err)
	}
}

func TestPauses(t *testing.T) {
	operator := httptest.NewServer(pprof.Handler("heap"))
	defer operator.Close()
	p, err := watchPauses(operator.URL)
	if err != nil {
		t.Fatal(err)
	}
	res := &Result{Extra: map[string]float64{}}
	if err := p.report(res); err != nil || res.Extra["gc_pauses"] < collections || res.Extra["gc_pause_p99_us"] == 0 {
		t.Errorf("%v, %v", res.Extra, err)
	}
	if got := (memory{collections: 5, pauses: []int64{40, 50, 30}}).since(1); !slices.Equal(got, []int64{30, 40, 50}) {
		t.Errorf("the pauses are %v", got)
	}
	if _, err := watchPauses("http://127.0.0.1:1"); err == nil {
		t.Error("an operator that is not there was accepted")
	}
}
