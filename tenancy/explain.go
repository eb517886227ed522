// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"fmt"
	"strings"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
)

// Question is what a client wants to do. It is a plain value.
type Question struct {
	// Action is ActionPublish or ActionSubscribe.
	Action string `json:"action"`
	// Topic is a topic name to publish to, or a topic filter to subscribe to.
	Topic  string   `json:"topic"`
	QoS    mqtt.QoS `json:"qos"`
	Retain bool     `json:"retain"`
}

// Explanation says what a grant answers, and why. It is a plain value.
type Explanation struct {
	Allowed bool `json:"allowed"`
	// QoS is the highest one at which a subscription is granted.
	QoS mqtt.QoS `json:"qos"`
	// Entry is the one that decided, nil if none did.
	Entry *GrantEntry `json:"entry,omitempty"`
	Why   string      `json:"why"`
}

// Explain answers the question as MayPublish and MaySubscribe do, and names the
// entry. It looks at each entry and is for people: it allocates.
func (g *Grant) Explain(q Question) Explanation {
	if q.Action == ActionPublish {
		x := Explanation{Allowed: topic.ValidateName([]byte(q.Topic)) == nil && g.MayPublish([]byte(q.Topic), q.QoS, q.Retain), QoS: mqtt.ExactlyOnce}
		x.Entry, x.Why = g.why(q, x.Allowed)
		return x
	}
	x := Explanation{}
	if topic.ValidateFilter(q.Topic) == nil {
		x.QoS, x.Allowed = g.MaySubscribe(q.Topic)
	}
	_, q.Topic, _ = topic.CutShare(q.Topic)
	x.Entry, x.Why = g.why(q, x.Allowed)
	return x
}

func (g *Grant) why(q Question, allowed bool) (*GrantEntry, string) {
	switch {
	case g.everything && allowed:
		return nil, "the tenant has no policy of its own: the default allows every topic that does not begin with $"
	case strings.HasPrefix(q.Topic, "$") && !allowed:
		return nil, "topics that begin with $ are the server's; of those only " + sysPrefix + "… can be granted, to subscribe"
	case g.everything:
		return nil, "the topic is not one"
	}
	var allow, deny *GrantEntry
	partly := ""
	for i := range g.set.Entries {
		e := &g.set.Entries[i]
		if e.Action != ActionAll && e.Action != q.Action || e.User != nil && *e.User != g.user {
			continue
		}
		meets, covers := g.relation(e, q)
		switch {
		case e.Deny() && meets:
			if deny == nil || e.Priority > deny.Priority {
				deny = e
			}
		case covers:
			if allow == nil || e.Priority > allow.Priority || e.Priority == allow.Priority && e.mask() > allow.mask() {
				allow = e
			}
		case meets:
			partly = "; " + e.Filter + " allows a part of it"
		}
	}
	switch {
	case allowed:
		return allow, "allowed by the entry"
	case allow == nil && deny == nil:
		return nil, "no entry allows all of it: what nothing allows is denied" + partly
	case allow == nil || deny != nil && deny.Priority >= allow.Priority:
		return deny, "denied by the entry"
	}
	return allow, fmt.Sprintf("the entry allows less than QoS %d, retain %v", q.QoS, q.Retain)
}

// relation says whether the entry matches some, and all, of what the question is
// about.
func (g *Grant) relation(e *GrantEntry, q Question) (meets, covers bool) {
	for _, f := range g.expand(e) {
		if q.Action == ActionPublish {
			m := topic.Match(f, []byte(q.Topic))
			meets, covers = meets || m, covers || m
			continue
		}
		meets = meets || intersects(f, q.Topic)
		covers = covers || filterCovers(f, q.Topic)
	}
	return meets, covers
}

// expand is the filters that the entry stands for, for this client. Below a level
// that has an unsafe value a deny has +/#, and an allow nothing.
func (g *Grant) expand(e *GrantEntry) []string {
	filters := []string{""}
	var closed []string
	for i, level := range strings.Split(e.Filter, "/") {
		sep := "/"
		if i == 0 {
			sep = ""
		}
		p, literal := parseLevel(level)
		x := expansion{texts: []string{literal}}
		if p != nil {
			x = g.values[g.set.level(level, p)]
		}
		var next []string
		for _, f := range filters {
			if x.unsafe && e.Deny() {
				closed = append(closed, f+sep+"+/#")
			}
			for _, t := range x.texts {
				next = append(next, f+sep+t)
			}
		}
		filters = next
	}
	return append(filters, closed...)
}

// intersects reports whether some topic name is matched by both filters, which
// have no $share prefix.
func intersects(a, b string) bool {
	for root := true; ; root = false {
		la, ra, ma := strings.Cut(a, "/")
		lb, rb, mb := strings.Cut(b, "/")
		switch {
		case root && (strings.HasPrefix(la, "$") && (lb == "+" || lb == "#") || strings.HasPrefix(lb, "$") && (la == "+" || la == "#")):
			return false
		case la == "#" || lb == "#":
			return true
		case la != "+" && lb != "+" && la != lb:
			return false
		case !ma || !mb:
			return ma == mb || ma && ra == "#" || mb && rb == "#"
		}
		a, b = ra, rb
	}
}

// filterCovers reports whether every topic name that filter matches is matched by
// allow.
func filterCovers(allow, filter string) bool {
	if strings.HasPrefix(filter, "$") && (allow[0] == '+' || allow[0] == '#') {
		return false
	}
	for {
		la, ra, ma := strings.Cut(allow, "/")
		lf, rf, mf := strings.Cut(filter, "/")
		switch {
		case la == "#":
			return true
		case lf == "#" || la != "+" && la != lf:
			return false
		case !mf:
			return !ma || ra == "#"
		case !ma:
			return false
		}
		allow, filter = ra, rf
	}
}
