// SPDX-License-Identifier: Apache-2.0

package errs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/manormq/manor/infra/errs"
)

type own struct{}

func (own) Error() string      { return "own" }
func (own) ErrKind() errs.Kind { return errs.Quota }

func TestKindOf(t *testing.T) {
	inner := errs.Coded(errs.NotFound, "no_tenant", "no tenant %q", "acme")
	for _, c := range []struct {
		name string
		err  error
		want errs.Kind
		code string
	}{
		{"nil", nil, errs.Internal, ""},
		{"plain", io.EOF, errs.Internal, ""},
		{"own", errs.New(errs.Invalid, "bad"), errs.Invalid, ""},
		{"coded", inner, errs.NotFound, "no_tenant"},
		{"wrapped by fmt", fmt.Errorf("look up: %w", inner), errs.NotFound, "no_tenant"},
		{"outer kind wins", errs.New(errs.Unavailable, "look up: %w", inner), errs.Unavailable, ""},
		{"other type", fmt.Errorf("x: %w", own{}), errs.Quota, ""},
		{"deadline", fmt.Errorf("x: %w", context.DeadlineExceeded), errs.Unavailable, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := errs.KindOf(c.err); got != c.want {
				t.Errorf("KindOf = %v, want %v", got, c.want)
			}
			if got := errs.CodeOf(c.err); got != c.code {
				t.Errorf("CodeOf = %q, want %q", got, c.code)
			}
		})
	}
}

func TestNew_Wraps(t *testing.T) {
	err := errs.New(errs.Unavailable, "read: %w", io.ErrUnexpectedEOF)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error("the wrapped error is not found")
	}
	both := errs.New(errs.Unavailable, "%w: %w", io.ErrClosedPipe, err)
	if !errors.Is(both, io.ErrClosedPipe) || !errors.Is(both, io.ErrUnexpectedEOF) {
		t.Errorf("%v: one of two wrapped errors is not found", both)
	}
	if got, want := err.Error(), "read: unexpected EOF"; got != want {
		t.Errorf("text %q, want %q", got, want)
	}
	if errs.Is(nil, errs.Internal) {
		t.Error("nil has a kind")
	}
}
