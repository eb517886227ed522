// SPDX-License-Identifier: Apache-2.0

package script

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/manormq/manor/services/conform/wire"
)

// span is the numbers from least to most.
type span struct{ least, most uint64 }

// numbers reads what a number may be: 1, 0|0x10, 1..5, * for any or none, - for
// none. The spans of the last two are nil.
func numbers(pattern string) ([]span, error) {
	if pattern == "*" || pattern == "-" {
		return nil, nil
	}
	var all []span
	for part := range strings.SplitSeq(pattern, "|") {
		from, to, isRange := strings.Cut(part, "..")
		if !isRange {
			to = from
		}
		a, err := wire.Number(from)
		if err != nil {
			return nil, fmt.Errorf("%q: expected a number, 0|0x10, 1..5, * or -", pattern)
		}
		b, err := wire.Number(to)
		if err != nil {
			return nil, fmt.Errorf("%q: expected a number, 0|0x10, 1..5, * or -", pattern)
		}
		all = append(all, span{a, b})
	}
	return all, nil
}

// defaults are what is expected of fields that a script does not name.
var defaults = map[wire.Kind]map[string]string{
	wire.Connack: {"present": "0", "code": "0"},
	wire.Publish: {"dup": "0", "qos": "0", "retain": "0", "payload": ""},
	wire.Puback:  {"code": "0|0x10"},
	wire.Pubrec:  {"code": "0|0x10"},
	wire.Pubrel:  {"code": "0"},
	wire.Pubcomp: {"code": "0"},
}

// names are the variables of a run, and what @ is.
type names struct {
	prefix string
	vars   map[string]string
}

func (n *names) expand(s string) string { return strings.ReplaceAll(s, "@", n.prefix) }

// match compares a packet with what is expected of it, and binds the variables
// that it meets for the first time. It returns what differs, "" if nothing does.
func (n *names) match(kind wire.Kind, args []arg, v wire.Version, p *wire.Packet) string {
	if p.Kind != kind {
		return "it is another packet"
	}
	bound := maps.Clone(n.vars)
	seen := map[string]bool{}
	for _, a := range args {
		if seen[a.name] || v == wire.V31 && a.name == "present" || v != wire.V5 && kind == wire.Unsuback && a.name == "code" {
			seen[a.name] = true
			continue
		}
		seen[a.name] = true
		if why := n.field(bound, a.name, args, p); why != "" {
			return why
		}
	}
	for name, pattern := range defaults[kind] {
		if _, there := p.Get(name); !seen[name] && there {
			if why := n.field(bound, name, []arg{{name, pattern, pattern == ""}}, p); why != "" {
				return why
			}
		}
	}
	if kind == wire.Publish {
		for _, f := range p.Fields {
			_, only5, _ := wire.Of(kind, f.Name)
			if only5 && !seen[f.Name] {
				return fmt.Sprintf("%s=%s was not expected", f.Name, wire.Quote(f.Value))
			}
		}
	}
	n.vars = bound
	return ""
}

// field compares all fields of one name.
func (n *names) field(vars map[string]string, name string, args []arg, p *wire.Packet) string {
	var want []arg
	for _, a := range args {
		if a.name == name {
			want = append(want, a)
		}
	}
	got := slices.Clone(p.All(name))
	switch plain := !want[0].quoted; {
	case len(want) == 1 && plain && want[0].text == "*":
		return ""
	case len(want) == 1 && plain && want[0].text == "-":
		if len(got) > 0 {
			return fmt.Sprintf("%s is %s, expected none", name, wire.Quote(got[0]))
		}
		return ""
	}
	if name == "subid" { // in any order
		slices.Sort(got)
		slices.SortFunc(want, func(a, b arg) int { return strings.Compare(a.text, b.text) })
	}
	if len(got) != len(want) {
		return fmt.Sprintf("it has %d of %s, expected %d", len(got), name, len(want))
	}
	t, _, _ := wire.Of(p.Kind, name)
	for i, a := range want {
		if why := n.value(vars, a, got[i], t.Numeric()); why != "" {
			return why
		}
	}
	return ""
}

func (n *names) value(vars map[string]string, a arg, got string, numeric bool) string {
	want := a.text
	if v := a.variable(); v != "" {
		known, ok := vars[v]
		if !ok {
			vars[v] = got
			return ""
		}
		want = known
	} else if !a.quoted && want == "*" {
		return ""
	}
	if numeric {
		n, _ := wire.Number(got)
		spans, _ := numbers(want)
		for _, s := range spans {
			if s.least <= n && n <= s.most {
				return ""
			}
		}
		return fmt.Sprintf("%s is %s, expected %s", a.name, got, want)
	}
	if a.variable() == "" {
		want = n.expand(want)
	}
	if want != got {
		return fmt.Sprintf("%s is %s, expected %s", a.name, wire.Quote(got), wire.Quote(want))
	}
	return ""
}
