// SPDX-License-Identifier: Apache-2.0

package statements

import (
	"maps"
	"path"
	"slices"
	"strings"
)

// Status is how far a statement is held.
type Status int

// The statuses, best first. Of two that fit, the first is meant.
const (
	Tested        Status = iota // a test cites it
	NotApplicable               // a server cannot break it
	CodeOnly                    // code cites it, or its like in 5.0, and no test does
	Open                        // nothing cites it
)

// Row is a statement and who cites it.
type Row struct {
	Statement
	Status Status
	Code   []string // packages, by their folders
	// Like are the packages that cite what asks the same in 5.0, if none cites
	// the statement itself. One machine serves both versions, so the code is
	// there; whether it holds in 3.1.1 is for a test of 3.1.1 to say.
	Like  []string
	Tests []string // Go tests as folder.Test, files for the rest
}

// Count is how many statements of a version have each status.
type Count struct {
	Version                               Version
	All                                   int
	Tested, CodeOnly, NotApplicable, Open int
}

// Untested is what the issue wants at 0: statements that apply and that no test
// cites.
func (c Count) Untested() int { return c.CodeOnly + c.Open }

// Table puts citations beside the statements. It returns those that mean no
// statement as unknown.
func (s *Set) Table(citations []Citation) (table []Row, unknown []Citation) {
	type places struct{ code, tests map[string]bool }
	of := map[key]places{}
	for _, st := range s.statements {
		of[key{st.Version, st.ID}] = places{map[string]bool{}, map[string]bool{}}
	}
	for _, c := range citations {
		meant := s.Resolve(c)
		if len(meant) == 0 {
			unknown = append(unknown, c)
		}
		for _, st := range meant {
			if p := of[key{st.Version, st.ID}]; c.Test {
				p.tests[c.test()] = true
			} else {
				p.code[path.Dir(c.File)] = true
			}
		}
	}
	for _, st := range s.statements {
		p := of[key{st.Version, st.ID}]
		r := Row{Statement: st, Code: slices.Sorted(maps.Keys(p.code)), Tests: slices.Sorted(maps.Keys(p.tests))}
		if st.Same != "" && len(r.Code) == 0 {
			r.Like = slices.Sorted(maps.Keys(of[key{V5, st.Same}].code))
		}
		switch {
		case len(r.Tests) > 0:
			r.Status = Tested
		case st.NotApplicable != "":
			r.Status = NotApplicable
		case len(r.Code)+len(r.Like) > 0:
			r.Status = CodeOnly
		default:
			r.Status = Open
		}
		table = append(table, r)
	}
	return table, unknown
}

// test names the test or script that c stands in. A file's name stands for what
// its tests share.
func (c Citation) test() string {
	switch {
	case c.Func == "":
		return c.File
	case strings.HasPrefix(c.File, scripts):
		return "conform " + strings.TrimSuffix(path.Base(c.File), ".txt") + "/" + c.Func
	}
	return path.Dir(c.File) + "." + c.Func
}

// CountOf counts the rows of a version.
func CountOf(table []Row, v Version) Count {
	c := Count{Version: v}
	for _, r := range table {
		if r.Version != v {
			continue
		}
		c.All++
		switch r.Status {
		case Tested:
			c.Tested++
		case NotApplicable:
			c.NotApplicable++
		case CodeOnly:
			c.CodeOnly++
		case Open:
			c.Open++
		}
	}
	return c
}

// Where says which packages implement the statement.
func (r Row) Where() string {
	if len(r.Code) == 0 && len(r.Like) > 0 {
		return quoted(r.Like) + ", as " + strings.TrimPrefix(r.Same, "MQTT-") + " of 5.0"
	}
	return quoted(r.Code)
}

// How says which tests cite the statement, or why none does.
func (r Row) How() string {
	switch r.Status {
	case Tested:
		return quoted(r.Tests)
	case NotApplicable:
		return "not applicable: " + r.NotApplicable
	case CodeOnly:
		return "**no test**"
	case Open:
	}
	return "**not yet cited**"
}

func quoted(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "`" + strings.Join(names, "`, `") + "`"
}
