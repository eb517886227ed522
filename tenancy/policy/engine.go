// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/manormq/manor/infra/errs"
)

// patience is how many times the time of an evaluation is waited for: the bound is
// time of work, and a busy machine has others to do.
const patience = 10

// engine evaluates rules of modules that were compiled together. It is immutable once
// its bounds are set.
type engine struct {
	compiler *ast.Compiler
	// time is how long one evaluation may work, 0 for no bound; bound names what says so.
	time  time.Duration
	bound string
	// operator: the policy is of who runs the installation, and may make more.
	operator bool
}

// allowing gives an evaluation what its builtins may make.
func (e *engine) allowing(ctx context.Context) context.Context {
	if e.operator {
		return allowingOperator(ctx)
	}
	return allowing(ctx)
}

// Patience is after what time an evaluation is cut off, 0 for never.
func (e *engine) Patience() time.Duration { return patience * e.time }

// compile parses and compiles. The error is a FaultsError.
func (s Source) compile() (engine, error) {
	modules, err := s.parse()
	if err != nil {
		return engine{}, err
	}
	e := engine{compiler: newCompiler()}
	e.compiler.Compile(modules)
	if e.compiler.Failed() {
		return engine{}, faults(e.compiler.Errors)
	}
	return e, nil
}

// newCompiler returns one for what policies may use.
func newCompiler() *ast.Compiler {
	stage := func(name string, stage ast.CompilerStage) ast.CompilerStageDefinition {
		return ast.CompilerStageDefinition{Name: name, MetricName: "compile_stage_" + name, Stage: stage}
	}
	return ast.NewCompiler().WithCapabilities(capabilities).
		WithStageAfterID(ast.StageCheckRecursion, stage("types_bound", typesBound)).
		WithStageAfterID(ast.StageCheckTypes, stage("bound_written", boundWritten))
}

// has reports whether there is a rule of that name.
func (e *engine) has(rule string) bool {
	return len(e.compiler.GetRulesExact(ast.MustParseRef(rule))) > 0
}

// hasAny is has, also of rules for a part of the value, such as limits.connections.
func (e *engine) hasAny(rule string) bool {
	return len(e.compiler.GetRules(ast.MustParseRef(rule))) > 0
}

// prepare makes a query ready to be evaluated again and again.
func (e *engine) prepare(ctx context.Context, query string) (rego.PreparedEvalQuery, error) {
	return rego.New(rego.Query(query), rego.Compiler(e.compiler), rego.StrictBuiltinErrors(true)).PrepareForEval(ctx)
}

// eval returns what a query is now, nil if it is undefined.
func (e *engine) eval(ctx context.Context, q rego.PreparedEvalQuery, input any, tracer topdown.QueryTracer) (v any, err error) {
	// A builtin that panics must not end the process of all tenants.
	defer func() {
		if x := recover(); x != nil {
			v, err = nil, errs.Coded(errs.Invalid, "policy_failed", "the evaluation cannot go on: %v", x)
		}
	}()
	if e.time > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience*e.time)
		defer cancel()
	}
	ctx = e.allowing(ctx)
	opts := []rego.EvalOption{rego.EvalGenerateJSON(func(t *ast.Term, _ *rego.EvalContext) (any, error) { return toJSON(ctx, t.Value) })}
	if input != nil {
		opts = append(opts, rego.EvalInput(input))
	}
	if tracer != nil {
		opts = append(opts, rego.EvalQueryTracer(tracer))
	}
	results, err := q.Eval(ctx, opts...)
	switch {
	case err != nil && topdown.IsCancel(err):
		return nil, errs.Coded(errs.Invalid, "policy_time", "the evaluation takes longer than %s of %d ms allows", e.bound, e.time.Milliseconds())
	case err != nil:
		return nil, errs.Coded(errs.Invalid, "policy_failed", "%w", err)
	case len(results) == 0 || len(results[0].Expressions) == 0:
		return nil, nil
	}
	return results[0].Expressions[0].Value, nil
}

// evaluationFault is an evaluation of what that has failed, as a fault where it did.
func evaluationFault(what string, err error) error {
	if e, ok := errsAs[*topdown.Error](err); ok && e.Location != nil {
		return &FaultsError{[]Fault{{File: e.Location.File, Line: e.Location.Row, Column: e.Location.Col, Message: what + ": " + e.Message}}}
	}
	return fault("%s: %v", what, err)
}
