// SPDX-License-Identifier: Apache-2.0

package sources

import (
	"context"

	"github.com/manormq/manor/tenancy"
	"github.com/manormq/manor/tenancy/store"
)

// Check checks the text of a vmq_passwd file as Put does before it changes anything, and
// returns how many users it has. The error is that of files.ParsePasswd, or a
// tenancy.ExceededError.
func (s *Service) Check(ctx context.Context, t *tenancy.TenantRecord, text string) (users int, err error) {
	want, err := parse(text)
	if err != nil {
		return 0, err
	}
	_, _, err = s.present(ctx, t, want)
	return len(want), err
}

// Put applies the text of a vmq_passwd file that the tenant itself has sent, as one that has
// changed in the folder would be, and returns what became of it. It waits for whoever applies another one, and
// takes about 30 ms for each hash that is new. The caller has it in the audit log.
func (s *Service) Put(ctx context.Context, tenant, text string) (*store.Source, error) {
	c := &change{tenant: tenant, kind: tenancy.SourcePasswd, text: text}
	if err := s.leases.Lock(ctx, c.lock()); err != nil {
		return nil, err
	}
	defer s.unlock(ctx, c)
	o, _, err := s.settle(ctx, c)
	if err != nil {
		s.changes.WithLabelValues(c.kind, "failed").Inc()
	}
	return o, err
}
