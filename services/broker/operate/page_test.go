// SPDX-License-Identifier: Apache-2.0

package operate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// browser is the path of a headless Chromium. CI must have one.
func browser(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("expected chromium in the path: make deps installs it")
	}
	t.Skip("needs chromium: make deps installs it")
	return ""
}

// pageServer serves the page and, one after the other, answers for /status.json, of
// which the last goes on.
func pageServer(t *testing.T, answers ...map[string]Node) *httptest.Server {
	t.Helper()
	var asked atomic.Int32
	mux := http.NewServeMux()
	mux.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(Page)
	})
	mux.HandleFunc("/status.json", func(w http.ResponseWriter, _ *http.Request) {
		i := min(int(asked.Add(1)), len(answers))
		_ = json.NewEncoder(w).Encode([]map[string]Node{answers[i-1]})
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// render is what a browser makes of the page after some time of its clock, which runs as
// fast as it can.
func render(t *testing.T, s *httptest.Server, width int, budget time.Duration) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, browser(t), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(), "--hide-scrollbars", fmt.Sprintf("--window-size=%d,900", width),
		fmt.Sprintf("--virtual-time-budget=%d", budget.Milliseconds()), "--dump-dom", s.URL+"/status#every=1")
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	return string(out)
}

var tags = regexp.MustCompile(`<[^>]*>`)

// section is the text of the element with that id.
func section(t *testing.T, dom, id string) string {
	t.Helper()
	from := strings.Index(dom, `id="`+id+`"`)
	if from < 0 {
		t.Fatalf("no %s in %s", id, dom)
	}
	rest := dom[from:]
	if to := strings.Index(rest, "<h2>"); to > 0 {
		rest = rest[:to]
	}
	if to := strings.Index(rest, "</main>"); to > 0 {
		rest = rest[:to]
	}
	rest = rest[strings.Index(rest, ">")+1:]
	return strings.Join(strings.Fields(tags.ReplaceAllString(rest, " ")), " ")
}

func figuresOf(in, local, remote uint64, reaches map[string]bool) Node {
	n := Node{
		NumOnline: 3, NumOffline: 1, MsgIn: in, MatchesLocal: local, MatchesRemote: remote, Version: "v1", Load: "calm", BusUp: true,
		Listeners: []Listener{{Type: "vmqs", Status: Running, IP: "127.0.0.1", Port: "44053"}}, Problems: []string{}, Gateways: []Gateway{{Name: "gateway-1", Links: 2}},
		Partitions: map[string]int{"serving": 8, "in_sync": 8, "total": 16}, MyStatus: []map[string]bool{},
	}
	for _, name := range []string{"b1", "b2"} {
		n.MyStatus = append(n.MyStatus, map[string]bool{name: reaches[name]})
	}
	return n
}

// While all is well the page says so; what it shows are rates between two answers, and
// VerneMQ's routing score.
func TestPage_Well(t *testing.T) {
	both := map[string]bool{"b1": true, "b2": true}
	s := pageServer(t,
		map[string]Node{"b1": figuresOf(100, 10, 10, both), "b2": figuresOf(0, 0, 0, both)},
		map[string]Node{"b1": figuresOf(2100, 310, 110, both), "b2": figuresOf(0, 0, 0, both)},
		map[string]Node{"b1": figuresOf(2100, 310, 110, both), "b2": figuresOf(0, 0, 0, both)})
	dom := render(t, s, 1200, 1500*time.Millisecond) // two answers
	for id, want := range map[string]string{
		"title":      "2 of 2 nodes, all good",
		"issues":     "all good",
		"overview":   "nodes 2 of 2 clients online 6 clients offline 2 publish in",
		"partitions": "in sync 16 of 16 degraded 0 on the move 0 not served 0",
		"nodes":      "b1 v1 2 of 2 75 / 25",
		"gateways":   "gateway-1 links to 2 of 2 nodes",
	} {
		if got := section(t, dom, id); !strings.Contains(got, want) {
			t.Errorf("%s: %q, expected %q", id, got, want)
		}
	}
	if got := section(t, dom, "nodes"); !strings.Contains(got, "b2 v1 2 of 2 0 / 0") {
		t.Errorf("a node that does nothing: %q", got)
	}
	if !regexp.MustCompile(`publish in [\d.]+k?/s`).MatchString(section(t, dom, "overview")) {
		t.Errorf("no rate: %s", section(t, dom, "overview"))
	}
}

// What is wrong is listed, and nothing that a node says becomes part of the page's own
// text.
func TestPage_Issues(t *testing.T) {
	bad := figuresOf(0, 0, 0, map[string]bool{"b1": true})
	bad.Version, bad.BusUp, bad.Load, bad.Draining = "<img src=x onerror=document.title='owned'>", false, "shed", true
	bad.Partitions["in_sync"] = 5
	bad.Listeners[0] = Listener{Type: "vmqs", Status: "stopped", IP: "0.0.0.0", Port: "44053"}
	bad.Problems = []string{"the store refuses writes"}
	other := figuresOf(0, 0, 0, map[string]bool{"b1": true, "b2": true})
	other.Partitions = map[string]int{"total": 16}
	s := pageServer(t, map[string]Node{"b1": bad, "c": other})
	dom := render(t, s, 1200, 500*time.Millisecond)
	got := section(t, dom, "issues")
	for _, want := range []string{
		"danger b1 cannot reach b2", "danger b2 does not answer", "danger b1 the store refuses writes", "danger 8 partitions are not served",
		"warning b1 the control plane is away", "warning b1 overloaded: shed", "warning b1 the cluster listener takes connections at every address",
		"warning 3 partitions have fewer replicas", "warning the nodes run different versions",
		"info b1 the vmqs listener at 0.0.0.0:44053 is stopped", "info b1 drains",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("expected the issue %q in %q", want, got)
		}
	}
	if title := section(t, dom, "title"); !strings.Contains(title, "2 of 3 nodes, needs you") || strings.Contains(dom, "owned</title>") {
		t.Errorf("the title is %q", title)
	}
}

// On a phone nothing is wider than the screen. The page that measures has the status in
// a frame, since Chromium's window has a least width.
func TestPage_Phone(t *testing.T) {
	both := map[string]bool{"b1": true, "b2": true}
	long := figuresOf(1, 1, 1, both)
	long.Version = "v1.2.3-0.20261126100000-0123456789abcdef+0123456789ab"
	s := pageServer(t, map[string]Node{"b1": long, "b2": long})
	mux := http.NewServeMux()
	mux.Handle("/status.json", s.Config.Handler)
	mux.Handle("/inner", http.StripPrefix("", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(Page)
	})))
	mux.HandleFunc("/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = fmt.Fprint(w, `<!doctype html><main><iframe id="f" src="/inner#every=1" width="360" height="740"></iframe><p id="width"></p></main>
<script>setInterval(() => { const d = document.getElementById("f").contentDocument;
document.getElementById("width").textContent = d.documentElement.scrollWidth + " " + d.querySelectorAll("#nodes tbody tr").length + " " + getComputedStyle(d.querySelector("#nodes thead")).display + " " + [...d.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > 360).map(e => e.tagName + "=" + e.textContent.slice(0, 30)).join("; "); }, 50)</script>`)
	})
	outer := httptest.NewServer(mux)
	t.Cleanup(outer.Close)
	dom := render(t, outer, 800, 900*time.Millisecond)
	var width, rows int
	var head string
	if _, err := fmt.Sscan(section(t, dom, "width"), &width, &rows, &head); err != nil || width > 360 || rows != 2 || head != "none" {
		t.Errorf("%q, %v: expected a page of at most 360 pixels, 2 nodes as cards", section(t, dom, "width"), err)
	}
}

// The page is one file that needs nothing from elsewhere.
func TestPage_Alone(t *testing.T) {
	if m := regexp.MustCompile(`(?i)(src|href)="(https?:|//)|@import|url\(`).Find(Page); m != nil {
		t.Errorf("the page has %q", m)
	}
}
