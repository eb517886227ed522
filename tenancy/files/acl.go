// SPDX-License-Identifier: Apache-2.0

package files

import (
	"fmt"
	"strings"

	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/policy"
)

// ACLName is what the file of vmq_acl is called in errors.
const ACLName = "vmq.acl"

// byteOrderMark is what some editors begin a file with.
const byteOrderMark = "\uFEFF"

// problemsMost is how many bad lines an error names.
const problemsMost = 20

// ACLRule is a line of a vmq_acl file that allows something. It is a plain value.
type ACLRule struct {
	// Line counts from 1.
	Line int
	// User is whom a topic line is for: the one of the user line before it. It is empty
	// for a topic line before the first user line, which is for everybody, and for a
	// pattern line.
	User string
	// Pattern says that the levels %c, %u and %m of the filter stand for the client id, the user
	// name and the mountpoint.
	Pattern bool
	// Read allows to subscribe, Write to publish.
	Read, Write bool
	// Filter is a valid topic filter.
	Filter string
}

// ParseACL reads the text of a vmq_acl file as the plugin does: "topic [read|write]
// FILTER", "pattern [read|write] FILTER", "user NAME", lines that begin with # and empty
// ones. As in mosquitto, readwrite is both, as is nothing. Where the plugin stops at a
// line, or leaves one out and goes on, this is an error: a policy.FaultsError with the
// lines and what was expected.
func ParseACL(text string) ([]ACLRule, error) {
	var rules []ACLRule
	wrong := &policy.FaultsError{}
	user, n := "", 0
	for line := range strings.SplitSeq(strings.TrimPrefix(text, byteOrderMark), "\n") {
		n++
		line = strings.Trim(strings.TrimSuffix(line, "\r"), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		word, rest := cutWord(line)
		var err error
		switch word {
		case "user":
			if user = rest; rest == "" {
				err = fmt.Errorf("expected user NAME, found no name")
			} else {
				err = tenancy.ValidUsername(rest)
			}
		case "topic", "pattern":
			r := ACLRule{Line: n, User: user, Pattern: word == "pattern", Read: true, Write: true, Filter: rest}
			if r.Pattern {
				r.User = ""
			}
			if err = r.access(word); err == nil {
				rules = append(rules, r)
			}
		default:
			err = fmt.Errorf("expected a line that begins with topic, pattern, user or #, found %q", word)
		}
		if err != nil && len(wrong.Faults) < problemsMost {
			wrong.Faults = append(wrong.Faults, policy.Fault{File: ACLName, Line: n, Column: 1, Message: short(err.Error())})
		}
	}
	if len(wrong.Faults) > 0 {
		return nil, wrong
	}
	return rules, nil
}

// cutWord takes the first word from a line that was trimmed.
func cutWord(line string) (word, rest string) {
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		return line[:i], strings.Trim(line[i:], " \t")
	}
	return line, ""
}

// access takes read, write or readwrite from before the filter, which it checks.
func (r *ACLRule) access(line string) error {
	switch word, rest := cutWord(r.Filter); word {
	case "read":
		r.Write, r.Filter = false, rest
	case "write":
		r.Read, r.Filter = false, rest
	case "readwrite":
		r.Filter = rest
	case "deny":
		return fmt.Errorf("expected %s [read|write|readwrite] FILTER: deny is mosquitto's, vmq_acl has none; leave the line out, what no line allows is denied", line)
	}
	if r.Filter == "" {
		return fmt.Errorf("expected %s [read|write|readwrite] FILTER, found no filter", line)
	}
	if err := topic.ValidateFilter(r.Filter); err != nil {
		return fmt.Errorf("expected %s [read|write|readwrite] FILTER: %w", line, err)
	}
	return nil
}
