// SPDX-License-Identifier: Apache-2.0

package client

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

// heard is a server that remembers what it was asked.
type heard struct{ asked []string }

func (h *heard) RoundTrip(r *http.Request) (*http.Response, error) {
	h.asked = append(h.asked, r.Method+" "+r.URL.Path)
	return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}, nil
}

// asks calls a method of Client with something for each argument, and returns what it asked.
func asks(t *testing.T, m reflect.Method) []string {
	t.Helper()
	server := &heard{}
	c, err := New(Config{URL: "http://api.example", HTTP: &http.Client{Transport: server}})
	if err != nil {
		t.Fatal(err)
	}
	in := []reflect.Value{reflect.ValueOf(c), reflect.ValueOf(t.Context())}
	for i := 2; i < m.Type.NumIn(); i++ {
		p := m.Type.In(i)
		switch {
		case m.Type.IsVariadic() && i == m.Type.NumIn()-1:
		case p.Kind() == reflect.String:
			in = append(in, reflect.ValueOf("x").Convert(p))
		default:
			in = append(in, reflect.Zero(p))
		}
	}
	m.Func.Call(in)
	return server.asked
}

// TestComplete holds that each operation of docs/openapi.json has a method of Client: one
// that asks for it, and nothing that is not there.
func TestComplete(t *testing.T) {
	b, err := os.ReadFile("../../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	param := regexp.MustCompile(`\\\{[^}]*\\\}`)
	at, missing := map[*regexp.Regexp]string{}, map[string]bool{}
	for path, item := range doc.Paths {
		for method, op := range item {
			pattern := strings.ToUpper(method) + " " + param.ReplaceAllString(regexp.QuoteMeta(path), `[^/:]+`)
			at[regexp.MustCompile("^"+pattern+"$")], missing[op.OperationID] = op.OperationID, true
		}
	}
	if len(missing) < 90 {
		t.Fatalf("the document has %d operations, expected all of the API", len(missing))
	}
	of := reflect.TypeFor[*Client]()
	for m := range of.Methods() {
		for _, asked := range asks(t, m) {
			known := false
			for pattern, id := range at {
				if pattern.MatchString(asked) {
					known = true
					delete(missing, id)
				}
			}
			if !known {
				t.Errorf("%s asks for %s, which the document does not have", m.Name, asked)
			}
		}
	}
	for id := range missing {
		t.Errorf("no method of Client asks for the operation %s", id)
	}
}
