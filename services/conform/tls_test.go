// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/manormq/manor/infra/mqtt"
	"github.com/manormq/manor/infra/packet"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// secured is a tenant with CAs of its own, as its devices see it.
type secured struct {
	t       *testing.T
	tn      *account
	p       *Product
	tickets tls.ClientSessionCache
}

func (s *secured) put(body map[string]any) {
	s.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	request(s.t, http.MethodPut, s.p.API+"/v1/tenants/"+s.tn.ID+"/client-cas", s.tn.Key, bytes.NewReader(b), http.StatusOK, nil)
}

// connect dials a gateway, with a certificate and without a password if there is
// one, and returns the connection once the server has said CONNACK.
func (s *secured) connect(gateway int, certs ...tls.Certificate) (*stream, *packet.Connack, error) {
	config := s.tn.caAsConfig.Clone()
	config.Certificates, config.ClientSessionCache = certs, s.tickets
	p := &packet.Connect{Version: packet.V5, CleanStart: true, ClientID: fmt.Sprint("tls-", time.Now().UnixNano()), KeepAlive: 60}
	if len(certs) == 0 {
		p.Username, p.HasUsername, p.Password, p.HasPassword = s.tn.Username, true, []byte(s.tn.Password), true
	}
	c, err := tls.Dial("tcp", s.p.Of("gateway")[gateway].Addr("mqtts"), config)
	if err != nil {
		return nil, nil, err
	}
	s.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write(packet.AppendConnect(nil, p)); err != nil {
		return nil, nil, err
	}
	r := &stream{conn: c, version: packet.V5}
	k, err := r.next()
	if err != nil {
		return nil, nil, err
	}
	if k.Connack.Reason != mqtt.Success {
		err = &Refused{k.Connack.Reason}
	}
	ack := *k.Connack
	return r, &ack, err
}

// resumes connects and reports whether an older session was resumed.
func (s *secured) resumes(gateway int, certs ...tls.Certificate) bool {
	s.t.Helper()
	r, _, err := s.connect(gateway, certs...)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = r.conn.Close()
	return r.conn.(*tls.Conn).ConnectionState().DidResume
}

// within waits for what a change of the control plane has to bring in 2 s.
func (s *secured) within(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(2 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("after 2 s there is not: %s", what)
		}
	}
}

// mosquitto publishes with a certificate, and without user name and password.
func (s *secured) mosquitto(t *testing.T, pair tls.Certificate) {
	if _, err := exec.LookPath("mosquitto_pub"); err != nil {
		missing(t, "mosquitto's clients", err)
	}
	wrap, err := resolving(t, s.tn.Hostname)
	if err != nil {
		missing(t, "a way to have "+s.tn.Hostname+" resolve", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	cert, key := filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")
	for file, text := range map[string]string{cert: tenancytest.PEM("CERTIFICATE", pair.Certificate[0]), key: tenancytest.PEM("PRIVATE KEY", der)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m := &mosquitto{t: t, wrap: wrap, args: []string{
		"-h", s.tn.Hostname, "-p", fmt.Sprint(s.p.Of("gateway")[1].Ports["mqtts"]), "--cafile", s.tn.ca, "--cert", cert, "--key", key,
	}}
	m.run("mosquitto_pub", "-q", "1", "-r", "-t", "from/press", "-m", "certified")
	if got := m.run("mosquitto_sub", "-t", "from/press", "-C", "1", "-W", "20"); string(got) != "certified\n" {
		t.Errorf("the retained message is %q", got)
	}
}

// TestTLS_Processes: sessions are resumed at another gateway, and a tenant's own
// CAs let its devices in and out at all of them.
func TestTLS_Processes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	p := Start(t, Programs(t, built), "--data", t.TempDir(), "--listen-offset", Offset(t), "--log-level", "error", "--brokers", "1", "--gateways", "2")
	s := &secured{t: t, p: p, tn: signUp(t, p, "secured"), tickets: tls.NewLRUClientSessionCache(8)}
	other := &secured{t: t, p: p, tn: signUp(t, p, "other"), tickets: tls.NewLRUClientSessionCache(8)}
	if s.resumes(0) {
		t.Error("the first session is resumed")
	}
	s.within("a session resumed at the other gateway", func() bool { return s.resumes(1) })
	if !s.resumes(0) {
		t.Error("not resumed at the first gateway")
	}
	ca := tenancytest.NewCA(t, "devices")
	press, stolen := ca.Issue(2, "press-7"), ca.Issue(66, "stolen")
	cas := map[string]any{"certificates": ca.PEM(), "client_certs": "optional", "use_identity_as_username": "cn", "certificate_authenticates": true}
	s.put(cas)
	for gateway := range 2 {
		s.within("the certificate lets in", func() bool {
			_, _, err := s.connect(gateway, press)
			return err == nil
		})
	}
	t.Run("mosquitto", func(t *testing.T) { s.mosquitto(t, press) })
	s.tickets = tls.NewLRUClientSessionCache(8)
	if s.resumes(0, press) || !s.resumes(1, press) {
		t.Error("with a certificate: expected a new session, then a resumed one")
	}
	// It is nobody elsewhere.
	if _, _, err := other.connect(0, press); !errors.As(err, new(*Refused)) {
		t.Errorf("another tenant's certificate: %v, expected CONNACK to refuse", err)
	}
	kept := s.tickets
	s.tickets = nil // or a session of the other device would be resumed
	var live []*stream
	for gateway := range 2 {
		r, _, err := s.connect(gateway, stolen)
		if err != nil {
			t.Fatal(err)
		}
		live = append(live, r)
	}
	cas["crl"] = ca.CRL(66)
	start := time.Now()
	s.put(cas)
	for gateway, r := range live {
		_ = r.conn.SetReadDeadline(start.Add(2 * time.Second))
		d, err := r.next()
		if err != nil || d.Type != packet.DISCONNECT || d.Disconnect.Reason != mqtt.NotAuthorized {
			t.Errorf("gateway %d: %+v %v, expected DISCONNECT 0x87 within 2 s", gateway, d, err)
		}
		if _, _, err := s.connect(gateway, stolen); err == nil {
			t.Errorf("gateway %d: what is revoked comes back", gateway)
		}
	}
	s.tickets = kept
	if s.resumes(0, press) {
		t.Error("a session from before the revocation list is resumed")
	}
	s.put(map[string]any{})
	s.within("no certificate lets in", func() bool {
		_, _, err := s.connect(0, press)
		return errors.As(err, new(*Refused))
	})
}
