// SPDX-License-Identifier: Apache-2.0

package host

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/manormq/manor/infra/kv"
)

// runKey stands above all partitions and has the number of the newest start, u64.
var runKey = []byte{0xFF, 0xFF, 'r'}

// year2025 is when numbers of starts begin, in milliseconds: they stay below 2^40 for
// 34 years.
const year2025 = 1735689600000

// nextRun numbers a start, higher than all before it: those that the store knows,
// since a clock can be set back, and those of a disk that was lost, which were
// numbered by a clock. Followers take no word from an owner whose numbers go back.
func nextRun(store kv.Store, now time.Time) (uint64, error) {
	last := uint64(0)
	switch v, err := store.Get(runKey); {
	case err == nil && len(v) == 8:
		last = binary.BigEndian.Uint64(v)
	case err == nil:
		return 0, fmt.Errorf("%w: a number of %d bytes", kv.ErrCorrupt, len(v))
	case !errors.Is(err, kv.ErrNotFound):
		return 0, err
	}
	run := max(last+1, uint64(max(now.UnixMilli()-year2025, 1)))
	var b kv.Batch
	b.Put(runKey, binary.BigEndian.AppendUint64(nil, run))
	return run, store.Apply(&b, true)
}
