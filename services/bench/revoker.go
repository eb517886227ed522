// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/manormq/manor/infra/mqtt"
)

// revoker makes the revocations of one kind for one tenant, with clients at every
// gateway. One goroutine has it; the functions of an attempt's effects each have a
// client of their own.
type revoker struct {
	site   *Site
	tenant *siteTenant
	ca     *deviceCA
	giveUp time.Duration

	held []*held // to be closed at the end
	gone []int64 // serial numbers in the tenant's revocation list
}

// attempt is one revocation.
type attempt struct {
	// revoke returns with the answer.
	revoke func(context.Context) error
	// effects wait for what happens at one gateway each, from before the revocation
	// on. Their error is errNeverHeld at the end of their context.
	effects []func(context.Context) (time.Time, error)
	// undo has the tenant as it was before; nil does nothing.
	undo func(context.Context) error
}

var errNeverHeld = errors.New("the revocation does not hold")

// held is a connected client, and how it connects.
type held struct {
	*client
	options Options
	id      string
}

// refusal is the reason code of a CONNACK that refuses.
type refusal byte

func (r refusal) Error() string {
	return fmt.Sprintf("connection refused with the reason code %#x", byte(r))
}

// later reports whether the same client may be let in a moment later.
func (r refusal) later() bool {
	return r == refusal(mqtt.ServerUnavailable) || r == refusal(mqtt.ServerBusy)
}

// connect has a client connected to gateway g; cert is nil for one over TCP, with that
// login.
func (v *revoker) connect(g int, name string, who login, cert *tls.Certificate) (*held, error) {
	h := &held{id: v.tenant.id + "-" + name, options: Options{
		Addr: v.site.Gateways[g].MQTT, MQTT: int(mqtt5), KeepAlive: 300, User: who.user, Pass: who.pass,
	}}
	if cert != nil {
		h.options.Addr, h.options.Transport = v.site.Gateways[g].MQTTS, overTLS
		h.options.tls = &tls.Config{ServerName: v.tenant.id + "." + v.site.Domain, InsecureSkipVerify: true, Certificates: []tls.Certificate{*cert}}
	}
	var err error
	if h.client, err = h.again(); err != nil {
		return nil, fmt.Errorf("client %s at gateway %d: %w", h.id, g+1, err)
	}
	v.held = append(v.held, h)
	return h, nil
}

// again connects as h did.
func (h *held) again() (*client, error) { return h.options.open(0, h.id, true, 1<<10) }

// everywhere is connect at each gateway.
func (v *revoker) everywhere(name string, who login, cert *tls.Certificate) (all []*held, err error) {
	for g := range v.site.Gateways {
		h, err := v.connect(g, fmt.Sprintf("%s-%d", name, g), who, cert)
		if err != nil {
			return nil, err
		}
		all = append(all, h)
	}
	return all, nil
}

func (v *revoker) close() {
	for _, h := range v.held {
		_ = h.Close()
	}
}

// drop closes clients that are needed no more.
func (v *revoker) drop(all []*held) {
	for _, h := range all {
		_ = h.Close()
	}
	v.held = v.held[:len(v.held)-len(all)]
}

// beside are clients of the tenant that no revocation is about.
func (v *revoker) beside() ([]*held, error) { return v.everywhere("beside", v.tenant.login, nil) }

// stay returns an error unless the clients are connected still.
func (v *revoker) stay(all []*held) error {
	for _, h := range all {
		_ = h.SetDeadline(time.Now().Add(v.giveUp))
		_, err := h.Write([]byte{pktPingreq, 0})
		first, body := byte(0), []byte(nil)
		if err == nil {
			first, body, err = h.next()
		}
		if err != nil || first != pktPingresp {
			return fmt.Errorf("expected %s, whom no revocation was about, to be connected; got % x % x, %w", h.id, first, body, err)
		}
	}
	return nil
}

// accepted waits until the gateway lets h in.
func (h *held) accepted(ctx context.Context) error {
	return until(ctx, func() (bool, error) {
		c, err := h.again()
		if err != nil {
			return false, nil //nolint:nilerr // not yet
		}
		_ = h.Close()
		h.client = c
		return true, nil
	})
}

// pollEvery is the pause between two looks at a gateway.
const pollEvery = 2 * time.Millisecond

// until calls f until it reports true; the error is errNeverHeld at the end of ctx.
func until(ctx context.Context, f func() (bool, error)) error {
	for {
		if done, err := f(); done || err != nil {
			return err
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return errNeverHeld
		}
	}
}

// ends waits until the gateway has ended the connection with that reason, and refuses the
// client. The time is that at which nobody was in any more: how long a refusal takes, as
// long as a wrong password does, is no part of it.
func (h *held) ends(reason mqtt.ReasonCode) func(context.Context) (time.Time, error) {
	return func(ctx context.Context) (at time.Time, err error) {
		h.deadline(ctx)
		first, body, err := h.next()
		at = time.Now()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return at, errNeverHeld
		case err != nil:
			return at, fmt.Errorf("%s: expected DISCONNECT with %s: %w", h.id, reason.String(), err)
		case first != pktDisconnect || len(body) < 1 || body[0] != byte(reason):
			return at, fmt.Errorf("%s: expected DISCONNECT with %s, got % x % x", h.id, reason.String(), first, body)
		}
		_ = h.Close()
		err = until(ctx, func() (bool, error) {
			c, err := h.again()
			if err == nil {
				at = time.Now()
				_ = c.Close()
			}
			return refuses(err)
		})
		return at, err
	}
}

// races connects clients as h again and again, until the gateway lets none in any more,
// and waits until it has ended all that it had let in: a revocation may come while a
// client is on its way.
func (h *held) races() func(context.Context) (time.Time, error) {
	own := *h
	return func(ctx context.Context) (at time.Time, err error) {
		var waiting sync.WaitGroup
		var mu sync.Mutex // guards at and err
		n := 0
		at = time.Now()
		wait := func(c *client) {
			one := held{client: c}
			one.deadline(ctx)
			_, _, ended := one.next()
			_ = c.Close()
			mu.Lock()
			defer mu.Unlock()
			if at = time.Now(); errors.Is(ended, os.ErrDeadlineExceeded) {
				err = errNeverHeld
			}
		}
		late := until(ctx, func() (bool, error) {
			own.id = fmt.Sprintf("%s-%d", h.id, n)
			c, err := own.again()
			if err == nil {
				n++
				waiting.Go(func() { wait(c) })
			}
			return refuses(err)
		})
		waiting.Wait()
		return at, errors.Join(err, late)
	}
}

// refuses reports whether err says that a client is refused for good; the error is err
// if it says neither that nor that another try may tell.
func refuses(err error) (bool, error) {
	var code refusal
	var alert *net.OpError
	switch {
	case err == nil, errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return false, nil
	case errors.As(err, &code):
		return !code.later(), nil
	case errors.As(err, &alert) && alert.Op == "remote error": // of crypto/tls: the certificate is refused
		return true, nil
	}
	return false, err
}

// deadline bounds what is read and written by ctx.
func (h *held) deadline(ctx context.Context) {
	if at, ok := ctx.Deadline(); ok {
		_ = h.SetDeadline(at)
	}
}

// publish publishes at QoS 1 and returns the reason code of the PUBACK.
func (h *held) publish(topic string) (mqtt.ReasonCode, error) {
	b, id, _ := h.appendPublish(nil, topic, 1, false, []byte("x"))
	b[id+1] = 1
	if _, err := h.Write(b); err != nil {
		return 0, err
	}
	first, body, err := h.next()
	switch {
	case err != nil:
		return 0, err
	case first != pktPuback:
		return 0, fmt.Errorf("%s: expected PUBACK, got % x % x", h.id, first, body)
	case len(body) < 3: // success is left out (MQTT 5, §3.4.2.1)
		return mqtt.Success, nil
	}
	return mqtt.ReasonCode(body[2]), nil
}

// refusesTopic waits until the gateway refuses what is published there.
func (h *held) refusesTopic(topic string) func(context.Context) (time.Time, error) {
	return func(ctx context.Context) (at time.Time, err error) {
		err = h.answers(ctx, topic, true)
		return time.Now(), err
	}
}

// answers waits until what is published there is refused, or until it is not.
func (h *held) answers(ctx context.Context, topic string, refused bool) error {
	h.deadline(ctx)
	return until(ctx, func() (bool, error) {
		reason, err := h.publish(topic)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = errNeverHeld
		}
		return reason.Failed() == refused, err
	})
}
