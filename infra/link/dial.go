// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/wire"
)

// ErrLost says that the link has ended.
var ErrLost = errors.New("link: lost")

// ping has the link to a broker that is silent end after 6 s, three times this: soon
// after others have its partitions, so that its clients come back there.
const ping = 2 * time.Second

// Dial opens a link to the broker at addr ("host:port") for the gateway gw,
// which calls itself nodeName. A nil tlsConf means no TLS, for tests. ctx
// bounds the opening only; the link lives until Close, or until it is lost and
// gw.Lost is called.
//
// What waits to be written is bounded by the windows that the broker granted to
// the channels, plus the frames that need no window; past wire.Config's
// MaxPending the link ends.
func Dial(ctx context.Context, addr string, tlsConf *tls.Config, nodeName string, gw Gateway) (Broker, error) {
	conn, err := dial(ctx, addr, tlsConf, nodeName, gw)
	if err != nil {
		return nil, err
	}
	return Connect(conn, gw), nil
}

// DialBroker is Dial to a broker of a table: at whatever address it is, its
// certificate must be for its name. Without TLS its own word for its name is taken.
func DialBroker(ctx context.Context, b TableBroker, tlsConf *tls.Config, nodeName string, gw Gateway) (Broker, error) {
	if tlsConf != nil {
		tlsConf = tlsConf.Clone()
		tlsConf.ServerName = b.Name
	}
	conn, err := dial(ctx, b.Address, tlsConf, nodeName, gw)
	if err != nil {
		return nil, err
	}
	if conn.Peer() != b.Name {
		_ = conn.Close()
		return nil, fmt.Errorf("dial broker %s: expected %q there, found %q", b.Address, b.Name, conn.Peer())
	}
	return Connect(conn, gw), nil
}

// dial opens a connection to the broker at addr, with the features that gw has.
func dial(ctx context.Context, addr string, tlsConf *tls.Config, nodeName string, gw Gateway) (*wire.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial broker: %w", err)
	}
	config := wire.Config{Node: nodeName, Features: FeaturesOf(gw), KeepAlive: ping}
	nc = socket(nc, &config)
	if tlsConf != nil {
		if tlsConf.ServerName == "" {
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				_ = nc.Close()
				return nil, fmt.Errorf("dial broker: %w", err)
			}
			tlsConf = tlsConf.Clone()
			tlsConf.ServerName = host
		}
		nc = tls.Client(nc, tlsConf)
	}
	conn, err := wire.New(ctx, nc, config)
	if err != nil {
		return nil, fmt.Errorf("dial broker %s: %w", addr, err)
	}
	return conn, nil
}

// Connect makes conn the gateway's end of a link. It starts the goroutine that
// owns conn and calls gw; the link ends as one of Dial does.
func Connect(conn *wire.Conn, gw Gateway) Broker {
	u := &uplink{conn: conn, gateway: gw}
	go u.run()
	return u
}

// uplink is a broker at the other end of a connection.
type uplink struct {
	conn    *wire.Conn
	gateway Gateway
	closed  atomic.Bool
}

// run hands over what comes, until the connection ends.
func (u *uplink) run() {
	var down Down
	err := u.conn.Run(context.Background(), wire.Receiver{
		Batch: func(frames []byte, count int) error {
			down.Reset()
			if err := DecodeDown(frames, count, &down); err != nil {
				return err
			}
			u.gateway.Receive(&down)
			return nil
		},
		Idle: func() {
			u.gateway.Flush()
			if cap(down.Frames) > keepFrames {
				down = Down{}
			}
		},
	})
	if !u.closed.Load() {
		u.gateway.Lost(fmt.Errorf("%w: %w", ErrLost, err))
	}
}

// keepFrames is how many frames of memory a reader keeps when it is idle.
const keepFrames = 4096

// Send implements Broker: what it queues waits for Flush.
func (u *uplink) Send(b *Up) error {
	if u.conn.Features()&FeatureQuotas == 0 {
		b = withoutQuotas(b)
	}
	for first := 0; first < len(b.Frames); {
		err := u.conn.Append(func(dst []byte) (out []byte, count int) {
			out, count, first = AppendUp(dst, b, first)
			return out, count
		})
		if err != nil {
			return fmt.Errorf("%w: %w", ErrLost, err)
		}
	}
	return nil
}

// Post implements Broker: nothing of Send runs work of the broker here.
func (u *uplink) Post(b *Up) error { return u.Send(b) }

// Features are those that both ends of the link have.
func (u *uplink) Features() uint32 { return u.conn.Features() }

// Flush implements Broker.
func (u *uplink) Flush() { u.conn.Flush() }

// Close implements Broker. Lost is not called for it.
func (u *uplink) Close() error {
	u.closed.Store(true)
	return u.conn.Close()
}
