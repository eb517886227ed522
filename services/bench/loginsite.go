// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/xdg-go/scram"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy/authn/password"
)

// loginSite is a tenant whose clients can show who they are in every way.
type loginSite struct {
	LoginsCost
	b      *broker
	tenant *siteTenant
	ca     *deviceCA
	certs  []tls.Certificate
	signer jose.Signer
	talks  *scram.Client
	// word is the password that all chosen ones are, and that of SCRAM.
	word string
	// kept is the token of byJWTKept.
	kept string
}

// loginCerts is how many clients have a certificate.
const loginCerts = 64

// The names of credentials.
func (s *loginSite) imported(run, i int) string { return fmt.Sprintf("c%d-%d", run, i) }

const (
	scramUser  = "scram"
	jwtIssuer  = "https://bench.example/"
	loginReady = 20 * time.Second
)

// site signs a tenant up and gives it credentials of each kind.
func (l LoginsCost) site(ctx context.Context, b *broker) (s *loginSite, err error) {
	s = &loginSite{LoginsCost: l, b: b, word: "correct-horse-battery"}
	tenants, err := signUpTenants(ctx, b.reach.API, 1)
	if err != nil {
		return nil, err
	}
	s.tenant = tenants[0]
	for _, step := range []func(context.Context) error{s.passwords, s.certificates, s.tokens} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return s, s.ready(ctx)
}

// passwords makes the credentials with chosen passwords, which are hashed once for all,
// and that of SCRAM.
func (s *loginSite) passwords(ctx context.Context) error {
	verifier, err := password.NewVerifier(0)
	if err != nil {
		return err
	}
	hash, err := verifier.Hash(ctx, "bench", s.word)
	if err != nil {
		return err
	}
	var items []map[string]string
	for run := range s.Runs {
		for i := range s.share(byPassword) {
			items = append(items, map[string]string{"username": s.imported(run, i), "hash": hash})
		}
	}
	var o struct {
		ID    string `json:"id"`
		State string `json:"state"`
	}
	if err := s.tenant.call(ctx, &s.b.reach, http.MethodPost, "/credentials:import", map[string]any{"items": items}, &o); err != nil {
		return err
	}
	for end := time.Now().Add(loginReady); o.State != "done"; pause(ctx, 50*time.Millisecond) {
		if err := s.tenant.call(ctx, &s.b.reach, http.MethodGet, "/operations/"+o.ID, nil, &o); err != nil {
			return err
		}
		if time.Now().After(end) {
			return errs.New(errs.Unavailable, "the import of %d credentials is %q after %v, expected done", len(items), o.State, loginReady)
		}
	}
	if s.talks, err = scram.SHA256.NewClient(s.tenant.id+":"+scramUser, s.word, ""); err != nil {
		return err
	}
	return s.tenant.call(ctx, &s.b.reach, http.MethodPost, "/credentials", map[string]any{"username": scramUser, "password": s.word, "scram": true}, nil)
}

func (s *loginSite) certificates(ctx context.Context) (err error) {
	if s.ca, err = newDeviceCA(); err != nil {
		return err
	}
	for i := range loginCerts {
		cert, _, err := s.ca.issue(fmt.Sprintf("device-%d", i))
		if err != nil {
			return err
		}
		s.certs = append(s.certs, *cert)
	}
	return s.tenant.call(ctx, &s.b.reach, http.MethodPut, "/client-cas", map[string]any{
		"certificates": s.ca.pem(), "client_certs": "optional", "use_identity_as_username": "cn", "certificate_authenticates": true,
	}, nil)
}

// tokens makes an issuer with a key of ES256.
func (s *loginSite) tokens(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	s.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		return err
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: string(jose.ES256), Use: "sig"}}})
	if err != nil {
		return err
	}
	if s.kept, err = s.token("kept"); err != nil {
		return err
	}
	issuer := map[string]any{"issuer": jwtIssuer, "audience": []string{"manor"}, "jwks": string(keys)}
	return s.tenant.call(ctx, &s.b.reach, http.MethodPut, "/jwt-issuers", map[string]any{"items": []any{issuer}}, nil)
}

// token signs one for a client of that name.
func (s *loginSite) token(name string) (string, error) {
	return jwt.Signed(s.signer).Claims(jwt.Claims{
		Issuer: jwtIssuer, Subject: name, Audience: jwt.Audience{"manor"}, Expiry: jwt.NewNumericDate(time.Now().Add(time.Hour)),
	}).Serialize()
}

// ready waits until each method lets a client in: what the API has changed is everywhere
// in 2 s. The passwords that are to be new are not tried.
func (s *loginSite) ready(ctx context.Context) error {
	for method, visit := range s.visits() {
		if method == byPassword || method == byPasswordKept {
			continue
		}
		for end := time.Now().Add(loginReady); ; pause(ctx, 50*time.Millisecond) {
			c, err := visit(0, 0)
			if err == nil {
				c.leave()
				break
			}
			if time.Now().After(end) || ctx.Err() != nil {
				return fmt.Errorf("%s: %w", method, err)
			}
		}
	}
	return nil
}

// visits are how clients of s connect.
func (s *loginSite) visits() visits {
	plain := Options{Addr: s.b.addrs[overTCP], MQTT: int(mqtt3), KeepAlive: 60}
	open := func(o Options, kind string, run, i int, user, pass string) (*client, error) {
		o.User, o.Pass = user, pass
		return o.open(i, fmt.Sprintf("%s-%d-%d", kind, run, i), true, 256)
	}
	secure := func(resumed bool, certs ...tls.Certificate) func(i int) Options {
		sessions := make([]tls.ClientSessionCache, loginCerts)
		for i := range sessions {
			sessions[i] = tls.NewLRUClientSessionCache(1)
		}
		return func(i int) Options {
			o := plain
			o.Addr, o.Transport = s.b.addrs[overTLS], overTLS
			// Nobody's secrets are told to whom they are not known already.
			o.tls = &tls.Config{ServerName: s.tenant.id + "." + devDomain, CurvePreferences: []tls.CurveID{tls.X25519}, InsecureSkipVerify: true}
			if len(certs) > 0 {
				o.tls.Certificates = certs[i%len(certs) : i%len(certs)+1]
			}
			if resumed {
				o.tls.ClientSessionCache = sessions[i%len(sessions)]
			}
			return o
		}
	}
	full, again, certified, certifiedAgain := secure(false), secure(true), secure(false, s.certs...), secure(true, s.certs...)
	_, name, _ := cutTenant(s.tenant.login.user)
	chosen := func(run, i int) string { return s.tenant.id + ":" + s.imported(run, i%s.share(byPassword)) }
	return visits{
		byNothing: func(run, i int) (*client, error) { return open(plain, "a", run, i, "", "") },
		byGenerated: func(run, i int) (*client, error) {
			return open(plain, "g", run, i, s.tenant.login.user, s.tenant.login.pass)
		},
		byPassword: func(run, i int) (*client, error) { return open(plain, "p", run, i, chosen(run, i), s.word) },
		// The first of them have shown theirs before.
		byPasswordKept: func(run, i int) (*client, error) { return open(plain, "k", run, i, chosen(run, i), s.word) },
		byJWT: func(run, i int) (*client, error) {
			token, err := s.token(fmt.Sprintf("t-%d-%d", run, i))
			if err != nil {
				return nil, err
			}
			return open(plain, "t", run, i, s.tenant.id+":", token)
		},
		byJWTKept:     func(run, i int) (*client, error) { return open(plain, "u", run, i, s.tenant.id+":", s.kept) },
		bySCRAM:       func(run, i int) (*client, error) { return plain.openSCRAM(i, fmt.Sprintf("s-%d-%d", run, i), s.talks) },
		byPasswordTLS: func(run, i int) (*client, error) { return open(full(i), "v", run, i, name, s.tenant.login.pass) },
		byResumedTLS:  func(run, i int) (*client, error) { return open(again(i), "w", run, i, name, s.tenant.login.pass) },
		byX509:        func(run, i int) (*client, error) { return open(certified(i), "x", run, i, "", "") },
		byX509Resumed: func(run, i int) (*client, error) { return open(certifiedAgain(i), "y", run, i, "", "") },
	}
}
