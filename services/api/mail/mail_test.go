// SPDX-License-Identifier: Apache-2.0

package mail_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/http/httptest"
	netmail "net/mail"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api"
	"github.com/manormq/manor/services/api/mail"
	"github.com/manormq/manor/services/api/mail/mailtest"
	"github.com/manormq/manor/tenancy/tenancytest"
)

// certificate is one for 127.0.0.1, and the file of its CA.
func certificate(t *testing.T) (*tls.Config, string) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, []byte(tenancytest.PEM("CERTIFICATE", s.Certificate().Raw)), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: s.TLS.Certificates}, file
}

func password(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func send(t *testing.T, c mail.Config, m api.Mail) error {
	t.Helper()
	s, err := mail.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s.Send(t.Context(), m)
}

var hello = api.Mail{
	To: "ops@acme.example", Subject: "Grüße\r\nBcc: evil@example.com",
	Text: "Über alles\n.\nQUIT\n" + strings.Repeat("long ", 100) + "\n",
}

func TestSend(t *testing.T) {
	server, ca := certificate(t)
	for name, c := range map[string]struct {
		options mailtest.Options
		config  mail.Config
		tls     bool
	}{
		"plain":    {mailtest.Options{}, mail.Config{TLS: mail.None}, false},
		"starttls": {mailtest.Options{TLS: server}, mail.Config{TLS: mail.StartTLS, CA: ca}, true},
		"implicit": {mailtest.Options{TLS: server, Implicit: true}, mail.Config{TLS: mail.Implicit, CA: ca}, true},
		"signed in": {
			mailtest.Options{TLS: server, Username: "manor", Password: "s3cret"},
			mail.Config{TLS: mail.StartTLS, CA: ca, Username: "manor", PasswordFile: password(t, "s3cret")},
			true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := mailtest.Start(t, c.options)
			c.config.Address, c.config.From = s.Addr, "Manor <noreply@manor.example>"
			if err := send(t, c.config, hello); err != nil {
				t.Fatal(err)
			}
			all := s.Mails()
			if len(all) != 1 {
				t.Fatalf("%d mails", len(all))
			}
			got := all[0]
			if got.From != "noreply@manor.example" || got.To != "ops@acme.example" || got.TLS != c.tls || got.Username != c.config.Username {
				t.Errorf("got %+v", got)
			}
			m, err := netmail.ReadMessage(strings.NewReader(got.Message))
			if err != nil {
				t.Fatal(err)
			}
			subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
			if err != nil || subject != "Grüße  Bcc: evil@example.com" || m.Header.Get("Bcc") != "" {
				t.Errorf("subject %q, %v, Bcc %q", subject, err, m.Header.Get("Bcc"))
			}
			if at, err := m.Header.Date(); err != nil || time.Since(at) > time.Minute || !strings.HasSuffix(m.Header.Get("Message-ID"), "@manor.example>") {
				t.Errorf("headers %v, %v", m.Header, err)
			}
			text, err := io.ReadAll(quotedprintable.NewReader(m.Body))
			if want := strings.ReplaceAll(hello.Text, "\n", "\r\n"); err != nil || string(text) != want && string(text) != hello.Text {
				t.Errorf("text %q, %v, want %q", text, err, want)
			}
		})
	}
}

func TestSend_Fails(t *testing.T) {
	server, ca := certificate(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	refuses := mailtest.Start(t, mailtest.Options{})
	refuses.Refuse(errors.New("no such user"))
	const from = "noreply@manor.example"
	for name, c := range map[string]mail.Config{
		"nobody there":   {Address: closed.Addr().String(), TLS: mail.None},
		"recipient":      {Address: refuses.Addr, TLS: mail.None},
		"no STARTTLS":    {Address: mailtest.Start(t, mailtest.Options{}).Addr, TLS: mail.StartTLS},
		"another CA":     {Address: mailtest.Start(t, mailtest.Options{TLS: server}).Addr, TLS: mail.StartTLS},
		"no password":    {Address: mailtest.Start(t, mailtest.Options{TLS: server, Username: "a", Password: "b"}).Addr, TLS: mail.StartTLS, CA: ca},
		"wrong password": {Address: mailtest.Start(t, mailtest.Options{TLS: server, Username: "a", Password: "b"}).Addr, TLS: mail.StartTLS, CA: ca, Username: "a", PasswordFile: password(t, "c")},
		"lost password":  {Address: mailtest.Start(t, mailtest.Options{TLS: server, Username: "a", Password: "b"}).Addr, TLS: mail.StartTLS, CA: ca, Username: "a", PasswordFile: "/nowhere"},
	} {
		c.From = from
		if err := send(t, c, hello); !errs.Is(err, errs.Unavailable) {
			t.Errorf("%s: %v, want Unavailable", name, err)
		}
	}
	if n := len(refuses.Mails()); n != 0 {
		t.Errorf("%d mails to nobody", n)
	}
	ok := mailtest.Start(t, mailtest.Options{})
	for _, to := range []string{"", "nobody", "a@b.example, c@d.example", "a@b.example\r\nRCPT TO:<x@y>"} {
		if err := send(t, mail.Config{Address: ok.Addr, From: from, TLS: mail.None}, api.Mail{To: to}); !errs.Is(err, errs.Unavailable) {
			t.Errorf("to %q: %v, want Unavailable", to, err)
		}
	}
}

// TestSend_Silent has a server that never says anything: the context ends it.
func TestSend_Silent(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s, err := mail.New(mail.Config{Address: ln.Addr().String(), From: "noreply@manor.example", TLS: mail.None})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Send(ctx, hello); !errs.Is(err, errs.Unavailable) {
		t.Errorf("got %v, want Unavailable", err)
	}
}

func TestConfig_Validate(t *testing.T) {
	good := mail.Config{Address: "mail.example:587", From: "a@b.example", TLS: mail.StartTLS}
	for name, change := range map[string]func(*mail.Config){
		"port":              func(c *mail.Config) { c.Address = "mail.example" },
		"from":              func(c *mail.Config) { c.From = "nobody" },
		"tls":               func(c *mail.Config) { c.TLS = "maybe" },
		"username alone":    func(c *mail.Config) { c.Username = "a" },
		"password in clear": func(c *mail.Config) { c.Username, c.PasswordFile, c.TLS = "a", "b", mail.None },
	} {
		c := good
		change(&c)
		if err := c.Validate(); !errs.Is(err, errs.Invalid) {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
	for _, c := range []mail.Config{good, mail.DefaultConfig()} {
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
	}
}
