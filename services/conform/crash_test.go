// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var rounds = flag.Int("rounds", 1, "rounds of each crash test")

var built = sync.OnceValues(func() (string, error) {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("manor-conform-%d", os.Getpid()))
	return dir, Build(dir)
})

func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(filepath.Join(os.TempDir(), fmt.Sprintf("manor-conform-%d", os.Getpid())))
	os.Exit(code)
}

// TestCrash_OneProcess kills the whole product in the middle of load and starts
// it again on what it left.
func TestCrash_OneProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	bin, data, offset := Programs(t, built), t.TempDir(), Offset(t)
	for round := range *rounds {
		p := Start(t, bin, "--anonymous", "crash", "--data", data, "--listen-offset", offset)
		crash(t, round, p, func() {
			p.Kill()
			p = Start(t, bin, "--anonymous", "crash", "--data", data, "--listen-offset", offset)
		})
		p.Stop()
		if t.Failed() {
			return
		}
	}
}

// TestCrash_Broker and TestCrash_Gateway kill one process of several; manor dev
// starts it again.
func TestCrash_Broker(t *testing.T)  { crashProcess(t, "broker") }
func TestCrash_Gateway(t *testing.T) { crashProcess(t, "gateway") }

func crashProcess(t *testing.T, role string) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	bin, data, offset := Programs(t, built), t.TempDir(), Offset(t)
	for round := range *rounds {
		p := Start(t, bin, "--anonymous", "crash", "--data", data, "--listen-offset", offset, "--brokers", "1", "--gateways", "2")
		crash(t, round, p, func() {
			of := p.Of(role)
			if err := syscall.Kill(of[rand.IntN(len(of))].PID, syscall.SIGKILL); err != nil {
				t.Error(err)
			}
		})
		p.Stop()
		if t.Failed() {
			return
		}
	}
}

const (
	crashSubscribers = 20
	crashPublishers  = 4
	patience         = 60 * time.Second
)

// crash runs one round: subscribers with persistent sessions, half of them away,
// publishers that note what was acknowledged, and kill at a random moment.
func crash(t *testing.T, round int, p *Product, kill func()) {
	t.Helper()
	var addrs []string
	for _, g := range p.Of("gateway") {
		addrs = append(addrs, g.Addr("mqtt"))
	}
	prefix := fmt.Sprintf("crash/%d/%d", os.Getpid(), round)
	subs := make([]*survivor, crashSubscribers)
	for i := range subs {
		subs[i] = &survivor{
			t: t, addrs: addrs, id: fmt.Sprintf("%s/s%d", prefix, i), filter: prefix + "/p/+", qos: byte(1 + i%2),
			received: map[uint16]bool{}, seen: map[string][]int{},
		}
		subs[i].subscribe()
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	receiving, stopReceiving := context.WithCancel(ctx)
	defer stopReceiving()
	var online sync.WaitGroup
	for _, s := range subs[:crashSubscribers/2] {
		online.Go(func() { s.receive(receiving, func() bool { return false }) })
	}
	pubs := make([]*author, crashPublishers)
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	for i := range pubs {
		pubs[i] = &author{
			t: t, addrs: addrs, id: fmt.Sprintf("%s/p%d", prefix, i), topic: fmt.Sprintf("%s/p/%d", prefix, i),
			retained: fmt.Sprintf("%s/r/%d", prefix, i), qos: byte(1 + i%2), pending: map[uint16]*sent{},
		}
		publishing.Go(func() { pubs[i].publish(ctx, stop) })
	}
	time.Sleep(200*time.Millisecond + rand.N(800*time.Millisecond)) // the random moment
	kill()
	time.Sleep(500 * time.Millisecond) // load after the crash too
	close(stop)
	publishing.Wait()
	for _, a := range pubs {
		if len(a.pending) > 0 {
			t.Errorf("round %d: %s: %d publishes were never acknowledged", round, a.id, len(a.pending))
		}
	}
	stopReceiving()
	online.Wait()
	var draining sync.WaitGroup
	for _, s := range subs {
		draining.Go(func() { s.receive(ctx, func() bool { return s.hasAll(pubs) }) })
	}
	draining.Wait()
	total := 0
	for _, a := range pubs {
		total += len(a.acked)
		a.checkRetained()
	}
	for _, s := range subs {
		s.check(round, pubs)
	}
	t.Logf("round %d: %d publishes acknowledged, to %d subscribers", round, total, len(subs))
}

// sent is a publish under way.
type sent struct {
	seq      int // -1 for a retained one
	value    int // of a retained one
	topic    string
	payload  []byte
	qos      byte
	retain   bool
	released bool // its PUBREC has come
}

// author publishes numbers and keeps account of what was acknowledged.
type author struct {
	t               *testing.T
	addrs           []string
	id              string
	topic, retained string
	qos             byte
	next            int
	lastID          uint16
	order           []uint16 // ids of pending, in the order of their first sending
	pending         map[uint16]*sent
	acked           []int
	ackedRetained   int
}

// publish publishes until stop, then waits for what is under way, through any
// number of connections.
func (a *author) publish(ctx context.Context, stop <-chan struct{}) {
	for first := true; ctx.Err() == nil; first = false {
		c, present, err := Connect(a.addrs[rand.IntN(len(a.addrs))], a.id, "", "", false)
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if !first && !present {
			a.t.Errorf("%s: its session is gone", a.id)
		}
		done := a.converse(ctx, c, stop)
		c.Disconnect()
		if done {
			return
		}
	}
}

// converse publishes over one connection. It reports whether all is done.
func (a *author) converse(ctx context.Context, c *Client, stop <-chan struct{}) bool {
	for _, id := range a.order { // [MQTT-4.4.0-1]
		s := a.pending[id]
		var err error
		if s.released {
			err = c.Ack(pubrel, id)
		} else {
			err = c.Publish(s.topic, s.payload, s.qos, id, true, s.retain)
		}
		if err != nil {
			return false
		}
	}
	packets := make(chan Packet, 64)
	go func() {
		defer close(packets)
		for {
			p, err := c.Read()
			if err != nil {
				return
			}
			packets <- p
		}
	}()
	defer func() {
		c.Close()
		for range packets {
			continue // lets the reader end
		}
	}()
	stopped := false
	for {
		for !stopped && len(a.pending) < 20 {
			if a.send(c) != nil {
				return false
			}
		}
		if stopped && len(a.pending) == 0 {
			return true
		}
		select {
		case p, ok := <-packets:
			if !ok || a.acknowledged(c, p) != nil {
				return false
			}
		case <-stop:
			stop, stopped = nil, true
		case <-ctx.Done():
			return false
		}
	}
}

// send publishes the next number; every fiftieth also becomes retained.
func (a *author) send(c *Client) error {
	s := &sent{seq: a.next, topic: a.topic, payload: []byte(strconv.Itoa(a.next)), qos: a.qos}
	if a.next%50 == 49 && a.next/50 > a.ackedRetained {
		s = &sent{seq: -1, value: a.next / 50, topic: a.retained, payload: []byte(strconv.Itoa(a.next / 50)), qos: 1, retain: true}
	}
	a.next++
	for {
		a.lastID++
		if _, used := a.pending[a.lastID]; !used && a.lastID != 0 {
			break
		}
	}
	a.pending[a.lastID] = s
	a.order = append(a.order, a.lastID)
	return c.Publish(s.topic, s.payload, s.qos, a.lastID, false, s.retain)
}

func (a *author) acknowledged(c *Client, p Packet) error {
	s := a.pending[p.ID]
	switch {
	case s == nil:
		if p.Kind == pubrec {
			return c.Ack(pubrel, p.ID)
		}
		return nil
	case p.Kind == pubrec && s.qos == 2:
		if !s.released {
			s.released = true
			a.acked = append(a.acked, s.seq)
		}
		return c.Ack(pubrel, p.ID)
	case p.Kind == puback && s.qos == 1 && s.retain:
		a.ackedRetained = max(a.ackedRetained, s.value)
	case p.Kind == puback && s.qos == 1:
		a.acked = append(a.acked, s.seq)
	case p.Kind == pubcomp && s.qos == 2:
	default:
		return nil
	}
	delete(a.pending, p.ID)
	for i, id := range a.order {
		if id == p.ID {
			a.order = append(a.order[:i], a.order[i+1:]...)
			break
		}
	}
	return nil
}

// connect opens a clean session; what was killed may not be back yet.
func (a *author) connect() (c *Client, err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c, _, err = Connect(a.addrs[0], "", "", "", true); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// checkRetained looks whether the retained value is the last acknowledged or a
// later one.
func (a *author) checkRetained() {
	if a.ackedRetained == 0 {
		return
	}
	c, err := a.connect()
	if err != nil {
		a.t.Error(err)
		return
	}
	defer c.Disconnect()
	c.Deadline(time.Now().Add(10 * time.Second))
	if err := c.Subscribe(1, a.retained, 1); err != nil {
		a.t.Error(err)
		return
	}
	for {
		p, err := c.Read()
		if err != nil {
			a.t.Errorf("%s: no retained message, at least %d was acknowledged: %v", a.retained, a.ackedRetained, err)
			return
		}
		if p.Kind == publish {
			if got, _ := strconv.Atoi(string(p.Payload)); got < a.ackedRetained || !p.Retain {
				a.t.Errorf("%s: retained is %s (flag %v), %d was acknowledged", a.retained, p.Payload, p.Retain, a.ackedRetained)
			}
			return
		}
	}
}

// survivor is a subscriber with a persistent session.
type survivor struct {
	t          *testing.T
	addrs      []string
	id, filter string
	qos        byte
	received   map[uint16]bool // QoS 2 ids whose PUBREL has not come [MQTT-4.3.3-10]

	mu   sync.Mutex
	seen map[string][]int // guarded by mu: numbers by topic, in order of arrival
}

func (s *survivor) subscribe() {
	c, _, err := Connect(s.addrs[0], s.id, "", "", false)
	if err != nil {
		s.t.Fatal(err)
	}
	defer c.Disconnect()
	if err := c.Subscribe(1, s.filter, s.qos); err != nil {
		s.t.Fatal(err)
	}
	c.Deadline(time.Now().Add(10 * time.Second))
	if p, err := c.Read(); err != nil || p.Kind != suback || p.Code != s.qos {
		s.t.Fatalf("%s: SUBACK %+v, %v", s.id, p, err)
	}
}

// receive takes messages until done or ctx, through any number of connections.
func (s *survivor) receive(ctx context.Context, done func() bool) {
	for ctx.Err() == nil && !done() {
		c, present, err := Connect(s.addrs[rand.IntN(len(s.addrs))], s.id, "", "", false)
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if !present {
			s.t.Errorf("%s: its session is gone", s.id)
		}
		for ctx.Err() == nil && !done() {
			ready, err := c.Ready(50 * time.Millisecond)
			if err != nil {
				break
			}
			if !ready {
				continue
			}
			p, err := c.Read()
			if err != nil {
				break
			}
			if s.take(c, p) != nil {
				break
			}
		}
		c.Disconnect()
	}
}

func (s *survivor) take(c *Client, p Packet) error {
	switch {
	case p.Kind == pubrel:
		delete(s.received, p.ID)
		return c.Ack(pubcomp, p.ID)
	case p.Kind != publish:
		return nil
	case p.QoS == 2:
		if s.received[p.ID] {
			return c.Ack(pubrec, p.ID)
		}
		s.received[p.ID] = true
	}
	n, err := strconv.Atoi(string(p.Payload))
	if err != nil {
		s.t.Errorf("%s: payload %q", s.id, p.Payload)
	}
	s.mu.Lock()
	s.seen[string(p.Topic)] = append(s.seen[string(p.Topic)], n)
	s.mu.Unlock()
	if p.QoS == 2 {
		return c.Ack(pubrec, p.ID)
	}
	return c.Ack(puback, p.ID)
}

// hasAll reports whether everything that was acknowledged has come.
func (s *survivor) hasAll(pubs []*author) bool {
	for _, a := range pubs {
		if len(s.missing(a)) > 0 {
			return false
		}
	}
	return true
}

func (s *survivor) missing(a *author) (missing []int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.seen[a.topic]) < len(a.acked) {
		return a.acked[:1] // at least one; which, is seen at the end
	}
	have := map[int]bool{}
	for _, n := range s.seen[a.topic] {
		have[n] = true
	}
	for _, n := range a.acked {
		if !have[n] {
			missing = append(missing, n)
		}
	}
	return missing
}

// check judges what came: all that was acknowledged, QoS 2 once, in order of
// first arrival.
func (s *survivor) check(round int, pubs []*author) {
	for _, a := range pubs {
		seen := s.seen[a.topic]
		have, highest := map[int]int{}, -1
		for _, n := range seen {
			if have[n]++; have[n] == 1 {
				if n < highest {
					s.t.Errorf("round %d: %s: %d of %s came after %d", round, s.id, n, a.topic, highest)
				}
				highest = max(highest, n)
			} else if s.qos == 2 && a.qos == 2 {
				s.t.Errorf("round %d: %s: %d of %s came %d times at QoS 2", round, s.id, n, a.topic, have[n])
			}
		}
		var missing []string
		for _, n := range a.acked {
			if have[n] == 0 {
				missing = append(missing, strconv.Itoa(n))
			}
		}
		if len(missing) > 0 {
			s.t.Errorf("round %d: %s (QoS %d): %d of %d acknowledged messages of %s (QoS %d) are missing: %s",
				round, s.id, s.qos, len(missing), len(a.acked), a.topic, a.qos, strings.Join(missing[:min(20, len(missing))], " "))
		}
	}
}
