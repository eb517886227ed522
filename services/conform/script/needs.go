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
	"maxqos":    "it is about servers without QoS 2",
	"noretain":  "it is about servers without retained messages",
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
	if _, ok := e.p.Get("maxqos"); !ok {
		out["maxqos"] = needs["maxqos"]
	}
	if v, _ := e.p.Get("retainavailable"); v != "0" {
		out["noretain"] = needs["noretain"]
	}
	_ = c.packet(&wire.Packet{Kind: wire.Disconnect})
	return out, nil
}
