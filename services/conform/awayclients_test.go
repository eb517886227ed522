// SPDX-License-Identifier: Apache-2.0

package conform_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xdg-go/scram"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/services/api/client"
	"github.com/manormq/manor/services/conform"
	"github.com/manormq/manor/services/conform/chaos"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// shown is what a client shows of itself.
type shown struct {
	name, user, password string
	tls                  *tls.Config
	scram                bool // the password, by SCRAM-SHA-256
}

// signUp makes the tenant, with a client for each method.
func (w *awayWorld) signUp() {
	w.t.Helper()
	ctx, url := w.t.Context(), "http://"+w.Of("tenancy")[0].Addr("api")
	public, err := client.New(client.Config{URL: url})
	if err != nil {
		w.t.Fatal(err)
	}
	signedUp, err := public.SignUp(ctx, client.SignUp{Organization: "Acme", Email: "ops@acme.example", Password: "correct-horse-battery", Tenant: "known"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.tenant = signedUp.Tenant.ID
	if w.api, err = client.New(client.Config{URL: url, Key: signedUp.APIKey.Secret}); err != nil {
		w.t.Fatal(err)
	}
	ca, issuer := tenancytest.NewCA(w.t, "Acme devices"), tenancytest.NewIssuer(w.t, "issuer")
	body, err := json.Marshal(map[string]any{"certificates": ca.PEM(), "use_identity_as_username": "cn", "certificate_authenticates": true})
	if err != nil {
		w.t.Fatal(err)
	}
	put, err := http.NewRequestWithContext(ctx, http.MethodPut, url+"/v1/tenants/"+w.tenant+"/client-cas", bytes.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	put.Header.Set("Authorization", "Bearer "+signedUp.APIKey.Secret)
	put.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(put)
	if err != nil || resp.StatusCode != http.StatusOK {
		w.t.Fatal(resp, err)
	}
	_ = resp.Body.Close()
	if _, err := w.api.ReplaceIssuers(ctx, w.tenant, client.Issuers{Items: []client.JWTIssuer{{Issuer: issuer.Name, Audience: []string{"manor"}, JWKS: issuer.JWKS()}}}); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.api.ReplaceAuthMethods(ctx, w.tenant, client.AuthMethods{Methods: []string{"certificate", "jwt", "password", "scram"}}); err != nil {
		w.t.Fatal(err)
	}
	host := w.tenant + ".localhost"
	w.methods = []shown{
		w.byPassword("default", signedUp.Credential.Password),
		{name: "token", user: w.tenant + ":token", password: issuer.TokenBy("1", "ES256", "token", nil)},
		{name: "scram", user: w.tenant + ":scram", password: w.credential("scram"), scram: true},
		{name: "certificate", tls: &tls.Config{ServerName: host, InsecureSkipVerify: true, Certificates: []tls.Certificate{ca.Issue(7, "press-7")}}},
	}
	for _, g := range w.Of("gateway") {
		for _, m := range w.methods {
			w.eventually(10*time.Second, func() error {
				if reason, err := w.attempt(g, m); err != nil {
					return fmt.Errorf("%s at %s: %w", m.name, g.Name, errors.Join(reason, err))
				}
				return nil
			})
		}
	}
}

// credential makes one, at whatever process of the API the client asks.
func (w *awayWorld) credential(name string) (password string) {
	w.t.Helper()
	w.eventually(30*time.Second, func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		made, err := w.api.CreateCredential(ctx, w.tenant, client.NewCredential{Username: name}, client.Idempotent(name))
		if err == nil {
			password = made.Password
		}
		return err
	})
	return password
}

func (w *awayWorld) byPassword(name, password string) shown {
	return shown{name: name, user: w.tenant + ":" + name, password: password}
}

// device is a client at a gateway that is not connected.
func (w *awayWorld) device(g *chaos.Node, s shown) *conform.Device {
	d := &conform.Device{Address: g.Addr("mqtt"), TLS: s.tls, Options: packet.Connect{
		Version: packet.V5, CleanStart: true, ClientID: s.name + "-at-" + g.Name, KeepAlive: 30,
		HasUsername: s.user != "", Username: s.user, HasPassword: s.password != "", Password: []byte(s.password),
	}}
	if s.tls != nil {
		d.Address = g.Addr("mqtts")
	}
	if s.scram {
		d.Options.HasUsername, d.Options.Username, d.Options.HasPassword, d.Options.Password = false, "", false, nil
		d.Options.HasAuthMethod, d.Options.AuthMethod = true, tenancy.MethodSCRAM
		d.Auth = s.conversation
	}
	return d
}

// conversation is the client's side of SCRAM-SHA-256.
func (s shown) conversation() (step func([]byte) ([]byte, error), err error) {
	c, err := scram.SHA256.NewClient(s.user, s.password, "")
	if err != nil {
		return nil, err
	}
	k := c.NewConversation()
	return func(data []byte) ([]byte, error) {
		out, err := k.Step(string(data))
		return []byte(out), err
	}, nil
}

// attempt connects once.
func (w *awayWorld) attempt(g *chaos.Node, s shown) (mqtt.ReasonCode, error) {
	d := w.device(g, s)
	d.Options.ClientID += "-once"
	ack, err := d.Connect()
	if err == nil {
		d.Disconnect()
	}
	if ack == nil {
		return mqtt.UnspecifiedError, err
	}
	return ack.Reason, err
}

// connected are clients that stay, by gateway.
func (w *awayWorld) connected(name, password string) map[string]*conform.Device {
	w.t.Helper()
	all := map[string]*conform.Device{}
	for _, g := range w.Of("gateway") {
		d := w.device(g, w.byPassword(name, password))
		if _, err := d.Connect(); err != nil {
			w.t.Fatalf("%s at %s: %v", name, g.Name, err)
		}
		w.t.Cleanup(d.Kill)
		all[g.Name] = d
	}
	return all
}

// steady is a client that publishes at QoS 1, again and again, and comes back when its
// connection is lost.
type steady struct {
	name        string
	acked, lost atomic.Int64
}

func (s *steady) run(ctx context.Context, d *conform.Device) {
	connected := false
	for ctx.Err() == nil {
		if !connected {
			if _, err := d.Connect(); err != nil {
				wait(ctx, 100*time.Millisecond)
				continue
			}
			connected = true
		}
		p, err := d.Publish(mqtt.Message{Topic: []byte("load/" + s.name), Payload: []byte("x"), QoS: mqtt.AtLeastOnce})
		if err == nil {
			select {
			case <-p.Acked:
				s.acked.Add(1)
				wait(ctx, 20*time.Millisecond)
				continue
			case <-d.Done():
			case <-ctx.Done():
				continue
			}
		}
		s.lost.Add(1)
		d.Kill()
		connected = false
	}
	if connected {
		d.Disconnect()
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// startLoad has a client of each method publish at each gateway, until stop is called.
func (w *awayWorld) startLoad() (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(w.t.Context()))
	var running sync.WaitGroup
	for _, g := range w.Of("gateway") {
		for _, m := range w.methods {
			s := &steady{name: m.name + "-at-" + g.Name}
			w.load = append(w.load, s)
			d := w.device(g, m)
			running.Go(func() { s.run(ctx, d) })
		}
	}
	return func() {
		cancel()
		running.Wait()
	}
}

func (w *awayWorld) acked() (n int64) {
	for _, s := range w.load {
		n += s.acked.Load()
	}
	return n
}

// back waits until each publisher has had an acknowledgement since now.
func (w *awayWorld) back() {
	w.t.Helper()
	for _, s := range w.load {
		before := s.acked.Load()
		w.eventually(30*time.Second, func() error {
			if s.acked.Load() < before+2 { // the first may have been on its way
				return fmt.Errorf("%s has no acknowledgement", s.name)
			}
			return nil
		})
	}
}

// known holds for a while that no publisher loses its connection or stands still, and that
// clients of each method connect at each gateway.
func (w *awayWorld) known(when string, d time.Duration) {
	w.t.Helper()
	type figures struct{ acked, lost int64 }
	before := map[*steady]figures{}
	for _, s := range w.load {
		before[s] = figures{s.acked.Load(), s.lost.Load()}
	}
	connects := 0
	for end := time.Now().Add(d); time.Now().Before(end) || connects == 0; {
		for _, g := range w.Of("gateway") {
			for _, m := range w.methods {
				if reason, err := w.attempt(g, m); err != nil {
					w.t.Errorf("%s: %s at %s: %v, %v", when, m.name, g.Name, reason, err)
					return
				}
				connects++
			}
		}
	}
	w.back()
	for _, s := range w.load {
		if lost := s.lost.Load() - before[s].lost; lost > 0 {
			w.t.Errorf("%s: %s has lost its connection %d times", when, s.name, lost)
		}
	}
}
