// SPDX-License-Identifier: Apache-2.0

package remote

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/manormq/manor/tenancy"
)

const (
	// tellEvery is how often decisions are told.
	tellEvery = time.Second
	// decisionsMost is how many of one tenant are told at once; more are counted.
	decisionsMost = 200
)

// decisions are those that were not told yet. They are safe for concurrent use.
type decisions struct {
	mu      sync.Mutex
	tenants map[string]*tenancy.Decisions // guarded by mu
}

// Record has a decision under a tenant's own policy told to those who record them.
// It does not block, and keeps d. With many of a tenant in a second the rest is
// only counted.
func (d *Directory) Record(tenant string, what *tenancy.Decision) {
	t := &d.decisions
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.tenants[tenant]
	if of == nil {
		if t.tenants == nil {
			t.tenants = map[string]*tenancy.Decisions{}
		}
		of = &tenancy.Decisions{Tenant: tenant}
		t.tenants[tenant] = of
	}
	if len(of.Items) >= decisionsMost {
		of.Missed++
		return
	}
	of.Items = append(of.Items, *what)
}

// runDecisions tells decisions. What cannot be told now is lost: the log of the
// gateway has it.
func (d *Directory) runDecisions(ctx context.Context) {
	for pause(ctx, tellEvery) {
		t := &d.decisions
		t.mu.Lock()
		all := t.tenants
		t.tenants = nil
		t.mu.Unlock()
		for _, of := range all {
			b, err := json.Marshal(of)
			if err == nil {
				err = d.cfg.Bus.Publish(ctx, tenancy.DecisionsSubject, b)
			}
			if err != nil {
				d.log.Debug("decisions were not told", "tenant", of.Tenant, "decisions", len(of.Items), "error", err)
			}
		}
	}
}
