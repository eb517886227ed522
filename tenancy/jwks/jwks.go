// SPDX-License-Identifier: Apache-2.0

// Package jwks fetches the key sets of the issuers whose tokens tenants take, and
// keeps them in the bucket that gateways read. Any number of processes may do it.
// Run owns its goroutines. It checks no token.
package jwks

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/fair"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// Intervals.
const (
	// DefaultEvery is how old a key set gets: so long a key that an issuer has taken
	// back is believed.
	DefaultEvery = 5 * time.Minute
	// retryEvery is when an issuer is asked again that did not answer.
	retryEvery = 30 * time.Second
	// askedEvery is how often an issuer is asked at most because a gateway does not
	// know a key.
	askedEvery = 10 * time.Second
	// fetchesAtOnce bounds how many issuers are asked at once, fetchesOfOne those of one
	// tenant: its issuers may let one wait until fetchTime.
	fetchesAtOnce = 16
	fetchesOfOne  = 4
)

// Config says what a Fetcher stands on.
type Config struct {
	Store *store.Store
	// Networks may be reached though they are not on the public internet, also
	// without TLS.
	Networks []string
	// Every is how old a key set gets; 0 means DefaultEvery.
	Every time.Duration
	Log   *slog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Fetcher fetches key sets. It is safe for concurrent use. Make it with New.
type Fetcher struct {
	cfg    Config
	getter *getter
	// slots are for fetching what is old, asked for what gateways miss: issuers that
	// let one wait must not keep clients of other tenants out.
	slots, askSlots *fair.Turns
	wake            chan struct{} // holds a token when wanted has changed

	mu     sync.Mutex
	wanted map[string][]string // guarded by mu; addresses by tenant
}

// Validate returns an error Invalid if networks cannot be Config.Networks.
func Validate(networks []string) error {
	for _, text := range networks {
		if _, err := tenancy.ParseNetwork(text); err != nil {
			return errs.New(errs.Invalid, "jwks_networks: %w", err)
		}
	}
	return nil
}

// New returns a Fetcher, which fetches while Run runs.
func New(cfg Config) (*Fetcher, error) {
	if err := Validate(cfg.Networks); err != nil {
		return nil, err
	}
	if cfg.Every <= 0 {
		cfg.Every = DefaultEvery
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Fetcher{
		cfg: cfg, getter: newGetter(tenancy.ParseNetworks(cfg.Networks)), slots: fair.NewTurns(fetchesAtOnce, fetchesOfOne), askSlots: fair.NewTurns(fetchesAtOnce, fetchesOfOne),
		wake: make(chan struct{}, 1), wanted: map[string][]string{},
	}, nil
}

// Run keeps the key sets fresh, and answers gateways that miss a key, until ctx is
// done.
func (f *Fetcher) Run(ctx context.Context) error {
	stop, err := f.cfg.Store.Bus().Serve(tenancy.SubjectKeys, f.asked)
	if err != nil {
		return err
	}
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { _ = f.cfg.Store.WatchTenants(ctx, f.tenant) }) // ends with ctx only
	for {
		next := f.round(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		case <-time.After(next):
		}
	}
}

// tenant hears of a tenant.
func (f *Fetcher) tenant(id string, t *tenancy.TenantRecord) {
	var all []string
	if t != nil && t.State != tenancy.StateDeleted {
		for n := range t.Issuers {
			if u := t.Issuers[n].JWKSURL; u != "" {
				all = append(all, u)
			}
		}
	}
	f.mu.Lock()
	had := f.wanted[id]
	if f.wanted[id] = all; len(all) == 0 {
		delete(f.wanted, id)
	}
	f.mu.Unlock()
	if len(all) > 0 || len(had) > 0 {
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
	if len(had) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), fetchTime)
		defer cancel()
		if err := f.cfg.Store.DropTokenKeys(ctx, id, all); err != nil {
			f.cfg.Log.Warn("the keys of an issuer that a tenant has no more stay", "tenant", id, "error", err)
		}
	}
}

// round fetches what is old, and returns after what time something is old again.
func (f *Fetcher) round(ctx context.Context) time.Duration {
	f.mu.Lock()
	var all []tenancy.KeySetRequest
	for tenant, addresses := range f.wanted {
		for _, u := range addresses {
			all = append(all, tenancy.KeySetRequest{Tenant: tenant, URL: u})
		}
	}
	f.mu.Unlock()
	var wg sync.WaitGroup
	var mu sync.Mutex
	next := f.cfg.Every
	for _, r := range all {
		wg.Go(func() {
			end, err := f.slots.Take(ctx, r.Tenant)
			if err != nil {
				return // ctx is done
			}
			defer end()
			k, err := f.refresh(ctx, r, f.cfg.Every)
			left := retryEvery
			if err == nil && k.Problem == "" {
				left = f.cfg.Every - f.cfg.Now().Sub(k.TriedAt)
			}
			mu.Lock()
			defer mu.Unlock()
			next = min(next, max(left, 0))
		})
	}
	wg.Wait()
	return next + 10*time.Millisecond // not before it is old
}

// asked answers a gateway that does not know a key.
func (f *Fetcher) asked(ctx context.Context, body []byte) ([]byte, error) {
	var r tenancy.KeySetRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, errs.New(errs.Invalid, "expected a request for keys in JSON: %w", err)
	}
	// Of the store, as the watch may be behind: what is fetched is what a tenant has
	// said, and not what is asked for.
	t, err := f.cfg.Store.Tenant(ctx, r.Tenant)
	if err != nil {
		return nil, err
	}
	for n := range t.Issuers {
		if t.Issuers[n].JWKSURL == r.URL {
			end, err := f.askSlots.Take(ctx, r.Tenant)
			if err != nil {
				return nil, errs.New(errs.Unavailable, "too many key sets are fetched")
			}
			defer end()
			k, err := f.refresh(ctx, r, askedEvery)
			if err != nil {
				return nil, err
			}
			return json.Marshal(k)
		}
	}
	return nil, errs.Coded(errs.NotFound, "issuer_not_found", "the tenant %s has no issuer with that address of keys", r.Tenant)
}

// refresh fetches a key set unless that was tried within the time old, and keeps it.
// With one that did not come the last one stays.
func (f *Fetcher) refresh(ctx context.Context, r tenancy.KeySetRequest, old time.Duration) (*tenancy.KeySet, error) {
	k, at, err := f.cfg.Store.TokenKeys(ctx, r.Tenant, r.URL)
	switch {
	case errs.Is(err, errs.NotFound):
		k, at = &tenancy.KeySet{Tenant: r.Tenant, URL: r.URL}, bus.Absent
	case err != nil:
		return nil, err
	}
	if k.Problem != "" {
		old = min(old, retryEvery)
	}
	now := f.cfg.Now().UTC()
	if now.Sub(k.TriedAt) < old {
		return k, nil
	}
	jwks, err := f.getter.get(ctx, r.URL)
	if ctx.Err() != nil {
		return nil, errs.New(errs.Unavailable, "fetch keys: %w", ctx.Err())
	}
	was := k.Problem
	if k.TriedAt, k.Problem = now, ""; err != nil {
		k.Problem = err.Error()
		if was == "" {
			f.cfg.Log.Warn("the keys of an issuer cannot be fetched; those that are known stay", "tenant", r.Tenant, "url", r.URL, "error", cause(err))
		}
	} else {
		k.JWKS, k.FetchedAt = jwks, now
	}
	err = f.cfg.Store.PutTokenKeys(ctx, k, at)
	if errs.Is(err, errs.Conflict) { // somebody else has fetched them
		k, _, err = f.cfg.Store.TokenKeys(ctx, r.Tenant, r.URL)
	}
	return k, err
}
