// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
)

// stream is a bus.Stream in memory.
type stream struct {
	bus *Bus
	cfg bus.StreamConfig

	mu       sync.Mutex
	sequence uint64                 // guarded by mu
	records  []bus.Record           // guarded by mu
	bytes    int64                  // guarded by mu; of records
	follow   map[*follower]struct{} // guarded by mu
}

type follower struct {
	filter string
	queue  *queue[bus.Record]
}

// Stream implements bus.Bus.
func (b *Bus) Stream(_ context.Context, cfg bus.StreamConfig) (bus.Stream, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return nil, errDown()
	}
	s := b.streams[cfg.Name]
	if s == nil {
		s = &stream{bus: b, cfg: cfg, follow: map[*follower]struct{}{}}
		b.streams[cfg.Name] = s
	}
	return s, nil
}

func (s *stream) Append(_ context.Context, subject string, body []byte) (uint64, error) {
	if err := bus.CheckSubject(subject); err != nil {
		return 0, err
	}
	if err := s.bus.reachable(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sequence++
	r := bus.Record{Subject: subject, Body: slices.Clone(body), Sequence: s.sequence, Time: time.Now()}
	s.records = append(s.records, r)
	s.bytes += int64(len(body))
	s.bound(subject)
	for f := range s.follow {
		if matches(f.filter, subject) {
			f.queue.push(r)
		}
	}
	return s.sequence, nil
}

// bound lets the oldest go. The caller holds mu.
func (s *stream) bound(subject string) {
	of := int64(0)
	for i := range s.records {
		if s.records[i].Subject == subject {
			of++
		}
	}
	oldest := time.Now().Add(-s.cfg.Age)
	s.records = slices.DeleteFunc(s.records, func(r bus.Record) bool {
		gone := s.cfg.Bytes > 0 && s.bytes > s.cfg.Bytes || s.cfg.Age > 0 && r.Time.Before(oldest)
		if s.cfg.PerSubject > 0 && of > s.cfg.PerSubject && r.Subject == subject {
			gone = true
		}
		if gone {
			s.bytes -= int64(len(r.Body))
			if r.Subject == subject {
				of--
			}
		}
		return gone
	})
}

func (s *stream) Read(_ context.Context, r bus.Read) ([]bus.Record, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	if err := s.bus.reachable(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []bus.Record
	for _, rec := range s.records {
		since := r.After > 0 || !rec.Time.Before(r.Since)
		if rec.Sequence > r.After && since && len(found) < r.Most && matches(r.Filter, rec.Subject) {
			found = append(found, rec)
		}
	}
	return found, nil
}

func (s *stream) Follow(ctx context.Context, filter string, f func(bus.Record)) error {
	if err := bus.CheckFilter(filter); err != nil {
		return err
	}
	me := &follower{filter, newQueue[bus.Record]()}
	s.mu.Lock()
	s.follow[me] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.follow, me)
	}()
	for {
		r, ok := me.queue.pop(ctx)
		if !ok {
			return ctx.Err()
		}
		f(r)
	}
}

func (s *stream) Remove(_ context.Context, filter string, before time.Time) error {
	if err := bus.CheckFilter(filter); err != nil {
		return err
	}
	if err := s.bus.reachable(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.records = slices.DeleteFunc(s.records, func(r bus.Record) bool {
		gone := r.Time.Before(before) && matches(filter, r.Subject)
		if gone {
			s.bytes -= int64(len(r.Body))
		}
		return gone
	})
	return nil
}
