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

// refuses reports whether the client is told of it, in an acknowledgement that has no room
// for the quota's name.
func (r noteReason) refuses() bool {
	switch r {
	case noteSubscriptionsClient, noteSubscriptions, noteGroups, noteMembers, noteRetainedFull, noteRetainedRate:
		return true
	default:
		return false
	}
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
	// notesMost bounds what is told of in that time; more is counted by metrics alone.
	notesMost = 1024
)

// notes are what is to be told, of the turn. What happens first is told at once, and
// what follows as a number.
type notes struct {
	of map[noteKey]*noted
	// armed says that tellNotes will be called.
	armed bool
}

type noteKey struct {
	tenant *Tenant
	client mqtt.ClientID
	why    noteReason
}

type noted struct {
	n int // since it was told
	// ch is the channel that was told: a client that comes again is told again.
	ch *Channel
}

// note has the history of the tenant say that something happened n times to a client. A
// client whose refusal follows has heard of it before.
func (s *Shard) note(t *Tenant, client mqtt.ClientID, why noteReason, n int) {
	key := noteKey{t, client, why}
	ch := s.channelOf(t, client)
	x := s.notes.of[key]
	// A refusal on the channel is taken for the one that was told of last.
	if x != nil && x.ch == ch && (ch == nil || !why.refuses() || ch.said == why) {
		x.n += n
		return
	}
	if x == nil {
		if len(s.notes.of) >= notesMost {
			return
		}
		if s.notes.of == nil {
			s.notes.of = make(map[noteKey]*noted)
		}
		x = &noted{}
		s.notes.of[key] = x
		if !noteTexts[why].dropped || why == noteFanOut { // drop says the others
			s.set.log.Warn("a quota is exceeded",
				slog.String("tenant", t.id), slog.String("client_id", string(client)), slog.String("reason", noteTexts[why].reason))
		}
	}
	x.ch = ch
	s.tellNote(&key, x, n)
	if !s.notes.armed {
		s.notes.armed = true
		s.after(s.set.noteEvery, s.tellNotes)
	}
}

func (s *Shard) channelOf(t *Tenant, client mqtt.ClientID) *Channel {
	if se := s.session(t, client); se != nil {
		return se.ch
	}
	return nil
}

// tellNotes tells how often what was told has happened since, and forgets what has not.
func (s *Shard) tellNotes() {
	s.notes.armed = false
	for key, x := range s.notes.of {
		if x.n == 0 {
			delete(s.notes.of, key)
			continue
		}
		x.ch = s.channelOf(key.tenant, key.client)
		s.tellNote(&key, x, 0)
	}
	if len(s.notes.of) > 0 {
		s.notes.armed = true
		s.after(s.set.noteEvery, s.tellNotes)
	}
}

// tellNote tells the gateway of the client, or any that there is.
func (s *Shard) tellNote(key *noteKey, x *noted, n int) {
	what := &noteTexts[key.why]
	note := &link.Note{Tenant: key.tenant.id, ClientID: key.client, Dropped: what.dropped, Reason: what.reason, Text: what.text, Count: uint32(x.n + n)}
	x.n = 0
	f := link.DownFrame{Kind: link.DownNote, Note: note}
	if ch := x.ch; ch != nil {
		if ch.link.features&link.FeatureQuotas != 0 {
			if key.why.refuses() {
				ch.said = key.why
			}
			s.tell(ch, f)
		}
		return
	}
	note.Loose = true
	l := s.set.noteLink()
	if l == nil {
		return // the log and the metrics have it
	}
	at := slices.IndexFunc(s.outs, func(o *out) bool { return o.link == l })
	if at < 0 {
		at = len(s.outs)
		s.outs = append(s.outs, &out{link: l})
	}
	s.outs[at].down.Frames = append(s.outs[at].down.Frames, f)
}

// noteLink is a link whose gateway takes notes, or nil.
func (st *Set) noteLink() *Link {
	st.mu.RLock()
	defer st.mu.RUnlock()
	for l := range st.mu.links {
		if l.features&link.FeatureQuotas != 0 && !l.closed() {
			return l
		}
	}
	return nil
}
