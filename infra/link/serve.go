// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/manormq/manor/infra/loop"
	"github.com/manormq/manor/infra/wire"
)

// Server accepts links for a broker.
type Server struct {
	// Node is the broker's name; without one it is the common name of the
	// certificate.
	Node string
	// TLS asks gateways for certificates; wire.TLS makes one. Without it there
	// is no TLS, for tests.
	TLS *tls.Config
	// Attach makes a broker's end for the gateway peer, whose name its
	// certificate vouches for. It is called concurrently.
	Attach func(gw Gateway, peer string) Broker
	// Logger has a line for every link that begins, ends or is refused.
	Logger *slog.Logger
}

// maxIntroductions is how many connections may be introducing themselves at a
// time.
const maxIntroductions = 256

// Serve is Server.Serve with the name of the certificate and no log.
func Serve(ctx context.Context, ln net.Listener, tlsConf *tls.Config, attach func(gw Gateway, peer string) Broker) error {
	s := &Server{TLS: tlsConf, Attach: attach}
	return s.Serve(ctx, ln)
}

// Serve accepts links on ln, which it closes, until ctx is done; then it ends
// all of them, waits for that, and returns nil. When a link ends, the broker's
// end that Attach made for it is closed.
//
// What waits to be written to a gateway is bounded by the credit that its
// channels granted, plus the frames that need none (acknowledgements, at most
// the Receive Maximum of each channel, and closes); past wire.Config's
// MaxPending the link ends.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	if s.Logger == nil {
		s.Logger = slog.New(slog.DiscardHandler)
	}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var links sync.WaitGroup
	defer links.Wait()
	introductions := make(chan struct{}, maxIntroductions)
	for {
		nc, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Out of file descriptors, most likely: others will end.
			s.Logger.Error("accept link", slog.Any("error", err))
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		introductions <- struct{}{}
		links.Go(func() {
			conn, err := s.introduce(ctx, nc)
			<-introductions
			if err != nil {
				level := slog.LevelWarn
				if wire.Silent(err) {
					level = slog.LevelDebug
				}
				s.Logger.Log(ctx, level, "link refused", slog.Any("peer", nc.RemoteAddr()), slog.Any("error", err))
				return
			}
			s.Logger.Info("link opened", slog.String("gateway", conn.Peer()), slog.Any("peer", conn.RemoteAddr()))
			err = Accept(ctx, conn, s.Attach)
			level := slog.LevelInfo
			if errors.Is(err, wire.ErrTooLarge) || errors.Is(err, wire.ErrOverrun) || errors.Is(err, loop.ErrOverrun) {
				level = slog.LevelError // a bound of this end did not hold
			}
			s.Logger.Log(ctx, level, "link ended", slog.String("gateway", conn.Peer()), slog.Any("error", err))
		})
	}
}

func (s *Server) introduce(ctx context.Context, nc net.Conn) (*wire.Conn, error) {
	config := wire.Config{Node: s.name(), Features: Features}
	nc = socket(nc, &config)
	if s.TLS != nil {
		nc = tls.Server(nc, s.TLS)
	}
	return wire.New(ctx, nc, config)
}

// name is the node's name, from the certificate if none is set.
func (s *Server) name() string {
	if s.Node == "" && s.TLS != nil && len(s.TLS.Certificates) > 0 && s.TLS.Certificates[0].Leaf != nil {
		return s.TLS.Certificates[0].Leaf.Subject.CommonName
	}
	if s.Node == "" {
		return "broker"
	}
	return s.Node
}

// Accept makes conn the broker's end of a link: it calls attach and hands over
// what comes, until the connection ends, and says why. It closes what attach
// returned.
func Accept(ctx context.Context, conn *wire.Conn, attach func(gw Gateway, peer string) Broker) error {
	broker := attach(&downlink{conn: conn, old: conn.Features()&FeatureOwners == 0}, conn.Peer())
	defer func() { _ = broker.Close() }()
	var up Up
	return conn.Run(ctx, wire.Receiver{
		Batch: func(frames []byte, count int) error {
			up.Reset()
			if err := DecodeUp(frames, count, &up); err != nil {
				return err
			}
			return broker.Send(&up)
		},
		Idle: func() {
			if cap(up.Frames) > keepFrames {
				up = Up{}
			}
		},
	})
}

// downlink is a gateway at the other end of a connection.
type downlink struct {
	conn    *wire.Conn
	old     bool        // the gateway does not know FeatureOwners
	encoder DownEncoder // guarded by conn: used inside Append only
}

// Receive implements Gateway: it encodes b behind what waits already. A batch
// that cannot be queued has ended the connection, and Accept says why and closes
// the broker's end; so does it when there is nobody to tell any more.
func (d *downlink) Receive(b *Down) {
	switch {
	case d.old:
		b = forOld(b)
	case d.conn.Features()&FeatureCells == 0:
		b = withoutCells(b)
	}
	for first := 0; first < len(b.Frames); {
		err := d.conn.Append(func(dst []byte) (out []byte, count int) {
			out, count, first = d.encoder.Append(dst, b, first)
			return out, count
		})
		if err != nil {
			return
		}
	}
}

// Features implements Featured.
func (d *downlink) Features() uint32 { return d.conn.Features() }

// Flush implements Gateway.
func (d *downlink) Flush() { d.conn.Flush() }

// Lost implements Gateway: a broker that gives the link up ends the connection.
func (d *downlink) Lost(error) { _ = d.conn.Close() }
