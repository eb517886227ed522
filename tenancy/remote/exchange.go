// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"strings"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// exchange is a tenancy.Exchange by SCRAM-SHA-256.
type exchange struct {
	d       *Directory
	tenant  string // empty: the user name's prefix
	c       Conversation
	ctx     context.Context // of the Step that is under way
	found   tenancy.Credential
	prefix  bool
	unknown bool
}

// Begin implements tenancy.Directory.
func (d *Directory) Begin(_ context.Context, method string, a tenancy.Attempt) (tenancy.Exchange, error) {
	if method == tenancy.MethodJWT && d.cfg.Tokens != nil {
		return &tokenExchange{d, a}, nil
	}
	if method != tenancy.MethodSCRAM || d.cfg.SCRAM == nil {
		return nil, errs.Coded(errs.NotFound, tenancy.CodeMethodUnknown, "the authentication method %.40q is not known; expected %s or %s", method, tenancy.MethodSCRAM, tenancy.MethodJWT)
	}
	e := &exchange{d: d, prefix: a.Tenant == nil}
	if a.Tenant != nil {
		e.tenant = a.Tenant.ID
	}
	var err error
	e.c, err = d.cfg.SCRAM(e.find)
	return e, err
}

// find returns what is stored of a user, nil if there is nothing.
func (e *exchange) find(username string) (*tenancy.SCRAM, error) {
	if e.prefix {
		prefix, name, ok := strings.Cut(username, ":")
		if !ok {
			e.unknown = true
			return nil, nil
		}
		e.tenant, username = prefix, name
	}
	t, err := e.d.Tenant(e.ctx, e.tenant)
	if err == nil {
		e.found, err = e.d.lookup(e.ctx, t.ID, username)
	}
	if errs.Is(err, errs.NotFound) || errs.Is(err, errs.Invalid) {
		e.unknown = true
		return nil, nil
	}
	return e.found.SCRAM, err
}

// Step implements tenancy.Exchange.
func (e *exchange) Step(ctx context.Context, data []byte) (answer []byte, id *tenancy.Identity, err error) {
	e.ctx = ctx
	answer, done, err := e.c.Step(data)
	e.ctx = nil
	if err != nil || !done {
		return answer, nil, err
	}
	if e.unknown || e.found.SCRAM == nil {
		return nil, nil, errs.Coded(errs.Denied, "password_wrong", "nobody has such a password")
	}
	t, err := e.d.Tenant(ctx, e.tenant)
	switch {
	case err != nil:
		return nil, nil, err
	case !t.Takes(tenancy.AuthSCRAM): // what only who has the password is told
		return nil, nil, errs.Coded(errs.Denied, tenancy.CodeMethodNotTaken, "the tenant does not take %s", tenancy.MethodSCRAM)
	case !t.Active():
		return nil, nil, t.Inactive()
	}
	// It may have been deleted meanwhile.
	c, err := e.d.lookup(ctx, t.ID, e.found.Username)
	if err != nil && !errs.Is(err, errs.NotFound) {
		return nil, nil, err
	}
	if err != nil || c.ID != e.found.ID || c.Generation != e.found.Generation {
		return nil, nil, errs.Coded(errs.Denied, "credential_gone", "the credential was deleted or changed")
	}
	return answer, &tenancy.Identity{Method: tenancy.AuthSCRAM, Tenant: t, Username: e.found.Username, Grant: t.Grant, Session: e.found.Session}, nil
}

// lookup returns a credential from what is kept, else from the bus.
func (d *Directory) lookup(ctx context.Context, tenant, username string) (tenancy.Credential, error) {
	c, ok, whole := d.known(tenant, username)
	if ok {
		return c, nil
	}
	missing := errs.Coded(errs.NotFound, "credential_not_found", "there is no credential with the username %q", username)
	if whole && !d.outage.is() && !d.cache.mayDoubt(tenant, d.now()) {
		return c, missing
	}
	return d.askCredential(ctx, tenant, username, missing)
}
