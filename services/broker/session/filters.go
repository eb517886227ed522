// SPDX-License-Identifier: Apache-2.0

package session

import (
	"hash/maphash"

	"github.com/manormq/manor/infra/mqtt"
)

// filters says where a filter stands in a session's subscriptions: places plus
// one by the hash of the filter, 0 where nothing is, at most three quarters
// taken. A map of the filters would take 40 bytes for each instead of 8.
type filters []uint32

// seed makes the hashes differ from process to process, so that no client can
// choose filters that collide. Nothing else depends on it.
var seed = maphash.MakeSeed()

// newFilters indexes subs, with room for as many again.
func newFilters(subs []mqtt.Subscription) filters {
	size := 64
	for size*3 < len(subs)*2*4 {
		size *= 2
	}
	f := make(filters, size)
	for i := range subs {
		f.put(subs, i)
	}
	return f
}

// home is where the search for filter begins.
func (f filters) home(filter string) int {
	return int(maphash.String(seed, filter)) & (len(f) - 1)
}

// find returns the place in f where filter is, or the empty one where it would
// be, and its place in subs, or -1.
func (f filters) find(subs []mqtt.Subscription, filter string) (i, at int) {
	for i = f.home(filter); f[i] != 0; i = (i + 1) & (len(f) - 1) {
		if at = int(f[i] - 1); subs[at].Filter == filter {
			return i, at
		}
	}
	return i, -1
}

// put indexes subs[at], whose filter is not there.
func (f filters) put(subs []mqtt.Subscription, at int) {
	i, _ := f.find(subs, subs[at].Filter)
	f[i] = uint32(at + 1)
}

// remove empties place i and moves up what would not be found behind it.
func (f filters) remove(subs []mqtt.Subscription, i int) {
	mask := len(f) - 1
	for k := (i + 1) & mask; f[k] != 0; k = (k + 1) & mask {
		if home := f.home(subs[f[k]-1].Filter); (k-home)&mask >= (k-i)&mask {
			f[i], i = f[k], k
		}
	}
	f[i] = 0
}
