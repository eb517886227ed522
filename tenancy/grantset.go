// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"strings"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
)

// What a GrantEntry says.
const (
	ActionPublish   = "publish"
	ActionSubscribe = "subscribe"
	ActionAll       = "all"

	EffectAllow = "allow"
	EffectDeny  = "deny"
)

// GrantEntry allows or denies topics. Of the entries that match a topic those of
// the highest priority decide: a deny among them denies; else it is allowed as far
// as one of them allows it. It is a plain value; the JSON is what a policy's
// mqtt.grants has.
type GrantEntry struct {
	// Effect is EffectAllow, also if empty, or EffectDeny.
	Effect string `json:"effect,omitempty"`
	// Action is ActionPublish, ActionSubscribe or ActionAll.
	Action string `json:"action"`
	// Filter is a topic filter in whose levels placeholders may stand: %c is the
	// client id, %u the user name, %cn the common name of the certificate,
	// %claim.NAME a claim of the token, %group each group of the device, and %% a
	// per cent sign.
	Filter string `json:"filter"`
	// User is the one user name that the entry is for, as it is after
	// authentication; nil is every client.
	User *string `json:"user,omitempty"`
	// QoS is the highest one that is allowed; nil is 2. A deny has none.
	QoS *int `json:"qos,omitempty"`
	// Retain is whether a publish may be retained; nil is yes. A deny has none.
	Retain *bool `json:"retain,omitempty"`
	// Priority is -1,000,000 to 1,000,000.
	Priority int `json:"priority,omitempty"`
	// At is the file and line of the rule that made the entry, where it is known.
	At string `json:"at,omitempty"`
}

const priorityMost = 1_000_000

// Deny reports whether the entry denies.
func (e *GrantEntry) Deny() bool { return e.Effect == EffectDeny }

// mask is what an allowing entry allows.
func (e *GrantEntry) mask() (m uint8) {
	most := mqtt.ExactlyOnce
	if e.QoS != nil {
		most = mqtt.QoS(*e.QoS)
	}
	for q := mqtt.AtMostOnce; q <= most; q++ {
		m |= bit(q, false)
		if e.Retain == nil || *e.Retain {
			m |= bit(q, true)
		}
	}
	return m
}

// bit stands for a QoS and a retain flag in a mask.
func bit(qos mqtt.QoS, retain bool) uint8 {
	b := uint8(1) << (2 * qos)
	if retain {
		b <<= 1
	}
	return b
}

// mostQoS is the highest QoS in a mask, which is not 0.
func mostQoS(mask uint8) (q mqtt.QoS) {
	for q = mqtt.ExactlyOnce; q > mqtt.AtMostOnce && mask>>(2*q) == 0; {
		q--
	}
	return q
}

// GrantSet is the compiled entries of one class of a tenant's policy, shared by
// the grants of all clients of the class. It is immutable and may be used
// concurrently.
type GrantSet struct {
	Revision uint64
	Class    string
	// Entries are those that it was made of; they must not be changed.
	Entries []GrantEntry

	grantTries                        // of every client
	users      map[string]*grantTries // of those with entries of their own
	levels     []pattern              // the distinct levels with placeholders
	highest    int32                  // priority of an allowing subscribe entry
	// same is the grant of everybody who has no entries of their own, if nothing has placeholders.
	same *Grant
}

// grantTries are entries by what they are about.
type grantTries struct{ publish, subscribe grantNode }

func newGrantTries() *grantTries {
	t := &grantTries{}
	t.publish.init()
	t.subscribe.init()
	return t
}

// NewGrantSet compiles the entries. The error is Invalid with Code "grant_invalid"
// and names the entry.
func NewGrantSet(revision uint64, class string, entries []GrantEntry) (*GrantSet, error) {
	s := &GrantSet{Revision: revision, Class: class, Entries: entries, highest: noPriority, grantTries: *newGrantTries()}
	for i := range entries {
		if err := s.add(&entries[i]); err != nil {
			at := entries[i].At
			if at != "" {
				at += ": "
			}
			return nil, errs.Coded(errs.Invalid, "grant_invalid", "%sgrant %d of class %q: %w", at, i+1, class, err)
		}
	}
	if len(s.levels) == 0 {
		s.same = &Grant{Revision: revision, set: s}
	}
	return s, nil
}

// Bind returns the grant of one client. It does not allocate for a set without
// placeholders, and a client without entries of its own.
func (s *GrantSet) Bind(who *Subject) *Grant {
	own := s.users[who.Username]
	if s.same != nil && own == nil {
		return s.same
	}
	g := &Grant{Revision: s.Revision, set: s, own: own, user: who.Username, values: make([]expansion, len(s.levels))}
	for i := range s.levels {
		g.values[i] = s.levels[i].expand(who)
	}
	return g
}

func (s *GrantSet) add(e *GrantEntry) error {
	if err := e.valid(); err != nil {
		return err
	}
	t := terminal{deny: noPriority, allow: noPriority}
	if e.Deny() {
		t.deny = int32(e.Priority)
	} else {
		t.allow, t.mask = int32(e.Priority), e.mask()
	}
	to := s.of(e)
	// Nobody may publish to what is the server's, whatever a filter says.
	if e.Action != ActionSubscribe && !strings.HasPrefix(e.Filter, "$") {
		s.put(&to.publish, e.Filter, &t)
	}
	if e.Action != ActionPublish {
		s.highest = max(s.highest, t.allow)
		s.put(&to.subscribe, e.Filter, &t)
	}
	return nil
}

// of is where an entry belongs.
func (s *GrantSet) of(e *GrantEntry) *grantTries {
	if e.User == nil {
		return &s.grantTries
	}
	own := s.users[*e.User]
	if own == nil {
		if own = newGrantTries(); s.users == nil {
			s.users = map[string]*grantTries{}
		}
		s.users[*e.User] = own
	}
	return own
}

func (s *GrantSet) put(n *grantNode, filter string, t *terminal) {
	held := strings.Contains(filter, "%")
	for more := true; more; {
		var level string
		level, filter, more = strings.Cut(filter, "/")
		if level == "#" {
			n.hash.merge(t)
			return
		}
		p, literal := parseLevel(level)
		switch {
		case level == "+":
			n = n.makePlus()
		case p == nil:
			n = n.make(literal)
		default:
			n = n.makeHeld(s.level(level, p))
		}
		n.note(t, held)
	}
	n.here.merge(t)
}

// level is the index of a level with placeholders.
func (s *GrantSet) level(text string, p *pattern) int {
	for i := range s.levels {
		if s.levels[i].text == text {
			return i
		}
	}
	s.levels = append(s.levels, *p)
	return len(s.levels) - 1
}

func (e *GrantEntry) valid() error {
	const code = "grant_invalid"
	switch {
	case e.Effect != "" && e.Effect != EffectAllow && e.Effect != EffectDeny:
		return errs.Coded(errs.Invalid, code, "expected the effect %s or %s, found %q", EffectAllow, EffectDeny, e.Effect)
	case e.Action != ActionPublish && e.Action != ActionSubscribe && e.Action != ActionAll:
		return errs.Coded(errs.Invalid, code, "expected the action %s, %s or %s, found %q", ActionPublish, ActionSubscribe, ActionAll, e.Action)
	case e.Deny() && (e.QoS != nil || e.Retain != nil):
		return errs.Coded(errs.Invalid, code, "qos and retain say how far something is allowed: a deny has none")
	case e.User != nil && *e.User == "":
		return errs.Coded(errs.Invalid, code, "expected a user name, or no user for an entry that is for every client")
	case e.QoS != nil && (*e.QoS < 0 || *e.QoS > 2):
		return errs.Coded(errs.Invalid, code, "expected a qos of 0, 1 or 2, found %d", *e.QoS)
	case e.Priority < -priorityMost || e.Priority > priorityMost:
		return errs.Coded(errs.Invalid, code, "expected a priority of %d to %d, found %d", -priorityMost, priorityMost, e.Priority)
	}
	return validGrantFilter(e.Filter, e.Action)
}

func validGrantFilter(filter, action string) error {
	const code = "grant_invalid"
	switch {
	case strings.HasPrefix(filter, sharePrefix):
		return errs.Coded(errs.Invalid, code, "expected the filter without %s: shared subscriptions are held to what they share, found %q", sharePrefix, filter)
	case strings.HasPrefix(filter, "$") && (action != ActionSubscribe || !strings.HasPrefix(filter, sysPrefix)):
		return errs.Coded(errs.Invalid, code, "topics that begin with $ are the server's: only %s… can be granted, to subscribe, found %q", sysPrefix, filter)
	}
	if err := topic.ValidateFilter(filter); err != nil {
		return errs.Coded(errs.Invalid, code, "%w", err)
	}
	for level := range strings.SplitSeq(filter, "/") {
		if err := validLevel(level); err != nil {
			return err
		}
	}
	return nil
}
