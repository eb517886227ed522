// SPDX-License-Identifier: Apache-2.0

// Package domains is custom domains of tenants: names are verified by a TXT record of the
// DNS, and their certificates issued and renewed by a certificate authority (ACME), or
// uploaded. Gateways read what it publishes in tenancy.HostsBucket. Any number of
// processes may run it: what one does, the others do not. Run owns its goroutines.
package domains

import (
	"context"
	"crypto/x509"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/domains/acme"
	"github.com/manormq/manor/tenancy/lease"
	"github.com/manormq/manor/tenancy/managedca"
	"github.com/manormq/manor/tenancy/store"
)

// Authority issues certificates; see package acme. Implementations are safe for
// concurrent use.
type Authority interface {
	// Obtain gets a new certificate, with a new key: the chain and the key in PEM.
	Obtain(ctx context.Context, fqdn string) (chain, key []byte, err error)
	// Stored returns what Obtain got last, or an error NotFound.
	Stored(ctx context.Context, fqdn string) (chain, key []byte, err error)
	// Suggested returns when a certificate that Obtain got is to be renewed, or an error NotFound if
	// the authority suggests nothing.
	Suggested(ctx context.Context, leaf *x509.Certificate) (acme.Suggestion, error)
	// Forget removes what is kept for a name.
	Forget(ctx context.Context, fqdn string) error
	// Names returns the names that something is kept for.
	Names(ctx context.Context) ([]string, error)
}

// Config says what a Service stands on.
type Config struct {
	Store *store.Store
	// Sealer seals the keys of certificates for gateways; nil has no custom domains.
	Sealer *managedca.Sealer
	// Authority issues certificates; nil leaves tenants to upload theirs.
	Authority Authority
	// Resolver is the host:port of the DNS server that is asked; empty is the system's.
	Resolver string
	// Settle is acme.Config's: for how long a challenge is known before the CA asks; 0
	// means its default.
	Settle time.Duration
	// LockLife is for how long the lock of a process that is gone stands still until another one
	// takes it over; 0 means lease.DefaultLife.
	LockLife time.Duration
	// Orders is how many orders all tenants make in 3 hours; 0 means DefaultOrders.
	Orders int
	// Domain is the installation's own, whose names are nobody's custom domain.
	Domain string
	Log    *slog.Logger
	// Registerer takes the metrics; nil means none.
	Registerer prometheus.Registerer
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Service follows custom domains. It is safe for concurrent use. Make it with New.
type Service struct {
	cfg   Config
	store *store.Store
	log   *slog.Logger
	now   func() time.Time
	// owns asks the DNS whether a domain is its tenant's, for who waits for that; see
	// resolver.verify. stillOwns is the same for Run.
	owns      func(ctx context.Context, who string, d *tenancy.Domain) error
	stillOwns func(ctx context.Context, d *tenancy.Domain) error
	leases    *lease.Leases
	orders    *orders
	metrics   metrics

	mu      sync.Mutex
	known   map[string]*tenancy.Domain // guarded by mu; by key, while Run runs
	working map[string]string          // guarded by mu; by tenant, the key of the one that is seen to just now
	later   map[string]time.Time       // guarded by mu; by key or tenant, when what could not be seen to is looked at again
	turns   map[string]uint64          // guarded by mu; by tenant, the number of its last turn
	turn    uint64                     // guarded by mu
	wake    chan struct{}              // holds a token when known has changed
}

// New returns a Service that renews while its Run runs.
func New(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	locks, err := cfg.Store.Bus().Bucket(ctx, bus.BucketConfig{Name: locksBucket})
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "open the locks of domains: %w", err)
	}
	// A tally is of a day; those of tenants that are gone go with time.
	tallies, err := cfg.Store.Bus().Bucket(ctx, bus.BucketConfig{Name: OrdersBucket, TTL: 48 * time.Hour})
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "open the orders of domains: %w", err)
	}
	if cfg.LockLife <= 0 {
		cfg.LockLife = lease.DefaultLife
	}
	if cfg.Orders <= 0 {
		cfg.Orders = DefaultOrders
	}
	r := newResolver(cfg.Resolver, cfg.Log)
	return &Service{
		cfg: cfg, store: cfg.Store, log: cfg.Log, now: cfg.Now,
		owns: func(ctx context.Context, who string, d *tenancy.Domain) error {
			return r.verify(ctx, r.asked, who, d)
		},
		stillOwns: func(ctx context.Context, d *tenancy.Domain) error { return r.verify(ctx, r.due, d.Tenant, d) },
		leases:    lease.New(lease.Config{Bucket: locks, Life: cfg.LockLife, Log: cfg.Log}),
		orders:    &orders{tallies, cfg.Orders, cfg.Now},
		metrics:   newMetrics(cfg.Registerer),
		known:     map[string]*tenancy.Domain{}, working: map[string]string{}, later: map[string]time.Time{}, turns: map[string]uint64{},
		wake: make(chan struct{}, 1),
	}, nil
}

// locksBucket has the locks by which one of several processes sees to a domain.
const locksBucket = "domain_locks"

// Check returns the domain that Create would make, or its error.
func (s *Service) Check(ctx context.Context, t *tenancy.TenantRecord, name, source string) (*tenancy.Domain, error) {
	fqdn, err := s.mayCreate(name, source)
	if err != nil {
		return nil, err
	}
	return s.store.CheckDomain(ctx, t, fqdn, source)
}

func (s *Service) mayCreate(name, source string) (fqdn string, err error) {
	if s.cfg.Sealer == nil {
		return "", errs.Coded(errs.Conflict, "domains_unavailable", "this installation serves no custom domains; its operator has to set domains.key_file")
	}
	if fqdn, err = Normalize(name, s.cfg.Domain); err != nil {
		return "", err
	}
	if source == tenancy.CertificateACME && s.cfg.Authority == nil {
		return "", errs.Coded(errs.Conflict, "acme_unavailable",
			"this installation gets no certificates; expected \"certificate\": \"uploaded\" (manor domain create --uploaded), or the operator to set domains.acme.enabled")
	}
	if base, wild := tenancy.WildcardOf(fqdn); wild && source == tenancy.CertificateACME {
		return "", errs.Coded(errs.Invalid, "wildcard_not_issued",
			"no certificate is issued here for the wildcard %s: authorities ask for DNS-01, and the zone is yours. Get one there with an ACME client of your own, claim the domain with \"certificate\": \"uploaded\" (manor domain create --uploaded), and upload it; or claim each name below %s",
			fqdn, base)
	}
	return fqdn, nil
}

// Create makes a claim of a tenant to a name; see store.AddDomain for its errors, and
// Normalize. source is tenancy.CertificateACME or tenancy.CertificateUploaded.
func (s *Service) Create(ctx context.Context, t *tenancy.TenantRecord, name, source string) (*tenancy.Domain, error) {
	fqdn, err := s.mayCreate(name, source)
	if err != nil {
		return nil, err
	}
	return s.store.AddDomain(ctx, t, fqdn, source)
}

// Find returns a domain by any way of writing its name, or an error NotFound.
func (s *Service) Find(ctx context.Context, tenant, name string) (*tenancy.Domain, error) {
	fqdn, err := Normalize(name, s.cfg.Domain)
	if err != nil {
		return nil, errs.Coded(errs.NotFound, "domain_not_found", "the tenant %s has no domain %q", tenant, name)
	}
	return s.store.Domain(ctx, tenant, fqdn)
}

// Delete removes a domain and its certificate; see store.RemoveDomain.
func (s *Service) Delete(ctx context.Context, tenant, fqdn string, ifRevision uint64) (*tenancy.Domain, error) {
	d, err := s.store.Domain(ctx, tenant, fqdn)
	if err != nil {
		return nil, err
	}
	if ifRevision == 0 || ifRevision == d.Revision {
		s.forget(ctx, tenant, fqdn)
	}
	return s.store.RemoveDomain(ctx, tenant, fqdn, ifRevision)
}

// CheckRenew returns the error that Renew would.
func (s *Service) CheckRenew(d *tenancy.Domain) error {
	switch {
	case d.State == tenancy.DomainPending:
		return errs.Coded(errs.Conflict, "domain_unverified", "%s is not verified yet", d.FQDN)
	case d.Source != tenancy.CertificateACME:
		return errs.Coded(errs.Conflict, "certificate_uploaded", "the certificate of %s is uploaded: upload another one", d.FQDN)
	case s.cfg.Authority == nil:
		return errs.Coded(errs.Conflict, "acme_unavailable", "this installation gets no certificates: its operator has to set domains.acme.enabled")
	}
	return nil
}

// How often a tenant may ask for a new certificate of one name: CAs bound how many they
// issue, and how many orders one account makes.
const (
	renewEvery       = time.Hour
	renewFailedEvery = 5 * time.Minute // after a failure
)

// Renew has the certificate issued anew, soon: who asks finds out by NextRenewal and
// NotAfter how it went. The error is Conflict, or a tenancy.ExceededError with
// RetryAfter if it was asked for a moment ago.
func (s *Service) Renew(ctx context.Context, tenant, fqdn string, ifRevision uint64) (was, now *tenancy.Domain, err error) {
	return s.store.ChangeDomain(ctx, tenant, fqdn, ifRevision, func(d *tenancy.Domain) error {
		if err := s.CheckRenew(d); err != nil {
			return err
		}
		at := s.now().UTC()
		every := renewEvery
		if d.State == tenancy.DomainFailed {
			every = renewFailedEvery
		}
		if wait := every - at.Sub(d.AskedAt); wait > 0 {
			return &tenancy.ExceededError{Quota: "domain_renewals", Limit: 1, Usage: 1, RetryAfter: seconds(wait)}
		}
		d.AskedAt, d.Asked, d.NextRenewal = at, true, at
		return nil
	})
}

// seconds rounds up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }
