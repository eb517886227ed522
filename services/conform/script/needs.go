// SPDX-License-Identifier: Apache-2.0

package script

import (
	"context"
	"fmt"

	"github.com/manormq/manor/services/conform/statements"
	"github.com/manormq/manor/services/conform/wire"
)

// needs is what scripts can need, and what is said of a broker that is not so.
var needs = map[string]string{
	"websocket": "it is about WebSocket",
	"login":     "it needs a user name and a password",
	"alias":     "the broker takes no topic aliases",
	"shared":    "the broker has no shared subscriptions",
	"subids":    "the broker has no subscription identifiers",
	"maxqos":    "it is about brokers without QoS 2",
	"noretain":  "it is about brokers without retained messages",
	"silent":    "it is about brokers that do not tell clients of 3.1 what they refuse",
}

// told reports whether a broker has what scripts need, by what it says in a
// CONNACK of 5.0.
var told = map[string]func(*wire.Packet) bool{
	"alias":    func(p *wire.Packet) bool { return p.Number("aliasmax") > 0 },
	"shared":   func(p *wire.Packet) bool { return has(p, "sharedavailable") },
	"subids":   func(p *wire.Packet) bool { return has(p, "subidavailable") },
	"maxqos":   func(p *wire.Packet) bool { return len(p.All("maxqos")) > 0 },
	"noretain": func(p *wire.Packet) bool { return !has(p, "retainavailable") },
}

// has reads a property that says 0 of what there is not.
func has(p *wire.Packet, name string) bool {
	v, ok := p.Get(name)
	return !ok || v != "0"
}

// lacks finds out, for each of needs, why scripts that need it do not run. What a
// server does not have, one of 5.0 tells in CONNACK.
func (o *Options) lacks(ctx context.Context, set *statements.Set) (map[string]string, error) {
	out := map[string]string{}
	if !o.WebSocket {
		out["websocket"] = needs["websocket"]
	}
	if o.Username == "" {
		out["login"] = needs["login"]
	}
	if !o.Silent {
		out["silent"] = needs["silent"]
	}
	s := &Script{Name: "limits", File: "limits", steps: []step{{}}}
	r := newRun(s, wire.V5, o, set)
	r.names = names{o.RunID + "0", map[string]string{}}
	c := &client{name: "limits", run: r}
	if err := c.open(ctx); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", o.Broker, err)
	}
	defer r.readers.Wait()
	defer c.close()
	p, err := c.build(wire.Connect, nil)
	if err != nil {
		return nil, err
	}
	if err := c.packet(p); err != nil {
		return nil, err
	}
	// A server without 5.0 refuses here, and so do scripts.
	e, _, _ := c.next(o.Timeout)
	if e.p == nil {
		e.p = &wire.Packet{}
	}
	if code := e.p.Number("code"); o.MustLetIn && (code == 4 || code == 5 || code == 0x86 || code == 0x87) {
		return nil, fmt.Errorf("%s wants other credentials: expected --username and --password of a user who may do everything", o.Broker)
	}
	for name, ok := range told {
		if !ok(e.p) {
			out[name] = needs[name]
		}
	}
	_ = c.packet(&wire.Packet{Kind: wire.Disconnect})
	return out, nil
}
