// SPDX-License-Identifier: Apache-2.0

// Package store keeps organizations, members, tenants, credentials and API keys in
// buckets of the bus. Changes are compare-and-set by revision; there are no
// transactions, so sign-up is a sequence that a reaper cleans up after (see
// SignUp and Reap). It owns no goroutine. It knows no HTTP, and hashes no
// password: what it is given is a hash already.
package store

import (
	"context"
	"encoding/json"
	"log/slog"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// The buckets besides those that gateways read.
const (
	organizationsBucket = "organizations" // id -> Organization
	apiKeysBucket       = "api_keys"      // id -> APIKey; organization.id -> nothing
	keyUsesBucket       = "key_uses"      // id of an API key -> KeyUse
	membersBucket       = "members"       // organization.id -> Member
	invitationsBucket   = "invitations"   // hash of the token -> invitation
	sessionsBucket      = "sign_ins"      // id -> MemberSession
	verificationsBucket = "verifications" // hash of the code -> Unverified
	operationsBucket    = "operations"    // tenant.id -> Operation
	policiesBucket      = "policies"      // meta.tenant.revision -> Policy without its text; text.tenant.revision -> that
	managedCAsBucket    = "managed_cas"   // tenant -> ManagedCA
	claimsBucket        = "claims"        // tenant.id -> Claim
	sourcesBucket       = "file_sources"  // tenant.kind -> Source
	cellsBucket         = "cells"         // tenant -> Cell
	repliesBucket       = "replies"       // digest of Idempotency-Key -> sealed answer
)

// ClaimLife is for how long a Claim is good at most.
const ClaimLife = 30 * 24 * time.Hour

// replyLife is how long an Idempotency-Key is remembered.
const replyLife = 24 * time.Hour

// Config says what the store stands on.
type Config struct {
	Bus bus.Bus
	Log *slog.Logger
	// Region is where new tenants live.
	Region string
	// Tickets seals the secrets of TLS session tickets, with a key that gateways have too;
	// nil stores them in clear.
	Tickets TicketSealer
	// Limiter says what limits tenants have; nil leaves them to plans and overrides.
	Limiter Limiter
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// TicketSealer encrypts for one purpose, and opens for the same one. It may be called
// concurrently.
type TicketSealer interface {
	Seal(purpose string, text []byte) []byte
	Open(purpose string, sealed []byte) ([]byte, error)
}

// Store is the keeper. It is safe for concurrent use. Make it with New.
type Store struct {
	cfg           Config
	log           *slog.Logger
	now           func() time.Time
	organizations bus.Bucket
	tenants       bus.Bucket
	credentials   bus.Bucket
	apiKeys       bus.Bucket
	keyUses       bus.Bucket
	members       bus.Bucket
	invitations   bus.Bucket
	sessions      bus.Bucket
	verifications bus.Bucket
	operations    bus.Bucket
	replies       bus.Bucket
	tickets       bus.Bucket
	policies      bus.Bucket
	grants        bus.Bucket
	bans          bus.Bucket
	tokenKeys     bus.Bucket
	managedCAs    bus.Bucket
	devices       bus.Bucket
	deviceGroups  bus.Bucket
	claims        bus.Bucket
	domains       bus.Bucket
	hosts         bus.Bucket
	sources       bus.Bucket
	cells         bus.Bucket
	purged        bus.Bucket
	counts        counts
	deviceCounts  counts
	lists         lists
	uses          uses
}

// New opens the buckets and makes those that are missing.
func New(ctx context.Context, cfg Config) (*Store, error) {
	s := &Store{cfg: cfg, log: cfg.Log, now: cfg.Now}
	if s.now == nil {
		s.now = time.Now
	}
	for _, b := range []struct {
		name string
		ttl  time.Duration
		to   *bus.Bucket
	}{
		{organizationsBucket, 0, &s.organizations},
		{tenancy.TenantsBucket, 0, &s.tenants},
		{tenancy.CredentialsBucket, 0, &s.credentials},
		{apiKeysBucket, 0, &s.apiKeys},
		{keyUsesBucket, 0, &s.keyUses},
		{membersBucket, 0, &s.members},
		{invitationsBucket, InvitationLife, &s.invitations},
		{sessionsBucket, SessionLife, &s.sessions},
		{verificationsBucket, VerificationLife, &s.verifications},
		{operationsBucket, operationLife, &s.operations},
		{repliesBucket, replyLife, &s.replies},
		{tenancy.TicketsBucket, 0, &s.tickets},
		{policiesBucket, 0, &s.policies},
		{tenancy.GrantsBucket, 0, &s.grants},
		{tenancy.BansBucket, 0, &s.bans},
		{tenancy.KeysBucket, 0, &s.tokenKeys},
		{tenancy.DevicesBucket, 0, &s.devices},
		{deviceGroupsBucket, 0, &s.deviceGroups},
		{managedCAsBucket, 0, &s.managedCAs},
		{claimsBucket, ClaimLife, &s.claims},
		{sourcesBucket, 0, &s.sources},
		{cellsBucket, 0, &s.cells},
		{purgedBucket, 0, &s.purged},
		{tenancy.DomainsBucket, 0, &s.domains},
		{tenancy.HostsBucket, 0, &s.hosts},
	} {
		k, err := cfg.Bus.Bucket(ctx, bus.BucketConfig{Name: b.name, TTL: b.ttl})
		if err != nil {
			return nil, errs.New(errs.KindOf(err), "open the tenancy store: %w", err)
		}
		*b.to = k
	}
	return s, nil
}

// Bus is what the store stands on.
func (s *Store) Bus() bus.Bus { return s.cfg.Bus }

// Region is where new tenants live.
func (s *Store) Region() string { return s.cfg.Region }

// newID returns a fresh id with the prefix, lower case.
func newID(prefix string) string {
	b := []byte(ulid.Make().String())
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return prefix + string(b)
}

// put writes v as JSON.
func put(ctx context.Context, b bus.Bucket, key string, v any, at bus.Revision) (uint64, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return 0, errs.New(errs.Internal, "encode %s: %w", key, err)
	}
	rev, err := b.Put(ctx, key, value, at)
	return uint64(rev), err
}

// named turns a NotFound, also of a key that cannot be one, into one that says
// what was not found; other errors stay.
func named(err error, code, format string, args ...any) error {
	if errs.Is(err, errs.NotFound) || errs.Is(err, errs.Invalid) {
		return errs.Coded(errs.NotFound, code, format, args...)
	}
	return err
}
