// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy/policy"
	"github.com/manormq/manor/tenancy/store"
)

// Source is what became of a file that a tenant's credentials or policy come from.
type Source struct {
	Kind      string     `json:"kind" enum:"vmq_passwd,vmq_acl" doc:"What the file is."`
	AppliedAt *time.Time `json:"applied_at" doc:"When it was applied last; null if never."`
	Users     int        `json:"users" doc:"How many users it had then."`
	Skipped   int        `json:"skipped" doc:"How many of them have a credential that the API had made before, which stays as it is."`
	Revision  uint64     `json:"revision,omitempty" doc:"The revision of the policy that was made of it."`
	Problem   string     `json:"problem,omitempty" doc:"Why what the file has now does not hold; empty if it does."`
	ProblemAt *time.Time `json:"problem_at,omitempty"`
}

// SourceList is the answer to GET …/sources.
type SourceList struct {
	Items []Source `json:"items"`
}

// PasswdFile is the body of PUT …/sources/vmq_passwd.
type PasswdFile struct {
	Text string `json:"text" doc:"The whole file: lines of USER:HASH, with hashes as in credentials:import, such as $6$… of vmq-passwd." minLength:"1" maxLength:"15000000" example:"# nobody"`
}

type (
	sourcesOutput  struct{ Body SourceList }
	putSourceInput struct {
		InTenant
		Write
		Body PasswdFile
	}
)

func (s *Server) sourceRoutes() {
	const path = "/v1/tenants/{tenant}/sources"
	register(s, operation("list-sources", http.MethodGet, path, "Credentials",
		"See what became of the files that the tenant's credentials and policy come from"), s.listSources)
	put := operation("replace-passwd-source", http.MethodPut, path+"/vmq_passwd", "Credentials",
		"Have the credentials that come from a file be those of this one: new ones are made, those that are gone deleted; the answer comes at once")
	put.DefaultStatus, put.MaxBodyBytes = http.StatusAccepted, publishBodyMax
	describeAnswer(s, &put, "200", "What a dry run answers: nothing is changed.", Operation{})
	register(s, put, s.putPasswdSource)
}

// errNoSources is of an API that was made without.
var errNoSources = errs.Coded(errs.Conflict, "sources_unavailable", "this installation takes no files")

func (s *Server) putPasswdSource(ctx context.Context, in *putSourceInput) (*operationOutput, error) {
	const kind = "apply-source"
	if s.cfg.Sources == nil {
		return nil, errNoSources
	}
	t := tenantOf(ctx)
	users, err := s.cfg.Sources.Check(ctx, t, in.Body.Text)
	if f, ok := errors.AsType[*policy.FaultsError](err); ok {
		return nil, errs.Coded(errs.Invalid, "import_invalid", "%s", f.Error()) // it is no policy
	}
	switch {
	case err != nil:
		return nil, err
	case users > importMax:
		return nil, errs.Coded(errs.Invalid, "import_invalid", "expected at most %d users, found %d", importMax, users)
	case in.DryRun:
		unchanged(ctx)
		now := s.now().UTC()
		return &operationOutput{Status: http.StatusOK, Body: Operation{Kind: kind, State: store.OperationRunning, Total: users, CreatedAt: now, UpdatedAt: now}}, nil
	}
	// A second one would wait for the first, with a slot that other tenants need.
	if _, busy := s.background.files.LoadOrStore(t.ID, true); busy {
		return nil, errs.Coded(errs.Conflict, "imports_busy", "a file of the tenant %q is being applied; try again when that is done", t.ID)
	}
	end, ok := s.background.slots.TryLeaving(t.Organization, importsLeft)
	if !ok {
		s.background.files.Delete(t.ID)
		return nil, errImportsWorked
	}
	release := func() {
		s.background.files.Delete(t.ID)
		end()
	}
	if err := change(ctx, t.Organization, t.ID, fmt.Sprintf("vmq_passwd file with %d users", users), nil); err != nil {
		release()
		return nil, err
	}
	o, err := s.store.StartOperation(ctx, t.ID, kind, users)
	if err != nil {
		release()
		return nil, err
	}
	out := &operationOutput{Status: http.StatusAccepted, Location: "/v1/tenants/" + t.ID + "/operations/" + o.ID, Body: operationBody(o)}
	s.background.all.Go(func() {
		defer release()
		s.applySource(s.background.ctx, o, in.Body.Text)
	})
	return out, changed(ctx, nil, out.Body)
}

// applySource has the credentials be those of the file, and saves what came of it.
func (s *Server) applySource(ctx context.Context, o *store.Operation, text string) {
	type result struct {
		source *store.Source
		err    error
	}
	done := make(chan result, 1)
	go func() {
		source, err := s.cfg.Sources.Put(ctx, o.Tenant, text)
		done <- result{source, err}
	}()
	tick := time.NewTicker(importSaves)
	defer tick.Stop()
	var r result
	for waiting := true; waiting; {
		select {
		case r = <-done:
			waiting = false
		case <-tick.C: // so that it is known to be alive
			now := *o
			_ = s.store.SaveOperation(ctx, &now) // the next one may be
		}
	}
	o.State = store.OperationDone
	switch {
	case r.err == nil:
		o.Made, o.Skipped = r.source.Users-r.source.Skipped, r.source.Skipped
	case ctx.Err() != nil:
		o.State = store.OperationInterrupted
	default:
		o.Failed, o.Problem = o.Total, r.err.Error()
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	if err := s.store.SaveOperation(last, o); err != nil {
		s.log.Warn("state of a file not saved", "operation", o.ID, "error", err)
	}
	s.log.Info("a file of credentials was applied", "tenant", o.Tenant, "operation", o.ID, "state", o.State, "users", o.Total, "error", r.err)
}

func (s *Server) listSources(ctx context.Context, _ *tenantInput) (*sourcesOutput, error) {
	all, err := s.store.Sources(ctx, tenantOf(ctx).ID)
	if err != nil {
		return nil, err
	}
	out := &sourcesOutput{SourceList{Items: []Source{}}}
	for i := range all {
		out.Body.Items = append(out.Body.Items, sourceBody(&all[i]))
	}
	return out, nil
}

func sourceBody(o *store.Source) Source {
	return Source{
		Kind: o.Kind, AppliedAt: unlessZero(o.AppliedAt), Users: o.Users, Skipped: o.Skipped, Revision: o.Revision,
		Problem: o.Problem, ProblemAt: unlessZero(o.ProblemAt),
	}
}

func unlessZero(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
