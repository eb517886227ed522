// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// seeds are bodies that make operations succeed which accessTable does not have.
var seeds = map[string]string{
	"sign-up":           `{"organization":"New","email":"ops@new.example","password":"choose-a-good-one","tenant":"TENANT"}`,
	"verify-sign-up":    `{"code":"mv_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","password":"choose-a-good-one"}`,
	"sign-in":           `{"organization":"ORGANIZATION","email":"ops@acme.example","password":"choose-a-good-one"}`,
	"accept-invitation": `{"invitation":"INVITATION","password":"choose-a-good-one"}`,
	"redeem-claim":      `{"claim":"CLAIM","csr":"` + csr + `"}`,
}

// hostile are texts that a server may stumble over. BAD becomes bytes that are no
// UTF-8.
var hostile = []string{
	"", " ", "\x00", "a\x00b", "\u202e\u200b", "\U0001F600", "BAD", "../..", "%2e%2e%2f", "%00", "//", "'\"`;--", "<script>", "{{.}}", "${x}", "$SYS/#", "+/#", "a/+/b", "#", "$share/g/x",
	"null", "true", "0", "-1", "1e400", "9223372036854775808", "NaN", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2026-13-45", "10.0.0.0/99", "::/0", "*", ">", "a.>", "\r\nX: y",
	"org_", "mk_", "Ω", "é", strings.Repeat("a", 300), strings.Repeat("ä", 3000), strings.Repeat("a/", 200), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	"package mqtt\n\ngrants := [{\"action\": 1}]", "package mqtt\n\nimport data.x\n\ngrants contains x if some x in data", "http://127.0.0.1/\x7f", "$argon2id$v=19$m=8,t=1,p=1$AA$AA",
}

// pick takes one of some.
func pick[T any](x *randomizer, from []T) T { return from[x.r.IntN(len(from))] }

// request makes a request of op that fits the document, and spoils it half of the time.
func (x *randomizer) request(op *randomOperation) *randomRequest {
	if _, err := x.w.store.Domain(x.t.Context(), "acme", "mqtt.acme.example"); err != nil {
		x.settle() // prepare needs it
	}
	x.w.prepare(op.id)
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

// wrong is a value that fits nothing in particular.
func (x *randomizer) wrong() any {
	switch x.r.IntN(10) {
	case 0:
		return nil
	case 1:
		return pick(x, []any{true, []any{}, map[string]any{}, []any{nil}, map[string]any{"": nil}})
	case 2, 3:
		return json.Number(pick(x, []string{"-1", "0", "1e400", "-0.0", "1.5", "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1e-400", strings.Repeat("9", 400)}))
	case 4:
		var deep any = "x"
		for range pick(x, []int{5, 100, 2000}) {
			if x.r.IntN(2) == 0 {
				deep = []any{deep}
			} else {
				deep = map[string]any{"a": deep}
			}
		}
		return deep
	case 5:
		return slices.Repeat([]any{pick(x, hostile)}, pick(x, []int{1, 20, 3000}))
	}
	return pick(x, hostile)
}

// spoil makes something of a request wrong, and returns its body.
func (x *randomizer) spoil(q *randomRequest, op *randomOperation, body any) any {
	for range 1 + x.r.IntN(2) {
		switch x.r.IntN(12) {
		case 0: // an id
			names := strings.Split(q.path, "/")
			k := 2 + x.r.IntN(len(names)-2)
			names[k] = pick(x, []string{url.PathEscape(pick(x, hostile)), "%2e%2e%2f", "%ff", "..", names[k] + "%00"})
			q.path = strings.ReplaceAll(strings.Join(names, "/"), "BAD", "%ff%fe")
			q.kind = "a strayed"
			return body
		case 1:
			q.query = append(q.query, "nonsense=1")
		case 2, 3: // a query parameter, which may come twice
			for _, p := range op.parameters {
				if p.in == "query" && x.r.IntN(2) == 0 && p.name != "for" {
					q.query = append(q.query, url.QueryEscape(p.name)+"="+strings.ReplaceAll(url.QueryEscape(pick(x, hostile)), "BAD", "%ff%fe"))
				}
			}
		case 4:
			q.query = append(q.query, pick(x, []string{"=", "&&", "a=b=c", "dry_run", "dry_run=maybe", "limit=", "limit=-1", "limit=1e9", "%00=1", ";"}))
		case 5:
			q.header["Content-Type"] = pick(x, []string{"", "text/plain", "application/xml", "application/cbor", "application/json; charset=latin1", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "x", "application/", ";"})
		case 6:
			q.header[pick(x, []string{"If-Match", "Idempotency-Key", "Accept", "Accept-Encoding", "Content-Encoding", "X-Forwarded-For", "Range", "If-None-Match"})] = pick(x, []string{"", `"`, `""`, `"x"`, `"-1"`, "*", "é", "application/cbor", "gzip", "127.0.0.1", "bytes=0-1", strings.Repeat("k", 300), "text/html;q=0.1", "q"})
		case 7:
			if x.r.IntN(4) == 0 {
				q.method = pick(x, []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, "BREW"})
			}
		default:
			if op.body != nil {
				body = x.mutate(body)
			} else if x.r.IntN(8) == 0 {
				body = x.wrong() // where none belongs
			}
		}
	}
	return body
}

// mutate changes one thing somewhere in a value.
func (x *randomizer) mutate(v any) any {
	switch v := v.(type) {
	case map[string]any:
		keys := slices.Sorted(maps.Keys(v))
		switch k := x.r.IntN(8); {
		case k == 0 && len(keys) > 0:
			delete(v, pick(x, keys))
		case k == 1:
			v[pick(x, hostile)] = x.wrong()
		case k < 7 && len(keys) > 0:
			key := pick(x, keys)
			v[key] = x.mutate(v[key])
		default:
			return x.wrong()
		}
		return v
	case []any:
		if len(v) > 0 && x.r.IntN(3) > 0 {
			k := x.r.IntN(len(v))
			v[k] = x.mutate(v[k])
			return v
		}
		return append(v, x.wrong())
	case string:
		if x.r.IntN(2) == 0 {
			k := x.r.IntN(len(v) + 1)
			return strings.ToValidUTF8(v[:k]+pick(x, hostile)+v[k:], "")
		}
	}
	return x.wrong()
}

// damage makes bytes that are no JSON any more.
func (x *randomizer) damage(b []byte) []byte {
	switch x.r.IntN(6) {
	case 0:
		return nil
	case 1:
		return b[:len(b)/2]
	case 2:
		return append(b, b...)
	case 3:
		return []byte(strings.Repeat("[", 20_000))
	case 4:
		return append([]byte("\xef\xbb\xbf"), b...)
	}
	if len(b) > 0 {
		b[x.r.IntN(len(b))] = byte(x.r.IntN(256))
	}
	return b
}
