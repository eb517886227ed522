// SPDX-License-Identifier: Apache-2.0

// Package mailtest is an SMTP server for tests, on go-smtp: it takes mails, and
// keeps them as they came. It owns the goroutine that serves, until the end of
// the test.
package mailtest

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// Mail is a mail as it came.
type Mail struct {
	From, To string
	// Message has headers and body.
	Message string
	// TLS is that the connection was encrypted, Username who signed in.
	TLS      bool
	Username string
}

// Server is the server. It is safe for concurrent use.
type Server struct {
	// Addr is where it listens.
	Addr string

	mu     sync.Mutex
	mails  []Mail
	refuse error
}

// Options are for Start.
type Options struct {
	// TLS offers STARTTLS, or with Implicit serves nothing else.
	TLS      *tls.Config
	Implicit bool
	// Username and Password, if not empty, have to be given.
	Username, Password string
}

// Start serves until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{}
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &session{s: s, o: &o, c: c}, nil
	}))
	srv.Domain, srv.AllowInsecureAuth, srv.MaxMessageBytes, srv.MaxRecipients = "localhost", false, 1<<20, 1
	srv.ErrorLog = discard{}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Addr = ln.Addr().String()
	if o.Implicit {
		ln = tls.NewListener(ln, o.TLS)
	} else {
		srv.TLSConfig = o.TLS
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		_ = ln.Close() // which the server does not know if it has not begun yet
		<-served
	})
	return s
}

// Mails returns what came so far.
func (s *Server) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Mail(nil), s.mails...)
}

// Refuse has every further recipient be refused; nil takes them again.
func (s *Server) Refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = err
}

type discard struct{}

func (discard) Printf(string, ...any) {}
func (discard) Println(...any)        {}

type session struct {
	s    *Server
	o    *Options
	c    *smtp.Conn
	mail Mail
}

func (x *session) AuthMechanisms() []string {
	if x.o.Username == "" {
		return nil
	}
	return []string{sasl.Plain}
}

func (x *session) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, username, password string) error {
		if username != x.o.Username || password != x.o.Password {
			return errors.New("wrong user name or password")
		}
		x.mail.Username = username
		return nil
	}), nil
}

func (x *session) Mail(from string, _ *smtp.MailOptions) error {
	if x.o.Username != "" && x.mail.Username == "" {
		return smtp.ErrAuthRequired
	}
	x.mail.From = from
	_, x.mail.TLS = x.c.TLSConnectionState()
	return nil
}

func (x *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.mail.To = to
	return x.s.refuse
}

func (x *session) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	x.mail.Message = string(b)
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.s.mails = append(x.s.mails, x.mail)
	return nil
}

func (x *session) Reset()        {}
func (x *session) Logout() error { return nil }
