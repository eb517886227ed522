// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/manormq/manor/gateway/uplink"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/wire"
)

// fleet is many clients at a gateway that has no sockets of clients: it speaks to
// the brokers over their links, as a gateway does.
type fleet struct {
	brokers *uplink.Brokers[member]
	payload []byte
	stop    context.CancelFunc
	ended   sync.WaitGroup
}

// member is the channel of one client, which waits for one answer at a time.
type member struct {
	answer chan link.DownFrame
}

// fleetWide is how many clients are busy at once, and answerTime how long each
// waits for an answer.
const (
	fleetWide  = 512
	answerTime = 30 * time.Second
)

// newFleet links to the brokers with the gateway's certificate.
func newFleet(ctx context.Context, b *broker, payload int) (*fleet, error) {
	if len(b.nodes) == 0 {
		return nil, errors.New("expected brokers as processes of their own, found none")
	}
	pki := filepath.Join(b.dir, "pki")
	conf, err := wire.TLS(filepath.Join(pki, fleetName+".pem"), filepath.Join(pki, fleetName+".key"), filepath.Join(b.dir, "ca.pem"))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	f := &fleet{payload: make([]byte, payload), stop: stop}
	var seeds []uplink.Dialer
	for _, n := range b.nodes {
		seeds = append(seeds, uplink.DialerFunc(func(ctx context.Context, gw link.Gateway) (link.Broker, error) {
			return link.Dial(ctx, n.link, conf, fleetName, gw)
		}))
	}
	f.brokers = uplink.NewBrokers(uplink.BrokersConfig[member]{
		Seeds: seeds, Links: 2, Handler: f, Log: slog.New(slog.DiscardHandler),
		Dial: dialer(conf),
	})
	f.ended.Go(func() { f.brokers.Run(ctx) })
	return f, nil
}

// fleetName is the gateway whose certificate it has.
const fleetName = "gateway-1"

func dialer(conf *tls.Config) func(context.Context, link.TableBroker, link.Gateway) (link.Broker, error) {
	return func(ctx context.Context, b link.TableBroker, gw link.Gateway) (link.Broker, error) {
		return link.DialBroker(ctx, b, conf, fleetName, gw)
	}
}

func (f *fleet) close() {
	f.stop()
	f.ended.Wait()
}

// Receive implements uplink.Handler.
func (f *fleet) Receive(l *uplink.Link[member], b *link.Down) {
	for i := range b.Frames {
		d := &b.Frames[i]
		switch d.Kind {
		case link.DownOpened, link.DownRefused, link.DownMoved, link.DownSuback, link.DownAck, link.DownClose:
			if m := l.Channels.Get(d.Channel); m != nil {
				select {
				case m.answer <- link.DownFrame{Kind: d.Kind, Reason: d.Reason, Moved: d.Moved, Text: d.Text}:
				default: // it waits for none
				}
			}
		default:
		}
	}
}

// Flush implements uplink.Handler.
func (f *fleet) Flush() {}

// FlushEarly implements uplink.Handler.
func (f *fleet) FlushEarly() {}

// Lost implements uplink.Handler.
func (f *fleet) Lost(l *uplink.Link[member], _ error) {
	l.Channels.All(func(m *member) {
		select {
		case m.answer <- link.DownFrame{Kind: link.DownClose, Reason: mqtt.ServerUnavailable, Text: "the link was lost"}:
		default:
		}
	})
}

// each calls do with the n numbers from first on, some at once, until the first error.
func (f *fleet) each(ctx context.Context, first, n int, do func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range fleetWide {
		g.Go(func() error {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				if err := do(ctx, first+i); err != nil {
					return err
				}
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// session makes a session that has no connection.
func (f *fleet) session(ctx context.Context, i int) error {
	return f.connected(ctx, clientName(i), func(func(link.UpFrame, link.DownKind) error) error { return nil })
}

// subscribe has it subscribe to a topic that nobody else has.
func (f *fleet) subscribe(ctx context.Context, i int) error {
	return f.connected(ctx, clientName(i), func(ask func(link.UpFrame, link.DownKind) error) error {
		return ask(link.UpFrame{Kind: link.UpSubscribe, PacketID: 1, Subscribe: []mqtt.Subscription{{
			Filter: fmt.Sprintf("fleet/%07d/commands", i), QoS: mqtt.AtLeastOnce,
		}}}, link.DownSuback)
	})
}

// retain has it publish a retained message.
func (f *fleet) retain(ctx context.Context, i int) error {
	return f.connected(ctx, clientName(i), func(ask func(link.UpFrame, link.DownKind) error) error {
		return ask(link.UpFrame{Kind: link.UpPublish, PacketID: 1, Message: mqtt.Message{
			Topic: fmt.Appendf(nil, "fleet/%07d/state", i), QoS: mqtt.AtLeastOnce, Retain: true, Payload: f.payload,
		}}, link.DownAck)
	})
}

func clientName(i int) string { return fmt.Sprintf("device-%07d", i) }

// connected opens the client's channel, at whichever broker its session is, calls
// do, and ends the channel. ask sends a frame and waits for its answer.
func (f *fleet) connected(ctx context.Context, name string, do func(ask func(link.UpFrame, link.DownKind) error) error) error {
	const again = 50 * time.Millisecond
	for end := time.Now().Add(answerTime); ; {
		partition, _ := f.brokers.Partition(fleetTenant, 0, name)
		l := f.brokers.Pick(partition, fleetTenant, name)
		if l != nil {
			m := &member{answer: make(chan link.DownFrame, 1)}
			ch, err := l.Channels.Add(m)
			if err != nil {
				return err
			}
			moved, err := f.visit(ctx, l, ch, m, name, do)
			l.Channels.Remove(ch)
			if !moved {
				return err
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s: no broker took the client within %v", name, answerTime)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(again): // until the partition is served
		}
	}
}

// visit is connected on one link. moved reports that the session is elsewhere.
func (f *fleet) visit(ctx context.Context, l *uplink.Link[member], ch link.Channel, m *member, name string, do func(ask func(link.UpFrame, link.DownKind) error) error) (moved bool, err error) {
	send := func(u link.UpFrame) error {
		u.Channel = ch
		err := l.Send(&link.Up{Frames: []link.UpFrame{u}})
		l.FlushUp()
		return err
	}
	ask := func(u link.UpFrame, want link.DownKind) error {
		if err := send(u); err != nil {
			return err
		}
		select {
		case d := <-m.answer:
			if d.Kind == link.DownMoved {
				moved = true
				f.brokers.Moved(d.Moved)
				return errMoved
			}
			if d.Kind != want || d.Reason >= mqtt.UnspecifiedError {
				return fmt.Errorf("%s: expected frame %d, found %d with reason 0x%02x %s", name, want, d.Kind, byte(d.Reason), d.Text)
			}
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(answerTime):
			return fmt.Errorf("%s: no answer within %v to frame %d", name, answerTime, u.Kind)
		}
	}
	err = ask(link.UpFrame{Kind: link.UpOpen, Open: &link.Open{
		Tenant: fleetTenant, ClientID: mqtt.ClientID(name), SessionExpiry: fleetExpiry, ReceiveMaximum: 20, Credit: 1 << 20,
		Limits: link.Limits{QueueMessages: -1, QueueBytes: -1, Subscriptions: -1, ReceiveMaximum: 20, Retained: -1, RetainedBytes: -1, Sessions: -1},
		Labels: link.Labels{Protocol: "5", Listener: "mqtts", Peer: "192.0.2.1:50000", Gateway: fleetName},
	}}, link.DownOpened)
	if err != nil {
		return moved, err
	}
	if err := do(ask); err != nil {
		return false, err
	}
	return false, send(link.UpFrame{Kind: link.UpClose, Close: &link.Close{Cause: link.CloseNormal}})
}

var errMoved = errors.New("the session is at another broker")

// The tenant is that of manor dev's anonymous clients; the sessions outlive what is
// measured.
const (
	fleetTenant = "bench"
	fleetExpiry = 1 << 31 // seconds
)
