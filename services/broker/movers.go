// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/layout"
	"github.com/manormq/manor/services/broker/member"
	"github.com/manormq/manor/services/broker/operate"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/shard"
)

// Tenants that go to other partitions with what they have (docs/adr/0037). The broker that
// owns the first partition of such a tenant sees to it that all go on; another does when
// that has become another's. Two may do so at once: they say the same.

const (
	// moverTick is how often a tenant that moves is looked at, moverRest how often it is
	// looked whether one does.
	moverTick = 10 * time.Millisecond
	moverRest = 200 * time.Millisecond
	// moverSays is how often the log says of a tenant that does not arrive what it waits for.
	moverSays = 10 * time.Second
)

// move is a tenant that moves, as the broker knows it that sees to it.
type move struct {
	shard.Mover
	begun, said time.Time
	// revision is that of the newest record, which came at since.
	revision uint64
	since    time.Time
	// hand is the revision for which the brokers are to hand over, 0 for none.
	hand uint64
}

// moveTenants sees to the tenants that move until ctx is done.
func (d *desk) moveTenants(ctx context.Context) {
	moves, waiting := make(map[string]*move), make(orphans)
	tick := time.NewTicker(moverTick)
	defer tick.Stop()
	var looked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.region.moved:
		case <-tick.C:
			if len(moves) == 0 && time.Since(looked) < moverRest {
				continue
			}
		}
		looked = time.Now()
		going := d.region.layout.Moving()
		for tenant := range moves {
			if _, ok := going[tenant]; !ok {
				delete(moves, tenant)
			}
		}
		for tenant := range waiting {
			if _, ok := going[tenant]; !ok {
				delete(waiting, tenant)
			}
		}
		for tenant, c := range going {
			if owner, _ := d.region.Owner(c.Partitions[0]); owner != d.name {
				delete(moves, tenant)
				waiting.look(d.log, d.name, d.region.members.Snapshot().Members, tenant, c.Partitions[0], owner, looked)
				continue
			}
			delete(waiting, tenant)
			m := moves[tenant]
			if m == nil {
				m = &move{begun: looked, said: looked}
				moves[tenant] = m
			}
			d.moveOn(ctx, tenant, c, m)
		}
	}
}

// moveOn looks once at a tenant that moves.
func (d *desk) moveOn(ctx context.Context, tenant string, c layout.Cell, m *move) {
	if m.revision != c.Revision {
		m.revision, m.since = c.Revision, time.Now()
	}
	l := d.look(ctx, tenant, m.hand)
	l.Waited = time.Since(m.since)
	o := m.Next(cellOf(c), l)
	if m.hand = 0; o.Hand {
		m.hand = c.Revision
	}
	if o.Decide != shard.Undecided {
		// It is ordered at each look until it is known; it is decided once, and not always this way.
		var decided func()
		if o.Decide == shard.Back {
			waited, begun := waitsFor(&c, l), m.begun
			decided = func() {
				d.log.Warn("it is decided that a tenant stays in its partitions", slog.String("tenant", tenant), slog.Uint64("revision", c.Revision),
					slog.String("waited_for", waited), slog.Duration("after", time.Since(begun)))
			}
		}
		d.shards.DecideThen(tenant, c.Revision, o.Decide, decided)
	}
	if o.Advance || o.Return {
		write, cancel := context.WithTimeout(ctx, askTime)
		next := d.region.layout.Advance
		if o.Return {
			next = d.region.layout.Return
		}
		err := next(write, tenant, c)
		cancel()
		switch {
		case err != nil:
			d.log.Warn("the record of a tenant that goes to other partitions is not written yet", slog.String("tenant", tenant), slog.Any("error", err))
		case o.Return:
			d.log.Warn("a tenant has stayed in its partitions, with all that it has", slog.String("tenant", tenant), slog.Any("partitions", c.Partitions), slog.Duration("after", time.Since(m.begun)))
		case c.Stage == layout.Arriving:
			if m.Unequal() {
				d.log.Warn("a tenant has arrived though not all brokers know the same routes to it: messages may go past its subscribers until they do", slog.String("tenant", tenant))
			}
			d.log.Info("a tenant has arrived in its partitions", slog.String("tenant", tenant), slog.Any("partitions", c.Partitions), slog.Duration("after", time.Since(m.begun)))
		}
		return
	}
	if time.Since(m.said) >= moverSays {
		m.said = time.Now()
		d.log.Warn("a tenant that goes to other partitions does not arrive, and its clients wait", slog.String("tenant", tenant),
			slog.String("waits_for", waitsFor(&c, l)), slog.Duration("since", time.Since(m.begun)))
	}
}

// relocation is what this broker says of a tenant that moves; nil if ctx has ended before its
// shards have, which do not answer any more when the broker ends.
func (d *desk) relocation(ctx context.Context, tenant string, hand uint64) *shard.Relocation {
	said := make(chan shard.Relocation, 1)
	d.shards.Relocate(tenant, hand, func(x shard.Relocation) { said <- x })
	select {
	case r := <-said:
		return &r
	case <-ctx.Done():
		return nil
	}
}

// look asks all members how far they are with a tenant that moves.
func (d *desk) look(ctx context.Context, tenant string, hand uint64) *shard.Look {
	all := d.askOthers(ctx, &question{What: askRelocate, Tenant: tenant, HandOver: hand})
	l := &shard.Look{Members: []string{d.name}, Alive: []string{d.name}, Said: map[string]shard.Relocation{}, MayTurn: true}
	l.Owner = func(p partition.ID) string {
		owner, _ := d.region.Owner(p)
		return owner
	}
	if r := d.relocation(ctx, tenant, hand); r != nil {
		l.Said[d.name] = *r
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		l.Members = append(l.Members, name)
		if r := all[name].Relocation; r != nil {
			l.Said[name] = *r
		}
	}
	for _, m := range d.region.members.Snapshot().Members {
		if m.Name == d.name {
			continue
		}
		if m.State == member.Alive {
			l.Alive = append(l.Alive, m.Name)
		}
		l.MayTurn = l.MayTurn && d.region.spoke(m.Name) >= cluster.VersionCourse
	}
	return l
}

// waitsFor says in words what keeps a tenant from going on.
func waitsFor(c *layout.Cell, l *shard.Look) string {
	goesOn := c.Stage == layout.Arriving
	for _, r := range l.Said {
		if r.Revision == c.Revision && r.Course == shard.Back {
			return "the record that it stays where it is"
		}
		goesOn = goesOn || r.Revision == c.Revision && r.Course == shard.Onward
	}
	served := make(map[int]bool)
	for _, name := range l.Members {
		r, ok := l.Said[name]
		if !ok {
			if goesOn && !slices.Contains(l.Alive, name) {
				continue
			}
			return name + " to answer"
		}
		if r.Revision != c.Revision {
			return name + " to have the record"
		}
		if !r.Quiet {
			return name + " to have no message of it under way"
		}
		for _, p := range r.Stopped {
			served[int(p)] = served[int(p)] || l.Owner(p) == name
		}
	}
	for _, p := range slices.Concat(c.Partitions, c.To) {
		if !served[int(p)] {
			return "partition " + strconv.Itoa(int(p)) + " to be served, and to have the record or what it was handed"
		}
	}
	if c.Stage == layout.Arriving {
		return "all brokers to know the same routes to it"
	}
	return "what is on its way from partition to partition"
}

const (
	// moveSessions, moveMessages and moveBytes are the most sessions that outlive their
	// connections, and the most messages that wait or are retained, and their bytes, that
	// leave their partition at once: all clients of the tenant wait meanwhile (docs/adr/0057 has what that takes).
	moveSessions = 10_000
	moveMessages = 100_000
	moveBytes    = 32 << 20
	// moveWait is for how long the command waits until the tenant has arrived.
	moveWait = 10 * time.Second
)

// move has a tenant go to other partitions with what it has, and waits for that: to those of
// list, or, with grow above 0, to the first wave of as many.
func (d *desk) move(ctx context.Context, tenant string, list []partition.ID, grow int) (operate.Placement, error) {
	old, _ := d.region.layout.Cell(tenant)
	l := d.look(ctx, tenant, 0)
	plan := -1
	for _, name := range l.Members {
		r, ok := l.Said[name]
		if !ok {
			return operate.Placement{}, errs.New(errs.Unavailable, "%s does not answer, or is older than moves of tenants: all brokers have to know of it", name)
		}
		plan = max(plan, r.Plan)
	}
	switch {
	case len(list) > 0:
	case plan < 0:
		return operate.Placement{}, errs.New(errs.Conflict, "no broker has heard yet how many partitions the plan of %s has: say --grow N, or try again when one of its clients has come", tenant)
	default:
		list = d.region.layout.Draw(tenant, plan)
	}
	usage := d.shards.Ask(&link.Query{Kind: link.QueryUsage, Tenant: tenant})
	if usage.Error != "" {
		return operate.Placement{}, errs.New(errs.Unavailable, "it is not known what the tenant has: %s", usage.Error)
	}
	from := old.Partitions
	if len(from) == 0 {
		from = d.region.layout.Draw(tenant, plan)
	}
	if grow > 0 {
		list = d.wave(tenant, from, grow, &usage.Usage)
	}
	all, err := d.Partitions(ctx)
	if err != nil {
		return operate.Placement{}, err
	}
	for _, p := range slices.Concat(from, list) {
		if s := all[p].State; s != operate.InSync && s != operate.Degraded {
			return operate.Placement{}, errs.New(errs.Conflict, "partition %d is %s: the clients of %s would wait until it is served", p, s, tenant)
		}
	}
	if err := bearable(tenant, from, list, &usage.Usage); err != nil {
		return operate.Placement{}, err
	}
	write, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := d.region.layout.Move(write, tenant, list, plan)
	if err != nil {
		return operate.Placement{}, err
	}
	d.log.Warn("a tenant goes to other partitions with what it has; its clients wait meanwhile", slog.String("tenant", tenant),
		slog.Any("from", c.Partitions), slog.Any("to", list), slog.Uint64("revision", c.Revision), slog.Int64("sessions", usage.Usage.PersistentSessions))
	stayed := c.Revision + 1
	until := time.NewTimer(moveWait)
	defer until.Stop()
	tick := time.NewTicker(moverTick)
	defer tick.Stop()
	for wait := true; wait; {
		select {
		case <-ctx.Done():
			wait = false
		case <-until.C:
			wait = false
		case <-tick.C:
		}
		if now, _ := d.region.layout.Cell(tenant); now.Stage == layout.Settled && now.Revision == stayed {
			return operate.Placement{}, errs.New(errs.Unavailable, "%s has stayed in its partitions with all that it has, and its clients go on: a broker did not answer, or the clients were not quiet in time. "+
				"Look at cluster show and at the logs of the brokers, and give the command again", tenant)
		} else if now.Revision > c.Revision {
			c = now
		}
		if c.Stage == layout.Settled {
			break
		}
	}
	return placementOf(tenant, c), nil
}

// Progress implements operate.Cluster.
func (d *desk) Progress(ctx context.Context, tenant string) operate.Progress {
	if d.region == nil {
		return operate.Progress{}
	}
	c, _ := d.region.layout.Cell(tenant)
	if c.Stage == layout.Settled {
		return operate.Progress{}
	}
	l := d.look(ctx, tenant, 0)
	p := operate.Progress{Stage: stageNames[c.Stage], Waits: waitsFor(&c, l)}
	for _, r := range l.Said {
		p.Sessions += r.Sessions
		p.Retained += r.Retained
	}
	return p
}
