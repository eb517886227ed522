// SPDX-License-Identifier: Apache-2.0

// Package mail sends the API's mails through an SMTP server (RFC 5321), with
// net/smtp. It owns no goroutine, keeps no connection, and tries once: whoever
// asked for the mail asks again. It knows nothing of what mails say.
package mail

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"net/smtp"
	"os"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/services/api"
)

// Values of Config.TLS.
const (
	// StartTLS begins in the clear and ends if the server does not offer
	// STARTTLS.
	StartTLS = "starttls"
	// Implicit is TLS from the first byte on (RFC 8314, port 465).
	Implicit = "implicit"
	// None is no TLS: for a server on the same host. No password is sent then.
	None = "none"
)

// Config says how mails are sent.
type Config struct {
	Address      string `yaml:"address" doc:"host:port of the SMTP server; empty sends no mail: sign-ups are not verified, and whoever invites a member passes the invitation on"`
	From         string `yaml:"from" doc:"the address that mails come from, such as Manor <noreply@example.org>"`
	TLS          string `yaml:"tls" doc:"starttls (refused if the server does not offer it), implicit (port 465) or none (no password is sent then)"`
	Username     string `yaml:"username" doc:"user name at the server; empty signs in as nobody"`
	PasswordFile string `yaml:"password_file" doc:"file with the password; it is read for each mail, so that a new one needs no restart"`
	CA           string `yaml:"ca" doc:"PEM file with the CAs of the server's certificate; empty takes the system's"`
}

// DefaultConfig sends no mail.
func DefaultConfig() Config { return Config{TLS: StartTLS} }

// Validate returns an error Invalid that says what is wrong.
func (c *Config) Validate() error {
	if c.Address == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(c.Address); err != nil {
		return errs.New(errs.Invalid, "address: expected host:port, found %q", c.Address)
	}
	if _, err := netmail.ParseAddress(c.From); err != nil {
		return errs.New(errs.Invalid, "from: expected an address like Manor <noreply@example.org>, found %q", c.From)
	}
	switch {
	case c.TLS != StartTLS && c.TLS != Implicit && c.TLS != None:
		return errs.New(errs.Invalid, "tls: expected starttls, implicit or none, found %q", c.TLS)
	case (c.Username == "") != (c.PasswordFile == ""):
		return errs.New(errs.Invalid, "expected both username and password_file, or neither")
	case c.Username != "" && c.TLS == None:
		return errs.New(errs.Invalid, "tls: expected starttls or implicit, since there is a password")
	}
	return nil
}

// sendTime bounds the sending of one mail, if its context does not.
const sendTime = 15 * time.Second

// Sender sends mails. It is safe for concurrent use. Make it with New.
type Sender struct {
	cfg  Config
	from *netmail.Address
	host string
	tls  *tls.Config
}

// New checks the configuration, which must have an address.
func New(cfg Config) (*Sender, error) {
	if cfg.Address == "" {
		return nil, errs.New(errs.Invalid, "mail: expected an address")
	}
	if err := cfg.Validate(); err != nil {
		return nil, errs.New(errs.Invalid, "mail: %w", err)
	}
	s := &Sender{cfg: cfg}
	var err error
	if s.from, err = netmail.ParseAddress(cfg.From); err != nil {
		return nil, errs.New(errs.Invalid, "mail: from: %w", err)
	}
	if s.host, _, err = net.SplitHostPort(cfg.Address); err != nil {
		return nil, errs.New(errs.Invalid, "mail: address: %w", err)
	}
	s.tls, err = clientTLS(s.host, cfg.CA)
	return s, err
}

// Send hands the mail to the server. The error is Unavailable if the server does
// not take it, for whatever reason.
func (s *Sender) Send(ctx context.Context, m api.Mail) error {
	if err := s.send(ctx, m); err != nil {
		return errs.New(errs.Unavailable, "mail by %s: %w", s.cfg.Address, err)
	}
	return nil
}

func (s *Sender) send(ctx context.Context, m api.Mail) error {
	to, err := netmail.ParseAddress(m.To)
	if err != nil || strings.ContainsAny(to.Address, "\r\n") {
		return fmt.Errorf("expected one address, found %q", m.To)
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.cfg.Address)
	if err != nil {
		return err
	}
	// Ends what waits for the server when ctx ends.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if s.cfg.TLS == Implicit {
		conn = tls.Client(conn, s.tls)
	}
	c, err := smtp.NewClient(conn, s.host)
	if err != nil {
		_ = conn.Close()
		return err
	}
	defer func() { _ = c.Close() }()
	if err := s.greet(c); err != nil {
		return err
	}
	if err := c.Mail(s.from.Address); err != nil {
		return err
	}
	if err := c.Rcpt(to.Address); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(s.message(to, m, time.Now())); err != nil {
		return err
	}
	if err := w.Close(); err != nil { // only now it is the server's
		return err
	}
	_ = c.Quit() // it has the mail
	return nil
}

// greet begins TLS and signs in, as far as it is asked for.
func (s *Sender) greet(c *smtp.Client) error {
	if s.cfg.TLS == StartTLS {
		if ok, _ := c.Extension("STARTTLS"); !ok {
			return fmt.Errorf("the server does not offer STARTTLS; set tls to implicit or none if that is right")
		}
		if err := c.StartTLS(s.tls); err != nil {
			return err
		}
	}
	if s.cfg.Username == "" {
		return nil
	}
	password, err := os.ReadFile(s.cfg.PasswordFile)
	if err != nil {
		return err
	}
	return c.Auth(smtp.PlainAuth("", s.cfg.Username, strings.TrimRight(string(password), "\r\n"), s.host))
}

// message writes the mail (RFC 5322, RFC 2045).
func (s *Sender) message(to *netmail.Address, m api.Mail, now time.Time) []byte {
	var b bytes.Buffer
	_, domain, _ := strings.Cut(s.from.Address, "@")
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	for _, h := range [][2]string{
		{"From", s.from.String()},
		{"To", to.String()},
		{"Subject", mime.QEncoding.Encode("utf-8", oneLine(m.Subject))},
		{"Date", now.Format(time.RFC1123Z)},
		{"Message-ID", "<" + hex.EncodeToString(id[:]) + "@" + domain + ">"},
		{"Auto-Submitted", "auto-generated"},
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", "quoted-printable"},
	} {
		b.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	_, _ = q.Write([]byte(m.Text)) // a buffer takes all
	_ = q.Close()
	return b.Bytes()
}

// oneLine keeps what a name contains from beginning another header.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7F {
			return ' '
		}
		return r
	}, s)
}
