// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io/fs"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	"github.com/manormq/manor/infra/errs"
)

// issuer is certmagic's Issuer: one order at the CA for each certificate. certmagic's own
// answers challenges in its process, or by files that any of its processes finds; here
// gateways answer them, which have neither.
type issuer struct {
	a   *Authority
	key string // of what certmagic keeps for this CA
}

var _ certmagic.Issuer = (*issuer)(nil)

// issuerKey is a name for a directory's URL that can be part of a path.
func issuerKey(directory string) string {
	u, err := url.Parse(directory)
	if err != nil || u.Host == "" {
		return "ca"
	}
	return strings.NewReplacer("/", "-", ":", "-").Replace(u.Host + strings.TrimSuffix(u.Path, "/"))
}

// IssuerKey implements certmagic.Issuer.
func (i *issuer) IssuerKey() string { return i.key }

// Issue implements certmagic.Issuer.
func (i *issuer) Issue(ctx context.Context, csr *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	client := i.a.client()
	ctx, late := listen(ctx)
	chains, err := i.order(ctx, client, csr)
	if problem, ok := errors.AsType[acme.Problem](err); ok && strings.HasSuffix(problem.Type, ":accountDoesNotExist") {
		// The CA has forgotten the account, as one for tests does at each start.
		if err := i.a.storage.Delete(ctx, i.accountFile()); err != nil {
			return nil, err
		}
		chains, err = i.order(ctx, client, csr)
	}
	if err != nil {
		return nil, late(err)
	}
	if len(chains) == 0 {
		return nil, errs.New(errs.Unavailable, "the CA has issued no certificate")
	}
	return &certmagic.IssuedCertificate{Certificate: chains[0].ChainPEM, Metadata: map[string]string{"url": chains[0].URL, "ca": chains[0].CA}}, nil
}

// order makes one order by the account of this installation.
func (i *issuer) order(ctx context.Context, client *acmez.Client, csr *x509.CertificateRequest) ([]acme.Certificate, error) {
	account, err := i.account(ctx, client)
	if err != nil {
		return nil, err
	}
	params, err := acmez.OrderParametersFromCSR(account, csr)
	if err != nil {
		return nil, err
	}
	if len(csr.DNSNames) == 1 {
		params.Replaces = i.a.replaced(ctx, client, csr.DNSNames[0])
	}
	chains, err := client.ObtainCertificate(ctx, params)
	if params.Replaces != nil && unknown(err) {
		params.Replaces = nil
		chains, err = client.ObtainCertificate(ctx, params)
	}
	return chains, err
}

// kept is an account as it is stored.
type kept struct {
	Account acme.Account `json:"account"`
	Key     []byte       `json:"key"` // PKCS #8
}

func (i *issuer) accountFile() string { return "accounts/" + i.key + "/" + i.a.cfg.Email }

// account returns the account of this installation at the CA, and makes it first where
// there is none.
func (i *issuer) account(ctx context.Context, client *acmez.Client) (acme.Account, error) {
	file := i.accountFile()
	if account, err := i.load(ctx, file); !errors.Is(err, fs.ErrNotExist) {
		return account, err
	}
	if err := i.a.storage.Lock(ctx, file); err != nil {
		return acme.Account{}, err
	}
	defer func() { _ = i.a.storage.Unlock(context.WithoutCancel(ctx), file) }()
	if account, err := i.load(ctx, file); !errors.Is(err, fs.ErrNotExist) { // somebody was faster
		return account, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return acme.Account{}, errs.New(errs.Internal, "make an account: %w", err)
	}
	like := acme.Account{TermsOfServiceAgreed: true, PrivateKey: key}
	if i.a.cfg.Email != "" {
		like.Contact = []string{"mailto:" + i.a.cfg.Email}
	}
	if eab := i.a.cfg.EAB; eab.KeyID != "" {
		if err := like.SetExternalAccountBinding(ctx, client.Client, acme.EAB{KeyID: eab.KeyID, MACKey: eab.MACKey}); err != nil {
			return acme.Account{}, err
		}
	}
	account, err := client.NewAccount(ctx, like)
	if err != nil {
		return account, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return account, errs.New(errs.Internal, "make an account: %w", err)
	}
	value, err := json.Marshal(kept{account, der})
	if err != nil {
		return account, errs.New(errs.Internal, "make an account: %w", err)
	}
	i.a.cfg.Log.Info("an account was made at the certificate authority", "directory", i.a.cfg.Directory, "account", account.Location)
	return account, i.a.storage.Store(ctx, file, value)
}

func (i *issuer) load(ctx context.Context, file string) (acme.Account, error) {
	value, err := i.a.storage.Load(ctx, file)
	if err != nil {
		return acme.Account{}, err
	}
	var k kept
	if err := json.Unmarshal(value, &k); err != nil {
		return acme.Account{}, errs.New(errs.Internal, "stored account: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(k.Key)
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return acme.Account{}, errs.New(errs.Internal, "stored account: expected a key that signs")
	}
	k.Account.PrivateKey = signer
	return k.Account, nil
}

// solver has gateways answer challenges.
type solver struct{ a *Authority }

var (
	_ acmez.Solver = (*solver)(nil)
	_ acmez.Waiter = (*solver)(nil)
)

// Present implements acmez.Solver.
func (s *solver) Present(ctx context.Context, c acme.Challenge) error {
	return s.a.cfg.Challenges.Present(ctx, c.Identifier.Value, sha256.Sum256([]byte(c.KeyAuthorization)))
}

// Wait implements acmez.Waiter: every gateway has to know before the CA asks.
func (s *solver) Wait(ctx context.Context, _ acme.Challenge) error {
	select {
	case <-time.After(s.a.cfg.Settle):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// CleanUp implements acmez.Solver.
func (s *solver) CleanUp(ctx context.Context, c acme.Challenge) error {
	return s.a.cfg.Challenges.CleanUp(context.WithoutCancel(ctx), c.Identifier.Value, sha256.Sum256([]byte(c.KeyAuthorization)))
}
