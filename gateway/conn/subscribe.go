// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"fmt"
	"strings"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/infra/topic"
)

// Refused is what a subscription was refused by.
type Refused uint8

// What refuses subscriptions: the grants, quotas by their names, and filters
// that are none.
const (
	NotRefused Refused = iota
	RefusedGrants
	RefusedRequest
	RefusedLength
	RefusedLevels
	RefusedLevelLength
	RefusedWildcard
	RefusedFilter
	RefusedWildcards
	RefusedShared
	RefusedIDs
	RefusedCheck
)

func (r Refused) String() string {
	return [...]string{
		"none", "grants", "subscriptions_request", "topic_length", "topic_levels", "topic_level_length", "wildcard_root", "filter",
		"wildcard_available", "shared_available", "subscription_ids_available", "check",
	}[r]
}

// RefusedSubscription is a subscription that was not passed on, for the log.
type RefusedSubscription struct {
	By     Refused
	Filter string
	Text   string
}

// beyond is how a topic is beyond a quota; the zero beyond is within all.
type beyond struct {
	quota        Refused // RefusedLength, RefusedLevels or RefusedLevelLength
	has, allowed int64
}

// String continues "the topic has".
func (b beyond) String() string {
	what := map[Refused]string{
		RefusedLength: "bytes", RefusedLevels: "levels", RefusedLevelLength: "bytes in a level",
	}[b.quota]
	return fmt.Sprintf("%d %s, the quota %s allows %d", b.has, what, b.quota, b.allowed)
}

// beyondLimits checks a name or filter against the tenant's quotas
// topic_length, topic_levels and topic_level_length.
func beyondLimits[S ~string | ~[]byte](t S, l *Rules) beyond {
	if hi := l.TopicLength; hi >= 0 && int64(len(t)) > hi {
		return beyond{RefusedLength, int64(len(t)), hi}
	}
	if hi := l.TopicLevels; hi >= 0 {
		if n := int64(topic.Levels(t)); n > hi {
			return beyond{RefusedLevels, n, hi}
		}
	}
	hi := l.TopicLevelLength
	if hi < 0 || int64(len(t)) <= hi {
		return beyond{}
	}
	run, longest := int64(0), int64(0)
	for i := range len(t) {
		if t[i] == '/' {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	if longest > hi {
		return beyond{RefusedLevelLength, longest, hi}
	}
	return beyond{}
}

// maxFilters bounds the filters of a SUBSCRIBE whatever the tenant may: with
// short ones, what the gateway sends to the broker is larger than the packet,
// and a batch of the link holds hardly more than the largest packet.
const maxFilters = 1 << 16

func (c *Conn) subscribe(p *packet.Subscribe, fx *Effects) {
	if c.tooManyFilters(p, fx) {
		return
	}
	if grant := c.grant.Load(); grant.Asks() {
		if !c.askFilters(grant, p, fx) {
			return
		}
		defer func() { c.checks.once = nil }()
	}
	rules := c.rules.Load()
	part := partSuback{id: p.PacketID} // without reasons while nothing is refused
	granted := p.Subscriptions[:0]
	for i, s := range p.Subscriptions {
		reason, by := c.checkSubscription(&s, rules, fx)
		if reason.Failed() && c.wasTold(by) {
			fx.refused(by, s.Filter, c.refusedText(s.Filter, by, rules))
			fx.Refused[by]++
			fx.closeBy(reason, fx.FirstRefused.Text, by.String())
			return
		}
		if by != NotRefused && part.reasons == nil {
			part.reasons = make([]mqtt.ReasonCode, len(p.Subscriptions))
			for j := range i {
				part.reasons[j] = brokerDecides
			}
			part.text, part.limit = c.refusedText(s.Filter, by, rules), by.limit()
			fx.refused(by, s.Filter, part.text)
			if len(p.Subscriptions) > 1 {
				part.text = fmt.Sprintf("subscription %d: %s", i+1, part.text)
			}
		}
		if part.reasons != nil {
			part.reasons[i] = reason
		}
		if by != NotRefused {
			fx.Refused[by]++
			continue
		}
		if c.bridge {
			// Loops are prevented and the retain flag is kept for bridges, as
			// mosquitto and VerneMQ do.
			s.NoLocal, s.RetainAsPublished = !strings.HasPrefix(s.Filter, topic.SharePrefix), true
		}
		s.QoS = min(s.QoS, mqtt.QoS(rules.Settings.MaximumQoS)) // [MQTT-3.2.2-10]
		granted = append(granted, s)
	}
	if part.reasons != nil {
		fx.subacks = append(fx.subacks, part)
		if len(granted) == 0 {
			return
		}
		c.holding.Add(part.size())
	}
	f := fx.frame(link.UpSubscribe)
	f.PacketID, f.Subscribe = p.PacketID, granted
	c.charge(f)
}

// tooManyFilters refuses a SUBSCRIBE as a whole if it has more filters than it
// may.
func (c *Conn) tooManyFilters(p *packet.Subscribe, fx *Effects) bool {
	hi := min(within(c.rules.Load().SubscriptionsRequest, maxFilters), maxFilters)
	n := len(p.Subscriptions)
	if int64(n) <= hi {
		return false
	}
	reasons := make([]mqtt.ReasonCode, n)
	for i := range reasons {
		reasons[i] = mqtt.QuotaExceeded
	}
	text := fmt.Sprintf("%d subscriptions in one request, the quota %s allows %d", n, RefusedRequest, hi)
	fx.refused(RefusedRequest, p.Subscriptions[0].Filter, text)
	fx.Refused[RefusedRequest] += n
	fx.subacks = append(fx.subacks, partSuback{p.PacketID, reasons, text, RefusedRequest.String()})
	return true
}

// refused notes the first subscription that is.
func (fx *Effects) refused(by Refused, filter, text string) {
	if fx.FirstRefused.By == NotRefused {
		fx.FirstRefused = RefusedSubscription{by, filter, text}
	}
}

// checkSubscription returns brokerDecides, or a reason and what refuses. It lowers
// the QoS to what is granted [MQTT-3.8.4-8].
func (c *Conn) checkSubscription(s *mqtt.Subscription, rules *Rules, fx *Effects) (mqtt.ReasonCode, Refused) {
	name, rest, _, err := topic.ParseShare(s.Filter)
	if err != nil {
		return mqtt.TopicFilterInvalid, RefusedFilter
	}
	grant := c.grant.Load()
	most, ok := grant.MaySubscribe(s.Filter)
	checked := true
	if ok && grant.Asks() {
		var at mqtt.QoS
		at, checked = c.checkFilter(grant, s, fx.Now)
		most = min(most, at)
	}
	if checked { // what mqtt.check denies is no decision of the grants
		c.decidedSubscription(grant, s, ok, fx)
	}
	s.QoS = min(s.QoS, most)
	switch {
	case !ok:
		return mqtt.NotAuthorized, RefusedGrants
	case !checked:
		return mqtt.NotAuthorized, RefusedCheck
	case name != "" && !rules.Settings.SharedAvailable:
		return mqtt.SharedSubscriptionsNotSupported, RefusedShared
	case s.ID != 0 && !rules.Settings.SubscriptionIDsAvailable:
		return mqtt.SubscriptionIdentifiersNotSupported, RefusedIDs
	case !rules.Settings.WildcardAvailable && topic.HasWildcard(rest):
		return mqtt.WildcardSubscriptionsNotSupported, RefusedWildcards
	}
	if b := beyondLimits(rest, rules); b.quota != NotRefused {
		return mqtt.TopicFilterInvalid, b.quota
	}
	if rules.WildcardRoot == 0 && (rest[0] == '+' || rest[0] == '#') {
		return mqtt.TopicFilterInvalid, RefusedWildcard
	}
	return brokerDecides, NotRefused
}

// wasTold reports whether CONNACK has told the client that there is no such
// thing, so that asking for it is a protocol error (§3.2.2.3.11 to .13). Who was
// told otherwise, before a change, hears it in SUBACK.
func (c *Conn) wasTold(by Refused) bool {
	switch {
	case c.version != packet.V5:
		return false
	case by == RefusedShared:
		return c.told&noShared != 0
	case by == RefusedIDs:
		return c.told&noIDs != 0
	}
	return by == RefusedWildcards && c.told&noWildcards != 0
}

// limit is the name of the quota or setting; empty if it is neither.
func (r Refused) limit() string {
	if r == NotRefused || r == RefusedGrants || r == RefusedFilter || r == RefusedCheck {
		return ""
	}
	return r.String()
}

// refusedText says why checkSubscription refuses a filter.
func (c *Conn) refusedText(filter string, by Refused, rules *Rules) string {
	_, rest, _, err := topic.ParseShare(filter)
	switch {
	case err != nil:
		return err.Error()
	case by == RefusedGrants:
		return "the grant of this credential does not allow to subscribe to this filter"
	case by == RefusedCheck:
		return c.checks.denial
	case by == RefusedWildcard:
		return fmt.Sprintf("the filter begins with a wildcard, the quota %s is %d", by, rules.WildcardRoot)
	case by == RefusedWildcards:
		return "wildcard subscriptions are not available"
	case by == RefusedShared:
		return "shared subscriptions are not available"
	case by == RefusedIDs:
		return "subscription identifiers are not available"
	}
	return "the filter has " + beyondLimits(rest, rules).String()
}
