// SPDX-License-Identifier: Apache-2.0

// Package nats is the bus over a NATS cluster with JetStream. The NATS client
// owns a reader and a writer goroutine per connection and one per subscription;
// each request that is served runs in its own. It links no NATS server.
package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
)

// callTimeout bounds a call whose context has no deadline, readyTimeout one of Ready.
const (
	callTimeout  = 5 * time.Second
	readyTimeout = 500 * time.Millisecond
)

// A server that is cut off is left when more than pingsOpen pings, one each pingEvery, have no
// answer: after 3 to 4 s. A partition that was being handed over waits for that with its
// clients, since its owner does not know whether the table has the change.
const (
	pingEvery = time.Second
	pingsOpen = 2
)

// Config says where the bus is.
type Config struct {
	// URLs are the servers, such as nats://10.0.0.1:4222; any one will do.
	URLs []string
	// Name is what the servers show for this client.
	Name string
	// Token authenticates, where the servers ask for one.
	Token string
	// TLS is used if not nil.
	TLS *tls.Config
	// InProcess, if not nil, is connected to instead of URLs.
	InProcess nats.InProcessConnProvider
	// Replicas is how many servers keep a bucket that asks for no number of its
	// own; 0 means 3 where URLs has three or more, else 1.
	Replicas int
	Log      *slog.Logger
}

// Bus is a bus.Bus on NATS. Make it with Connect.
type Bus struct {
	cfg Config
	log *slog.Logger
	nc  *nats.Conn
	js  jetstream.JetStream

	mu          sync.Mutex
	reconnected chan struct{} // guarded by mu; closed at the next reconnection
}

var _ bus.Bus = (*Bus)(nil)

// Connect connects, and keeps connecting for ever, with 0.25 to 1 s between
// tries, so that servers that come back do not meet everybody at once, and what was
// changed meanwhile is known within 2 s. That the servers are not there now is no
// error.
func Connect(cfg Config) (*Bus, error) {
	b := &Bus{cfg: cfg, log: cfg.Log, reconnected: make(chan struct{})}
	opts := []nats.Option{
		nats.Name(cfg.Name),
		nats.MaxReconnects(-1),
		nats.RetryOnFailedConnect(true),
		nats.CustomReconnectDelay(func(int) time.Duration {
			return 250*time.Millisecond + rand.N(750*time.Millisecond)
		}),
		nats.Timeout(2 * time.Second),
		nats.PingInterval(pingEvery),
		nats.MaxPingsOutstanding(pingsOpen),
		// What cannot be sent now is an error now: callers know what to do
		// about it, a buffer does not.
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				b.log.Warn("bus lost", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			b.log.Info("bus connected", "server", nc.ConnectedUrlRedacted())
			b.signalReconnected()
		}),
		nats.ConnectHandler(func(nc *nats.Conn) {
			b.log.Debug("bus connected", "server", nc.ConnectedUrlRedacted())
			b.signalReconnected()
		}),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			subject := ""
			if s != nil {
				subject = s.Subject
			}
			b.log.Warn("bus error", "subject", subject, "error", err)
		}),
	}
	if cfg.Token != "" {
		opts = append(opts, nats.Token(cfg.Token))
	}
	if cfg.TLS != nil {
		opts = append(opts, nats.Secure(cfg.TLS))
	}
	if cfg.InProcess != nil {
		opts = append(opts, nats.InProcessServer(cfg.InProcess))
	}
	nc, err := nats.Connect(strings.Join(cfg.URLs, ","), opts...)
	if err != nil {
		return nil, errs.New(errs.Invalid, "connect to the bus at %s: %w", strings.Join(cfg.URLs, ", "), err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return nil, errs.New(errs.Internal, "JetStream: %w", err)
	}
	b.nc, b.js = nc, js
	return b, nil
}

// Close ends the connection and all that hangs on it.
func (b *Bus) Close() error {
	b.nc.Close()
	return nil
}

// Connected reports whether a server is connected now.
func (b *Bus) Connected() bool { return b.nc.IsConnected() }

// Check is a health check: nil while a server is connected.
func (b *Bus) Check(context.Context) error { return b.reachable() }

// Ready returns nil once buckets can be made and written: of the servers of a cluster
// most must be there and have agreed. The error is Unavailable until then, after half
// a second: servers that have not agreed do not answer.
func (b *Bus) Ready(ctx context.Context) error {
	ctx, end := context.WithTimeout(ctx, readyTimeout)
	defer end()
	ctx, cancel, err := b.call(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if _, err := b.js.AccountInfo(ctx); err != nil {
		return errs.New(errs.Unavailable, "JetStream is not ready: %w", err)
	}
	return nil
}

func (b *Bus) reachable() error {
	if !b.nc.IsConnected() {
		return errs.New(errs.Unavailable, "%w: the bus is not connected (%s)", bus.ErrUntaken, strings.ToLower(b.nc.Status().String()))
	}
	return nil
}

func (b *Bus) signalReconnected() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.reconnected)
	b.reconnected = make(chan struct{})
}

// nextReconnection returns a channel that is closed when the bus has connected
// again.
func (b *Bus) nextReconnection() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reconnected
}

// call checks that the bus is there and bounds ctx.
func (b *Bus) call(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, errs.New(errs.Unavailable, "bus: %w", err)
	}
	if err := b.reachable(); err != nil {
		return nil, nil, err
	}
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	return ctx, cancel, nil
}

// Publish implements bus.Bus.
func (b *Bus) Publish(ctx context.Context, subject string, body []byte) error {
	if err := bus.CheckSubject(subject); err != nil {
		return err
	}
	_, cancel, err := b.call(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := b.nc.Publish(subject, body); err != nil {
		return errs.New(errs.Unavailable, "publish %s: %w", subject, err)
	}
	return nil
}

// Subscribe implements bus.Bus.
func (b *Bus) Subscribe(subject string, f func(string, []byte)) (func(), error) {
	sub, err := b.nc.Subscribe(subject, func(m *nats.Msg) { f(m.Subject, m.Data) })
	if err != nil {
		return nil, errs.New(errs.Invalid, "subscribe %s: %w", subject, err)
	}
	return b.unsubscriber(sub), b.settle()
}

// settle waits until the server knows the subscriptions, if it is there.
func (b *Bus) settle() error {
	if !b.nc.IsConnected() {
		return nil
	}
	if err := b.nc.FlushTimeout(callTimeout); err != nil && b.nc.IsClosed() {
		return errs.New(errs.Unavailable, "bus: %w", err)
	}
	return nil
}

func (b *Bus) unsubscriber(sub *nats.Subscription) func() {
	return func() {
		if err := sub.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
			b.log.Debug("unsubscribe", "subject", sub.Subject, "error", err)
		}
		_ = b.settle() // a closed bus has no subscriptions left
	}
}

// Headers of an answer that is an error; its text is the body.
const (
	kindHeader = "Manor-Error-Kind"
	codeHeader = "Manor-Error-Code"
)

// Request implements bus.Bus.
func (b *Bus) Request(ctx context.Context, subject string, body []byte) ([]byte, error) {
	if err := bus.CheckSubject(subject); err != nil {
		return nil, err
	}
	ctx, cancel, err := b.call(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	m, err := b.nc.RequestWithContext(ctx, subject, body)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, errs.New(errs.Unavailable, "request %s: nobody serves it", subject)
	case err != nil:
		return nil, errs.New(errs.Unavailable, "request %s: %w", subject, err)
	}
	if h := m.Header.Get(kindHeader); h != "" {
		kind, err := strconv.ParseUint(h, 10, 8)
		if err != nil {
			kind = uint64(errs.Internal)
		}
		return nil, errs.Coded(errs.Kind(kind), m.Header.Get(codeHeader), "%s", m.Data)
	}
	return m.Data, nil
}

// Serve implements bus.Bus.
func (b *Bus) Serve(subject string, f func(context.Context, []byte) ([]byte, error)) (func(), error) {
	ctx, cancel := context.WithCancel(context.Background())
	sub, err := b.nc.QueueSubscribe(subject, "serve", func(m *nats.Msg) {
		go func() {
			ctx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			b.answer(ctx, m, f)
		}()
	})
	if err != nil {
		cancel()
		return nil, errs.New(errs.Invalid, "serve %s: %w", subject, err)
	}
	stop := b.unsubscriber(sub)
	return func() { stop(); cancel() }, b.settle()
}

// answered is f, whose panic is its error: one question must not end the process.
func answered(ctx context.Context, body []byte, f func(context.Context, []byte) ([]byte, error)) (out []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			out, err = nil, errs.New(errs.Internal, "the answer cannot be given: %v", v)
		}
	}()
	return f(ctx, body)
}

func (b *Bus) answer(ctx context.Context, m *nats.Msg, f func(context.Context, []byte) ([]byte, error)) {
	out, err := answered(ctx, m.Data, f)
	reply := nats.NewMsg(m.Reply)
	reply.Data = out
	if err != nil {
		reply.Header.Set(kindHeader, strconv.Itoa(int(errs.KindOf(err))))
		reply.Header.Set(codeHeader, errs.CodeOf(err))
		reply.Data = []byte(err.Error())
	}
	if err := m.RespondMsg(reply); err != nil {
		b.log.Debug("answer not sent", "subject", m.Subject, "error", err)
	}
}

// Bucket implements bus.Bus.
func (b *Bus) Bucket(ctx context.Context, cfg bus.BucketConfig) (bus.Bucket, error) {
	if err := bus.CheckSubject(cfg.Name); err != nil || strings.Contains(cfg.Name, ".") {
		return nil, errs.New(errs.Invalid, "expected the name of a bucket, found %q", cfg.Name)
	}
	ctx, cancel, err := b.call(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	return b.openBucket(ctx, cfg)
}

// Codes of JetStream's errors that its client has no names for.
const (
	errNoPeers       jetstream.ErrorCode = 10005 // fewer servers are there than shall keep a bucket
	errNotClustered  jetstream.ErrorCode = 10074 // several shall keep it, and there is no cluster
	errWrongSequence jetstream.ErrorCode = 10164 // with a constant of the client for 10071 only
)

// mapError gives what JetStream says a Kind.
func mapError(err error, what string) error {
	kind := errs.Internal
	var api *jetstream.APIError
	var network net.Error
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound), errors.Is(err, jetstream.ErrKeyDeleted):
		kind = errs.NotFound
	case errors.Is(err, jetstream.ErrKeyExists), errors.Is(err, jetstream.ErrKeyRevisionMismatch), isWrongSequence(err):
		kind = errs.Conflict
	case errors.Is(err, jetstream.ErrInvalidKey), errors.Is(err, jetstream.ErrInvalidBucketName), errors.Is(err, nats.ErrMaxPayload):
		kind = errs.Invalid
	case errors.As(err, &api):
		switch {
		case api.Code == 503, api.ErrorCode == errNoPeers:
			kind = errs.Unavailable
		case api.ErrorCode == errNotClustered:
			kind = errs.Invalid
		}
	case errors.Is(err, nats.ErrTimeout), errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrConnectionClosed),
		errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrReconnectBufExceeded), errors.Is(err, jetstream.ErrNoStreamResponse),
		errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.As(err, &network):
		kind = errs.Unavailable
	}
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse) {
		// The server that the client is at said that the stream has no leader to take it.
		return errs.New(kind, "%s: %w: %w", what, bus.ErrUntaken, err)
	}
	return errs.New(kind, "%s: %w", what, err)
}

func isWrongSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == errWrongSequence)
}
