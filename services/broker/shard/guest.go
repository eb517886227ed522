// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"sync"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/session"
)

// A guest is a session in another partition than its client's, which cannot be reached
// from the client's gateway (allow_register_during_netsplit). It is clean and ends with
// its channel. The gateway ends it when the client's partition is back; the broker does
// when it serves that itself.

// guests are those at a broker, at most one of a client id. The zero guests are ready;
// the methods may be called concurrently.
type guests struct {
	mu sync.Mutex
	at map[guestID]*sess // guarded by mu
}

type guestID struct {
	tenant *Tenant
	client mqtt.ClientID
}

// put adds se, and returns the one of its client id that there was.
func (g *guests) put(se *sess) (was *sess) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.at == nil {
		g.at = make(map[guestID]*sess)
	}
	id := guestID{se.tenant, se.ClientID}
	was, g.at[id] = g.at[id], se
	return was
}

func (g *guests) remove(se *sess) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if id := (guestID{se.tenant, se.ClientID}); g.at[id] == se {
		delete(g.at, id)
	}
}

// of are the guests whose own partition is p.
func (g *guests) of(p partition.ID) (out []*sess) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, se := range g.at {
		if partition.Choose(id.tenant.parts(), string(id.client)) == p {
			out = append(out, se)
		}
	}
	return out
}

// Guests counts the guest sessions here.
func (st *Set) Guests() int {
	st.guests.mu.Lock()
	defer st.guests.mu.Unlock()
	return len(st.guests.at)
}

// guestPart is the partition for a guest: that in which one of its client id is, else
// one that is served here. It is the client's own one if that is served here, or none
// is: nobody is a guest then.
func (st *Set) guestPart(t *Tenant, client mqtt.ClientID) partition.ID {
	own := partition.Choose(t.parts(), string(client))
	if st.Serves(own) {
		return own
	}
	st.guests.mu.Lock()
	se := st.guests.at[guestID{t, client}]
	st.guests.mu.Unlock()
	if se != nil && st.Serves(se.space.id) {
		return se.space.id
	}
	for i := range st.serving {
		if p := partition.ID((int(own) + i) % len(st.serving)); st.Serves(p) {
			return p
		}
	}
	return own
}

// openGuest attaches a channel to a guest session, which takes the place of one of its
// client id.
func (s *Shard) openGuest(ch *Channel, o *link.Open) {
	own := partition.Choose(ch.tenant.parts(), string(o.ClientID))
	// The sessions of a sealed partition are here still, by their client ids.
	if p := s.spaces[ch.part]; p == nil || p.ceding != nil || ch.tenant.isHeld(s.now) || s.set.Serves(own) || s.ceded[own] != nil {
		ch.part = own
		s.elsewhere(ch)
		return
	}
	o.CleanStart, o.SessionExpiry, o.Limits.Settings.Multiple = true, 0, false
	quiet := o.Limits.Settings.QuietTakeover
	if se := s.session(ch.tenant, o.ClientID); se != nil {
		s.replaceGuest(se, quiet)
	}
	se := s.create(ch, o)
	se.guest = true
	if was := s.set.guests.put(se); was != nil { // where guests of the client id were before
		at := was.shard()
		s.leave(at, item{kind: itemCall, call: func() { at.replaceGuest(was, quiet) }})
	}
	s.stats.Guests.Add(1)
	s.attach(se, ch, o, false)
}

// replaceGuest ends a guest for another one of its client id.
func (s *Shard) replaceGuest(se *sess, quiet bool) {
	if !se.gone && se.guest {
		s.takeOver(se, quiet)
		s.step(se, &session.Event{Kind: session.Discard}, nil)
	}
}

// endGuests ends the guests whose own partition is about to be served here.
func (s *Shard) endGuests(p partition.ID) {
	for _, se := range s.set.guests.of(p) {
		at := se.shard()
		if at == s {
			s.endGuest(se, guestBack)
		} else {
			s.leave(at, item{kind: itemCall, call: func() { at.endGuest(se, guestBack) }})
		}
	}
}

// Why guests are ended, for their clients.
const (
	guestBack  = "the session of this client can be reached again; connect again"
	guestMoves = "the partition in which this client is a guest moves; connect again"
)

// endGuest has the client of a guest come back. Its will does not go out, as the client
// lives and is told so.
func (s *Shard) endGuest(se *sess, text string) {
	if se.gone || !se.guest {
		return
	}
	if ch := se.ch; ch != nil {
		s.tell(ch, link.DownFrame{Kind: link.DownClose, Reason: mqtt.UseAnotherServer, Text: text})
	}
	s.unbind(se)
	s.step(se, &session.Event{Kind: session.Detach, Cause: session.Normal}, nil)
}

// guestMayNot refuses what a guest asks with n filters, unless its tenant allows that. It
// reports whether it has.
func (s *Shard) guestMayNot(se *sess, f *link.UpFrame) bool {
	kind, n, may := link.DownSuback, len(f.Subscribe), se.limits.Settings.Subscribe
	if f.Kind == link.UpUnsubscribe {
		kind, n, may = link.DownUnsuback, len(f.Unsubscribe), se.limits.Settings.Unsubscribe
	}
	if !se.guest || may {
		return false
	}
	s.stats.SubscribeRefused.Add(uint64(n))
	reasons := make([]mqtt.ReasonCode, n)
	for i := range reasons {
		reasons[i] = mqtt.ImplementationSpecificError
	}
	s.tell(se.ch, link.DownFrame{Kind: kind, PacketID: f.PacketID, Reasons: reasons})
	return true
}
