// SPDX-License-Identifier: Apache-2.0

package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/time/rate"

	"github.com/manormq/manor/gateway/conn"
	"github.com/manormq/manor/gateway/listener"
	"github.com/manormq/manor/gateway/throttle"
	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/fair"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// Gateway is a running gateway. Its exported methods may be called
// concurrently.
type Gateway struct {
	levels    levels
	cfg       Config
	log       *slog.Logger
	metrics   *metrics
	listeners []*listener.Listener
	brokers   *uplink.Brokers[connection]
	waiting   waiting
	guests    guests
	questions questions
	checks    *fair.Turns
	registry  registry
	rules     rules
	turns     sync.Pool // *turn
	outputs   sync.Pool // *output
	busy      sync.Pool // *[busyBuffer]byte
	rests     sync.Pool // *rest
	loops     loops
	entrance  entrance
	loopsDone sync.WaitGroup

	// dirty are the connections that have something to be written. Tenants take
	// turns, by bytes.
	dirty struct {
		mu   sync.Mutex
		fair fair.Queue[*connection]
		// strangers are the connections of no tenant yet.
		strangers fair.Flow[*connection]
		// shared is when several tenants had something last, in Unix nanoseconds.
		shared atomic.Int64
	}
	flushers sync.Pool // *flusher
	// flushed is when all that was dirty was written last, in Unix nanoseconds.
	flushed atomic.Int64

	// clientRates are the CONNECT throttles of client ids.
	clientRates *lru.Cache[string, *throttle.Throttle]
	flaps       *flaps

	// order are changes that are to be applied, of each tenant for itself, since one
	// may take long: its first is under way. Those of bans wait for no others. again are
	// the tenants that are to be rechecked soon.
	order struct {
		mu    sync.Mutex
		todo  map[changesOf][]func() // guarded by mu
		again map[string]bool        // guarded by mu
	}

	load    overload
	lending lending

	draining atomic.Bool
	// strangers bounds the lines in the log about those that do not speak MQTT.
	strangers rate.Sometimes
	// waiters, timedOut and olderBrokers bound those about clients whose partition has no
	// broker, or one that is too old.
	waiters, timedOut, olderBrokers rate.Sometimes

	// changes counts what the directory told, so that a CONNECT sees whether
	// something came while it was checked.
	changes atomic.Uint64
}

// New validates cfg and binds the listeners; clients wait until Run.
func New(cfg Config) (*Gateway, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	g := &Gateway{
		cfg: cfg, log: cfg.Log, strangers: rate.Sometimes{First: 1, Interval: time.Minute},
		waiters: rate.Sometimes{First: 1, Interval: 10 * time.Second}, timedOut: rate.Sometimes{First: 1, Interval: 10 * time.Second},
		olderBrokers: rate.Sometimes{First: 1, Interval: 10 * time.Second},
	}
	g.checks = fair.NewTurns(checksAtOnce, checksOfTenant)
	g.registry.wheel.tick = time.Now().UnixMilli() / wheelTick
	g.dirty.fair.Quantum = flushQuantum
	g.load.slots = make(chan struct{}, connectSlots*runtime.GOMAXPROCS(0))
	g.turns.New = func() any { return &turn{} }
	g.outputs.New = func() any { return &output{b: make([]byte, 0, outBuffer)} }
	g.busy.New = func() any { return new([busyBuffer]byte) }
	g.rests.New = func() any { return &rest{} }
	g.flushers.New = func() any { return &flusher{} }
	g.clientRates, _ = lru.New[string, *throttle.Throttle](clientRates) // fails for a size below 1
	g.entrance = newEntrance()
	g.newLending()
	var err error
	if g.flaps, err = newFlaps(); err != nil {
		return nil, err
	}
	g.waiting.signal, g.waiting.parts = make(chan struct{}, 1), map[uint16]*waitingPart{}
	g.brokers = uplink.NewBrokers(uplink.BrokersConfig[connection]{
		Seeds: cfg.Seeds, Dial: cfg.Dial, Links: cfg.Links, Handler: (*fromBroker)(g), Changed: g.waiting.kick, Log: cfg.Log,
	})
	o := listener.Options{
		Directory: cfg.Directory, Domain: cfg.Domain, Hosts: cfg.Hosts, Tickets: cfg.Tickets, Log: cfg.Log, HandshakeTimeout: cfg.ConnectTimeout, Loops: true, Handle: g.handle,
		Computing: listener.NewComputing(computingHandshakes * runtime.GOMAXPROCS(0)),
		Refused: func(l *listener.Listener, why string) {
			c := l.Config()
			g.metrics.refused.WithLabelValues(c.Label(), why).Inc()
		},
	}
	for _, c := range cfg.Listeners {
		l, err := listener.New(c, o)
		if err != nil {
			g.closeListeners()
			return nil, err
		}
		g.listeners = append(g.listeners, l)
	}
	if err := g.newLoops(); err != nil {
		g.closeListeners()
		return nil, err
	}
	g.metrics = newMetrics(cfg.Registerer, g)
	return g, nil
}

// Addrs are the bound addresses by listener name.
func (g *Gateway) Addrs() map[string]net.Addr {
	m := map[string]net.Addr{}
	for _, l := range g.listeners {
		c := l.Config()
		m[c.Label()] = l.Addr()
	}
	return m
}

// Connections counts the open connections.
func (g *Gateway) Connections() int { return g.registry.wheel.len() }

// Healthy returns an error while there is no link to any broker.
func (g *Gateway) Healthy(context.Context) error {
	if g.brokers.Up() == 0 {
		return errs.New(errs.Unavailable, "there is no link to a broker")
	}
	return nil
}

// Run serves clients until ctx is done, then cuts off those that are left. The
// error is a listener's that could not go on.
func (g *Gateway) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Links outlive the listeners, so that the brokers hear of each close.
	links, closeLinks := context.WithCancel(context.WithoutCancel(ctx))
	defer closeLinks()
	var wg, linkWG sync.WaitGroup
	linkWG.Go(func() { g.brokers.Run(links) })
	g.runLoops(links)
	linkWG.Go(func() { g.entrance.closeAfter(links) })
	wg.Go(func() { g.sweep(ctx) })
	wg.Go(func() { g.watch(ctx) })
	wg.Go(func() { g.reopen(ctx) })
	wg.Go(func() { g.watchLoad(ctx) })
	wg.Go(func() { g.lend(ctx) })
	for _, l := range g.listeners {
		c := l.Config()
		g.log.Info("listening", "listener", c.Label(), "kind", c.Kind, "address", l.Addr().String())
		wg.Go(func() {
			if err := l.Serve(); err != nil {
				cancel(err)
			}
		})
	}
	<-ctx.Done()
	g.closeListeners()
	wg.Wait()
	g.endAll()
	g.waitEmpty(context.Background(), lingerTime+time.Second)
	closeLinks()
	linkWG.Wait()
	g.loopsDone.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// Drain stops accepting, tells every client that the server is shutting down
// (0x8B), and waits until they are gone or ctx is done.
func (g *Gateway) Drain(ctx context.Context) error {
	g.closeListeners()
	g.endAll()
	if !g.waitEmpty(ctx, time.Hour) {
		return errs.New(errs.Unavailable, "gateway: %d connections are left: %w", g.registry.wheel.len(), ctx.Err())
	}
	return nil
}

func (g *Gateway) closeListeners() {
	g.draining.Store(true)
	for _, l := range g.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			g.log.Debug("close listener", "error", err)
		}
	}
}

func (g *Gateway) endAll() {
	for _, t := range g.registry.wheel.all(nil) {
		t.c.end(conn.Close{Ended: true, Cause: link.CloseLost, Reason: mqtt.ServerShuttingDown, Text: "the gateway is shutting down"})
	}
	g.flush()
}

// waitEmpty waits until there is no connection.
func (g *Gateway) waitEmpty(ctx context.Context, most time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for g.registry.wheel.len() > 0 {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
			g.endAll() // some may have come in between
		}
	}
	return true
}
