// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Authenticate implements tenancy.Directory.
func (d *Directory) Authenticate(ctx context.Context, a tenancy.Attempt) (*tenancy.Identity, error) {
	if a.Method == tenancy.AuthJWT {
		return d.byToken(ctx, &a)
	}
	switch {
	case !a.HasUsername || a.Username == "":
		return nil, errs.Coded(errs.Denied, "username_missing", "expected a user name and a password")
	case !a.HasPassword:
		return nil, errs.Coded(errs.Denied, "password_missing", "expected a password")
	}
	// The attempt's tenant may be from before a change.
	t, err := d.Tenant(ctx, a.Tenant.ID)
	if errs.Is(err, errs.NotFound) {
		return nil, d.refuse(ctx, a.Tenant.ID, &a, err)
	}
	if err != nil {
		return nil, err
	}
	c, err := d.credential(ctx, t.ID, &a)
	if err != nil {
		return nil, err
	}
	ok, err := d.cfg.Verifier.Verify(ctx, t.ID, c.ID, c.Revision, c.Hash, a.Password)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, errs.Coded(errs.Denied, "password_wrong", "the password is wrong")
	case !t.Active(): // what only who has the password is told
		return nil, t.Inactive()
	}
	return &tenancy.Identity{Method: tenancy.AuthPassword, Tenant: t, Username: a.Username, Grant: t.Grant, Session: c.Session}, nil
}

// refuse takes the time of a wrong password and returns why.
func (d *Directory) refuse(ctx context.Context, tenant string, a *tenancy.Attempt, why error) error {
	if err := d.cfg.Verifier.Refuse(ctx, tenant, "no "+tenant+" "+a.Username, a.Password); err != nil {
		return err
	}
	return why
}

// known returns a credential if it is kept, and whether all of its tenant's are.
// The first look has them read.
func (d *Directory) known(tenant, username string) (c tenancy.Credential, ok, whole bool) {
	c, ok, whole, wanted := d.cache.credential(tenant, username)
	if wanted {
		select {
		case d.load <- toLoad{tenant: tenant}:
		default: // asked for again at the next use
			d.cache.loadLater(tenant)
		}
	}
	return c, ok, whole
}

// credential returns a credential from what is kept, else from the bus. That
// there is none takes the time of a wrong password.
func (d *Directory) credential(ctx context.Context, tenant string, a *tenancy.Attempt) (tenancy.Credential, error) {
	username := a.Username
	c, ok, whole := d.known(tenant, username)
	if ok {
		return c, nil
	}
	missing := errs.Coded(errs.NotFound, "credential_not_found", "there is no credential with the username %q", username)
	if !whole {
		c, err := d.askCredential(ctx, tenant, username, missing)
		if errs.Is(err, errs.NotFound) {
			err = d.refuse(ctx, tenant, a, err)
		}
		return c, err
	}
	if err := d.refuse(ctx, tenant, a, missing); !errs.Is(err, errs.NotFound) {
		return c, err
	}
	// It may have been made a moment ago, and told of meanwhile.
	if c, ok, whole = d.cache.find(tenant, username); ok {
		return c, nil
	}
	if whole && !d.outage.is() && !d.cache.mayDoubt(tenant, d.now()) {
		return c, missing
	}
	return d.askCredential(ctx, tenant, username, missing)
}

// askCredential asks the bus about a credential that is not kept. The error is
// missing if there is none.
func (d *Directory) askCredential(ctx context.Context, tenant, username string, missing error) (c tenancy.Credential, err error) {
	if tenancy.ValidUsername(username) != nil {
		return c, missing
	}
	key := tenancy.CredentialKey(tenant, username)
	if d.absent.has(key, d.now()) {
		return c, missing
	}
	const what = "this credential is not known here"
	// The turn is waited for in the client's time, the answer in askTimeout.
	select {
	case d.asking <- struct{}{}:
		defer func() { <-d.asking }()
	case <-ctx.Done():
		return c, d.unanswered(aboutCredential, what, ctx.Err())
	}
	// Another client of that name may have asked meanwhile.
	if c, ok, _ := d.cache.find(tenant, username); ok {
		return c, nil
	}
	if d.absent.has(key, d.now()) {
		return c, missing
	}
	// A change that overtakes the answer must win.
	done := d.cache.reading(tenant)
	defer done()
	e, err := d.ask(ctx, aboutCredential, what, func(b *buckets) bus.Bucket { return b.credentials }, key)
	if errs.Is(err, errs.NotFound) {
		d.absent.add(key, d.now())
		return c, missing
	}
	if err != nil {
		return c, err
	}
	if c, err = tenancy.DecodeCredential(e.Value, uint64(e.Revision)); err != nil {
		return c, err
	}
	c, ok := d.cache.read(tenant, c)
	if !ok {
		return c, missing
	}
	d.markDirty()
	return c, nil
}
