// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
	"github.com/manormq/manor/services/broker/partition"
)

// node is a broker that notes what comes.
type node struct {
	t    *testing.T
	name string
	mesh *Mesh
	addr string
	stop func()

	mu   sync.Mutex
	came []string
	up   map[string]bool
	// answer decides what an Enqueue is answered; held, if set, blocks the link.
	answer func(e *Enqueue) (Answer, bool)
	held   chan struct{}
}

func start(t *testing.T, name string) *node {
	t.Helper()
	return startOf(t, name, Config{})
}

// startOf is start with more of a Config.
func startOf(t *testing.T, name string, c Config) *node {
	t.Helper()
	n := &node{t: t, name: name, up: map[string]bool{}}
	c.Node, c.Receiver = name, n
	n.mesh = New(c)
	n.run("127.0.0.1:0")
	t.Cleanup(func() { n.stop() })
	return n
}

// run runs the mesh at addr.
func (n *node) run(addr string) {
	n.t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		n.t.Fatal(err)
	}
	n.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.mesh.Run(ctx, ln) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Errorf("%s: %v", n.name, err)
		}
	})
}

func (n *node) Enqueue(from string, e *Enqueue, answer func(Answer)) {
	n.mu.Lock()
	held := n.held
	n.came = append(n.came, fmt.Sprintf("%s %s %s", from, e.Tenant, e.Message.Payload))
	a, ok := Answer{Hit: true}, true
	if n.answer != nil {
		a, ok = n.answer(e)
	}
	n.mu.Unlock()
	if held != nil {
		<-held
	}
	if answer != nil && ok {
		go answer(a) // by any goroutine
	}
}

func (n *node) Batched(string) {}

func (n *node) Told(from string, s Stream, b []byte) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.came = append(n.came, fmt.Sprintf("%s %d %s", from, s, b))
}

func (n *node) Linked(to string, up bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.up[to] = up
}

// eventually waits until ok.
func (n *node) eventually(what string, ok func() bool) {
	n.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		n.mu.Lock()
		yes := ok()
		n.mu.Unlock()
		if yes {
			return
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.t.Fatalf("%s: no %s: links %v, %d came, the last %q", n.name, what, n.up, len(n.came), n.came[max(0, len(n.came)-3):])
}

// join has each know the others, and waits for their links.
func join(nodes ...*node) {
	nowhere, addrs := map[string]string{}, map[string]string{}
	for _, n := range nodes {
		nowhere[n.name], addrs[n.name] = "127.0.0.1:1", n.addr
	}
	// All know who is a member before one of them calls: who is not known yet is
	// refused, after its link was up for a moment.
	for _, n := range nodes {
		n.mesh.SetPeers(nowhere)
	}
	for _, n := range nodes {
		n.mesh.SetPeers(addrs)
	}
	for _, n := range nodes {
		for _, o := range nodes {
			if o != n {
				n.eventually("link to "+o.name, func() bool { return n.up[o.name] })
			}
		}
	}
}

func message(tenant string, qos mqtt.QoS, payload string) *Enqueue {
	return &Enqueue{Tenant: tenant, Parts: []partition.ID{1}, Message: mqtt.Message{Topic: []byte("t"), Payload: []byte(payload), QoS: qos}}
}

func TestMesh(t *testing.T) {
	a, b, c := start(t, "a"), start(t, "b"), start(t, "c")
	join(a, b, c)
	b.answer = func(e *Enqueue) (Answer, bool) { return Answer{Reason: mqtt.QuotaExceeded}, true }
	answers := make(chan Answer, 10)
	for _, to := range []string{"b", "c"} {
		if _, err := a.mesh.Enqueue(to, message("acme", 1, "one"), AnyLink, func(a Answer) { answers <- a }); err != nil {
			t.Fatal(err)
		}
		if _, err := a.mesh.Enqueue(to, message("acme", 0, "two"), AnyLink, nil); err != nil {
			t.Fatal(err)
		}
		if err := a.mesh.Tell(to, Metadata, []byte("three")); err != nil {
			t.Fatal(err)
		}
	}
	got := map[Answer]int{}
	for range 2 {
		got[<-answers]++
	}
	if got[Answer{Hit: true}] != 1 || got[Answer{Reason: mqtt.QuotaExceeded}] != 1 {
		t.Errorf("answers %v", got)
	}
	for _, n := range []*node{b, c} {
		n.eventually("all three", func() bool { return len(n.came) == 3 })
	}
	if err := a.mesh.Tell("d", Metadata, nil); !errors.Is(err, ErrDown) {
		t.Errorf("to nobody: %v", err)
	}
}

// What waits of one tenant does not keep back another's, nor what brokers tell each
// other; each tenant's keeps its order; and what is too much at QoS 0 is refused.
func TestMesh_Lanes(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	join(a, b)
	b.mu.Lock()
	b.held = make(chan struct{})
	b.mu.Unlock()
	// Until the kernel takes no more.
	payload := make([]byte, 32<<10)
	full := 0
	for a.mesh.Stats().Full.Load() == 0 {
		if _, err := a.mesh.Enqueue("b", message("loud", 0, string(payload)), AnyLink, nil); errors.Is(err, ErrFull) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if full++; full > 10_000 {
			t.Fatal("nothing is refused")
		}
	}
	if n := a.mesh.Backlog("b"); n < laneMost/2 || n > laneMost+len(payload) {
		t.Errorf("%d bytes wait, expected about %d", n, laneMost)
	}
	for i := range 3 {
		if _, err := a.mesh.Enqueue("b", message("quiet", 1, fmt.Sprint(i)), AnyLink, func(Answer) {}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.mesh.Enqueue("b", message("loud", 1, "never refused"), AnyLink, func(Answer) {}); err != nil {
		t.Errorf("QoS 1: %v", err)
	}
	if err := a.mesh.Tell("b", Replication, []byte("told")); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	close(b.held)
	b.held = nil
	b.mu.Unlock()
	last := "a loud never refused"
	b.eventually("the last", func() bool { return len(b.came) > 0 && b.came[len(b.came)-1] == last })
	var order []string
	for _, s := range b.came {
		if len(s) < 100 {
			order = append(order, s)
		}
	}
	if want := fmt.Sprint([]string{"a 2 told", "a quiet 0", "a quiet 1", "a quiet 2", last}); fmt.Sprint(order) != want {
		t.Errorf("%v, expected %v", order, want)
	}
}

// Who waits for an answer hears that the link was lost, and it comes back: at the
// same address by itself, at another when that is known.
func TestMesh_Lost(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	join(a, b)
	b.answer = func(*Enqueue) (Answer, bool) { return Answer{}, false }
	answers := make(chan Answer, 2)
	ask := func(over LinkID) LinkID {
		t.Helper()
		link, err := a.mesh.Enqueue("b", message("acme", 1, "one"), over, func(a Answer) { answers <- a })
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	first := ask(AnyLink)
	b.eventually("the request", func() bool { return len(b.came) == 1 })
	addr := b.addr
	b.stop()
	if got := <-answers; !errors.Is(got.Err, ErrLost) {
		t.Errorf("%+v, expected ErrLost", got)
	}
	a.eventually("end of the link", func() bool { return !a.up["b"] })
	if _, err := a.mesh.Enqueue("b", message("acme", 1, "two"), AnyLink, func(Answer) { t.Error("answered") }); !errors.Is(err, ErrDown) {
		t.Errorf("%v, expected ErrDown", err)
	}
	b.mesh = New(Config{Node: "b", Receiver: b})
	b.mesh.SetPeers(map[string]string{"a": a.addr})
	b.answer = nil
	b.run(addr)
	a.eventually("link again", func() bool { return a.up["b"] })
	// What was to follow what was lost does not go past it, over the next link.
	if _, err := a.mesh.Enqueue("b", message("acme", 1, "two"), first, func(Answer) { t.Error("answered") }); !errors.Is(err, ErrLost) {
		t.Errorf("%v, expected ErrLost", err)
	}
	next := ask(AnyLink)
	if got := <-answers; got != (Answer{Hit: true}) {
		t.Errorf("%+v", got)
	}
	b.stop()
	a.eventually("end of the link", func() bool { return !a.up["b"] })
	b.mesh = New(Config{Node: "b", Receiver: b})
	b.mesh.SetPeers(map[string]string{"a": a.addr})
	b.run("127.0.0.1:0")
	a.mesh.SetPeers(map[string]string{"b": b.addr})
	a.eventually("link to the new address", func() bool { return a.up["b"] })
	if _, err := a.mesh.Enqueue("b", message("acme", 1, "two"), next, func(Answer) { t.Error("answered") }); !errors.Is(err, ErrLost) {
		t.Errorf("over the link to the old address: %v, expected ErrLost", err)
	}
	if link := ask(ask(AnyLink)); link == next || link == AnyLink {
		t.Errorf("the next link is %d again", link)
	}
	for range 2 {
		if got := <-answers; got != (Answer{Hit: true}) {
			t.Errorf("%+v", got)
		}
	}
	a.mesh.SetPeers(nil)
	a.eventually("end of the link to one that has left", func() bool { return !a.up["b"] })
}

// Who is no member is not listened to, nor who says what no broker says.
func TestMesh_Strangers(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	join(a, b)
	dial := func(name string) (ended chan error, conn *wire.Conn) {
		t.Helper()
		nc, err := net.Dial("tcp", a.addr)
		if err != nil {
			t.Fatal(err)
		}
		conn, err = wire.New(context.Background(), nc, wire.Config{Node: name})
		if err != nil {
			t.Fatal(err)
		}
		ended = make(chan error, 1)
		go func() {
			ended <- conn.Run(context.Background(), wire.Receiver{Batch: func([]byte, int) error { return nil }})
		}()
		return ended, conn
	}
	ended, _ := dial("gateway-1")
	if err := <-ended; err == nil {
		t.Error("a stranger's link lives")
	}
	for name, frame := range map[string][]byte{
		"an answer":   appendAnswer(nil, 1, Answer{}),
		"unknown":     wire.ShutFrame(wire.OpenFrame(nil, 0x77, 0, 0)),
		"cut short":   wire.ShutFrame(wire.OpenFrame(nil, wireEnqueue, 0, 0)),
		"asks a tell": wire.ShutFrame(wire.OpenFrame(nil, wireTell, 1, 5)),
	} {
		ended, conn := dial("b")
		if err := conn.Append(func(dst []byte) ([]byte, int) { return append(dst, frame...), 1 }); err != nil {
			t.Fatal(err)
		}
		conn.Flush()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Errorf("%s: the link lives", name)
		}
	}
	if len(a.came) != 0 {
		t.Errorf("%v came", a.came)
	}
	// The true b, whose link was taken for an old one, is back.
	b.eventually("a link again", func() bool { return b.mesh.Tell("a", Metadata, []byte("still here")) == nil })
	a.eventually("what b told", func() bool { return len(a.came) > 0 && a.came[0] == "b 1 still here" })
}

// Asked answers with what was asked, twice.
func (n *node) Asked(from string, b []byte, reply func([]byte)) {
	n.mu.Lock()
	n.came = append(n.came, from+" asks "+string(b))
	n.mu.Unlock()
	reply(append(append([]byte(nil), b...), b...))
}

func TestAsk(t *testing.T) {
	a, b := start(t, "a"), start(t, "b")
	if err := a.mesh.Ask("b", "acme", []byte("x"), func(Answer) { t.Error("answered") }); !errors.Is(err, ErrDown) {
		t.Errorf("without a link: %v", err)
	}
	join(a, b)
	got := make(chan Answer, 2)
	if err := a.mesh.Ask("b", "acme", []byte("xy"), func(x Answer) { got <- x }); err != nil {
		t.Fatal(err)
	}
	if x := <-got; x.Body != "xyxy" || x.Err != nil {
		t.Errorf("the answer is %+v", x)
	}
}

// What comes over a new link of a broker is handed over when all of its old one is, though
// the old one was never seen to end.
func TestMesh_LinksOfOnePeer(t *testing.T) {
	n := start(t, "a")
	n.mesh.SetPeers(map[string]string{"b": "127.0.0.1:1"})
	n.held = make(chan struct{})
	open := func(payload string) *wire.Conn {
		nc, err := net.Dial("tcp", n.addr)
		if err != nil {
			t.Fatal(err)
		}
		c, err := wire.New(t.Context(), nc, wire.Config{Node: "b", Versions: Versions})
		if err != nil {
			t.Fatal(err)
		}
		e := &Enqueue{Tenant: "acme", From: "x", Message: mqtt.Message{Topic: []byte("t"), Payload: []byte(payload)}}
		if err := c.Append(func(dst []byte) ([]byte, int) { return appendEnqueue(dst, 0, e), 1 }); err != nil {
			t.Fatal(err)
		}
		go func() { _ = c.Run(t.Context(), wire.Receiver{Batch: func([]byte, int) error { return nil }}) }()
		c.Flush()
		return c
	}
	first := open("old")
	n.eventually("the old link's", func() bool { return len(n.came) == 1 })
	second := open("new")
	defer func() { _ = second.Close() }()
	// The old link ends at its other end too: it was closed here, and not waited for.
	for end := time.Now().Add(10 * time.Second); first.Append(func(dst []byte) ([]byte, int) { return dst, 0 }) == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the old link lives on")
		}
	}
	n.mu.Lock()
	if len(n.came) != 1 {
		t.Errorf("the new link is heard while the old one is: %q", n.came)
	}
	held := n.held
	n.held = nil
	n.mu.Unlock()
	close(held)
	n.eventually("the new link's", func() bool { return len(n.came) == 2 && n.came[1] == "b acme new" })
}
