// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAdmin_ReleaseDomain(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		args   string
		code   int
		want   string
	}{
		{"for people", 200, `{"fqdn":"mqtt.acme.example","tenant":"acme"}`, "mqtt.acme.example", 0, "mqtt.acme.example is free; acme had it"},
		{"as JSON", 200, `{"fqdn":"mqtt.acme.example","tenant":"acme"}`, "mqtt.acme.example --format=json", 0, `"tenant":"acme"`},
		{"free", 404, `{"code":"domain_not_found","detail":"no tenant has the name"}`, "x.example", 1, "no tenant has the name"},
		{"bad", 400, `{"code":"domain_invalid","detail":"expected a name"}`, "x", 2, "expected a name"},
		{"something else", 404, "hello", "x.example", 1, "expected a tenancyd's operator listener"},
		{"no name", 200, "", "", 2, "accepts 1 arg"},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if r.Method != http.MethodPost || r.URL.Path != "/tenancy/v1/domains:release" || r.Header.Get("Content-Type") != "application/json" || !strings.HasPrefix(string(b), `{"fqdn":`) {
				t.Errorf("%s: asked %s %s %s", c.name, r.Method, r.URL.Path, b)
			}
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.body))
		}))
		out, code := run(strings.Fields("admin domain release --operator " + server.URL + " " + c.args)...)
		server.Close()
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s: exit code %d, %s, expected %d with %q", c.name, code, out, c.code, c.want)
		}
	}
}
