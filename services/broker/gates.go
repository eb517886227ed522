// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/services/broker/operate"
)

// gates are the gateways that have links to this broker, for operators. Its methods may be
// called concurrently.
type gates struct {
	mu  sync.Mutex
	all map[string]operate.Gateway // guarded by mu: by name
}

// gate is a link of a gateway.
type gate struct {
	link.Broker
	leave func()
}

// Close implements link.Broker.
func (g *gate) Close() error {
	g.leave()
	return g.Broker.Close()
}

// enter counts a link of a gateway, until it is closed.
func (g *gates) enter(name string, b link.Broker) link.Broker {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all == nil {
		g.all = make(map[string]operate.Gateway)
	}
	x, ok := g.all[name]
	if !ok {
		x = operate.Gateway{Name: name, Since: time.Now().UTC().Truncate(time.Second)}
	}
	x.Links++
	g.all[name] = x
	return &gate{b, sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		x := g.all[name]
		if x.Links--; x.Links == 0 {
			delete(g.all, name)
		} else {
			g.all[name] = x
		}
	})}
}

// list is all gateways, in the order of their names.
func (g *gates) list() []operate.Gateway {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]operate.Gateway, 0, len(g.all))
	for _, name := range slices.Sorted(maps.Keys(g.all)) {
		out = append(out, g.all[name])
	}
	return out
}
