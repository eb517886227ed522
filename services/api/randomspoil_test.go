// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// hostile are texts that a server may stumble over. BAD becomes bytes that are no
// UTF-8.
var hostile = []string{
	"", "\x00", "BAD", "a\x00b", " ", "\u202e\u200b", "\U0001F600", "../..", "%2e%2e%2f", "%00", "//", "'\"`;--", "<script>", "{{.}}", "${x}", "$SYS/#", "+/#", "a/+/b", "#", "$share/g/x",
	"null", "true", "0", "-1", "1e400", "9223372036854775808", "NaN", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z", "2026-13-45", "10.0.0.0/99", "::/0", "*", ">", "a.>", "\r\nX: y",
	"org_", "mk_", "Ω", "é", strings.Repeat("a", 300), strings.Repeat("ä", 3000), strings.Repeat("a/", 200), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	"package mqtt\n\ngrants := [{\"action\": 1}]", "package mqtt\n\nimport data.x\n\ngrants contains x if some x in data", "http://127.0.0.1/\x7f", "$argon2id$v=19$m=8,t=1,p=1$AA$AA",
}

// hostile is a text of those, often one of the first few.
func (x *randomizer) hostile() string {
	if x.r.IntN(2) == 0 {
		return pick(x, hostile[:8])
	}
	return pick(x, hostile)
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
		return slices.Repeat([]any{x.hostile()}, pick(x, []int{1, 20, 3000}))
	}
	return x.hostile()
}

// spoil makes something of a request wrong, and returns its body.
func (x *randomizer) spoil(q *randomRequest, op *randomOperation, body any) any {
	for range 1 + x.r.IntN(2) {
		switch x.r.IntN(12) {
		case 0: // an id
			names := strings.Split(q.path, "/")
			k := 2 + x.r.IntN(len(names)-2)
			names[k] = pick(x, []string{url.PathEscape(x.hostile()), "%2e%2e%2f", "%ff", "..", names[k] + "%00"})
			q.path = strings.ReplaceAll(strings.Join(names, "/"), "BAD", "%ff%fe")
			q.kind = "a strayed"
			return body
		case 1:
			q.query = append(q.query, "nonsense=1")
		case 2, 3:
			x.spoilQuery(q, op)
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
			switch {
			case op.body != nil:
				body = x.mutate(body)
			case x.r.IntN(8) == 0:
				body = x.wrong() // where none belongs
			default:
				x.spoilQuery(q, op)
			}
		}
	}
	return body
}

// spoilQuery gives one query parameter a hostile value, mostly in the place of the
// right one.
func (x *randomizer) spoilQuery(q *randomRequest, op *randomOperation) {
	var names []string
	for _, p := range op.parameters {
		if p.in == "query" && p.name != "for" { // of which some would go on for minutes
			names = append(names, p.name)
		}
	}
	if len(names) == 0 {
		return
	}
	name := url.QueryEscape(pick(x, names)) + "="
	if x.r.IntN(4) > 0 {
		q.query = slices.DeleteFunc(q.query, func(p string) bool { return strings.HasPrefix(p, name) })
	}
	q.query = append(q.query, name+strings.ReplaceAll(url.QueryEscape(x.hostile()), "BAD", "%ff%fe"))
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
			v[x.hostile()] = x.wrong()
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
			return strings.ToValidUTF8(v[:k]+x.hostile()+v[k:], "")
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
