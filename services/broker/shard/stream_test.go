// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/broker/cluster"
	"github.com/manormq/manor/services/broker/partition"
)

// oneOther is a cluster with one other broker, which owns everything.
type oneOther struct {
	Cluster
	epoch uint64
	down  bool
	sent  []string
	done  []func(cluster.Answer)
}

func (c *oneOther) Self() string                        { return "a" }
func (c *oneOther) Owner(partition.ID) (string, uint64) { return "b", c.epoch }

func (c *oneOther) Send(_ string, e *cluster.Enqueue, done func(cluster.Answer)) error {
	if c.down {
		return errors.New("down")
	}
	c.sent, c.done = append(c.sent, string(e.Message.Payload)), append(c.done, done)
	return nil
}

// A broker that comes to serve a partition while messages are on their way to it
// refuses those before, and would take those behind them: none is sent behind one
// that may be refused, and so they arrive in their order.
func TestStream_NothingOvertakes(t *testing.T) {
	c := &oneOther{epoch: 1}
	set, err := New(Config{Store: mem.New(), Partitions: 8, Shards: 1, Cluster: c, Now: func() int64 { return 1_000_000 }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s, tenant := set.shards[0], set.Tenant("acme")
	turn := func(f func()) {
		r := runs.Get().(*run)
		s.post(item{kind: itemCall, call: f}, r)
		set.finish(r)
	}
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
	want("1")
	answer(cluster.Answer{Again: true})
	launch("4")
	turn(s.resend)
	want("1")
	answer(cluster.Answer{Hit: true})
	want("2 3 4")
	launch("5", "6")
	want("5 6") // the broker is known to take what is sent there
	for range 5 {
		answer(cluster.Answer{Hit: true})
	}
	launch("7", "8")
	want("7 8")

	// With the link all that went before is lost, but for what came in time.
	set.LostLink()
	launch("9")
	want("")
	answer(cluster.Answer{Err: cluster.ErrLost})
	answer(cluster.Answer{Err: cluster.ErrLost})
	turn(s.resend)
	want("7")
	answer(cluster.Answer{Hit: true})
	want("8 9")
	answer(cluster.Answer{Hit: true})
	answer(cluster.Answer{Hit: true})

	// Another epoch may be that of another run of the broker.
	c.epoch = 2
	launch("10", "11")
	want("10")
	answer(cluster.Answer{Hit: true})
	want("11")
	answer(cluster.Answer{Hit: true})

	c.down = true
	launch("12", "13")
	c.down = false
	turn(s.resend)
	launch("14")
	want("12")
	answer(cluster.Answer{Hit: true})
	want("13 14")
	answer(cluster.Answer{Hit: true})
	answer(cluster.Answer{Hit: true})
	if len(s.streams) > 0 {
		t.Errorf("%d streams are left", len(s.streams))
	}
}
