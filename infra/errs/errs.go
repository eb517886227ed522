// SPDX-License-Identifier: Apache-2.0

// Package errs says what kind of failure an error is. The set of kinds is
// closed, so that each edge (MQTT reason code, HTTP status, exit code) can map
// all of them in one table. It owns no goroutine and knows no edge.
package errs

import (
	"context"
	"errors"
	"fmt"
)

// Kind is the kind of a failure. The zero Kind is Internal: an error that says
// nothing about itself is ours to explain.
type Kind uint8

// The kinds.
const (
	// Internal is a fault of ours.
	Internal Kind = iota
	// Invalid is a request that can never succeed as it stands.
	Invalid
	// Denied is a caller that may not do this.
	Denied
	// NotFound is a thing that does not exist, or that the caller may not see.
	NotFound
	// Conflict is a request that the present state forbids.
	Conflict
	// Quota is a limit that is reached.
	Quota
	// Unavailable is something that is not reachable now; trying later may
	// help.
	Unavailable
)

func (k Kind) String() string {
	switch k {
	case Internal:
		return "internal"
	case Invalid:
		return "invalid"
	case Denied:
		return "denied"
	case NotFound:
		return "not found"
	case Conflict:
		return "conflict"
	case Quota:
		return "quota"
	case Unavailable:
		return "unavailable"
	}
	return fmt.Sprintf("Kind(%d)", uint8(k))
}

// Kinder is an error of another type that knows its Kind.
type Kinder interface {
	error
	ErrKind() Kind
}

// Error is an error with a Kind and, where a program must tell it from others
// of its Kind, a Code. It is immutable.
type Error struct {
	Kind Kind
	// Code is a snake_case word for programs, such as "tenant_taken"; it may
	// be empty.
	Code string
	err  error
}

// Error is the text alone: Kind and Code are for programs.
func (e *Error) Error() string { return e.err.Error() }

// Unwrap returns what the format made, which has all that it wrapped with %w.
func (e *Error) Unwrap() error { return e.err }

// ErrKind makes Error a Kinder.
func (e *Error) ErrKind() Kind { return e.Kind }

// New returns an error of that kind. The format is fmt.Errorf's, %w included.
// It takes one %w at most; with more, none is found by errors.Is.
func New(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, err: fmt.Errorf(format, args...)}
}

// Coded returns an error of that kind which carries a Code for programs.
func Coded(kind Kind, code, format string, args ...any) error {
	return &Error{Kind: kind, Code: code, err: fmt.Errorf(format, args...)}
}

// KindOf returns the kind of the outermost error in err's chain that has one.
// A context that ended is Unavailable; anything else without a kind is
// Internal, also nil.
func KindOf(err error) Kind {
	if k, ok := errors.AsType[Kinder](err); ok {
		return k.ErrKind()
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Unavailable
	}
	return Internal
}

// Is reports whether err is not nil and of that kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// CodeOf returns the Code of the outermost Error in err's chain, or "".
func CodeOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}
