// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/member"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/placement"
)

// newKey is in a store of a broker of a cluster until it was looked whether an earlier
// broker of its name has left: this one, with a store of its own, may have the name.
var newKey = []byte{0xFF, 0xFF, 'n'}

// identityKey is where a store of a broker of a cluster has its identity, storePrefix
// that of the keys of the bucket of heartbeats that say which store a name has.
var identityKey = []byte{0xFF, 0xFF, 'i'}

const storePrefix = "store."

// shapeKey is the key of the bucket of heartbeats that says what every broker of the
// region must agree about for ever; no heartbeat has it.
const shapeKey = "region.shape"

// shapeOf is what stands under shapeKey.
func shapeOf(c *Config) string {
	return fmt.Sprintf("partitions=%d reserved=%d", c.Partitions, c.Cluster.Reserved)
}

// sameShape holds that a region has the number of partitions, and of reserved ones, that
// the configuration says; the first broker says it for all. Brokers that disagreed would
// look for sessions in different places.
func sameShape(ctx context.Context, beats bus.Bucket, shape string) error {
	for {
		held, err := beats.Get(ctx, shapeKey)
		switch {
		case errs.Is(err, errs.NotFound):
			if _, err := beats.Put(ctx, shapeKey, []byte(shape), bus.Absent); err == nil || !errs.Is(err, errs.Conflict) {
				return err
			}
		case err != nil:
			return err
		case string(held.Value) != shape:
			return fmt.Errorf("this broker is configured with %s and the region with %s: set partitions and cluster.reserved so", shape, held.Value)
		default:
			return nil
		}
	}
}

// errReplaced ends a broker whose name another store has.
var errReplaced = errors.New("another broker with this name and a newer store has taken its place: what this one has counts no more; empty its data folder and give it another name, or stop the other one")

// The times of comeBack: how long the control plane is asked by a broker whose store is
// new, and by one that was a member before; and the pause between two attempts.
const (
	comeTime  = 20 * time.Second
	lookTime  = 2 * time.Second
	comeAgain = 200 * time.Millisecond
)

// comeBack looks, before the first heartbeat, whether this store may speak for the
// broker of this name. A name that was given up is free for a new store, and so is that
// of a broker whose disk was lost; the newest store has it, and an older one that turns
// up is refused. A new broker needs the control plane for that, one that was a member
// starts without it: the others, or members.Retired, tell it.
func comeBack(store kv.Store, beats bus.Bucket, name, shape string, log *slog.Logger) error {
	_, err := store.Get(newKey)
	fresh := err == nil
	if err != nil && !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	id, err := identity(store)
	if err != nil {
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
	}
	if err := sameShape(ctx, beats, shape); err != nil {
		return err
	}
	key := storePrefix + placement.BeatKey(partition.Broker(name))
	held, err := beats.Get(ctx, key)
	switch {
	case err != nil && !errs.Is(err, errs.NotFound):
		return err
	case err == nil && !fresh && !bytes.Equal(held.Value, id):
		return errReplaced
	case err != nil || !bytes.Equal(held.Value, id):
		if _, err := beats.Put(ctx, key, id, held.Revision); err != nil {
			return err
		}
	}
	// The older store is refused from here on, so that the tombstone may go.
	if t != nil {
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

// identity is what no other store has: random bytes, made at the first start.
func identity(store kv.Store) ([]byte, error) {
	id, err := store.Get(identityKey)
	if !errors.Is(err, kv.ErrNotFound) {
		return id, err
	}
	id = make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return nil, err
	}
	var b kv.Batch
	b.Put(identityKey, id)
	return id, store.Apply(&b, true)
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
