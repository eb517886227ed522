// SPDX-License-Identifier: Apache-2.0

// Package directory is the tenancy.Directory of the process that has the store:
// the cache of tenancy/remote, over the store's own bus, with the password
// check that belongs to it. Run owns its goroutines.
package directory

import (
	"log/slog"
	"time"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/jwt"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/authn/scram"
	"github.com/manormq/manor/tenancy/remote"
	"github.com/manormq/manor/tenancy/store"
)

// Config says what a Service stands on.
type Config struct {
	Store *store.Store
	// Domain is what the tenants' host names are below: acme.<domain>.
	Domain string
	// OpenKey opens the keys of custom domains' certificates; nil serves none.
	OpenKey func(purpose string, sealed []byte) ([]byte, error)
	// Remembered is how many checked passwords are remembered; 0 means
	// password.DefaultRemembered.
	Remembered int
	Log        *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Service is a tenancy.Directory over a store. It is safe for concurrent use.
type Service struct {
	*remote.Directory
	verifier *password.Verifier
}

var _ tenancy.Directory = (*Service)(nil)

// New returns a Service that answers while its Run runs.
func New(cfg Config) (*Service, error) {
	v, err := password.NewVerifier(cfg.Remembered)
	if err != nil {
		return nil, err
	}
	methods, err := scram.NewServer()
	if err != nil {
		return nil, err
	}
	tokens, err := jwt.New()
	if err != nil {
		return nil, err
	}
	d, err := remote.New(remote.Config{
		Bus:      cfg.Store.Bus(),
		Verifier: v,
		Tokens:   tokens,
		SCRAM: func(find func(string) (*tenancy.SCRAM, error)) (remote.Conversation, error) {
			return methods.Begin(find)
		},
		Domain: cfg.Domain, OpenKey: cfg.OpenKey,
		Region: cfg.Store.Region(),
		Log:    cfg.Log,
		Now:    cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	return &Service{Directory: d, verifier: v}, nil
}

// Verifier is the password check, which hashes for the API too: together they
// use one core per hash at most.
func (s *Service) Verifier() *password.Verifier { return s.verifier }
