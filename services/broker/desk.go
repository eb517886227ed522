// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"maps"
	"math"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/node"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/host"
	"github.com/manormq/manor/services/broker/layout"
	"github.com/manormq/manor/services/broker/operate"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/shard"
)

// desk is where operators see the cluster, and steer it: it is the operate.Cluster of
// this broker, and answers what other brokers' desks ask (questions.go). A broker that
// is alone is a cluster of one. It may be used concurrently.
type desk struct {
	*Broker
	started time.Time
	// more are the listeners of what runs in the same process; before Run.
	more func() []operate.Listener
}

// Operate gives operators what they need of this broker and its cluster: the commands
// of operate.Prefix, /status, /status.json, and the health checks of listeners. more, if
// not nil, are listeners of others in this process, for /status.json. It is called
// before Run.
func (b *Broker) Operate(o *node.Operator, health *node.Health, more func() []operate.Listener) {
	b.desk.more = more
	o.Mount(operate.Prefix, operate.Handler(b.desk))
	o.Page(operate.Page, func(ctx context.Context) any { return operate.Status(ctx, b.desk) })
	health.Register("listeners", func(context.Context) error { return b.desk.listening() })
	health.RegisterApart("listeners_full_cluster", func(ctx context.Context) error { return operate.Complete(ctx, b.desk) })
}

// Self implements operate.Cluster.
func (d *desk) Self() string { return d.name }

// listening is the health check of this broker's listeners. They end with the process.
func (d *desk) listening() error {
	if d.config.Listen != "" && d.listener == nil {
		return errs.New(errs.Unavailable, "nobody listens at %s", d.config.Listen)
	}
	return nil
}

// Members implements operate.Cluster.
func (d *desk) Members() []operate.Member {
	if d.region == nil {
		return []operate.Member{{
			Name: d.name, State: "alive", Since: d.started, Version: node.Version(), Owned: d.config.Partitions, Links: d.config.Listen,
		}}
	}
	var out []operate.Member
	self := false
	for _, m := range d.region.members.Snapshot().Members {
		self = self || m.Name == d.name
		x := operate.Member{
			Name: m.Name, State: m.State.String(), Since: time.UnixMilli(m.Since), Zone: m.Zone, Version: m.Version,
			Draining: m.Draining, Stopping: m.Stopping, Starting: m.Starting, Cluster: m.Cluster, Links: m.Links,
		}
		for l := range strings.SplitSeq(m.Labels, ",") {
			x.Labels = append(x.Labels, layout.Name(l))
		}
		x.Owned, x.Followed = d.region.host.Holds(partition.Broker(m.Name))
		out = append(out, x)
	}
	if !self {
		// Its own heartbeat was not seen yet: the control plane is away since it started.
		x := operate.Member{Name: d.name, State: "alive", Since: d.started, Zone: d.config.Cluster.Zone, Version: node.Version()}
		x.Owned, x.Followed = d.region.host.Holds(partition.Broker(d.name))
		at, _ := slices.BinarySearchFunc(out, d.name, func(m operate.Member, name string) int {
			if m.Name < name {
				return -1
			}
			return 1
		})
		out = slices.Insert(out, at, x)
	}
	return out
}

// figures are those of this broker.
func (d *desk) figures() operate.Node {
	n := operate.Node{
		Version: node.Version(), Zone: d.config.Cluster.Zone, StartedAt: d.started.UTC(), BusUp: true,
		Speaks: [2]uint8{cluster.Versions.Min, cluster.Versions.Max}, StoreVersion: storeVersion,
		MyStatus: []map[string]bool{}, Listeners: d.listeners(), Gateways: d.gates.list(), Problems: []string{}, Load: d.shards.Load().String(),
	}
	d.shards.Tenants(func(_ string, t *shard.Tenant) {
		u := t.Usage()
		in, out := t.Flow()
		n.NumOnline += u.Connections
		n.NumOffline += t.Offline()
		n.NumSubscriptions += u.Subscriptions
		n.NumRetained += u.Retained
		n.NumQueued += u.QueueMessages
		n.MsgIn += in
		n.MsgOut += out
	})
	d.shards.Stats(func(s *shard.Stats) {
		n.QueueIn += s.Matches.Load()
		n.QueueOut += s.QueueOut.Load()
		n.QueueUnhandled += s.Unhandled.Load()
		n.MatchesLocal += s.Matches.Load()
		s.Drops(func(_ string, k uint64) { n.QueueDrop += k })
	})
	if d.shards.Failing() {
		n.Problems = append(n.Problems, "the store refuses writes: its log says why")
	}
	for _, m := range d.Members() {
		n.MyStatus = append(n.MyStatus, map[string]bool{m.Name: m.State == "alive"})
	}
	if d.region == nil {
		n.Partitions = map[string]int{"serving": d.config.Partitions, "in_sync": d.config.Partitions, "total": d.config.Partitions}
		return n
	}
	d.region.figures(&n)
	return n
}

// age is how old what the broker knows of the control plane is, in seconds; -1 if it was never
// reached, 0 without a cluster.
func (r *region) age() float64 {
	if r == nil {
		return 0
	}
	age, ok := r.table.age()
	if !ok {
		return -1
	}
	return max(0, age.Seconds())
}

// figures adds what a broker of a cluster has beside those of one that is alone.
func (r *region) figures(n *operate.Node) {
	n.MatchesRemote = r.mesh.Stats().Enqueued.Load()
	snapshot := r.members.Snapshot()
	n.BusUp, n.BusAge = snapshot.BusUp, math.Round(r.age()*10)/10
	for _, m := range snapshot.Members {
		if m.Name == r.name {
			n.Draining, n.Stopping, n.Starting = m.Draining, m.Stopping, m.Starting
		}
	}
	s := r.replicas()
	n.Partitions = map[string]int{
		"serving": s.Serving, "in_sync": s.InSync, "followed": s.Followed, "claiming": s.Claiming, "handing": s.Handing,
		"alarmed": s.Alarmed, "unowned": s.Unowned, "total": len(r.owners),
	}
	if s.Alarmed > 0 {
		n.Problems = append(n.Problems, "partitions stand still until an operator decides, or could not be read and are elsewhere: partition show, and the log, have them")
	}
	if s.Failing {
		n.Problems = append(n.Problems, "replicas cannot be written: the log says why")
	}
	if m := r.meta.Stats(); m.Failing {
		n.Problems = append(n.Problems, "the replicated metadata cannot be written: the log says why")
	}
}

// listeners are where this broker takes links.
func (d *desk) listeners() []operate.Listener {
	out := []operate.Listener{}
	add := func(kind string, ln net.Listener) {
		host, port, _ := net.SplitHostPort(ln.Addr().String())
		out = append(out, operate.Listener{Type: kind, Status: operate.Running, IP: host, Port: port})
	}
	if d.listener != nil {
		add("links", d.listener)
	}
	if d.region != nil {
		add("vmqs", d.region.listener)
	}
	if d.more != nil {
		out = append(out, d.more()...)
	}
	return out
}

// matches counts the deliveries to sessions of this broker.
func (d *desk) matches() (n uint64) {
	d.shards.Stats(func(s *shard.Stats) { n += s.Matches.Load() })
	return n
}

// Nodes implements operate.Cluster.
func (d *desk) Nodes(ctx context.Context) map[string]operate.Node {
	out := map[string]operate.Node{d.name: d.figures()}
	for name, r := range d.askOthers(ctx, &question{What: askStatus}) {
		if r.Status != nil {
			out[name] = *r.Status
		}
	}
	return out
}

// Partitions implements operate.Cluster.
func (d *desk) Partitions(ctx context.Context) ([]operate.Partition, error) {
	out := make([]operate.Partition, d.config.Partitions)
	if d.region == nil {
		for i := range out {
			out[i] = operate.Partition{ID: i, Owner: d.name, InSync: []string{d.name}, Wanted: []string{d.name}, Replicas: 1, Label: layout.Shared, State: operate.InSync}
		}
		return out, nil
	}
	replicas := d.region.host
	look, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	wanted, err := replicas.Wanted(look)
	if err != nil {
		return nil, err
	}
	roles := map[string][]partition.Role{d.name: d.region.roles()}
	for name, r := range d.askOthers(ctx, &question{What: askRoles}) {
		roles[name] = rolesOf(r.Roles)
	}
	for i := range out {
		p := partition.ID(i)
		t := replicas.Entry(p).Table
		x := operate.Partition{
			ID: i, Epoch: t.Epoch, Owner: string(t.Owner), InSync: words(t.InSync), Others: words(t.Others), Draining: t.Draining,
			Replicas: replicas.Replicas(p), Label: layout.Name(replicas.Label(p)), State: operate.Unowned, Wanted: words(wanted[i]),
		}
		if t.Revision != 0 {
			x.State = stateOf(roles[x.Owner], i, len(x.InSync) >= x.Replicas)
		}
		out[i] = x
	}
	return out, nil
}

// roles are those of the host, but that a partition which this broker owns and whose
// sessions it does not serve, or not yet, is claimed: what its last owner left waits for
// its commit, or it is about to move.
func (r *region) roles() []partition.Role {
	roles := r.host.Roles()
	for p, role := range roles {
		if role == partition.Serving && !r.shards.Serves(partition.ID(p)) {
			roles[p] = partition.Claiming
		}
	}
	return roles
}

// replicas are the figures of the host, with the same exception.
func (r *region) replicas() host.Stats {
	s := r.host.Stats()
	for p, role := range r.host.Roles() {
		if role == partition.Serving && !r.shards.Serves(partition.ID(p)) {
			s.Serving--
			s.Claiming++
		}
	}
	return s
}

// stateOf is what becomes of partition i, of which the owner has these roles, nil if it
// was not asked.
func stateOf(roles []partition.Role, i int, full bool) string {
	if i >= len(roles) {
		return operate.Unserved
	}
	switch roles[i] {
	case partition.Serving, partition.Handing:
		if full {
			return operate.InSync
		}
		return operate.Degraded
	case partition.Claiming:
		return operate.Claimed
	case partition.Alarmed:
		return operate.Alarmed
	case partition.Following:
	}
	return operate.Unserved
}

func words(brokers []partition.Broker) []string {
	out := make([]string, 0, len(brokers))
	for _, b := range brokers {
		out = append(out, string(b))
	}
	return out
}

// Copies implements operate.Cluster.
func (d *desk) Copies(ctx context.Context, id int) ([]operate.Copy, error) {
	if id < 0 || id >= d.config.Partitions {
		return nil, errs.New(errs.NotFound, "expected a partition from 0 to %d, found %d", d.config.Partitions-1, id)
	}
	if d.region == nil {
		return []operate.Copy{{Node: d.name, Answers: true, Kind: "whole", Role: "serving"}}, nil
	}
	own, err := d.region.copy(ctx, partition.ID(id))
	if err != nil {
		return nil, err
	}
	of := map[string]operate.Copy{d.name: own}
	for name, r := range d.askOthers(ctx, &question{What: askCopy, Partition: id}) {
		of[name] = operate.Copy{Node: name}
		if r.Copy != nil {
			of[name] = *r.Copy
		}
	}
	// Who is in the table and no member any more is shown too.
	e := d.region.host.Entry(partition.ID(id)).Table.Entry
	for _, b := range append(words(e.InSync), words(e.Others)...) {
		if _, ok := of[b]; !ok {
			of[b] = operate.Copy{Node: b}
		}
	}
	out := make([]operate.Copy, 0, len(of))
	for _, name := range slices.Sorted(maps.Keys(of)) {
		out = append(out, of[name])
	}
	return out, nil
}

// copy is what this broker has of a partition.
func (r *region) copy(ctx context.Context, p partition.ID) (operate.Copy, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, last, err := r.host.Copy(ctx, p)
	if err != nil {
		return operate.Copy{}, err
	}
	return operate.Copy{Node: r.name, Answers: true, Kind: copyNames[c], Role: roleNames[r.host.Roles()[p]], Epoch: last.Epoch, N: last.N}, nil
}

var copyNames = [...]string{partition.Empty: "empty", partition.Fetching: "fetching", partition.Suspect: "suspect", partition.Whole: "whole"}

var roleNames = [...]string{
	partition.Following: "following", partition.Claiming: "claiming", partition.Serving: "serving", partition.Handing: "handing", partition.Alarmed: "alarmed",
}

var _ operate.Cluster = (*desk)(nil)
