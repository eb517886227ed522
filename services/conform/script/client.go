// SPDX-License-Identifier: Apache-2.0

package script

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/manormq/manor/services/conform/wire"
)

// client is a client of a script, with its connection if it has one.
type client struct {
	name    string
	run     *run
	conn    net.Conn
	events  chan event
	waiting []event // taken off events and not used
	done    chan struct{}
	nextID  uint16
	framing []arg // how WebSocket frames are made, on the next connection
	monitor monitor
}

// event is a packet, or the end of the connection.
type event struct {
	p   *wire.Packet
	err error
	at  time.Time
}

// open opens a connection if there is none.
func (c *client) open(ctx context.Context) error {
	if c.conn != nil {
		return nil
	}
	conn, err := c.run.o.dial(ctx, c.run.o.face(c.run.number), c.framing)
	if err != nil {
		return err
	}
	c.conn, c.waiting = conn, nil
	c.events, c.done = make(chan event, 1024), make(chan struct{})
	c.monitor = monitor{}
	c.run.readers.Add(1)
	go read(conn, c.run.v, c.events, c.done, c.run.readers.Done)
	return nil
}

// read passes on what comes until the connection ends.
func read(conn net.Conn, v wire.Version, events chan<- event, done <-chan struct{}, end func()) {
	defer end()
	r := bufio.NewReader(conn)
	for {
		p, err := wire.Read(r, v)
		select {
		case events <- event{p, err, time.Now()}:
		case <-done:
			return
		}
		if err != nil {
			return
		}
	}
}

// close ends the connection.
func (c *client) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		close(c.done)
		c.conn = nil
	}
}

// next waits for an event. ok is false if none came in time.
func (c *client) next(limit time.Duration) (e event, ok bool, err error) {
	if c.conn == nil {
		return event{err: io.EOF, at: time.Now()}, true, nil
	}
	if len(c.waiting) > 0 {
		e, c.waiting = c.waiting[0], c.waiting[1:]
		return e, true, nil
	}
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case e = <-c.events:
	case <-t.C:
		return e, false, nil
	}
	if bad, ok := errors.AsType[*wire.MalformedError](e.err); ok {
		c.run.note(c.name, "<", bad.Error())
		return e, true, &mismatch{want: "a well-formed packet", got: bad.Error(), statement: bad.Statement}
	}
	if e.err != nil {
		c.run.note(c.name, "<", "end: "+e.err.Error())
		return e, true, nil
	}
	c.run.note(c.name, "<", e.p.String())
	return e, true, c.monitor.received(c.run.v, e.p)
}

// limit is how long a step waits.
func (c *client) limit(st step) time.Duration {
	if st.last > 0 {
		return st.last
	}
	return c.run.o.Timeout
}

// expect waits for the packets of a group, which may come in any order.
func (c *client) expect(group []step) error {
	for len(group) > 0 {
		st := group[0]
		if st.kind == 0 {
			return c.expectEnd(st)
		}
		limit := c.limit(st)
		e, ok, err := c.next(limit)
		switch {
		case err != nil:
			return err
		case !ok:
			return &mismatch{want: c.want(st), got: fmt.Sprintf("nothing within %s", limit), at: st.own()}
		case e.p == nil && st.orEnd:
			c.close()
			return nil
		case e.p == nil:
			return &mismatch{want: c.want(st), got: "the end of the connection", at: st.own()}
		}
		why, found := "", -1
		for i, st := range group {
			if why = c.run.names.match(st.kind, st.args, c.run.v, e.p); why == "" {
				found = i
				break
			}
		}
		if found < 0 && st.orEnd && e.p.Kind == wire.Disconnect {
			return c.expectEnd(step{verb: expect, last: st.last})
		}
		if found < 0 && st.verb == later {
			continue
		}
		if found < 0 {
			return &mismatch{want: c.want(st), got: e.p.String() + ": " + why, at: st.own()}
		}
		if took := e.at.Sub(c.run.mark); group[found].after > 0 && took < group[found].after {
			return &mismatch{want: c.want(st), got: fmt.Sprintf("it after %s already", took.Round(time.Millisecond))}
		}
		group = append(append([]step{}, group[:found]...), group[found+1:]...)
	}
	return nil
}

// own is the step, nil if it is a part of a macro, whose step speaks for it.
func (st *step) own() *step {
	if st.line == 0 {
		return nil
	}
	return st
}

// want says what a step expects.
func (c *client) want(st step) string {
	if st.kind == 0 {
		return "the end of the connection"
	}
	var b strings.Builder
	b.WriteString(st.kind.String())
	for _, a := range st.args {
		text := a.text
		if a.quoted || a.variable() == "" {
			text = wire.Quote(c.run.names.expand(text))
		} else if v, ok := c.run.names.vars[a.variable()]; ok {
			text = v
		}
		b.WriteString(" " + a.name + "=" + text)
	}
	if st.orEnd {
		b.WriteString(" or the end of the connection")
	}
	if st.after > 0 {
		b.WriteString(" after " + st.after.String())
	}
	return b.String()
}

// expectEnd waits for the end of the connection. A server of 5.0 may say why in
// a DISCONNECT, whose code is then one of those that the step names.
func (c *client) expectEnd(st step) error {
	limit := c.limit(st)
	for said := false; ; {
		e, ok, err := c.next(limit)
		switch {
		case err != nil:
			return err
		case !ok:
			return &mismatch{want: c.want(st), got: fmt.Sprintf("an open connection after %s", limit)}
		case e.p == nil:
			if took := e.at.Sub(c.run.mark); st.after > 0 && took < st.after {
				return &mismatch{want: "the end of the connection after " + st.after.String(), got: "it after " + took.Round(time.Millisecond).String()}
			}
			c.close()
			return nil
		case e.p.Kind != wire.Disconnect || said:
			return &mismatch{want: c.want(st), got: e.p.String()}
		}
		if why := c.run.names.match(wire.Disconnect, st.args, c.run.v, e.p); why != "" {
			return &mismatch{want: c.want(st), got: e.p.String() + ": " + why}
		}
		said = true
	}
}

// perhaps takes the next packet if it is the one of the step.
func (c *client) perhaps(st step) error {
	limit := st.last
	if limit == 0 {
		limit = c.run.o.Quiet
	}
	e, ok, err := c.next(limit)
	if err != nil || !ok {
		return err
	}
	if e.p == nil || c.run.names.match(st.kind, st.args, c.run.v, e.p) != "" {
		c.waiting = append([]event{e}, c.waiting...)
	}
	return nil
}

// quiet holds that nothing comes for a while.
func (c *client) quiet(st step) error {
	limit := st.last
	if limit == 0 {
		limit = c.run.o.Quiet
	}
	e, ok, err := c.next(limit)
	switch {
	case err != nil || !ok:
		return err
	case e.p == nil:
		return &mismatch{want: "nothing within " + limit.String(), got: "the end of the connection"}
	}
	return &mismatch{want: "nothing within " + limit.String(), got: e.p.String()}
}

// leftover looks for packets that no step has expected, at the end of a script:
// they have come before the answer to a ping.
func (c *client) leftover(last step) *Failure {
	if c.conn != nil && c.monitor.connacks > 0 && !c.monitor.accepted {
		last.text = "the end of the script, after a CONNACK that refuses"
		return c.run.failure(last, c.expectEnd(step{}))
	}
	if c.conn == nil || !c.monitor.accepted {
		return nil
	}
	last.text = "the end of the script"
	_ = c.packet(&wire.Packet{Kind: wire.Pingreq})
	return c.run.failure(last, c.expect([]step{{kind: wire.Pingresp}}))
}

// send sends what a step says, on a new connection if there is none.
func (c *client) send(ctx context.Context, st step) error {
	if err := c.open(ctx); err != nil {
		return err
	}
	if st.raw != nil {
		b := c.raw(nil, st.raw)
		c.run.note(c.name, ">", fmt.Sprintf("raw % X", b[:min(len(b), 80)]))
		return c.write(b)
	}
	p, err := c.build(st.kind, st.args)
	if err != nil {
		return err
	}
	return c.packet(p)
}

// build makes a packet of the fields of a step, with what a script leaves to the
// runner: ClientID, keep alive, packet identifier and login.
func (c *client) build(kind wire.Kind, args []arg) (*wire.Packet, error) {
	p := &wire.Packet{Kind: kind}
	given := map[string]bool{}
	add := func(name, value string) {
		if !given[name] {
			p.Fields = append(p.Fields, wire.Field{Name: name, Value: value})
		}
	}
	for _, a := range args {
		value := a.text
		switch v := a.variable(); {
		case v != "":
			known, ok := c.run.names.vars[v]
			if !ok {
				return nil, fmt.Errorf("$%s: expected a variable that a packet before has set", v)
			}
			value = known
		case value == "-" && !a.quoted:
			given[a.name] = true
			continue
		case a.name == "keep":
			add("clean", "0")
			if c.run.v == wire.V5 {
				add("session", "300")
			}
			given["clean"] = true
			continue
		default:
			value = c.run.names.expand(value)
		}
		p.Fields = append(p.Fields, wire.Field{Name: a.name, Value: value})
		given[a.name] = true
	}
	switch {
	case kind == wire.Connect:
		add("clean", "1")
		add("keepalive", "120")
		add("id", c.run.names.prefix+c.name)
		if c.run.o.Username != "" {
			add("username", c.run.o.Username)
			add("password", c.run.o.Password)
		}
	case kind == wire.Subscribe || kind == wire.Unsubscribe || kind == wire.Publish && p.Number("qos") > 0:
		if !given["id"] {
			c.nextID++
			add("id", strconv.Itoa(int(c.nextID)))
		}
	}
	return p, nil
}

// packet sends p.
func (c *client) packet(p *wire.Packet) error {
	b, err := wire.Append(nil, c.run.v, p)
	if err != nil {
		return err
	}
	c.monitor.sent(p)
	c.run.remember(p)
	c.run.note(c.name, ">", p.String())
	return c.write(b)
}

// write sends b. That it fails is not the script's business: it goes on to say
// whether the connection is to end.
func (c *client) write(b []byte) error {
	if c.conn == nil {
		return &mismatch{want: "a connection", got: "none: this client has no connection any more"}
	}
	_ = c.conn.SetWriteDeadline(time.Now().Add(c.run.o.Timeout))
	_, _ = c.conn.Write(b)
	return nil
}

// remember notes what of p is to be cleaned away.
func (r *run) remember(p *wire.Packet) {
	switch p.Kind {
	case wire.Connect:
		id, _ := p.Get("id")
		if id != "" && (p.Number("clean") == 0 || p.Number("session") > 0) {
			r.kept[id] = true
		}
		if topic, ok := p.Get("will.topic"); ok && p.Number("will.retain") == 1 {
			r.retained[topic] = true
		}
	case wire.Publish:
		if topic, _ := p.Get("topic"); topic != "" && p.Number("retain") == 1 && !strings.ContainsAny(topic, "+#") {
			r.retained[topic] = true
		}
	default:
	}
}

// raw appends the bytes of atoms.
func (c *client) raw(dst []byte, atoms []atom) []byte {
	for _, a := range atoms {
		switch a.kind {
		case literal:
			dst = append(dst, a.bytes...)
		case expanded:
			dst = append(dst, c.run.names.expand(a.bytes)...)
		case sized:
			dst = wire.Text(dst, c.run.names.expand(a.bytes))
		case group:
			in := c.raw(nil, a.in)
			dst = append(binary.AppendUvarint(dst, uint64(len(in))), in...)
		case nothing:
			if c.run.v == wire.V5 {
				dst = append(dst, 0)
			}
		case head:
			dst = append(wire.Text(dst, wire.Protocol(c.run.v)), byte(c.run.v))
		}
	}
	return dst
}
