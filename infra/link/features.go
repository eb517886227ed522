// SPDX-License-Identifier: Apache-2.0

package link

import (
	"slices"

	"github.com/manormq/manor/infra/mqtt"
)

// The features of a link (wire.Config): both ends use those that both have.
const (
	// FeatureOwners is of a gateway that takes DownTable and DownMoved, and of a
	// broker that sends them.
	FeatureOwners uint32 = 1 << iota
	// FeatureMoves is of a gateway that takes DownPause, after which DownMoved is for a
	// client that has had CONNACK, and of a broker that takes what such a client is
	// opened again with (Open.Resume).
	FeatureMoves

	// FeatureCells is of a gateway that takes cells in DownTable and goes where DownMoved
	// says, and of a broker that takes what an Open says of the tenant's cell.
	FeatureCells

	// FeatureQuotas is of a gateway that takes DownNote, and of a broker that takes
	// Limits.Tenant.
	FeatureQuotas

	// FeatureRefusals is of a gateway that takes DownNotes that only name a quota.
	FeatureRefusals

	// FeatureLevels is of a gateway that takes DownNotes with a Level.
	FeatureLevels

	// FeatureGrowth is of the API, and of a broker that answers QueryCell: an older one loses
	// the link over it.
	FeatureGrowth

	// FeatureForget is of the API, and of a broker that answers QueryForget: an older one
	// loses the link over it.
	FeatureForget

	// FeatureLooks is of the API, and of a broker that answers QueryQueue and QueryMatch: an
	// older one loses the link over them.
	FeatureLooks

	// Features are all that this package knows.
	Features = FeatureOwners | FeatureMoves | FeatureCells | FeatureQuotas | FeatureRefusals | FeatureLevels | FeatureGrowth | FeatureForget | FeatureLooks
)

// Featured is a Gateway that says which features it has. One that does not has those
// that any Gateway in the broker's process has: FeatureOwners.
type Featured interface {
	Gateway
	Features() uint32
}

// Takes reports whether the broker at the other end of a link takes what a feature is of.
// One in the gateway's process does.
func Takes(b Broker, feature uint32) bool {
	f, ok := b.(interface{ Features() uint32 })
	return !ok || f.Features()&feature != 0
}

// FeaturesOf are the features of gw.
func FeaturesOf(gw Gateway) uint32 {
	if f, ok := gw.(Featured); ok {
		return f.Features()
	}
	return FeatureOwners
}

// withoutCells returns b as a gateway understands it that does not know FeatureCells. It
// chooses among all partitions then; what it brings to the wrong one, brokers refuse.
func withoutCells(b *Down) *Down {
	told := func(f DownFrame) bool { return f.Kind == DownTable && f.Table.Shared > 0 }
	if !slices.ContainsFunc(b.Frames, told) {
		return b
	}
	out := &Down{Messages: b.Messages, Frames: slices.Clone(b.Frames)}
	for i := range out.Frames {
		if f := &out.Frames[i]; told(*f) {
			table := *f.Table
			table.Shared, table.Cells = 0, nil
			f.Table = &table
		}
	}
	return out
}

// withoutQuotas returns b as a broker understands it that does not know FeatureQuotas.
func withoutQuotas(b *Up) *Up {
	told := func(f UpFrame) bool {
		return f.Kind == UpOpen && f.Open.Limits.Tenant.Told || f.Kind == UpLimits && f.Limits.Limits.Tenant.Told
	}
	if !slices.ContainsFunc(b.Frames, told) {
		return b
	}
	out := &Up{Frames: slices.Clone(b.Frames)}
	for i := range out.Frames {
		switch f := &out.Frames[i]; {
		case !told(*f):
		case f.Kind == UpOpen:
			o := *f.Open
			o.Limits.Tenant = TenantLimits{}
			f.Open = &o
		default:
			l := *f.Limits
			l.Limits.Tenant = TenantLimits{}
			f.Limits = &l
		}
	}
	return out
}

// forOld returns b as a gateway understands it that does not know FeatureOwners: it
// hears nothing of the table, and a client of another broker's is refused, to try
// again. So brokers need not know which gateways are old.
func forOld(b *Down) *Down {
	newer := func(f DownFrame) bool { return f.Kind == DownTable || f.Kind == DownMoved }
	if !slices.ContainsFunc(b.Frames, newer) {
		return b
	}
	out := &Down{Messages: b.Messages, Frames: make([]DownFrame, 0, len(b.Frames))}
	for _, f := range b.Frames {
		switch f.Kind {
		case DownTable:
			continue
		case DownMoved:
			f = DownFrame{
				Kind: DownRefused, Channel: f.Channel, Reason: mqtt.ServerUnavailable,
				Text: "another broker has the partition of this client, which this gateway is too old to ask",
			}
		default:
		}
		out.Frames = append(out.Frames, f)
	}
	return out
}
