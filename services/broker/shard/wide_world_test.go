// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
)

const wideParts = 8

// wide is a cluster of Sets without replicas, wires or a bus: what is committed of a
// partition is in one store, whoever owns it. Logs commit late, links lose and delay,
// partitions move at any moment, and brokers die.
type wide struct {
	t     *testing.T
	store *mem.Store
	// inside: SetInside.
	inside bool
	log    *slog.Logger
	// spread is how many partitions the clients' tenant has, 0 for all; before them.
	spread int
	// roams: the clients' tenant goes elsewhere again after that time; 0 is never.
	roams time.Duration

	lives sync.Mutex // held by who has brokers die, begin again or get partitions, before mu
	mu    sync.Mutex
	// All below is guarded by mu.
	rand  *rand.Rand
	nodes []*wideNode
	// fallen have died, and others are in their place.
	fallen []*wideNode
	parts  [wideParts]widePart
	keys   map[wideKey]wideValue
	// cells are the records of placed tenants.
	cells map[string]Cell
	// deadly: a broker dies in each move. doom is the one that will, away the one that has
	// and is not back.
	deadly bool
	doom   *doom
	away   string
	// split: no broker reaches another.
	split bool
	stats struct{ appended, unowned, lost, moves, crashes, cuts, places, returns, deaths, hands int }
}

// widePart is a partition: its owner, and what that has appended and is not committed.
type widePart struct {
	owner string
	epoch uint64
	log   []wideRecord
	still bool // nothing is committed by itself
}

type wideRecord struct {
	batch []byte
	done  func(error)
}

type wideKey struct {
	tenant, filter string
	part           partition.ID
}

type wideValue struct {
	epoch           uint64
	online, durable int
}

// wideNode is a broker, and the cluster as it sees it.
type wideNode struct {
	w    *wide
	name string
	set  *Set
	link *Link
	gw   *wideGateway
	stop func()
	dead chan struct{} // closed when it dies
	// told are changes of routes on their way to it, in order.
	told *wideQueue[func()]

	// links, guarded by wide.mu, are what is on its way to others, by name.
	links map[string]*wideLink
	// cells, guarded by wide.mu, are the records of placed tenants that it has.
	cells map[string]Cell
	// mute, guarded by wide.mu: its questions reach nobody.
	mute bool
	// lost, guarded by wide.mu, are the epochs under which partitions were lost.
	lost [wideParts]uint64
}

// wideLink is what one broker has sent to another.
type wideLink struct {
	queue *wideQueue[*wideRequest]
	// id is that of the link, after each loss another; guarded by wide.mu.
	id cluster.LinkID
	// waiting have no answer yet, in their order; guarded by wide.mu.
	waiting []*wideRequest
	// down, guarded by wide.mu: nothing is taken until those that were lost are told.
	down bool
}

type wideRequest struct {
	to   *wideNode // its successor of the same name gets nothing of it
	e    cluster.Enqueue
	done func(cluster.Answer)
	// lost, guarded by wide.mu: it has its answer; gone: it does not arrive.
	lost, gone bool
}

var (
	errWideLost     = errors.New("the partition was lost before the commit")
	errWideNotOwner = errors.New("this broker does not own the partition")
)

func newWide(t *testing.T, seed uint64, nodes int) *wide {
	level := slog.LevelError
	if os.Getenv("WIDE_LOG") != "" {
		level = slog.LevelDebug
	}
	w := &wide{
		t: t, store: mem.New(), rand: rand.New(rand.NewPCG(seed, 1)), inside: seed%2 == 1, keys: map[wideKey]wideValue{}, cells: map[string]Cell{},
		log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level})),
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	for i := range nodes {
		w.begin(fmt.Sprint("b", i+1))
	}
	for p := range partition.ID(wideParts) {
		w.begins(p, w.nodes[int(p)%nodes], true)
	}
	go w.disk(ctx, ended)
	for p := range partition.ID(wideParts) {
		w.served(p)
	}
	t.Cleanup(func() {
		for _, n := range w.nodes {
			n.die()
		}
		cancel()
		<-ended
	})
	return w
}

// begin starts a broker, in the place of one of its name that has died.
func (w *wide) begin(name string) *wideNode {
	n := &wideNode{w: w, name: name, links: map[string]*wideLink{}, dead: make(chan struct{})}
	w.mu.Lock()
	n.cells = maps.Clone(w.cells)
	w.mu.Unlock()
	n.told = newWideQueue(func(f func()) { f() })
	n.gw = &wideGateway{channels: map[link.Channel]*wideConn{}}
	var err error
	if n.set, err = New(Config{
		Store: w.store, Partitions: wideParts, Shards: 2, Sync: partition.Sync{Every: -1}, WriteDelay: 2 * time.Millisecond,
		Cluster: n, Log: w.log.With("node", name),
	}); err != nil {
		w.t.Fatal(err)
	}
	n.set.SetInside(w.inside)
	if w.inside { // else all of a session is one piece
		n.set.hands.most, n.set.hands.piece = 3000, 700
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.set.Run(ctx); err != nil {
			w.t.Error(err)
		}
	}()
	n.stop = func() { cancel(); <-done }
	n.link = n.set.Attach(n.gw)
	w.mu.Lock()
	for k, v := range w.keys {
		n.tellLocked(k, v, true)
	}
	if i := slices.IndexFunc(w.nodes, func(o *wideNode) bool { return o.name == name }); i >= 0 {
		w.fallen = append(w.fallen, w.nodes[i])
		w.nodes[i] = n
	} else {
		w.nodes = append(w.nodes, n)
	}
	w.mu.Unlock()
	informed := make(chan struct{}) // before it serves a partition
	n.told.put(func() { close(informed) })
	<-informed
	return n
}

// die ends a broker as a killed process: nobody hears of it again.
func (n *wideNode) die() {
	w := n.w
	w.mu.Lock()
	if n.deadLocked() {
		w.mu.Unlock()
		return
	}
	close(n.dead)
	for p := range w.parts {
		if x := &w.parts[p]; x.owner == n.name {
			w.commitLocked(partition.ID(p), w.rand.IntN(len(x.log)+1), nil, false)
			w.dropLocked(partition.ID(p), false)
			x.owner = ""
		}
	}
	var lost []*wideRequest
	for _, o := range w.nodes {
		for to, l := range o.links {
			if o == n || to == n.name {
				lost = append(lost, w.cutLocked(l)...)
			}
		}
	}
	told := n.told
	w.mu.Unlock()
	told.close()
	for _, r := range lost {
		r.done(cluster.Answer{Err: cluster.ErrLost})
	}
	n.stop()
	n.gw.lose()
}

func (n *wideNode) deadLocked() bool {
	select {
	case <-n.dead:
		return true
	default:
		return false
	}
}

// served waits until the owner of a partition serves it.
func (w *wide) served(p partition.ID) {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Microsecond) {
		w.mu.Lock()
		set := w.nodeLocked(w.parts[p].owner).set
		w.mu.Unlock()
		if set.Serves(p) {
			return
		}
	}
	w.t.Errorf("partition %d is not served", p)
}

// give has a partition belong to a broker: planned, which its owner is asked for, with
// everything committed, else with a part of it. Who had it and lives hears of the loss before.
func (w *wide) give(p partition.ID, to *wideNode, planned bool) {
	w.begins(p, to, planned)
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end) && !to.set.Serves(p); time.Sleep(100 * time.Microsecond) {
		w.mu.Lock()
		other := to.deadLocked() || w.parts[p].owner != to.name
		w.mu.Unlock()
		if other {
			return
		}
	}
}

// begins is give that does not wait until the partition is served.
func (w *wide) begins(p partition.ID, to *wideNode, planned bool) {
	w.mu.Lock()
	if to.deadLocked() {
		w.mu.Unlock()
		return
	}
	x := &w.parts[p]
	var from *wideNode
	if x.owner != "" {
		from = w.nodeLocked(x.owner)
	}
	if planned && from != nil {
		w.mu.Unlock()
		w.cede(from, p)
		w.mu.Lock()
	}
	if planned {
		w.commitLocked(p, len(x.log), nil, true)
	} else {
		w.commitLocked(p, w.rand.IntN(len(x.log)+1), errWideLost, true)
		w.dropLocked(p, true)
	}
	x.owner = to.name
	x.epoch++
	epoch, set := x.epoch, to.set
	w.stats.moves++
	w.mu.Unlock()
	if from != nil {
		from.set.Lose(p)
	}
	set.Serve(p, epoch)
}

// cede has the owner of a partition let go of it as planned.
func (w *wide) cede(from *wideNode, p partition.ID) {
	done := make(chan struct{})
	from.set.Cede(p, func() { close(done) })
	select {
	case <-done:
	case <-from.dead:
	case <-time.After(10 * time.Second):
		w.t.Errorf("%s does not let go of partition %d", from.name, p)
	}
}

func (w *wide) nodeLocked(name string) *wideNode {
	return w.nodes[slices.IndexFunc(w.nodes, func(n *wideNode) bool { return n.name == name })]
}

// commitLocked commits the first records of a partition, and tells those who wait, if
// they live, err.
func (w *wide) commitLocked(p partition.ID, most int, err error, tell bool) {
	x := &w.parts[p]
	for _, r := range x.log[:most] {
		var b kv.Batch
		if e := b.Decode(r.batch); e != nil {
			w.t.Error(e)
		}
		if e := w.store.Apply(&b, false); e != nil {
			w.t.Error(e)
		}
		if tell {
			r.done(err)
		}
	}
	x.log = slices.Delete(x.log, 0, most)
}

func (w *wide) dropLocked(p partition.ID, tell bool) {
	for _, r := range w.parts[p].log {
		w.stats.lost++
		if tell {
			r.done(errWideLost)
		}
	}
	w.parts[p].log = nil
}

// disk commits what was appended, late and a few at a time.
func (w *wide) disk(ctx context.Context, ended chan struct{}) {
	defer close(ended)
	for ctx.Err() == nil {
		w.mu.Lock()
		for p := range w.parts {
			if n := len(w.parts[p].log); n > 0 && !w.parts[p].still && w.rand.IntN(4) == 0 {
				w.commitLocked(partition.ID(p), 1+w.rand.IntN(n), nil, true)
			}
		}
		w.mu.Unlock()
		time.Sleep(300 * time.Microsecond)
	}
}

// Self implements Cluster.
func (n *wideNode) Self() string { return n.name }

// Owner implements Cluster.
func (n *wideNode) Owner(p partition.ID) (name string, epoch uint64) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.w.parts[p].owner, n.w.parts[p].epoch
}

// Cell implements Cluster: a broker knows of no cell before somebody comes, as one
// whose metadata lags behind, but of those that somebody has placed.
func (n *wideNode) Cell(tenant string) Cell {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.cells[tenant]
}

// Place implements Cluster.
func (n *wideNode) Place(tenant string, m int) Cell {
	if c := n.Cell(tenant); c.Revision > 0 {
		return c
	}
	return Cell{List: wideCell(tenant, m), Revision: 1}
}

// wideCell is the cell of a tenant of m partitions.
func wideCell(tenant string, m int) []partition.ID {
	var all []partition.ID
	for p := range partition.ID(wideParts) {
		all = append(all, p)
	}
	return link.Cell(tenant, m, all)
}

// Append implements Cluster.
func (n *wideNode) Append(p partition.ID, epoch uint64, batch []byte, done func(error)) {
	w := n.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if n.deadLocked() {
		return
	}
	if x := &w.parts[p]; x.owner != n.name || x.epoch != epoch {
		w.stats.unowned++
		done(errWideNotOwner)
		return
	}
	w.stats.appended++
	w.parts[p].log = append(w.parts[p].log, wideRecord{batch, done})
}

// Brokers implements Cluster.
func (n *wideNode) Brokers() (names []string) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	for _, x := range n.w.parts {
		if x.owner != "" && x.owner != n.name && !slices.Contains(names, x.owner) {
			names = append(names, x.owner)
		}
	}
	return names
}

// Table implements Cluster.
func (n *wideNode) Table() *link.TableUpdate { return &link.TableUpdate{Partitions: wideParts} }

// sessions says how the sessions do, wherever there are some.
func (w *wide) sessions() (out string) {
	for _, n := range w.nodes {
		select {
		case <-n.dead:
			continue
		default:
		}
		for _, s := range n.set.shards {
			s.ask(func() {
				for t, of := range s.sessions {
					for _, se := range of {
						out += fmt.Sprintf("\n%s: %s of %s in partition %d: channel %t, awaited %t, attached %t, %d in flight, %d wait",
							n.name, se.ClientID, t.id, se.space.id, se.ch != nil, se.awaited != nil, se.Attached(), len(se.Flying()), se.waiting())
					}
				}
			})
		}
	}
	return out
}

// leftovers says what the shards still keep for publishes, of which none is under way.
func (w *wide) leftovers() (out []string) {
	for _, n := range w.nodes {
		select {
		case <-n.dead:
			continue
		default:
		}
		for _, s := range n.set.shards {
			s.ask(func() {
				add := func(what string, k int) {
					if k > 0 {
						out = append(out, fmt.Sprintf("%s shard %d: %d %s", n.name, s.index, k, what))
					}
				}
				add("slots", len(s.pending)-len(s.free))
				add("streams", len(s.streams))
				add("unwritten", len(s.unwritten.list)-s.unwritten.first)
				for _, p := range s.spaces {
					add("waiters", len(p.ledger.waiters)-p.ledger.first)
				}
				add("sessions amiss among their partition's heads", s.headsAmiss())
			})
		}
	}
	for p := range partition.ID(wideParts) {
		start, end := partition.Range(p, partition.KindOutbox)
		it := w.store.Scan(start, end)
		for it.Next() {
			out = append(out, fmt.Sprintf("partition %d: an outbox record", p))
		}
		it.Close()
	}
	return out
}
