// SPDX-License-Identifier: Apache-2.0

package conn

import (
	"slices"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/tenancy"
)

// Regrant gives a connection that was accepted another grant. Publishes and
// subscriptions are held to it from now on, and so is what is delivered: the
// session may hold subscriptions, and messages, of before. Like Receive it belongs
// to the outbound half.
func (c *Conn) Regrant(g *tenancy.Grant) {
	c.guards = true
	c.grant.Store(g)
}

// MayHold reports whether the session may hold filters that are not granted, as one
// that was there before the connection, under a policy of the tenant's own. It is
// asked once the channel is open.
func (c *Conn) MayHold() bool { return c.guards }

// Reduction is what a session holds and is not granted.
type Reduction struct {
	// Gone are filters that are not granted at all, Lower subscriptions with the
	// QoS at which they are.
	Gone  []string
	Lower []mqtt.Subscription
}

// Empty reports whether there is nothing to take away.
func (r *Reduction) Empty() bool { return len(r.Gone) == 0 && len(r.Lower) == 0 }

// Reduce holds the subscriptions of the client's session to its grant, and to what
// mqtt.check says of them if it is not nil, by filter: what it does not say anything of
// is denied.
func (c *Conn) Reduce(held []mqtt.Subscription, checked map[string]tenancy.CheckVerdict) (r Reduction) {
	g := c.grant.Load()
	for _, s := range held {
		most, ok := g.MaySubscribe(s.Filter)
		if v := checked[s.Filter]; ok && checked != nil {
			if ok = v.Allow; v.QoS != nil {
				most = min(most, *v.QoS)
			}
		}
		switch {
		case !ok:
			r.Gone = append(r.Gone, s.Filter)
		case s.QoS > most:
			s.QoS, s.RetainHandling = most, mqtt.RetainDontSend
			r.Lower = append(r.Lower, s)
		}
	}
	return r
}

// Frames are what the broker is to hear of a reduction. Their packet id is 0, which
// no client can use: the answers are not passed on.
func (r *Reduction) Frames(ch link.Channel) (frames []link.UpFrame) {
	for all := range slices.Chunk(r.Gone, maxReduced) {
		frames = append(frames, link.UpFrame{Kind: link.UpUnsubscribe, Channel: ch, Unsubscribe: all})
	}
	for all := range slices.Chunk(r.Lower, maxReduced) {
		frames = append(frames, link.UpFrame{Kind: link.UpSubscribe, Channel: ch, Subscribe: all})
	}
	return frames
}

// maxReduced bounds the filters of one frame.
const maxReduced = 200

// Decided is a question about the grant and its answer, for the log and for who
// records decisions.
type Decided struct {
	tenancy.Question
	Allowed bool
}

const (
	// mostDecided is how many of them an Effects takes.
	mostDecided = 4
	// sampleEvery is which of the publishes that are allowed is noted, beside the
	// first of a connection.
	sampleEvery = 4096
)

// decided notes a publish: those that are denied, and some of the others, under a
// policy of the tenant's own.
func (c *Conn) decided(g *tenancy.Grant, m *mqtt.Message, allowed bool, fx *Effects) {
	if allowed {
		if c.samples++; c.samples%sampleEvery != 1 {
			return
		}
	}
	if g.Class() != "" && len(fx.Decided) < mostDecided {
		fx.Decided = append(fx.Decided, Decided{tenancy.Question{Action: tenancy.ActionPublish, Topic: string(m.Topic), QoS: m.QoS, Retain: m.Retain}, allowed})
	}
}

// decidedSubscription is decided for a subscription, at the QoS that was asked for.
func (c *Conn) decidedSubscription(g *tenancy.Grant, s *mqtt.Subscription, allowed bool, fx *Effects) {
	if g.Class() != "" && len(fx.Decided) < mostDecided {
		fx.Decided = append(fx.Decided, Decided{tenancy.Question{Action: tenancy.ActionSubscribe, Topic: s.Filter, QoS: s.QoS}, allowed})
	}
}
