// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// seeds are bodies that make operations succeed which accessTable does not have.
var seeds = map[string]string{
	"sign-up":           `{"organization":"New","email":"ops@new.example","password":"choose-a-good-one","tenant":"TENANT"}`,
	"verify-sign-up":    `{"code":"mv_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}`,
	"sign-in":           `{"organization":"ORGANIZATION","email":"ops@acme.example","password":"choose-a-good-one"}`,
	"accept-invitation": `{"invitation":"INVITATION","password":"choose-a-good-one"}`,
	"redeem-claim":      `{"claim":"CLAIM","csr":"` + csr + `"}`,
}

// pick takes one of some.
func pick[T any](x *randomizer, from []T) T { return from[x.r.IntN(len(from))] }

// request makes a request of op that fits the document, and spoils it half of the time.
func (x *randomizer) request(op *randomOperation) *randomRequest {
	if _, err := x.w.store.Domain(x.t.Context(), "acme", "mqtt.acme.example"); err != nil {
		x.settle() // prepare needs it
	}
	if x.w.prepared(op.id) != nil { // a quota is used up, for example
		x.settle()
		x.w.prepare(op.id)
	}
	q := &randomRequest{method: op.method, path: x.w.fill(op.path), key: pick(x, x.keys), kind: "a right", header: map[string]string{}}
	if op.path == "/v1/auth/token" && op.method == "DELETE" {
		q.key = x.w.signIn("ops@acme.example", "choose-a-good-one")
	}
	for _, p := range op.parameters {
		switch {
		case p.in == "path":
		case op.id == "follow-events" && p.name == "for": // else it would go on for minutes
			q.query = append(q.query, "for=1ms")
		case p.required || x.r.IntN(3) == 0:
			if value := x.parameter(p); p.in == "query" {
				q.query = append(q.query, url.QueryEscape(p.name)+"="+url.QueryEscape(value))
			} else {
				q.header[p.name] = value
			}
		}
	}
	var body any
	if op.body != nil {
		body = x.body(op)
		q.header["Content-Type"] = "application/json"
	}
	spoil := x.r.IntN(2) == 0
	if spoil {
		q.kind = "a spoilt"
		body = x.spoil(q, op, body)
	}
	if op.body != nil || body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			x.t.Fatal(err)
		}
		q.body = []byte(strings.ReplaceAll(string(b), "BAD", "\xff\xfe\xc0\xaf"))
		if spoil && x.r.IntN(4) == 0 {
			q.body = x.damage(q.body)
		}
	}
	return q
}

// parameter is a value of a query parameter or header that fits.
func (x *randomizer) parameter(p randomParameter) string {
	switch p.name {
	case "If-Match":
		return pick(x, []string{"*", `"1"`, `"18446744073709551615"`, `W/"1"`, "x"})
	case "Idempotency-Key":
		return fmt.Sprint("key-", x.r.IntN(50))
	case "cursor":
		return pick(x, []string{"", "acme", "AAAA", "!"})
	}
	return fmt.Sprint(x.value(p.schema, p.name, 0))
}

// body is a body that fits, by what is known to succeed, or by the schema alone.
func (x *randomizer) body(op *randomOperation) (v any) {
	seed := seeds[op.id]
	if row, ok := accessTable[op.id]; ok {
		seed = row.body
	}
	if seed == "" || x.r.IntN(3) == 0 {
		return x.value(op.body, "", 0)
	}
	seed = strings.NewReplacer("ORGANIZATION", x.w.org, "TENANT", fmt.Sprint("t-", x.n)).Replace(seed)
	switch op.id { // of which each is good once
	case "verify-sign-up":
		if x.mails != nil {
			x.w.do("POST", "/v1/signup", "", fmt.Sprintf(`{"organization":"New","email":"u%d@new.example","password":"choose-a-good-one","tenant":"v-%d"}`, x.n, x.n))
			seed = strings.Replace(seed, "mv_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", x.mailed(codePattern), 1)
		}
	case "accept-invitation":
		seed = strings.Replace(seed, "INVITATION", x.made("/v1/organizations/"+x.w.org+"/members", fmt.Sprintf(`{"email":"u%d@acme.example","role":"viewer"}`, x.n), "invitation"), 1)
	case "redeem-claim":
		x.w.prepare("create-claim")
		seed = strings.Replace(seed, "CLAIM", x.made("/v1/tenants/acme/claims", fmt.Sprintf(`{"username":"u-%d"}`, x.n), "secret"), 1)
	}
	if err := json.Unmarshal([]byte(seed), &v); err != nil {
		x.t.Fatal(err)
	}
	return v
}

// mailed is what the pattern finds in the newest mail; empty for none.
func (x *randomizer) mailed(pattern string) string {
	all := x.mails.Mails()
	if len(all) == 0 {
		return ""
	}
	return regexp.MustCompile(pattern).FindString(strings.ReplaceAll(all[len(all)-1].Message, "=\r\n", ""))
}

// made has an owner make something, and returns a field of the answer, which is empty if
// it cannot be made any more.
func (x *randomizer) made(path, body, field string) string {
	r := x.w.do("POST", path, x.keys[0], body)
	if r.status != http.StatusCreated {
		return ""
	}
	text, _ := r.json(x.t)[field].(string)
	return text
}

// words are values that mean something, by the names of properties.
func (x *randomizer) words(name string) []string {
	switch name {
	case "tenant", "tenants", "id":
		return []string{"acme", "second", "beta", fmt.Sprint("t-", x.n)}
	case "email":
		return []string{"ops@acme.example", "viewer@acme.example", fmt.Sprintf("u%d@acme.example", x.n)}
	case "username", "name", "client_id", "device":
		return []string{"default", "press-7", "c1", fmt.Sprint("u-", x.n)}
	case "topic", "filter":
		return []string{"a", "a/b", "a/#", "+/x", "$SYS/x"}
	case "csr":
		return []string{strings.ReplaceAll(csr, `\n`, "\n")}
	case "files":
		return []string{"package mqtt\n\ngrants := []", "package mqtt\n\nconnect := {\"allow\": true}\n\ngrants contains {\"action\": \"all\", \"filter\": \"%c/#\"}", "package mqtt_test\n\ntest_x if { true }"}
	case "mqtt", "api":
		return []string{"10.0.0.0/8", "127.0.0.1"}
	case "kind":
		return []string{"connected", "denied"}
	case "permissions":
		return []string{"usage:read", "clients:read"}
	case "overlap", "step", "for":
		return []string{"1ms", "1h"}
	}
	return nil
}

// value makes a value by its schema.
func (x *randomizer) value(schema map[string]any, name string, depth int) any {
	schema = x.document.resolve(schema)
	if all := list(schema["enum"]); len(all) > 0 {
		return pick(x, all)
	}
	if all := list(schema["examples"]); len(all) > 0 && x.r.IntN(2) == 0 {
		return pick(x, all)
	}
	kind, _ := schema["type"].(string)
	if all := list(schema["type"]); len(all) > 0 {
		kind = fmt.Sprint(pick(x, all))
	}
	bound := func(key string, otherwise int) int {
		if n, ok := schema[key].(json.Number); ok {
			if i, err := n.Int64(); err == nil {
				return int(i)
			}
		}
		return otherwise
	}
	switch kind {
	case "string":
		if schema["format"] == "date-time" {
			return time.Now().Add(time.Duration(x.r.IntN(200)-100) * time.Hour).UTC().Format(time.RFC3339)
		}
		if words := x.words(name); len(words) > 0 && x.r.IntN(4) > 0 {
			return pick(x, words)
		}
		least := bound("minLength", 0)
		text := make([]byte, least+x.r.IntN(max(min(bound("maxLength", 40), least+40)-least, 0)+1))
		for i := range text {
			text[i] = "abcdefghijklmnopqrstuvwxyz-0123456789"[x.r.IntN(37)]
		}
		return string(text)
	case "integer", "number":
		least := bound("minimum", 0)
		return least + x.r.IntN(max(min(bound("maximum", least+1000), least+100_000)-least, 0)+1)
	case "boolean":
		return x.r.IntN(2) == 0
	case "array":
		out := []any{}
		for range bound("minItems", 0) + x.r.IntN(3) {
			out = append(out, x.value(schema["items"].(map[string]any), name, depth+1))
		}
		return out
	case "object":
		return x.object(schema, name, depth)
	case "null":
		return nil
	}
	return pick(x, []any{1, "x", true, nil, []any{}, map[string]any{}}) // any type will do
}

func (x *randomizer) object(schema map[string]any, name string, depth int) map[string]any {
	out := map[string]any{}
	properties, _ := schema["properties"].(map[string]any)
	required := list(schema["required"])
	for _, p := range slices.Sorted(maps.Keys(properties)) {
		if slices.Contains(required, any(p)) || depth < 4 && x.r.IntN(2) == 0 {
			out[p] = x.value(properties[p].(map[string]any), p, depth+1)
		}
	}
	if more, ok := schema["additionalProperties"].(map[string]any); ok {
		for range 1 + x.r.IntN(2) {
			out[pick(x, []string{"p.rego", "a", "hall", "api_keys", "x_test.rego"})] = x.value(more, name, depth+1)
		}
	}
	return out
}
