// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/manormq/manor/services/broker/member"
	"github.com/manormq/manor/services/broker/partition"
)

// orphans are the tenants that move of whose first partition the owner is not alive, and when
// this broker has last said so, or has begun to wait. Nothing is decided of such a tenant, in either
// direction, until that partition is served. It is not safe for concurrent use.
type orphans map[string]time.Time

// look takes a look at a tenant of whose first partition another broker, or nobody, is the owner
// by the table. If that one is not alive, the first broker in the order of names that is says each
// moverSays what is waited for: nobody else does.
func (o orphans) look(log *slog.Logger, self string, all []member.Member, tenant string, first partition.ID, owner string, now time.Time) {
	alive := func(m member.Member) bool { return m.State == member.Alive || m.Name == self }
	speaker := slices.IndexFunc(all, alive)
	if slices.ContainsFunc(all, func(m member.Member) bool { return m.Name == owner && alive(m) }) || speaker < 0 || all[speaker].Name != self {
		delete(o, tenant)
		return
	}
	said, ok := o[tenant]
	if !ok {
		o[tenant] = now
		return
	}
	if now.Sub(said) < moverSays {
		return
	}
	o[tenant] = now
	waits := fmt.Sprintf("an owner of partition %d, the first of its list", first)
	if owner != "" {
		waits = fmt.Sprintf("%s, the owner of partition %d, which is the first of its list, to be back, or another to take its place", owner, first)
	}
	log.Warn("nothing is decided of a tenant that goes to other partitions, and its clients wait", slog.String("tenant", tenant), slog.String("waits_for", waits))
}
