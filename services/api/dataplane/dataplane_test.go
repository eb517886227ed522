// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/link"
	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy"
)

// fakeBroker is a broker that takes everything, in the calling goroutine as the
// direct link does, except what a test holds back.
type fakeBroker struct {
	gw link.Gateway

	mu        sync.Mutex
	window    uint64
	silent    bool // acknowledges nothing
	nothing   bool // serves no partition
	open      map[link.Channel]*link.Open
	published []string
	released  int
	closed    int
	kinds     []link.QueryKind
}

func (b *fakeBroker) Send(up *link.Up) error {
	var down link.Down
	b.mu.Lock()
	for _, f := range up.Frames {
		ack := link.DownFrame{Kind: link.DownAck, Channel: f.Channel, PacketID: f.PacketID}
		switch f.Kind {
		case link.UpOpen:
			if b.nothing {
				down.Frames = append(down.Frames, link.DownFrame{Kind: link.DownMoved, Channel: f.Channel, Moved: &link.Moved{}})
				continue
			}
			for _, o := range b.open {
				if o.Tenant == f.Open.Tenant && o.ClientID == f.Open.ClientID {
					panic("a channel takes another one's session over")
				}
			}
			b.open[f.Channel] = f.Open
			down.Frames = append(down.Frames, link.DownFrame{Kind: link.DownOpened, Channel: f.Channel, Bytes: b.window})
		case link.UpPublish:
			m := f.Message
			b.published = append(b.published, fmt.Sprintf("%s %s %s qos%d", b.open[f.Channel].Tenant, m.Topic, m.Payload, m.QoS))
			if b.silent || m.QoS == 0 {
				continue
			}
			ack.Ack = mqtt.AckKind(m.QoS) // Puback, Pubrec
			if string(m.Topic) == "nobody" {
				ack.Reason = mqtt.NoMatchingSubscribers
			}
			if string(m.Topic) == "full" {
				ack.Reason = mqtt.QuotaExceeded
				for n, quota := range []string{"retained_quota", QuotaRetainedRate, "queue_full"} {
					note := &link.Note{Reason: quota, Count: uint32(n) / 2} // of which the last is for the history
					if m.Retain {
						down.Frames = append(down.Frames, link.DownFrame{Kind: link.DownNote, Channel: f.Channel, Note: note})
					}
				}
			}
			down.Frames = append(down.Frames, ack)
		case link.UpAck:
			b.released++
			ack.Ack = mqtt.Pubcomp
			down.Frames = append(down.Frames, ack)
		case link.UpClose:
			delete(b.open, f.Channel)
			b.closed++
		case link.UpQuery:
			q := f.Query
			b.kinds = append(b.kinds, q.Kind)
			a := &link.Answer{
				ID: q.ID, Found: true, Usage: link.Usage{Connections: 7},
				Retained: []link.RetainedInfo{{Message: mqtt.Message{Topic: []byte("a"), Payload: []byte(q.Tenant)}}},
			}
			if q.Filter == "bad" {
				a.Error = "no filter"
			}
			if q.Filter != "never" {
				down.Frames = append(down.Frames, link.DownFrame{Kind: link.DownAnswer, Answer: a})
			}
		}
	}
	b.mu.Unlock()
	if len(down.Frames) > 0 {
		b.gw.Receive(&down)
		for _, f := range down.Frames { // what a batch holds is gone
			if f.Answer != nil {
				clear(f.Answer.Retained[0].Message.Payload)
			}
		}
		b.gw.Flush()
	}
	return nil
}

func (b *fakeBroker) Post(up *link.Up) error { return b.Send(up) }
func (b *fakeBroker) Flush()                 {}
func (b *fakeBroker) Close() error           { return nil }

// start runs a plane; the brokers that it dials come out of the channel.
func start(t *testing.T, window uint64) (*Plane, <-chan *fakeBroker) {
	t.Helper()
	dialled := make(chan *fakeBroker, 10)
	tries := 0
	p, err := New(Config{Name: "test", Log: telemetry.Discard(), Dial: func(_ context.Context, gw link.Gateway) (link.Broker, error) {
		if tries++; tries == 1 {
			return nil, errors.New("not there yet")
		}
		b := &fakeBroker{gw: gw, window: window, open: map[link.Channel]*link.Open{}}
		dialled <- b
		return b, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return p, dialled
}

func tenant(id string, revision uint64) *tenancy.Tenant {
	return &tenancy.Tenant{ID: id, Revision: revision, Grant: tenancy.DefaultGrant(), Limits: tenancy.NoLimits()}
}

func message(topic, payload string, qos mqtt.QoS) mqtt.Message {
	return mqtt.Message{Topic: []byte(topic), Payload: []byte(payload), QoS: qos}
}

func retained(topic, payload string, qos mqtt.QoS) mqtt.Message {
	m := message(topic, payload, qos)
	m.Retain = true
	return m
}

func TestPublish(t *testing.T) {
	p, dialled := start(t, 1<<20)
	acme, beta := tenant("acme", 1), tenant("beta", 1)
	for _, c := range []struct {
		t    *tenancy.Tenant
		m    mqtt.Message
		want Ack
	}{
		{acme, message("a", "0", 0), Ack{}},
		{acme, message("a", "1", 1), Ack{}},
		{beta, message("a", "2", 2), Ack{}},
		{beta, message("nobody", "3", 2), Ack{Reason: mqtt.NoMatchingSubscribers}},
		{beta, retained("full", "4", 2), Ack{mqtt.QuotaExceeded, QuotaRetainedRate}},
		{acme, retained("full", "5", 1), Ack{mqtt.QuotaExceeded, QuotaRetainedRate}},
		{acme, message("full", "6", 1), Ack{Reason: mqtt.QuotaExceeded}},
	} {
		ack, err := p.Publish(t.Context(), c.t, c.m)
		if err != nil || ack != c.want {
			t.Errorf("%s: %+v %v, want %+v", c.m.Payload, ack, err, c.want)
		}
	}
	b := <-dialled
	b.mu.Lock()
	defer b.mu.Unlock()
	want := []string{"acme a 0 qos0", "acme a 1 qos1", "beta a 2 qos2", "beta nobody 3 qos2", "beta full 4 qos2", "acme full 5 qos1", "acme full 6 qos1"}
	if d := cmp.Diff(want, b.published); d != "" {
		t.Error(d)
	}
	if b.released != 2 || len(b.open) != 2 {
		t.Errorf("%d released, %d channels", b.released, len(b.open))
	}
}

func TestPublish_ManyAtOnce(t *testing.T) {
	p, dialled := start(t, 1<<30)
	var wg sync.WaitGroup
	for w := range 20 {
		wg.Go(func() {
			for i := range 100 {
				// A change of the tenant opens another channel.
				if ack, err := p.Publish(t.Context(), tenant("acme", uint64(i/50+1)), message("a", fmt.Sprint(w), mqtt.QoS(1+i%2))); err != nil || ack != (Ack{}) {
					t.Errorf("%v %v", ack, err)
					return
				}
			}
		})
	}
	wg.Wait()
	b := <-dialled
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.published) != 2000 || b.released != 1000 {
		t.Errorf("%d published, %d released", len(b.published), b.released)
	}
}

// TestPublish_Window holds that nothing is sent beyond what the broker granted.
func TestPublish_Window(t *testing.T) {
	p, dialled := start(t, 20)
	acme := tenant("acme", 1)
	if _, err := p.Publish(t.Context(), acme, message("a", "first", 1)); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := p.Publish(short, acme, message("a", "second", 1)); !errs.Is(err, errs.Unavailable) {
		t.Errorf("beyond the window: %v, want Unavailable", err)
	}
	b := <-dialled
	var ch link.Channel
	b.mu.Lock()
	for ch = range b.open {
	}
	b.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		_, err := p.Publish(t.Context(), acme, message("a", "third", 1))
		done <- err
	}()
	b.gw.Receive(&link.Down{Frames: []link.DownFrame{{Kind: link.DownWindow, Channel: ch, Bytes: 100}}})
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLost(t *testing.T) {
	p, dialled := start(t, 1<<20)
	acme := tenant("acme", 1)
	if _, err := p.Publish(t.Context(), acme, message("a", "1", 1)); err != nil {
		t.Fatal(err)
	}
	b := <-dialled
	b.mu.Lock()
	b.silent = true
	b.mu.Unlock()
	done := make(chan error, 2)
	go func() {
		_, err := p.Publish(t.Context(), acme, message("a", "2", 1))
		done <- err
	}()
	go func() {
		_, err := p.Query(t.Context(), link.Query{Kind: link.QueryRetained, Tenant: "acme", Filter: "never"})
		done <- err
	}()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		ready := len(b.published) == 2 && len(b.kinds) == 1
		b.mu.Unlock()
		if ready {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was sent")
		}
	}
	b.gw.Lost(errors.New("cut"))
	for range 2 {
		if err := <-done; !errs.Is(err, errs.Unavailable) {
			t.Errorf("got %v, want Unavailable", err)
		}
	}
	// The next link serves as the first one did.
	if _, err := p.Publish(t.Context(), acme, message("a", "3", 1)); err != nil {
		t.Error(err)
	}
}

// TestPublish_GivenUp holds that a publish whose caller has gone does not keep
// its place for ever, and that the channel works on.
func TestPublish_GivenUp(t *testing.T) {
	p, dialled := start(t, 1<<20)
	acme := tenant("acme", 1)
	if _, err := p.Publish(t.Context(), acme, message("a", "1", 1)); err != nil {
		t.Fatal(err)
	}
	b := <-dialled
	b.mu.Lock()
	b.silent = true
	b.mu.Unlock()
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.Publish(short, acme, message("a", "2", 2)); !errs.Is(err, errs.Unavailable) {
		t.Errorf("got %v, want Unavailable", err)
	}
	p.mu.Lock()
	c := p.tenants["acme"]
	p.mu.Unlock()
	c.receive(&link.DownFrame{Kind: link.DownAck, Ack: mqtt.Pubrec, PacketID: 2})
	for deadline := time.Now().Add(5 * time.Second); len(c.places) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the place is still taken")
		}
	}
}

// TestPublish_Retired holds that a publish which got hold of its channel just
// before that was retired takes the next one, and does not wait for a place
// that nobody gives back.
func TestPublish_Retired(t *testing.T) {
	p, dialled := start(t, 1<<20)
	acme := tenant("acme", 1)
	if _, err := p.Publish(t.Context(), acme, message("a", "1", 1)); err != nil {
		t.Fatal(err)
	}
	b := <-dialled
	p.mu.Lock()
	c := p.tenants["acme"]
	p.mu.Unlock()
	c.retire()
	eventually(t, "the channel closed", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.closed == 1
	})
	m := message("a", "2", 1)
	if _, err := c.publish(t.Context(), &m); !errors.Is(err, errRetired) {
		t.Errorf("got %v, want errRetired", err)
	}
	// Publish goes on by itself.
	p.mu.Lock()
	p.tenants["acme"] = c
	p.mu.Unlock()
	done := make(chan error, 1)
	go func() {
		_, err := p.Publish(t.Context(), tenant("acme", 2), message("a", "3", 1))
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the publish waits")
	}
}

// TestChannel_EndedByBroker holds that a channel which the broker ends is closed
// from here too, once and with nothing behind it: the broker keeps it until
// then.
func TestChannel_EndedByBroker(t *testing.T) {
	for _, kind := range []link.DownKind{link.DownClose, link.DownRefused} {
		p, dialled := start(t, 1<<20)
		if _, err := p.Publish(t.Context(), tenant("acme", 1), message("a", "1", 1)); err != nil {
			t.Fatal(err)
		}
		b := <-dialled
		p.mu.Lock()
		c := p.tenants["acme"]
		p.mu.Unlock()
		b.gw.Receive(&link.Down{Frames: []link.DownFrame{{Kind: kind, Channel: c.id, Reason: mqtt.AdministrativeAction}}})
		eventually(t, "the channel closed", func() bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.closed == 1
		})
		m := message("a", "2", 0)
		if _, err := c.publish(t.Context(), &m); !errs.Is(err, errs.Unavailable) {
			t.Errorf("on the ended channel: %v, want Unavailable", err)
		}
		c.close()
		c.write(link.UpFrame{Kind: link.UpAck, Ack: mqtt.Pubrel, PacketID: 1})
		if _, err := p.Publish(t.Context(), tenant("acme", 1), message("a", "3", 1)); err != nil {
			t.Error(err)
		}
		b.mu.Lock()
		if len(b.open) != 1 || b.closed != 1 || b.released != 0 {
			t.Errorf("%d channels are open, %d were closed, %d frames followed", len(b.open), b.closed, b.released)
		}
		b.mu.Unlock()
	}
}

// A broker that serves no partition is left for another one.
func TestPublish_ServedElsewhere(t *testing.T) {
	at, asked := atomic.Int32{}, make(chan int32, 100)
	p, err := New(Config{
		Name: "test", Log: telemetry.Discard(), Elsewhere: func() { at.Add(1) },
		Dial: func(_ context.Context, gw link.Gateway) (link.Broker, error) {
			n := at.Load()
			asked <- n
			return &fakeBroker{gw: gw, window: 1 << 20, open: map[link.Channel]*link.Open{}, nothing: n == 0}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- p.Run(ctx) }()
	if _, err := p.Publish(t.Context(), tenant("acme", 1), message("a", "1", 1)); !errs.Is(err, errs.Unavailable) {
		t.Errorf("at a broker that serves nothing: %v", err)
	}
	eventually(t, "published", func() bool {
		_, err := p.Publish(t.Context(), tenant("acme", 1), message("a", "2", 1))
		return err == nil
	})
	if a, b := <-asked, <-asked; a != 0 || b != 1 || len(asked) > 0 || at.Load() != 1 {
		t.Errorf("dialled %d and %d, and %d times more", a, b, len(asked))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("there is still not: %s", what)
		}
	}
}

func TestQuery(t *testing.T) {
	p, _ := start(t, 1<<20)
	a, err := p.Query(t.Context(), link.Query{Kind: link.QueryUsage, Tenant: "acme"})
	if err != nil || a.Usage.Connections != 7 || string(a.Retained[0].Message.Payload) != "acme" {
		t.Errorf("%+v %v", a, err)
	}
	// The API's own channel is not counted.
	if _, err := p.Publish(t.Context(), tenant("acme", 1), message("a", "", 1)); err != nil {
		t.Fatal(err)
	}
	if a, err := p.Query(t.Context(), link.Query{Kind: link.QueryUsage, Tenant: "acme"}); err != nil || a.Usage.Connections != 6 {
		t.Errorf("with our own channel: %+v %v", a, err)
	}
	if _, err := p.Query(t.Context(), link.Query{Kind: link.QueryRetained, Filter: "bad"}); !errs.Is(err, errs.Invalid) {
		t.Errorf("got %v, want Invalid", err)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.Query(short, link.Query{Kind: link.QueryRetained, Filter: "never"}); !errs.Is(err, errs.Unavailable) {
		t.Errorf("got %v, want Unavailable", err)
	}
}

func TestNoLink(t *testing.T) {
	p, err := New(Config{Name: "test", Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := p.Query(ctx, link.Query{}); !errs.Is(err, errs.Unavailable) {
		t.Errorf("query: %v", err)
	}
	if _, err := p.Publish(ctx, tenant("acme", 1), message("a", "", 1)); !errs.Is(err, errs.Unavailable) {
		t.Errorf("publish: %v", err)
	}
	if err := p.Check(ctx); !errs.Is(err, errs.Unavailable) {
		t.Errorf("check: %v", err)
	}
}

func TestProperties(t *testing.T) {
	in := Properties{
		UTF8: true, ContentType: "text/plain", ResponseTopic: "re/ply", CorrelationData: []byte{0, 1},
		User: []UserProperty{{"b", "1"}, {"a", ""}, {"b", "2"}},
	}
	b, err := in.Encode()
	if err != nil {
		t.Fatal(err)
	}
	out, err := DecodeProperties(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(in, out); d != "" {
		t.Error(d)
	}
	for i := 1; i < len(b); i++ { // cut anywhere: an error or fewer properties, never a panic
		_, _ = DecodeProperties(b[:i])
	}
	for _, bad := range []Properties{{ResponseTopic: "a/#"}, {ContentType: "\xff"}, {User: []UserProperty{{"a\x00", ""}}}, {CorrelationData: make([]byte, 65536)}} {
		if _, err := bad.Encode(); !errs.Is(err, errs.Invalid) {
			t.Errorf("%+v: %v, want Invalid", bad, err)
		}
	}
}
