// SPDX-License-Identifier: Apache-2.0

// Package acme gets certificates from a certificate authority (ACME, RFC 8555), by
// certmagic, whose storage and locks are in a bucket of the bus, so that any process of a
// region may ask and one does. Challenges are TLS-ALPN-01 (RFC 8737), which it has
// answered by others. It owns a goroutine of certmagic's from New to Close, and knows no
// tenants.
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy/lease"
	"github.com/manormq/manor/tenancy/managedca"
)

// Times of an order.
const (
	// DefaultSettle is for how long a challenge is known before the CA is told to ask:
	// a change reaches every gateway in that time.
	DefaultSettle = 2 * time.Second
	// orderTime is how long one certificate may take.
	orderTime = 2 * time.Minute
	pollEvery = 250 * time.Millisecond
	callTime  = 30 * time.Second
)

// Challenges are answered by others. Implementations are safe for concurrent use.
type Challenges interface {
	// Present has the digest of a key authorization shown to who asks for that name.
	Present(ctx context.Context, fqdn string, digest [32]byte) error
	// CleanUp ends that, unless another digest is shown meanwhile.
	CleanUp(ctx context.Context, fqdn string, digest [32]byte) error
}

// EAB is an external account binding, as a CA gives it out.
type EAB struct {
	KeyID string
	// MACKey is the key in base64url, without padding.
	MACKey string
}

// LoadEAB reads the MAC key of a binding from a file; without a key id there is none. The error is
// Invalid.
func LoadEAB(keyID, file string) (EAB, error) {
	if keyID == "" {
		return EAB{}, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return EAB{}, errs.New(errs.Invalid, "expected a file with the HMAC key that the CA has given out: %w", err)
	}
	key := strings.TrimRight(strings.TrimSpace(string(b)), "=")
	if raw, err := base64.RawURLEncoding.DecodeString(key); err != nil || len(raw) < 16 {
		return EAB{}, errs.New(errs.Invalid, "expected an HMAC key of 16 bytes or more in base64url in %s, as the CA has given it out", file)
	}
	return EAB{keyID, key}, nil
}

// LoadRoots reads the roots by which a CA's own server is known. The error is Invalid.
func LoadRoots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, errs.New(errs.Invalid, "expected a PEM file with the roots of the ACME server: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errs.New(errs.Invalid, "expected certificates in PEM in %s, found none", file)
	}
	return roots, nil
}

// Config says what an Authority stands on.
type Config struct {
	Bus bus.Bus
	// Sealer seals keys in the bucket.
	Sealer     *managedca.Sealer
	Challenges Challenges
	// Directory is the URL of the CA's directory.
	Directory string
	// Email is whom the CA writes to; empty is nobody.
	Email string
	// EAB binds the account to one that the operator has at the CA (RFC 8555 §7.3.4); the zero EAB
	// binds it to none.
	EAB EAB
	// LockLife is lease.Config's Life of certmagic's locks.
	LockLife time.Duration
	// CAFile has the roots by which the CA's own server is known, in PEM; empty is the
	// system's.
	CAFile string
	// Settle is for how long a challenge is known before the CA asks; 0 means
	// DefaultSettle.
	Settle time.Duration
	Log    *slog.Logger
}

// Authority is a CA that is asked by ACME. It is safe for concurrent use. Make it with
// New.
type Authority struct {
	cfg     Config
	quiet   *slog.Logger // of the protocol, which says too much
	storage *storage
	http    *http.Client
	cache   *certmagic.Cache
	magic   *certmagic.Config
	issuer  *issuer
}

// New opens the bucket. The error is Invalid if the roots cannot be read.
func New(ctx context.Context, cfg Config) (*Authority, error) {
	if cfg.Settle <= 0 {
		cfg.Settle = DefaultSettle
	}
	transport, _ := http.DefaultTransport.(*http.Transport)
	transport = transport.Clone()
	if cfg.CAFile != "" {
		roots, err := LoadRoots(cfg.CAFile)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	}
	bucket, err := cfg.Bus.Bucket(ctx, bus.BucketConfig{Name: Bucket})
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "open the bucket of ACME: %w", err)
	}
	a := &Authority{
		cfg: cfg, quiet: slog.New(slog.DiscardHandler), http: &http.Client{Transport: listening{transport}, Timeout: callTime},
		storage: &storage{lease.New(lease.Config{Bucket: bucket, Life: cfg.LockLife, Log: cfg.Log}), bucket, cfg.Sealer},
	}
	a.issuer = &issuer{a, issuerKey(cfg.Directory)}
	a.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return a.magic, nil },
		Logger:           zap.NewNop(),
	})
	a.magic = certmagic.New(a.cache, certmagic.Config{
		Storage: a.storage, Issuers: []certmagic.Issuer{a.issuer}, Logger: zap.NewNop(),
		DisableARI: true, // who asks for a certificate says when, see Suggested
		OCSP:       certmagic.OCSPConfig{DisableStapling: true},
	})
	return a, nil
}

// Close ends certmagic's goroutine.
func (a *Authority) Close() { a.cache.Stop() }

// Obtain gets a new certificate for a name, with a new key. It returns the chain and the
// key in PEM. It takes a few seconds, at most two minutes. The error is Denied with the
// CA's own words if it refuses, or Unavailable.
func (a *Authority) Obtain(ctx context.Context, fqdn string) (chain, key []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	if err := a.magic.RenewCertSync(ctx, fqdn, true); err != nil {
		return nil, nil, a.told(fqdn, err)
	}
	return a.Stored(ctx, fqdn)
}

// Stored returns what was issued last for a name, as Obtain does, or an error NotFound.
func (a *Authority) Stored(ctx context.Context, fqdn string) (chain, key []byte, err error) {
	if chain, err = a.storage.Load(ctx, certmagic.StorageKeys.SiteCert(a.issuer.key, fqdn)); err == nil {
		key, err = a.storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(a.issuer.key, fqdn))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, errs.New(errs.NotFound, "no certificate of %s is kept", fqdn)
	case err != nil:
		return nil, nil, errs.New(errs.Unavailable, "the certificate of %s is kept and cannot be read: %w", fqdn, err)
	}
	return chain, key, nil
}

// Forget removes what is kept for a name.
func (a *Authority) Forget(ctx context.Context, fqdn string) error {
	return a.storage.Delete(ctx, certmagic.StorageKeys.CertsSitePrefix(a.issuer.key, fqdn))
}

// Names returns the names that something is kept for.
func (a *Authority) Names(ctx context.Context) ([]string, error) {
	folders, err := a.storage.List(ctx, certmagic.StorageKeys.CertsPrefix(a.issuer.key), false)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(folders))
	for n, f := range folders {
		names[n] = path.Base(f) // certmagic changes nothing about A-labels
	}
	return names, nil
}
