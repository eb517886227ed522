// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/broker/member"
	"github.com/manormq/manor/services/broker/operate"
	"github.com/manormq/manor/services/broker/partition"
)

// What operators change in the cluster.

// errAlone refuses what only a broker of a cluster can do.
func (d *desk) errAlone() error {
	return errs.New(errs.Conflict, "%s is a broker on its own: cluster.listen makes it one of a cluster", d.name)
}

// mayRecord refuses to change what the brokers record together where that is not known: at a
// broker on its own, and at one that starts, whose records may be older than the others'. What
// it wrote as the next revision would be one that they have already.
func (d *desk) mayRecord() error {
	switch {
	case d.region == nil:
		return d.errAlone()
	case !d.region.host.Informed():
		return errs.New(errs.Unavailable, "%s starts, and does not know yet what the other brokers have recorded: give the command again in a moment, or at another broker", d.name)
	default:
		return nil
	}
}

// Drain implements operate.Cluster.
func (d *desk) Drain(ctx context.Context, name string, undo bool) error {
	switch {
	case d.region == nil:
		return d.errAlone()
	case name == d.name:
		d.log.Warn("an operator says whether this broker drains", slog.Bool("drain", !undo))
		d.region.host.SetDraining(!undo)
		return nil
	default:
		return d.askOne(ctx, name, &question{What: askDrain, Undo: undo})
	}
}

// Leave implements operate.Cluster.
func (d *desk) Leave(ctx context.Context, name string, force bool) (lost []int, err error) {
	if d.region == nil {
		return nil, d.errAlone()
	}
	b := partition.Broker(name)
	for i := range d.config.Partitions {
		e := d.region.host.Entry(partition.ID(i)).Table.Entry
		switch {
		case e.Holds(b) && !force:
			return nil, errs.New(errs.Conflict, "%s still has a replica of partition %d", name, i)
		case e.Owner == b && len(e.InSync) == 1:
			lost = append(lost, i)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := member.Leave(ctx, d.region.beats, name); err != nil {
		return nil, err
	}
	d.log.Warn("an operator had a broker leave the cluster", slog.String("broker", name), slog.Bool("force", force))
	return lost, nil
}

// Abandon implements operate.Cluster. The broker with the best copy becomes the owner:
// of those that are whole the one with the newest record, then of those that may lack
// something; where there is none, one that is to hold the partition begins it empty.
func (d *desk) Abandon(ctx context.Context, id int) (operate.Copy, error) {
	if d.region == nil {
		return operate.Copy{}, d.errAlone()
	}
	p := partition.ID(id)
	table := d.region.host.Entry(p).Table
	if table.Revision == 0 {
		return operate.Copy{}, errs.New(errs.Conflict, "partition %d has no entry yet: the brokers make one by themselves", id)
	}
	copies, err := d.Copies(ctx, id)
	if err != nil {
		return operate.Copy{}, err
	}
	var able []operate.Copy
	for _, c := range copies {
		if !c.Answers {
			continue
		}
		switch {
		case c.Role == "serving" || c.Role == "handing":
			return operate.Copy{}, errs.New(errs.Conflict, "partition %d is served by %s: there is nothing to abandon", id, c.Node)
		case table.IsInSync(partition.Broker(c.Node)) && worth(&c) > 0:
			return operate.Copy{}, errs.New(errs.Conflict, "%s is in sync with partition %d and has a copy (%s): it will serve it by itself, within seconds", c.Node, id, c.Kind)
		}
		able = append(able, c)
	}
	wanted := d.wanted(ctx, id)
	to := slices.MaxFunc(able, func(a, b operate.Copy) int { // this broker at least is able
		return cmp.Or(
			cmp.Compare(worth(&a), worth(&b)), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.N, b.N),
			-cmp.Compare(uint(slices.Index(wanted, a.Node)), uint(slices.Index(wanted, b.Node))),
		)
	})
	var others []partition.Broker
	for _, c := range able {
		if table.Holds(partition.Broker(c.Node)) && c.Node != to.Node {
			others = append(others, partition.Broker(c.Node))
		}
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	if err := d.region.host.Abandon(ctx, p, table, partition.Broker(to.Node), others); err != nil {
		return operate.Copy{}, err
	}
	d.log.Warn("an operator has abandoned a partition", slog.Int("partition", id), slog.String("to", to.Node),
		slog.String("copy", to.Kind), slog.Uint64("epoch", to.Epoch), slog.Uint64("n", to.N))
	if worth(&to) == 0 {
		to.Epoch, to.N = 0, 0
	}
	return to, nil
}

// worth orders copies: 0 is worth nothing.
func worth(c *operate.Copy) int {
	switch c.Kind {
	case "whole":
		return 2
	case "suspect":
		return 1
	default:
		return 0
	}
}

// wanted are the brokers that should hold a partition, as far as is known.
func (d *desk) wanted(ctx context.Context, id int) []string {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	all, err := d.region.host.Wanted(ctx)
	if err != nil {
		return nil
	}
	return words(all[id])
}

// drainTick is how often drain looks.
const drainTick = 50 * time.Millisecond

// drain has other brokers become the owners of what this one has, before it ends. It
// returns when they are, with ctx, or when there is nobody who takes anything: no other
// broker is alive, or they all end too.
func (r *region) drain(ctx context.Context) error {
	r.host.SetStopping(true)
	t := time.NewTicker(drainTick)
	defer t.Stop()
	for {
		owned, _ := r.host.Holds(partition.Broker(r.name))
		if owned == 0 || !r.taken() {
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return errs.New(errs.Unavailable, "%d partitions are not handed over: their followers take them in some seconds", owned)
		}
	}
}

// taken reports whether there is a broker that may take partitions.
func (r *region) taken() bool {
	s := r.members.Snapshot()
	return s.BusUp && slices.ContainsFunc(s.Members, func(m member.Member) bool {
		return m.Name != r.name && m.State == member.Alive && !m.Stopping && !m.Draining
	})
}
