// SPDX-License-Identifier: Apache-2.0

package api_test

import (
	"bytes"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// randomDocument is the OpenAPI document as random requests need it.
type randomDocument struct {
	root       map[string]any
	operations []*randomOperation
	problem    *jsonschema.Schema
}

// randomOperation is an operation of the document.
type randomOperation struct {
	id, method, path string
	parameters       []randomParameter
	body             map[string]any // its schema; nil if there is none
	// answers are the schemas by status, then by media type.
	answers map[string]map[string]*jsonschema.Schema
}

type randomParameter struct {
	name, in string
	schema   map[string]any
	required bool
}

// parseDocument reads an OpenAPI document of version 3.1, whose schemas are those of
// JSON Schema 2020-12, by a validator that is not the server's own.
func parseDocument(t *testing.T, text []byte) *randomDocument {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	d := &randomDocument{root: v.(map[string]any)}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("openapi.json", v); err != nil {
		t.Fatal(err)
	}
	compile := func(tokens ...string) *jsonschema.Schema {
		pointer := "openapi.json#"
		for _, token := range tokens {
			pointer += "/" + url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(token))
		}
		s, err := c.Compile(pointer)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	d.problem = compile("components", "schemas", "Problem")
	paths := d.root["paths"].(map[string]any)
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		item := paths[path].(map[string]any)
		for _, method := range slices.Sorted(maps.Keys(item)) {
			op := item[method].(map[string]any)
			o := &randomOperation{
				id: op["operationId"].(string), method: strings.ToUpper(method), path: path,
				answers: map[string]map[string]*jsonschema.Schema{},
			}
			for _, p := range list(op["parameters"]) {
				p := p.(map[string]any)
				required, _ := p["required"].(bool)
				o.parameters = append(o.parameters, randomParameter{p["name"].(string), p["in"].(string), p["schema"].(map[string]any), required})
			}
			if b, ok := op["requestBody"].(map[string]any); ok {
				o.body = b["content"].(map[string]any)["application/json"].(map[string]any)["schema"].(map[string]any)
			}
			for status, r := range op["responses"].(map[string]any) {
				o.answers[status] = map[string]*jsonschema.Schema{}
				content, _ := r.(map[string]any)["content"].(map[string]any)
				for media := range content {
					o.answers[status][media] = compile("paths", path, method, "responses", status, "content", media, "schema")
				}
			}
			d.operations = append(d.operations, o)
		}
	}
	if len(d.operations) < 80 {
		t.Fatalf("%d operations: the document is not whole", len(d.operations))
	}
	return d
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

// resolve follows references.
func (d *randomDocument) resolve(schema map[string]any) map[string]any {
	for {
		ref, ok := schema["$ref"].(string)
		if !ok {
			return schema
		}
		schema = d.root["components"].(map[string]any)["schemas"].(map[string]any)[strings.TrimPrefix(ref, "#/components/schemas/")].(map[string]any)
	}
}

// of is the operation of a method and path; nil if there is none.
func (d *randomDocument) of(method, path string) *randomOperation {
	for _, o := range d.operations {
		if o.method == method && o.path == path {
			return o
		}
	}
	return nil
}

// check says what is wrong with an answer to o; empty if nothing is. Where there is no
// operation only a problem is right.
func (d *randomDocument) check(o *randomOperation, resp *http.Response, body []byte) string {
	if o == nil {
		o = &randomOperation{answers: map[string]map[string]*jsonschema.Schema{"default": {"application/problem+json": d.problem}}}
	}
	status := resp.StatusCode
	if status >= 500 {
		return fmt.Sprintf("status %d", status)
	}
	if status == http.StatusNoContent && len(body) > 0 {
		return "204 with a body"
	}
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil && (len(body) > 0 || status != http.StatusNoContent) {
		return fmt.Sprintf("status %d with Content-Type %q", status, resp.Header.Get("Content-Type"))
	}
	content, documented := o.answers[strconv.Itoa(status)]
	if !documented {
		content, documented = o.answers["default"], status >= 400
	}
	switch {
	case !documented:
		return fmt.Sprintf("status %d, which the document does not have", status)
	case len(content) == 0 && len(body) == 0:
		return ""
	}
	schema, ok := content[media]
	if !ok {
		return fmt.Sprintf("status %d with Content-Type %q, expected %v", status, media, slices.Sorted(maps.Keys(content)))
	}
	if !strings.HasSuffix(media, "json") || strings.HasSuffix(media, "ndjson") {
		return ""
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		return fmt.Sprintf("status %d: the body is not as documented: %v", status, err)
	}
	if resp.StatusCode >= 400 {
		if said := fmt.Sprint(v.(map[string]any)["status"]); said != strconv.Itoa(status) {
			return fmt.Sprintf("status %d, and the problem says %s", status, said)
		}
	}
	return ""
}
