// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/retain"
	"github.com/manormq/manor/services/broker/session"
)

// restore reads the store into the shards. It runs before anyone else does.
func (st *Set) restore() error {
	r := runs.Get().(*run)
	for _, s := range st.shards {
		s.run, s.now = r, st.now()
		s.state.Store(running)
	}
	for _, s := range st.shards {
		for _, p := range s.spaces {
			if _, err := s.restoreSpace(p); err != nil {
				return fmt.Errorf("restore partition %d: %w", p.id, err)
			}
		}
	}
	st.raiseNumbers()
	for _, s := range st.shards {
		for _, p := range s.spaces {
			if err := s.resendOutbox(p); err != nil {
				return fmt.Errorf("restore partition %d: %w", p.id, err)
			}
		}
		s.loseConnections()
	}
	for _, s := range st.shards {
		s.end(r)
		s.run = nil
		s.state.Store(idle)
	}
	r.noted = 0
	runs.Put(r)
	return nil
}

// raiseNumbers keeps a partition from giving a number to a second publish that
// another partition has applied already.
func (st *Set) raiseNumbers() {
	for _, s := range st.shards {
		for _, p := range s.spaces {
			for origin, n := range p.applied {
				if from := st.shardOf(origin).spaces[origin]; from != nil {
					from.number = max(from.number, n)
				}
			}
		}
	}
}

// loseConnections ends the connections that sessions had when the last run of
// the broker ended.
func (s *Shard) loseConnections() {
	for _, of := range s.sessions {
		for _, se := range of {
			s.loseConnection(se)
		}
	}
}

// restoreSpace reads what the store has of a partition, and returns its sessions.
func (s *Shard) restoreSpace(p *space) (bySid map[uint64]*sess, err error) {
	store := s.set.store
	number, err := store.Get(partition.Key(nil, p.id, partition.KindNumber))
	switch {
	case err == nil && len(number) == 8:
		p.number = binary.BigEndian.Uint64(number)
	case err == nil:
		return nil, partition.ErrBadKey
	case !errors.Is(err, kv.ErrNotFound):
		return nil, err
	}
	if err := p.queues.Restore(); err != nil {
		return nil, err
	}
	err = p.retain.Restore(store, func(tenant string, r *retain.Retained) {
		t := s.set.Tenant(tenant)
		t.mayRetain.Store(true)
		t.retained.Add(1)
		t.retainedBytes.Add(int64(r.Message.Size()))
	})
	if err != nil {
		return nil, err
	}
	bySid = make(map[uint64]*sess)
	if err := s.restoreCells(p); err != nil {
		return nil, err
	}
	if err := s.restoreCourses(p); err != nil {
		return nil, err
	}
	if err := s.restoreSessions(p, bySid); err != nil {
		return nil, err
	}
	if err := s.restoreParts(p, bySid); err != nil {
		return nil, err
	}
	return bySid, s.restoreQueues(p, bySid)
}

// scan calls f for every record of a kind.
func (s *Shard) scan(p *space, k partition.Kind, f func(key, value []byte) error) error {
	start, end := partition.Range(p.id, k)
	it := s.set.store.Scan(start, end)
	defer it.Close()
	for it.Next() {
		if err := f(it.Key(), it.Value()); err != nil {
			return fmt.Errorf("record of kind %c: %w", k, err)
		}
	}
	return it.Err()
}

func (s *Shard) restoreSessions(p *space, bySid map[uint64]*sess) error {
	return s.scan(p, partition.KindSession, func(key, value []byte) error {
		tenant, client, err := partition.SplitNamed(key)
		if err != nil {
			return err
		}
		r, err := parseSession(value)
		if err != nil {
			return err
		}
		bySid[r.sid] = s.restoreSession(s.set.Tenant(tenant), p, client, &r)
		return nil
	})
}

// restoreSession makes a session of its record, which is under that name.
func (s *Shard) restoreSession(t *Tenant, p *space, name string, r *sessionRecord) *sess {
	limits := unlimited
	limits.QueueMessages, limits.QueueBytes = r.queueMessages, r.queueBytes
	limits.Settings.LIFO, limits.Settings.UpgradeQoS, limits.Settings.Balance = r.lifo, r.upgrade, r.balance
	limits.Settings.Member = r.member
	se := &sess{tenant: t, space: p, limits: shared(s.limits, limits), origin: shared(s.origins, link.Labels{})}
	id, nth := splitName(name)
	se.Session = *session.Restore(r.sid, id, r.Stored)
	switch head := s.session(t, id); {
	case astray(t, p.id, string(id), se.Durable()):
		se.guest = true // it died with its broker, and its will goes out
	case head != nil:
		s.enkin(head, se, r.balance)
	default:
		s.put(se)
	}
	se.nth = nth
	t.all.Add(1)
	if se.Durable() {
		t.sessions.Add(1)
	}
	return se
}

// restoreParts gives the sessions their subscriptions and their QoS 1 and 2
// states. What belongs to no session is a leftover of a session that ended
// with the process, and goes.
func (s *Shard) restoreParts(p *space, bySid map[uint64]*sess) error {
	err := s.scan(p, partition.KindSubscription, func(key, value []byte) error {
		sid, filter, err := partition.SplitU64(key)
		if err != nil {
			return err
		}
		se := bySid[sid]
		if se == nil {
			s.batch(p).Delete(key)
			return nil
		}
		sub, err := parseOptions(value, string(filter))
		if err != nil {
			return err
		}
		se.RestoreSubscription(sub)
		s.addRoute(se, &sub, true)
		return nil
	})
	if err != nil {
		return err
	}
	err = s.scan(p, partition.KindApplied, func(key, value []byte) error {
		if len(key) != 5 || len(value) != 8 {
			return partition.ErrBadKey
		}
		p.applied[partition.ID(binary.BigEndian.Uint16(key[3:]))] = binary.BigEndian.Uint64(value)
		return nil
	})
	if err != nil {
		return err
	}
	err = s.scan(p, partition.KindInbound, func(key, _ []byte) error {
		sid, rest, err := partition.SplitU64(key)
		if err != nil || len(rest) != 2 {
			return partition.ErrBadKey
		}
		if se := bySid[sid]; se != nil {
			se.RestoreInbound(binary.BigEndian.Uint16(rest), true)
		} else {
			s.batch(p).Delete(key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = s.scan(p, partition.KindInflight, func(key, value []byte) error {
		sid, rest, err := partition.SplitU64(key)
		if err != nil || len(rest) != 3 {
			return partition.ErrBadKey
		}
		se := bySid[sid]
		if se == nil {
			s.batch(p).Delete(key)
			return nil
		}
		r, err := parseInflight(value)
		if err != nil {
			return err
		}
		packet := binary.BigEndian.Uint16(rest[1:])
		se.RestoreInflight(packet, r)
		if len(value) > queue.DeliveryHead {
			se.queueOf().RestoreInside(r.Seq, packet)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.scan(p, partition.KindOutbox, func(_, value []byte) error {
		// Its identifier is not settled before the outbox was answered.
		o, err := parseOutbox(value)
		if err != nil {
			return err
		}
		if se := s.session(s.set.Tenant(o.tenant), o.client); se != nil && o.packet != 0 {
			se.RestoreUnsettled(o.packet)
		}
		return nil
	})
}

func (s *Shard) restoreQueues(p *space, bySid map[uint64]*sess) error {
	flying := make(map[uint64]map[uint64]bool)
	next := make(map[uint64]uint64)
	for sid, se := range bySid {
		se.Inflights(func(_ uint16, _ session.State, seq uint64) {
			if flying[sid] == nil {
				flying[sid] = make(map[uint64]bool)
			}
			flying[sid][seq] = true
			next[sid] = max(next[sid], seq+1)
		})
	}
	orphans := make(map[uint64]bool)
	err := s.scan(p, partition.KindQueue, func(key, value []byte) error {
		sid, rest, err := partition.SplitU64(key)
		if err != nil || len(rest) != 8 {
			return partition.ErrBadKey
		}
		se := bySid[sid]
		if se == nil || !se.Durable() {
			orphans[sid] = true
			return nil
		}
		seq := binary.BigEndian.Uint64(rest)
		return se.queueOf().RestoreEntry(seq, value, flying[sid][seq])
	})
	if err != nil {
		return err
	}
	for sid := range orphans {
		if err := queue.WipeStored(p.queues, sid, s.batch(p)); err != nil {
			return err
		}
	}
	for sid, se := range bySid {
		if se.queue == nil && next[sid] == 0 {
			continue
		}
		se.queueOf().Restored(next[sid])
		se.tenant.queueMessages.Add(se.queue.Len())
		se.tenant.queueBytes.Add(se.queue.Bytes())
	}
	if len(orphans) > 0 {
		s.set.log.Debug("queues of ended sessions removed", slog.Int("sessions", len(orphans)))
	}
	return nil
}
