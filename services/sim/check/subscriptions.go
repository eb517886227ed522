// SPDX-License-Identifier: Apache-2.0

package check

import (
	"slices"

	"github.com/manormq/manor/infra/topic"
)

// without is a time in which a device had no subscription to a filter: from its UNSUBACK, when messages
// up to from had been published, until it sent a SUBSCRIBE again.
type without struct {
	filter string
	from   int // in Messages.all
	over   bool
}

// Unsubscribing is called before a device sends an UNSUBSCRIBE of a filter, which is no shared one: what is
// not acknowledged by then is owed to it no more.
func (m *Messages) Unsubscribing(id, filter string) {
	r := m.device(id)
	r.filters = slices.DeleteFunc(r.filters, func(f string) bool { return f == filter })
	for _, p := range m.all {
		if !p.Acked && !r.wants(p) {
			p.seen = slices.DeleteFunc(p.seen, func(who string) bool { return who == id })
		}
	}
	if topic.Match(filter, []byte(WillTopic)) {
		m.Wills.Unsubscribing(id)
	}
}

// wants reports whether a device has subscribed to a message.
func (r *receiver) wants(p *Publish) bool {
	return slices.ContainsFunc(r.filters, func(f string) bool { return topic.Match(f, []byte(p.Topic)) })
}

// Unsubscribed is called when a device has its UNSUBACK.
func (m *Messages) Unsubscribed(id, filter string) {
	r := m.device(id)
	r.without = append(r.without, without{filter: filter, from: len(m.all)})
}

// Subscribing is called before a device sends a SUBSCRIBE of a filter for the first time, or again.
func (m *Messages) Subscribing(id, filter string) {
	r := m.device(id)
	for i := range r.without {
		if x := &r.without[i]; x.filter == filter {
			x.over = true
		}
	}
}

// unwanted reports whether a device has no subscription to a message that was published when it had none
// any more. What was under way when it subscribed anew may come by that.
func (r *receiver) unwanted(p *Publish) bool {
	if r.wants(p) {
		return false
	}
	return slices.ContainsFunc(r.without, func(x without) bool {
		return !x.over && p.at >= x.from && topic.Match(x.filter, []byte(p.Topic))
	})
}
