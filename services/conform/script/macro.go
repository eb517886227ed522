// SPDX-License-Identifier: Apache-2.0

package script

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/manormq/manor/services/conform/wire"
)

// macro carries out a step of several packets.
func (c *client) macro(ctx context.Context, st step) error {
	switch st.verb {
	case connect:
		return c.connect(ctx, st)
	case subscribe, unsubscribe:
		return c.subscribe(st)
	case publish:
		return c.publish(st)
	case receive:
		return c.receive(st)
	case copies:
		return c.copies(st)
	case disconnect:
		return c.disconnect(st)
	case ping:
		if err := c.packet(&wire.Packet{Kind: wire.Pingreq}); err != nil {
			return err
		}
		return c.expectPacket(wire.Pingresp)
	case drop:
		c.run.note(c.name, ">", "end")
		c.close()
	case quiet:
		return c.quiet(st)
	case framing:
		c.framing = st.args
	case send, expect, perhaps, anyOrder, later, wait:
	}
	return nil
}

// expectPacket waits for one packet with those fields.
func (c *client) expectPacket(kind wire.Kind, args ...arg) error {
	return c.expect([]step{{kind: kind, args: args}})
}

// connect sends CONNECT and waits for a CONNACK that accepts.
func (c *client) connect(ctx context.Context, st step) error {
	if c.conn != nil {
		return &mismatch{want: "no connection", got: "one: end it first, or send with > connect"}
	}
	if err := c.open(ctx); err != nil {
		return err
	}
	accepts := []arg{{"code", "0", false}}
	fields := slices.DeleteFunc(slices.Clone(st.args), func(a arg) bool {
		if a.name == "present" {
			accepts = append(accepts, a)
		}
		return a.name == "present"
	})
	p, err := c.build(wire.Connect, fields)
	if err != nil {
		return err
	}
	if err := c.packet(p); err != nil {
		return err
	}
	return c.expectPacket(wire.Connack, accepts...)
}

// subscribe sends SUBSCRIBE or UNSUBSCRIBE and waits until all of it is granted.
func (c *client) subscribe(st step) error {
	p, err := c.build(st.kind, st.args)
	if err != nil {
		return err
	}
	id, _ := p.Get("id")
	grants := []arg{{"id", id, false}}
	for _, f := range p.Fields {
		switch f.Name {
		case "filter":
			grants = append(grants, arg{"code", "0", false})
		case "qos":
			grants[len(grants)-1].text = f.Value
		}
	}
	if err := c.packet(p); err != nil {
		return err
	}
	return c.expectPacket(st.kind+1, grants...)
}

// publish sends PUBLISH and goes through its exchange.
func (c *client) publish(st step) error {
	p, err := c.build(wire.Publish, st.args)
	if err != nil {
		return err
	}
	if err := c.packet(p); err != nil {
		return err
	}
	text, _ := p.Get("id")
	id := arg{"id", text, false}
	switch p.Number("qos") {
	case 1:
		return c.expectPacket(wire.Puback, id)
	case 2:
		if err := c.expectPacket(wire.Pubrec, id); err != nil {
			return err
		}
		if err := c.packet(&wire.Packet{Kind: wire.Pubrel, Fields: []wire.Field{{Name: "id", Value: text}}}); err != nil {
			return err
		}
		return c.expectPacket(wire.Pubcomp, id)
	}
	return nil
}

// receive waits for a PUBLISH and goes through its exchange.
func (c *client) receive(st step) error {
	const name = "received"
	delete(c.run.names.vars, name)
	for _, a := range st.args {
		if a.name == "qos" && a.text != "0" {
			st.args = append(slices.Clone(st.args), arg{"id", "$" + name, false})
		}
	}
	if err := c.expect([]step{st}); err != nil {
		return err
	}
	text, ok := c.run.names.vars[name]
	if !ok {
		return nil
	}
	id := wire.Field{Name: "id", Value: text}
	if slices.ContainsFunc(st.args, func(a arg) bool { return a.name == "qos" && a.text == "1" }) {
		return c.packet(&wire.Packet{Kind: wire.Puback, Fields: []wire.Field{id}})
	}
	if err := c.packet(&wire.Packet{Kind: wire.Pubrec, Fields: []wire.Field{id}}); err != nil {
		return err
	}
	if err := c.expectPacket(wire.Pubrel, arg{"id", text, false}); err != nil {
		return err
	}
	return c.packet(&wire.Packet{Kind: wire.Pubcomp, Fields: []wire.Field{id}})
}

// copies waits for one copy of a message that has all subscription identifiers of
// the step, or for as many as it has identifiers, each with its own.
func (c *client) copies(st step) error {
	message := st
	message.args = nil
	var ids []arg
	for _, a := range st.args {
		if a.name == "subid" {
			ids = append(ids, a)
		} else {
			message.args = append(message.args, a)
		}
	}
	for most := len(ids); len(ids) > 0; {
		limit := c.limit(st)
		e, ok, err := c.next(limit)
		if err != nil {
			return err
		}
		if !ok || e.p == nil {
			return &mismatch{want: c.want(st), got: "fewer copies"}
		}
		c.waiting = append([]event{e}, c.waiting...)
		one := message
		rest := ids[1:]
		switch got := e.p.All("subid"); {
		case len(ids) == most && len(got) != 1:
			one.args, rest = st.args, nil
		case len(got) == 1:
			i := max(0, slices.IndexFunc(ids, func(a arg) bool { return a.text == got[0] }))
			one.args = append(slices.Clone(message.args), ids[i])
			rest = slices.Delete(slices.Clone(ids), i, i+1)
		default:
			one.args = append(slices.Clone(message.args), ids[0])
		}
		if err := c.receive(one); err != nil {
			return err
		}
		ids = rest
	}
	return nil
}

// disconnect sends DISCONNECT and gives the server time to end the connection,
// which it should; then it is known to have seen DISCONNECT. If it does not, the
// client does.
func (c *client) disconnect(st step) error {
	p, err := c.build(wire.Disconnect, st.args)
	if err != nil {
		return err
	}
	if err := c.packet(p); err != nil {
		return err
	}
	for until := time.Now().Add(time.Second); ; {
		e, ok, err := c.next(time.Until(until))
		if err != nil {
			return fmt.Errorf("after DISCONNECT: %w", err)
		}
		if !ok || e.err != nil {
			c.close()
			return nil
		}
	}
}
