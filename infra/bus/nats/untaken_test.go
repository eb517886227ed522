// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// Only where NATS says that nobody took a change is it known not to have been made.
func TestMapError_Untaken(t *testing.T) {
	for err, untaken := range map[error]bool{
		jetstream.ErrNoStreamResponse: true,
		nats.ErrNoResponders:          true,
		nats.ErrTimeout:               false,
		nats.ErrConnectionClosed:      false,
		context.DeadlineExceeded:      false,
		context.Canceled:              false,
	} {
		got := mapError(err, "put x")
		if errors.Is(got, bus.ErrUntaken) != untaken || !errs.Is(got, errs.Unavailable) || !errors.Is(got, err) {
			t.Errorf("%v: %v (untaken %t), expected Unavailable and untaken %t", err, got, !untaken, untaken)
		}
	}
}
