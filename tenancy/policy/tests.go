// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
)

const (
	// testTime bounds one test, testsTime all of a policy.
	testTime  = time.Second
	testsTime = 10 * time.Second
)

// TestResult is what came of one rule whose name begins with test_.
type TestResult struct {
	Name    string `json:"name"`
	File    string `json:"file"`
	Line    int    `json:"line"`
	Outcome string `json:"outcome"` // pass, fail, error or skip
	Message string `json:"message,omitempty"`
}

// Lines are some of a file, both ends included.
type Lines struct {
	From int `json:"from"`
	To   int `json:"to"`
}

// FileCoverage is how much of a file the tests have come to.
type FileCoverage struct {
	File       string  `json:"file"`
	Percent    float64 `json:"percent"`
	NotCovered []Lines `json:"not_covered"`
}

// Report is what came of a policy's tests. It is a plain value.
type Report struct {
	Passed   int            `json:"passed"`
	Failed   int            `json:"failed"`
	Tests    []TestResult   `json:"tests"`
	Coverage float64        `json:"coverage"` // percent of the lines
	Files    []FileCoverage `json:"files"`
}

// Test runs the rules whose names begin with test_. The error is a FaultsError if
// they cannot be run at all.
func (p *Program) Test(ctx context.Context) (*Report, error) { return p.source.test(allowing(ctx)) }

// test is Test with what ctx allows.
func (s Source) test(ctx context.Context) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, testsTime)
	defer cancel()
	modules, err := s.parse() // which the tester changes
	if err != nil {
		return nil, err
	}
	store := inmem.New()
	txn, err := store.NewTransaction(ctx, storage.WriteParams)
	if err != nil {
		return nil, fault("the tests cannot be run: %v", err)
	}
	defer store.Abort(ctx, txn)
	lines := cover.New()
	runner := tester.NewRunner().SetStore(store).SetModules(modules).SetCompiler(newCompiler()).SetTimeout(testTime).SetParallel(1).
		RaiseBuiltinErrors(true).CapturePrintOutput(true).SetCoverageRuns(nil).SetCoverageQueryTracer(lines)
	results, err := runner.RunTests(ctx, txn)
	if err != nil {
		return nil, faults(err)
	}
	r := &Report{Tests: []TestResult{}, Files: []FileCoverage{}}
	for x := range results {
		t := TestResult{Name: strings.TrimPrefix(x.Package, "data.") + "." + x.Name, Outcome: "pass"}
		if x.Location != nil {
			t.File, t.Line = x.Location.File, x.Location.Row
		}
		switch {
		case x.Skip:
			t.Outcome = "skip"
		case x.Error != nil:
			t.Outcome, t.Message = "error", x.Error.Error()
		case x.Fail:
			t.Outcome, t.Message = "fail", "the rule is false or undefined"
			if x.FailedAt != nil && x.FailedAt.Location != nil {
				t.Message = fmt.Sprintf("line %d is false or undefined: %s", x.FailedAt.Location.Row, x.FailedAt.Location.Text)
			}
		}
		switch t.Outcome {
		case "pass":
			r.Passed++
		case "fail", "error":
			r.Failed++
		}
		r.Tests = append(r.Tests, t)
	}
	if ctx.Err() != nil {
		return nil, fault("the tests take longer than %s", testsTime)
	}
	covered := lines.Report(modules)
	r.Coverage = covered.Coverage
	for name, f := range covered.Files {
		c := FileCoverage{File: name, Percent: f.Coverage, NotCovered: []Lines{}}
		for _, x := range f.NotCovered {
			c.NotCovered = append(c.NotCovered, Lines{x.Start.Row, x.End.Row})
		}
		r.Files = append(r.Files, c)
	}
	slices.SortFunc(r.Files, func(a, b FileCoverage) int { return strings.Compare(a.File, b.File) })
	slices.SortFunc(r.Tests, func(a, b TestResult) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	return r, nil
}

// Err is the tests that have failed as a FaultsError, nil if none has.
func (r *Report) Err() error {
	e := &FaultsError{}
	for _, t := range r.Tests {
		if t.Outcome == "fail" || t.Outcome == "error" {
			e.Faults = append(e.Faults, Fault{File: t.File, Line: t.Line, Column: 1, Message: "the test " + t.Name + " has failed: " + t.Message})
		}
	}
	if len(e.Faults) == 0 {
		return nil
	}
	return e
}
