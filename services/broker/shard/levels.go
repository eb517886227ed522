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

// quotaOf are the names of the quotas by which is counted.
var quotaOf = [countedKinds]string{
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
		used := float64(t.own(what)+t.far.fresh[what].Load()) / float64(most)
		k := levelOf{t, what}
		if at := told.Look(now, k, used, false); at != level.Below {
			dst = append(dst, reached{k, at, used})
		}
	}
	return dst
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
