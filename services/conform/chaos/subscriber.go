// SPDX-License-Identifier: Apache-2.0

package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/conform"
)

// presence is how much of the time a subscriber is connected.
type presence string

const (
	always   presence = "always"
	sometime presence = "now and then"
	rarely   presence = "at checkpoints"
)

// subscriber gets all messages of all publishers.
type subscriber struct {
	load     *Load
	name     string
	client   *client
	qos      mqtt.QoS
	presence presence
	accounts map[string]*account // by topic; immutable
	received atomic.Int64
	wanted   atomic.Bool // it is to be connected
}

func newSubscriber(l *Load, number int) *subscriber {
	s := &subscriber{
		load: l, name: fmt.Sprintf("s%d", number), qos: mqtt.QoS(1 + number/2%2),
		presence: []presence{always, sometime, rarely}[number%3], accounts: make(map[string]*account),
	}
	s.client = newClient(l, s.name, number)
	s.client.device.OnMessage = s.message
	for _, p := range l.pubs {
		for _, q := range []mqtt.QoS{1, 2} {
			s.accounts[p.topic(q)] = &account{highest: -1}
		}
	}
	return s
}

func (s *subscriber) subscribe() error {
	ctx, cancel := context.WithTimeout(s.load.t.Context(), 30*time.Second)
	defer cancel()
	if !s.client.connect(ctx) {
		return errors.New(s.client.state())
	}
	defer s.client.device.Disconnect()
	codes, err := s.client.device.Subscribe(mqtt.Subscription{Filter: s.load.prefix + "/+/+", QoS: s.qos})
	if err == nil && codes[0] != mqtt.ReasonCode(s.qos) {
		err = codes[0]
	}
	return err
}

// message is called by the device.
func (s *subscriber) message(m conform.Delivered) {
	s.received.Add(1)
	number, err := strconv.Atoi(string(m.Payload))
	a := s.accounts[string(m.Topic)]
	if err != nil || a == nil {
		s.load.errorf("%s: nobody sent %q to %q", s.name, m.Payload, m.Topic)
		return
	}
	sent := mqtt.QoS(m.Topic[len(m.Topic)-1] - '0')
	if wrong := a.came(number, min(s.qos, sent)); wrong != "" {
		s.load.errorf("%s (QoS %d, MQTT %s, connected %s, %s) of %s: %s (packet %d, dup %v)",
			s.name, s.qos, s.client.device.Options.Version, s.presence, s.client.state(), m.Topic, wrong, m.PacketID, m.Dup)
	}
}

// run connects and leaves until ctx ends.
func (s *subscriber) run(ctx context.Context) {
	wanted := func() bool { return s.presence == always || s.load.gather.Load() }
	for ctx.Err() == nil {
		until := time.Now().Add(3*time.Second + rand.N(7*time.Second))
		leave := func() bool { return !wanted() && (s.presence == rarely || time.Now().After(until)) }
		if s.presence != rarely || wanted() {
			s.wanted.Store(true)
			for !leave() && s.client.connect(ctx) {
				s.client.stay(ctx, leave, func() error { return nil })
			}
		}
		s.wanted.Store(false)
		until = time.Now().Add(3*time.Second + rand.N(7*time.Second))
		for !wanted() && time.Now().Before(until) && ctx.Err() == nil {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}
