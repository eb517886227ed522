// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	acmeproto "github.com/mholt/acmez/v3/acme"

	"github.com/manormq/manor/infra/bus/mem"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/telemetry"
	"github.com/manormq/manor/tenancy/managedca"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// stub is a CA that says when to renew, and refuses every order.
type stub struct {
	*httptest.Server

	mu       sync.Mutex
	window   string   // guarded by mu; the body of the renewal information
	asked    []string // guarded by mu; names of certificates
	replaces []string // guarded by mu; of orders
}

func startStub(t *testing.T, suggests bool) *stub {
	t.Helper()
	s := &stub{}
	mux := http.NewServeMux()
	mux.HandleFunc("/dir", func(w http.ResponseWriter, _ *http.Request) {
		dir := map[string]string{"newNonce": s.URL + "/nonce", "newAccount": s.URL + "/account", "newOrder": s.URL + "/order"}
		if suggests {
			dir["renewalInfo"] = s.URL + "/renewal"
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(dir)
	})
	nonce := func(w http.ResponseWriter) { w.Header().Set("Replay-Nonce", "bm9uY2U") }
	mux.HandleFunc("/nonce", func(w http.ResponseWriter, _ *http.Request) { nonce(w) })
	mux.HandleFunc("/account", func(w http.ResponseWriter, _ *http.Request) {
		nonce(w)
		w.Header().Set("Location", s.URL+"/account/1")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"status":"valid"}`)
	})
	mux.HandleFunc("/order", func(w http.ResponseWriter, r *http.Request) {
		var jws struct{ Payload string }
		_ = json.NewDecoder(r.Body).Decode(&jws)
		b, _ := base64.RawURLEncoding.DecodeString(jws.Payload)
		var order struct{ Replaces string }
		_ = json.Unmarshal(b, &order)
		s.mu.Lock()
		s.replaces = append(s.replaces, order.Replaces)
		s.mu.Unlock()
		nonce(w)
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"never","status":403}`)
	})
	mux.HandleFunc("/renewal/", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked = append(s.asked, strings.TrimPrefix(r.URL.Path, "/renewal/"))
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Retry-After", "3600")
		_, _ = io.WriteString(w, s.window)
	})
	s.Server = httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	return s
}

// authority is one that asks the stub.
func (s *stub) authority(t *testing.T) *Authority {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte(tenancytest.PEM("CERTIFICATE", s.Certificate().Raw)), 0o600); err != nil {
		t.Fatal(err)
	}
	sealer, err := managedca.NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(t.Context(), Config{Bus: mem.New(), Sealer: sealer, Directory: s.URL + "/dir", CAFile: file, Log: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func certificate(t *testing.T, name string) (chain string, leaf *x509.Certificate) {
	t.Helper()
	chain, key := tenancytest.NewCA(t, "ca").Server(0x8001, time.Now().Add(time.Hour), name)
	pair, err := tls.X509KeyPair([]byte(chain), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return chain, pair.Leaf
}

// The CA's window and its Retry-After are told; one that has none is told apart from one
// that does not answer.
func TestSuggested(t *testing.T) {
	t.Parallel()
	_, leaf := certificate(t, "mqtt.acme.example")
	id, err := acmeproto.ARIUniqueIdentifier(leaf)
	if err != nil {
		t.Fatal(err)
	}
	s := startStub(t, true)
	a := s.authority(t)
	from := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	s.window = fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`, from.Format(time.RFC3339), from.Add(time.Hour).Format(time.RFC3339))
	got, err := a.Suggested(t.Context(), leaf)
	if err != nil || !got.From.Equal(from) || !got.Until.Equal(from.Add(time.Hour)) || got.At.Before(from) || got.At.After(got.Until) {
		t.Errorf("%+v, %v", got, err)
	}
	if in := time.Until(got.RetryAfter); in < 50*time.Minute || in > time.Hour {
		t.Errorf("asked again in %v", in)
	}
	if len(s.asked) != 1 || s.asked[0] != id {
		t.Errorf("asked about %q, want %q", s.asked, id)
	}
	without := startStub(t, false).authority(t)
	if _, err := without.Suggested(t.Context(), leaf); !errs.Is(err, errs.NotFound) {
		t.Errorf("without renewal information: %v", err)
	}
	if _, err := a.Suggested(t.Context(), &x509.Certificate{SerialNumber: leaf.SerialNumber}); !errs.Is(err, errs.NotFound) {
		t.Errorf("a certificate without a key identifier: %v", err)
	}
	s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := a.Suggested(ctx, leaf); !errs.Is(err, errs.Unavailable) {
		t.Errorf("without an answer: %v", err)
	}
}

// An order says which certificate it replaces; a CA that refuses is asked again without.
func TestObtain_Replaces(t *testing.T) {
	t.Parallel()
	const name = "mqtt.acme.example"
	chain, leaf := certificate(t, name)
	id, err := acmeproto.ARIUniqueIdentifier(leaf)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		suggests, kept bool
		want           string
	}{{true, true, id + ","}, {true, false, ""}, {false, true, ""}} {
		s := startStub(t, c.suggests)
		a := s.authority(t)
		if c.kept {
			for file, value := range map[string]string{certmagic.StorageKeys.SiteCert(a.issuer.key, name): chain, certmagic.StorageKeys.SitePrivateKey(a.issuer.key, name): "key"} {
				if err := a.storage.Store(t.Context(), file, []byte(value)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := a.issuer.Issue(t.Context(), request(t, name)); err == nil {
			t.Fatal("issued")
		}
		if got := strings.Join(s.replaces, ","); got != c.want {
			t.Errorf("renewal information %v, a certificate %v: orders replace %q, want %q", c.suggests, c.kept, got, c.want)
		}
	}
}

func request(t *testing.T, name string) *x509.CertificateRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	r, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
