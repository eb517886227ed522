// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
	"github.com/manormq/manor/services/broker/queue"
	"github.com/manormq/manor/services/broker/session"
)

// oneOther is a cluster with one other broker, which owns everything.
type oneOther struct {
	Cluster
	epoch uint64
	down  bool
	// link is that which there is; at loses it before the message of that payload is sent.
	link cluster.LinkID
	at   string
	sent []string
	done []func(cluster.Answer)
}

func (c *oneOther) Self() string                        { return "a" }
func (c *oneOther) Cell(string) Cell                    { return Cell{} }
func (c *oneOther) Owner(partition.ID) (string, uint64) { return "b", c.epoch }
func (c *oneOther) Lost(partition.ID, uint64)           {}

func (c *oneOther) Send(_ string, e *cluster.Enqueue, over cluster.LinkID, done func(cluster.Answer)) (cluster.LinkID, error) {
	payload := string(e.Message.Payload)
	if payload == c.at {
		c.link, c.at = c.link+1, ""
	}
	switch {
	case c.down:
		return cluster.NoLink, cluster.ErrDown
	case over != cluster.AnyLink && over != c.link:
		return cluster.NoLink, cluster.ErrLost
	}
	if e.First {
		payload += "!"
	}
	c.sent, c.done = append(c.sent, payload), append(c.done, done)
	return c.link, nil
}

// withCluster is a Set of one shard that nothing runs but the test, through turnOf.
func withCluster(t *testing.T, c Cluster) *Set {
	t.Helper()
	set, err := New(Config{Store: mem.New(), Partitions: 8, Shards: 1, Cluster: c, Now: func() int64 { return 1_000_000 }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// turnOf runs what it is given in a turn of the shard.
func (s *Shard) turnOf() func(func()) {
	return func(f func()) {
		r := runs.Get().(*run)
		s.post(item{kind: itemCall, call: f}, r)
		s.set.finish(r)
	}
}

// What was refused, or lost with a link, goes again before all that was published
// after it, and the first of what is under way says that it is.
func TestStream_NothingOvertakes(t *testing.T) {
	c := &oneOther{epoch: 1, link: 1}
	set := withCluster(t, c)
	s, tenant := set.shards[0], set.Tenant("acme")
	turn := s.turnOf()
	launch := func(payloads ...string) {
		turn(func() {
			for _, p := range payloads {
				m := &mqtt.Message{Topic: []byte("t"), Payload: []byte(p), QoS: 1}
				s.launch(0, &dispatch{tenant: tenant, msg: m}, []aim{{part: 1, plain: true}})
			}
		})
	}
	answer := func(a cluster.Answer) {
		t.Helper()
		if len(c.done) == 0 {
			t.Fatal("nothing is under way")
		}
		done := c.done[0]
		c.done = c.done[1:]
		done(a)
		turn(func() {})
	}
	want := func(want string) {
		t.Helper()
		if got := strings.Join(c.sent, " "); got != want {
			t.Fatalf("sent: %s; expected: %s", got, want)
		}
		c.sent = nil
	}
	launch("1", "2", "3")
	want("1! 2 3") // after the first the broker refuses what follows a refusal
	for range 3 {
		answer(cluster.Answer{Again: true})
	}
	launch("4")
	want("")
	turn(s.resend)
	want("1! 2 3 4")
	for range 4 {
		answer(cluster.Answer{Hit: true})
	}
	launch("5", "6")
	want("5! 6")

	// With the link all that went before is lost, but for what came in time.
	c.link++
	launch("7")
	want("")
	answer(cluster.Answer{Err: cluster.ErrLost})
	answer(cluster.Answer{Err: cluster.ErrLost})
	turn(s.resend)
	want("5! 6 7")
	for range 3 {
		answer(cluster.Answer{Hit: true})
	}

	c.down = true
	launch("8", "9")
	c.down = false
	launch("10")
	want("")
	turn(s.resend)
	want("8! 9 10")
	for range 3 {
		answer(cluster.Answer{Hit: true})
	}

	// A link may be lost, and made again, between two messages that are sent together.
	for range 2 {
		launch("11")
		answer(cluster.Answer{Again: true})
		launch("12", "13")
		c.sent, c.at = nil, "12"
		turn(s.resend)
		want("11!")
		answer(cluster.Answer{Err: cluster.ErrLost})
		turn(s.resend)
		want("11! 12 13")
		for range 3 {
			answer(cluster.Answer{Hit: true})
		}
		c.at = "15"
		launch("14", "15", "16")
		want("14!")
		answer(cluster.Answer{Err: cluster.ErrLost})
		turn(s.resend)
		want("14! 15 16")
		for range 3 {
			answer(cluster.Answer{Hit: true})
		}
	}
	if len(s.streams) > 0 {
		t.Errorf("%d streams are left", len(s.streams))
	}
}

// A partition that came to this shard while messages were on their way to it gets what
// is published now behind them, and not past them.
func TestStream_PartitionComesHere(t *testing.T) {
	c := &oneOther{epoch: 1, link: 1}
	set := withCluster(t, c)
	s := set.shards[0]
	se := &sess{space: s.newSpace(0, nil)}
	d := &dispatch{tenant: set.Tenant("acme"), msg: &mqtt.Message{Topic: []byte("t"), QoS: 1}}
	s.launch(0, d, []aim{{part: 1, plain: true}})
	s.newSpace(1, nil)
	for _, m := range []mqtt.Message{{QoS: 0}, {QoS: 1}, {QoS: 2}} {
		if got, want := s.flies(se, 1, &m, &session.Publication{}), m.QoS > 0; got != want {
			t.Errorf("%v, while one is on its way: flies is %v", m.QoS, got)
		}
	}
	s.landed(&sent{flights: []*flight{{dispatch: d, stream: s.streams[streamKey{0, 1}], aim: aim{part: 1}}}})
	if s.flies(se, 1, &mqtt.Message{QoS: 1}, &session.Publication{}) {
		t.Error("after that it is written at once")
	}
}

// What a partition had sent and not written when it was lost is sent again in the
// place that it had among what was published, whatever was written meanwhile.
func TestStream_LostUnwritten(t *testing.T) {
	c := &oneOther{epoch: 1, link: 1}
	set := withCluster(t, c)
	s, tenant := set.shards[0], set.Tenant("acme")
	origin, p := s.newSpace(0, nil), s.newSpace(1, nil)
	publish := func(payload string, deferred bool) {
		m := &mqtt.Message{Topic: []byte("t"), Payload: []byte(payload), QoS: 1}
		x, token := &sess{Session: session.Session{ClientID: "pub"}, space: origin, tenant: tenant}, session.Publication{Token: 1}
		v := view{msg: m}
		s.stored, s.aims = s.stored[:0], s.aims[:0]
		var u []*unwritten
		if deferred {
			u = append(u, &unwritten{se: &sess{space: p}, entry: queue.Entry{Message: m}})
			p.ledger.waiters = append(p.ledger.waiters, waiter{deferred: u[0]})
		} else {
			s.stored = append(s.stored, p.ledger)
		}
		s.routeOn(x, m, &token, &v, u, true)
	}
	publish("1", true)
	publish("2", false)
	publish("3", true)
	// A delivery that is written after all waits for its commit behind what was
	// published later.
	slices.Reverse(p.ledger.waiters)
	for _, w := range p.ledger.waiters {
		s.forfeit(&w)
	}
	var got []string
	for _, f := range s.streams[streamKey{0, 1}].held {
		got = append(got, string(f.msg.Payload))
	}
	if diff := cmp.Diff([]string{"1", "2", "3"}, got); diff != "" {
		t.Errorf("held (-want +got):\n%s", diff)
	}
}

// What is held for long is not sent again and again: the first of it is, and all the rest
// when that has arrived.
func TestStream_FirstGoesAhead(t *testing.T) {
	c := &oneOther{epoch: 1, link: 1}
	set := withCluster(t, c)
	s := set.shards[0]
	turn := s.turnOf()
	answer := func(a cluster.Answer) {
		done := c.done
		c.sent, c.done = nil, nil
		for _, f := range done {
			f(a)
		}
		turn(func() {})
	}
	for _, p := range []string{"1", "2", "3"} {
		turn(func() {
			m := &mqtt.Message{Topic: []byte("t"), Payload: []byte(p), QoS: 1}
			s.launch(0, &dispatch{tenant: set.Tenant("acme"), msg: m}, []aim{{part: 1, plain: true}})
		})
	}
	for range resendRounds {
		answer(cluster.Answer{Again: true})
		turn(s.resend)
		if got := strings.Join(c.sent, " "); got != "1! 2 3" {
			t.Fatalf("sent: %s", got)
		}
	}
	for range 2 {
		answer(cluster.Answer{Again: true})
		turn(s.resend)
		if got := strings.Join(c.sent, " "); got != "1!" {
			t.Fatalf("sent after many times: %s", got)
		}
	}
	answer(cluster.Answer{Hit: true})
	if !set.held.Load() {
		t.Error("nothing is sent after it")
	}
	turn(s.resend)
	if got := strings.Join(c.sent, " "); got != "2! 3" {
		t.Errorf("sent when it had arrived: %s", got)
	}
}
