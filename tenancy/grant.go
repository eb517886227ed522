// SPDX-License-Identifier: Apache-2.0

package tenancy

import (
	"strings"

	"github.com/manormq/manor/infra/mqtt"
)

// Grant is what a connection may publish and subscribe to: a GrantSet, with what
// its placeholders stand for. What no entry allows is denied. It is immutable and
// may be used concurrently; its checks do not allocate.
type Grant struct {
	// Revision names the policy that the grant was made from: 1 is the default,
	// a tenant's own are above.
	Revision uint64
	set      *GrantSet
	own      *grantTries // the set's entries for this user name alone, or nil
	user     string
	values   []expansion // by the index of the set's placeholder levels
	// everything says that this is the default, the common case.
	everything bool
	// asks says that mqtt.check of the tenant's policy decides beside it.
	asks bool
	// within is a second grant that has to allow the same, or nil.
	within *Grant
}

// Within is a grant that allows what both g and limit allow; g itself where limit is
// nil. Its Revision is g's.
func (g *Grant) Within(limit *Grant) *Grant {
	if limit == nil {
		return g
	}
	both := *g
	both.within = limit.Within(g.within)
	return &both
}

// defaultRevision is the Revision of DefaultGrant.
const defaultRevision = 1

// defaultGrant is shared: a grant has no state.
var defaultGrant = &Grant{Revision: defaultRevision, everything: true}

// DefaultGrant allows everything inside the tenant except topics that begin
// with $, which are the server's [MQTT-4.7.2-1]; of those, $SYS/… may be
// subscribed.
func DefaultGrant() *Grant { return defaultGrant }

// NewGrant compiles filters that may be published to and subscribed, without
// placeholders. The errors are those of NewGrantSet.
func NewGrant(revision uint64, publish, subscribe []string) (*Grant, error) {
	var all []GrantEntry
	for _, f := range publish {
		all = append(all, GrantEntry{Action: ActionPublish, Filter: f})
	}
	for _, f := range subscribe {
		all = append(all, GrantEntry{Action: ActionSubscribe, Filter: f})
	}
	s, err := NewGrantSet(revision, "", all)
	if err != nil {
		return nil, err
	}
	return s.Bind(&Subject{}), nil
}

// MayPublish reports whether a message may be published to the topic name,
// which must be valid, with that QoS and retain flag.
func (g *Grant) MayPublish(topic []byte, qos mqtt.QoS, retain bool) bool {
	if g.everything && g.within == nil {
		return len(topic) > 0 && topic[0] != '$'
	}
	return g.Publishes(topic).Allows(qos, retain)
}

// Allowance is with what QoS and retain flags a topic may be published to. It is a
// plain value.
type Allowance uint8

// Allows reports whether that QoS with that retain flag is among them.
func (a Allowance) Allows(qos mqtt.QoS, retain bool) bool { return uint8(a)&bit(qos, retain) != 0 }

// everyAllowance is all of them.
const everyAllowance Allowance = 1<<6 - 1

// Publishes is how the topic name, which must be valid, may be published to.
func (g *Grant) Publishes(topic []byte) Allowance {
	if g.within != nil {
		return g.publishes(topic) & g.within.Publishes(topic)
	}
	return g.publishes(topic)
}

func (g *Grant) publishes(topic []byte) Allowance {
	switch {
	case len(topic) == 0 || topic[0] == '$':
		return 0
	case g.everything:
		return everyAllowance
	}
	o := outcome{deny: noPriority, allow: noPriority}
	g.match(&g.set.publish, topic, 0, &o)
	if g.own != nil {
		g.match(&g.own.publish, topic, 0, &o)
	}
	if o.deny >= o.allow {
		return 0
	}
	return Allowance(o.mask)
}

// MayReceive reports whether the subscribe entries allow messages of the topic
// name, which must be valid, at any QoS: whoever was granted a filter that matches
// the name may. A message that waits for a session since another grant held is
// asked about so.
func (g *Grant) MayReceive(topic []byte) bool {
	if len(topic) == 0 || g.within != nil && !g.within.MayReceive(topic) {
		return false
	}
	if g.everything {
		return topic[0] != '$' || strings.HasPrefix(string(topic), sysPrefix)
	}
	o := outcome{deny: noPriority, allow: noPriority}
	g.match(&g.set.subscribe, topic, 0, &o)
	if g.own != nil {
		g.match(&g.own.subscribe, topic, 0, &o)
	}
	return o.deny < o.allow
}

const (
	sharePrefix = "$share/"
	// sysPrefix begins what the server says of a tenant, to that tenant.
	sysPrefix = "$SYS/"
)

// MaySubscribe reports whether the topic filter, which must be valid, may be
// subscribed, and at most at what QoS: one allowing entry covers all that it can
// match, and no denying entry of the same or a higher priority matches anything
// that it can match. For $share/NAME/FILTER that is asked of FILTER [MQTT-4.8.2].
func (g *Grant) MaySubscribe(filter string) (most mqtt.QoS, ok bool) {
	if most, ok = g.maySubscribe(filter); ok && g.within != nil {
		limit, allowed := g.within.MaySubscribe(filter)
		most, ok = min(most, limit), allowed
	}
	return most, ok
}

// maySubscribe is MaySubscribe of g without within.
func (g *Grant) maySubscribe(filter string) (most mqtt.QoS, ok bool) {
	if rest, ok := strings.CutPrefix(filter, sharePrefix); ok {
		_, shared, ok := strings.Cut(rest, "/")
		if !ok {
			return 0, false
		}
		filter = shared
	}
	if filter == "" {
		return 0, false
	}
	if g.everything {
		return mqtt.ExactlyOnce, filter[0] != '$' || strings.HasPrefix(filter, sysPrefix)
	}
	c := coverage{outcome: outcome{deny: noPriority, allow: noPriority}}
	g.coverAll(filter, &c)
	if c.deny >= c.allow {
		return 0, false
	}
	most = mostQoS(c.mask)
	if c.allow < g.set.highest {
		// An entry of a higher priority decides about a part of the filter.
		n := coverage{narrows: true, above: c.allow, most: most}
		g.coverAll(filter, &n)
		most = n.most
	}
	return most, true
}

// coverAll gathers what of the subscribe entries that are for the client matches names
// that the filter matches.
func (g *Grant) coverAll(filter string, c *coverage) {
	g.cover(&g.set.subscribe, filter, 0, true, c)
	if g.own != nil {
		g.cover(&g.own.subscribe, filter, 0, true, c)
	}
}

// Default reports whether it is DefaultGrant's.
func (g *Grant) Default() bool { return g.everything && g.within == nil }

// Asking is g for a client of a tenant whose policy is dynamic. Each call makes another
// one.
func (g *Grant) Asking() *Grant {
	asking := *g
	asking.asks = true
	return &asking
}

// Asks reports whether mqtt.check is to be asked about what the grant allows.
func (g *Grant) Asks() bool { return g.asks }

// Class is that of the set; empty for the default.
func (g *Grant) Class() string {
	if g.set == nil {
		return ""
	}
	return g.set.Class
}
