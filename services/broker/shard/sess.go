// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/retain"
	"github.com/manormq/manor/services/broker/route"
	"github.com/manormq/manor/services/broker/session"
)

// sess is a session with what its shard keeps beside the machine. It is owned
// by the shard; other shards carry the pointer and compare it.
type sess struct {
	session.Session
	tenant *Tenant
	space  *space
	// ch is the open channel, or nil.
	ch    *Channel
	queue *queue.Queue
	// limits and origin are shared by sessions that have the same ones.
	limits *link.Limits
	origin *link.Labels
	user   string
	peer   string

	connectedAt    int64
	disconnectedAt int64
	dropped        uint64
	droppedSaid    int64

	// last is what its newest publish was for; nil before the first.
	last *route.Last[*sess]
	// mark and hit find a session again that several filters of one publish
	// lead to.
	mark uint64
	hit  int
	// touched is the ticket of the batch that the queue last appended to.
	touched uint64
	// deadline and place are where the session stands in the shard's heap;
	// place 0 is nowhere.
	deadline int64
	place    int
	// unwritten are its deliveries that the store does not have, by seq.
	unwritten map[uint64]*unwritten
	patience  patience
	// kin are the other sessions of the client id, nil if there are none; nth is 0
	// but for those that came when there was one.
	kin *kin
	// member is what it has as a member of groups, nil if it never was one.
	member *member
	// groups is how many shared subscriptions the session has.
	groups  int32
	nth     uint32
	replays []*replay
	pacing  *pacing
	// refused is why what the connection has sent is refused that is not acknowledged yet,
	// by packet identifier; nil is nothing.
	refused map[uint16]noteReason
	// awaited is set after a planned move, until the connection of then goes on here.
	awaited *awaited
	// packed is the record of its connection, once that was made to be handed over: what
	// was in memory alone is there and nowhere else.
	packed []byte
	// ending says that the session is over and gives away what it can; gone,
	// that it is forgotten.
	ending, gone bool
	// guest: it is in another partition than its client id's.
	guest bool
	// at is where the session stands in its partition's heads, from 1 on; 0 is nowhere.
	at int32
}

// session is the tenant's session of that client id, or nil.
func (s *Shard) session(t *Tenant, id mqtt.ClientID) *sess { return s.sessions[t][id] }

func (s *Shard) put(se *sess) {
	of := s.sessions[se.tenant]
	if of == nil {
		of = make(map[mqtt.ClientID]*sess)
		s.sessions[se.tenant] = of
	}
	if was := of[se.ClientID]; was != nil {
		was.space.drop(was)
	}
	of[se.ClientID] = se
	se.space.add(se)
}

// remove forgets the session, unless another one has its client id by now.
func (s *Shard) remove(se *sess) {
	if se.guest {
		s.set.guests.remove(se)
	}
	of := s.sessions[se.tenant]
	if of[se.ClientID] != se {
		return
	}
	se.space.drop(se)
	if delete(of, se.ClientID); len(of) == 0 {
		delete(s.sessions, se.tenant)
	}
}

// space is a partition of this shard: what it has in memory.
type space struct {
	id     partition.ID
	owner  *Shard
	ledger *ledger
	// number is the last that next gave; numbered, that it is not in a batch yet.
	number   uint64
	epoch    uint64 // under which it is served
	numbered bool
	// taken: all that it has is restored.
	taken bool
	// ceding is set while it is about to move as planned; left: its clients go on
	// elsewhere.
	ceding *ceding
	left   bool
	queues *queue.Space
	retain *retain.Space
	// applied is, for each origin partition, the highest n whose exact
	// publish was delivered here.
	applied map[partition.ID]uint64
	// cells are the revisions of the cells that it keeps; see keepCell. stops are those of
	// tenants that are Leaving and have stopped here, and stopped those with which all
	// that the tenant has is committed.
	cells, stops, stopped map[*Tenant]uint64
	// courses are what is decided of tenants that are Leaving, of whose list this one is the
	// first, or of which it was handed something; see Set.Decide.
	courses map[*Tenant]*courseOf
	// unsure are the revisions of records by which tenants have arrived, or were placed, and which
	// are not committed here yet: nobody of those tenants is let in before.
	unsure map[*Tenant]uint64
	// handing are the tenants of which something is on its way to another partition, arriving
	// those of which something that was handed is being taken up.
	handing, arriving map[*Tenant]bool
	// heads are the partition's sessions that are in Shard.sessions, in no order: what is
	// done for a partition takes as long as it is large, not the shard.
	heads []*sess
}

func (p *space) add(se *sess) {
	p.heads = append(p.heads, se)
	se.at = int32(len(p.heads))
}

// drop takes a session out of heads; the last one takes its place.
func (p *space) drop(se *sess) {
	if se.at == 0 {
		return
	}
	end := len(p.heads) - 1
	last := p.heads[end]
	p.heads[se.at-1], last.at = last, se.at
	p.heads[end], p.heads = nil, p.heads[:end]
	se.at = 0
}

// sealed reports whether nothing more may be written here before it moves.
func (p *space) sealed() bool { return p.ceding != nil && p.ceding.sealed }

// numberBits are those of a number that count; the epoch under which its partition was served
// stands above them. So a number is not given twice, though what was stored of them be lost with
// every copy of the partition: others have applied what came under them.
const numberBits = 40

// next numbers what is made in the partition: sessions, bodies, exact
// publishes. It is stored with the turn's batch.
func (s *Shard) next(p *space) uint64 {
	p.number++
	if !p.numbered {
		p.numbered = true
		l := s.use(p.ledger)
		l.numbered = append(l.numbered, p)
	}
	return p.number
}

// queueOf returns the session's queue, made when first needed.
func (se *sess) queueOf() *queue.Queue {
	if se.queue == nil {
		se.queue = queue.New(se.space.queues, se.ID, se.Durable())
	}
	return se.queue
}

func (se *sess) waiting() int64 {
	if se.queue == nil {
		return 0
	}
	return se.queue.Len()
}

// uncount takes a session that is not here any more out of its tenant's usage.
func (se *sess) uncount() {
	if se.Durable() {
		se.tenant.sessions.Add(-1)
	}
	if se.queue != nil {
		se.tenant.queueMessages.Add(-se.queue.Len())
		se.tenant.queueBytes.Add(-se.queue.Bytes())
	}
}

// shard is the shard that owns the session; anyone may ask.
func (se *sess) shard() *Shard { return se.space.owner }
