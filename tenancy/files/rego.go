// SPDX-License-Identifier: Apache-2.0

package files

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
)

// Note says of a line that it means something else here, or nothing. It is a plain value.
type Note struct {
	Line    int    `json:"line"`
	Message string `json:"message"`
}

// String is the line and the message.
func (n Note) String() string { return fmt.Sprintf("line %d: %s", n.Line, n.Message) }

// ACLPolicy is a policy that allows what a vmq_acl file does. It is a plain value.
type ACLPolicy struct {
	// Rego is its text, with a rule for each line that allows something.
	Rego string
	// Notes are for whoever reads the answer; none of those lines allows more here. There
	// are notesMost at most, and one that says how many more there would be.
	Notes []Note
	// Noted is how many there would be.
	Noted int
}

// notesMost is how many lines are told of.
const notesMost = 1000

// note adds a note; of those after notesMost it has the number.
func (p *ACLPolicy) note(line int, text string) {
	p.Noted++
	switch n := p.Noted - notesMost; {
	case n <= 0:
		p.Notes = append(p.Notes, Note{line, short(text)})
	case n == 1:
		p.Notes = append(p.Notes, Note{line, "this line means something else here, or nothing, as well"})
	default:
		p.Notes[notesMost].Message = fmt.Sprintf("this line and %d more mean something else here, or nothing, as well", n-1)
	}
}

// PolicyOfACL parses a vmq_acl file and returns the policy for the tenant, whose id is what
// %m stands for. The error is that of ParseACL.
//
// It differs from the plugin where that is wrong or cannot be said here, never by
// allowing more of a topic that is not shared: a filter that ends with # is not covered by
// one with + there, topics that begin with $ are not matched by wildcards, and values of
// %c and %u with wildcards or separators stand for nothing.
func PolicyOfACL(text, tenant string) (*ACLPolicy, error) {
	rules, err := ParseACL(text)
	if err != nil {
		return nil, err
	}
	p := &ACLPolicy{}
	var b strings.Builder
	b.WriteString("package mqtt\n\n# Made of a vmq_acl file: the number is that of its line. What nothing grants is denied.\n\n")
	known := map[string]bool{}
	wrong := &policy.FaultsError{}
	for i := range rules {
		r := &rules[i]
		e, note := r.entry(tenant)
		if note != "" {
			p.note(r.Line, note)
		}
		if e == nil {
			continue
		}
		if _, err := tenancy.NewGrantSet(0, "", []tenancy.GrantEntry{*e}); err != nil {
			wrong.Faults = append(wrong.Faults, policy.Fault{File: ACLName, Line: r.Line, Column: 1, Message: short(err.Error())})
			continue
		}
		value, err := json.Marshal(e)
		if err != nil || known[string(value)] {
			continue
		}
		known[string(value)] = true
		if len(known) == policy.RulesMost+1 {
			wrong.Faults = append(wrong.Faults, policy.Fault{File: ACLName, Line: r.Line, Column: 1, Message: fmt.Sprintf("expected at most %d lines that allow something different; lines that users have in common are shorter as pattern lines with %%u", policy.RulesMost)})
		}
		// Rego takes every character in a text but this one.
		fmt.Fprintf(&b, "grants contains %s # %d\n", strings.ReplaceAll(string(value), byteOrderMark, `\ufeff`), r.Line)
	}
	if len(known) == 0 {
		b.WriteString("grants := []\n")
	}
	if n := len(wrong.Faults); n > 0 {
		wrong.Faults = wrong.Faults[:min(n, problemsMost)]
		return nil, wrong
	}
	p.Rego = b.String()
	return p, nil
}

// entry is what a rule grants, nil if nothing, and what is to be said about it.
func (r *ACLRule) entry(tenant string) (e *tenancy.GrantEntry, note string) {
	filter, read, write := r.Filter, r.Read, r.Write
	if rest, ok := strings.CutPrefix(filter, "$share/"); ok {
		_, filter, _ = strings.Cut(rest, "/") // a valid filter has it
		if write = false; !read {
			return nil, "nobody can publish to $share/…: nothing is granted"
		}
		note = fmt.Sprintf("subscriptions are held to what they share, whatever the group is called: %s is granted", filter)
	}
	if strings.HasPrefix(filter, "$") {
		switch {
		case !strings.HasPrefix(filter, "$SYS/") || !read:
			return nil, "topics that begin with $ are the server's: only $SYS/… can be granted, to subscribe; nothing is granted"
		case write:
			write, note = false, "topics that begin with $ are the server's: this one is granted to subscribe, not to publish"
		}
	}
	e = &tenancy.GrantEntry{Filter: r.levels(filter, tenant)}
	switch {
	case read && write:
		e.Action = tenancy.ActionAll
	case read:
		e.Action = tenancy.ActionSubscribe
	default:
		e.Action = tenancy.ActionPublish
	}
	if r.User != "" {
		e.User = &r.User
	}
	return e, note
}

// levels is the filter as grants have it: a placeholder must fill a level of a pattern;
// every other per cent sign is itself.
func (r *ACLRule) levels(filter, tenant string) string {
	all := strings.Split(filter, "/")
	for i, level := range all {
		switch {
		case r.Pattern && (level == "%c" || level == "%u"):
		case r.Pattern && level == "%m":
			all[i] = tenant
		default:
			all[i] = strings.ReplaceAll(level, "%", "%%")
		}
	}
	return strings.Join(all, "/")
}
