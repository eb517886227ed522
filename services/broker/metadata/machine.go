// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"
	"slices"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/swc"
)

// Config is what a Machine is told at the start.
type Config struct {
	// Name of this broker among the members; it does not change.
	Name string
	// Groups is over how many clocks the keys are spread, 1 to MaxGroups: 16 by
	// default. All members must have the same; a store keeps what it was made with.
	Groups int
	// Mint makes an actor that nobody has had, greater than those of before.
	Mint func() swc.Actor
	// Exchange is how often a group compares itself with another broker: 2 s by
	// default. Where something is missed it does so at once.
	Exchange time.Duration
	// Answer is how long the answer of another broker is waited for: 2 s by default.
	Answer time.Duration
	// Reach is the longest that Effects.Reached waits: 250 ms by default.
	Reach time.Duration
	// MessageBytes bounds what a message is filled with: 256 KiB by default. One
	// object may be larger.
	MessageBytes int
	// MessageDots bounds of how many dots an answer tells: 1,024 by default.
	MessageDots int
}

func (c *Config) setDefaults() {
	if c.Groups == 0 {
		c.Groups = 16
	}
	if c.Exchange == 0 {
		c.Exchange = 2 * time.Second
	}
	if c.Answer == 0 {
		c.Answer = 2 * time.Second
	}
	if c.Reach == 0 {
		c.Reach = 250 * time.Millisecond
	}
	if c.MessageBytes == 0 {
		c.MessageBytes = 256 << 10
	}
	if c.MessageDots == 0 {
		c.MessageDots = 1024
	}
}

// What may end a write, or the start of a Machine.
var (
	// ErrStale says that a value of a higher rank stands under the key.
	ErrStale = errs.New(errs.Conflict, "metadata: a value of a higher rank is there")
	// ErrInvalid says that a key is empty or too long.
	ErrInvalid = errs.New(errs.Invalid, "metadata: a space has 1 to %d bytes, a name up to %d", MaxSpace, MaxName)
	// ErrRetired says that the other members have given this store up for lost.
	ErrRetired = errs.New(errs.Unavailable, "metadata: this store was given up; reset it")
)

// Machine is the metadata of one broker without goroutine, clock or link: it is
// told Events and the time, reads the store, and says what is to be done. The same
// events give the same effects. It is owned by one goroutine.
//
// A turn is any number of Steps, then Flush; then the caller writes the batch,
// calls Written and does what else the Effects say. If it cannot write the batch it
// tries again, or gives the Machine up.
type Machine struct {
	cfg    Config
	view   view
	self   swc.Actor
	roster roster
	groups []*group

	reachable  []string // members, without self, in order
	waits      []*wait  // in the order of their deadlines
	exchanges  uint64   // the number of the latest
	told       bool     // who the members are
	retired    bool
	reveals    bool // this turn says outside what is in the store
	unsynced   bool // the store has writes that a power cut may take
	newRoster  bool // since the last Flush
	resetFloor swc.Actor
	stats      Stats
}

// New makes the Machine of what is in store. fx.Batch is to be written, and Written
// called, before the first Step. The error wraps what the store returned, or
// swc.ErrCorrupt.
func New(cfg Config, store kv.Store, fx *Effects) (*Machine, error) {
	cfg.setDefaults()
	if cfg.Groups < 1 || cfg.Groups > MaxGroups {
		return nil, fmt.Errorf("metadata: %d groups, want 1 to %d", cfg.Groups, MaxGroups)
	}
	m := &Machine{cfg: cfg, view: view{store: store, writes: map[byte]map[string][]byte{}, batch: &fx.Batch}}
	if err := m.loadRoster(); err != nil {
		return nil, err
	}
	if m.self == 0 {
		m.becomes(cfg.Mint())
	}
	for i := range m.cfg.Groups {
		g := &group{m: m, n: byte(i)}
		if err := g.load(); err != nil {
			return nil, fmt.Errorf("metadata group %d: %w", i, err)
		}
		m.groups = append(m.groups, g)
	}
	m.unsynced = true // what the process before has left
	m.reveals = true
	return m, m.Flush(fx)
}

// loadRoster reads who this broker is and who the members are.
func (m *Machine) loadRoster() error {
	b := m.view.get(storeKey(brokerGroup, kindRoster, ""))
	if m.view.err != nil {
		return m.view.err
	}
	if b == nil {
		m.roster.at(m.cfg.Name).live = true
		return nil
	}
	r := &reader{b: b}
	version, groups := r.u8(), int(r.u8())
	m.self, m.roster = swc.Actor(r.u64()), r.roster()
	if err := r.end(); err != nil {
		return err
	}
	if version != Version || groups != m.cfg.Groups {
		return fmt.Errorf("metadata: the store has version %d with %d groups, want %d with %d", version, groups, Version, m.cfg.Groups)
	}
	if i, ok := m.roster.find(m.cfg.Name); !ok || !m.roster[i].live || m.roster[i].actor != m.self {
		return fmt.Errorf("metadata: the store is not that of broker %q", m.cfg.Name)
	}
	return nil
}

func (m *Machine) saveRoster() {
	w := &writer{}
	w.u8(Version)
	w.u8(byte(m.cfg.Groups))
	w.u64(uint64(m.self))
	m.roster.append(w)
	m.view.put(storeKey(brokerGroup, kindRoster, ""), w.b)
	m.reveals = true // who asks later must not get another answer
}

// Step takes one event. now never goes back.
func (m *Machine) Step(now time.Time, e Event, fx *Effects) {
	m.view.batch = &fx.Batch
	switch e := e.(type) {
	case Write:
		m.write(now, e, fx)
	case Received:
		m.receive(now, e, fx)
	case Tick:
		m.tick(now, e, fx)
	case Join:
		m.join(e.Name)
	case Told:
		m.told = true
	case Leave:
		m.leave(e.Name)
	case Reset:
		m.reset(fx)
	}
}

// Flush ends a turn. An error is a failure to read the store, or what was read: the
// turn is void, and so is the Machine.
func (m *Machine) Flush(fx *Effects) error {
	m.view.batch = &fx.Batch
	if m.newRoster {
		m.newRoster = false
		m.saveRoster()
	}
	for _, g := range m.groups {
		g.flush(fx)
		g.release(fx)
	}
	fx.Sync = m.reveals && (m.unsynced || fx.Batch.Len() > 0)
	fx.Retired = m.retired
	return m.view.err
}

// Written says that the batch of the turn is in the store, synced if it had to be.
func (m *Machine) Written(fx *Effects) {
	if fx.Sync {
		m.unsynced = false
	} else if fx.Batch.Len() > 0 {
		m.unsynced = true
	}
	m.reveals = false
	m.view.written()
}

// send sends the message in w. What tells of the clock waits until the store has
// it: a dot that a power cut could take back may not be known elsewhere.
func (m *Machine) send(to string, w *writer, fx *Effects) {
	fx.Send = append(fx.Send, Message{To: to, Bytes: w.b})
	m.stats.Sent++
}

func (m *Machine) head(k kind, g *group) head {
	return head{kind: k, groups: byte(m.cfg.Groups), group: g.n, actor: m.self}
}

// receive takes a message apart, if it is of a member in its present life.
func (m *Machine) receive(now time.Time, e Received, fx *Effects) {
	h, r, err := readHead(e.Message)
	if err != nil || int(h.groups) != m.cfg.Groups {
		m.stats.Unreadable++
		return
	}
	g := m.groups[h.group]
	if h.kind == kindRefused {
		m.refused(e.From, swc.Actor(r.u64()))
		return
	}
	if m.retired || !m.admit(g, e.From, h.actor, fx) {
		m.stats.Refused++
		return
	}
	switch h.kind {
	case kindNews:
		take(m, r, r.news(), func(n news) { g.onNews(now, e.From, h.actor, n, fx) })
	case kindSeen:
		take(m, r, r.number(), func(n uint64) { g.seenBy(e.From, n) })
	case kindCompare:
		take(m, r, r.report(), func(p report) { g.onCompare(now, e.From, &p, fx) })
	case kindAnswer:
		take(m, r, r.answer(), func(a answer) { g.onAnswer(now, e.From, &a, fx) })
	case kindFetch:
		take(m, r, fetch{r.number(), r.text()}, func(f fetch) { g.onFetch(e.From, f, fx) })
	case kindPage:
		take(m, r, r.page(), func(p page) { g.onPage(now, e.From, &p, fx) })
	default:
		m.stats.Unreadable++
	}
}

// take calls f with a body if all of it could be read.
func take[T any](m *Machine, r *reader, body T, f func(T)) {
	if r.end() != nil {
		m.stats.Unreadable++
		return
	}
	f(body)
}

// tick does what time asks for.
func (m *Machine) tick(now time.Time, e Tick, fx *Effects) {
	before := m.reachable
	m.reachable = m.roster.live(e.Reachable, m.cfg.Name)
	var back []string // whoever could not be reached may have missed something
	for _, name := range m.reachable {
		if !slices.Contains(before, name) {
			back = append(back, name)
		}
	}
	for len(m.waits) > 0 && (m.waits[0].left == 0 || !now.Before(m.waits[0].deadline)) {
		m.waits[0].reached(m, fx)
		m.waits = m.waits[1:]
	}
	if m.retired {
		return
	}
	for _, g := range m.groups {
		g.tick(now, back, fx)
	}
}
