// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/manormq/manor/infra/errs"
)

// Bounds of what a builtin may be given and may make. A builtin cannot be interrupted, and
// no recover helps a process that has no memory left: what would be too large is refused
// before it is made.
const (
	textMost     = 64 << 10
	elementsMost = 10_000
	// madeMost is what all builtins of one evaluation may make, in bytes.
	madeMost = 64 << 20
	// digitsMost is how many digits a number may have, numbersMost how many are multiplied.
	digitsMost  = 400
	numbersMost = 1000
	// patternMost is how long a regular expression or glob may be, stepsMost the product of its
	// length, repetitions written out, and the text's.
	patternMost = 1000
	stepsMost   = 10_000_000
	// depthMost is how deeply values of walk may be nested: each of its paths is as long.
	depthMost = 64
)

// allowance is what builtins may make in one evaluation. It is safe for concurrent use.
type allowance struct {
	text, elements int
	made           atomic.Int64 // what is left of all together
}

type allowanceKey struct{}

// allowing gives an evaluation an allowance. Without one the bounds of each single result
// hold all the same.
func allowing(ctx context.Context) context.Context {
	a := &allowance{text: textMost, elements: elementsMost}
	a.made.Store(madeMost)
	return context.WithValue(ctx, allowanceKey{}, a)
}

// allowingOperator is allowing for the policies of who runs the installation: they see
// requests of a mebibyte.
func allowingOperator(ctx context.Context) context.Context {
	a := &allowance{text: 4 << 20, elements: 1_000_000}
	a.made.Store(1 << 30)
	return context.WithValue(ctx, allowanceKey{}, a)
}

// allowed is the allowance of a call.
func allowed(ctx context.Context) *allowance {
	if ctx != nil {
		if a, ok := ctx.Value(allowanceKey{}).(*allowance); ok {
			return a
		}
	}
	a := &allowance{text: textMost, elements: elementsMost}
	a.made.Store(madeMost)
	return a
}

// take takes what a result of so many bytes and elements needs, or says why it may not be.
func (a *allowance) take(what string, bytes, elements int) error {
	switch {
	case bytes > a.text:
		return fmt.Errorf("expected %s of at most %d bytes of text", what, a.text)
	case elements > a.elements:
		return fmt.Errorf("expected %s of at most %d elements", what, a.elements)
	case a.made.Add(-int64(bytes)-elementBytes*int64(elements)) < 0:
		return fmt.Errorf("expected the builtins of one evaluation to make at most %d MiB", madeMost>>20)
	}
	return nil
}

// elementBytes is about what an element of a collection takes beside its text.
const elementBytes = 64

// size is how large a value is, written out: what occurs twice in it counts twice.
type size struct {
	bytes, elements int
	// depth is of the deepest collection.
	depth int
	wrong string
}

// over reports whether there is no need to look on.
func (s *size) over(a *allowance) bool {
	return s.bytes > a.text || s.elements > a.elements || s.wrong != ""
}

// add looks at v, and stops where the allowance ends.
func (s *size) add(a *allowance, v ast.Value, depth int) {
	s.depth = max(s.depth, depth)
	each := func(t *ast.Term) bool {
		s.elements++
		s.add(a, t.Value, depth+1)
		return s.over(a)
	}
	switch v := v.(type) {
	case ast.String:
		s.bytes += len(v)
	case ast.Number:
		s.bytes += len(v)
		s.number(string(v))
	case *ast.Array:
		v.Until(each)
	case ast.Set:
		v.Until(each)
	case ast.Object:
		v.Until(func(k, e *ast.Term) bool { return each(k) || each(e) })
	}
}

// number refuses what has more than digitsMost digits, written out.
func (s *size) number(n string) {
	digits, exponent := n, 0
	if i := strings.IndexAny(n, "eE"); i >= 0 {
		var err error
		digits = n[:i]
		if exponent, err = strconv.Atoi(n[i+1:]); err != nil {
			exponent = math.MaxInt32
		}
	}
	if len(digits) > digitsMost || exponent > digitsMost || exponent < -digitsMost {
		s.wrong = fmt.Sprintf("expected numbers of at most %d digits", digitsMost)
	}
}

// sizeOf adds values up.
func sizeOf(a *allowance, terms ...*ast.Term) (size, error) {
	var s size
	for _, t := range terms {
		if s.add(a, t.Value, 0); s.wrong != "" {
			return s, fmt.Errorf("%s", s.wrong)
		}
		if s.over(a) {
			break
		}
	}
	return s, nil
}

// guard puts the bounds around builtins. OPA has one table of builtins for the whole process,
// so they hold for every evaluation in it, those of the built-in rules too.
func guard(builtins []*ast.Builtin) {
	for _, b := range builtins {
		f := topdown.GetBuiltin(b.Name)
		if f == nil {
			continue // OPA evaluates it itself
		}
		limit := bounds[b.Name]
		if limit != nil {
			b.CanSkipBctx = false // the context has the allowance
		}
		topdown.RegisterBuiltinFunc(b.Name, guarded(b.Name, b.Decl.Arity(), limit, f))
	}
}

// guarded is a builtin that is held to a bound, if there is one. What panics in it ends the
// evaluation: OPA's test runner has goroutines of its own, where a panic would end the process
// of all tenants.
func guarded(name string, arity int, limit bound, f topdown.BuiltinFunc) topdown.BuiltinFunc {
	return func(c topdown.BuiltinContext, args []*ast.Term, iter func(*ast.Term) error) (err error) {
		defer func() {
			if x := recover(); x != nil {
				err = halt(c, name, fmt.Errorf("cannot go on: %v", x))
			}
		}()
		if limit != nil {
			if err := limit.hold(allowed(c.Context), args[:min(arity, len(args))]); err != nil {
				return halt(c, name, err)
			}
		}
		return f(c, args, iter)
	}
}

// hold holds arguments to the bound.
func (b bound) hold(a *allowance, args []*ast.Term) error {
	s, err := sizeOf(a, args...)
	if err != nil {
		return err
	}
	if err := a.take("arguments", s.bytes, s.elements); err != nil {
		return err
	}
	return b(a, s, args)
}

// halt ends an evaluation, with the place: what is over a bound is not undefined.
func halt(c topdown.BuiltinContext, name string, err error) error {
	return topdown.Halt{Err: &topdown.Error{Code: topdown.BuiltinErr, Location: c.Location, Message: fmt.Sprintf("%s: %v", name, err)}}
}

// toJSON makes the result of an evaluation what Go can read. A small value in memory can be
// large written out, where it has others many times.
func toJSON(ctx context.Context, v ast.Value) (any, error) {
	a := allowed(ctx)
	all := &allowance{text: resultMost, elements: a.elements * resultFactor}
	var s size
	s.add(all, v, 0)
	switch {
	case s.wrong != "":
		return nil, errs.New(errs.Invalid, "the result: %s", s.wrong)
	case s.over(all):
		return nil, errs.New(errs.Invalid, "expected a result of at most %d bytes of text and %d elements, written out", all.text, all.elements)
	}
	return ast.JSON(v)
}

const (
	// resultMost is the text of a result, resultFactor how many times the elements of a
	// collection it may have: it is grants, of some elements each.
	resultMost   = 16 << 20
	resultFactor = 100
)
