// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Tokens checks tokens; see tenancy/authn/jwt. It is called concurrently.
type Tokens interface {
	// Issuer is the claim iss of what has the form of a token, not checked.
	Issuer(token []byte) (issuer string, ok bool)
	// Check checks a token of the issuer, whose keys are jwks. The error is Denied
	// with tenancy.CodeTokenRefused or tenancy.CodeTokenKeyUnknown.
	Check(i *tenancy.Issuer, jwks string, token []byte, now time.Time) (tenancy.Token, error)
}

func passed(format string, args ...any) error {
	return errs.Coded(errs.Denied, tenancy.CodePassed, format, args...)
}

func refused(format string, args ...any) error {
	return errs.Coded(errs.Denied, tenancy.CodeTokenRefused, "the token is refused: "+format, args...)
}

// byToken is Authenticate by a token as the password.
func (d *Directory) byToken(ctx context.Context, a *tenancy.Attempt) (*tenancy.Identity, error) {
	if !a.HasPassword || d.cfg.Tokens == nil {
		return nil, passed("expected a token as the password")
	}
	issuer, ok := d.cfg.Tokens.Issuer(a.Password)
	if !ok {
		return nil, passed("the password is no token")
	}
	// The attempt's tenant may be from before a change.
	t, err := d.Tenant(ctx, a.Tenant.ID)
	switch {
	case errs.Is(err, errs.NotFound):
		return nil, passed("there is no tenant %q", a.Tenant.ID)
	case err != nil:
		return nil, err
	}
	i := t.IssuerOf(issuer)
	if i == nil {
		return nil, passed("the issuer %.100q of the token is none of the tenant's", issuer)
	}
	token, err := d.checkToken(ctx, t, i, a.Password)
	switch {
	case err != nil:
		return nil, err
	case a.HasUsername && a.Username != "" && a.Username != token.Username:
		return nil, refused("the user name is %.64q, and the token's %.64q; leave yours empty, or give that", a.Username, token.Username)
	case token.ClientID != "" && token.ClientID != a.ClientID:
		return nil, refused("it is for another client id")
	case !t.Active(): // what only who has a token is told
		return nil, t.Inactive()
	}
	limit, err := tokenLimit(t, &token)
	if err != nil {
		return nil, err
	}
	return &tenancy.Identity{
		Method: tenancy.AuthJWT, Tenant: t, Username: token.Username, Claims: token.Claims, Issuer: i.Issuer, Expires: token.Expires,
		Limit: limit, LimitText: fmt.Sprintf("%q %q", token.Publish, token.Subscribe),
	}, nil
}

// tokenExchange is a tenancy.Exchange by a token.
type tokenExchange struct {
	d *Directory
	a tenancy.Attempt
}

// Step implements tenancy.Exchange.
func (e *tokenExchange) Step(ctx context.Context, data []byte) ([]byte, *tenancy.Identity, error) {
	if e.a.Tenant == nil {
		return nil, nil, refused("expected a tenant's hostname (TLS SNI or WebSocket Host), or a user name like tenant: that names it")
	}
	a := e.a
	a.Method, a.Password, a.HasPassword = tenancy.AuthJWT, data, true
	id, err := e.d.byToken(ctx, &a)
	switch {
	case errs.CodeOf(err) == tenancy.CodePassed:
		err = refused("%w", err)
	case err == nil && !id.Tenant.Takes(tenancy.AuthJWT): // what only who has a token is told
		err = errs.Coded(errs.Denied, tenancy.CodeMethodNotTaken, "the tenant does not take %s", tenancy.MethodJWT)
	}
	if err != nil {
		return nil, nil, err
	}
	return nil, id, nil
}

// tokenLimit is what the claims of a token limit a client to, of what the tenant's
// policy grants it; nil if they name nothing.
func tokenLimit(t *tenancy.Tenant, token *tenancy.Token) (*tenancy.Grant, error) {
	if token.Publish == nil && token.Subscribe == nil {
		return nil, nil
	}
	publish, subscribe := token.Publish, token.Subscribe
	if publish == nil {
		publish = []string{"#"}
	}
	if subscribe == nil {
		subscribe = []string{"#", "$SYS/#"}
	}
	if n, most := len(token.Publish)+len(token.Subscribe), t.Limits.Grants; most >= 0 && int64(n) > most {
		return nil, refused("it has %d topic filters, and the quota grants allows %d", n, most)
	}
	for _, f := range publish {
		if strings.HasPrefix(f, "$") { // topics of the server's [MQTT-4.7.2-1]
			return nil, refused("nobody may publish to %.64q", f)
		}
	}
	for _, f := range subscribe {
		if _, ok := tenancy.DefaultGrant().MaySubscribe(f); !ok {
			return nil, refused("nobody may subscribe to %.64q", f)
		}
	}
	g, err := tenancy.NewGrant(0, publish, subscribe)
	if err != nil {
		return nil, refused("%.200s", err)
	}
	return g, nil
}

// checkToken checks a token by what is known of its issuer's keys. If its key is not
// among them the control plane is asked, which asks the issuer.
func (d *Directory) checkToken(ctx context.Context, t *tenancy.Tenant, i *tenancy.Issuer, token []byte) (tenancy.Token, error) {
	jwks := i.JWKS
	if i.JWKSURL != "" {
		jwks = d.keys.get(t.ID, i.JWKSURL)
	}
	got, err := d.cfg.Tokens.Check(i, jwks, token, d.now())
	if err == nil || i.JWKSURL == "" || errs.CodeOf(err) != tenancy.CodeTokenKeyUnknown {
		return got, err
	}
	fresh, asked := d.askKeys(ctx, t.ID, i.JWKSURL)
	switch {
	case asked != nil:
		return got, d.unanswered(aboutKeys, "the token's key is not known here", asked)
	case fresh == "" && jwks == "":
		return got, errs.New(errs.Unavailable, "the keys of the token's issuer cannot be had")
	case fresh == "" || fresh == jwks:
		return got, err
	}
	return d.cfg.Tokens.Check(i, fresh, token, d.now())
}
