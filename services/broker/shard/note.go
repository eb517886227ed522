// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"log/slog"
	"slices"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// noteReason is what the history of a tenant's clients is told of.
type noteReason uint8

const (
	notNoted noteReason = iota
	noteSubscriptionsClient
	noteSubscriptions
	noteGroups
	noteMembers
	noteRetainedSubscribe
	noteFanOut
	noteQueueFull
	noteRetainedFull
	noteRetainedRate
	noteStorage
)

// noteTexts are what is said; dropped are those of messages that were not passed on.
var noteTexts = [...]struct {
	reason, text string
	dropped      bool
}{
	noteSubscriptionsClient: {"subscriptions_client", "the session has as many subscriptions as the quota subscriptions_client allows", false},
	noteSubscriptions:       {"subscriptions", "the tenant has as many subscriptions as its quota subscriptions allows", false},
	noteGroups:              {"shared_groups", "the tenant has as many shared subscriptions as its quota shared_groups allows", false},
	noteMembers:             {"shared_group_members", "the shared subscription has as many members as the quota shared_group_members allows", false},
	noteRetainedSubscribe:   {"retained_subscribe", "more retained messages match than are sent in a second: the others follow, as many each second", false},
	noteFanOut:              {"fan_out", "a message has more receivers than the quota fan_out allows: the others do not get it", true},
	noteQueueFull:           {"queue_full", "as much waits for the session as its quotas queue_messages and queue_bytes allow", true},
	noteRetainedFull:        {"retained_quota", "the tenant has as much retained as its quotas retained_messages and retained_bytes allow", true},
	noteRetainedRate:        {"retained_rate", "the tenant sets more retained messages in a second than its quota retained_rate allows", true},
	noteStorage:             {"storage_bytes", "the tenant stores as much as its quota storage_bytes allows", true},
}

// noted is what is noted of a message that is dropped; notNoted for what is no quota's.
func (r dropReason) noted() noteReason {
	switch r {
	case dropQueueFull:
		return noteQueueFull
	case dropRetainedFull:
		return noteRetainedFull
	case dropRetainedRate:
		return noteRetainedRate
	case dropStorage:
		return noteStorage
	default:
		return notNoted
	}
}

const (
	// noteEvery is how often the same thing is told of a client.
	noteEvery = time.Second
	// notesMost bounds what one tenant is told of in that time by a shard, in pairs of client
	// and reason; more is counted by metrics alone.
	notesMost = 64
)

// notes are what is to be told, of the turn. What happens first is told at once, and
// what follows as a number.
type notes struct {
	// of is how often it has happened since it was told, and per how many of them a tenant has.
	of  map[noteKey]int
	per map[*Tenant]int
	// armed says that tellNotes will be called.
	armed bool
}

type noteKey struct {
	tenant *Tenant
	client mqtt.ClientID
	why    noteReason
}

// note has the history of the tenant say that something happened n times to a client.
func (s *Shard) note(t *Tenant, client mqtt.ClientID, why noteReason, n int) {
	key := noteKey{t, client, why}
	if _, told := s.notes.of[key]; told {
		s.notes.of[key] += n
		return
	}
	if s.notes.per[t] >= notesMost {
		return
	}
	if s.notes.of == nil {
		s.notes.of, s.notes.per = make(map[noteKey]int), make(map[*Tenant]int)
	}
	s.notes.of[key] = 0
	s.notes.per[t]++
	if !noteTexts[why].dropped || why == noteFanOut { // drop says the others
		s.set.log.Warn("a quota is exceeded",
			slog.String("tenant", t.id), slog.String("client_id", string(client)), slog.String("reason", noteTexts[why].reason))
	}
	s.tellNote(&key, n)
	if !s.notes.armed {
		s.notes.armed = true
		s.after(s.set.noteEvery, s.tellNotes)
	}
}

// tellNotes tells how often what was told has happened since, and forgets what has not.
func (s *Shard) tellNotes() {
	s.notes.armed = false
	for key, n := range s.notes.of {
		if n > 0 {
			s.notes.of[key] = 0
			s.tellNote(&key, n)
			continue
		}
		delete(s.notes.of, key)
		if s.notes.per[key.tenant]--; s.notes.per[key.tenant] == 0 {
			delete(s.notes.per, key.tenant)
		}
	}
	if len(s.notes.of) > 0 {
		s.notes.armed = true
		s.after(s.set.noteEvery, s.tellNotes)
	}
}

// frame is a note of n times; of none it only names the quota.
func (k *noteKey) frame(n int) link.DownFrame {
	what := &noteTexts[k.why]
	return link.DownFrame{Kind: link.DownNote, Note: &link.Note{
		Tenant: k.tenant.id, ClientID: k.client, Dropped: what.dropped, Reason: what.reason, Text: what.text, Count: uint32(n),
	}}
}

// tellNote tells the gateway of the client, or any that there is.
func (s *Shard) tellNote(key *noteKey, n int) {
	f := key.frame(n)
	if se := s.session(key.tenant, key.client); se != nil && se.ch != nil {
		if se.ch.link.features&link.FeatureQuotas != 0 {
			s.tell(se.ch, f)
		}
		return
	}
	f.Note.Loose = true
	if l := s.set.noteLink(link.FeatureQuotas); l != nil { // else the log and the metrics have it
		s.noteTo(l, f)
	}
}

// noteTo sends a note of no channel.
func (s *Shard) noteTo(l *Link, f link.DownFrame) {
	at := slices.IndexFunc(s.outs, func(o *out) bool { return o.link == l })
	if at < 0 {
		at = len(s.outs)
		s.outs = append(s.outs, &out{link: l})
	}
	s.outs[at].down.Frames = append(s.outs[at].down.Frames, f)
}

// refusedBy keeps why what the client has sent under a packet identifier is refused, the
// first of several reasons, until that is acknowledged: by then others may be, since
// acknowledgements wait for each other and for commits.
func (s *Shard) refusedBy(se *sess, packet uint16, why noteReason) {
	if se.ch == nil || packet == 0 || se.ch.link.features&link.FeatureRefusals == 0 {
		return
	}
	if _, ok := se.refused[packet]; ok {
		return
	}
	if se.refused == nil {
		se.refused = make(map[uint16]noteReason, 1)
	}
	se.refused[packet] = why
}

// nameRefusal names the quota of the acknowledgement that is told next, if one refuses it.
func (s *Shard) nameRefusal(se *sess, packet uint16) {
	why, ok := se.refused[packet]
	if !ok {
		return
	}
	if delete(se.refused, packet); len(se.refused) == 0 {
		se.refused = nil
	}
	key := noteKey{se.tenant, se.ClientID, why}
	s.tell(se.ch, key.frame(0))
}

// noteLink is a link whose gateway has a feature of notes, or nil.
func (st *Set) noteLink(feature uint32) *Link {
	st.mu.RLock()
	defer st.mu.RUnlock()
	for l := range st.mu.links {
		if l.features&feature != 0 && !l.closed() {
			return l
		}
	}
	return nil
}
