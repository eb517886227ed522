// SPDX-License-Identifier: Apache-2.0

package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/manormq/manor/infra/bus"
	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// States of an operation.
const (
	// OperationRunning is being worked on.
	OperationRunning = "running"
	// OperationDone has ended; what failed of it is told.
	OperationDone = "done"
	// OperationInterrupted was left by a process that ended.
	OperationInterrupted = "interrupted"
)

// Operation is work that goes on after its request was answered. It is a plain
// value.
type Operation struct {
	ID     string `json:"id"`
	Tenant string `json:"tenant"`
	Kind   string `json:"kind"`
	State  string `json:"state"`
	// Total is how many things it is about; Made, Skipped and Failed how many of
	// them are behind it.
	Total   int `json:"total"`
	Made    int `json:"made"`
	Skipped int `json:"skipped"`
	Failed  int `json:"failed"`
	// Problem says why the first one failed.
	Problem   string    `json:"problem,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// operationLife is for how long an operation can be asked for, and
// operationSilence after what time without a word of it its process is dead.
const (
	operationLife    = 7 * 24 * time.Hour
	operationSilence = time.Minute
)

func operationKey(tenant, id string) string { return tenant + "." + id }

// StartOperation makes an operation; whoever does the work saves it at least
// every 20 s.
func (s *Store) StartOperation(ctx context.Context, tenant, kind string, total int) (*Operation, error) {
	o := &Operation{ID: newID("op_"), Tenant: tenant, Kind: kind, State: OperationRunning, Total: total, CreatedAt: s.now().UTC()}
	return o, s.SaveOperation(ctx, o)
}

// SaveOperation stores how far it is.
func (s *Store) SaveOperation(ctx context.Context, o *Operation) error {
	o.UpdatedAt = s.now().UTC()
	_, err := put(ctx, s.operations, operationKey(o.Tenant, o.ID), o, bus.Any)
	return err
}

// Operation returns an operation of a tenant, or an error NotFound.
func (s *Store) Operation(ctx context.Context, tenant, id string) (*Operation, error) {
	e, err := s.operations.Get(ctx, operationKey(tenant, id))
	if err != nil {
		return nil, named(err, "operation_not_found", "there is no operation %q", id)
	}
	o := &Operation{}
	if err := json.Unmarshal(e.Value, o); err != nil {
		return nil, errs.New(errs.Internal, "stored operation: %w", err)
	}
	if o.State == OperationRunning && s.now().Sub(o.UpdatedAt) > operationSilence {
		o.State = OperationInterrupted
	}
	return o, nil
}

// CheckImport returns a tenancy.ExceededError if a tenant may not have n
// credentials more.
func (s *Store) CheckImport(ctx context.Context, t *tenancy.TenantRecord, n int) error {
	limits, err := t.Limits()
	if err != nil {
		return err
	}
	has, err := s.CountCredentials(ctx, t.ID)
	if err != nil {
		return err
	}
	if limits.Credentials >= 0 && has+int64(n) > limits.Credentials {
		return &tenancy.ExceededError{Quota: "credentials", Limit: limits.Credentials, Usage: has}
	}
	return nil
}

// ImportCredential is AddCredential for one of many whose quota was checked
// together. The error is Conflict with Code "username_taken" if there is one of
// that name.
func (s *Store) ImportCredential(ctx context.Context, tenant string, like tenancy.Credential) error {
	if _, err := s.createCredential(ctx, tenant, like); err != nil {
		return err
	}
	s.counts.add(tenant, 1)
	return nil
}
