// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"errors"
	"flag"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
)

var stormClients = flag.Int("storm-clients", 1_500, "clients that come back when a gateway has died")

// What a storm may cost at most. The times are far above what is measured on two
// processors, which the clients share, and far below what a starved client sees.
const (
	// stormBack is when all are back.
	stormBack = 60 * time.Second
	// CONNACK comes to 99 of 100 within stormWait, and stormEach for each client.
	stormWait = 5 * time.Second
	stormEach = time.Millisecond
	// A process grows by stormBase, for the pace of its collector, and stormMemory
	// for each client.
	stormBase   = 64 << 20
	stormMemory = 24 << 10
)

// TestStorm_Gateway: when a gateway dies, all of its clients come back at once,
// each with a password of its own: to another gateway, which knows none of them,
// and then to the one that died, which manor dev has started again. Each has its
// session, what it had not acknowledged, and what was published meanwhile, once.
func TestStorm_Gateway(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	n := *stormClients
	allowFiles(t, uint64(n)+1000)
	p := Start(t, Programs(t, built), "--data", t.TempDir(), "--listen-offset", Offset(t),
		"--brokers", "1", "--gateways", "2", "--log-level", "error")
	s := &storm{t: t, p: p, account: signUp(t, p, "storm")}
	gateways := p.Of("gateway")
	s.makeClients(n)
	t.Cleanup(func() { // before the product stops
		for _, c := range s.clients {
			c.close()
		}
	})
	s.round("calm", gateways[0], gateways[1], func() {}, false)
	s.round("to another gateway", gateways[1], gateways[1], func() { s.kill(gateways[0]) }, true)
	s.round("to the same gateway", gateways[1], gateways[0], func() { s.kill(gateways[1]) }, true)
}

// storm is one tenant's clients.
type storm struct {
	t *testing.T
	p *Product
	*account
	clients []*stormer
	turn    int
}

// makeClients makes a credential for each client.
func (s *storm) makeClients(n int) {
	start := time.Now()
	s.clients = make([]*stormer, n)
	s.each(runtime.GOMAXPROCS(0)*4, func(i int, c **stormer) {
		name := fmt.Sprint("device-", i)
		var made struct {
			Password string `json:"password"`
		}
		Post(s.t, s.p.API+"/v1/tenants/"+s.ID+"/credentials", s.Key,
			map[string]any{"username": name, "scram": false}, http.StatusCreated, &made)
		*c = &stormer{t: s.t, id: name, user: s.ID + ":" + name, password: made.Password}
	})
	s.t.Logf("%d credentials made in %v", n, time.Since(start).Round(time.Millisecond))
}

// each calls f for every client, so many at once.
func (s *storm) each(atOnce int, f func(i int, c **stormer)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(s.clients) || s.t.Failed() {
					return
				}
				f(i, &s.clients[i])
			}
		})
	}
	wg.Wait()
}

func (s *storm) kill(g *Process) {
	if err := syscall.Kill(g.pid(s.t), syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
}

// round has all clients lose their connections by kill and come to gateway to,
// while through keeps serving the publisher. At its end each holds a message that
// it has not acknowledged.
func (s *storm) round(what string, to, through *Process, kill func(), again bool) {
	t := s.t
	if t.Failed() {
		return
	}
	var watched []*Process
	for _, role := range []string{"broker", "tenancy", "nats"} {
		watched = append(watched, s.p.Of(role)[0])
	}
	kill()
	for _, c := range s.clients {
		c.lost(again)
	}
	if to.pid(t) != 0 {
		watched = append(watched, to)
	}
	if again {
		s.publish(through, "queued")
	}
	before := map[*Process]use{}
	for _, w := range watched {
		before[w] = w.resetPeak(t)
	}
	atOnce := len(s.clients)
	if !again {
		atOnce = 32
	}
	start := time.Now()
	var wg sync.WaitGroup
	gate := make(chan struct{}, atOnce)
	for _, c := range s.clients {
		wg.Go(func() {
			gate <- struct{}{}
			c.comeBack(to.Addr("mqtt"), again, start.Add(stormBack))
			<-gate
		})
	}
	wg.Wait()
	connected := time.Since(start)
	s.until("what was published meanwhile", func(c *stormer) bool { return !again || c.has("held") && c.has("queued") })
	back := time.Since(start)
	s.publish(through, "mark")
	s.until("the mark", func(c *stormer) bool { return c.has("mark") })
	if t.Failed() {
		return
	}
	s.report(what, connected, back, watched, before, to)
	for _, c := range s.clients {
		c.check(again)
	}
	s.turn++
	s.publish(through, "held")
	s.until("the message that is held", func(c *stormer) bool { return c.has("held") })
}

// report prints what a round took and holds it to the bounds.
func (s *storm) report(what string, connected, back time.Duration, watched []*Process, before map[*Process]use, to *Process) {
	t := s.t
	var connack, waited []time.Duration
	refused := map[string]int{}
	for _, c := range s.clients {
		connack, waited = append(connack, c.connack), append(waited, c.waited)
		for why, n := range c.refused {
			refused[why] += n
		}
	}
	slices.Sort(connack)
	slices.Sort(waited)
	at := func(all []time.Duration, q int) time.Duration {
		return all[(len(all)-1)*q/100].Round(time.Millisecond)
	}
	t.Logf("%s: %d clients connected after %v (%.0f/s), had everything after %v; refused attempts %v", what, len(s.clients),
		connected.Round(time.Millisecond), float64(len(s.clients))/connected.Seconds(), back.Round(time.Millisecond), refused)
	t.Logf("%s: CONNACK after p50 %v, p99 %v, max %v of the attempt; p50 %v, p99 %v, max %v of the loss", what,
		at(connack, 50), at(connack, 99), at(connack, 100), at(waited, 50), at(waited, 99), at(waited, 100))
	if p99, most := at(connack, 99), stormWait+time.Duration(len(s.clients))*stormEach; p99 > most {
		t.Errorf("%s: the p99 of CONNACK is %v, the bound is %v", what, p99, most)
	}
	if !slices.Contains(watched, to) {
		watched = append(watched, to)
	}
	bound := int64(len(s.clients))*stormMemory + stormBase
	for _, w := range watched {
		now, was := w.use(t), before[w]
		t.Logf("%s: %s peak %d MiB, %d MiB before; %v of a processor", what, w.Name, now.peak>>20, was.rss>>20, now.cpu-was.cpu)
		if grown := now.peak - was.rss; grown > bound {
			t.Errorf("%s: %s grew by %d MiB, the bound is %d", what, w.Name, grown>>20, bound>>20)
		}
	}
}

// until waits until done holds for every client.
func (s *storm) until(what string, done func(*stormer) bool) {
	s.t.Helper()
	left := s.clients
	for end := time.Now().Add(stormBack); !s.t.Failed(); time.Sleep(5 * time.Millisecond) {
		for len(left) > 0 && done(left[0]) {
			left = left[1:]
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s has not come to %s, among %d", what, left[0].id, len(left))
		}
	}
}

// publish sends every client a message and waits for all acknowledgements.
func (s *storm) publish(through *Process, what string) {
	d := (&slowTenant{s.account, []string{through.Addr("mqtt")}}).device(0, "publisher")
	var err error
	for end := time.Now().Add(stormBack); ; time.Sleep(50 * time.Millisecond) {
		if _, err = d.Connect(); err == nil {
			break
		}
		if time.Now().After(end) {
			s.t.Fatal(err)
		}
	}
	defer d.Disconnect()
	var under []*Publication
	for i, c := range s.clients {
		p, err := d.Publish(mqtt.Message{Topic: []byte("to/" + c.id), Payload: []byte(fmt.Sprint(what, " ", s.turn)), QoS: 1})
		if err != nil {
			s.t.Fatal(err)
		}
		if under = append(under, p); len(under) == 100 || i == len(s.clients)-1 {
			for _, p := range under {
				select {
				case <-p.Acked:
				case <-d.Done():
					s.t.Fatal(d.Err())
				case <-time.After(time.Minute):
					s.t.Fatalf("a publish to %s is not acknowledged", c.id)
				}
				if p.Reason != mqtt.Success {
					s.t.Errorf("a publish to %s: %s", c.id, p.Reason)
				}
			}
			under = under[:0]
		}
	}
}

// allowFiles raises the limit of open files to what is needed.
func allowFiles(t *testing.T, need uint64) {
	t.Helper()
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	if err == nil && limit.Max < need {
		err = fmt.Errorf("%d are allowed, %d are needed: raise ulimit -n", limit.Max, need)
	}
	if err == nil {
		limit.Cur = limit.Max
		err = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
	if err != nil {
		missing(t, "file descriptors", err)
	}
}

// why names the reason of a failed attempt, for counting.
func why(err error) string {
	var refused *Refused
	switch {
	case errors.As(err, &refused):
		return fmt.Sprintf("0x%02X", byte(refused.Reason))
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens"
	case errors.Is(err, syscall.ECONNRESET) || strings.Contains(err.Error(), "EOF"):
		return "closed"
	}
	return "timeout"
}
