// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/infra/fair"
	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/authn/password"
	"github.com/manormq/manor/tenancy/store"
)

// Bounds of an import.
const (
	importMax     = 100_000
	importBodyMax = 64 << 20 // bytes of JSON
	// importsAtOnce is how many imports a process works on; more are refused.
	importsAtOnce = 4
	// importsOfOne is how many of them are one organization's, which has more than one only
	// while it leaves importsLeft to others: two that have come leave one each to two more,
	// however long theirs take.
	importsOfOne = 2
	importsLeft  = 2
	// bodiesOfOne is how many bodies of imports are read for one organization.
	bodiesOfOne = 1
	// importWriters is how many credentials of one import are written at once.
	importWriters = 32
	// importSaves is how much time is between two notes of how far it is.
	importSaves = time.Second
)

// importBodies are the operations whose large bodies have the turns of imports.
var importBodies = map[string]bool{"import-credentials": true, "replace-passwd-source": true}

// ImportRequest is the body of POST …/credentials:import.
type ImportRequest struct {
	Items []ImportItem `json:"items" minItems:"1" maxItems:"100000" doc:"The credentials; none twice."`
	// wrong is what does not fit; nil if all does.
	wrong *Problem
}

// UnmarshalJSON takes the items one by one, and no more than there may be. What does not fit
// is told by the handler.
func (r *ImportRequest) UnmarshalJSON(b []byte) error {
	*r = ImportRequest{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		r.refuse("body", "expected an object")
		return err
	}
	for d.More() {
		switch t, err := d.Token(); {
		case err != nil:
			return err
		case t != "items" || r.Items != nil:
			r.refuse(fmt.Sprintf("body.%s", t), "unexpected property; expected items, once")
			return nil
		}
		if t, err := d.Token(); err != nil || t != json.Delim('[') {
			r.refuse("body.items", "expected an array")
			return err
		}
		if err := r.take(d); err != nil || r.wrong != nil {
			return err
		}
	}
	if len(r.Items) == 0 {
		r.refuse("body.items", "expected array length >= 1")
	}
	return nil
}

// take takes the items until the end of their array.
func (r *ImportRequest) take(d *json.Decoder) error {
	for i := 0; d.More(); i++ {
		if i == importMax {
			r.Items = nil
			r.refuse("body.items", fmt.Sprintf("expected array length <= %d", importMax))
			return nil
		}
		var item ImportItem
		if err := d.Decode(&item); err != nil { // it is JSON, and was read over
			r.refuse(fmt.Sprintf("body.items[%d]", i), strings.TrimPrefix(err.Error(), "json: "))
		} else if r.wrong == nil {
			r.Items = append(r.Items, item)
		}
	}
	_, err := d.Token()
	return err
}

func (r *ImportRequest) refuse(location, message string) {
	if r.wrong == nil {
		r.wrong = newProblem(http.StatusBadRequest, "request_invalid", shorten(location)+": "+message)
	}
	r.wrong.add(location, message)
}

// ImportItem is one credential of an import.
type ImportItem struct {
	Username string          `json:"username" doc:"1 to 256 bytes." example:"sensor-1"`
	Hash     tenancy.Secret  `json:"hash,omitempty" doc:"Of the password: $argon2id$… (PHC string format), $2a$, $2b$ or $2y$ (bcrypt), $6$… as vmq-passwd writes it, which is hashed once more in the background, or $sha256$… of a random one." example:"$2b$12$…"`
	Password *tenancy.Secret `json:"password,omitempty" doc:"Instead of hash: it is hashed in the background, about 30 ms each. At least 6 characters." format:"password"`
}

// Operation is work that goes on after its request was answered.
type Operation struct {
	ID        string    `json:"id" example:"op_01j9zq5e6v8x7w0r3t2y4u6i8o"`
	Kind      string    `json:"kind" example:"import-credentials"`
	State     string    `json:"state" enum:"running,done,interrupted" doc:"interrupted: its process ended; do it again, what is made is skipped."`
	Total     int       `json:"total" doc:"How many things it is about."`
	Made      int       `json:"made" doc:"How many of them are made."`
	Skipped   int       `json:"skipped" doc:"How many were there already, and stay as they were."`
	Failed    int       `json:"failed" doc:"How many could not be made."`
	Problem   string    `json:"problem,omitempty" doc:"Why the first one could not."`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

type (
	importInput struct {
		InTenant
		Post
		Body ImportRequest
	}
	operationOutput struct {
		Status   int
		Location string `header:"Location" doc:"Where to ask how far it is."`
		Body     Operation
	}
	operationInput struct {
		InTenant
		Operation string `path:"operation" doc:"The operation's id." example:"op_01j9zq5e6v8x7w0r3t2y4u6i8o"`
	}
)

// background is what goes on behind the requests of a Server.
type background struct {
	ctx  context.Context //nolint:containedctx // of the work, which outlives its request
	stop context.CancelFunc
	all  sync.WaitGroup
	// slots and bodies are imports that are worked on, and those of which the body is being
	// read, by organization.
	slots, bodies *fair.Turns
	// large are other bodies above bodyMax, by organization.
	large *fair.Turns
	// files are the tenants of which a file is applied.
	files sync.Map
}

// errImportsWorked and errImportsRead are of imports that come while there are enough.
var (
	errImportsWorked = errs.Coded(errs.Unavailable, "imports_busy", "%d imports are worked on, or %d of the organization, or one while there are others'; try again when one is done", importsAtOnce, importsOfOne)
	errImportsRead   = errs.Coded(errs.Unavailable, "imports_busy", "%d imports are read, or one of the organization; try again when it is", importsAtOnce)
)

func newBackground() *background {
	b := &background{slots: fair.NewTurns(importsAtOnce, importsOfOne), bodies: fair.NewTurns(importsAtOnce, bodiesOfOne), large: fair.NewTurns(largeAtOnce, largeOfOne)}
	b.ctx, b.stop = context.WithCancel(context.Background())
	return b
}

// end has the work stop, and waits for it.
func (b *background) end() {
	b.stop()
	b.all.Wait()
}

func (s *Server) importRoutes() {
	op := operation("import-credentials", http.MethodPost, "/v1/tenants/{tenant}/credentials:import", "Credentials",
		"Make up to 100,000 credentials; the answer comes at once, and the operation says how far it is")
	op.DefaultStatus, op.MaxBodyBytes = http.StatusAccepted, importBodyMax
	op.SkipValidateBody = true // it would make everything that was sent, and an error for each item
	describeAnswer(s, &op, "200", "What a dry run answers: nothing is made.", Operation{})
	register(s, op, s.importCredentials)
	register(s, operation("get-operation", http.MethodGet, "/v1/tenants/{tenant}/operations/{operation}", "Credentials",
		"See how far an operation is, for 7 days"), s.getOperation)
}

func operationBody(o *store.Operation) Operation {
	return Operation{
		ID: o.ID, Kind: o.Kind, State: o.State, Total: o.Total, Made: o.Made, Skipped: o.Skipped, Failed: o.Failed, Problem: o.Problem,
		CreatedAt: o.CreatedAt, UpdatedAt: o.UpdatedAt,
	}
}

// validImport checks every item before anything is made.
func validImport(items []ImportItem) error {
	seen := make(map[string]bool, len(items))
	for i, item := range items {
		var err error
		switch {
		case seen[item.Username]:
			err = errs.New(errs.Invalid, "the username %q is there twice", item.Username)
		case (item.Hash == "") == (item.Password == nil):
			err = errs.New(errs.Invalid, "expected either a hash or a password")
		case item.Password != nil:
			err = tenancy.ValidDevicePassword(string(*item.Password), item.Username)
		default:
			err = password.CheckHash(string(item.Hash))
		}
		if err == nil {
			err = tenancy.ValidUsername(item.Username)
		}
		if err != nil {
			return errs.Coded(errs.Invalid, "import_invalid", "items[%d]: %w", i, err)
		}
		seen[item.Username] = true
	}
	return nil
}

func (s *Server) importCredentials(ctx context.Context, in *importInput) (*operationOutput, error) {
	if p := in.Body.wrong; p != nil {
		return nil, p
	}
	t, items := tenantOf(ctx), in.Body.Items
	if err := validImport(items); err != nil {
		return nil, err
	}
	if err := s.store.CheckImport(ctx, t, len(items)); err != nil {
		return nil, err
	}
	if in.DryRun {
		unchanged(ctx)
		now := s.now().UTC()
		return &operationOutput{Status: http.StatusOK, Body: Operation{Kind: "import-credentials", State: store.OperationRunning, Total: len(items), CreatedAt: now, UpdatedAt: now}}, nil
	}
	release, ok := s.background.slots.TryLeaving(t.Organization, importsLeft)
	if !ok {
		return nil, errImportsWorked
	}
	if err := change(ctx, t.Organization, t.ID, fmt.Sprintf("import of %d credentials", len(items)), nil); err != nil {
		release()
		return nil, err
	}
	o, err := s.store.StartOperation(ctx, t.ID, "import-credentials", len(items))
	if err != nil {
		release()
		return nil, err
	}
	out := &operationOutput{Status: http.StatusAccepted, Location: "/v1/tenants/" + t.ID + "/operations/" + o.ID, Body: operationBody(o)}
	s.background.all.Go(func() {
		defer release()
		s.runImport(s.background.ctx, t, o, items)
	})
	s.log.Info("credentials are imported", "tenant", t.ID, "operation", o.ID, "credentials", len(items))
	return out, changed(ctx, nil, out.Body)
}

// runImport makes the credentials, and saves how far it is.
func (s *Server) runImport(ctx context.Context, t *tenancy.TenantRecord, o *store.Operation, items []ImportItem) {
	var mu sync.Mutex // guards o
	save := func(ctx context.Context) {
		mu.Lock()
		now := *o
		mu.Unlock()
		if err := s.store.SaveOperation(ctx, &now); err != nil && ctx.Err() == nil {
			s.log.Warn("state of an import not saved", "operation", o.ID, "error", err)
		}
	}
	next := make(chan ImportItem)
	var writers sync.WaitGroup
	for range min(importWriters, len(items)) {
		writers.Go(func() {
			for item := range next {
				err := s.importOne(ctx, o.Tenant, item)
				mu.Lock()
				switch {
				case err == nil:
					o.Made++
				case errs.CodeOf(err) == "username_taken":
					o.Skipped++
				case ctx.Err() == nil:
					if o.Failed++; o.Problem == "" {
						o.Problem = item.Username + ": " + err.Error()
					}
				}
				mu.Unlock()
			}
		})
	}
	tick := time.NewTicker(importSaves)
	defer tick.Stop()
	for i := 0; i < len(items) && ctx.Err() == nil; {
		select {
		case next <- items[i]:
			i++
		case <-tick.C:
			save(ctx)
		case <-ctx.Done():
		}
	}
	close(next)
	writers.Wait()
	if o.State = store.OperationDone; o.Made+o.Skipped+o.Failed < o.Total {
		o.State = store.OperationInterrupted
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	save(last)
	s.uses(last, t, "credentials", int64(o.Made), s.store.CountCredentials)
	s.log.Info("import of credentials ended", "tenant", o.Tenant, "operation", o.ID, "state", o.State, "made", o.Made, "skipped", o.Skipped, "failed", o.Failed)
}

func (s *Server) importOne(ctx context.Context, tenant string, item ImportItem) error {
	hash := string(item.Hash)
	var err error
	switch {
	case item.Password != nil:
		hash, err = s.cfg.Hasher.Hash(ctx, tenant, string(*item.Password))
	case password.IsVerneMQ(hash):
		hash, err = password.WrapVerneMQ(hash, func(inner string) (string, error) { return s.cfg.Hasher.Hash(ctx, tenant, inner) })
	}
	if err != nil {
		return err
	}
	return s.store.ImportCredential(ctx, tenant, tenancy.Credential{Username: item.Username, Hash: hash})
}

func (s *Server) getOperation(ctx context.Context, in *operationInput) (*operationOutput, error) {
	o, err := s.store.Operation(ctx, tenantOf(ctx).ID, in.Operation)
	if err != nil {
		return nil, err
	}
	return &operationOutput{Status: http.StatusOK, Body: operationBody(o)}, nil
}
