// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// A configuration is a pointer to a struct that holds the defaults. Each field
// has the tags `yaml:"name"` and `doc:"unit and consequence"`; a nested struct
// is a section; an embedded struct lends its fields; a slice of structs is a
// list whose entries have the same keys.

// field is one key of a configuration.
type field struct {
	key   string // operator.listen; in lists listeners[].name
	doc   string
	typ   reflect.Type
	value reflect.Value // invalid inside lists
}

func (k field) env() string {
	return "MANOR_" + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(k.key))
}

func (k field) flag() string { return strings.NewReplacer(".", "-", "_", "-").Replace(k.key) }

func (k field) inList() bool { return strings.Contains(k.key, "[]") }

// fieldsOf returns the leaves and the lists of a configuration, in the order of
// the struct.
func fieldsOf(cfg any) []field {
	v := reflect.ValueOf(cfg)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		panic(fmt.Sprintf("node: a configuration is a pointer to a struct, not %T", cfg))
	}
	return walk(nil, "", v.Elem().Type(), v.Elem())
}

func walk(out []field, prefix string, t reflect.Type, v reflect.Value) []field {
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		var fv reflect.Value
		if v.IsValid() {
			fv = v.Field(i)
		}
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if f.Anonymous && name == "" {
			out = walk(out, prefix, f.Type, fv)
			continue
		}
		if name == "" || name == "-" {
			continue
		}
		key := prefix + name
		switch {
		case isSection(f.Type):
			out = walk(out, key+".", f.Type, fv)
		case f.Type.Kind() == reflect.Slice && isSection(f.Type.Elem()):
			out = append(out, field{key: key, doc: f.Tag.Get("doc"), typ: f.Type, value: fv})
			out = walk(out, key+"[].", f.Type.Elem(), reflect.Value{})
		default:
			out = append(out, field{key: key, doc: f.Tag.Get("doc"), typ: f.Type, value: fv})
		}
	}
	return out
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// isSection reports whether t is a struct that is a group of keys rather than
// one value.
func isSection(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(textUnmarshaler)
}

// Row describes one key to people.
type Row struct {
	Key, Env, Flag, Type, Default, Doc string
}

// Describe returns a row for every key of a configuration that holds its
// defaults. Keys of list entries have neither environment name nor flag.
func Describe(cfg any) []Row {
	var rows []Row
	for _, f := range fieldsOf(cfg) {
		r := Row{Key: f.key, Type: typeName(f.typ), Doc: f.doc}
		if !f.inList() {
			r.Env, r.Flag = f.env(), "--"+f.flag()
			r.Default = defaultText(f.value)
		}
		rows = append(rows, r)
	}
	return rows
}

// WriteMarkdown writes Describe's rows as a Markdown table under a heading.
func WriteMarkdown(w io.Writer, title string, cfg any) error {
	if _, err := fmt.Fprintf(w, "## %s\n\n| key | environment | type | default | meaning |\n|---|---|---|---|---|\n", title); err != nil {
		return err
	}
	for _, r := range Describe(cfg) {
		env := ""
		if r.Env != "" {
			env = "`" + r.Env + "`"
		}
		def := ""
		if r.Default != "" {
			def = "`" + r.Default + "`"
		}
		if _, err := fmt.Fprintf(w, "| `%s` | %s | %s | %s | %s |\n", r.Key, env, r.Type, def, strings.ReplaceAll(r.Doc, "|", "\\|")); err != nil {
			return err
		}
	}
	return nil
}

func typeName(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.PointerTo(t).Implements(textUnmarshaler):
		return "text"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "text"
	case reflect.Slice:
		return "list of " + typeName(t.Elem())
	case reflect.Map:
		return "map of " + typeName(t.Elem())
	case reflect.Struct:
		return "entries"
	case reflect.Float32, reflect.Float64:
		return "number"
	default:
		return "integer"
	}
}

func defaultText(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return x.String()
	case string:
		return x
	case encoding.TextMarshaler:
		b, err := x.MarshalText()
		if err != nil {
			return ""
		}
		return string(b)
	}
	switch v.Kind() {
	case reflect.Slice, reflect.Map:
		if v.Len() == 0 {
			return ""
		}
		n := &yaml.Node{}
		if err := n.Encode(v.Interface()); err != nil {
			return ""
		}
		flow(n)
		b, err := yaml.Marshal(n)
		if err != nil {
			return ""
		}
		return strings.Join(strings.Fields(string(b)), " ")
	default:
		return fmt.Sprint(v.Interface())
	}
}

// flow makes a node and all inside it print on one line.
func flow(n *yaml.Node) {
	n.Style = yaml.FlowStyle
	for _, c := range n.Content {
		if c.Kind != yaml.ScalarNode {
			flow(c)
		}
	}
}
