// SPDX-License-Identifier: Apache-2.0

package member

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/services/broker/placement"
)

// Events are called one at a time, in the order of what happened, by the goroutine of
// Run, and may wait, but not for Run. Each may be nil.
type Events struct {
	// Peers tells the brokers to have links with, by name, and their addresses, once at
	// the start and whenever they change. It is Mesh.SetPeers.
	Peers func(addresses map[string]string)
	// Changed tells a new member, or one of which State, an address or anything else
	// has changed since the start: those of the file are in the first Snapshot.
	Changed func(Member)
	// Told tells, once, that all members were told that the bucket had at the start.
	Told func()
	// Left tells a broker that is no member any more.
	Left func(name string)
	// Retired tells that this broker is none any more: it must stop, reset its store and
	// call Return before it goes on.
	Retired func()
}

// Config is what Members are made of.
type Config struct {
	// Self is this broker's name.
	Self string
	// Beats opens the bucket of the heartbeats. It is called again and again while it
	// fails, as the bus may be away at the start.
	Beats func(context.Context) (bus.Bucket, error)
	// File is where what is known is kept, in a folder that is there.
	File   string
	Events Events
	Log    *slog.Logger
}

// Members is a Machine that runs. Its methods may be called concurrently.
type Members struct {
	config Config
	log    *slog.Logger
	began  time.Time
	start  int64 // began in Unix milliseconds
	wake   chan struct{}

	mu      sync.Mutex
	machine *Machine                         // guarded by mu
	told    bool                             // guarded by mu: Events.Told was called
	queue   []func(m *Machine, out *Effects) // guarded by mu: what happened and Run has not seen
	unknown map[string]bool                  // guarded by mu: keys whose values were not readable
}

// Open reads the file and returns the Members that it names. That the file is damaged is
// logged only; the error is that it cannot be read.
func Open(c Config) (*Members, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	known, err := readFile(c.File)
	if errors.Is(err, errDamaged) {
		c.Log.Error("what was known of the cluster is lost", slog.Any("error", err))
	} else if err != nil {
		return nil, err
	}
	m := &Members{config: c, log: c.Log, began: time.Now(), wake: make(chan struct{}, 1), unknown: make(map[string]bool)}
	m.start = m.began.UnixMilli()
	m.machine = New(c.Self, known, m.start)
	return m, nil
}

// now is milliseconds since 1970, as of a clock that is never set.
func (m *Members) now() int64 { return m.start + time.Since(m.began).Milliseconds() }

// Snapshot is what is known now.
type Snapshot struct {
	// Members are in the order of their names, this broker included once its heartbeat
	// was seen. Since is in milliseconds since 1970.
	Members []Member
	// BusUp says that this broker's heartbeat comes around.
	BusUp bool
}

// Snapshot returns what is known now.
func (m *Members) Snapshot() Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	return Snapshot{Members: m.machine.Members(), BusUp: m.machine.BusUp()}
}

// Linked tells that what is sent to a broker reaches it, or does not any more. It does
// not wait.
func (m *Members) Linked(name string, up bool) {
	m.post(func(k *Machine, out *Effects) { k.Linked(name, up, out) })
}

func (m *Members) post(f func(*Machine, *Effects)) {
	m.mu.Lock()
	m.queue = append(m.queue, f)
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// The times of Run: between two looks at the clock, between attempts to open the bucket,
// and at least between two writes of the file.
const (
	lookEvery = 250 * time.Millisecond
	openEvery = time.Second
	saveEvery = time.Second
)

// Run keeps what is known until ctx is done. It is called once.
func (m *Members) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { m.watch(ctx) })
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	m.act(Effects{Peers: true})
	var save bool
	var again time.Time // no attempt to save before
	for {
		out := m.step()
		save = save || out.Save
		m.act(out)
		if now := time.Now(); save && now.After(again) {
			save, again = !m.save(), now.Add(saveEvery)
		}
		select {
		case <-ctx.Done():
			if save {
				m.save()
			}
			return nil
		case <-ticker.C:
		case <-m.wake:
		}
	}
}

// step has the machine take what happened.
func (m *Members) step() (out Effects) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.machine.At(m.now(), &out)
	for _, f := range m.queue {
		f(m.machine, &out)
	}
	clear(m.queue)
	m.queue = m.queue[:0]
	return out
}

// act tells what has changed.
func (m *Members) act(out Effects) {
	e := &m.config.Events
	if out.Retired && e.Retired != nil {
		e.Retired()
	}
	m.mu.Lock()
	told := m.machine.synced && !m.told
	m.told = m.told || told
	peers := m.machine.Peers()
	changed := make(map[string]Member)
	for _, k := range m.machine.Members() {
		changed[k.Name] = k
	}
	m.mu.Unlock()
	for _, name := range out.Left {
		m.log.Warn("a broker has left the cluster", slog.String("broker", name))
		if e.Left != nil {
			e.Left(name)
		}
	}
	if out.Peers && e.Peers != nil {
		e.Peers(peers)
	}
	for _, name := range out.Changed {
		k, ok := changed[name]
		delete(changed, name) // told once
		if !ok {
			continue
		}
		m.log.Info("a broker of the cluster", slog.String("broker", name), slog.String("state", k.State.String()),
			slog.String("address", k.Cluster), slog.String("zone", k.Zone))
		if e.Changed != nil {
			e.Changed(k)
		}
	}
	if told && e.Told != nil {
		e.Told()
	}
}

// save keeps what is known, and reports whether it did.
func (m *Members) save() bool {
	m.mu.Lock()
	members := m.machine.Members()
	m.mu.Unlock()
	if err := writeFile(m.config.File, m.config.Self, members); err != nil {
		m.log.Error("what is known of the cluster cannot be kept", slog.Any("error", err))
		return false
	}
	return true
}

// watch tells the machine of all heartbeats and tombstones, until ctx is done.
func (m *Members) watch(ctx context.Context) {
	for ctx.Err() == nil {
		bucket, err := m.config.Beats(ctx)
		if err == nil {
			err = bucket.Watch(ctx, bus.Watch{}, m.update)
		}
		if ctx.Err() != nil {
			return
		}
		m.log.Debug("the heartbeats cannot be watched yet", slog.Any("error", err))
		select {
		case <-ctx.Done():
		case <-time.After(openEvery):
		}
	}
}

// update takes one entry of the bucket.
func (m *Members) update(u bus.Update) {
	if u.Synced {
		m.post(func(k *Machine, _ *Effects) { k.Synced() })
		return
	}
	name, left, ok := parseKey(u.Entry.Key)
	switch {
	case !ok || !utf8.ValidString(name):
	case left:
		m.post(func(k *Machine, out *Effects) { k.Tombstone(name, !u.Deleted, out) })
	case u.Deleted:
		m.post(func(k *Machine, out *Effects) { k.BeatGone(name, out) })
	default:
		b, err := placement.ParseBeat(u.Entry.Value)
		if err != nil {
			m.unreadable(name, err)
			return
		}
		m.post(func(k *Machine, out *Effects) { k.Beat(name, b, out) })
	}
}

// unreadable logs once that a broker's heartbeats are.
func (m *Members) unreadable(name string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.unknown[name] {
		m.unknown[name] = true
		m.log.Error("a heartbeat is not readable: is that broker of a much older version?", slog.String("broker", name), slog.Any("error", err))
	}
}
