// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/pires/go-proxyproto"
	"golang.org/x/time/rate"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/loop"
	"github.com/manormq/manor/tenancy"
)

// Conn is a connection that was accepted, after its handshakes.
type Conn struct {
	// Conn is the top layer. Its writes do not block.
	net.Conn
	Socket   *loop.Socket
	Listener *Listener
	// Tenant is what SNI, Host, PROXY or the listener say; nil if nothing.
	Tenant *tenancy.Tenant
	// Unavailable is why it cannot be said now, or could not in the handshake, whose the
	// host is that the client names; nil if that can be said. Whoever handles the
	// connection refuses CONNECT with it: neither TLS nor WebSocket have words for it.
	Unavailable error
	// Peer is the true address, after PROXY and X-Forwarded-For.
	Peer netip.AddrPort
	// ForeignOrigin says that a browser connects for a web page that came from
	// another host than this one (RFC 6454 §7).
	ForeignOrigin bool
	// Cert is the client's certificate; nil if it has shown none.
	Cert *ClientCert

	ws *websocket.Conn
}

// Shut ends the connection for writing, in the manner of its layers, when all
// that was written has gone. The peer's bytes may still be read.
func (c *Conn) Shut() {
	if c.ws != nil {
		// The closing handshake waits for the peer, for 5 s at most.
		go func() { _ = c.ws.Close(websocket.StatusNormalClosure, "") }()
		return
	}
	if t, ok := c.Conn.(*tls.Conn); ok {
		_ = t.CloseWrite() // close_notify, into the backlog
	}
	c.Socket.Shut()
}

// Options are what listeners of a gateway have in common.
type Options struct {
	Directory tenancy.Directory
	// Domain is what tenants' hostnames are below. Its own name is no tenant's.
	Domain string
	Log    *slog.Logger
	// Tickets are what all gateways derive the keys of TLS session tickets from; nil
	// if each has its own, as it has while Tickets gives nil.
	Tickets func() *tenancy.TicketSecrets
	// Hosts is what is known of a custom domain; nil, or a nil answer, is none. It is
	// called concurrently.
	Hosts func(name string) *tenancy.CustomHost
	// Computing bounds the handshakes of TLS; nil does not.
	Computing *Computing
	// HandshakeTimeout bounds PROXY header, TLS and WebSocket upgrade, each.
	HandshakeTimeout time.Duration
	// Loops says that Handle gives connections to event loops, where the system has
	// them. Those whose Socket is its own come on the goroutine that accepts, which
	// Handle must not keep.
	Loops bool
	// Handle has the connection until it returns; then it is closed unless an
	// event loop has it.
	Handle func(c *Conn)
	// Refused hears of connections that were closed without Handle.
	Refused func(l *Listener, why string)
}

// Listener accepts connections of one configured kind and address.
type Listener struct {
	cfg     Config
	opts    Options
	log     *slog.Logger
	trusted []netip.Prefix
	cert    *certificate
	hosts   *hostCertificates // nil without cert_dir
	clients *authorities      // nil without client certificates
	tls     *tls.Config       // chooses among configs
	configs *lru.Cache[string, *tlsConfig]
	tickets *tickets
	l       net.Listener   // nil where there is an acceptor
	loops   *loop.Acceptor // nil where a goroutine waits for each
	http    *http.Server
	open    atomic.Int64
	warned  atomic.Int64 // Unix seconds of the last line about max connections
	// strangers bounds the lines about those that do not speak TLS.
	strangers rate.Sometimes
	// unaccepting bounds those about connections that cannot be accepted.
	unaccepting rate.Sometimes
}

// New validates c, reads its certificate and binds its address.
func New(c Config, o Options) (*Listener, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	l := &Listener{cfg: c, opts: o, log: o.Log.With("listener", c.Label()), strangers: rate.Sometimes{First: 1, Interval: time.Minute}, unaccepting: rate.Sometimes{First: 1, Interval: 10 * time.Second}}
	l.trusted, _ = c.trusted() // Validate has seen it
	if c.TLS() {
		var err error
		if l.cert, err = loadCertificate(c.CertFile, c.KeyFile, l.log); err != nil {
			return nil, err
		}
		if c.CertDir != "" {
			if l.hosts, err = newHostCertificates(c.CertDir, l.log); err != nil {
				return nil, err
			}
		}
		if c.ClientCerts != "" {
			if l.clients, err = loadAuthorities(c.ClientCAFile, c.ClientCRLFile, l.log); err != nil {
				return nil, err
			}
		}
		l.tickets = &tickets{shared: o.Tickets}
		if l.configs, err = lru.New[string, *tlsConfig](maxConfigs); err != nil {
			return nil, errs.New(errs.Internal, "TLS configurations: %w", err)
		}
		l.tls = l.baseConfig()
	}
	if c.WebSocket() {
		l.http = l.server()
	}
	var err error
	if l.l, err = listen(c.Address); err != nil {
		return nil, errs.New(errs.Unavailable, "listener %s: %w", c.Label(), err)
	}
	if o.Loops && c.bare() {
		if a, err := loop.NewAcceptor(l.l); err == nil {
			l.l, l.loops = nil, a
		}
	}
	return l, nil
}

// Config is the listener's configuration.
func (l *Listener) Config() Config { return l.cfg }

// Addr is the bound address.
func (l *Listener) Addr() net.Addr {
	if l.loops != nil {
		return l.loops.Addr()
	}
	return l.l.Addr()
}

// Open counts the connections that are open.
func (l *Listener) Open() int { return int(l.open.Load()) }

// Close stops accepting. Connections that were handed over stay.
func (l *Listener) Close() error {
	if l.http != nil {
		_ = l.http.Close() // requests that are no connection yet
	}
	if l.loops != nil {
		return l.loops.Close()
	}
	return l.l.Close()
}

// Serve accepts until Close.
func (l *Listener) Serve() error {
	if l.loops != nil {
		return l.serveLoops()
	}
	accept := acceptor{l}
	if l.http != nil {
		if err := l.http.Serve(accept); !errors.Is(err, net.ErrClosed) && !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
	for {
		c, err := accept.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		go l.serve(c)
	}
}

// acceptor is the net.Listener that limits, counts and wraps.
type acceptor struct{ *Listener }

// Close implements net.Listener; http.Server calls it.
func (a acceptor) Close() error { return a.l.Close() }

// Accept implements net.Listener.
func (a acceptor) Accept() (net.Conn, error) {
	l := a.Listener
	for {
		c, err := l.l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil, err
			}
			l.unaccepted(err)
			continue
		}
		if !l.enter() {
			_ = c.Close()
			continue
		}
		return l.wrap(loop.NewSocket(c, l.leave)), nil
	}
}

// unaccepted waits a moment: the process is out of descriptors, most often, and
// others will be closed.
func (l *Listener) unaccepted(err error) {
	l.unaccepting.Do(func() {
		l.log.Warn("connections cannot be accepted; it is tried 20 times a second, and told every 10 s", "error", err)
	})
	time.Sleep(50 * time.Millisecond)
}

// enter counts a connection that was accepted, and reports whether there may be that
// many.
func (l *Listener) enter() bool {
	n := l.open.Add(1)
	if l.cfg.MaxConnections == 0 || n <= int64(l.cfg.MaxConnections) {
		return true
	}
	l.leave()
	l.opts.Refused(l, "max_connections")
	if now := time.Now().Unix(); l.warned.Swap(now) != now {
		l.log.Warn("connection closed: max_connections is reached", "limit", l.cfg.MaxConnections)
	}
	return false
}

func (l *Listener) leave() { l.open.Add(-1) }

// wrap puts PROXY and TLS above the socket. Neither reads yet.
func (l *Listener) wrap(s *loop.Socket) net.Conn {
	var c net.Conn = s
	if l.cfg.ProxyProtocol {
		policy := proxyproto.REQUIRE
		if len(l.trusted) > 0 && !contains(l.trusted, addrPort(s.Conn.RemoteAddr()).Addr()) {
			policy = proxyproto.REJECT
		}
		c = proxyproto.NewConn(c, proxyproto.WithPolicy(policy), proxyproto.SetReadHeaderTimeout(l.opts.HandshakeTimeout))
	}
	if l.tls != nil {
		c = tls.Server(c, l.tls)
	}
	return c
}

// layers takes wrap apart again.
func layers(c net.Conn) (s *loop.Socket, proxy *proxyproto.Conn, t *tls.Conn) {
	if x, ok := c.(*tls.Conn); ok {
		t, c = x, x.NetConn()
	}
	if x, ok := c.(*proxyproto.Conn); ok {
		proxy, c = x, x.Raw()
	}
	s, _ = c.(*loop.Socket)
	return s, proxy, t
}

// serve is the life of a connection without WebSocket. It and what it calls
// while the client is idle keep little on the stack, which costs for every
// connection what it has grown to.
func (l *Listener) serve(c net.Conn) {
	if conn := l.handshake(c); conn != nil {
		l.opts.Handle(conn)
		if conn.Socket.Moved() {
			return
		}
	}
	_ = c.Close()
}

// handshake reads what comes before MQTT; nil if that went wrong.
func (l *Listener) handshake(c net.Conn) *Conn {
	s, proxy, t := layers(c)
	if t != nil || proxy != nil {
		_ = c.SetDeadline(time.Now().Add(l.opts.HandshakeTimeout))
	}
	if proxy != nil && !l.readProxy(s, proxy) {
		return nil
	}
	var n *negotiated
	if t != nil {
		var ctx context.Context
		ctx, n = handshakeContext(context.Background())
		if err := t.HandshakeContext(ctx); err != nil {
			if !errors.Is(err, errComputing) { // which was counted
				l.opts.Refused(l, "tls_handshake")
			}
			if _, plain := errors.AsType[tls.RecordHeaderError](err); plain {
				l.strangers.Do(func() {
					l.log.Warn("a client does not speak TLS on a listener with TLS; further ones are counted only, for a minute", "peer", s.Conn.RemoteAddr().String(), "error", err)
				})
			}
			l.log.Debug("TLS handshake failed", "peer", s.Conn.RemoteAddr().String(), "error", err)
			return nil
		}
	}
	if t != nil || proxy != nil {
		_ = c.SetDeadline(time.Time{})
	}
	conn := &Conn{Conn: c, Socket: s, Listener: l, Peer: addrPort(c.RemoteAddr())}
	host := ""
	if t != nil {
		cs := t.ConnectionState()
		if cs.NegotiatedProtocol == challengeProto {
			l.opts.Refused(l, "acme_challenge") // which has had its answer
			return nil
		}
		host, conn.Cert, conn.Unavailable = cs.ServerName, l.clientCert(n.config, &cs), n.unavailable
	}
	if !l.tenant(conn, host, proxy) {
		return nil
	}
	return conn
}

// readProxy reads the PROXY header and reports whether it was one that is
// believed.
func (l *Listener) readProxy(s *loop.Socket, proxy *proxyproto.Conn) bool {
	h := proxy.ProxyHeader() // reads
	if proxy.ProxyHeaderPolicy == proxyproto.REJECT {
		l.opts.Refused(l, "proxy_untrusted")
		l.log.Warn("connection closed: not from a trusted proxy", "peer", s.Conn.RemoteAddr().String())
		return false
	}
	if h == nil {
		l.opts.Refused(l, "proxy_header")
		l.log.Debug("connection closed: expected a PROXY header", "peer", s.Conn.RemoteAddr().String())
		return false
	}
	return true
}

func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		ap := t.AddrPort()
		return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	ap, _ := netip.ParseAddrPort(a.String())
	return ap
}
