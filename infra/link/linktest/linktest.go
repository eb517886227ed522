// SPDX-License-Identifier: Apache-2.0

// Package linktest is the suite that every link between a gateway and a broker
// passes, whatever carries it: a call, a pipe, or mTLS over TCP. It is for
// tests only; its broker and gateway are scripted, and its goroutines end with
// their test.
package linktest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
)

// Attach makes a broker's end of a link.
type Attach func(gw link.Gateway, peer string) link.Broker

// Link is an open link under test.
type Link struct {
	// Broker is what the gateway holds.
	Broker link.Broker
	// Cut ends the connection as a cable does that is pulled; nil if there is
	// none to cut.
	Cut func()
}

// send sends up, and what waits.
func (l *Link) send(up *link.Up) error {
	err := l.Broker.Send(up)
	l.Broker.Flush()
	return err
}

// Open opens a link between gw and a broker that attach makes.
type Open func(t testing.TB, attach Attach, gw link.Gateway) Link

// wait is how long a test waits for what must come.
const wait = 20 * time.Second

// Run holds the link that open opens to the contract of package link.
func Run(t *testing.T, open Open) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Open)
	}{
		{"every frame crosses", testEveryFrame},
		{"frames of a channel keep their order", testOrder},
		{"one message to thousands of channels", testFanOut},
		{"large messages", testLarge},
		{"batches may be used again", testViews},
		{"loss", testLoss},
		{"close", testClose},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, open) })
	}
}

// Broker is a scripted broker's end: it keeps what it is sent and answers as
// its test says.
type Broker struct {
	Gateway link.Gateway
	// OnSend, if set, is called with each batch, on the sender's goroutine.
	OnSend func(*link.Up)

	mu     sync.Mutex
	frames []link.UpFrame // guarded by mu: deep copies, in order
	closed chan struct{}
	once   sync.Once
}

// Send implements link.Broker.
func (b *Broker) Send(up *link.Up) error {
	b.mu.Lock()
	for _, f := range up.Frames {
		f.Message = f.Message.Clone()
		b.frames = append(b.frames, f)
	}
	b.mu.Unlock()
	if b.OnSend != nil {
		b.OnSend(up)
	}
	return nil
}

// Post implements link.Broker.
func (b *Broker) Post(up *link.Up) error { return b.Send(up) }

// Flush implements link.Broker.
func (b *Broker) Flush() {}

// Close implements link.Broker.
func (b *Broker) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// Frames returns what came until now.
func (b *Broker) Frames() []link.UpFrame {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]link.UpFrame(nil), b.frames...)
}

// Gateway is a scripted gateway's end: it keeps what it receives.
type Gateway struct {
	mu       sync.Mutex
	messages []mqtt.Message   // guarded by mu: of the delivery of the same index, else empty
	frames   []link.DownFrame // guarded by mu
	flushed  int              // guarded by mu: frames that a Flush has followed
	lost     chan error
}

// NewGateway returns a Gateway that has received nothing.
func NewGateway() *Gateway { return &Gateway{lost: make(chan error, 8)} }

// Features implements link.Featured: it takes everything.
func (g *Gateway) Features() uint32 { return link.Features }

// Receive implements link.Gateway.
func (g *Gateway) Receive(b *link.Down) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, f := range b.Frames {
		var m mqtt.Message
		if f.Kind == link.DownDeliver {
			m = b.Messages[f.Slot].Clone()
		}
		g.frames, g.messages = append(g.frames, f), append(g.messages, m)
	}
}

// Flush implements link.Gateway.
func (g *Gateway) Flush() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.flushed = len(g.frames)
}

// Lost implements link.Gateway.
func (g *Gateway) Lost(err error) { g.lost <- err }

// Flushed returns the frames that were flushed until now, with their messages.
func (g *Gateway) Flushed() ([]link.DownFrame, []mqtt.Message) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]link.DownFrame(nil), g.frames[:g.flushed]...), append([]mqtt.Message(nil), g.messages[:g.flushed]...)
}

// Until polls cond until it holds.
func Until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(wait); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %s within %v", what, wait)
		}
	}
}

// start opens a link between a new gateway and a new broker.
func start(t *testing.T, open Open, onSend func(*Broker, *link.Up)) (Link, *Broker, *Gateway) {
	t.Helper()
	g := NewGateway()
	attached := make(chan *Broker, 1)
	l := open(t, func(gw link.Gateway, peer string) link.Broker {
		if peer != "gateway-1" {
			t.Errorf("the peer is %q, want gateway-1", peer)
		}
		b := &Broker{Gateway: gw, closed: make(chan struct{})}
		if onSend != nil {
			b.OnSend = func(up *link.Up) { onSend(b, up) }
		}
		attached <- b
		return b
	}, g)
	t.Cleanup(func() { _ = l.Broker.Close() })
	select {
	case b := <-attached:
		return l, b, g
	case <-time.After(wait):
		t.Fatal("the link was not attached")
		return Link{}, nil, nil
	}
}

func testEveryFrame(t *testing.T, open Open) {
	l, b, g := start(t, open, nil)
	up, down := EveryUp(), EveryDown()
	if err := l.send(up); err != nil {
		t.Fatal(err)
	}
	Until(t, "whole batch", func() bool { return len(b.Frames()) == len(up.Frames) })
	got := b.Frames()
	for i := range got {
		if diff := cmp.Diff(up.Frames[i], got[i], equateEmpty); diff != "" {
			t.Errorf("frame %d (-want +got):\n%s", i, diff)
		}
	}
	b.Gateway.Receive(down)
	b.Gateway.Flush()
	Until(t, "whole batch", func() bool { f, _ := g.Flushed(); return len(f) == len(down.Frames) })
	frames, messages := g.Flushed()
	for i := range frames {
		if frames[i].Kind == link.DownDeliver {
			if diff := cmp.Diff(down.Messages[down.Frames[i].Slot], messages[i], equateEmpty); diff != "" {
				t.Errorf("message of frame %d (-want +got):\n%s", i, diff)
			}
		}
		if diff := cmp.Diff(down.Frames[i], frames[i], equateEmpty); diff != "" {
			t.Errorf("frame %d (-want +got):\n%s", i, diff)
		}
	}
}

// equateEmpty lets a nil slice of bytes equal an empty one.
var equateEmpty = cmp.Comparer(func(a, b []byte) bool { return bytes.Equal(a, b) })

// testOrder has channels publish numbers at the same time; the broker
// acknowledges and returns each on its channel.
func testOrder(t *testing.T, open Open) {
	const channels, each = 16, 300
	l, b, g := start(t, open, func(b *Broker, up *link.Up) {
		var down link.Down
		for _, f := range up.Frames {
			down.Frames = append(down.Frames,
				link.DownFrame{Kind: link.DownAck, Ack: mqtt.Puback, Channel: f.Channel, PacketID: f.PacketID},
				link.DownFrame{Kind: link.DownDeliver, Channel: f.Channel, PacketID: f.PacketID, Slot: uint16(len(down.Messages)), QoS: mqtt.AtLeastOnce})
			down.Messages = append(down.Messages, f.Message)
		}
		b.Gateway.Receive(&down)
		b.Gateway.Flush()
	})
	var wg sync.WaitGroup
	for ch := range link.Channel(channels) {
		wg.Go(func() {
			var up link.Up
			for n := uint16(1); n <= each; n++ {
				up.Frames = append(up.Frames, link.UpFrame{Kind: link.UpPublish, Channel: ch, PacketID: n, Message: mqtt.Message{
					Topic: fmt.Appendf(nil, "t/%d", ch), Payload: binary.BigEndian.AppendUint16(nil, n), QoS: mqtt.AtLeastOnce,
				}})
				if n%7 == uint16(ch)%7 || n == each {
					if err := l.send(&up); err != nil {
						t.Error(err)
					}
					up.Reset()
				}
			}
		})
	}
	wg.Wait()
	Until(t, "answer to everything", func() bool { f, _ := g.Flushed(); return len(f) == 2*channels*each })
	next := [channels]uint16{}
	for _, f := range b.Frames() {
		if next[f.Channel]++; f.PacketID != next[f.Channel] || binary.BigEndian.Uint16(f.Message.Payload) != f.PacketID {
			t.Fatalf("channel %d: publish %d came where %d was due", f.Channel, f.PacketID, next[f.Channel])
		}
	}
	frames, messages := g.Flushed()
	acked, delivered := [channels]uint16{}, [channels]uint16{}
	for i, f := range frames {
		if f.Kind == link.DownAck {
			if acked[f.Channel]++; f.PacketID != acked[f.Channel] {
				t.Fatalf("channel %d: ack %d came where %d was due", f.Channel, f.PacketID, acked[f.Channel])
			}
			continue
		}
		if delivered[f.Channel]++; f.PacketID != delivered[f.Channel] || acked[f.Channel] != f.PacketID {
			t.Fatalf("channel %d: delivery %d came where %d was due, after ack %d", f.Channel, f.PacketID, delivered[f.Channel], acked[f.Channel])
		}
		if n := binary.BigEndian.Uint16(messages[i].Payload); n != f.PacketID || string(messages[i].Topic) != fmt.Sprintf("t/%d", f.Channel) {
			t.Fatalf("channel %d: delivery %d brings message %d of %s", f.Channel, f.PacketID, n, messages[i].Topic)
		}
	}
}

func testFanOut(t *testing.T, open Open) {
	const channels = 20_000
	l, b, g := start(t, open, func(b *Broker, up *link.Up) {
		down := link.Down{Messages: []mqtt.Message{up.Frames[0].Message}}
		for ch := range link.Channel(channels) {
			down.Frames = append(down.Frames, link.DownFrame{Kind: link.DownDeliver, Channel: ch})
		}
		b.Gateway.Receive(&down)
		b.Gateway.Flush()
	})
	if err := l.send(&link.Up{Frames: []link.UpFrame{{Kind: link.UpPublish, Message: mqtt.Message{Topic: []byte("t"), Payload: []byte("to all")}}}}); err != nil {
		t.Fatal(err)
	}
	Until(t, "delivery to all", func() bool { f, _ := g.Flushed(); return len(f) == channels })
	frames, messages := g.Flushed()
	for i := range frames {
		if frames[i].Channel != link.Channel(i) || string(messages[i].Payload) != "to all" {
			t.Fatalf("delivery %d is of %q to channel %d", i, messages[i].Payload, frames[i].Channel)
		}
	}
	var acks link.Up
	for ch := range link.Channel(channels) {
		acks.Frames = append(acks.Frames, link.UpFrame{Kind: link.UpAck, Ack: mqtt.Puback, Channel: ch, PacketID: 1})
	}
	if err := l.Broker.Post(&acks); err != nil {
		t.Fatal(err)
	}
	l.Broker.Flush()
	Until(t, "all acks", func() bool { return len(b.Frames()) == 1+channels })
	for i, f := range b.Frames()[1:] {
		if f.Kind != link.UpAck || f.Channel != link.Channel(i) {
			t.Fatalf("frame %d is %v of channel %d", i, f.Kind, f.Channel)
		}
	}
}

func testLarge(t *testing.T, open Open) {
	l, _, g := start(t, open, func(b *Broker, up *link.Up) {
		var down link.Down
		for i, f := range up.Frames {
			down.Messages = append(down.Messages, f.Message)
			down.Frames = append(down.Frames, link.DownFrame{Kind: link.DownDeliver, Channel: f.Channel, Slot: uint16(i)})
		}
		b.Gateway.Receive(&down)
		b.Gateway.Flush()
	})
	var up link.Up
	sizes := []int{1 << 20, 0, 20 << 20, 64 << 10, 1<<20 + 1}
	for i, size := range sizes {
		payload := bytes.Repeat([]byte{byte('a' + i)}, size)
		up.Frames = append(up.Frames, link.UpFrame{Kind: link.UpPublish, Channel: link.Channel(i), Message: mqtt.Message{Topic: []byte("t"), Payload: payload}})
	}
	if err := l.send(&up); err != nil {
		t.Fatal(err)
	}
	Until(t, "all messages back", func() bool { f, _ := g.Flushed(); return len(f) == len(sizes) })
	_, messages := g.Flushed()
	for i := range sizes {
		if !bytes.Equal(messages[i].Payload, up.Frames[i].Message.Payload) {
			t.Errorf("message %d of %d bytes came back as %d bytes", i, sizes[i], len(messages[i].Payload))
		}
	}
}

// testViews changes what it sent and received as soon as it may.
func testViews(t *testing.T, open Open) {
	l, b, g := start(t, open, nil)
	payload := []byte("....")
	var up link.Up
	for i := range 200 {
		up.Reset()
		copy(payload, fmt.Sprintf("%04d", i))
		up.Frames = append(up.Frames, link.UpFrame{Kind: link.UpPublish, Channel: 1, Message: mqtt.Message{Topic: []byte("t"), Payload: payload}})
		if err := l.send(&up); err != nil {
			t.Fatal(err)
		}
		down := link.Down{Messages: []mqtt.Message{{Topic: []byte("t"), Payload: payload}}, Frames: []link.DownFrame{{Kind: link.DownDeliver, Channel: 1}}}
		b.Gateway.Receive(&down)
		copy(payload, "xxxx")
	}
	b.Gateway.Flush()
	Until(t, "all messages", func() bool { f, _ := g.Flushed(); return len(f) == 200 && len(b.Frames()) == 200 })
	_, messages := g.Flushed()
	for i, f := range b.Frames() {
		if want := fmt.Sprintf("%04d", i); string(f.Message.Payload) != want || string(messages[i].Payload) != want {
			t.Fatalf("message %d is %q up and %q down", i, f.Message.Payload, messages[i].Payload)
		}
	}
}

func testLoss(t *testing.T, open Open) {
	l, b, g := start(t, open, nil)
	if l.Cut == nil {
		t.Skip("a direct link is never lost")
	}
	l.Cut()
	select {
	case err := <-g.lost:
		if err == nil {
			t.Error("Lost has no reason")
		}
	case <-time.After(wait):
		t.Fatal("the gateway was not told")
	}
	select {
	case <-b.closed:
	case <-time.After(wait):
		t.Fatal("the broker's end was not closed")
	}
	if err := l.send(EveryUp()); err == nil {
		t.Error("Send on a lost link gave no error")
	}
	b.Gateway.Receive(EveryDown()) // must do nothing, and not block
	b.Gateway.Flush()
	if len(g.lost) > 0 {
		t.Error("Lost was called twice")
	}
}

func testClose(t *testing.T, open Open) {
	l, b, g := start(t, open, nil)
	if err := l.Broker.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-b.closed:
	case <-time.After(wait):
		t.Fatal("the broker's end was not closed")
	}
	if len(g.lost) > 0 {
		t.Error("Lost was called for a Close of the gateway itself")
	}
}
