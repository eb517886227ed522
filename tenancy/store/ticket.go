// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// RotateTickets makes a new secret of TLS session tickets if it is time, and
// reports whether it did. Any number of processes may do it. Secrets that were stored in
// clear before there was Config.Tickets are made anew, all of them.
func (s *Store) RotateTickets(ctx context.Context) (bool, error) {
	at := bus.Absent
	var old *tenancy.TicketSecrets
	e, err := s.tickets.Get(ctx, tenancy.TicketsKey)
	switch {
	case err == nil:
		at = e.Revision
		if old, err = tenancy.DecodeTickets(e.Value, s.openTickets); err != nil {
			s.log.Error("the secrets of session tickets are made anew", "error", err)
			old = nil
		} else if s.cfg.Tickets != nil && !old.Sealed {
			old = nil
		}
	case !errs.Is(err, errs.NotFound):
		return false, err
	}
	now := s.now().UTC()
	if !old.Due(now) {
		return false, nil
	}
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	var seal func(string, []byte) []byte
	if s.cfg.Tickets != nil {
		seal = s.cfg.Tickets.Seal
	}
	value, err := old.With(secret, now).Encode(seal)
	if err != nil {
		return false, err
	}
	_, err = s.tickets.Put(ctx, tenancy.TicketsKey, value, at)
	if errs.Is(err, errs.Conflict) { // somebody else was faster
		return false, nil
	}
	return err == nil, err
}

func (s *Store) openTickets(purpose string, sealed []byte) ([]byte, error) {
	if s.cfg.Tickets == nil {
		return nil, errs.New(errs.Unavailable, "they are sealed: expected domains.key_file, as the other tenancyds have it")
	}
	return s.cfg.Tickets.Open(purpose, sealed)
}

// RunTickets rotates until ctx is done, when it is time.
func (s *Store) RunTickets(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		if did, err := s.RotateTickets(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn("the secrets of TLS session tickets are not renewed", "error", err, "retry_in", time.Minute)
		} else if did {
			s.log.Info("TLS session tickets have a new secret")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}
