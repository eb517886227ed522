// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/topic"
)

// Messages is what devices published, and what came of it. Deliveries are told in the
// order in which a subscriber gets them, without the repetitions that a packet
// identifier in flight tells from the first. The zero value is ready; one goroutine
// uses it.
type Messages struct {
	// Mark is what all payloads of the tenant end in, so that another tenant's are told from them.
	Mark string
	// Broken is called with what is seen to be against a promise when it happens.
	Broken func(format string, args ...any)

	incidents incidents
	all       []*Publish
	byPayload map[string]*Publish
	devices   map[string]*receiver
	order     []string // names of devices, in the order in which they came up
	// forgone is how many of all are owed no more, by who was to get them: see Publish.seen.
	forgone map[string]int
	// Wills are those of the devices.
	Wills Wills
}

// WillTopic is what the topics of wills begin with; the name of the device follows.
const WillTopic = "w/"

// Publish is one message of a device.
type Publish struct {
	From, Topic, Payload string
	Seq                  int // per device, counted from 1
	QoS                  mqtt.QoS
	// Retain says that it is to be retained: now and then one, of each device always at
	// the same QoS, as there is no order among others.
	Retain, Acked bool
	// Again says that the device has sent it more than once.
	Again bool
	// seen are those who had subscribed to it, and had that acknowledged, before it was
	// sent: a device, or $share/NAME/FILTER.
	seen []string
	at   int // in all
	// by is where its publisher's session was.
	by Place
}

// receiver is what a device subscribed to and got.
type receiver struct {
	filters []string
	got     []delivery
	times   map[*Publish]int
	without []without
	// since is how many of all there were when its connection, or its session's owner, changed last.
	since int
}

type delivery struct {
	*Publish
	dup        bool
	connection int
	packet     uint16
}

func (m *Messages) device(id string) *receiver {
	if m.devices == nil {
		m.devices, m.byPayload = map[string]*receiver{}, map[string]*Publish{}
	}
	r := m.devices[id]
	if r == nil {
		r = &receiver{times: map[*Publish]int{}}
		m.devices[id] = r
		m.order = append(m.order, id)
	}
	return r
}

// Publish is called before a device, whose session is at by, sends its seq-th message for the first time.
func (m *Messages) Publish(from string, seq int, qos mqtt.QoS, by Place) *Publish {
	m.device(from)
	p := &Publish{From: from, Topic: "t/" + from, Payload: fmt.Sprintf("%s %d", from, seq) + m.Mark, Seq: seq, QoS: qos, by: by, Retain: seq%10 == 5+int(from[len(from)-1])%2}
	for _, id := range m.order {
		for _, f := range m.devices[id].filters {
			who, filter := id, f
			if _, of, ok := topic.CutShare(f); ok {
				who, filter = f, of
			}
			if topic.Match(filter, []byte(p.Topic)) && !slices.Contains(p.seen, who) {
				p.seen = append(p.seen, who)
			}
		}
	}
	p.at = len(m.all)
	m.all, m.byPayload[p.Payload] = append(m.all, p), p
	return p
}

// Forgo is called when what was known of a device's session is lost: it has no subscriptions any
// more, and what was published before is owed neither to it nor to the groups that it was in, and may
// come to them twice, and late: what it misses of a message until it has subscribed anew it gets when
// the publisher sends that again.
func (m *Messages) Forgo(id string) {
	r := m.device(id)
	if m.forgone == nil {
		m.forgone = map[string]int{}
	}
	m.forgone[id] = len(m.all)
	for _, f := range r.filters {
		if strings.HasPrefix(f, topic.SharePrefix) {
			m.forgone[f] = len(m.all)
		}
	}
	r.filters = nil
}

// Retained is the newest message of a device that is to be retained, nil without one. It is nil,
// too, if the device's session was lost since: how far what was under way there came is not known.
func (m *Messages) Retained(from string) (newest *Publish) {
	for _, p := range m.all {
		if p.From == from && p.Retain {
			newest = p
		}
	}
	if newest != nil && newest.at < m.forgone[from] {
		return nil
	}
	return newest
}

// Acked is called when a publisher has its PUBACK or PUBREC.
func (m *Messages) Acked(p *Publish) { p.Acked = true }

// Subscribed is called when a device has its SUBACK.
func (m *Messages) Subscribed(id, filter string) {
	r := m.device(id)
	r.filters = append(r.filters, filter)
	if topic.Match(filter, []byte(WillTopic+id)) {
		m.Wills.Subscribed(id)
	}
}

// Will is the payload of the will of a device's connection.
func (m *Messages) Will(id string, connection int) string {
	m.Wills.mark = m.Mark
	return WillOf(id, connection) + m.Mark
}

// Delivered is called when a device gets a message, or a will, on its connection of that number
// under that packet identifier. Its session is at that place.
func (m *Messages) Delivered(id, payload string, dup bool, connection int, packet uint16, at Place) {
	if !strings.HasSuffix(payload, m.Mark) {
		m.Broken("%s%s gets %q, which is another tenant's", id, m.Mark, payload)
		return
	}
	if m.Wills.Delivered(id, payload) {
		return
	}
	r, p := m.device(id), m.byPayload[payload]
	d := delivery{p, dup, connection, packet}
	if p != nil && !r.shares() {
		m.once(id, r, d, at)
		if r.unwanted(p) {
			m.Broken("%s gets %q, which was published after its UNSUBACK [MQTT-3.10.4-2]", id, p.Payload)
		}
	}
	r.got = append(r.got, d)
}

// Counts are how many were published and acknowledged, and how many were delivered.
func (m *Messages) Counts() (published, acked, delivered int) {
	for _, p := range m.all {
		if published++; p.Acked {
			acked++
		}
	}
	for _, r := range m.devices {
		delivered += len(r.got)
	}
	return published, acked, delivered
}

// Missing is a message that was acknowledged and that somebody who had subscribed to
// it does not have yet; empty if there is none.
func (m *Messages) Missing() string {
	have := map[string]map[*Publish]bool{}
	for id, r := range m.devices {
		of := map[*Publish]bool{}
		for _, d := range r.got {
			of[d.Publish] = true
		}
		have[id] = of
		for _, f := range r.filters {
			if !strings.HasPrefix(f, topic.SharePrefix) {
				continue
			}
			if have[f] == nil {
				have[f] = map[*Publish]bool{}
			}
			for p := range of {
				have[f][p] = true
			}
		}
	}
	for _, p := range m.all {
		for _, who := range p.seen {
			if p.Acked && !have[who][p] && p.at >= m.forgone[who] {
				return fmt.Sprintf("%q at QoS %d, which was acknowledged, has not come to %s", p.Payload, p.QoS, who)
			}
		}
	}
	return ""
}

// Judge calls broken with every promise that was not kept.
func (m *Messages) Judge(broken func(format string, args ...any)) {
	if s := m.Missing(); s != "" {
		broken("%s", s)
	}
	shared := map[string]map[*Publish]int{} // by group
	for _, id := range m.order {
		r := m.devices[id]
		times := map[*Publish]int{}
		newest := map[string]int{} // by publisher and QoS
		last := map[*Publish]delivery{}
		for _, d := range r.got {
			if d.Publish == nil {
				broken("%s got a message that nobody sent", id)
				continue
			}
			if l := last[d.Publish]; d.dup && l.connection == d.connection && l.packet == d.packet {
				broken("%s got %q again on the same connection [MQTT-4.4.0-1]", id, d.Payload)
			}
			last[d.Publish] = d
			of := fmt.Sprint(d.From, d.QoS)
			if times[d.Publish]++; times[d.Publish] == 1 {
				// Who subscribes between two sendings of a message gets it by the second one.
				if d.Seq < newest[of] && slices.Contains(d.seen, id) && d.at >= m.forgone[id] {
					broken("%s got %q after %d of the same publisher and QoS", id, d.Payload, newest[of])
				}
				newest[of] = max(newest[of], d.Seq)
			}
		}
		for _, f := range r.filters {
			if strings.HasPrefix(f, topic.SharePrefix) {
				if shared[f] == nil {
					shared[f] = map[*Publish]int{}
				}
				for p, n := range times {
					shared[f][p] += n
				}
			}
		}
		if !r.shares() {
			m.twice(id, times, broken)
		}
	}
	for _, f := range m.groups() {
		m.twice(f, shared[f], broken)
	}
}

// shares reports whether a device is a member of groups, and gets what others leave.
func (r *receiver) shares() bool {
	return slices.ContainsFunc(r.filters, func(f string) bool { return strings.HasPrefix(f, topic.SharePrefix) })
}

func (m *Messages) groups() (out []string) {
	for _, id := range m.order {
		for _, f := range m.devices[id].filters {
			if strings.HasPrefix(f, topic.SharePrefix) && !slices.Contains(out, f) {
				out = append(out, f)
			}
		}
	}
	return out
}

func (m *Messages) twice(who string, times map[*Publish]int, broken func(string, ...any)) {
	for _, p := range m.all {
		if n := times[p]; p.QoS == mqtt.ExactlyOnce && n > 1 && p.at >= m.forgone[who] {
			broken("%q, which is exact, came %d times to %s", p.Payload, n, who)
		}
	}
}
