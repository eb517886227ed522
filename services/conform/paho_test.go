// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/eclipse/paho.golang/paho"
	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// testPahoV3 drives paho.mqtt.golang (3.1.1) over TCP and TLS.
func testPahoV3(t *testing.T, tn *account) {
	for name, c := range map[string]struct {
		url, user string
		tls       *tls.Config
	}{
		"tcp": {"tcp://" + tn.gateway.Addr("mqtt"), tn.UserPlain, nil},
		"tls": {"tls://" + tn.gateway.Addr("mqtts"), tn.Username, tn.caAsConfig},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			prefix := "paho3-" + name
			open := func(id string, more func(*mqtt.ClientOptions)) mqtt.Client {
				o := mqtt.NewClientOptions().AddBroker(c.url).SetClientID(prefix + id).SetUsername(c.user).SetPassword(tn.Password).SetAutoReconnect(false)
				if c.tls != nil {
					o.SetTLSConfig(c.tls)
				}
				if more != nil {
					more(o)
				}
				client := mqtt.NewClient(o)
				wait(t, client.Connect())
				t.Cleanup(func() { client.Disconnect(100) })
				return client
			}
			got := make(chan mqtt.Message, 16)
			next := func() mqtt.Message {
				select {
				case m := <-got:
					return m
				case <-time.After(20 * time.Second):
					t.Fatal("no message")
					return nil
				}
			}
			take := func(_ mqtt.Client, m mqtt.Message) { got <- m }
			sub, pub := open("sub", nil), open("pub", nil)
			for qos := range byte(3) {
				topic := prefix + "/q/" + string('0'+rune(qos))
				wait(t, sub.Subscribe(topic, qos, take))
				wait(t, pub.Publish(topic, qos, false, "hello"))
				if m := next(); m.Topic() != topic || m.Qos() != qos || string(m.Payload()) != "hello" || m.Retained() {
					t.Errorf("QoS %d brought %s at %d", qos, m.Topic(), m.Qos())
				}
			}
			wait(t, pub.Publish(prefix+"/kept", 1, true, "kept"))
			wait(t, sub.Subscribe(prefix+"/kept", 1, take))
			if m := next(); !m.Retained() || string(m.Payload()) != "kept" {
				t.Errorf("the retained message is %q, flag %v", m.Payload(), m.Retained())
			}
			large := bytes.Repeat([]byte("x"), 1<<20)
			wait(t, sub.Subscribe(prefix+"/large", 1, take))
			wait(t, pub.Publish(prefix+"/large", 1, false, large))
			if m := next(); !bytes.Equal(m.Payload(), large) {
				t.Errorf("1 MiB came as %d bytes", len(m.Payload()))
			}
			persistent := func(o *mqtt.ClientOptions) { o.SetCleanSession(false).SetDefaultPublishHandler(take) }
			away := open("away", persistent)
			wait(t, away.Subscribe(prefix+"/away", 2, take))
			away.Disconnect(100)
			wait(t, pub.Publish(prefix+"/away", 2, false, "queued"))
			open("away", persistent)
			if m := next(); string(m.Payload()) != "queued" {
				t.Errorf("the session held %q", m.Payload())
			}
			wait(t, sub.Subscribe(prefix+"/will", 1, take))
			var cut net.Conn
			open("dying", func(o *mqtt.ClientOptions) {
				o.SetWill(prefix+"/will", "gone", 1, false)
				o.SetCustomOpenConnectionFn(func(_ *url.URL, _ mqtt.ClientOptions) (net.Conn, error) {
					nc, err := dialer(tn, c.tls)
					cut = nc
					return nc, err
				})
			})
			_ = cut.Close()
			if m := next(); string(m.Payload()) != "gone" {
				t.Errorf("the will is %q", m.Payload())
			}
		})
	}
}

// dialer opens a connection to the listener of MQTT, with TLS if conf is given.
func dialer(tn *account, conf *tls.Config) (net.Conn, error) {
	if conf != nil {
		return tls.Dial("tcp", tn.gateway.Addr("mqtts"), conf)
	}
	return net.Dial("tcp", tn.gateway.Addr("mqtt"))
}

func wait(t *testing.T, token mqtt.Token) {
	t.Helper()
	if !token.WaitTimeout(20 * time.Second) {
		t.Fatal("no answer within 20 s")
	}
	if err := token.Error(); err != nil {
		t.Fatal(err)
	}
}

// testPahoV5 drives paho.golang (5.0) over TCP and TLS.
func testPahoV5(t *testing.T, tn *account) {
	for name, c := range map[string]struct {
		user string
		tls  *tls.Config
	}{"tcp": {tn.UserPlain, nil}, "tls": {tn.Username, tn.caAsConfig}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			prefix := "paho5-" + name
			got := make(chan *paho.Publish, 16)
			open := func(id string, connect paho.Connect) (*paho.Client, *paho.Connack, net.Conn) {
				nc, err := dialer(tn, c.tls)
				if err != nil {
					t.Fatal(err)
				}
				client := paho.NewClient(paho.ClientConfig{Conn: nc, OnPublishReceived: []func(paho.PublishReceived) (bool, error){
					func(r paho.PublishReceived) (bool, error) { got <- r.Packet; return true, nil },
				}})
				connect.ClientID, connect.KeepAlive = prefix+id, 60
				connect.Username, connect.UsernameFlag = c.user, true
				connect.Password, connect.PasswordFlag = []byte(tn.Password), true
				ack, err := client.Connect(ctx, &connect)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = client.Disconnect(&paho.Disconnect{}) })
				return client, ack, nc
			}
			next := func() *paho.Publish {
				select {
				case m := <-got:
					return m
				case <-ctx.Done():
					t.Fatal("no message")
					return nil
				}
			}
			subscribe := func(client *paho.Client, topic string, qos byte) {
				if _, err := client.Subscribe(ctx, &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: topic, QoS: qos}}}); err != nil {
					t.Fatal(err)
				}
			}
			publish := func(client *paho.Client, p *paho.Publish) {
				if _, err := client.Publish(ctx, p); err != nil {
					t.Fatal(err)
				}
			}
			sub, _, _ := open("sub", paho.Connect{CleanStart: true})
			pub, _, _ := open("pub", paho.Connect{CleanStart: true})
			for qos := range byte(3) {
				topic := prefix + "/q/" + string('0'+rune(qos))
				subscribe(sub, topic, qos)
				publish(pub, &paho.Publish{Topic: topic, QoS: qos, Payload: []byte("hello"), Properties: &paho.PublishProperties{
					ContentType: "text/plain", ResponseTopic: "reply", CorrelationData: []byte("7"), User: paho.UserProperties{{Key: "k", Value: "v"}},
				}})
				m := next()
				if m.Topic != topic || m.QoS != qos || string(m.Payload) != "hello" || m.Properties.ContentType != "text/plain" ||
					m.Properties.ResponseTopic != "reply" || string(m.Properties.CorrelationData) != "7" || len(m.Properties.User) != 1 {
					t.Errorf("QoS %d brought %+v", qos, m)
				}
			}
			publish(pub, &paho.Publish{Topic: prefix + "/kept", QoS: 1, Retain: true, Payload: []byte("kept")})
			subscribe(sub, prefix+"/kept", 1)
			if m := next(); !m.Retain || string(m.Payload) != "kept" {
				t.Errorf("the retained message is %+v", m)
			}
			large := bytes.Repeat([]byte("x"), 1<<20)
			subscribe(sub, prefix+"/large", 1)
			publish(pub, &paho.Publish{Topic: prefix + "/large", QoS: 1, Payload: large})
			if m := next(); !bytes.Equal(m.Payload, large) {
				t.Errorf("1 MiB came as %d bytes", len(m.Payload))
			}
			expiry := uint32(300)
			away, _, _ := open("away", paho.Connect{Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry}})
			subscribe(away, prefix+"/away", 2)
			if err := away.Disconnect(&paho.Disconnect{}); err != nil {
				t.Fatal(err)
			}
			publish(pub, &paho.Publish{Topic: prefix + "/away", QoS: 2, Payload: []byte("queued")})
			if _, ack, _ := open("away", paho.Connect{Properties: &paho.ConnectProperties{SessionExpiryInterval: &expiry}}); !ack.SessionPresent {
				t.Error("the session is gone")
			}
			if m := next(); string(m.Payload) != "queued" {
				t.Errorf("the session held %+v", m)
			}
			subscribe(sub, prefix+"/will", 1)
			_, _, cut := open("dying", paho.Connect{CleanStart: true, WillMessage: &paho.WillMessage{Topic: prefix + "/will", QoS: 1, Payload: []byte("gone")}})
			_ = cut.Close()
			if m := next(); string(m.Payload) != "gone" {
				t.Errorf("the will is %+v", m)
			}
		})
	}
}
