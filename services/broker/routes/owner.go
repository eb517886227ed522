// SPDX-License-Identifier: Apache-2.0

package routes

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
)

// Gaining says that this broker owns p under epoch and is about to restore it. What
// others delete of p from now on is looked at when it is Gained, as a shard adds
// no key that it knows to be there.
func (r *Routes) Gaining(p partition.ID, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if epoch >= r.mu.owned[p].epoch {
		r.mu.owned[p] = owner{epoch: epoch, deleted: map[string]bool{}}
	}
}

// Gained says that this broker owns p under epoch, and has restored it. From now
// on, until Lost, the space is made to say of p what has says: keys that it denies
// are deleted, first those of the former owner and then whatever comes late; a key
// that it has and that another broker deletes is written again. Keys that the space
// lacked before are added by the shard.
//
// has gets a filter, or $share/NAME/FILTER; it must be right before Add, Remove and
// SetGroup are called for the change, may be called by any goroutine, must not
// block and must not call Routes.
func (r *Routes) Gained(p partition.ID, epoch uint64, has func(tenant, filter string) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if epoch < r.mu.owned[p].epoch {
		return
	}
	deleted := r.mu.owned[p].deleted
	r.mu.owned[p] = owner{epoch: epoch, has: has}
	for _, name := range slices.Sorted(maps.Keys(deleted)) {
		if k, err := ParseKey(name); err == nil {
			r.mend(name, k, nil)
		}
	}
	if len(r.mu.gained) == 0 {
		r.mu.gainAt = r.Now().Add(gainPause)
	}
	r.mu.gained[p] = true
	r.poke()
}

// Lost says that this broker does not own p under epoch any more. What of p waits to
// be written is not.
func (r *Routes) Lost(p partition.ID, epoch uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.owned[p].epoch > epoch {
		return
	}
	delete(r.mu.owned, p)
	delete(r.mu.gained, p)
	for name := range r.mu.groups {
		if partOf(name) == p {
			delete(r.mu.groups, name)
		}
	}
	for name, c := range r.mu.pending {
		if partOf(name) == p && c.kind != check && c.epoch <= epoch {
			// Its place in the queue stays; the sink hears what is there instead.
			c.kind, c.epoch = check, 0
		}
	}
	r.mu.ceded[p] = true
	r.poke()
}

// retell tells the sink again of the groups of partitions that were lost here: what came of
// them from their next owners before that was of no use, since what is here counts alone.
func (r *Routes) retell() {
	r.mu.Lock()
	ceded := r.mu.ceded
	if len(ceded) > 0 {
		r.mu.ceded = map[partition.ID]bool{}
	}
	r.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(ceded)) {
		var names []string
		err := r.Store.RangePrefix(Space, string(appendPrefix(nil, p)), func(key metadata.Key, _ metadata.Value) bool {
			if k, err := ParseKey(key.Name); err == nil && k.Group() {
				names = append(names, key.Name)
			}
			return true
		})
		if err != nil {
			r.Log.Error("the groups of a partition that has another owner cannot be read; it is tried again", slog.Int("partition", int(p)), slog.Any("err", err))
			r.mu.Lock()
			r.mu.ceded[p] = true
			r.mu.Unlock()
			continue
		}
		for _, name := range names {
			r.recheck(name)
		}
	}
}

// partOf is the partition in the name of a valid key.
func partOf(name string) partition.ID { return partition.ID(name[1])<<8 | partition.ID(name[2]) }

// changed takes changes of the space. The store's goroutine calls it.
func (r *Routes) changed(changes []metadata.Change) {
	for _, c := range changes {
		switch {
		case c.Old == nil && c.New != nil:
			r.keys.Add(1)
		case c.Old != nil && c.New == nil:
			r.keys.Add(-1)
		}
		k, err := ParseKey(c.Key.Name)
		if err != nil { // of a later version, which tells its own brokers
			r.Log.Debug("a route is not read", slog.Any("err", err))
			continue
		}
		r.tell.Lock()
		r.inform(k, c.New)
		r.tell.Unlock()
		r.heal(c.Key.Name, k, c.New)
	}
}

// inform tells the sink what stands under k; tell is held.
func (r *Routes) inform(k Key, v *metadata.Value) {
	if !k.Group() {
		r.Sink.FarRoute(k.Tenant, k.Filter, k.Partition, v != nil)
		return
	}
	var g GroupState
	if v != nil {
		var err error
		if g, err = ParseGroupState(v.Bytes); err != nil {
			r.Log.Warn("the numbers of a group are not read: it counts as empty", slog.String("tenant", k.Tenant), slog.String("filter", k.Filter), slog.Any("err", err))
		}
	}
	r.Sink.FarGroup(k.Tenant, k.Filter, k.Partition, g)
}

// recheck tells the sink what the space has under a name. What the watch tells is in
// the store before, so the later one of the two is right.
func (r *Routes) recheck(name string) {
	k, err := ParseKey(name)
	if err != nil {
		return
	}
	r.tell.Lock()
	defer r.tell.Unlock()
	v, ok, err := r.Store.Get(metadata.Key{Space: Space, Name: name})
	switch {
	case err != nil:
		r.Log.Error("a route cannot be read", slog.Any("err", err))
	case ok:
		r.inform(k, &v)
	default:
		r.inform(k, nil)
	}
}

// heal has a key of a partition that this broker owns written as it is here.
func (r *Routes) heal(name string, k Key, v *metadata.Value) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mend(name, k, v)
}

// mend is heal; mu is held.
func (r *Routes) mend(name string, k Key, v *metadata.Value) {
	o, ok := r.mu.owned[k.Partition]
	switch {
	case !ok, r.mu.stopped:
		return
	case o.has == nil:
		if v == nil {
			o.deleted[name] = true
		}
		return
	}
	want := change{epoch: o.epoch, kind: put}
	if !o.has(k.Tenant, k.Filter) {
		want.kind = remove
	}
	if k.Group() {
		g := r.mu.groups[name]
		if want.kind == put && g == nil {
			return // the shard is about to say
		}
		if g != nil {
			want.state = g.state
		}
		if want.kind == remove {
			want.state = GroupState{}
		}
		if v != nil && want.kind == put {
			if is, err := ParseGroupState(v.Bytes); err == nil && (is == want.state || v.Rank == o.epoch) {
				return // the latter is an earlier word of this broker
			}
		}
	}
	if there := v != nil; !k.Group() && there == (want.kind == put) || v == nil && want.kind == remove {
		return
	}
	if r.mu.pending[name] == nil {
		r.healed.Add(1)
	}
	r.queue(name, want)
	r.poke()
}

// prefixCost is how many keys can be read in the time that it takes to find where those
// of a partition begin, in every group of the metadata.
const prefixCost = 256

// search looks for the keys of partitions gained: for those of each, or through all keys
// once where that is less.
func (r *Routes) search(now time.Time) {
	r.mu.Lock()
	if len(r.mu.gained) == 0 || now.Before(r.mu.gainAt) {
		r.mu.Unlock()
		return
	}
	gained := r.mu.gained
	r.mu.gained = map[partition.ID]bool{}
	r.mu.Unlock()
	look := func(key metadata.Key, v metadata.Value) bool {
		if k, err := ParseKey(key.Name); err == nil && gained[k.Partition] {
			r.heal(key.Name, k, &v)
		}
		return true
	}
	var err error
	if int64(len(gained))*prefixCost >= r.keys.Load() {
		err = r.Store.Range(Space, look)
	} else {
		for _, p := range slices.Sorted(maps.Keys(gained)) {
			if err = r.Store.RangePrefix(Space, string(appendPrefix(nil, p)), look); err != nil {
				break
			}
		}
	}
	if err == nil {
		return
	}
	r.Log.Error("the routes of former owners cannot be read; it is tried again", slog.Any("err", err))
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range gained {
		if _, ok := r.mu.owned[p]; ok {
			r.mu.gained[p] = true
		}
	}
	r.mu.gainAt = now.Add(time.Second)
}
