// SPDX-License-Identifier: Apache-2.0

// Package retain keeps the retained messages of a partition: in memory for
// matching, in the store for good. It is owned by the partition's shard, owns
// no goroutine, and knows neither sessions nor links. It owns the key kind r.
package retain

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
	"github.com/manormq/manor/services/broker/partition"
)

// Retained is one retained message. It is immutable.
type Retained struct {
	// Message has the QoS with which it was published; it owns its memory.
	Message mqtt.Message
	// ExpireAt and StoredAt are in Unix milliseconds; 0 never expires.
	ExpireAt int64
	StoredAt int64
	// Mark orders what this run of the broker retained; 0 is from before. It is
	// not stored.
	Mark uint64
}

// Expired reports whether r is no longer to be sent [MQTT-3.3.2-5].
func (r *Retained) Expired(now int64) bool { return r.ExpireAt != 0 && now >= r.ExpireAt }

// Space are the retained messages of one partition. The zero Space is not
// usable; see New.
type Space struct {
	part    partition.ID
	tenants map[string]*topic.Names[*Retained]
	buf     []byte
}

// New makes an empty Space.
func New(part partition.ID) *Space {
	return &Space{part: part, tenants: make(map[string]*topic.Names[*Retained])}
}

// Get returns what is retained for a topic, or nil.
func (s *Space) Get(tenant string, name []byte) *Retained {
	if t := s.tenants[tenant]; t != nil {
		r, _ := t.Get(name)
		return r
	}
	return nil
}

// Put retains r in place of what was there, and returns that.
func (s *Space) Put(tenant string, r *Retained, b *kv.Batch) (old *Retained) {
	s.buf = appendRetained(s.buf[:0], r)
	b.Put(partition.KeyNamed(nil, s.part, partition.KindRetained, tenant, string(r.Message.Topic)), s.buf)
	return s.set(tenant, r)
}

func (s *Space) set(tenant string, r *Retained) (old *Retained) {
	t := s.tenants[tenant]
	if t == nil {
		t = &topic.Names[*Retained]{}
		s.tenants[tenant] = t
	}
	old, _ = t.Put(r.Message.Topic, r)
	return old
}

// Delete forgets what is retained for a topic, and returns it or nil.
func (s *Space) Delete(tenant string, name []byte, b *kv.Batch) (old *Retained) {
	t := s.tenants[tenant]
	if t == nil {
		return nil
	}
	old, was := t.Delete(name)
	if !was {
		return nil
	}
	if t.Len() == 0 {
		delete(s.tenants, tenant)
	}
	b.Delete(partition.KeyNamed(nil, s.part, partition.KindRetained, tenant, string(name)))
	return old
}

// Len is how many retained messages a tenant has.
func (s *Space) Len(tenant string) int {
	if t := s.tenants[tenant]; t != nil {
		return t.Len()
	}
	return 0
}

// Tenants calls f for each tenant that has some.
func (s *Space) Tenants(f func(tenant string)) {
	for t := range s.tenants {
		f(t)
	}
}

// Match visits in order the retained messages of a tenant that match filter,
// after the topic after, until visit returns false.
func (s *Space) Match(tenant, filter string, after []byte, visit func(name []byte, r *Retained) bool) {
	if t := s.tenants[tenant]; t != nil {
		t.MatchFilter(filter, after, visit)
	}
}

// Each visits every retained message of a tenant.
func (s *Space) Each(tenant string, visit func(r *Retained)) {
	if t := s.tenants[tenant]; t != nil {
		t.All(func(_ []byte, r *Retained) bool {
			visit(r)
			return true
		})
	}
}

// Restore reads the partition's retained messages, and calls f for each.
func (s *Space) Restore(store kv.Store, f func(tenant string, r *Retained)) error {
	start, end := partition.Range(s.part, partition.KindRetained)
	it := store.Scan(start, end)
	defer it.Close()
	for it.Next() {
		tenant, name, err := partition.SplitNamed(it.Key())
		if err != nil {
			return fmt.Errorf("retained messages of partition %d: %w", s.part, err)
		}
		r, err := parseRetained(name, it.Value())
		if err != nil {
			return fmt.Errorf("retained message %q of tenant %s: %w", name, tenant, err)
		}
		s.set(tenant, r)
		f(tenant, r)
	}
	return it.Err()
}

const retainedVersion = 1

var errRetained = errors.New("retain: stored message is not readable")

// appendRetained encodes version, qos, deadline, time, properties and payload;
// the topic is in the key.
func appendRetained(dst []byte, r *Retained) []byte {
	dst = append(dst, retainedVersion, byte(r.Message.QoS))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.ExpireAt))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.StoredAt))
	dst = binary.AppendUvarint(dst, uint64(len(r.Message.Properties)))
	dst = append(dst, r.Message.Properties...)
	return append(dst, r.Message.Payload...)
}

// parseRetained makes one allocation of what r holds: it is read together.
func parseRetained(name string, b []byte) (*Retained, error) {
	if len(b) < 19 || b[0] != retainedVersion {
		return nil, errRetained
	}
	n := len(name)
	b = append(append(make([]byte, 0, n+len(b)), name...), b...)
	topic, b := b[:n:n], b[n:]
	r := &Retained{
		ExpireAt: int64(binary.BigEndian.Uint64(b[2:])),
		StoredAt: int64(binary.BigEndian.Uint64(b[10:])),
	}
	r.Message.Topic, r.Message.QoS, r.Message.Retain = topic, mqtt.QoS(b[1]), true
	b = b[18:]
	props, w := binary.Uvarint(b)
	if w <= 0 || props > uint64(len(b)-w) {
		return nil, errRetained
	}
	r.Message.Properties = b[w : w+int(props) : w+int(props)]
	r.Message.Payload = b[w+int(props):]
	return r, nil
}
