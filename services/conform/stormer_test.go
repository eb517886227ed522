// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
)

// stormer is a client with a persistent session that takes little memory: one
// goroutine and a small buffer.
type stormer struct {
	t                  *testing.T
	id, user, password string
	conn               net.Conn
	done               chan struct{}

	// Of the last storm: how long the attempt that succeeded waited for CONNACK,
	// how long after the loss it was there, and what others came to.
	connack, waited time.Duration
	refused         map[string]int

	mu sync.Mutex
	// got counts what came since the last loss, by the first word of the payload;
	// a held message counts again when it is repeated. Guarded by mu.
	got map[string]int
	// repeated says that what was held came with DUP. Guarded by mu.
	repeated bool
}

// lost waits until the connection is gone. again says that there was one.
func (c *stormer) lost(again bool) {
	if again {
		<-c.done
	}
	c.got, c.repeated, c.refused = map[string]int{}, false, map[string]int{}
}

func (c *stormer) has(what string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.got[what] > 0
}

// check looks whether each message came once.
func (c *stormer) check(again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	want := map[string]int{"mark": 1}
	if again {
		want["held"], want["queued"] = 1, 1
		if !c.repeated {
			c.t.Errorf("%s: what it had not acknowledged came without DUP", c.id)
		}
	}
	if fmt.Sprint(c.got) != fmt.Sprint(want) {
		c.t.Errorf("%s: got %v, expected %v", c.id, c.got, want)
	}
	clear(c.got)
}

// The pauses of a client that is refused: doubled each time, and half of it
// random, so that they do not come together again.
const (
	stormPause     = 100 * time.Millisecond
	stormPauseMost = 5 * time.Second
)

// comeBack connects as a client does that was cut off, until it is served.
func (c *stormer) comeBack(addr string, present bool, end time.Time) {
	start := time.Now()
	for pause := stormPause; ; pause = min(2*pause, stormPauseMost) {
		begun := time.Now()
		found, err := c.connect(addr)
		if err == nil {
			c.connack, c.waited = time.Since(begun), time.Since(start)
			if found != present {
				c.t.Errorf("%s: session present is %v, expected %v", c.id, found, present)
			}
			return
		}
		c.refused[why(err)]++
		if time.Now().After(end) {
			c.t.Errorf("%s has not come back: %v", c.id, err)
			return
		}
		time.Sleep(pause/2 + rand.N(pause/2)) // as clients do
	}
}

// connect opens the connection, and subscribes if it is a new session.
func (c *stormer) connect(addr string) (present bool, err error) {
	conn, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := conn.Write(packet.AppendConnect(nil, &packet.Connect{
		Version: packet.V5, ClientID: c.id, SessionExpiry: 3600, HasSessionExpiry: true, KeepAlive: 300,
		Username: c.user, HasUsername: true, Password: []byte(c.password), HasPassword: true,
	})); err != nil {
		return false, err
	}
	r := &stormReader{conn: conn}
	p, err := r.next()
	switch {
	case err != nil:
		return false, err
	case p.Type != packet.CONNACK:
		return false, fmt.Errorf("%s in place of CONNACK", p.Type)
	case p.Connack.Reason != mqtt.Success:
		return false, &Refused{p.Connack.Reason}
	}
	if present = p.Connack.SessionPresent; !present {
		if _, err := conn.Write(packet.AppendSubscribe(nil, packet.V5, &packet.Subscribe{
			PacketID: 1, Subscriptions: []mqtt.Subscription{{Filter: "to/" + c.id, QoS: 1}},
		})); err != nil {
			return false, err
		}
		if p, err = r.next(); err != nil {
			return false, err
		}
		if p.Type != packet.SUBACK || p.Suback.Reasons[0] != 1 {
			return false, fmt.Errorf("%s in place of SUBACK 1", p.Type)
		}
	}
	_ = conn.SetDeadline(time.Time{})
	c.conn, c.done = conn, make(chan struct{})
	go c.read(r, c.done)
	return present, nil
}

func (c *stormer) close() {
	if c != nil && c.conn != nil {
		_ = c.conn.Close()
		<-c.done
	}
}

func (c *stormer) read(r *stormReader, done chan struct{}) {
	defer close(done)
	defer func() { _ = c.conn.Close() }()
	for {
		p, err := r.next()
		if err != nil {
			return
		}
		if p.Type != packet.PUBLISH {
			c.t.Errorf("%s: %s came", c.id, p.Type)
			return
		}
		word, _, _ := bytes.Cut(p.Publish.Message.Payload, []byte(" "))
		held := string(word) == "held"
		c.mu.Lock()
		c.got[string(word)]++
		c.repeated = c.repeated || held && p.Publish.Dup
		c.mu.Unlock()
		if held && !p.Publish.Dup {
			continue
		}
		if _, err := c.conn.Write(packet.AppendAck(nil, packet.V5, packet.PUBACK, &packet.Ack{PacketID: p.Publish.PacketID}, 0)); err != nil {
			return
		}
	}
}

// stormReader takes packets off a connection, with the memory that they need.
type stormReader struct {
	conn net.Conn
	dec  packet.Decoder
	p    packet.Packet
	buf  [512]byte
	from int
	to   int
}

// next blocks for one packet, which is valid until the next call.
func (r *stormReader) next() (*packet.Packet, error) {
	r.dec.Reset()
	for {
		n, err := r.dec.Decode(r.buf[r.from:r.to], packet.V5, 0, &r.p)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			r.from += n
			return &r.p, nil
		}
		r.from, r.to = 0, copy(r.buf[:], r.buf[r.from:r.to])
		if r.to == len(r.buf) {
			return nil, errors.New("the packet is longer than the buffer")
		}
		k, err := r.conn.Read(r.buf[r.to:])
		if k == 0 && err != nil {
			return nil, err
		}
		r.to += k
	}
}

// pid is the process as it runs now, 0 if it does not: manor dev starts again
// what was killed.
func (p *Process) pid(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc")
	if err != nil {
		missing(t, "processes are found through /proc", err)
	}
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if strings.Contains(string(line), "\x00"+p.Data) {
			return pid
		}
	}
	return 0
}

// use is what a process has taken: resident memory, the most of it, in bytes, and
// time of processors.
type use struct {
	rss, peak int64
	cpu       time.Duration
}

// resetPeak has the kernel measure the peak from now on.
func (p *Process) resetPeak(t testing.TB) use {
	t.Helper()
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid(t)), []byte("5"), 0)
	return p.use(t)
}

func (p *Process) use(t testing.TB) (u use) {
	t.Helper()
	pid := p.pid(t)
	read := func(name string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for line := range strings.Lines(read("status")) {
		name, size, _ := strings.Cut(line, ":")
		kib, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(size), " kB"), 10, 64)
		switch name {
		case "VmRSS":
			u.rss = kib << 10
		case "VmHWM":
			u.peak = kib << 10
		}
	}
	_, after, _ := strings.Cut(read("stat"), ") ")
	for _, ticks := range strings.Fields(after)[11:13] { // utime and stime, in 1/100 s
		n, _ := strconv.Atoi(ticks)
		u.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	return u
}
