// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A question that nobody answers is asked again, and not for longer than the caller has.
func TestAskEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun, asked := time.Now(), 0
		answer := func(after int) func(ctx context.Context) (int, error) {
			return func(ctx context.Context) (int, error) {
				if asked++; asked > after {
					return asked, nil
				}
				<-ctx.Done()
				return 0, ctx.Err()
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if n, err := askEach(ctx, createAgain, answer(2)); n != 3 || err != nil || time.Since(begun) != 2*createAgain {
			t.Errorf("answered at attempt %d after %v, %v, expected the third after %v", n, time.Since(begun), err, 2*createAgain)
		}
		if _, err := askEach(ctx, createAgain, answer(100)); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != 30*time.Second {
			t.Errorf("given up after %v with %v, expected 30 s and a deadline", time.Since(begun), err)
		}
	})
}
