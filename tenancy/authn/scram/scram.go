// SPDX-License-Identifier: Apache-2.0

// Package scram is SCRAM-SHA-256 (RFC 5802, RFC 7677) for enhanced
// authentication: making what is stored of a password, and the server's side of
// the exchange. The exchange itself is a library's. It owns no goroutine, and
// must not know where credentials come from.
package scram

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"strings"

	"github.com/xdg-go/scram"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Iterations of what is stored. A generated password has 160 random bits, which
// nobody guesses whatever an attempt costs, so that it has the least that
// RFC 7677 §4 allows: the device does this work too. For a chosen one an attempt
// has to cost something.
const (
	IterationsGenerated = 4096
	IterationsChosen    = 65536
)

const saltSize = 16

// Derive returns what is stored of a password, with a new salt.
func Derive(password string, iterations int) (*tenancy.SCRAM, error) {
	salt := make([]byte, saltSize)
	if _, err := rand.Read(salt); err != nil {
		return nil, errs.New(errs.Internal, "random bits: %w", err)
	}
	c, err := scram.SHA256.NewClient("", password, "")
	if err != nil { // SASLprep knows no such password
		c, err = scram.SHA256.NewClientUnprepped("", password, "")
	}
	if err != nil {
		return nil, errs.New(errs.Internal, "scram: %w", err)
	}
	k, err := c.GetStoredCredentialsWithError(scram.KeyFactors{Salt: string(salt), Iters: iterations})
	if err != nil {
		return nil, errs.New(errs.Internal, "scram: %w", err)
	}
	return &tenancy.SCRAM{Salt: salt, Iterations: iterations, StoredKey: k.StoredKey, ServerKey: k.ServerKey}, nil
}

// Server begins exchanges. It is safe for concurrent use. Make it with NewServer.
type Server struct {
	// key makes the salts of those that do not exist, always the same ones in
	// one process, so that a stranger does not learn who exists.
	key [32]byte
}

// NewServer returns a Server.
func NewServer() (*Server, error) {
	s := &Server{}
	if _, err := rand.Read(s.key[:]); err != nil {
		return nil, errs.New(errs.Internal, "random bits: %w", err)
	}
	return s, nil
}

// Exchange is the server's side of one authentication. It is not safe for
// concurrent use.
type Exchange struct {
	c     *scram.ServerConversation
	found error // of find
}

// Begin begins an exchange. find returns what is stored of a user, nil if there
// is nothing; an error of it ends the exchange.
func (s *Server) Begin(find func(username string) (*tenancy.SCRAM, error)) (*Exchange, error) {
	e := &Exchange{}
	server, err := scram.SHA256.NewServer(func(username string) (scram.StoredCredentials, error) {
		// The library leaves the name as it came (RFC 5802 §5.1).
		k, err := find(names.Replace(username))
		if err != nil {
			e.found = err
			return scram.StoredCredentials{}, err
		}
		if k == nil {
			k = s.nobody(username)
		}
		return scram.StoredCredentials{
			KeyFactors: scram.KeyFactors{Salt: string(k.Salt), Iters: k.Iterations}, StoredKey: k.StoredKey, ServerKey: k.ServerKey,
		}, nil
	})
	if err != nil {
		return nil, errs.New(errs.Internal, "scram: %w", err)
	}
	e.c = server.NewConversation()
	return e, nil
}

// names undoes the encoding of a name.
var names = strings.NewReplacer("=2C", ",", "=3D", "=")

// nobody is what nobody has the password of.
func (s *Server) nobody(username string) *tenancy.SCRAM {
	sum := func(what byte) []byte {
		m := hmac.New(sha256.New, s.key[:])
		m.Write([]byte{what})
		m.Write([]byte(username))
		return m.Sum(nil)
	}
	return &tenancy.SCRAM{Salt: sum(0)[:saltSize], Iterations: IterationsGenerated, StoredKey: sum(1), ServerKey: sum(2)}
}

// Step takes the client's data and returns what to answer; done says that the
// client has shown who it is. The error is that of find, or Denied.
func (e *Exchange) Step(data []byte) (answer []byte, done bool, err error) {
	if len(data) > dataMax {
		return nil, false, errs.Coded(errs.Denied, "scram_failed", "the authentication data has more than %d bytes", dataMax)
	}
	text, err := e.c.Step(string(data))
	switch {
	case e.found != nil:
		return nil, false, e.found
	case err != nil:
		return nil, false, errs.Coded(errs.Denied, "scram_failed", "SCRAM-SHA-256 failed: %w", err)
	}
	if id := e.c.AuthzID(); id != "" && id != e.c.Username() {
		return nil, false, errs.Coded(errs.Denied, "scram_failed", "nobody acts for somebody else")
	}
	return []byte(text), e.c.Done() && e.c.Valid(), nil
}

// dataMax bounds what a stranger makes us parse.
const dataMax = 4096
