// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/mqtt"
)

func TestQuantile(t *testing.T) {
	var all []time.Duration
	for i := range 1000 {
		all = append(all, time.Duration(1000-i))
	}
	for q, want := range map[float64]time.Duration{0: 1, .5: 500, .99: 990, 1: 1000} {
		if got := quantile(all, q); got != want {
			t.Errorf("quantile %v is %d, expected %d", q, got, want)
		}
	}
	if got := quantile(nil, .5); got != 0 {
		t.Errorf("of none it is %d", got)
	}
}

// A try takes as long as the slowest gateway, and one that never holds is counted.
func TestTry(t *testing.T) {
	at := func(d time.Duration, err error) func(context.Context) (time.Time, error) {
		return func(context.Context) (time.Time, error) { return time.Now().Add(d), err }
	}
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		effects []func(context.Context) (time.Time, error)
		revoke  error
		held    time.Duration // about
		within  bool
		err     error
	}{
		"held":    {effects: []func(context.Context) (time.Time, error){at(0, nil), at(time.Second, nil)}, held: time.Second, within: true},
		"before":  {effects: []func(context.Context) (time.Time, error){at(-time.Hour, nil)}, within: true},
		"late":    {effects: []func(context.Context) (time.Time, error){at(3*time.Second, nil), at(0, nil)}, held: 3 * time.Second},
		"never":   {effects: []func(context.Context) (time.Time, error){at(0, nil), at(0, errNeverHeld)}},
		"broken":  {effects: []func(context.Context) (time.Time, error){at(0, nil), at(0, broken)}, err: broken},
		"refused": {effects: []func(context.Context) (time.Time, error){at(0, errNeverHeld)}, revoke: broken, err: broken},
	} {
		t.Run(name, func(t *testing.T) {
			undone := false
			k := revocationKind{begin: func(*revoker, context.Context, int) (*attempt, error) {
				return &attempt{
					revoke: func(context.Context) error { return c.revoke }, effects: c.effects,
					undo: func(context.Context) error { undone = true; return nil },
				}, nil
			}}
			got := &revoked{}
			if err := (&revoker{giveUp: time.Second}).try(t.Context(), k, 0, got); !errors.Is(err, c.err) || (err == nil) != (c.err == nil) {
				t.Fatalf("got %v, expected %v", err, c.err)
			}
			if c.err != nil {
				return
			}
			if !undone || got.within(2*time.Second) != c.within || len(got.held)+got.never != 1 {
				t.Errorf("got %+v", got)
			}
			if len(got.held) == 1 && (got.held[0] > c.held+500*time.Millisecond || got.held[0] < c.held-500*time.Millisecond) {
				t.Errorf("held after %v, expected %v", got.held[0], c.held)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
		said error
	}{
		{nil, false, nil},
		{io.EOF, false, nil},
		{refusal(mqtt.NotAuthorized), true, nil},
		{refusal(mqtt.ServerBusy), false, nil},
		{io.ErrNoProgress, false, io.ErrNoProgress},
	} {
		if got, err := refuses(c.err); got != c.want || !errors.Is(err, c.said) {
			t.Errorf("%v: got %v, %v", c.err, got, err)
		}
	}
}

func TestRevocation_Flags(t *testing.T) {
	for _, args := range [][]string{{"-kinds", "nonsense"}, {"-tries", "0"}, {"-at-once", "0"}, {"-limit", "0s"}} {
		r := Revocation{}
		if err := parse("manor bench revocation", args, io.Discard, r.Flags); err != nil {
			t.Fatal(err)
		}
		if err := r.At(t.Context(), &Site{}, io.Discard); !errs.Is(err, errs.Invalid) {
			t.Errorf("%v: got %v, expected Invalid", args, err)
		}
	}
}
