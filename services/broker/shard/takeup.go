// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"encoding/binary"
	"slices"

	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/broker/partition"
)

// takeUpSession makes a session of what wrapSession has made. It reports false if that
// cannot be read.
func (s *Shard) takeUpSession(t *Tenant, p *space, name string, b []byte) (se *sess, ok bool) {
	r := wire.Reader{Data: b}
	version, flags := r.U8(), r.U8()
	if r.Bad || version != recordVersion {
		return nil, false
	}
	if flags&handedRecord != 0 {
		rec, err := parseSession(r.Bytes())
		if err != nil || r.Bad {
			return nil, false
		}
		rec.sid = s.next(p)
		se = s.restoreSession(t, p, name, &rec)
		s.batch(p).Put(partition.KeyNamed(nil, p.id, partition.KindSession, t.id, se.recordName()), appendSession(nil, se))
		if flags&handedParts != 0 && !s.readParts(se, &r) {
			return se, false
		}
		s.due(se)
	}
	if flags&handedCarried != 0 {
		token, value := r.U64(), slices.Clone(r.Bytes())
		if r.Bad || len(value) < 10 {
			return se, false
		}
		bySid := map[uint64]*sess{}
		if se != nil {
			bySid[binary.BigEndian.Uint64(value[2:])] = se
		}
		whole, ok := s.restoreConnection(p, token, value, bySid)
		if !ok {
			return se, false
		}
		if !whole {
			binary.BigEndian.PutUint64(value[2:], se.ID)
			s.batch(p).Put(partition.KeyU64(nil, p.id, partition.KindMoving, token), value)
		}
	}
	return se, !r.Bad
}
