// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"encoding/binary"
	"strings"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/placement"
)

// leftPrefix is that of tombstones' keys, beside those of heartbeats, which have no dot.
const leftPrefix = "left."

func beatKey(name string) string { return placement.BeatKey(partition.Broker(name)) }

func leftKey(name string) string { return leftPrefix + beatKey(name) }

// parseKey takes the key of a heartbeat, or of a tombstone, apart.
func parseKey(key string) (name string, left, ok bool) {
	rest, left := strings.CutPrefix(key, leftPrefix)
	b, ok := placement.ParseBeatKey(rest)
	return string(b), left, ok
}

// Tombstone says that a broker left, or was forced out.
type Tombstone struct {
	Name string
	// Count is that of its last heartbeat, 0 if that was not there any more.
	Count uint64
	// At is when it was written, by the clock of the bus.
	At       time.Time
	revision bus.Revision
}

// The value of a tombstone: version, count u64.
const (
	tombstoneVersion = 1
	tombstoneSize    = 9
)

// Leave makes a broker no member of the cluster any more: itself, once it has given up
// its partitions, or another that will not come back with what it had. The tombstone
// comes first, so that none of its heartbeats is believed from then on. It may be called
// again. The error is NotFound if there is no such member, or Unavailable.
func Leave(ctx context.Context, beats bus.Bucket, name string) error {
	value := make([]byte, tombstoneSize)
	value[0] = tombstoneVersion
	e, err := beats.Get(ctx, beatKey(name))
	switch {
	case err == nil:
		if b, err := placement.ParseBeat(e.Value); err == nil {
			binary.BigEndian.PutUint64(value[1:], b.Count)
		}
	case errs.Is(err, errs.NotFound):
		// Perhaps it died between the two steps.
		t, err := Left(ctx, beats, name)
		if err != nil {
			return err
		}
		if t == nil {
			return errs.New(errs.NotFound, "expected the name of a member of the cluster, found %q", name)
		}
		return nil
	default:
		return err
	}
	if _, err := beats.Put(ctx, leftKey(name), value, bus.Any); err != nil {
		return err
	}
	return beats.Delete(ctx, beatKey(name), bus.Any)
}

// Left returns the tombstone of a broker, nil if there is none. A broker reads its own
// before its first heartbeat.
func Left(ctx context.Context, beats bus.Bucket, name string) (*Tombstone, error) {
	e, err := beats.Get(ctx, leftKey(name))
	if errs.Is(err, errs.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t := &Tombstone{Name: name, At: e.Created, revision: e.Revision}
	if len(e.Value) == tombstoneSize && e.Value[0] == tombstoneVersion {
		t.Count = binary.BigEndian.Uint64(e.Value[1:])
	}
	return t, nil
}

// Return takes the tombstone of a broker away, which has reset its store since it read
// it: its next heartbeat makes it a member, as one that never was. The error is Conflict
// if it was forced out again meanwhile, and must reset again.
func Return(ctx context.Context, beats bus.Bucket, t *Tombstone) error {
	return beats.Delete(ctx, leftKey(t.Name), t.revision)
}
