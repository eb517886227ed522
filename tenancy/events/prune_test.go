// SPDX-License-Identifier: Apache-2.0

package events_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy/events"
)

// brokenStream removes nothing, and counts how often it is asked to.
type brokenStream struct {
	bus.Stream
	err     error
	removed int
}

func (s *brokenStream) Remove(context.Context, string, time.Time) error {
	s.removed++
	return s.err
}

// Where the bus is away Prune ends; other errors are one line, however many there are.
func TestPrune_Errors(t *testing.T) {
	const tenants = 1000
	bad := errors.New("bad sequence")
	for name, x := range map[string]struct {
		err   error
		tries int
		text  string
	}{
		"the bus is away":   {errs.New(errs.Unavailable, "away"), 1, "away"},
		"of single tenants": {bad, tenants, fmt.Sprint(tenants, " tenants")},
		"none":              {nil, tenants, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &brokenStream{err: x.err}
				log := events.NewLog(func(context.Context) (bus.Stream, error) { return s, nil })
				err := log.Prune(t.Context(), time.Now(), func(context.Context) (map[string]int64, error) {
					days := map[string]int64{}
					for i := range tenants {
						days[fmt.Sprint("t-", i)] = 7
					}
					return days, nil
				})
				if !errors.Is(err, x.err) || s.removed != x.tries {
					t.Errorf("%v after %d tenants, expected %v after %d", err, s.removed, x.err, x.tries)
				}
				if err != nil && (!strings.Contains(err.Error(), x.text) || len(err.Error()) > 200) {
					t.Errorf("the error is %q, expected a short one with %q", err, x.text)
				}
			})
		})
	}
}
