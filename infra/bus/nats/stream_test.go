// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// young is a consumer that is known to the server that is asked from a time on.
type young struct {
	jetstream.Consumer
	known time.Time
}

func (c young) Fetch(int, ...jetstream.FetchOpt) (jetstream.MessageBatch, error) {
	none := make(chan jetstream.Msg)
	close(none)
	if time.Now().Before(c.known) {
		return batch{none, nats.ErrNoResponders}, nil
	}
	return batch{none, errLate}, nil
}

type batch struct {
	messages chan jetstream.Msg
	err      error
}

func (b batch) Messages() <-chan jetstream.Msg { return b.messages }
func (b batch) Error() error                   { return b.err }

// TestStream_WhenKnown holds that a consumer which the server does not know yet is asked
// again until it does, and no longer than the call may take; another error ends it at once.
func TestStream_WhenKnown(t *testing.T) {
	for _, row := range []struct {
		known, most, took time.Duration
		want              error
	}{
		{0, time.Second, 0, errLate},
		{95 * time.Millisecond, time.Second, 100 * time.Millisecond, errLate},
		{time.Minute, time.Second, time.Second, nats.ErrNoResponders},
	} {
		synctest.Test(t, func(t *testing.T) {
			begun := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), row.most)
			defer cancel()
			_, err := (&stream{}).whenKnown(ctx, young{known: begun.Add(row.known)}, 1)
			if took := time.Since(begun); !errors.Is(err, row.want) || took != row.took {
				t.Errorf("known after %v: %v after %v, want %v after %v", row.known, err, took, row.want, row.took)
			}
		})
	}
}
