// SPDX-License-Identifier: Apache-2.0

package fair

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A key has its turns and no more, however many want one; others have the rest at once.
func TestTurns(t *testing.T) {
	t.Parallel()
	turns := NewTurns(4, 2)
	take := func(key string) (func(), error) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		return turns.Take(ctx, key)
	}
	var ends []func()
	for _, step := range []struct {
		key  string
		none bool
	}{{"a", false}, {"a", false}, {"a", true}, {"b", false}, {"a", true}, {"c", false}, {"d", true}} {
		end, err := take(step.key)
		if step.none != errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%d turns are taken, %s: %v", len(ends), step.key, err)
		}
		if err == nil {
			ends = append(ends, end)
		}
	}
	for _, end := range ends {
		end()
		end() // is ended only once
	}
	if len(turns.own) != 0 {
		t.Errorf("%d keys are kept", len(turns.own))
	}
	for n := range 3 {
		if _, err := take("d"); (err != nil) != (n == 2) {
			t.Errorf("the %d. afterwards: %v", n+1, err)
		}
	}
}
