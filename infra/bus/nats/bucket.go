// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// bucket is a bus.Bucket on a JetStream key-value bucket. Its revisions are the
// sequence numbers of the stream.
type bucket struct {
	bus    *Bus
	kv     jetstream.KeyValue
	stream jetstream.Stream // below kv
	// replicated says that several servers keep it, of which some may lag.
	replicated bool
}

func (b *bucket) Get(ctx context.Context, key string) (bus.Entry, error) {
	if err := bus.CheckKey(key); err != nil {
		return bus.Entry{}, err
	}
	ctx, cancel, err := b.bus.call(ctx)
	if err != nil {
		return bus.Entry{}, err
	}
	defer cancel()
	e, err := ask(ctx, func(ctx context.Context) (jetstream.KeyValueEntry, error) { return b.kv.Get(ctx, key) })
	if err != nil {
		return bus.Entry{}, mapError(err, "get "+key)
	}
	return entry(e), nil
}

func entry(e jetstream.KeyValueEntry) bus.Entry {
	return bus.Entry{Key: e.Key(), Value: e.Value(), Revision: bus.Revision(e.Revision()), Created: e.Created()}
}

func (b *bucket) Put(ctx context.Context, key string, value []byte, at bus.Revision) (bus.Revision, error) {
	if err := bus.CheckKey(key); err != nil {
		return 0, err
	}
	ctx, cancel, err := b.bus.call(ctx)
	if err != nil {
		return 0, err
	}
	defer cancel()
	var rev uint64
	switch at {
	case bus.Any:
		rev, err = b.kv.Put(ctx, key, value)
	case bus.Absent:
		rev, err = b.kv.Create(ctx, key, value)
	default:
		rev, err = b.kv.Update(ctx, key, value, uint64(at))
	}
	if err != nil {
		return 0, mapError(err, "put "+key)
	}
	return bus.Revision(rev), nil
}

func (b *bucket) Delete(ctx context.Context, key string, at bus.Revision) error {
	if err := bus.CheckKey(key); err != nil {
		return err
	}
	var opts []jetstream.KVDeleteOpt
	switch at {
	case bus.Absent:
		return errs.New(errs.Invalid, "delete %s: expected a revision or Any", key)
	case bus.Any:
	default:
		opts = append(opts, jetstream.LastRevision(uint64(at)))
	}
	ctx, cancel, err := b.bus.call(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := b.kv.Delete(ctx, key, opts...); err != nil {
		return mapError(err, "delete "+key)
	}
	return nil
}

func (b *bucket) Keys(ctx context.Context, prefix string) ([]string, error) {
	if err := bus.CheckPrefix(prefix); err != nil {
		return nil, err
	}
	ctx, cancel, err := b.bus.call(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	ctx, synced := context.WithCancel(ctx)
	defer synced()
	there, done := make(map[string]bool), false
	s := &watching{Watch: bus.Watch{Prefix: prefix}, keysOnly: true, f: func(u bus.Update) {
		if u.Synced {
			done = true
			synced()
		} else if !done {
			there[u.Entry.Key] = !u.Deleted
		}
	}}
	if err := b.watchOnce(ctx, s, nil); !done {
		return nil, mapError(err, "keys of "+prefix)
	}
	var keys []string
	for key, is := range there {
		if is {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// watching is the state of one Watch across reconnections.
type watching struct {
	bus.Watch
	f      func(bus.Update)
	last   uint64 // the highest revision told
	newest uint64 // the bucket's when the watch began
	due    uint64 // what must be told before Synced, besides what the server says
	synced bool
	// reached is that all was told that the server had when the watch began.
	reached  bool
	keysOnly bool // values are not needed
	// patience is for how long the server was waited for the last time, in vain.
	patience time.Duration
	// aim is what the bucket had at a time of which nobody has been told that the watch
	// is complete up to it; nil if there is none.
	aim *position
}

func (b *bucket) Watch(ctx context.Context, w bus.Watch, f func(bus.Update)) error {
	if err := bus.CheckPrefix(w.Prefix); err != nil {
		return err
	}
	s := &watching{Watch: w, f: f, last: uint64(w.After)}
	for {
		// Taken first, so that no reconnection is missed.
		again := b.bus.nextReconnection()
		err := b.watchOnce(ctx, s, again)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.bus.log.Debug("watch broken, trying again", "bucket", b.kv.Bucket(), "error", err)
		}
		pause := time.NewTimer(200*time.Millisecond + rand.N(300*time.Millisecond))
		select {
		case <-pause.C:
		case <-again:
		case <-ctx.Done():
		}
		pause.Stop()
	}
}

// watchOnce watches until ctx is done, the bus has reconnected (its servers may
// have forgotten the watch) or the watch breaks.
func (b *bucket) watchOnce(ctx context.Context, s *watching, again <-chan struct{}) error {
	call, cancel, err := b.bus.call(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	at := time.Now()
	status, err := ask(call, b.kv.Status)
	if err != nil {
		return err
	}
	due, err := b.last(call, s.Prefix)
	if err != nil {
		return err
	}
	s.reached, s.due, s.aim = false, due, &position{last: due, at: at}
	if nats, ok := status.(*jetstream.KeyValueBucketStatus); ok {
		s.newest = max(nats.StreamInfo().State.LastSeq, due)
		switch {
		case s.NewOnly && !s.synced:
			s.last = s.newest
		case s.newest < s.last: // another bucket under the old name
			s.last = 0
		}
	}
	var opts []jetstream.WatchOpt
	if s.keysOnly {
		opts = append(opts, jetstream.MetaOnly())
	}
	if s.last > 0 {
		opts = append(opts, jetstream.ResumeFromRevision(s.last+1))
	}
	life, end := context.WithCancel(ctx)
	defer end()
	w, err := s.begin(end, func() (jetstream.KeyWatcher, error) { return b.kv.Watch(life, s.Prefix+">", opts...) })
	if err != nil {
		return err
	}
	// It asks the servers to forget the watch, and waits for their answer for up to 5 s,
	// also when they are about to end. They forget it anyway when nobody listens.
	defer func() { go func() { _ = w.Stop() }() }()
	positions := b.positions(life, s)
	step := pace{told: s.last}
	for {
		select {
		case p := <-positions:
			if b.replicated { // one server cannot lag, and its end is noticed
				if err := step.look(s, &p); err != nil {
					return err
				}
			}
			s.heard(&p)
		case e, ok := <-w.Updates():
			if !ok {
				return errors.New("the watch was closed")
			}
			s.tell(e)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		case <-again:
			return errors.New("reconnected")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pace is how a watch of a bucket keeps up with it, which has ended unnoticed if it does not.
type pace struct {
	told  uint64 // what had been told at the last look at which it kept up, or went on
	stuck bool   // it did neither at the last look
}

// look takes how far the bucket is; an error ends the watch. One that is behind at two looks
// and has told nothing between them does not go on.
func (x *pace) look(s *watching, p *position) error {
	switch {
	case p.late:
		return errLeader
	case s.last != x.told, s.synced && p.last <= s.last:
		x.told, x.stuck = s.last, false
	case x.stuck:
		return errBehind
	default:
		x.stuck = true
	}
	return nil
}

var errLeader = errors.New("the bucket has had no leader, with which the watch may have ended")

var errLate = errors.New("the watch was answered when nobody waited any more")

// begin has ask begin a watch that lasts until end is called. A bucket without a leader
// drops the question, and the client would wait for 5 s: begin ends it before. A watch
// that has begun just then is over, which it might never tell.
func (s *watching) begin(end func(), ask func() (jetstream.KeyWatcher, error)) (jetstream.KeyWatcher, error) {
	s.patience = min(max(2*s.patience, askAgain), callTimeout)
	late := time.AfterFunc(s.patience, end)
	w, err := ask()
	inTime := late.Stop()
	if err != nil {
		return nil, err
	}
	if !inTime {
		go func() { _ = w.Stop() }()
		return nil, errLate
	}
	s.patience = 0
	return w, nil
}

// heard takes how far the bucket was. What aim waits for may never come: an entry that
// has expired, or that was taken away with all of its kind.
func (s *watching) heard(p *position) {
	if s.aim == nil || p.last <= s.last {
		s.aim = p
	}
	s.current()
}

func (s *watching) tell(e jetstream.KeyValueEntry) {
	if e == nil {
		s.reached = true
	} else {
		s.tellEntry(e)
	}
	if s.reached && !s.synced && s.last >= s.due {
		s.synced = true
		s.f(bus.Update{Synced: true, Entry: bus.Entry{Revision: bus.Revision(s.newest)}})
	}
	s.current()
}

// current says up to when the watch is complete, once all of aim has been told.
func (s *watching) current() {
	if s.aim == nil || !s.synced || !s.reached || s.last < s.aim.last {
		return
	}
	if s.Current != nil {
		s.Current(s.aim.at)
	}
	s.aim = nil
}

func (s *watching) tellEntry(e jetstream.KeyValueEntry) {
	s.last = max(s.last, e.Revision())
	if e.Operation() == jetstream.KeyValuePut {
		s.f(bus.Update{Entry: entry(e)})
		return
	}
	gone := entry(e)
	gone.Value = nil
	s.f(bus.Update{Entry: gone, Deleted: true})
}
