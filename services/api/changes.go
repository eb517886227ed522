// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy/audit"
)

// notChanges are operations with another method than GET that change nothing of
// an organization: questions, and publish. Messages are what tenants make of it: MQTT publishes are not
// in the audit log either.
var notChanges = map[string]bool{"publish": true, "test-policy": true, "explain-policy": true, "simulate-policy": true}

// changing is the change that a request makes, or none so far. It belongs to the
// request's goroutine.
type changing struct {
	log       *audit.Log
	admission Admission // nil asks nobody
	op        *huma.Operation
	// in is the input of the operation; wanted, if not nil, is what is asked for where
	// its body does not say that.
	in, wanted any
	pending    *audit.Pending
	after      any
	// none is that there is nothing to record.
	none bool
}

type changeKey struct{}

func changeOf(ctx context.Context) *changing {
	c, ok := ctx.Value(changeKey{}).(*changing)
	if !ok {
		panic("api: an operation that changes nothing makes a change")
	}
	return c
}

// change asks the installation's policy, and notes in the audit log that the caller is about to change the target of
// an organization, or of a tenant of it. A handler calls it after its last check
// and before what it does; without it, what it does is an error.
func change(ctx context.Context, organization, tenant, target string, before any) error {
	return changeAs(ctx, callerOf(ctx).actor, organization, tenant, target, before)
}

// changeAs is change where the caller is known to be the actor by something else
// than its key or token.
func changeAs(ctx context.Context, actor audit.Actor, organization, tenant, target string, before any) (err error) {
	c := changeOf(ctx)
	if err := c.admit(ctx, actor, organization, tenant, target, before); err != nil {
		return err
	}
	c.pending, err = c.log.Begin(ctx, c.record(ctx, actor, organization, tenant, target, before))
	return err
}

// record is the change as the audit log is told of it.
func (c *changing) record(ctx context.Context, actor audit.Actor, organization, tenant, target string, before any) audit.Change {
	return audit.Change{
		Organization: organization, Actor: actor, Address: callerOf(ctx).address, Method: c.op.Method, Operation: c.op.OperationID,
		Tenant: tenant, Target: target, Before: before,
	}
}

// changed says what was there before the change that change has noted, and is
// there now; nil is nothing.
func changed(ctx context.Context, before, after any) error {
	c := changeOf(ctx)
	c.after = after
	return c.pending.Before(before)
}

// unchanged says that the request changes nothing, such as a dry run.
func unchanged(ctx context.Context) { changeOf(ctx).none = true }

// recordTime bounds the writes that end a change, also if the caller has gone.
const recordTime = 5 * time.Second

// end records the change, or drops what was noted of it. err is what the handler
// has returned; with another error the answer must not say that all is well.
func (c *changing) end(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	switch {
	case c.pending == nil && err == nil && !c.none:
		return errs.New(errs.Internal, "the operation %s made a change that it had not noted", c.op.OperationID)
	case c.pending == nil:
		return err
	case err == nil:
		if err := c.pending.Done(ctx, c.after); err != nil {
			p := newProblem(http.StatusServiceUnavailable, "audit_unavailable",
				"the change was made, and is not in the audit log yet; look whether it is what you want before you make it again")
			p.RetryAfter = 1
			return p
		}
		return nil
	}
	switch errs.KindOf(err) {
	case errs.Invalid, errs.Denied, errs.NotFound, errs.Conflict, errs.Quota:
		c.pending.Drop(ctx)
	case errs.Unavailable, errs.Internal:
		_ = c.pending.Lost(ctx) // else the log finds the note
	}
	return err
}
