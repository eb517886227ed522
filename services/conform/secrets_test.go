// SPDX-License-Identifier: Apache-2.0

package conform

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/manormq/manor/services/api/mail/mailtest"
	"github.com/manormq/manor/tenancy/domains/domainstest"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// TestSecrets_OneProcess and TestSecrets_Processes use every kind of secret that the
// product has, rightly and wrongly, with logs at level debug. None is found afterwards in
// logs, stores, snapshots, audit records, events, metrics, status pages or answers, but
// in the answer that hands it out and in the key files that are the operator's. Pre-shared
// keys are not among them: only stunnel has those.
func TestSecrets_OneProcess(t *testing.T) {
	w := newSecretWorld(t)
	w.start("--log-level", "debug", "--dns", w.dns.Address)
	w.use()
}

func TestSecrets_Processes(t *testing.T) {
	w := newSecretWorld(t)
	config, ca := mailCertificate(t)
	word, binding := w.secret("the password for mail"), w.secret("the HMAC key of an account binding")
	w.mails = mailtest.Start(t, mailtest.Options{TLS: config, Username: "manor", Password: word.text})
	w.sources = t.TempDir()
	w.environ = []string{
		"MANOR_SMTP_ADDRESS=" + w.mails.Addr, "MANOR_SMTP_FROM=noreply@manor.example", "MANOR_SMTP_USERNAME=manor",
		"MANOR_SMTP_PASSWORD_FILE=" + w.file(word.text), "MANOR_SMTP_CA=" + ca,
		"MANOR_DOMAINS_ACME_EAB_KEY_ID=key-1", "MANOR_DOMAINS_ACME_EAB_HMAC_FILE=" + w.file(binding.text), "MANOR_SOURCES_DIR=" + w.sources,
	}
	// Nobody answers at the authority's: that it was tried is in the logs.
	w.start("--log-level", "debug", "--dns", w.dns.Address, "--acme-directory", "https://127.0.0.1:9/dir", "--brokers", "2", "--gateways", "1")
	w.use()
}

// mailCertificate is one for 127.0.0.1, and the file of its CA.
func mailCertificate(t *testing.T) (*tls.Config, string) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	file := filepath.Join(t.TempDir(), "mail-ca.pem")
	if err := os.WriteFile(file, []byte(tenancytest.PEM("CERTIFICATE", s.Certificate().Raw)), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: s.TLS.Certificates}, file
}

// secretWorld is a product, what is secret in it, and everything that it has said.
type secretWorld struct {
	*testing.T
	p       *Product
	data    string
	environ []string
	dns     *domainstest.DNS
	mails   *mailtest.Server // nil if the product sends none
	sources string           // the folder of tenants' files; empty if there is none
	logs    logBuffer
	secrets []*secret
	places  []place
	// mark is in the names of things that are not secret; it has to be found everywhere.
	mark string
	// key is the API key with which w asks; organization and tenant are what it is of.
	key, organization string
}

func newSecretWorld(t *testing.T) *secretWorld {
	t.Helper()
	if testing.Short() {
		t.Skip("starts the product; not in short runs")
	}
	return &secretWorld{T: t, data: t.TempDir(), dns: domainstest.NewDNS(t), mark: "mark" + strings.ToLower(rand.Text())}
}

// file writes what the operator keeps in a file of its own, beside the data.
func (w *secretWorld) file(text string) string {
	w.Helper()
	name := filepath.Join(w.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
		w.Fatal(err)
	}
	return name
}

func (w *secretWorld) start(args ...string) {
	w.Helper()
	w.p = StartWith(w, Programs(w, built), &w.logs, w.environ, append([]string{"--data", w.data, "--listen-offset", Offset(w)}, args...)...)
}

// logBuffer keeps what is logged. It is safe for concurrent use.
type logBuffer struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.all.Write(p)
}

func (b *logBuffer) text() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.all.Bytes())
}

// secret makes a new random text that is one, and may be at those places.
func (w *secretWorld) secret(kind string, at ...string) *secret {
	return w.known(kind, "cN"+rand.Text(), at...)
}

// known notes a secret that the product, or a library, has made.
func (w *secretWorld) known(kind, text string, at ...string) *secret {
	w.Helper()
	if text == "" {
		w.Fatalf("%s: nobody has handed it out", kind)
	}
	s := &secret{kind: kind, text: text, at: at}
	w.secrets = append(w.secrets, s)
	return s
}

// keyPEM notes a private key on P-256: its secret number, and each line of its PEM that has
// a part of that. The other lines are the public key, which is in certificates too.
func (w *secretWorld) keyPEM(kind, text string, at ...string) {
	w.Helper()
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		w.Fatalf("%s: no PEM", kind)
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		var any8 any
		if any8, err = x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
			key = any8.(*ecdsa.PrivateKey)
		}
	}
	if err != nil {
		w.Fatal(err)
	}
	number, err := key.Bytes()
	if err != nil {
		w.Fatal(err)
	}
	w.known(kind+", its number", string(number), at...)
	first := bytes.Index(block.Bytes, number)
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for k := first / pemLine; k*pemLine < first+len(number)-8; k++ {
		w.known(kind+", a line", lines[1+k], at...)
	}
}

// pemLine is how many bytes a line of PEM has.
const pemLine = 48

// call asks the API and notes the answer under that name. status 0 is any.
func (w *secretWorld) call(name, method, path string, body any, status int, answer any, headers ...string) {
	w.Helper()
	var text []byte
	switch b := body.(type) {
	case nil:
	case string:
		text = []byte(b)
	default:
		text, _ = json.Marshal(b) // maps of texts always can be
	}
	w.ask("answer", name, method, w.p.API+path, text, status, answer, append([]string{"Authorization", "Bearer " + w.key, "Content-Type", "application/json"}, headers...)...)
}

// ask makes a request and notes the answer, its headers too, as a place.
func (w *secretWorld) ask(kind, name, method, url string, body []byte, status int, answer any, headers ...string) {
	w.Helper()
	req, err := http.NewRequestWithContext(w.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		w.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] != "Bearer " {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		w.Fatalf("%s: %v", name, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, _ := io.ReadAll(resp.Body)
	if status != 0 && resp.StatusCode != status {
		w.Fatalf("%s: %s, expected %d: %s", name, resp.Status, status, text)
	}
	if answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			w.Fatalf("%s: %v: %s", name, err, text)
		}
	}
	w.places = append(w.places, place{kind, name, append(fmt.Append(nil, resp.Header, "\n"), text...)})
}

// use goes through all kinds of secrets, reads all that the product shows, stops it, and
// looks.
func (w *secretWorld) use() {
	w.installation()
	w.people()
	w.credentials()
	w.vernemq()
	w.issuers()
	w.certificates()
	w.domains()
	w.join()
	w.bus()
	w.session()
	w.readAll()
	w.p.Stop()
	w.look()
}

// look fails for each secret that is found where it may not be, and for each kind of
// place in which what is not secret is not found.
func (w *secretWorld) look() {
	w.Helper()
	w.places = append(w.places, place{"log", "log", w.logs.text()})
	w.places = append(w.places, filesIn(w, w.data)...)
	mark := &secret{kind: "the mark", text: w.mark}
	all := append(slices.Clone(w.secrets), mark)
	for _, text := range privateKeys {
		all = append(all, &secret{kind: "the beginning of a private key", text: text, at: []string{"pki/"}})
	}
	find := newFinder(w, all)
	marked, size := map[string]bool{}, 0
	said := map[string]bool{}
	for i := range w.places {
		p := &w.places[i]
		size += len(p.text)
		find.in(p.text, func(f form, at int) {
			if f.of == mark {
				marked[p.kind] = true
				return
			}
			if what := fmt.Sprint(f.of.kind, " ", f.name, " ", p.name); !f.of.mayBe(p) && !said[what] {
				said[what] = true
				w.Errorf("%s, %s, is in %s %s, after %q", f.of.kind, f.name, p.kind, p.name, around(p.text, at))
			}
		})
	}
	for _, kind := range []string{"log", "file", "leveldb", "jetstream", "audit", "events", "metrics", "status", "answer", "mqtt"} {
		if !marked[kind] {
			w.Errorf("the mark, which is no secret, is in no place of the kind %s: the search there shows nothing", kind)
		}
	}
	w.Logf("%d secrets in %d forms, %d places of %d bytes", len(w.secrets), len(find.forms), len(w.places), size)
}

// privateKeys are how private keys begin that the product makes itself and nobody is shown:
// in PEM; ECDSA on P-256 by SEC 1 and PKCS #8, in base64; and the secrets of session tickets.
var privateKeys = []string{
	"PRIVATE KEY-----", "MHcCAQEEI", "MIGHAgEAMBMGByqGSM49", "MC4CAQAwBQYDK2VwBCIEI", `{"secrets":[{"secret":"`,
}
