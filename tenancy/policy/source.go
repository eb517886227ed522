// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Source is the text of a policy: Rego by the names of its files.
type Source map[string]string

// Bytes is how long all of it is.
func (s Source) Bytes() (n int64) {
	for _, text := range s {
		n += int64(len(text))
	}
	return n
}

// Limits bound a policy.
type Limits struct {
	// Bytes is how long its text may be, Grants how many entries a class may have;
	// negative is no limit.
	Bytes, Grants int64
	// Time is how long one evaluation may take.
	Time time.Duration
}

// LimitsOf are those of a tenant: its quotas policy_bytes, grants and
// policy_time_ms.
func LimitsOf(l *tenancy.Limits) Limits {
	return Limits{Bytes: l.PolicyBytes, Grants: l.Grants, Time: time.Duration(l.PolicyTimeMS) * time.Millisecond}
}

// Bounds of a Source whatever the quotas are.
const (
	filesMost  = 32
	bytesMost  = 768 << 10
	faultsMost = 20
)

var fileName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\.rego$`)

// Fault is one thing that is wrong with a policy, and where.
type Fault struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Message string `json:"message"`
}

// String is file:line:column and what is wrong.
func (f Fault) String() string {
	switch {
	case f.File == "":
		return f.Message
	case f.Line == 0:
		return f.File + ": " + f.Message
	}
	return fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, f.Message)
}

// FaultsError is a policy that is not one. It is Invalid.
type FaultsError struct{ Faults []Fault }

// Error is the first fault, and how many more there are.
func (e *FaultsError) Error() string {
	text := e.Faults[0].String()
	if n := len(e.Faults) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// ErrKind makes a FaultsError an errs.Kinder.
func (e *FaultsError) ErrKind() errs.Kind { return errs.Invalid }

// fault is one thing that is wrong with the policy as a whole.
func fault(format string, args ...any) *FaultsError {
	return &FaultsError{[]Fault{{Message: fmt.Sprintf(format, args...)}}}
}

// faults makes an error of what OPA says.
func faults(err error) *FaultsError {
	all, ok := errsAs[ast.Errors](err)
	if !ok {
		one, ok := errsAs[*ast.Error](err)
		if !ok {
			return fault("%v", err)
		}
		all = ast.Errors{one}
	}
	e := &FaultsError{}
	for _, x := range all[:min(len(all), faultsMost)] {
		f := Fault{Message: x.Message}
		if x.Location != nil {
			f.File, f.Line, f.Column = x.Location.File, x.Location.Row, x.Location.Col
		}
		e.Faults = append(e.Faults, f)
	}
	return e
}

// check holds a Source to the bounds.
func (s Source) check(l Limits) error {
	if len(s) == 0 {
		return fault("expected at least one file with Rego, such as policy.rego")
	}
	if len(s) > filesMost {
		return fault("expected at most %d files, found %d", filesMost, len(s))
	}
	for name := range s {
		if !fileName.MatchString(name) {
			return fault("expected file names of letters, digits, '_', '-' and '.' that end with .rego, found %q", name)
		}
	}
	n := s.Bytes()
	if l.Bytes >= 0 && n > l.Bytes {
		return &tenancy.ExceededError{Quota: "policy_bytes", Limit: l.Bytes, Usage: n}
	}
	if n > bytesMost {
		return fault("expected at most %d bytes in all, found %d", bytesMost, n)
	}
	return nil
}

// capabilities are what policies may use: builtins that depend on nothing but their
// arguments. From when they are made, which is before anything is compiled or evaluated, what
// they take and make is bounded.
var capabilities = makeCapabilities()

// refused are builtins, and with a dot at the end groups of them, that policies
// cannot use although they are deterministic: their work has no proportion to their
// arguments, or is nothing that a policy has to do with.
var refused = []string{
	"bits.", // a shift by a large number panics, or takes all memory
	"crypto.", "io.", "graphql.", "providers.", "rego.", "http.", "opa.", "numbers.", "graph.", "yaml.", "net.cidr_expand", "net.lookup_ip_addr",
	"json.match_schema", "json.verify_schema", "json.marshal_with_options", "json.patch", "regex.globs_match", "strings.render_template", "rand.", "uuid.", "trace", "time.now_ns",
}

func makeCapabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.AllowNet = []string{}
	c.Builtins = slices.DeleteFunc(c.Builtins, func(b *ast.Builtin) bool {
		return b.IsNondeterministic() || slices.ContainsFunc(refused, func(r string) bool {
			return b.Name == r || strings.HasSuffix(r, ".") && strings.HasPrefix(b.Name, r)
		})
	})
	guard(c.Builtins)
	c.Builtins = append(c.Builtins, registerWritten())
	return c
}

// parse returns the modules by the names of their files.
func (s Source) parse() (map[string]*ast.Module, error) {
	modules := make(map[string]*ast.Module, len(s))
	all := &FaultsError{}
	for name, text := range s {
		if f := nesting(name, text); f != nil {
			all.Faults = append(all.Faults, *f)
			continue
		}
		m, err := ast.ParseModuleWithOpts(name, text, ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: capabilities})
		switch {
		case err != nil:
			all.Faults = append(all.Faults, faults(err).Faults...)
		case m == nil:
			all.Faults = append(all.Faults, Fault{File: name, Message: "expected a package: the file is empty"})
		default:
			modules[name] = m
		}
	}
	if len(all.Faults) > 0 {
		slices.SortFunc(all.Faults, func(a, b Fault) int {
			if c := strings.Compare(a.File, b.File); c != 0 {
				return c
			}
			return a.Line - b.Line
		})
		return nil, all
	}
	if f := shape(modules); f != nil {
		return nil, &FaultsError{[]Fault{*f}}
	}
	return modules, nil
}
