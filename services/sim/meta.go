// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"log/slog"
	"time"

	"github.com/manormq/manor/services/broker/metadata"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/routes"
	"github.com/manormq/manor/services/broker/swc"
)

// meta is the metadata of a node in one run of it: a real metadata.Machine on the node's disk, and
// the shell that a metadata.Store is around it. It is the routes.Store of the real routes.Routes.
type meta struct {
	s       *station
	machine *metadata.Machine
	routes  *routes.Routes

	fx     metadata.Effects
	events []metadata.Event // for the next turn
	calls  map[uint64]metaCall
	last   uint64 // of calls
	watch  func([]metadata.Change)
	// planned: a turn begins soon. writing: its batch is being written.
	planned, writing bool
	joined           map[*node]bool
	// told: all members are. synced is what the machine says, once the routes have heard of the rest; so is metAll.
	told, synced, metAll bool
	links                []metaLink // by node
	// stepped: a step of the routes is planned; next is when the one after it is due.
	stepped bool
	next    int64
}

type metaCall struct {
	done    func(error)
	reached func()
}

// Of the metadata of a world there are few keys: they are in few groups, and messages are small, so
// that what is a matter of seconds for a hundred thousand routes takes several messages here too.
const (
	metaGroups = 3
	metaDots   = 4
	metaBytes  = 120
	metaTick   = 50 * ms
)

// began is the time in a world at 0, for what wants a time.Time. It does not jump, as what
// runs by the monotonic clock.
var began = time.Unix(1e9, 0)

func (w *World) time() time.Time { return began.Add(time.Duration(w.now) * time.Microsecond) }

// mint makes an actor, as a metadata.Store does.
func (w *World) mint() swc.Actor {
	w.actors++
	return swc.Actor(w.time().UnixMilli())<<22 | swc.Actor(w.actors)
}

// open has a node read what its disk has of the metadata.
func (s *station) open() {
	w := s.n.w
	m := &meta{s: s, calls: map[uint64]metaCall{}, joined: map[*node]bool{}, links: make([]metaLink, len(w.nodes))}
	s.meta = m
	dots, bytes := metaDots, metaBytes
	if w.expires { // who fetches all could not keep up with the subscriptions of new sessions
		dots, bytes = 16*dots, 16*bytes
	}
	var err error
	if m.machine, err = metadata.New(metadata.Config{
		Name: s.Self(), Groups: metaGroups, Mint: w.mint, MessageDots: dots, MessageBytes: bytes,
	}, s.n.store, &m.fx); err != nil {
		w.History.Break("metadata of %s: %v", s.n.name, err)
		return
	}
	m.carryOut()
	m.routes = routes.New(routes.Config{Store: m, Sink: s, Log: slog.New(slog.DiscardHandler), Now: w.time})
	m.step()
	m.tick()
}

// tick lets time pass for the machine.
func (m *meta) tick() {
	m.post(metadata.Tick{Reachable: m.reachable()})
	m.s.n.w.after(metaTick, m.s.during(m.tick))
}

// join has a node become a member, when a heartbeat has told of it.
func (m *meta) join(n *node) {
	if !m.joined[n] {
		m.joined[n] = true
		m.post(metadata.Join{Name: string(n.name)})
	}
}

// knowsMembers says that all members of now have become some.
func (m *meta) knowsMembers() {
	if !m.told {
		m.told = true
		m.post(metadata.Told{})
	}
}

// post has the machine step in the next turn.
func (m *meta) post(e metadata.Event) {
	m.events = append(m.events, e)
	m.plan()
}

func (m *meta) plan() {
	if m.planned || m.writing {
		return
	}
	m.planned = true
	m.s.n.w.after(0, m.s.during(m.turn))
}

// turn is that of a metadata.Store. A write that is to last takes as long as one of the disk; what
// comes meanwhile waits.
func (m *meta) turn() {
	m.planned = false
	n := m.s.n
	w := n.w
	events := m.events
	m.events = nil
	for _, e := range events {
		m.machine.Step(w.time(), e, &m.fx)
	}
	if err := m.machine.Flush(&m.fx); err != nil {
		w.History.Break("metadata of %s: %v", n.name, err)
		return
	}
	if !m.fx.Sync {
		m.carryOut()
		return
	}
	m.writing = true
	w.after(n.diskTime(), m.s.during(func() {
		m.writing = false
		m.carryOut()
		if len(m.events) > 0 {
			m.plan()
		}
	}))
}

// carryOut does what a turn asks for, in the order of a metadata.Store.
func (m *meta) carryOut() {
	n, fx := m.s.n, &m.fx
	w := n.w
	if err := n.store.Apply(&fx.Batch, fx.Sync); err != nil {
		w.History.Break("disk of %s: %v", n.name, err)
		return
	}
	m.machine.Written(fx)
	changes, send, done, reached, retired := fx.Changes, fx.Send, fx.Done, fx.Reached, fx.Retired
	m.fx = metadata.Effects{}
	if retired {
		w.History.Break("%s is told that its metadata were given up", n.name)
		return
	}
	if m.watch != nil && len(changes) > 0 {
		m.watch(changes)
	}
	m.synced, m.metAll = m.machine.Stats().Synced, m.machine.Stats().MetAll
	for _, x := range send {
		w.told(n, w.node(partition.Broker(x.To)), x.Bytes)
	}
	for _, r := range done {
		if c := m.calls[r.ID]; c.done != nil {
			c.done(r.Err)
		}
		if r.Err != nil {
			delete(m.calls, r.ID)
		}
	}
	for _, id := range reached {
		if c := m.calls[id]; c.reached != nil {
			c.reached()
		}
		delete(m.calls, id)
	}
	if len(changes)+len(done)+len(reached) > 0 {
		m.step()
		m.s.step()
	}
}

// step has the routes do what there is to do, soon, and again when they say.
func (m *meta) step() {
	if m.stepped {
		return
	}
	m.stepped = true
	m.s.n.w.after(0, m.s.during(m.stepNow))
}

func (m *meta) stepNow() {
	m.stepped = false
	w := m.s.n.w
	next := max(m.routes.Step().Sub(began).Microseconds(), w.now+ms)
	m.s.step()
	if m.next > w.now && m.next <= next {
		return
	}
	m.next = next
	w.after(next-w.now, m.s.during(func() {
		if m.next == next {
			m.next = 0
			m.step()
		}
	}))
}

// Get implements routes.Store.
func (m *meta) Get(k metadata.Key) (metadata.Value, bool, error) {
	return metadata.Lookup(m.s.n.store, metaGroups, k)
}

// Range implements routes.Store.
func (m *meta) Range(space string, f func(metadata.Key, metadata.Value) bool) error {
	return metadata.Scan(m.s.n.store, metaGroups, space, f)
}

// RangePrefix implements routes.Store.
func (m *meta) RangePrefix(space, prefix string, f func(metadata.Key, metadata.Value) bool) error {
	return metadata.ScanPrefix(m.s.n.store, metaGroups, space, prefix, f)
}

// Watch implements routes.Store: the routes are the one space here, and what it has is told at once.
func (m *meta) Watch(space string, f func([]metadata.Change), failed func(error)) (stop func()) {
	if err := m.Range(space, func(k metadata.Key, v metadata.Value) bool {
		f([]metadata.Change{{Key: k, New: &v}})
		return true
	}); err != nil {
		failed(err)
	}
	m.watch = f
	return func() {}
}

// Write implements routes.Store.
func (m *meta) Write(mutations []metadata.Mutation, done func(error), reached func()) {
	m.last++
	m.calls[m.last] = metaCall{done, reached}
	m.post(metadata.Write{ID: m.last, Mutations: mutations})
}
