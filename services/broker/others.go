// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/layout"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/routes"
	"github.com/manormq/manor/services/broker/shard"
)

// The region as what the shards have of other brokers, and as what hears those.

// Self implements shard.Cluster.
func (r *region) Self() string { return r.name }

// Owner implements shard.Cluster.
func (r *region) Owner(p partition.ID) (name string, epoch uint64) {
	if o := r.owners[p].Load(); o != nil {
		return o.name, o.epoch
	}
	return "", 0
}

// Brokers implements shard.Cluster.
func (r *region) Brokers() []string {
	var names []string
	seen := map[string]bool{r.name: true, "": true}
	for p := range r.owners {
		if o := r.owners[p].Load(); o != nil && !seen[o.name] {
			seen[o.name] = true
			names = append(names, o.name)
		}
	}
	return names
}

// Cell implements shard.Cluster.
func (r *region) Cell(tenant string) shard.Cell {
	c, _ := r.layout.Cell(tenant)
	return cellOf(c)
}

// Place implements shard.Cluster.
func (r *region) Place(tenant string, m int) shard.Cell { return cellOf(r.layout.Open(tenant, m)) }

// cellOf is a cell as shards have it: without a list if that is the plan's.
func cellOf(c layout.Cell) shard.Cell {
	out := shard.Cell{List: c.Partitions, To: c.To, Stage: shard.Stage(c.Stage), Revision: c.Revision}
	if len(c.Partitions) == 0 {
		out.List = nil
	}
	return out
}

// handMark is the first byte of what a broker hands over to another: no frame of a gateway's
// link begins so, and no desk's question.
const handMark = 0xFE

// Hand implements shard.Cluster.
func (r *region) Hand(to string, b []byte, done func(ok bool)) error {
	return r.mesh.Ask(to, "", append([]byte{handMark}, b...), func(a cluster.Answer) { done(a.Err == nil && a.Body == handTaken) })
}

// handTaken is the answer to what was handed over and taken.
const handTaken = "taken"

// cellChanged takes the record of a tenant's cell.
func (r *region) cellChanged(tenant string, c layout.Cell) {
	if r.shards == nil {
		return // it asks when it is made
	}
	r.shards.SetCell(tenant, cellOf(c))
	if c.Stage != layout.Settled {
		select {
		case r.moved <- struct{}{}:
		default:
		}
	}
	if c.Placed() {
		r.mu.Lock()
		r.mu.placed[tenant] = true
		r.mu.Unlock()
		r.signal()
	}
}

// Append implements shard.Cluster.
func (r *region) Append(p partition.ID, epoch uint64, batch []byte, done func(error)) {
	r.host.Append(p, epoch, batch, done)
}

// Send implements shard.Cluster.
func (r *region) Send(to string, e *cluster.Enqueue, over cluster.LinkID, done func(cluster.Answer)) (cluster.LinkID, error) {
	return r.mesh.Enqueue(to, e, over, done)
}

// Ask implements shard.Cluster.
func (r *region) Ask(to string, q *link.Query, done func(*link.Answer, error)) error {
	b, _, _ := link.AppendUp(nil, &link.Up{Frames: []link.UpFrame{{Kind: link.UpQuery, Query: q}}}, 0)
	return r.mesh.Ask(to, q.Tenant, b, func(a cluster.Answer) {
		if a.Err != nil {
			done(nil, a.Err)
			return
		}
		var down link.Down
		err := link.DecodeDown([]byte(a.Body), 1, &down)
		if err == nil && (len(down.Frames) != 1 || down.Frames[0].Answer == nil) {
			err = errors.New("it is no answer")
		}
		if err != nil {
			done(nil, fmt.Errorf("answer of broker %s: %w", to, err))
			return
		}
		done(down.Frames[0].Answer, nil)
	})
}

// AddRoute implements shard.Cluster.
func (r *region) AddRoute(tenant, filter string, p partition.ID, epoch uint64, reached func()) {
	r.routes.Add(tenant, filter, p, epoch, reached)
}

// AwaitRoute implements shard.Cluster.
func (r *region) AwaitRoute(tenant, filter string, p partition.ID, reached func()) {
	r.routes.Await(tenant, filter, p, reached)
}

// RemoveRoute implements shard.Cluster.
func (r *region) RemoveRoute(tenant, filter string, p partition.ID, epoch uint64) {
	r.routes.Remove(tenant, filter, p, epoch)
}

// SetGroup implements shard.Cluster.
func (r *region) SetGroup(tenant, key string, p partition.ID, epoch uint64, members, online, durable int) {
	r.routes.SetGroup(tenant, key, p, epoch, routes.GroupState{Members: members, Online: online, Durable: durable})
}

// Gaining implements shard.Cluster.
func (r *region) Gaining(p partition.ID, epoch uint64) {
	r.gaining[p].Store(true)
	r.routes.Gaining(p, epoch)
}

// Gained implements shard.Cluster.
func (r *region) Gained(p partition.ID, epoch uint64, has func(tenant, filter string) bool) {
	r.gaining[p].Store(false)
	r.routes.Gained(p, epoch, has)
}

// Lost implements shard.Cluster. What is lost before it was gained could not be restored
// from the store: another broker is to have it.
func (r *region) Lost(p partition.ID, epoch uint64) {
	r.routes.Lost(p, epoch)
	if r.gaining[p].Swap(false) {
		r.host.Refuse(p, epoch)
	}
}

// Recheck implements shard.Cluster.
func (r *region) Recheck(tenant, filter string, p partition.ID) { r.routes.Recheck(tenant, filter, p) }

// FarRoute implements routes.Sink.
func (r *region) FarRoute(tenant, filter string, p partition.ID, present bool) {
	r.shards.FarRoute(tenant, filter, p, present)
}

// FarGroup implements routes.Sink.
func (r *region) FarGroup(tenant, key string, p partition.ID, g routes.GroupState) {
	r.shards.FarGroup(tenant, key, p, g.Online, g.Durable)
}

// Enqueue implements cluster.Receiver.
func (r *region) Enqueue(from string, e *cluster.Enqueue, answer func(cluster.Answer)) {
	r.inlet(from).Enqueue(e, answer)
}

// Batched implements cluster.Receiver.
func (r *region) Batched(from string) { r.inlet(from).Flush() }

// inlet is where what a broker sends comes in.
func (r *region) inlet(from string) *shard.Inlet {
	r.mu.Lock()
	defer r.mu.Unlock()
	in := r.mu.inlets[from]
	if in == nil {
		in = r.shards.Inlet(from)
		r.mu.inlets[from] = in
	}
	return in
}

// Told implements cluster.Receiver.
func (r *region) Told(from string, s cluster.Stream, b []byte) {
	switch s {
	case cluster.Replication:
		r.host.Told(from, b)
	case cluster.Metadata:
		r.host.Told(from, nil)
		r.meta.Receive(from, bytes.Clone(b))
	}
}

// Asked implements cluster.Receiver.
func (r *region) Asked(from string, b []byte, reply func([]byte)) {
	if len(b) > 0 && b[0] == deskMark {
		own := bytes.Clone(b[1:])
		go func() { reply(r.desk.answer(from, own)) }() // it may wait for turns
		return
	}
	if len(b) > 0 && b[0] == handMark {
		r.shards.TakeHanded(bytes.Clone(b[1:]), func(ok bool) {
			if ok {
				reply([]byte(handTaken))
			} else {
				reply(nil)
			}
		})
		return
	}
	var up link.Up
	if err := link.DecodeUp(bytes.Clone(b), 1, &up); err != nil || len(up.Frames) != 1 || up.Frames[0].Query == nil {
		r.log.Warn("a broker asks what this one does not know", slog.String("broker", from), slog.Any("error", err))
		reply(nil)
		return
	}
	go func() { // it waits for turns
		a := r.shards.AskHere(up.Frames[0].Query)
		var e link.DownEncoder
		out, _, _ := e.Append(nil, &link.Down{Frames: []link.DownFrame{{Kind: link.DownAnswer, Answer: a}}}, 0)
		reply(out)
	}()
}

// Linked implements cluster.Receiver.
func (r *region) Linked(to string, up bool) {
	if up {
		r.speaks.Store(to, r.mesh.Version(to))
		r.judge()
	}
	r.members.Linked(to, up)
	r.host.Linked(to, up)
}

// judge has what is written be what every member can read, as far as their links have
// said: any of them may own any partition next.
func (r *region) judge() {
	all := true
	for _, m := range r.members.Snapshot().Members {
		all = all && (m.Name == r.name || r.spoke(m.Name) >= cluster.VersionInside)
	}
	r.shards.SetInside(all)
}

// spoke is the version that another broker spoke last, 0 if there was no link to it since
// this one was started.
func (r *region) spoke(name string) uint8 {
	v, _ := r.speaks.Load(name)
	version, _ := v.(uint8)
	return version
}
