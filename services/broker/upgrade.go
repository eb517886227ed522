// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"github.com/manormq/manor/infra/kv"
)

// versionKey is where a store has the version of its layout, u16; a store of before there
// were versions has none, and version 1.
var versionKey = []byte{0xFF, 0xFF, 'v'}

// storeVersion is what this software makes and reads: 2 has entries of the partition table
// (partition.KindTable), 3 deliveries that hold their message (queue.Queue.Keep).
const storeVersion = 3

// upgrades make a store of version 1 one of version 2, that one of version 3, and so on.
// Each may be cut short and done again.
var upgrades = []func(kv.Store) error{
	func(kv.Store) error { return nil }, // the entries are written as they are seen
	func(kv.Store) error { return nil }, // the deliveries as they are made
}

// upgradeStore makes an older store one of storeVersion, before anything else reads it,
// and refuses a newer one.
func upgradeStore(store kv.Store, log *slog.Logger) error {
	have := uint16(1)
	switch v, err := store.Get(versionKey); {
	case err == nil && len(v) == 2:
		have = binary.BigEndian.Uint16(v)
	case err == nil:
		return fmt.Errorf("%w: a version of %d bytes", kv.ErrCorrupt, len(v))
	case !errors.Is(err, kv.ErrNotFound):
		return err
	}
	if have > storeVersion || have == 0 {
		return fmt.Errorf("the store is of version %d, which newer software has made; this one reads up to %d: start the newer software, or begin with an empty data folder", have, storeVersion)
	}
	for ; have < storeVersion; have++ {
		if err := upgrades[have-1](store); err != nil {
			return fmt.Errorf("upgrade of the store from version %d: %w", have, err)
		}
		var b kv.Batch
		b.Put(versionKey, binary.BigEndian.AppendUint16(nil, have+1))
		if err := store.Apply(&b, true); err != nil {
			return err
		}
		log.Info("the store is upgraded", slog.Int("version", int(have)+1))
	}
	return nil
}
