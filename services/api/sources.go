// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"time"

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

type sourcesOutput struct{ Body SourceList }

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
