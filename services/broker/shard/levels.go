// SPDX-License-Identifier: Apache-2.0

package shard

import (
	"log/slog"
	"time"

	"github.com/manormq/manor/infra/level"
	"github.com/manormq/manor/infra/link"
)

// What a tenant uses of a quota is told when it comes to 80%, and to all of it, by each broker that
// watches it: one may have less than the others, and be the only one that knows. Gateways take
// what several tell for one.

// ofGroups is told of beside what is counted: every broker knows all shared subscriptions of a
// tenant by their routes, so that nobody is asked.
const (
	ofGroups  = countedKinds
	toldKinds = countedKinds + 1
)

// quotaOf are the names of the quotas by which is counted.
var quotaOf = [toldKinds]string{
	ofGroups:   "shared_groups",
	ofSessions: "persistent_sessions", ofSubscriptions: "subscriptions", ofRetained: "retained_messages",
	ofRetainedBytes: "retained_bytes", ofStorage: "storage_bytes",
}

// levelOf is a quota of a tenant.
type levelOf struct {
	tenant *Tenant
	what   counted
}

// reached is a quota that has come to a level.
type reached struct {
	levelOf
	at   level.Level
	used float64
}

// look appends which quotas of a tenant have come to a level. told is of the caller.
func (t *Tenant) look(dst []reached, now time.Time, told *level.Told[levelOf]) []reached {
	for what := range countedKinds {
		most := t.far.most[what].Load() - 1
		if most <= 0 {
			continue
		}
		dst = lookAt(dst, now, told, levelOf{t, what}, float64(t.own(what)+t.far.fresh[what].Load())/float64(most))
	}
	if most := t.quota().SharedGroups; most > 0 {
		dst = lookAt(dst, now, told, levelOf{t, ofGroups}, float64(t.routes.Groups())/float64(most))
	}
	return dst
}

// lookAt appends a quota if it has come to a level.
func lookAt(dst []reached, now time.Time, told *level.Told[levelOf], k levelOf, used float64) []reached {
	if at := told.Look(now, k, used, false); at != level.Below {
		dst = append(dst, reached{k, at, used})
	}
	return dst
}

// nearGroups reports whether half of the shared subscriptions that the tenant may have are there.
func (t *Tenant) nearGroups() bool {
	most := t.quota().SharedGroups
	return most > 0 && 2*t.routes.Groups() >= most
}

// watchGroups has a tenant watched that is near the quota shared_groups.
func (s *Shard) watchGroups(t *Tenant) {
	if e := &t.far; t.nearGroups() && !e.watched.Load() && !e.watched.Swap(true) {
		s.set.watch(t)
	}
}

// tellLevel has the history of a tenant say that it has come to a level.
func (s *Shard) tellLevel(r *reached) {
	s.set.log.Info("a tenant comes to its quota", slog.String("tenant", r.tenant.id), slog.String("quota", quotaOf[r.what]), slog.Float64("used", r.used))
	if l := s.set.noteLink(link.FeatureLevels); l != nil {
		s.noteTo(l, link.DownFrame{Kind: link.DownNote, Note: &link.Note{
			Tenant: r.tenant.id, Loose: true, Reason: quotaOf[r.what], Level: r.at, Count: uint32(max(1, min(100*r.used, 1<<20))),
		}})
	}
}
