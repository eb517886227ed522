// SPDX-License-Identifier: Apache-2.0

package listener

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/pires/go-proxyproto"
)

// Path is where MQTT over WebSocket is served.
const Path = "/mqtt"

// pongBacklog is how many bytes may wait for the socket when a ping is to be
// answered.
const pongBacklog = 64 << 10

// subprotocols that MQTT over WebSocket may be called by [MQTT-6.0.0-4];
// mqttv3.1 is what 3.1 clients say.
var subprotocols = []string{"mqtt", "mqttv3.1"}

type connKey struct{}

func (l *Listener) server() *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc(Path, l.upgrade)
	return &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: l.opts.HandshakeTimeout,
		IdleTimeout:       l.opts.HandshakeTimeout,
		MaxHeaderBytes:    16 << 10,
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){
			challengeProto: func(*http.Server, *tls.Conn, http.Handler) { l.opts.Refused(l, "acme_challenge") }, // net/http closes it
		},
		// net/http writes of every port scanner; refusals are counted instead.
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			ctx, _ = handshakeContext(ctx)
			return context.WithValue(ctx, connKey{}, c)
		},
	}
}

// upgrade turns a request into a connection and serves it.
func (l *Listener) upgrade(w http.ResponseWriter, r *http.Request) {
	offered := strings.Split(strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ","), ",")
	if !slices.ContainsFunc(offered, func(p string) bool { return slices.Contains(subprotocols, strings.TrimSpace(p)) }) {
		l.opts.Refused(l, "subprotocol")
		http.Error(w, "expected the WebSocket subprotocol mqtt or mqttv3.1", http.StatusBadRequest)
		return
	}
	under, _ := r.Context().Value(connKey{}).(net.Conn)
	s, proxy, t := layers(under)
	ws, err := websocket.Accept(leanWriter{w}, r, &websocket.AcceptOptions{
		Subprotocols: subprotocols,
		// MQTT brings its own credentials: a foreign page gains nothing by a
		// browser that connects for it. Where none are needed, ForeignOrigin
		// is looked at.
		InsecureSkipVerify: true,
		// Pongs are written from within Read, where nobody counts them. Who
		// sends pings and takes no pongs gets none; RFC 6455 §5.5.3 lets a
		// pong stand for the pings before it.
		OnPingReceived: func(context.Context, []byte) bool { return s.Backlog() <= pongBacklog },
	})
	if err != nil {
		l.opts.Refused(l, "upgrade")
		l.log.Debug("WebSocket upgrade failed", "peer", r.RemoteAddr, "error", err)
		return
	}
	_ = s.SetDeadline(time.Time{})
	ws.SetReadLimit(-1) // packets have their own
	c := &Conn{Conn: &binary{Conn: under, ws: ws}, Socket: s, Listener: l, Peer: l.peer(r), ForeignOrigin: foreign(r), ws: ws}
	host := ""
	if t != nil {
		cs := t.ConnectionState()
		n := negotiatedOf(r.Context())
		host, c.Cert, c.Unavailable = cs.ServerName, l.clientCert(n.config, &cs), n.unavailable
	}
	if l.namesNobody(host) {
		host = r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
	}
	// Not here: the request, its buffers and the stack that net/http has needed would
	// stay for as long as the connection.
	go l.serveWebSocket(c, host, proxy)
}

// serveWebSocket is the life of a connection with WebSocket.
func (l *Listener) serveWebSocket(c *Conn, host string, proxy *proxyproto.Conn) {
	defer func() { _ = c.ws.CloseNow() }()
	if !l.tenant(c, host, proxy) {
		_ = c.ws.Close(websocket.StatusInternalError, "the tenant cannot be found now")
		return
	}
	l.opts.Handle(c)
}

// foreign reports whether a request comes from a web page of another host.
// Programs that are no browsers send no Origin.
func foreign(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}

// peer is the address of the client: the connection's, unless that is a
// trusted proxy which names another.
func (l *Listener) peer(r *http.Request) netip.AddrPort {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.AddrPort{}
	}
	ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	if !contains(l.trusted, ap.Addr()) {
		return ap
	}
	if a, ok := forwardedFor(r.Header.Values("X-Forwarded-For"), l.trusted); ok {
		return netip.AddrPortFrom(a, 0)
	}
	return ap
}
