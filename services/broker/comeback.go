// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/member"
)

// newKey is in a store of a broker of a cluster until it was looked whether an earlier
// broker of its name has left: this one, with a store of its own, may have the name.
var newKey = []byte{0xFF, 0xFF, 'n'}

// The times of comeBack: how long the control plane is asked by a broker whose store is
// new, and by one that was a member before; and the pause between two attempts.
const (
	comeTime  = 20 * time.Second
	lookTime  = 2 * time.Second
	comeAgain = 200 * time.Millisecond
)

// comeBack reads whether a broker of this name was given up, before the first heartbeat.
// If it was, and the store is a new one, the name is free again; with the old store the
// error says what to do. A new broker needs the control plane for that, one that was a
// member starts without it: the others, or its members.Retired, tell it.
func comeBack(store kv.Store, beats bus.Bucket, name string, log *slog.Logger) error {
	_, err := store.Get(newKey)
	fresh := err == nil
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	patience := lookTime
	if fresh {
		patience = comeTime
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	t, err := left(ctx, beats, name)
	switch {
	case err != nil && fresh:
		return fmt.Errorf("a new broker needs the control plane, which does not answer within %v: %w", comeTime, err)
	case err != nil:
		log.Warn("it is not known whether this broker was given up: the control plane does not answer", slog.Any("error", err))
		return nil
	case t != nil && !fresh:
		return errRetired
	case t != nil:
		if err := member.Return(ctx, beats, t); err != nil {
			return err
		}
		log.Info("an earlier broker of this name has left: this one takes the name", slog.Time("left_at", t.At))
	}
	if !fresh {
		return nil
	}
	var b kv.Batch
	b.Delete(newKey)
	return store.Apply(&b, true)
}

// left reads the tombstone of a broker, again and again until there is an answer.
func left(ctx context.Context, beats bus.Bucket, name string) (*member.Tombstone, error) {
	for {
		t, err := member.Left(ctx, beats, name)
		if err == nil || !errs.Is(err, errs.Unavailable) || ctx.Err() != nil {
			return t, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(comeAgain):
		}
	}
}
