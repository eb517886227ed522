// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestAdmin_Gateway holds what is shown of a gateway, and that what is none is named.
func TestAdmin_Gateway(t *testing.T) {
	const gateway = `{"name":"gateway-1","role":"gateway","version":"v1","health":{"status":"DOWN","reasons":["directory: too old"]},
		"details":{"control_plane":{"connected":false,"state":"gone","age_seconds":90000.5},"goroutines":7}}`
	for _, c := range []struct {
		name, body, args string
		code             int
		want             []string
	}{
		{"for people", gateway, "", 0, []string{"Figure", "gateway-1", "health", "DOWN", "control_plane.state", "gone", "control_plane.age_seconds", "90000.5", "directory: too old"}},
		{"as JSON", gateway, "--format=json", 0, []string{`"state":"gone"`}},
		{"a broker", `{"name":"broker-1","role":"broker","details":{}}`, "", 1, []string{"expected a gateway's operator listener", "something else"}},
		{"no JSON", "hello", "", 1, []string{"something else"}},
		{"nothing", "", "", 1, []string{"404"}},
		{"an argument", gateway, "gateway-1", 2, []string{"unknown command"}},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/process.json" || c.body == "" {
				http.NotFound(w, r)
				return
			}
			_, _ = w.Write([]byte(c.body))
		}))
		out, code := run(strings.Fields("admin gateway status --operator " + server.URL + " " + c.args)...)
		server.Close()
		if code != c.code {
			t.Errorf("%s: exit code %d, expected %d: %s", c.name, code, c.code, out)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: expected %q in\n%s", c.name, want, out)
			}
		}
	}
}
