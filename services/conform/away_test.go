// SPDX-License-Identifier: Apache-2.0

package conform_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/services/api/client"
	"github.com/manormq/manor/services/conform"
	"github.com/manormq/manor/services/conform/chaos"
)

var awayRounds = flag.Int("away", 0, "how often TestControlPlaneGone takes the control plane of a larger region away, for longer; 0 is once, of a small one")

// TestControlPlaneGone kills every tenancyd and every NATS server while clients publish and
// connect. Known clients notice nothing, by whatever they show of themselves, also when
// a gateway and the brokers are killed and started meanwhile; unknown ones hear why they are
// refused. When the control plane is back, what it is told to take away has gone within
// 2 s, and all is as before.
func TestControlPlaneGone(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	layout, rounds, phase := []string{"--brokers", "1", "--gateways", "2"}, 1, time.Second
	if *awayRounds > 0 {
		layout, rounds, phase = []string{"--brokers", "3", "--gateways", "2", "--nats", "3", "--tenancies", "3"}, *awayRounds, 5*time.Second
	}
	w := &awayWorld{t: t, Region: chaos.New(t, conform.BuiltPrograms(t), chaos.Layout{}, layout...), phase: phase}
	w.signUp()
	defer w.startLoad()()
	for n := range rounds {
		w.round(n)
		if t.Failed() {
			return
		}
	}
}

// awayWorld is a region, a tenant whose clients are known, and what they do.
type awayWorld struct {
	*chaos.Region
	t     *testing.T
	phase time.Duration // how long it is looked at the clients each time

	tenant  string
	api     *client.Client
	methods []shown
	load    []*steady
}

// round takes the control plane away, and gives it back.
func (w *awayWorld) round(n int) {
	revoked := []string{fmt.Sprint("revoked-", n), fmt.Sprint("revoked-late-", n)}
	passwords := map[string]string{}
	for _, name := range revoked {
		passwords[name] = w.credential(name)
	}
	// Each gateway is to have it in its snapshot.
	for _, g := range w.Of("gateway") {
		for _, name := range revoked {
			w.eventually(10*time.Second, func() error { _, err := w.attempt(g, w.byPassword(name, passwords[name])); return err })
		}
		w.eventually(10*time.Second, func() error {
			return contains(filepath.Join(g.Data, "directory.snapshot"), revoked[0], revoked[1], `"whole":true`, `"issuer"`, "BEGIN CERTIFICATE")
		})
	}
	control := append(w.Of("tenancy"), w.Of("nats")...)
	begun := time.Now()
	leave, comeBack := (*chaos.Node).Kill, (*chaos.Node).Start
	if n%2 == 1 { // it stands still: connected, and silent
		leave = func(x *chaos.Node) { x.Signal(syscall.SIGSTOP) }
		comeBack = func(x *chaos.Node) { x.Signal(syscall.SIGCONT) }
	}
	for _, x := range control {
		leave(x)
	}
	w.known("with the control plane gone", w.phase)
	w.unknown("with the control plane gone", w.Of("gateway"), true)
	w.status(false)

	first := w.Of("gateway")[0]
	first.Kill()
	first.Start()
	first.Ready(time.Minute)
	w.back()
	w.known("after a restart of "+first.Name+" without the control plane", w.phase)
	w.unknown("after a restart of "+first.Name+" without the control plane", w.Of("gateway")[:1], true)
	for _, b := range w.Of("broker") {
		b.Kill()
	}
	for _, b := range w.Of("broker") {
		b.Start()
	}
	w.back()
	w.known("after a restart of the brokers without the control plane", w.phase)
	if *awayRounds > 0 {
		w.status(true)
	}

	victims := w.connected(revoked[0], passwords[revoked[0]])
	for _, x := range control {
		comeBack(x)
	}
	gone, returned := time.Since(begun), time.Now()
	w.eventually(time.Minute, func() error {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		return w.api.DeleteCredential(ctx, w.tenant, revoked[0])
	})
	deleted := time.Now()
	for at, d := range victims {
		select {
		case <-d.Done():
			if end := d.Disconnected(); end == nil || end.Reason != mqtt.NotAuthorized {
				w.t.Errorf("a client with a deleted credential at %s: %v, %+v", at, d.Err(), end)
			}
		case <-time.After(time.Until(deleted.Add(2 * time.Second))):
			w.t.Errorf("a client with a deleted credential is still connected at %s after 2 s", at)
		}
	}
	effective := time.Since(deleted)
	for _, x := range control {
		x.Ready(time.Minute)
	}

	// What is taken away while a gateway is down, it has in its snapshot.
	first.Kill()
	if err := w.api.DeleteCredential(w.t.Context(), w.tenant, revoked[1]); err != nil {
		w.t.Fatal(err)
	}
	first.Start()
	first.Ready(time.Minute)
	w.eventually(2*time.Second, func() error {
		if ack, err := w.attempt(first, w.byPassword(revoked[1], passwords[revoked[1]])); err == nil || ack != mqtt.BadUserNameOrPassword {
			return fmt.Errorf("a credential that was deleted while %s was down: %w, %w", first.Name, ack, err)
		}
		return nil
	})
	w.back()
	w.known("when it is back", w.phase)
	w.unknown("when it is back", w.Of("gateway"), false)
	w.eventually(20*time.Second, func() error { return w.state("reached") })
	fresh := w.credential(fmt.Sprint("fresh-", n))
	for _, g := range w.Of("gateway") {
		w.eventually(2*time.Second, func() error {
			_, err := w.attempt(g, w.byPassword(fmt.Sprint("fresh-", n), fresh))
			return err
		})
	}
	w.t.Logf("away for %.1f s; a credential could be deleted %.1f s after the start of the control plane, and its clients were disconnected %.0f ms later; %d publishes acknowledged",
		gone.Seconds(), deleted.Sub(returned).Seconds(), effective.Seconds()*1000, w.acked())
}

// unknown holds what those are told that the gateways do not know.
func (w *awayWorld) unknown(when string, gateways []*chaos.Node, away bool) {
	w.t.Helper()
	reason, text := mqtt.BadUserNameOrPassword, "bad user name or password"
	if away {
		reason, text = mqtt.ServerUnavailable, "the client is not known here, and the control plane that may know it is away"
	}
	for _, g := range gateways {
		for _, user := range []string{w.tenant + ":stranger", "nobody:stranger"} {
			d := w.device(g, shown{name: "stranger", user: user, password: "guess"})
			begun := time.Now()
			ack, err := d.Connect()
			if ack == nil || ack.Reason != reason || !strings.HasPrefix(ack.ReasonString, text) {
				w.t.Errorf("%s: %s at %s: %+v, %v, expected %v %q", when, user, g.Name, ack, err, reason, text)
			}
			if took := time.Since(begun); took > 5*time.Second {
				w.t.Errorf("%s: %s at %s waited %v", when, user, g.Name, took)
			}
		}
		// Who is known and guesses is told so, whether the control plane is there or not.
		if ack, err := w.attempt(g, w.byPassword("default", "guess")); ack != mqtt.BadUserNameOrPassword {
			w.t.Errorf("%s: a wrong password at %s: %v, %v", when, g.Name, ack, err)
		}
		if ack, err := w.attempt(g, shown{name: "scram", user: w.tenant + ":scram", password: "guess", scram: true}); ack != mqtt.NotAuthorized {
			w.t.Errorf("%s: a wrong password by SCRAM at %s: %v, %v", when, g.Name, ack, err)
		}
		unknown := mqtt.NotAuthorized
		if away {
			unknown = reason
		}
		if ack, err := w.attempt(g, shown{name: "stranger", user: w.tenant + ":stranger", password: "guess", scram: true}); ack != unknown {
			w.t.Errorf("%s: a stranger by SCRAM at %s: %v, %v, expected %v", when, g.Name, ack, err, unknown)
		}
		if !away {
			continue
		}
		d := w.device(g, shown{name: "stranger", user: "x", password: "guess", tls: &tls.Config{ServerName: "nobody.localhost", InsecureSkipVerify: true}})
		if ack, err := d.Connect(); ack == nil || ack.Reason != reason || !strings.HasPrefix(ack.ReasonString, text) {
			w.t.Errorf("%s: an unknown host at %s: %+v, %v", when, g.Name, ack, err)
		}
	}
}

// status holds what operators see while the control plane is away; late is for long
// enough to be called so.
func (w *awayWorld) status(late bool) {
	w.t.Helper()
	if late {
		w.eventually(30*time.Second, func() error { return w.state("away") })
	}
	for _, g := range w.Of("gateway") {
		for path, want := range map[string]int{"/health": http.StatusOK, "/health/control_plane": http.StatusServiceUnavailable} {
			if code, body := get(w.t, g, path); code != want && (late || want == http.StatusOK) {
				w.t.Errorf("%s%s: %d %s", g.Name, path, code, body)
			}
		}
		if _, body := get(w.t, g, "/metrics"); !strings.Contains(body, `mqtt_directory_unanswered_total{about="tenant"} `) ||
			strings.Contains(body, `mqtt_directory_unanswered_total{about="tenant"} 0`) {
			w.t.Errorf("%s has not counted who was refused", g.Name)
		}
	}
}

// state reports whether each gateway says that the control plane is in a state.
func (w *awayWorld) state(want string) error {
	for _, g := range w.Of("gateway") {
		_, body := get(w.t, g, "/status.json")
		var s struct {
			Details struct {
				ControlPlane struct {
					State string   `json:"state"`
					Age   *float64 `json:"age_seconds"`
				} `json:"control_plane"`
			} `json:"details"`
		}
		if err := json.Unmarshal([]byte(body), &s); err != nil {
			return err
		}
		if c := s.Details.ControlPlane; c.State != want || c.Age == nil {
			return fmt.Errorf("%s says of the control plane: %+v", g.Name, c)
		}
	}
	return nil
}

func get(t *testing.T, n *chaos.Node, path string) (code int, body string) {
	t.Helper()
	resp, err := http.Get("http://" + n.Addr("operator") + path)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(b)
}

// contains reports whether a file has all of the texts.
func contains(file string, texts ...string) error {
	b, err := os.ReadFile(file)
	for _, x := range texts {
		if err == nil && !strings.Contains(string(b), x) {
			err = fmt.Errorf("%s has no %s", file, x)
		}
	}
	return err
}

func (w *awayWorld) eventually(limit time.Duration, f func() error) {
	w.t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("after %v: %v", limit, err)
		}
	}
}
