// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/kv"
	"github.com/manormq/manor/infra/kv/mem"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// recorder keeps every batch that was applied, so that the store can be made
// again as it was after any of them.
type recorder struct {
	*mem.Store
	mu      sync.Mutex
	batches [][]byte
}

func (r *recorder) Apply(b *kv.Batch, sync bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if b.Len() > 0 {
		r.batches = append(r.batches, append([]byte(nil), b.Encoded()...))
	}
	return r.Store.Apply(b, sync)
}

func (r *recorder) applied() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.batches)
}

// after is a store with the first n batches.
func (r *recorder) after(t *testing.T, n int) *mem.Store {
	t.Helper()
	s := mem.New()
	for _, enc := range r.batches[:n] {
		var b kv.Batch
		if err := b.Decode(enc); err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(&b, true); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// said is a frame that a client got, with how many batches were applied by then.
type said struct {
	record
	applied int
}

// witness is a client that answers as MQTT says and remembers what it was told.
type witness struct {
	*client
	heard []said
}

// answer acknowledges what has come. It reports whether anything had.
func (x *witness) answer(applied func() int) bool {
	any := false
	for r, ok := x.next(0); ok; r, ok = x.next(0) {
		any = true
		x.heard = append(x.heard, said{r, applied()})
		switch {
		case r.Kind == link.DownDeliver && r.QoS == 1:
			x.ack(mqtt.Puback, r.PacketID)
		case r.Kind == link.DownDeliver && r.QoS == 2:
			x.ack(mqtt.Pubrec, r.PacketID)
		case r.Kind == link.DownAck && r.Ack == mqtt.Pubrel:
			x.ack(mqtt.Pubcomp, r.PacketID)
		case r.Kind == link.DownAck && r.Ack == mqtt.Pubrec:
			x.ack(mqtt.Pubrel, r.PacketID)
		}
	}
	return any
}

const (
	crashSubs = 6
	crashMsgs = 30
)

// TestCrashAfterEveryCommit plays one conversation, then lets the broker die
// after every single commit of it: each session has every message exactly once
// at QoS 2, and every acknowledged one at QoS 1, whichever batches survived.
func TestCrashAfterEveryCommit(t *testing.T) {
	w := newWorld(t, 3, false)
	w.stop()
	rec := &recorder{Store: mem.New()}
	w.store = rec
	w.start(3)
	var subs []*witness
	for i := range crashSubs {
		s := &witness{client: w.connect(fmt.Sprint("s", i), persistent, window(3))}
		s.subscribe([]string{"t", "t/#", "+"}[i%3], mqtt.QoS(1+i%2))
		s.subscribe("t", mqtt.QoS(1+i%2)) // a second filter in the same partition
		subs = append(subs, s)
	}
	pub := &witness{client: w.connect("p", persistent)}
	w.settle()
	begin := rec.applied()
	all := append([]*witness{pub}, subs...)
	for i := range crashMsgs {
		pub.publish(uint16(i+1), "t", fmt.Sprint(i), 2)
		if i%2 == 0 {
			w.settle()
		}
		for _, x := range all {
			x.answer(rec.applied)
		}
	}
	for quiet := 0; quiet < 3; {
		w.settle()
		any := false
		for _, x := range all {
			any = x.answer(rec.applied) || any
		}
		if quiet++; any {
			quiet = 0
		}
	}
	w.stop()
	end := rec.applied()
	if end-begin < 25 {
		t.Fatalf("only %d commits: the conversation tests too little", end-begin)
	}
	t.Logf("%d commits", end-begin)
	for n := begin; n <= end; n++ {
		w.store = rec.after(t, n)
		w.start(1 + n%3)
		w.recover(n, pub, subs)
		w.stop()
		if t.Failed() {
			return
		}
	}
	w.start(1) // for the clean-up
}

// recover lets all clients of a conversation come back to a broker that has its
// first n commits, and checks what each has in the end.
func (w *world) recover(n int, pub *witness, subs []*witness) {
	w.t.Helper()
	// What the publisher knew: PUBREC for some, PUBCOMP for fewer.
	rec, comp := map[uint16]bool{}, map[uint16]bool{}
	for _, h := range pub.heard {
		if h.applied <= n && h.Kind == link.DownAck {
			rec[h.PacketID] = rec[h.PacketID] || h.Ack == mqtt.Pubrec
			comp[h.PacketID] = comp[h.PacketID] || h.Ack == mqtt.Pubcomp
		}
	}
	p := &witness{client: w.connect("p", persistent)}
	for i := range crashMsgs {
		switch id := uint16(i + 1); {
		case comp[id]:
		case rec[id]:
			p.ack(mqtt.Pubrel, id)
		default:
			p.publish(id, "t", fmt.Sprint(i), 2)
		}
	}
	type life struct {
		*witness
		count map[string]int
		held  map[uint16]bool
	}
	lives := []*life{{witness: p}}
	for i, s := range subs {
		l := &life{count: map[string]int{}, held: map[uint16]bool{}}
		take := func(r record) {
			switch {
			case r.Kind == link.DownDeliver && r.QoS == 2:
				if !l.held[r.PacketID] {
					l.count[string(r.msg.Payload)]++
				}
				l.held[r.PacketID] = true
			case r.Kind == link.DownDeliver:
				l.count[string(r.msg.Payload)]++
			case r.Kind == link.DownAck && r.Ack == mqtt.Pubrel:
				delete(l.held, r.PacketID)
			}
		}
		for _, h := range s.heard {
			if h.applied <= n {
				take(h.record)
			}
		}
		l.witness = &witness{client: w.open(fmt.Sprint("s", i), persistent, window(3))}
		if o := l.want(link.DownOpened); !o.SessionPresent {
			w.t.Errorf("after %d commits: s%d has no session", n, i)
		}
		lives = append(lives, l)
	}
	complete := func() bool {
		for _, l := range lives[1:] {
			if len(l.count) < crashMsgs {
				return false
			}
		}
		return true
	}
	for deadline, quiet := time.Now().Add(5*time.Second), 0; quiet < 3 && time.Now().Before(deadline); {
		w.settle()
		any := false
		for i, l := range lives {
			from := len(l.heard)
			any = l.answer(func() int { return 0 }) || any
			for _, h := range l.heard[from:] {
				if i == 0 {
					continue
				}
				switch {
				case h.Kind == link.DownDeliver && (h.QoS != 2 || !l.held[h.PacketID]):
					l.count[string(h.msg.Payload)]++
					l.held[h.PacketID] = h.QoS == 2
				case h.Kind == link.DownAck && h.Ack == mqtt.Pubrel:
					delete(l.held, h.PacketID)
				}
			}
		}
		if quiet++; any || !complete() {
			quiet = 0
		}
	}
	for i, l := range lives[1:] {
		for k := range crashMsgs {
			c := l.count[fmt.Sprint(k)]
			if c == 0 || i%2 == 1 && c != 1 {
				w.t.Errorf("after %d commits: s%d (QoS %d) has message %d %d times", n, i, 1+i%2, k, c)
			}
		}
	}
}
