// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/services/broker/swc"
)

// Transport carries messages to the other brokers. Its methods are called from the
// goroutine of Run, and must not block.
type Transport interface {
	// Peers are the names of the brokers to whom messages would now go.
	Peers() []string
	// Send sends a message, or drops it if it cannot at once. The bytes may go to
	// several peers, so they are not to be changed.
	Send(peer string, message []byte)
}

// What the shell refuses.
var (
	// ErrBusy says that so many writes wait for the disk that no more are taken.
	ErrBusy = errs.New(errs.Unavailable, "metadata: too many writes are waiting")
	// ErrStopped says that Run has returned, or will before it writes.
	ErrStopped = errs.New(errs.Unavailable, "metadata: the store has stopped")
)

const (
	// maxWaiting bounds the bytes that wait for a turn, of writes and of messages
	// each: above it writes are refused, and messages dropped.
	maxWaiting = 64 << 20
	// turnBytes is the size of a batch at which a turn ends though more waits.
	turnBytes = 4 << 20
	tickEvery = 50 * time.Millisecond
	// retryWrite is the pause after a batch that could not be written.
	retryWrite = time.Second
)

// Store is the metadata of a broker. Its methods may be called concurrently.
// Nothing is written or told before Run.
type Store struct {
	machine   *Machine // owned by Run
	groups    int
	kv        kv.Store
	transport Transport
	log       *slog.Logger

	fx       Effects         // owned by Run
	calls    map[uint64]call // owned by Run: writes that are not done or not reached
	watchers []*watcher      // owned by Run
	ids      uint64          // owned by Run
	stats    atomic.Pointer[Stats]
	synced   atomic.Bool
	metAll   atomic.Bool
	members  atomic.Pointer[[]string]

	mu struct {
		sync.Mutex
		items    []item
		writes   int // bytes that wait
		messages int
		dropped  uint64
		stopped  bool
	}
	wake chan struct{}
}

// item is what waits for a turn: an event, or what runs between two turns.
type item struct {
	event Event
	size  int
	call  call
	run   func()
}

type call struct {
	done    func(error)
	reached func()
}

type watcher struct {
	space string
	f     func([]Change)
}

// Open reads the metadata of the broker cfg.Name in store. With cfg.Mint nil it
// makes actors from the time and random numbers.
func Open(cfg Config, store kv.Store, transport Transport, log *slog.Logger) (*Store, error) {
	if cfg.Mint == nil {
		cfg.Mint = mint
	}
	s := &Store{kv: store, transport: transport, log: log, calls: map[uint64]call{}, wake: make(chan struct{}, 1)}
	var err error
	if s.machine, err = New(cfg, store, &s.fx); err != nil {
		return nil, err
	}
	if err := store.Apply(&s.fx.Batch, s.fx.Sync); err != nil {
		return nil, err
	}
	s.machine.Written(&s.fx)
	s.fx.Reset()
	s.groups = s.machine.cfg.Groups
	s.publish()
	return s, nil
}

// mint makes an actor: the time in milliseconds, so that the next life of a store
// has a greater one, and 22 random bits.
func mint() swc.Actor {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return swc.Actor(uint64(time.Now().UnixMilli())<<22 | uint64(binary.BigEndian.Uint32(b[:])>>10))
}

// Run does the turns, until ctx is done or the store cannot be read.
func (s *Store) Run(ctx context.Context) error {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	defer s.stop()
	s.machine.Step(time.Now(), Tick{Reachable: s.transport.Peers()}, &s.fx)
	for {
		for _, it := range s.take() {
			if it.run != nil {
				if err := s.turn(ctx); err != nil {
					return err
				}
				it.run()
				continue
			}
			if w, ok := it.event.(Write); ok {
				s.ids++
				w.ID = s.ids
				s.calls[w.ID] = it.call
				it.event = w
			}
			s.machine.Step(time.Now(), it.event, &s.fx)
			if s.fx.Batch.Size() >= turnBytes {
				if err := s.turn(ctx); err != nil {
					return err
				}
			}
		}
		if err := s.turn(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-ticker.C:
			s.machine.Step(time.Now(), Tick{Reachable: s.transport.Peers()}, &s.fx)
		}
	}
}

// turn writes what the steps since the last one make, and does the rest of it.
func (s *Store) turn(ctx context.Context) error {
	fx := &s.fx
	wasRetired := s.stats.Load().Retired
	if err := s.machine.Flush(fx); err != nil {
		return err
	}
	if err := s.apply(ctx); err != nil {
		return err
	}
	s.machine.Written(fx)
	s.publish()
	// The watchers come first: a message may say that this broker has a write, and
	// who waits for that relies on the watchers here.
	s.notify(fx.Changes)
	s.synced.Store(s.stats.Load().Synced)
	s.metAll.Store(s.stats.Load().MetAll)
	for _, m := range fx.Send {
		s.transport.Send(m.To, m.Bytes)
	}
	for _, r := range fx.Done {
		if c := s.calls[r.ID]; c.done != nil {
			c.done(r.Err)
		}
		if r.Err != nil {
			delete(s.calls, r.ID)
		}
	}
	for _, id := range fx.Reached {
		if c := s.calls[id]; c.reached != nil {
			c.reached()
		}
		delete(s.calls, id)
	}
	if fx.Retired && !wasRetired {
		s.log.Error("the other brokers have given the metadata of this one up; they must be reset")
	}
	fx.Reset()
	return nil
}

// apply writes the batch, as often as it takes: nothing is acknowledged before.
func (s *Store) apply(ctx context.Context) error {
	failing := false
	for {
		if s.fx.Batch.Len() == 0 && !s.fx.Sync {
			return nil
		}
		err := s.kv.Apply(&s.fx.Batch, s.fx.Sync)
		if err == nil {
			if failing {
				s.log.Info("metadata are written again")
			}
			return nil
		}
		if !failing {
			failing = true
			s.log.Error("metadata cannot be written; nothing is acknowledged", slog.Any("err", err))
			stats := *s.stats.Load()
			stats.Failing = true
			s.stats.Store(&stats)
		}
		pause := time.NewTimer(retryWrite)
		select {
		case <-ctx.Done():
			pause.Stop()
			return err
		case <-pause.C:
		}
	}
}

// notify calls the watchers with the changes of their spaces.
func (s *Store) notify(changes []Change) {
	if len(changes) == 0 {
		return
	}
	for _, w := range s.watchers {
		var mine []Change
		for _, c := range changes {
			if c.Key.Space == w.space {
				mine = append(mine, c)
			}
		}
		if len(mine) > 0 {
			w.f(mine)
		}
	}
}

func (s *Store) publish() {
	stats := s.machine.Stats()
	s.mu.Lock()
	stats.Dropped = s.mu.dropped
	s.mu.Unlock()
	s.stats.Store(&stats)
	members := s.machine.Members()
	s.members.Store(&members)
}

// take returns what waits.
func (s *Store) take() []item {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := s.mu.items
	s.mu.items, s.mu.writes, s.mu.messages = nil, 0, 0
	return items
}

// stop ends what waits.
func (s *Store) stop() {
	s.mu.Lock()
	s.mu.stopped = true
	s.mu.Unlock()
	for _, it := range s.take() {
		if it.call.done != nil {
			it.call.done(ErrStopped)
		}
	}
	for _, r := range s.fx.Done { // of a turn that was not written
		if c := s.calls[r.ID]; c.done != nil {
			c.done(ErrStopped)
		}
	}
}

// put queues an item; limit points to the bytes of its kind, if they are bounded.
func (s *Store) put(it item, limit *int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.stopped {
		return ErrStopped
	}
	if limit != nil {
		if *limit > maxWaiting {
			s.mu.dropped++
			return ErrBusy
		}
		*limit += it.size
	}
	s.mu.items = append(s.mu.items, it)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}
