// SPDX-License-Identifier: Apache-2.0

package decide

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/manormq/manor/infra/errs"
	"github.com/manormq/manor/tenancy"
)

// Bounds of what is remembered.
const (
	tenantsRecorded   = 200
	decisionsRecorded = 1000
	arrivalsRecorded  = 200
	examplesMost      = 100
)

// arrival is what mqtt.connect has said of a client.
type arrival struct {
	Tenant  string                `json:"tenant"`
	Arrival tenancy.Arrival       `json:"arrival"`
	Answer  tenancy.ConnectAnswer `json:"answer"`
}

// record is what is remembered of a tenant, the oldest first.
type record struct {
	decisions []tenancy.Decision
	arrivals  []arrival
	shadow    shadow
}

// shadow is what a candidate would have decided, since it is looked at.
type shadow struct {
	revision uint64
	diff     Diff
}

// Change is a decision that would be another one.
type Change struct {
	// Decision is its id, empty for a connect.
	Decision string          `json:"decision,omitempty"`
	Client   tenancy.Subject `json:"client"`
	// Connect is that it is about mqtt.connect; then the question is empty.
	Connect bool `json:"connect,omitempty"`
	tenancy.Question
	Was   bool   `json:"was"`
	Would bool   `json:"would"`
	Why   string `json:"why"`
}

// Diff is how often a candidate would decide otherwise. It is a plain value.
type Diff struct {
	Since    time.Time `json:"since"`
	Looked   int       `json:"looked"`
	Changed  int       `json:"changed"`
	Examples []Change  `json:"examples"`
}

func (d *Diff) add(c *Change) {
	d.Looked++
	if c.Was == c.Would {
		return
	}
	d.Changed++
	if len(d.Examples) < examplesMost {
		d.Examples = append(d.Examples, *c)
	}
}

// of returns the record of a tenant. The caller holds mu.
func (s *Service) of(tenant string) *record {
	r, ok := s.recorded.Get(tenant)
	if !ok {
		r = &record{}
		s.recorded.Add(tenant, r)
	}
	return r
}

// keep appends, and drops the oldest beyond a number.
func keep[T any](all []T, more []T, most int) []T {
	all = append(all, more...)
	if over := len(all) - most; over > 0 {
		all = slices.Delete(all, 0, over)
	}
	return all
}

// heard takes the decisions of a gateway.
func (s *Service) heard(ctx context.Context, body []byte) {
	var d tenancy.Decisions
	if err := json.Unmarshal(body, &d); err != nil {
		s.log.Error("decisions of a gateway cannot be read", "error", err)
		return
	}
	s.mu.Lock()
	r := s.of(d.Tenant)
	r.decisions = keep(r.decisions, d.Items, decisionsRecorded)
	s.mu.Unlock()
	s.look(ctx, d.Tenant, func(c *Candidate, diff *Diff) {
		for i := range d.Items {
			diff.add(c.decision(&d.Items[i]))
		}
	})
}

// arrived takes what mqtt.connect has said of a client.
func (s *Service) arrived(ctx context.Context, body []byte) {
	var a arrival
	if err := json.Unmarshal(body, &a); err != nil {
		return
	}
	s.mu.Lock()
	r := s.of(a.Tenant)
	r.arrivals = keep(r.arrivals, []arrival{a}, arrivalsRecorded)
	s.mu.Unlock()
	s.look(ctx, a.Tenant, func(c *Candidate, diff *Diff) { diff.add(c.arrival(ctx, &a)) })
}

// look has the candidate of a tenant, if there is one, look at what was decided.
func (s *Service) look(ctx context.Context, tenant string, f func(*Candidate, *Diff)) {
	t, err := s.cfg.Store.Tenant(ctx, tenant)
	if err != nil || t.Policy == nil || t.Policy.Shadow == 0 {
		return
	}
	c, err := s.Kept(ctx, t, t.Policy.Shadow)
	if err != nil {
		s.log.Warn("a shadow of a policy cannot be followed", "tenant", tenant, "revision", t.Policy.Shadow, "error", err)
		return
	}
	more := Diff{}
	f(c, &more)
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := &s.of(tenant).shadow
	if sh.revision != t.Policy.Shadow {
		*sh = shadow{t.Policy.Shadow, Diff{Since: time.Now().UTC()}}
	}
	sh.diff.Looked += more.Looked
	sh.diff.Changed += more.Changed
	if room := examplesMost - len(sh.diff.Examples); room > 0 {
		sh.diff.Examples = append(sh.diff.Examples, more.Examples[:min(room, len(more.Examples))]...)
	}
}

// Shadow is what the candidate of a tenant would have decided, of what this process
// has heard. The error is NotFound if there is no candidate.
func (s *Service) Shadow(t *tenancy.TenantRecord) (Diff, error) {
	if t.Policy == nil || t.Policy.Shadow == 0 {
		return Diff{}, errs.Coded(errs.NotFound, "shadow_not_found", "no revision of the policy is looked at beside the live one")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.of(t.ID).shadow
	if sh.revision != t.Policy.Shadow {
		return Diff{Since: time.Now().UTC(), Examples: []Change{}}, nil
	}
	d := sh.diff
	d.Examples = append([]Change{}, d.Examples...)
	return d, nil
}

// Decision returns one that was recorded, or an error NotFound.
func (s *Service) Decision(tenant, id string) (*tenancy.Decision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.of(tenant).decisions
	for i := range all {
		if all[i].ID == id {
			d := all[i]
			return &d, nil
		}
	}
	return nil, errs.Coded(errs.NotFound, "decision_not_found", "there is no such decision among the last %d that were recorded here", decisionsRecorded)
}

// Simulate holds a compiled policy against what was recorded of the tenant.
func (s *Service) Simulate(ctx context.Context, t *tenancy.TenantRecord, c *Candidate) Diff {
	s.mu.Lock()
	r := s.of(t.ID)
	decisions, arrivals := slices.Clone(r.decisions), slices.Clone(r.arrivals)
	s.mu.Unlock()
	d := Diff{Examples: []Change{}}
	for i := range arrivals {
		d.add(c.arrival(ctx, &arrivals[i]))
	}
	for i := range decisions {
		if i == 0 {
			d.Since = decisions[i].At
		}
		d.add(c.decision(&decisions[i]))
	}
	return d
}
